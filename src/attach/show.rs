//! A status in words. Pure.

use super::control::{Condition, Status};

/// One line.
pub(super) fn status(status: &Status) -> String {
    let device = &status.device;
    let Some(kept) = &status.kept else {
        return match status.state {
            Condition::Unattended => {
                format!("{device}: attached, and nothing would connect it again")
            }
            _ => format!("{device}: not attached"),
        };
    };
    let size = status.size.unwrap_or(0);
    let access = if kept.read_only {
        "read-only"
    } else {
        "writable"
    };
    let disk = format!("{} at {}, {size} bytes, {access}", kept.export, kept.server);
    let alive = format!("connections: {} of {}", kept.alive, kept.connections);
    let seconds = kept.outage_ms.map_or(0, |length| length / 1000);
    match status.state {
        Condition::Reconnecting => {
            let trouble = kept.trouble.as_deref().unwrap_or("trying");
            format!("{device}: reconnecting for {seconds} s: {disk}, {alive}; {trouble}")
        }
        _ => format!(
            "{device}: attached: {disk}, {alive}, outages so far: {}",
            kept.outages
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::control::Kept;
    use super::*;

    fn of(state: Condition, kept: Option<Kept>) -> String {
        status(&Status {
            device: "nbd0".to_owned(),
            state,
            pid: Some(7),
            size: Some(1024),
            kept,
        })
    }

    fn kept() -> Kept {
        Kept {
            export: "disk+1@a".to_owned(),
            server: "10.77.0.1:10809".to_owned(),
            read_only: false,
            connections: 2,
            alive: 1,
            outages: 3,
            outage_ms: Some(61_500),
            trouble: Some("10.77.0.1:10809: nobody listens there".to_owned()),
        }
    }

    #[test]
    fn an_attached_device_is_shown_with_its_disk() {
        assert_eq!(
            of(Condition::Attached, Some(kept())),
            "nbd0: attached: disk+1@a at 10.77.0.1:10809, 1024 bytes, writable, \
             connections: 1 of 2, outages so far: 3"
        );
    }

    #[test]
    fn an_outage_is_shown_with_its_reason() {
        assert_eq!(
            of(Condition::Reconnecting, Some(kept())),
            "nbd0: reconnecting for 61 s: disk+1@a at 10.77.0.1:10809, 1024 bytes, writable, \
             connections: 1 of 2; 10.77.0.1:10809: nobody listens there"
        );
    }

    #[test]
    fn a_device_that_nobody_keeps_is_shown_as_that() {
        let said = "nbd0: attached, and nothing would connect it again";
        assert_eq!(of(Condition::Unattended, None), said);
        assert_eq!(of(Condition::Detached, None), "nbd0: not attached");
    }
}
