//! The page of the config file and the program know the same keys.

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::collections::BTreeSet;
use std::path::Path;

use cowherd::config::Config;

/// What `text` is refused with; `None` where it is accepted.
fn refusal(text: &str) -> Option<String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cowherd.toml");
    std::fs::write(&path, text).unwrap();
    Config::read(&path).err().map(|error| error.to_string())
}

const IMAGE: &str = "[image.NAME]\nfile = \"/a\"\n";

/// A file with `line` in `section`, and with all that is needed beside it.
fn with(section: &str, line: &str) -> String {
    match section {
        "at the top" => format!("{line}\n{IMAGE}"),
        "[image.NAME]" => format!("{IMAGE}{line}\n"),
        section => format!("{section}\n{line}\n{IMAGE}"),
    }
}

/// The keys that the program takes in a section: it lists them when it is given another.
fn known_keys(section: &str) -> BTreeSet<String> {
    let message = refusal(&with(section, "no-such-key = 1")).unwrap();
    let (_, expected) = message
        .split_once("expected ")
        .unwrap_or_else(|| panic!("{section}: {message}"));
    let keys = expected.split('`').skip(1).step_by(2);
    let served = |key: &&str| {
        let message = refusal(&with(section, &format!("{key} = 1"))).unwrap_or_default();
        !message.contains("not in this version")
    };
    keys.filter(served).map(str::to_owned).collect()
}

fn page() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("man/cowherd.toml.5");
    std::fs::read_to_string(path).unwrap()
}

/// The sections of the page that describe keys, with the keys that each of them describes.
fn described() -> Vec<(String, BTreeSet<String>)> {
    let page = page();
    let keys = page.split(".SH ").find(|part| part.starts_with("KEYS"));
    let sections = keys.unwrap().split("\n.SS ").skip(1);
    sections
        .map(|section| {
            let (title, text) = section.split_once('\n').unwrap();
            let keys = text.split(".TP\n.B ").skip(1);
            let keys = keys.map(|key| key.lines().next().unwrap().replace('\\', ""));
            let keys =
                keys.flat_map(|keys| keys.split(", ").map(str::to_owned).collect::<Vec<_>>());
            (title.trim_matches('"').to_owned(), keys.collect())
        })
        .collect()
}

#[test]
fn every_key_is_described_and_every_described_key_is_known() {
    for (section, keys) in described() {
        let mut known = known_keys(&section);
        // A key that is a table has a section of its own.
        let above = match section.as_str() {
            "at the top" => "",
            table => &format!("{}.", table.trim_matches(['[', ']'])),
        };
        known.retain(|key| {
            let table = format!("\n.SS [{above}{key}");
            !page().contains(&format!("{table}]")) && !page().contains(&format!("{table}."))
        });
        assert_eq!(known, keys, "{section}");
    }
}

#[test]
fn every_table_has_its_section() {
    let described = described();
    for table in known_keys("at the top") {
        let found = described.iter().any(|(section, keys)| {
            keys.contains(&table)
                || section.trim_matches(['[', ']']).split('.').next() == Some(&table)
        });
        assert!(found, "[{table}] is not in man/cowherd.toml.5");
    }
}

#[test]
fn the_example_of_the_page_is_a_config_file() {
    let page = page();
    let example = page.split(".EX\n").nth(1).unwrap();
    let example = example.split(".EE\n").next().unwrap().replace("\\-", "-");
    assert_eq!(refusal(&example), None);
}
