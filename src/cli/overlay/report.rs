//! Answers of `cowherd overlay` as text. Pure but for the present time.

use std::io::{self, Write};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::cli::moment::{age, date};
use crate::cli::size::readable;
use crate::serve::control::Answer;
use crate::serve::control::answer::{Checked, Committed, Entry, Facts};

/// Whether the answer says that all is well.
pub(super) fn is_well(answer: &Answer) -> bool {
    match answer {
        Answer::Check(all) => all.iter().all(|checked| checked.problems.is_empty()),
        Answer::Show(entry) => entry.problem.is_none(),
        _ => true,
    }
}

/// What is asked before an overlay is removed.
pub(super) fn question(entry: &Entry) -> String {
    let held = entry.facts.as_ref().map_or_else(String::new, |facts| {
        format!(", {} of its client's writes", readable(own_bytes(facts)))
    });
    format!("Remove overlay {}{held}, for good?", entry.overlay)
}

/// The answer for programs: one line.
pub(super) fn write_json(out: &mut impl Write, answer: &Answer) -> io::Result<()> {
    match answer {
        Answer::List(entries) => serde_json::to_writer(&mut *out, entries),
        Answer::Show(entry) => serde_json::to_writer(&mut *out, entry),
        Answer::Check(all) => serde_json::to_writer(&mut *out, all),
        Answer::Reset { overlay } => {
            serde_json::to_writer(&mut *out, &serde_json::json!({ "overlay": overlay }))
        }
        Answer::Commit(committed) => serde_json::to_writer(&mut *out, committed),
        // No command here asks for it.
        other => serde_json::to_writer(&mut *out, other),
    }?;
    writeln!(out)
}

/// The answer for people.
pub(super) fn write_text(out: &mut impl Write, answer: &Answer) -> io::Result<()> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.map_or(0, |time| time.as_secs());
    match answer {
        Answer::List(entries) => write_list(out, entries, now),
        Answer::Show(entry) => write_entry(out, entry, now),
        Answer::Check(all) => all
            .iter()
            .try_for_each(|checked| write_checked(out, checked)),
        Answer::Reset { overlay } => writeln!(out, "{overlay}: removed"),
        Answer::Commit(committed) => write_committed(out, committed),
        // No command here asks for it.
        Answer::Status(_) | Answer::Leases(_) | Answer::ForgetLease { .. } => Ok(()),
    }
}

const fn own_bytes(facts: &Facts) -> u64 {
    facts.blocks.present * facts.blocks.bytes
}

fn write_list(out: &mut impl Write, entries: &[Entry], now: u64) -> io::Result<()> {
    let head = ["OVERLAY", "MODE", "SIZE", "BLOCKS", "AGE", "IN USE"].map(str::to_owned);
    let rows: Vec<_> = std::iter::once(head)
        .chain(entries.iter().map(|entry| row(entry, now)))
        .collect();
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: [usize; 6] = std::array::from_fn(width);
    for row in &rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(widths) {
            line.push_str(&format!("{cell:<width$}  "));
        }
        writeln!(out, "{}", line.trim_end())?;
    }
    for (overlay, problem) in problems(entries) {
        writeln!(out, "{overlay}: {problem}")?;
    }
    Ok(())
}

fn problems(entries: &[Entry]) -> impl Iterator<Item = (&String, &String)> {
    entries
        .iter()
        .filter_map(|entry| Some((&entry.overlay, entry.problem.as_ref()?)))
}

fn row(entry: &Entry, now: u64) -> [String; 6] {
    let Some(facts) = &entry.facts else {
        let mut row = std::array::from_fn(|_| "-".to_owned());
        row[0].clone_from(&entry.overlay);
        row[1] = "damaged".to_owned();
        return row;
    };
    [
        entry.overlay.clone(),
        mode(facts),
        readable(facts.space_bytes),
        facts.blocks.present.to_string(),
        age(facts.created, now),
        users(facts).unwrap_or_else(|| "no".to_owned()),
    ]
}

fn mode(facts: &Facts) -> String {
    let expired = if facts.expired { " (expired)" } else { "" };
    format!("{}{expired}", facts.mode.as_str())
}

/// Who uses it; `None` where nobody does.
fn users(facts: &Facts) -> Option<String> {
    let users = facts.in_use.as_ref()?;
    Some(match users.as_slice() {
        [] => "yes".to_owned(),
        users => users.join(", "),
    })
}

fn write_entry(out: &mut impl Write, entry: &Entry, now: u64) -> io::Result<()> {
    writeln!(out, "overlay       {}", entry.overlay)?;
    if let Some(problem) = &entry.problem {
        writeln!(out, "problem       {problem}")?;
    }
    let Some(facts) = &entry.facts else {
        return Ok(());
    };
    let moment = |then| format!("{} ({} ago)", date(then), age(then, now));
    let client = facts.last_client.as_ref();
    let client = client.map(|client| format!("{}, {}", client.peer, moment(client.at)));
    let unknown = || "not known".to_owned();
    let journal = &facts.journal;
    let mut lines = vec![
        ("mode", mode(facts)),
        ("size", readable(facts.space_bytes)),
        ("disk size", disk_size(facts)),
        ("blocks", blocks(facts)),
        ("created", moment(facts.created)),
        ("last written", moment(facts.written)),
        ("last client", client.unwrap_or_else(unknown)),
        (
            "in use by",
            users(facts).unwrap_or_else(|| "nobody".to_owned()),
        ),
        (
            "journal",
            format!(
                "generation {}, {} of {} bytes",
                journal.generation, journal.used, journal.size
            ),
        ),
        (
            "checkpoint",
            facts
                .checkpoint
                .map_or_else(unknown, |generation| format!("generation {generation}")),
        ),
    ];
    lines.extend(
        facts
            .poison
            .clone()
            .map(|why| ("problem", format!("it takes no more writes: {why}"))),
    );
    lines
        .iter()
        .try_for_each(|(key, value)| writeln!(out, "{key:<13} {value}"))
}

fn disk_size(facts: &Facts) -> String {
    format!(
        "{} ({} bytes)",
        readable(facts.disk_bytes),
        facts.disk_bytes
    )
}

fn blocks(facts: &Facts) -> String {
    format!(
        "{} present ({}), {} zero ({})",
        facts.blocks.present,
        readable(own_bytes(facts)),
        facts.blocks.zero,
        readable(facts.blocks.zero * facts.blocks.bytes)
    )
}

fn write_checked(out: &mut impl Write, checked: &Checked) -> io::Result<()> {
    let verdict = match (checked.problems.is_empty(), checked.warnings.is_empty()) {
        (false, _) => "wrong",
        (true, false) => "suspicious",
        (true, true) => "good",
    };
    writeln!(out, "{}: {verdict}", checked.overlay)?;
    let kinds = [
        ("problem", &checked.problems),
        ("warning", &checked.warnings),
        ("note", &checked.notes),
    ];
    for (kind, findings) in kinds {
        for finding in findings {
            writeln!(out, "  {kind}: {finding}")?;
        }
    }
    Ok(())
}

fn write_committed(out: &mut impl Write, committed: &Committed) -> io::Result<()> {
    let shared = if committed.shared {
        format!(
            ", unchanged blocks shared with {}",
            committed.image.display()
        )
    } else {
        String::new()
    };
    writeln!(
        out,
        "{}: written to {}, {} ({} on its file system{shared})",
        committed.overlay,
        committed.file.display(),
        readable(committed.bytes),
        readable(committed.space_bytes),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::control::answer::{Blocks, Journal, LastClient, Mode};

    fn facts() -> Facts {
        Facts {
            mode: Mode::Ephemeral,
            expired: false,
            disk_bytes: 10_000_001,
            space_bytes: 3 << 20,
            blocks: Blocks {
                bytes: 4096,
                present: 256,
                zero: 2,
            },
            created: 1000,
            written: 4000,
            last_client: Some(LastClient {
                peer: "10.0.0.7:99".to_owned(),
                at: 3000,
            }),
            checkpoint: Some(4),
            journal: Journal {
                generation: 4,
                used: 512,
                size: 1 << 20,
            },
            in_use: Some(vec!["10.0.0.7:99".to_owned()]),
            poison: None,
        }
    }

    fn entry(overlay: &str, facts: Option<Facts>) -> Entry {
        Entry {
            overlay: overlay.to_owned(),
            problem: facts.is_none().then(|| "header: gone".to_owned()),
            facts,
        }
    }

    fn text(write: impl FnOnce(&mut Vec<u8>) -> io::Result<()>) -> String {
        let mut out = Vec::new();
        write(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_list_is_a_table_with_what_is_damaged_below() {
        let entries = [
            entry("disk+1@a", Some(facts())),
            entry("disk+1@long-name", None),
        ];
        assert_eq!(
            text(|out| write_list(out, &entries, 4600)),
            "OVERLAY           MODE       SIZE     BLOCKS  AGE  IN USE\n\
             disk+1@a          ephemeral  3.0 MiB  256     1 h  10.0.0.7:99\n\
             disk+1@long-name  damaged    -        -       -    -\n\
             disk+1@long-name: header: gone\n"
        );
    }

    #[test]
    fn an_overlay_is_shown_line_by_line() {
        assert_eq!(
            text(|out| write_entry(out, &entry("disk+1@a", Some(facts())), 4600)),
            "overlay       disk+1@a\n\
             mode          ephemeral\n\
             size          3.0 MiB\n\
             disk size     9.5 MiB (10000001 bytes)\n\
             blocks        256 present (1.0 MiB), 2 zero (8.0 KiB)\n\
             created       1970-01-01 00:16:40 UTC (1 h ago)\n\
             last written  1970-01-01 01:06:40 UTC (10 min ago)\n\
             last client   10.0.0.7:99, 1970-01-01 00:50:00 UTC (26 min ago)\n\
             in use by     10.0.0.7:99\n\
             journal       generation 4, 512 of 1048576 bytes\n\
             checkpoint    generation 4\n"
        );
    }

    #[test]
    fn a_check_is_as_bad_as_its_worst_finding() {
        let mut checked = Checked {
            overlay: "disk+1@a".to_owned(),
            in_use: false,
            problems: Vec::new(),
            warnings: Vec::new(),
            notes: vec!["n".to_owned()],
        };
        let said = |checked: &Checked| {
            let well = is_well(&Answer::Check(vec![checked.clone()]));
            (text(|out| write_checked(out, checked)), well)
        };
        assert_eq!(
            said(&checked),
            ("disk+1@a: good\n  note: n\n".to_owned(), true)
        );
        checked.warnings.push("w".to_owned());
        assert!(said(&checked).0.contains("suspicious") && said(&checked).1);
        checked.problems.push("p".to_owned());
        assert!(said(&checked).0.contains("wrong") && !said(&checked).1);
    }

    #[test]
    fn json_of_an_overlay_is_flat_and_comes_back() {
        let shown = entry("disk+1@a", Some(facts()));
        let json = text(|out| write_json(out, &Answer::Show(shown.clone())));
        assert!(
            json.starts_with(r#"{"overlay":"disk+1@a","mode":"ephemeral","#),
            "{json}"
        );
        assert_eq!(serde_json::from_str::<Entry>(&json).unwrap(), shown);
        let damaged = entry("disk+1@b", None);
        let json = text(|out| write_json(out, &Answer::List(vec![damaged.clone()])));
        assert_eq!(
            serde_json::from_str::<Vec<Entry>>(&json).unwrap(),
            [damaged]
        );
    }
}
