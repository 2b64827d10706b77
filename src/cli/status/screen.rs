//! How machines are doing, as lines of text. Pure.

use crate::cli::moment::{age, date};
use crate::cli::size::readable;
use crate::serve::control::answer::Status;
use crate::status::At;
use crate::status::report::{Boot, Client, Passage, State};

/// The head of the table.
pub(super) const HEAD: [&str; 8] = [
    "MACHINE", "STATE", "STAGE", "SINCE", "EXPORT", "READ/S", "WRITE/S", "OVERLAY",
];

/// One machine as a row of the table.
pub(super) fn row(client: &Client, now: At) -> [String; HEAD.len()] {
    let none = || "-".to_owned();
    let traffic = client.traffic.as_ref();
    let rate = |rate: Option<u64>| rate.filter(|rate| *rate > 0).map_or_else(none, readable);
    let since = client.since.map(|since| age(since.0 / 1000, now.0 / 1000));
    let overlay = traffic.and_then(|traffic| traffic.overlay_bytes);
    [
        client.id.clone(),
        client.state.name().to_owned(),
        client
            .stage
            .map_or_else(none, |stage| stage.title().to_owned()),
        since.unwrap_or_else(none),
        client.export.clone().unwrap_or_else(none),
        rate(traffic.map(|traffic| traffic.reads_per_second)),
        rate(traffic.map(|traffic| traffic.writes_per_second)),
        overlay.map_or_else(none, readable),
    ]
}

/// How many there are of each state, in words.
pub(super) fn summary(status: &Status) -> String {
    let count = |state| {
        let of_state = status.clients.iter().filter(|client| client.state == state);
        of_state.count()
    };
    let counts = State::ALL.map(|state| (count(state), state.name()));
    let counts = counts.iter().filter(|(count, _)| *count > 0);
    let words: Vec<_> = counts
        .map(|(count, name)| format!("{count} {name}"))
        .collect();
    let head = match (status.running, status.clients.len()) {
        (true, 0) => "no machine was seen yet".to_owned(),
        (true, 1) => "1 machine".to_owned(),
        (true, many) => format!("{many} machines"),
        (false, many) => format!(
            "no server runs; {} when it ended, {}",
            match many {
                1 => "1 machine as it was".to_owned(),
                many => format!("{many} machines as they were"),
            },
            date(status.now.0 / 1000)
        ),
    };
    match words.is_empty() {
        true => head,
        false => format!("{head}: {}", words.join(", ")),
    }
}

/// What is wrong, a line for each machine that needs help.
pub(super) fn problems(status: &Status) -> impl Iterator<Item = String> {
    let wrong = status.clients.iter();
    wrong.filter_map(|client| Some(format!("{}: {}", client.id, client.problem.as_ref()?)))
}

/// All machines.
pub(super) fn all(status: &Status) -> Vec<String> {
    let mut lines = vec![summary(status)];
    if status.clients.is_empty() {
        return lines;
    }
    let head = HEAD.map(str::to_owned);
    let rows = status.clients.iter().map(|client| row(client, status.now));
    let rows: Vec<_> = std::iter::once(head).chain(rows).collect();
    lines.push(String::new());
    lines.extend(table(&rows));
    let wrong: Vec<_> = problems(status).collect();
    if !wrong.is_empty() {
        lines.push(String::new());
        lines.extend(wrong);
    }
    lines
}

fn table<const N: usize>(rows: &[[String; N]]) -> Vec<String> {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: [usize; N] = std::array::from_fn(width);
    let line = |row: &[String; N]| {
        let cells = row.iter().zip(widths);
        let cells: Vec<_> = cells
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        cells.join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

/// One machine with its boots.
pub(super) fn one(client: &Client, now: At) -> Vec<String> {
    let mut lines = Vec::new();
    let facts = [
        ("machine", Some(client.id.clone())),
        ("state", Some(client.state.name().to_owned())),
        ("problem", client.problem.clone()),
        ("MAC address", client.mac.clone()),
        ("address", client.address.clone()),
        ("calls itself", client.hostname.clone()),
        ("architecture", client.architecture.clone()),
        ("export", client.export.clone()),
        ("connections", Some(client.connections.to_string())),
        (
            "last heard of",
            Some(format!("{} ago", age(client.seen.0 / 1000, now.0 / 1000))),
        ),
    ];
    let facts = facts.into_iter().chain(traffic(client));
    for (name, value) in facts.filter_map(|(name, value)| Some((name, value?))) {
        lines.push(format!("{name:<15}{value}"));
    }
    let latencies = client.latencies.iter().map(|(kind, of)| {
        [
            kind.clone(),
            of.count.to_string(),
            micros(of.median),
            micros(of.p99),
            micros(of.longest),
        ]
    });
    let head = ["REQUESTS", "COUNT", "MEDIAN", "99 %", "LONGEST"].map(str::to_owned);
    let rows: Vec<_> = std::iter::once(head).chain(latencies).collect();
    if rows.len() > 1 {
        lines.push(String::new());
        lines.extend(table(&rows));
    }
    for boot in &client.boots {
        lines.push(String::new());
        lines.extend(timeline(boot));
    }
    lines
}

fn traffic(client: &Client) -> impl Iterator<Item = (&'static str, Option<String>)> {
    let traffic = client.traffic.as_ref();
    let errors = traffic.map(|traffic| {
        let causes = traffic.errors.iter();
        let causes: Vec<_> = causes
            .map(|(cause, count)| format!("{count} {cause}"))
            .collect();
        causes.join(", ")
    });
    let facts = [
        ("has read", traffic.map(|of| readable(of.bytes_read))),
        ("has written", traffic.map(|of| readable(of.bytes_written))),
        (
            "overlay holds",
            traffic.and_then(|of| of.overlay_bytes).map(readable),
        ),
        ("errors", errors.filter(|errors| !errors.is_empty())),
    ];
    facts.into_iter()
}

/// One boot, stage by stage.
fn timeline(boot: &Boot) -> Vec<String> {
    let took = boot
        .took
        .map(|took| format!(", up after {}", seconds(took)));
    let again = match boot.reconnects {
        0 => String::new(),
        count => format!(", connected again {count} times"),
    };
    let mut lines = vec![format!(
        "boot of {}: {}{}{again}",
        date(boot.began.0 / 1000),
        boot.state.name(),
        took.unwrap_or_default(),
    )];
    let rows: Vec<_> = boot.stages.iter().map(stage).collect();
    lines.extend(table(&rows).into_iter().map(|line| format!("  {line}")));
    if let Some(problem) = &boot.problem {
        lines.push(format!("  {problem}"));
    }
    lines
}

fn stage(passage: &Passage) -> [String; 4] {
    let at = passage.ended.map_or_else(|| "-".to_owned(), seconds);
    let mut notes = Vec::new();
    if passage.bytes > 0 {
        notes.push(readable(passage.bytes));
    }
    if !passage.detail.is_empty() {
        notes.push(passage.detail.clone());
    }
    if passage.tries > 1 {
        notes.push(format!("tried {} times", passage.tries));
    }
    if let (true, Some(usual)) = (passage.slow, passage.usual) {
        notes.push(format!("SLOW: usually {}", seconds(usual)));
    }
    if let Some(failure) = &passage.failure {
        notes.push(format!("FAILED: {failure}"));
    } else if passage.ended.is_none() {
        notes.push("not done".to_owned());
    }
    let took = passage.took.map(|took| format!("+{}", seconds(took)));
    [
        passage.stage.title().to_owned(),
        at,
        took.unwrap_or_default(),
        notes.join(", "),
    ]
}

fn micros(micros: u64) -> String {
    match micros {
        0..10_000 => format!("{micros} us"),
        _ => format!("{} ms", micros / 1000),
    }
}

/// Milliseconds as seconds, such as `1.25 s`.
fn seconds(millis: u64) -> String {
    match millis {
        0..10_000 => format!("{}.{:02} s", millis / 1000, millis % 1000 / 10),
        _ => format!("{}.{} s", millis / 1000, millis % 1000 / 100),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mac::MacAddress;
    use crate::status::event::{Asker, Speaker};
    use crate::status::{Event, Sign, Timelines};

    /// One machine that waits for its boot loader, at this moment.
    fn status(now: u64) -> Status {
        let mut all = Timelines::default();
        let sign = Sign {
            mac: Some(MacAddress([2, 0, 0, 0, 0, 1])),
            address: Some([10, 0, 0, 7].into()),
            name: Some("pc".to_owned()),
        };
        let asker = Asker {
            speaker: Speaker::Firmware,
            architecture: Some("bios"),
            hostname: None,
            vendor: None,
        };
        all.handle(At(1_000_000), &sign, &Event::Asked(asker));
        all.handle(At(1_000_120), &sign, &Event::Offered);
        all.handle(At(1_000_250), &sign, &Event::Acknowledged);
        Status {
            running: true,
            now: At(now),
            clients: all.clients(At(now)),
            exports: Vec::new(),
        }
    }

    #[test]
    fn a_machine_is_a_row_and_what_is_wrong_with_it_a_line() {
        let lines = all(&status(1_060_250));
        assert_eq!(lines[0], "1 machine: 1 stuck");
        let row: Vec<_> = lines[3].split_whitespace().collect();
        assert_eq!(
            row,
            ["pc", "stuck", "DHCP", "ACK", "1", "min", "-", "-", "-", "-"]
        );
        assert!(
            lines[5].starts_with("pc: it has an address and asked"),
            "{lines:?}"
        );
    }

    #[test]
    fn a_boot_is_shown_stage_by_stage() {
        let status = status(1_001_000);
        let lines = one(&status.clients[0], status.now);
        let at = lines
            .iter()
            .position(|line| line.starts_with("boot of"))
            .unwrap();
        assert_eq!(lines[at], "boot of 1970-01-01 00:16:40 UTC: booting");
        assert_eq!(lines[at + 2].trim(), "DHCP OFFER     0.12 s  +0.12 s");
        assert_eq!(lines[at + 3].trim(), "DHCP ACK       0.25 s  +0.13 s");
    }

    #[test]
    fn without_a_server_the_lines_say_so() {
        let stopped = Status {
            running: false,
            ..status(1_001_000)
        };
        assert!(
            all(&stopped)[0].starts_with("no server runs"),
            "{:?}",
            all(&stopped)
        );
        let empty = Status {
            running: true,
            now: At(0),
            clients: Vec::new(),
            exports: Vec::new(),
        };
        assert_eq!(all(&empty), ["no machine was seen yet"]);
    }
}
