//! What was found. Pure.

use serde::Serialize;

/// What it is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Area {
    /// The config, and the files that it names.
    Config,
    /// Network interfaces.
    Interfaces,
    /// Ports, and who has them.
    Ports,
    /// Other DHCP servers.
    Dhcp,
    /// Images, and what machines load out of them.
    Images,
    /// Overlays.
    Overlays,
    /// Free space.
    Space,
    /// What the kernel gives.
    Kernel,
    /// The machines, as the running server sees them.
    Machines,
}

impl Area {
    /// The word for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Config => "config",
            Self::Interfaces => "interfaces",
            Self::Ports => "ports",
            Self::Dhcp => "dhcp",
            Self::Images => "images",
            Self::Overlays => "overlays",
            Self::Space => "space",
            Self::Kernel => "kernel",
            Self::Machines => "machines",
        }
    }
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// All is well.
    Fine,
    /// It could not be looked at.
    Unknown,
    /// It works, and may not for long or not for all.
    Warning,
    /// Machines can't be served as they are to be.
    Wrong,
}

impl Level {
    /// The word for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fine => "fine",
            Self::Unknown => "unknown",
            Self::Warning => "warning",
            Self::Wrong => "wrong",
        }
    }
}

/// Something that was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What it is about.
    pub area: Area,
    /// How bad it is.
    pub level: Level,
    /// Which of those: a file, a port, a machine.
    pub about: String,
    /// What was found.
    pub what: String,
    /// What to do.
    pub advice: Option<String>,
}

impl Finding {
    /// All is well.
    pub(super) fn fine(area: Area, about: impl Into<String>, what: impl Into<String>) -> Self {
        Self {
            area,
            level: Level::Fine,
            about: about.into(),
            what: what.into(),
            advice: None,
        }
    }

    /// It could not be looked at.
    pub(super) fn unknown(area: Area, about: impl Into<String>, what: impl Into<String>) -> Self {
        Self {
            level: Level::Unknown,
            ..Self::fine(area, about, what)
        }
    }

    /// It works for now.
    pub(super) fn warning(area: Area, about: impl Into<String>, what: impl Into<String>) -> Self {
        Self {
            level: Level::Warning,
            ..Self::fine(area, about, what)
        }
    }

    /// It does not work.
    pub(super) fn wrong(area: Area, about: impl Into<String>, what: impl Into<String>) -> Self {
        Self {
            level: Level::Wrong,
            ..Self::fine(area, about, what)
        }
    }

    /// With what to do.
    pub(super) fn advised(mut self, advice: impl Into<String>) -> Self {
        self.advice = Some(advice.into());
        self
    }

    /// What a message says that reads `what: why; what to do`.
    pub(super) fn from_message(area: Area, about: impl Into<String>, message: &str) -> Self {
        match message.split_once("; ") {
            Some((what, advice)) => Self::wrong(area, about, what).advised(advice),
            None => Self::wrong(area, about, message).advised("mend that, then ask again"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_has_its_advice_behind_the_first_semicolon() {
        let found = Finding::from_message(Area::Images, "disk", "disk.img: no file; check; look");
        assert_eq!(found.what, "disk.img: no file");
        assert_eq!(found.advice.as_deref(), Some("check; look"));
        let found = Finding::from_message(Area::Images, "disk", "gone");
        assert_eq!(found.what, "gone");
        assert!(found.advice.is_some());
    }

    #[test]
    fn what_is_wrong_is_worse_than_what_may_be() {
        assert!(Level::Wrong > Level::Warning && Level::Unknown > Level::Fine);
    }
}
