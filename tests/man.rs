//! The man pages say what the program does: they are made of its options, its limits and man/parts.
//!
//! `UPDATE_MAN=1 cargo test --test man committed` rewrites the committed pages.

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use clap::ArgAction;
use clap_mangen::Man;
use cowherd::limits;

/// The date in the pages: that of the last change of the outside they describe.
const DATE: &str = "2026-11-22";

fn file(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// One page of `man/`: the program itself, or one of its commands.
struct Page {
    name: String,
    command: clap::Command,
}

fn pages() -> Vec<Page> {
    let mut program = cowherd::cli::command();
    program.build();
    let commands: Vec<_> = program.get_subcommands().cloned().collect();
    let mut client = cowherd::cli::attach_command();
    client.build();
    std::iter::once(program)
        .chain(commands)
        .chain([client])
        .filter(|command| command.get_name() != "help")
        .map(|command| Page {
            name: command
                .get_display_name()
                .unwrap_or_else(|| command.get_name())
                .to_owned(),
            command,
        })
        .collect()
}

impl Page {
    fn committed(&self) -> PathBuf {
        file(&format!("man/{}.1", self.name))
    }

    /// The page as it should be: what clap knows, then the sections that are written by hand.
    fn rendered(&self) -> String {
        let version = format!("cowherd {}", env!("CARGO_PKG_VERSION"));
        let man = Man::new(self.command.clone())
            .title(self.name.to_uppercase())
            .date(DATE)
            .source(version)
            .manual("cowherd");
        // Not clap's synopsis, which leaves out values, nor its version and authors sections.
        let mut head = Vec::new();
        man.render_title(&mut head).unwrap();
        man.render_name_section(&mut head).unwrap();
        let mut body = Vec::new();
        man.render_description_section(&mut body).unwrap();
        man.render_options_section(&mut body).unwrap();
        if self.is_program() {
            man.render_subcommands_section(&mut body).unwrap();
        }
        let parts = [
            tidied(&head),
            self.synopsis(),
            tidied(&body),
            self.actions().map(section).collect(),
            self.hand_written(),
        ];
        parts.concat()
    }

    fn is_program(&self) -> bool {
        self.name == "cowherd"
    }

    /// The commands of a command: each is a section of its page.
    fn actions(&self) -> impl Iterator<Item = &clap::Command> {
        let below = self.command.get_subcommands();
        below.filter(|_| !self.is_program())
    }

    fn synopsis(&self) -> String {
        let mut lines: Vec<_> = self.actions().map(usage_of_action).collect();
        if lines.is_empty() {
            lines.push(usage(&self.command));
        }
        if self.is_program() {
            lines.push("\\fICOMMAND\\fR ...".to_owned());
        }
        let between = if self.is_program() { "\n" } else { "\n.br\n" };
        format!(".SH SYNOPSIS\n{}\n", lines.join(between))
    }

    fn hand_written(&self) -> String {
        let part = file(&format!("man/parts/{}.roff", self.name));
        let text =
            fs::read_to_string(&part).unwrap_or_else(|error| panic!("{}: {error}", part.display()));
        let filled = text
            .replace("{{NAME_MAX}}", &limits::NAME_MAX.to_string())
            .replace(
                "{{DRAIN_SECONDS}}",
                &limits::DRAIN_TIME.as_secs().to_string(),
            )
            .replace(
                "{{SUSPEND_SECONDS}}",
                &limits::SUSPEND_PATIENCE.as_secs().to_string(),
            )
            .replace(
                "{{CONTROL_REQUEST_KIB}}",
                &(limits::CONTROL_REQUEST_MAX / 1024).to_string(),
            )
            .replace("{{LIMITS}}", &limits_table());
        assert!(
            !filled.contains("{{"),
            "{}: a blank that nothing fills",
            part.display()
        );
        filled
    }

    /// The long options that the page must describe, as a reader would type them.
    fn options(&self) -> Vec<String> {
        let own = self.command.get_arguments();
        let of_actions = self.actions().flat_map(clap::Command::get_arguments);
        let longs = own.chain(of_actions).filter_map(clap::Arg::get_long);
        longs.map(|long| format!("--{long}")).collect()
    }
}

/// Options that every command has; a page tells of them once.
const EVERYWHERE: [&str; 2] = ["help", "version"];

/// A command line, as a synopsis shows it.
fn usage(command: &clap::Command) -> String {
    usage_with(command, command.get_arguments())
}

fn usage_of_action(action: &clap::Command) -> String {
    let is_own = |argument: &&clap::Arg| !EVERYWHERE.contains(&argument.get_id().as_str());
    usage_with(action, action.get_arguments().filter(is_own))
}

fn usage_with<'a>(
    command: &clap::Command,
    arguments: impl Iterator<Item = &'a clap::Arg>,
) -> String {
    let mut words = format!("\\fB{}\\fR", command.get_bin_name().unwrap_or_default());
    for argument in arguments {
        words.push('\n');
        words.push_str(&synopsis_of(argument));
    }
    words.replace('-', "\\-")
}

/// A command of a command: what it does and its options.
fn section(action: &clap::Command) -> String {
    let mut action = action.clone();
    for everywhere in EVERYWHERE {
        action = action.mut_arg(everywhere, |argument| argument.hide(true));
    }
    let man = Man::new(action.clone());
    let mut body = Vec::new();
    man.render_description_section(&mut body).unwrap();
    man.render_options_section(&mut body).unwrap();
    let body = tidied(&body)
        .replace(".SH DESCRIPTION\n", "")
        .replace(".SH OPTIONS\n", "");
    format!(".SH \"{}\"\n{body}", action.get_name().to_uppercase())
}

/// An option or argument as a synopsis shows it, such as `[--listen ADDR]...`.
fn synopsis_of(argument: &clap::Arg) -> String {
    let repeats = match argument.get_action() {
        ArgAction::Append | ArgAction::Count => "...",
        _ => "",
    };
    let value = argument
        .get_action()
        .takes_values()
        .then(|| argument.get_value_names().and_then(<[_]>::first))
        .flatten();
    let value = value.map(|name| format!("\\fI{name}\\fR"));
    let name = argument.get_long().map(|long| format!("\\fB--{long}\\fR"));
    let words: Vec<_> = name.into_iter().chain(value).collect();
    format!("[{}]{repeats}", words.join(" "))
}

/// clap's roff with its repeated preamble dropped and `code` in bold.
fn tidied(roff: &[u8]) -> String {
    let mut text = String::new();
    for line in String::from_utf8_lossy(roff).lines() {
        if line.starts_with(".ie ") || line.starts_with(".el ") {
            continue;
        }
        for (nth, piece) in line.split('`').enumerate() {
            match nth % 2 {
                1 => text.push_str("\\fB"),
                _ if nth > 0 => text.push_str("\\fR"),
                _ => {}
            }
            text.push_str(piece);
        }
        text.push('\n');
    }
    text.replace("\\*(Aq", "\\(aq")
}

/// The bounds that a user can run into, as rows of a tbl(1) table.
fn limits_table() -> String {
    let rows = SHOWN.iter().map(|(what, _, bound)| {
        let bound = match *bound {
            Count(count) => count.to_string(),
            Bytes(bytes) => size(bytes),
            Time(time) => format!("{} s", time.as_secs()),
        };
        format!("{what}\t{bound}")
    });
    rows.collect::<Vec<_>>().join("\n")
}

fn size(bytes: u64) -> String {
    let units = [(60, "EiB"), (30, "GiB"), (20, "MiB"), (10, "KiB"), (0, "B")];
    let fits = |(shift, _): &&(u32, _)| bytes >> shift << shift == bytes && bytes >> shift > 0;
    let (shift, unit) = units.iter().find(fits).unwrap();
    format!("{} {unit}", bytes >> shift)
}

enum Bound {
    Count(usize),
    Bytes(u64),
    Time(std::time::Duration),
}

use Bound::{Bytes, Count, Time};

/// The bounds that a user can run into: what they are called in the page and in `limits`.
const SHOWN: &[(&str, &str, Bound)] = &[
    (
        "Largest request",
        "NBD_PAYLOAD_MAX",
        Bytes(limits::NBD_PAYLOAD_MAX as u64),
    ),
    (
        "Largest disk",
        "DISK_SIZE_MAX",
        Bytes(limits::DISK_SIZE_MAX),
    ),
    (
        "Machines whose boots are remembered",
        "STATUS_CLIENTS_MAX",
        Count(limits::STATUS_CLIENTS_MAX),
    ),
    (
        "Boots of one machine that are remembered",
        "STATUS_BOOTS_MAX",
        Count(limits::STATUS_BOOTS_MAX),
    ),
    (
        "Machines that metrics have series for",
        "STATUS_SERIES_CLIENTS_MAX",
        Count(limits::STATUS_SERIES_CLIENTS_MAX),
    ),
    (
        "Connections to the admin's listener",
        "ADMIN_CONNECTIONS_MAX",
        Count(limits::ADMIN_CONNECTIONS_MAX),
    ),
    ("Shards", "SHARDS_MAX", Count(limits::SHARDS_MAX)),
    (
        "Longest name of an image or a client, in bytes",
        "NAME_MAX",
        Count(limits::NAME_MAX),
    ),
    (
        "Connections",
        "CONNECTIONS_MAX",
        Count(limits::CONNECTIONS_MAX),
    ),
    (
        "Connections from one address",
        "CONNECTIONS_PER_ADDRESS_MAX",
        Count(limits::CONNECTIONS_PER_ADDRESS_MAX),
    ),
    (
        "Connections to one client's overlay",
        "CONNECTIONS_PER_CLIENT_MAX",
        Count(limits::CONNECTIONS_PER_CLIENT_MAX),
    ),
    (
        "Connections that wait to be accepted",
        "LISTEN_BACKLOG",
        Count(limits::LISTEN_BACKLOG as usize),
    ),
    (
        "Handshakes at a time",
        "HANDSHAKES_MAX",
        Count(limits::HANDSHAKES_MAX),
    ),
    (
        "Of these from one address, when half are taken",
        "HANDSHAKES_CROWDED",
        Count(limits::HANDSHAKES_CROWDED),
    ),
    (
        "Time for a handshake",
        "HANDSHAKE_TIME",
        Time(limits::HANDSHAKE_TIME),
    ),
    (
        "Options in a handshake",
        "NBD_OPTIONS_PER_HANDSHAKE",
        Count(limits::NBD_OPTIONS_PER_HANDSHAKE as usize),
    ),
    (
        "Data of an option",
        "NBD_OPTION_MAX",
        Bytes(limits::NBD_OPTION_MAX as u64),
    ),
    (
        "Longest string of the protocol",
        "NBD_STRING_MAX",
        Bytes(limits::NBD_STRING_MAX as u64),
    ),
    (
        "Requests in flight for each connection",
        "SESSION_REQUESTS_MAX",
        Count(limits::SESSION_REQUESTS_MAX),
    ),
    (
        "Bytes in flight for each connection",
        "SESSION_BYTES_MAX",
        Bytes(limits::SESSION_BYTES_MAX),
    ),
    (
        "Of these, shared with nobody",
        "SESSION_BYTES_OWN",
        Bytes(limits::SESSION_BYTES_OWN),
    ),
    (
        "Bytes in flight for each shard",
        "SHARD_BYTES_MAX",
        Bytes(limits::SHARD_BYTES_MAX),
    ),
    (
        "Time without taking replies, where others wait for that",
        "STALL_TIME",
        Time(limits::STALL_TIME),
    ),
    (
        "Time for a clean stop",
        "DRAIN_TIME",
        Time(limits::DRAIN_TIME),
    ),
    (
        "Extents in a status",
        "STATUS_EXTENTS_MAX",
        Count(limits::STATUS_EXTENTS_MAX),
    ),
    (
        "Bytes that a status describes",
        "STATUS_BYTES_MAX",
        Bytes(limits::STATUS_BYTES_MAX),
    ),
    (
        "Addresses in all ranges of DHCP",
        "DHCP_RANGE_ADDRESSES_MAX",
        Count(limits::DHCP_RANGE_ADDRESSES_MAX as usize),
    ),
    (
        "Value of a DHCP option",
        "DHCP_OPTION_MAX",
        Bytes(limits::DHCP_OPTION_MAX as u64),
    ),
    (
        "Entries of a menu",
        "MENU_ENTRIES_MAX",
        Count(limits::MENU_ENTRIES_MAX),
    ),
    (
        "Template of a menu",
        "TEMPLATE_BYTES_MAX",
        Bytes(limits::TEMPLATE_BYTES_MAX),
    ),
    (
        "Steps of a template",
        "TEMPLATE_FUEL",
        Count(limits::TEMPLATE_FUEL),
    ),
    (
        "Menu made of a template",
        "MENU_BYTES_MAX",
        Bytes(limits::MENU_BYTES_MAX as u64),
    ),
    (
        "Title of an entry, in bytes",
        "MENU_TITLE_MAX",
        Count(limits::MENU_TITLE_MAX),
    ),
    (
        "Time that a menu waits",
        "MENU_TIMEOUT_MAX",
        Time(limits::MENU_TIMEOUT_MAX),
    ),
    (
        "TFTP transfers on one port",
        "TFTP_TRANSFERS_MAX",
        Count(limits::TFTP_TRANSFERS_MAX),
    ),
    (
        "TFTP transfers to one address",
        "TFTP_TRANSFERS_PER_ADDRESS_MAX",
        Count(limits::TFTP_TRANSFERS_PER_ADDRESS_MAX),
    ),
    (
        "Window of TFTP",
        "TFTP_WINDOW_MAX",
        Count(limits::TFTP_WINDOW_MAX as usize),
    ),
    (
        "File that TFTP sends as text",
        "TFTP_TEXT_MAX",
        Bytes(limits::TFTP_TEXT_MAX as u64),
    ),
    (
        "Files out of disks that are kept or being sent",
        "BOOT_MEMORY_MAX",
        Bytes(limits::BOOT_MEMORY_MAX as u64),
    ),
    (
        "Of these, kept for the next machine",
        "BOOT_KEPT_MAX",
        Bytes(limits::BOOT_KEPT_MAX as u64),
    ),
    (
        "Files that are read out of disks at a time",
        "BOOT_READS_MAX",
        Count(limits::BOOT_READS_MAX),
    ),
    (
        "Connections by HTTP",
        "HTTP_CONNECTIONS_MAX",
        Count(limits::HTTP_CONNECTIONS_MAX),
    ),
    (
        "Connections by HTTP from one address",
        "HTTP_CONNECTIONS_PER_ADDRESS_MAX",
        Count(limits::HTTP_CONNECTIONS_PER_ADDRESS_MAX),
    ),
    (
        "Request by HTTP",
        "HTTP_HEAD_MAX",
        Bytes(limits::HTTP_HEAD_MAX as u64),
    ),
    (
        "Headers of a request by HTTP",
        "HTTP_HEADERS_MAX",
        Count(limits::HTTP_HEADERS_MAX),
    ),
    (
        "Time from one request by HTTP to the next",
        "HTTP_REQUEST_TIME",
        Time(limits::HTTP_REQUEST_TIME),
    ),
    (
        "Time without taking what HTTP sends",
        "HTTP_STALL_TIME",
        Time(limits::HTTP_STALL_TIME),
    ),
    (
        "Config file",
        "CONFIG_BYTES_MAX",
        Bytes(limits::CONFIG_BYTES_MAX),
    ),
    (
        "Connections to the control socket",
        "CONTROL_CONNECTIONS_MAX",
        Count(limits::CONTROL_CONNECTIONS_MAX),
    ),
    (
        "Time for a request there",
        "CONTROL_REQUEST_TIME",
        Time(limits::CONTROL_REQUEST_TIME),
    ),
];

/// What no user runs into: how the work is cut, kept and repeated.
const INNER: &[&str] = &[
    "STATUS_TEXT_MAX",
    "ADMIN_HEADER_BYTES",
    "ADMIN_HEADER_TIME",
    "ADMIN_TOKEN_MIN",
    "ADMIN_TOKEN_MAX",
    "STATUS_SAMPLES_MAX",
    "STATUS_ENDED_MAX",
    "STATUS_LATENCIES_MAX",
    "STATUS_FILE_MAX",
    "DOCTOR_SPACE_LOW",
    "DOCTOR_SPACE_NONE",
    "DOCTOR_FILES_MIN",
    "DOCTOR_MEMORY_MIN",
    "DOCTOR_PATIENCE",
    "NBD_PORT",
    "ATTACH_CONNECTIONS_MAX",
    "ATTACH_ADDRESSES_MAX",
    "ATTACH_CONNECT_TIME",
    "ATTACH_HANDSHAKE_TIME",
    "BOOTS_UNSETTLED_MAX",
    "SUSPEND_PATIENCE",
    "SUSPEND_TIME",
    "TAKEOVER_TIME",
    "LINGER_TIME",
    "TAKEOVER_FLUSH_TIME",
    "TAKEOVER_PREPARATION_TIME",
    "TAKEOVER_TEXT_MAX",
    "TAKEOVER_BYTES_MAX",
    "TAKEOVER_DOORS_MAX",
    "BOOT_FILE_MAX",
    "BOOT_FILE_READS_MAX",
    "BOOT_FILE_READ_MAX",
    "BOOT_MEMORY_TIME",
    "BOOT_READS_PER_FILE_MAX",
    "BOOT_BLOCKS_MAX",
    "BOOT_WAITS_MAX",
    "GRUB_IMAGE_MAX",
    "TREE_LIST_MAX",
    "TEMPLATE_RECURSION_MAX",
    "BENCH_CLIENTS_MAX",
    "BENCH_DEPTH_MAX",
    "BENCH_TRACE_MAX",
    "LINKS_MAX",
    "LINK_BYTES_MAX",
    "PARTITIONS_MAX",
    "KERNEL_LINE_MAX",
    "HTTP_PIECE",
    "TFTP_NAME_MAX",
    "TFTP_OPTIONS_MAX",
    "TFTP_BLOCK_MIN",
    "TFTP_TRIES_MAX",
    "TFTP_BLOCK_MAX",
    "TFTP_READ_AHEAD",
    "TFTP_SILENCE_MAX",
    "TFTP_PATIENCE_START",
    "TFTP_PATIENCE_MIN",
    "TFTP_PATIENCE_MAX",
    "KEEPALIVE_DEFAULT",
    "KEEPALIVE_MAX",
    "TLS_PIECE",
    "NBD_BLOCK_MIN",
    "NBD_BLOCK_PREFERRED",
    "RECEIVE_BUFFER",
    "DIRECT_PAYLOAD_MIN",
    "WRITE_PIECE",
    "EXPLAINED_PACKETS_MAX",
    "EXT4_GROUPS_MAX",
    "FREE_PIECE",
    "FREE_RUNS",
    "INLINE_READ_MAX",
    "READ_IN_PLACE_MAX",
    "GATHER_SEGMENTS_MAX",
    "GATHER_BYTES_MAX",
    "IMAGE_CHECK_EVERY",
    "RING_ENTRIES",
    "POOL_BUFFER_MIN",
    "POOL_BUFFER_MAX",
    "POOL_IDLE_MAX",
    "POOL_KEPT_BUFFER_MAX",
    "WARM_GRANULE",
    "WARM_GRANULES_MAX",
    "WARM_FOR_TICKS",
    "DOUBT_TICKS",
    "LEASE_FILE_MAX",
    "LOOK_MIN",
    "CONTROL_REQUEST_MAX",
    "CONTROL_ANSWER_MAX",
    "IMAGE_DATA_RANGES_MAX",
    "STATUS_STRETCHES_MAX",
    "CAPTURED_PACKET_MAX",
    "DATAGRAM_BATCH",
    "DHCP_CLIENT_IDENTIFIER_MAX",
    "DHCP_DATAGRAM_MAX",
    "DHCP_DATAGRAM_MIN",
    "DHCP_INCOMING_MAX",
    "DHCP_REPLIES_WAITING_MAX",
    "DHCP_REPLY_MIN",
    "DHCP_OFFER_TIME",
    "DHCP_QUARANTINE_TIME",
    "DHCP_TRUST_TIME",
    "DHCP_PROBE_TIME",
    "DHCP_LEASE_TIME",
    "DHCP_LEASE_TIME_MIN",
    "DHCP_OFFERS_MAX",
    "DHCP_RIVAL_EVERY",
    "DHCP_RIVALS_MAX",
];

#[test]
fn every_limit_is_in_the_page_or_nothing_that_a_user_meets() {
    let files = ["src/limits.rs", "src/limits/seen.rs"];
    let source = files
        .map(|path| fs::read_to_string(file(path)).unwrap())
        .concat();
    let constants = source
        .lines()
        .filter_map(|line| line.strip_prefix("pub const "));
    let mut defined: Vec<_> = constants
        .map(|line| line.split(':').next().unwrap())
        .collect();
    let shown = SHOWN.iter().map(|(_, name, _)| *name);
    let mut known: Vec<_> = shown.chain(INNER.iter().copied()).collect();
    defined.sort_unstable();
    known.sort_unstable();
    assert_eq!(known, defined, "a new limit goes to SHOWN or to INNER");
}

/// The text of a page without roff's escapes of the minus sign.
fn readable(roff: &str) -> String {
    roff.replace("\\-", "-")
}

#[test]
fn the_committed_pages_are_those_of_the_options() {
    for page in pages() {
        let path = page.committed();
        let rendered = page.rendered();
        if std::env::var_os("UPDATE_MAN").is_some() {
            fs::write(&path, &rendered).unwrap();
        }
        let committed = fs::read_to_string(&path).unwrap_or_default();
        assert!(
            committed == rendered,
            "{} is out of date: run UPDATE_MAN=1 cargo test --test man committed",
            path.display()
        );
    }
}

#[test]
fn every_option_is_in_its_page() {
    for page in pages() {
        let text = readable(&fs::read_to_string(page.committed()).unwrap());
        for option in page.options() {
            assert!(
                text.contains(&option),
                "{} is not in man/{}.1",
                option,
                page.name
            );
        }
    }
}

#[test]
fn no_page_is_left_of_a_command_that_is_gone() {
    let known: Vec<_> = pages().iter().map(Page::committed).collect();
    for entry in fs::read_dir(file("man")).unwrap() {
        let path = entry.unwrap().path();
        let made = path.extension().is_some_and(|section| section == "1");
        assert!(
            !made || known.contains(&path),
            "{} describes no command",
            path.display()
        );
    }
}

#[test]
fn mandoc_finds_nothing_wrong_with_any_page() {
    for entry in fs::read_dir(file("man")).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            continue;
        }
        let Ok(lint) = Command::new("mandoc")
            .args(["-T", "lint", "-W", "warning"])
            .arg(&path)
            .output()
        else {
            eprintln!("skipped: mandoc is not installed");
            return;
        };
        let complaints = String::from_utf8_lossy(&lint.stdout).into_owned();
        assert!(lint.status.success(), "{complaints}");
    }
}
