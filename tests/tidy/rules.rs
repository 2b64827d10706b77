//! The rules themselves: tables, and functions from a [`Source`] to complaints.

use crate::source::{Function, Source};

/// What is wrong, where, and why that is a rule.
pub(crate) type Complaints = Vec<String>;

/// Files that may not name certain things.
pub(crate) struct Layer {
    /// Modules under src (`*` is any one name); a module's own modules are meant too.
    pub(crate) of: &'static [&'static str],
    /// Modules that the rule leaves out.
    pub(crate) but: &'static [&'static str],
    /// Names that are let through: plain values that happen to live in a banned module.
    pub(crate) values: &'static [&'static str],
    /// Paths and words that may not be named. A path stands for all below it.
    pub(crate) bans: &'static [&'static str],
    pub(crate) why: &'static str,
}

const SOCKETS_FILES_THREADS_CLOCKS: &[&str] = &[
    "std::fs",
    "std::net::TcpListener",
    "std::net::TcpStream",
    "std::net::ToSocketAddrs",
    "std::net::UdpSocket",
    "std::os",
    "std::process",
    "std::env",
    "std::thread",
    "std::sync::mpsc",
    "std::time::Instant",
    "std::time::SystemTime",
    "crate::disk",
    "crate::io",
    "crate::serve",
    "dashmap",
    "libc",
    "memmap2",
    "rustix",
    "socket2",
    "tokio",
    "tokio_uring",
    "tracing",
];

pub(crate) const LAYERS: &[Layer] = &[
    Layer {
        of: &[
            "*/wire",
            "access",
            "attach/export",
            "attach/handshake",
            "attach/outage",
            "attach/pace",
            "boot/cmdline",
            "boot/grub",
            "boot/ipxe",
            "boot/lookup",
            "boot/menu",
            "boot/pxelinux",
            "boot/template",
            "dhcp",
            "status",
            "http",
            "load/ledger",
            "load/report",
            "load/session",
            "load/svg",
            "load/tally",
            "load/work",
            "status",
            "tftp",
            "tls/channel",
            "tls/identity",
            "nbd/agreed",
            "nbd/handshake",
            "nbd/session",
            "nbd/validate",
            "export/extents",
            "export/name",
            "export/plan",
            "overlay/commit",
            "overlay/epoch",
            "overlay/header",
            "overlay/journal",
            "overlay/map",
            "overlay/quota",
            "overlay/space",
            "overlay/underway",
            "serve/takeover/wire",
            "serve/takeover/steps",
            "units",
            "limits",
        ],
        but: &[],
        values: &["crate::disk::FileBytes"],
        bans: SOCKETS_FILES_THREADS_CLOCKS,
        why: "pure code names no socket, file, thread or clock: what it needs is an argument",
    },
    Layer {
        of: &["nbd"],
        but: &[],
        values: &[],
        bans: &[
            "crate::export",
            "crate::overlay",
            "crate::image",
            "crate::disk",
            "crate::io",
        ],
        why: "the protocol knows no storage: only serve joins the two",
    },
    Layer {
        of: &["dhcp", "http", "tftp"],
        but: &[],
        values: &[],
        bans: &[
            "crate::nbd",
            "crate::export",
            "crate::overlay",
            "crate::image",
            "crate::config",
            "crate::cli",
        ],
        why: "an address is given whatever is done with it: only serve joins the two",
    },
    Layer {
        of: &["status"],
        but: &[],
        values: &[],
        bans: &[
            "crate::nbd",
            "crate::dhcp",
            "crate::tftp",
            "crate::boot",
            "crate::export",
            "crate::overlay",
            "crate::image",
            "crate::config",
            "crate::cli",
        ],
        why: "what is seen of machines comes as events: only serve sees it",
    },
    Layer {
        of: &["attach"],
        but: &[],
        values: &[],
        bans: &[
            "crate::boot",
            "crate::cli",
            "crate::config",
            "crate::dhcp",
            "crate::disk",
            "crate::export",
            "crate::image",
            "crate::overlay",
            "crate::serve",
            "std::thread::Builder",
            "std::thread::spawn",
            "tokio",
            "tracing",
        ],
        why: "the client is small, has one thread, and knows of servers what they say",
    },
    Layer {
        of: &["*"],
        but: &["boot/template"],
        values: &[],
        bans: &["minijinja"],
        why: "templates are one small type, so that their language can be replaced in one place",
    },
    Layer {
        of: &["*"],
        but: &["http", "serve/http", "serve/admin"],
        values: &[],
        bans: &["hyper", "hyper_util"],
        why: "what HTTP is made of can be replaced in one place",
    },
    Layer {
        of: &["status"],
        but: &[],
        values: &[],
        bans: &[
            "crate::nbd",
            "crate::dhcp",
            "crate::tftp",
            "crate::boot",
            "crate::export",
            "crate::overlay",
            "crate::image",
            "crate::config",
            "crate::cli",
        ],
        why: "what is seen of machines comes as events: only serve sees it",
    },
    Layer {
        of: &["*"],
        but: &["tls"],
        values: &[],
        bans: &["rustls", "x509_parser"],
        why: "encryption is one small type, so that it can be replaced in one place",
    },
    Layer {
        of: &["tls"],
        but: &[],
        values: &[],
        bans: &[
            "crate::nbd",
            "crate::export",
            "crate::overlay",
            "crate::io",
            "crate::serve",
        ],
        why: "encryption carries bytes, whatever they are",
    },
    Layer {
        of: &["export", "overlay", "image", "disk", "io"],
        but: &[],
        values: &[],
        bans: &["crate::nbd"],
        why: "storage knows no protocol: only serve joins the two",
    },
    Layer {
        of: &[
            "nbd", "export", "overlay", "image", "disk", "io", "units", "limits",
        ],
        but: &[],
        values: &[],
        bans: &["crate::serve", "crate::cli"],
        why: "nothing below serve knows of it",
    },
    Layer {
        of: &["overlay", "image", "disk", "io"],
        but: &[],
        values: &[],
        bans: &["crate::export"],
        why: "an export is made of overlay and image, which do not know it",
    },
    Layer {
        of: &["image", "disk", "io"],
        but: &[],
        values: &[],
        bans: &["crate::overlay"],
        why: "the image is below the overlay",
    },
    Layer {
        of: &["cli"],
        but: &[],
        values: &[],
        bans: &[
            "crate::nbd",
            "crate::export",
            "crate::overlay",
            "crate::image",
            "crate::disk",
            "crate::io",
        ],
        why: "options become values; what they mean is decided in serve",
    },
    Layer {
        of: &["nbd", "export", "overlay"],
        but: &[],
        values: &[],
        bans: &["std::fs"],
        why: "only disk touches the files of images and overlays",
    },
    Layer {
        of: &["*"],
        but: &["io"],
        values: &[],
        bans: &["tokio_uring", "io_uring"],
        why: "only io names the ring, so that it can be replaced in one place",
    },
    Layer {
        of: &["*"],
        but: &["io", "disk"],
        values: &[],
        bans: &["unsafe", "libc", "memmap2"],
        why: "all unsafe code lives in io and disk",
    },
    Layer {
        of: &["*"],
        but: &["cli"],
        values: &[],
        bans: &["clap"],
        why: "options are read in cli only",
    },
];

/// What product code names against the table of layers.
pub(crate) fn layers(source: &Source) -> Complaints {
    let about = |layer: &&Layer| source.is_in(layer.of) && !source.is_in(layer.but);
    let mut complaints = Vec::new();
    for layer in LAYERS.iter().filter(about) {
        for name in &source.code.names {
            let path = name.path.as_str();
            if !layer.values.contains(&path) && layer.bans.iter().any(|ban| is_named(ban, path)) {
                let Source { path, .. } = source;
                complaints.push(format!(
                    "{path}:{}: {}: {}",
                    name.line, name.path, layer.why
                ));
            }
        }
    }
    complaints
}

/// Whether `path` is `ban`, lies below it, or brings it in from above (`use std::net` or a glob).
fn is_named(ban: &str, path: &str) -> bool {
    let below = |upper: &str, lower: &str| {
        lower
            .strip_prefix(upper)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
    };
    let path = path.strip_suffix("::*").unwrap_or(path);
    below(ban, path) || (below("std", path) && below(path, ban))
}

/// Lines of a file, outside its inline tests.
pub(crate) const FILE_LINES_MAX: usize = 500;
/// Lines of a file that holds only tests.
pub(crate) const TEST_FILE_LINES_MAX: usize = 800;
/// Lines of any function.
pub(crate) const FUNCTION_LINES_MAX: usize = 70;
/// Lines of a function that is easily read.
pub(crate) const FUNCTION_LINES_SOFT: usize = 40;
/// Functions over the soft bound, in a hundred.
pub(crate) const OVER_SOFT_PERCENT_MAX: usize = 3;
/// Lines of the function in the middle.
pub(crate) const FUNCTION_LINES_MEDIAN: usize = 10;
/// Characters of a line.
pub(crate) const COLUMNS_MAX: usize = 100;

/// A file or function that is longer than the budget, up to `lines`, for a reason.
pub(crate) struct Exception {
    /// `src/x.rs` for a file, `src/x.rs: name` for a function.
    pub(crate) what: &'static str,
    pub(crate) lines: usize,
    pub(crate) why: &'static str,
}

/// Every exception there is. One that is no longer needed must go.
pub(crate) const EXCEPTIONS: &[Exception] = &[];

/// Something that a budget counts: its name as exceptions write it, its length, its bound.
struct Measured {
    what: String,
    lines: usize,
    bound: usize,
}

fn measured(source: &Source, is_test: bool) -> Vec<Measured> {
    let file = Measured {
        what: source.path.clone(),
        lines: source.code_lines,
        bound: if is_test {
            TEST_FILE_LINES_MAX
        } else {
            FILE_LINES_MAX
        },
    };
    let function = |function: &Function| Measured {
        what: format!("{}: {}", source.path, function.name),
        lines: function.lines,
        bound: FUNCTION_LINES_MAX,
    };
    let functions = source.code.functions.iter().map(function);
    std::iter::once(file).chain(functions).collect()
}

/// Files and functions of one source that are longer than their bound or their exception allows.
pub(crate) fn budgets(source: &Source, is_test: bool, exceptions: &[Exception]) -> Complaints {
    let mut complaints = Vec::new();
    for Measured { what, lines, bound } in measured(source, is_test) {
        let exception = exceptions.iter().find(|exception| exception.what == what);
        let allowed = exception.map_or(bound, |exception| exception.lines);
        if lines > allowed {
            complaints.push(format!(
                "{what}: {lines} lines, at most {allowed} are allowed"
            ));
        }
    }
    complaints
}

/// Exceptions that nothing needs (any more).
pub(crate) fn idle_exceptions(sources: &[(&Source, bool)], exceptions: &[Exception]) -> Complaints {
    let all: Vec<_> = sources
        .iter()
        .flat_map(|(source, test)| measured(source, *test))
        .collect();
    let needed = |exception: &&Exception| {
        let over = |one: &Measured| one.what == exception.what && one.lines > one.bound;
        all.iter().any(over) && !exception.why.is_empty()
    };
    let idle = exceptions.iter().filter(|exception| !needed(exception));
    idle.map(|exception| format!("{}: needs no exception", exception.what))
        .collect()
}

/// The lengths of all functions together: their median, and how many are over the soft bound.
pub(crate) fn function_lengths(lengths: &mut [usize]) -> Complaints {
    lengths.sort_unstable();
    let median = lengths.get(lengths.len() / 2).copied().unwrap_or(0);
    let over = lengths
        .iter()
        .filter(|lines| **lines > FUNCTION_LINES_SOFT)
        .count();
    let mut complaints = Vec::new();
    if median > FUNCTION_LINES_MEDIAN {
        complaints.push(format!(
            "the median function has {median} lines, more than {FUNCTION_LINES_MEDIAN}"
        ));
    }
    if over * 100 > lengths.len() * OVER_SOFT_PERCENT_MAX {
        complaints.push(format!(
            "{over} of {} functions have more than {FUNCTION_LINES_SOFT} lines, \
             at most {OVER_SOFT_PERCENT_MAX} % may",
            lengths.len()
        ));
    }
    complaints
}

/// Text that may not be merged, split so that this file does not hold it.
const BANNED_TEXT: &[(&str, &str)] = &[
    (concat!("to", "do!("), "finish it or leave it out"),
    (concat!("unimple", "mented!("), "finish it or leave it out"),
    (concat!("d", "bg!("), "left over from looking for a fault"),
    (concat!("FIX", "ME"), "fix it or file an issue"),
    (concat!("TO", "DO"), "do it or file an issue"),
    (concat!("XX", "X"), "say what is wrong or file an issue"),
    (concat!("#[", "ignore"), "a test runs or goes"),
    (concat!("#[should", "_panic"), "assert what happens instead"),
    (concat!("/wo", "rk/"), "the path of somebody's machine"),
    (concat!("/tmp/", "wt"), "the path of somebody's machine"),
    (concat!("/ho", "me/"), "the path of somebody's machine"),
];

/// Unfinished work, left-overs and machine paths in any text file.
pub(crate) fn banned_text(path: &str, text: &str) -> Complaints {
    let mut complaints = Vec::new();
    for (line, content) in (1..).zip(text.lines()) {
        for (banned, why) in BANNED_TEXT {
            if content.contains(banned) {
                complaints.push(format!("{path}:{line}: {banned}: {why}"));
            }
        }
    }
    complaints
}

/// Modules that could hold anything.
pub(crate) fn vague_module(path: &str) -> Complaints {
    let vague = ["utils", "util", "common", "helpers", "helper", "misc"];
    let mut segments = path.split(['/', '.']);
    let found = segments.find(|segment| vague.contains(segment));
    found
        .map(|name| format!("{path}: {name} says nothing"))
        .into_iter()
        .collect()
}

/// Lints that are switched off without saying why.
pub(crate) fn allow_without_reason(source: &Source) -> Complaints {
    let mut complaints = Vec::new();
    for (start, _) in source.text.match_indices("#") {
        let rest = &source.text[start..];
        let opens = ["#[allow(", "#![allow(", "#[expect(", "#![expect("];
        let attribute = rest.find(")]").map_or(rest, |end| &rest[..end]);
        if opens.iter().any(|open| rest.starts_with(open)) && !attribute.contains("reason =") {
            let line = source.text[..start].lines().count().max(1);
            complaints.push(format!(
                "{}:{line}: no reason given for {attribute})]",
                source.path
            ));
        }
    }
    complaints
}

/// A file that does not begin by saying what it is.
pub(crate) fn no_head(path: &str, text: &str) -> Complaints {
    match text.starts_with("//! ") {
        true => Vec::new(),
        false => vec![format!("{path}: does not begin with //! and what it is")],
    }
}

/// Lines that don't fit the page.
pub(crate) fn long_lines(path: &str, text: &str) -> Complaints {
    let lines = (1..).zip(text.lines());
    let long = lines.filter(|(_, content)| content.chars().count() > COLUMNS_MAX);
    long.map(|(line, _)| format!("{path}:{line}: longer than {COLUMNS_MAX} columns"))
        .collect()
}

/// What the top of the repository holds, and nothing else.
const TOP: &[&str] = &[
    ".ci",
    ".config",
    ".editorconfig",
    ".gitignore",
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE-APACHE",
    "LICENSE-MIT",
    "README.md",
    "bench",
    "clippy.toml",
    "man",
    "rustfmt.toml",
    "src",
    "tests",
    "tools",
];

/// Entries of the top that are missing, or that should be somewhere else.
pub(crate) fn top_entries(present: &[String]) -> Complaints {
    let extra = present
        .iter()
        .filter(|entry| !TOP.contains(&entry.as_str()));
    let missing = TOP
        .iter()
        .filter(|entry| !present.iter().any(|p| p == *entry));
    let extra = extra.map(|entry| format!("{entry}: does not belong to the top"));
    extra
        .chain(missing.map(|entry| format!("{entry}: is missing")))
        .collect()
}
