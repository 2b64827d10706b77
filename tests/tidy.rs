//! The house rules, held by a test: layers, budgets of length, nothing unfinished, a clear top.
//!
//! The rules are in `tidy/rules.rs`, first of all the table of who may name whom. Each rule is
//! shown to bite at the end of this file.

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

#[path = "tidy/rules.rs"]
mod rules;
#[path = "tidy/source.rs"]
mod source;

use std::fs;
use std::path::Path;

use rules::Complaints;
use source::Source;

/// Every text file of the project, by its path from the top.
struct Tree {
    files: Vec<(String, String)>,
    /// The files under src.
    product: Vec<Source>,
}

impl Tree {
    fn read() -> Self {
        let mut files = Vec::new();
        for entry in top() {
            collect(&entry, &mut files);
        }
        files.sort();
        let is_product = |path: &str| path.starts_with("src/") && path.ends_with(".rs");
        let of_product = files.iter().filter(|(path, _)| is_product(path));
        let product = of_product
            .map(|(path, text)| Source::new(path, text))
            .collect();
        Self { files, product }
    }

    fn rust(&self) -> impl Iterator<Item = (&str, &str)> {
        let rust = self.files.iter().filter(|(path, _)| path.ends_with(".rs"));
        rust.map(|(path, text)| (path.as_str(), text.as_str()))
    }

    /// Each file under src with whether it is there for tests only.
    fn sources(&self) -> Vec<(&Source, bool)> {
        let tests: Vec<_> = self
            .product
            .iter()
            .flat_map(|source| &source.test_modules)
            .collect();
        let is_test = |source: &Source| {
            let below = |module: &&String| {
                let rest = source.path.strip_prefix(module.as_str());
                rest.is_some_and(|rest| rest.starts_with(['/', '.']))
            };
            tests.iter().any(below)
        };
        self.product
            .iter()
            .map(|source| (source, is_test(source)))
            .collect()
    }

    fn code(&self) -> impl Iterator<Item = &Source> {
        self.sources()
            .into_iter()
            .filter(|(_, is_test)| !is_test)
            .map(|(source, _)| source)
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The entries of the top, without what git and cargo keep there.
fn top() -> Vec<String> {
    let names = fs::read_dir(root())
        .unwrap()
        .map(|entry| entry.unwrap().file_name());
    let names = names.map(|name| name.into_string().unwrap());
    names
        .filter(|name| ![".git", "target"].contains(&name.as_str()))
        .collect()
}

fn collect(path: &str, files: &mut Vec<(String, String)>) {
    let full = root().join(path);
    if full.is_dir() {
        for entry in fs::read_dir(&full).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            collect(&format!("{path}/{name}"), files);
        }
    } else if let Ok(text) = fs::read_to_string(&full) {
        files.push((path.to_owned(), text));
    }
}

#[track_caller]
fn none(complaints: Complaints) {
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

#[test]
fn every_layer_names_only_what_it_may() {
    none(Tree::read().code().flat_map(rules::layers).collect());
}

#[test]
fn every_file_and_function_is_within_its_budget() {
    let check = |(source, is_test)| rules::budgets(source, is_test, rules::EXCEPTIONS);
    none(Tree::read().sources().into_iter().flat_map(check).collect());
}

#[test]
fn every_exception_is_needed() {
    none(rules::idle_exceptions(
        &Tree::read().sources(),
        rules::EXCEPTIONS,
    ));
}

#[test]
fn most_functions_are_short() {
    let tree = Tree::read();
    let functions = tree.code().flat_map(|source| &source.code.functions);
    let mut lengths: Vec<_> = functions.map(|function| function.lines).collect();
    none(rules::function_lengths(&mut lengths));
}

#[test]
fn nothing_is_unfinished_or_left_over() {
    let tree = Tree::read();
    none(
        tree.files
            .iter()
            .flat_map(|(path, text)| rules::banned_text(path, text))
            .collect(),
    );
}

#[test]
fn no_module_has_a_name_that_says_nothing() {
    none(
        Tree::read()
            .rust()
            .flat_map(|(path, _)| rules::vague_module(path))
            .collect(),
    );
}

#[test]
fn every_lint_that_is_switched_off_has_a_reason() {
    none(
        Tree::read()
            .product
            .iter()
            .flat_map(rules::allow_without_reason)
            .collect(),
    );
}

#[test]
fn every_file_begins_by_saying_what_it_is() {
    none(
        Tree::read()
            .rust()
            .flat_map(|(path, text)| rules::no_head(path, text))
            .collect(),
    );
}

#[test]
fn every_line_fits_the_page() {
    none(
        Tree::read()
            .rust()
            .flat_map(|(path, text)| rules::long_lines(path, text))
            .collect(),
    );
}

#[test]
fn the_top_holds_what_belongs_there() {
    none(rules::top_entries(&top()));
}

/// Each rule finds a violation in a small piece of text, and lets its right form pass.
mod bite {
    use super::*;
    use crate::rules::Exception;

    fn layers(path: &str, text: &str) -> usize {
        rules::layers(&Source::new(path, text)).len()
    }

    #[test]
    fn pure_code_that_names_a_file_is_found() {
        for text in [
            "use std::fs;",
            "use std::fs::File;",
            "use std::{fmt, fs::{self, File}};",
            "use std::*;",
            "fn f() { std::fs::read(\"a\") }",
            "fn f() { log!(std::fs::read(\"a\")) }",
            "mod inner { use std::fs; }",
            "use ::std::fs;",
        ] {
            assert_ne!(layers("src/nbd/wire.rs", text), 0, "{text}");
            assert_ne!(layers("src/nbd/wire/option.rs", text), 0, "{text}");
        }
    }

    #[test]
    fn pure_code_that_names_a_clock_a_thread_or_a_socket_is_found() {
        for text in [
            "use std::time::{Duration, Instant};",
            "use std::time;",
            "use std::thread;",
            "use std::net::TcpStream;",
            "use std::net;",
            "use tokio::sync::mpsc;",
            "fn f() { tracing::info!(\"a\") }",
        ] {
            assert_ne!(layers("src/export/plan.rs", text), 0, "{text}");
        }
    }

    #[test]
    fn values_of_time_and_addresses_are_free() {
        let text = "use std::net::IpAddr; use std::time::Duration; use std::io::{self, Read};";
        assert_eq!(layers("src/nbd/handshake.rs", text), 0);
    }

    #[test]
    fn a_value_let_through_lets_nothing_else_through() {
        assert_eq!(
            layers("src/overlay/map.rs", "use crate::disk::FileBytes;"),
            0
        );
        assert_ne!(
            layers("src/overlay/map.rs", "use crate::disk::{Disk, FileBytes};"),
            0
        );
    }

    #[test]
    fn comments_and_strings_name_nothing() {
        let text =
            "//! std::fs\n/* tokio::net */ const A: &str = \"std::fs\"; /// unsafe\nfn f() {}";
        assert_eq!(layers("src/nbd/wire.rs", text), 0);
    }

    #[test]
    fn tests_may_name_what_they_like() {
        let text = "#[cfg(test)] mod tests { use std::fs; } #[cfg(test)] use crate::disk;";
        assert_eq!(layers("src/nbd/wire.rs", text), 0);
    }

    #[test]
    fn code_after_the_tests_is_read() {
        let text = "#[cfg(test)] mod tests { fn a() {} } use std::fs;";
        assert_ne!(layers("src/nbd/wire.rs", text), 0);
    }

    #[test]
    fn storage_that_names_the_protocol_is_found_however_it_is_written() {
        for text in [
            "use crate::nbd::wire;",
            "use crate::{nbd, units};",
            "use super::super::nbd::wire;",
            "pub(crate) fn f(a: crate::nbd::Flags) {}",
        ] {
            assert_eq!(layers("src/overlay/journal.rs", text), 1, "{text}");
        }
        assert_eq!(layers("src/overlay/mod.rs", "use super::nbd;"), 1);
        assert_eq!(
            layers("src/serve/mod.rs", "use crate::nbd; use crate::export;"),
            0
        );
    }

    #[test]
    fn the_protocol_that_names_storage_is_found() {
        assert_eq!(
            layers("src/nbd/session.rs", "use crate::overlay::Overlay;"),
            1
        );
    }

    #[test]
    fn the_ring_outside_io_is_found() {
        assert_eq!(
            layers("src/serve/shard.rs", "use tokio_uring::net::TcpStream;"),
            1
        );
        assert_eq!(
            layers("src/io/ring.rs", "use tokio_uring::net::TcpStream;"),
            0
        );
    }

    #[test]
    fn unsafe_code_outside_io_and_disk_is_found() {
        let text = "fn f() { unsafe { g() } }";
        assert_eq!(layers("src/overlay/map.rs", text), 1);
        assert_eq!(layers("src/disk/mapping.rs", text), 0);
        assert_eq!(layers("src/export/mod.rs", "#![deny(unsafe_code)]"), 0);
    }

    #[test]
    fn every_rule_of_layers_says_why_and_bans_something() {
        for layer in rules::LAYERS {
            assert!(!layer.why.is_empty() && !layer.bans.is_empty() && !layer.of.is_empty());
        }
    }

    fn function_of(lines: usize) -> String {
        format!("fn long() {{{}}}\n", "\n".repeat(lines - 1))
    }

    #[test]
    fn a_function_over_its_budget_is_found() {
        let at = |lines| Source::new("src/a.rs", &function_of(lines));
        assert_eq!(rules::budgets(&at(70), false, &[]).len(), 0);
        assert_eq!(
            rules::budgets(&at(71), false, &[]),
            ["src/a.rs: long: 71 lines, at most 70 are allowed"]
        );
    }

    #[test]
    fn a_long_method_of_a_trait_is_found_too() {
        let text = format!("impl A for B {{ {} }}", function_of(71));
        assert_eq!(
            rules::budgets(&Source::new("src/a.rs", &text), false, &[]).len(),
            1
        );
    }

    #[test]
    fn a_file_over_its_budget_is_found_without_counting_its_tests() {
        let tests = format!("#[cfg(test)]\nmod tests {{{}}}\n", "\n".repeat(300));
        let file = |lines| Source::new("src/a.rs", &("// a\n".repeat(lines) + &tests));
        assert_eq!(rules::budgets(&file(500), false, &[]).len(), 0);
        assert_eq!(rules::budgets(&file(501), false, &[]).len(), 1);
    }

    #[test]
    fn an_exception_allows_its_lines_and_no_more() {
        let exception = |lines| {
            [Exception {
                what: "src/a.rs: long",
                lines,
                why: "a table",
            }]
        };
        let source = Source::new("src/a.rs", &function_of(80));
        assert_eq!(rules::budgets(&source, false, &exception(80)).len(), 0);
        assert_eq!(rules::budgets(&source, false, &exception(79)).len(), 1);
    }

    #[test]
    fn an_exception_that_nothing_needs_is_found() {
        let exceptions = [Exception {
            what: "src/a.rs: long",
            lines: 80,
            why: "a table",
        }];
        let idle = |lines| {
            let source = Source::new("src/a.rs", &function_of(lines));
            rules::idle_exceptions(&[(&source, false)], &exceptions).len()
        };
        assert_eq!((idle(71), idle(70)), (0, 1));
    }

    #[test]
    fn long_functions_on_the_whole_are_found() {
        assert_eq!(rules::function_lengths(&mut [10; 9]).len(), 0);
        assert_eq!(rules::function_lengths(&mut [11; 9]).len(), 1);
        let mut three = [[41; 3].as_slice(), &[5; 97]].concat();
        let mut four = [[41; 4].as_slice(), &[5; 96]].concat();
        assert_eq!(rules::function_lengths(&mut three).len(), 0);
        assert_eq!(rules::function_lengths(&mut four).len(), 1);
    }

    #[test]
    fn unfinished_work_and_left_overs_are_found() {
        for text in [
            concat!("fn f() { to", "do!() }"),
            concat!("fn f() { unimple", "mented!() }"),
            concat!("fn f() { d", "bg!(1) }"),
            concat!("// TO", "DO later"),
            concat!("# FIX", "ME"),
            concat!("#[", "ignore]"),
            concat!("#[", "ignore = \"slow\"]"),
            concat!("cd /wo", "rk/main"),
            concat!("cd /tmp/", "wt/repo"),
        ] {
            assert_eq!(rules::banned_text("a", text).len(), 1, "{text}");
        }
        assert_eq!(
            rules::banned_text("a", "to do: nothing; the network/path is fine").len(),
            0
        );
    }

    #[test]
    fn a_vague_module_is_found() {
        for path in [
            "src/utils.rs",
            "src/nbd/common/mod.rs",
            "tests/helpers.rs",
            "src/misc.rs",
        ] {
            assert_eq!(rules::vague_module(path).len(), 1, "{path}");
        }
        assert_eq!(rules::vague_module("src/overlay/commit.rs").len(), 0);
    }

    #[test]
    fn a_lint_switched_off_without_a_reason_is_found() {
        let complaints =
            |text: &str| rules::allow_without_reason(&Source::new("src/a.rs", text)).len();
        assert_eq!(complaints("#[allow(dead_code)] fn f() {}"), 1);
        assert_eq!(complaints("#![allow(\n    dead_code,\n)]"), 1);
        assert_eq!(complaints("#[expect(dead_code)] fn f() {}"), 1);
        assert_eq!(
            complaints("#[allow(dead_code, reason = \"a (b) c\")] fn f() {}"),
            0
        );
    }

    #[test]
    fn a_file_without_a_head_is_found() {
        assert_eq!(rules::no_head("a", "use std::fmt;\n//! late").len(), 1);
        assert_eq!(rules::no_head("a", "//! What it is.\n").len(), 0);
    }

    #[test]
    fn a_long_line_is_found() {
        assert_eq!(rules::long_lines("a", &"é".repeat(100)).len(), 0);
        assert_eq!(rules::long_lines("a", &"é".repeat(101)).len(), 1);
    }

    #[test]
    fn a_stray_entry_and_a_missing_one_are_found_at_the_top() {
        let mut entries = top();
        entries.retain(|entry| entry != "src");
        entries.push("notes.txt".to_owned());
        let complaints = rules::top_entries(&entries);
        assert!(complaints.contains(&"src: is missing".to_owned()));
        assert!(complaints.contains(&"notes.txt: does not belong to the top".to_owned()));
    }

    #[test]
    fn a_test_module_in_a_file_of_its_own_is_known_as_one() {
        let source = Source::new("src/nbd/wire.rs", "#[cfg(test)]\nmod tests;\nfn f() {}");
        assert_eq!(source.test_modules, ["src/nbd/wire/tests"]);
        let source = Source::new("src/nbd/mod.rs", "#[cfg(test)] mod tests;");
        assert_eq!(source.test_modules, ["src/nbd/tests"]);
    }
}
