//! What is known, as Prometheus takes it: its text format, version 0.0.4.
//!
//! Invariants:
//! - There are series for a bounded number of machines; exports are as many as the config and its
//!   generations have.
//! - No text of a machine stands in a label, only its name, MAC address or address.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::report::{Client, State, Traffic};
use super::traffic::{CLASSES, Counts, Kind, Spread, Totals};
use crate::limits::STATUS_SERIES_CLIENTS_MAX;

/// A page of metrics that is being written.
struct Page(String);

/// What a family of metrics is.
#[derive(Clone, Copy)]
enum Type {
    Counter,
    Gauge,
    Histogram,
}

impl Page {
    fn family(&mut self, name: &str, kind: Type, help: &str) {
        let kind = match kind {
            Type::Counter => "counter",
            Type::Gauge => "gauge",
            Type::Histogram => "histogram",
        };
        // A String takes whatever is written to it.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl std::fmt::Display) {
        self.0.push_str(name);
        for (index, (label, text)) in labels.iter().enumerate() {
            let before = if index == 0 { '{' } else { ',' };
            let _ = write!(self.0, "{before}{label}=\"{}\"", escaped(text));
        }
        if !labels.is_empty() {
            self.0.push('}');
        }
        let _ = writeln!(self.0, " {value}");
    }
}

/// "label_value can be any sequence of UTF-8 characters, but the backslash (`\`), double-quote
/// (`"`), and line feed (`\n`) characters have to be escaped".
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

/// All metrics; `exports` by the image and its generation, without whose overlay.
#[must_use]
pub fn page(version: &str, clients: &[Client], exports: &BTreeMap<String, Totals>) -> String {
    let mut page = Page(String::new());
    page.family("cowherd_build_info", Type::Gauge, "Which cowherd this is.");
    page.sample("cowherd_build_info", &[("version", version)], 1);
    let name = "cowherd_clients";
    page.family(name, Type::Gauge, "Machines, by how they are doing.");
    for state in State::ALL {
        let of_state = clients.iter().filter(|client| client.state == state);
        page.sample(name, &[("state", state.name())], of_state.count());
    }
    let shown: Vec<_> = clients.iter().take(STATUS_SERIES_CLIENTS_MAX).collect();
    boots(&mut page, &shown);
    traffic(&mut page, &shown);
    counts(&mut page, exports);
    durations(&mut page, exports);
    page.0
}

fn boots(page: &mut Page, clients: &[&Client]) {
    let name = "cowherd_client_connections";
    page.family(name, Type::Gauge, "Connections of a machine to its disk.");
    for client in clients {
        page.sample(name, &[("client", &client.id)], client.connections);
    }
    let name = "cowherd_client_boot_seconds";
    page.family(
        name,
        Type::Gauge,
        "How long the last boot of a machine took.",
    );
    for client in clients {
        let took = client.boots.first().and_then(|boot| boot.took);
        if let Some(took) = took {
            page.sample(name, &[("client", &client.id)], seconds(took, 1000));
        }
    }
}

/// What is told of the traffic of a machine, by the name of its metric.
type Told = (
    &'static str,
    Type,
    &'static str,
    fn(&Traffic) -> Option<u64>,
);

const TOLD: [Told; 5] = [
    (
        "cowherd_client_read_bytes_total",
        Type::Counter,
        "Bytes that a machine has read from its disk.",
        |traffic| Some(traffic.bytes_read),
    ),
    (
        "cowherd_client_written_bytes_total",
        Type::Counter,
        "Bytes that a machine has written to its disk.",
        |traffic| Some(traffic.bytes_written),
    ),
    (
        "cowherd_client_cached_reads_total",
        Type::Counter,
        "Reads of a machine that were answered from memory.",
        |traffic| Some(traffic.hits),
    ),
    (
        "cowherd_client_requests_in_flight",
        Type::Gauge,
        "Requests of a machine that are being worked on.",
        |traffic| Some(traffic.underway.into()),
    ),
    (
        "cowherd_client_overlay_bytes",
        Type::Gauge,
        "Bytes of blocks that the overlay of a machine holds.",
        |traffic| traffic.overlay_bytes,
    ),
];

fn traffic(page: &mut Page, clients: &[&Client]) {
    let of = |client: &&Client| Some((client.id.clone(), client.traffic.clone()?));
    let all: Vec<_> = clients.iter().filter_map(of).collect();
    for (name, kind, help, value) in TOLD {
        page.family(name, kind, help);
        for (id, traffic) in &all {
            if let Some(value) = value(traffic) {
                page.sample(name, &[("client", id)], value);
            }
        }
    }
    let name = "cowherd_client_requests_total";
    page.family(name, Type::Counter, "Requests of a machine, by their kind.");
    for (id, traffic) in &all {
        for (kind, count) in &traffic.requests {
            page.sample(name, &[("client", id), ("kind", kind)], count);
        }
    }
    let name = "cowherd_client_errors_total";
    page.family(name, Type::Counter, "Requests of a machine that failed.");
    for (id, traffic) in &all {
        for (cause, count) in &traffic.errors {
            page.sample(name, &[("client", id), ("cause", cause)], count);
        }
    }
}

/// The name of a counter, what it counts, and how much that is.
type Counted = (&'static str, &'static str, fn(&Counts) -> u64);

/// What is told of an export.
const COUNTED: [Counted; 3] = [
    (
        "cowherd_export_read_bytes_total",
        "Bytes that all machines have read from an image.",
        Counts::bytes_read,
    ),
    (
        "cowherd_export_written_bytes_total",
        "Bytes that all machines have written over an image.",
        Counts::bytes_written,
    ),
    (
        "cowherd_export_cached_reads_total",
        "Reads of an image that were answered from memory.",
        |counts| counts.hits,
    ),
];

fn counts(page: &mut Page, exports: &BTreeMap<String, Totals>) {
    for (name, help, value) in COUNTED {
        page.family(name, Type::Counter, help);
        for (export, Totals { counts, .. }) in exports {
            page.sample(name, &[("export", export)], value(counts));
        }
    }
    let name = "cowherd_export_requests_total";
    page.family(name, Type::Counter, "Requests for an image, by their kind.");
    for (export, Totals { counts, .. }) in exports {
        for (kind, count) in counts.requests_by_name() {
            page.sample(name, &[("export", export), ("kind", &kind)], count);
        }
    }
    let name = "cowherd_export_errors_total";
    page.family(name, Type::Counter, "Requests for an image that failed.");
    for (export, Totals { counts, .. }) in exports {
        for (cause, count) in counts.errors_by_name() {
            page.sample(name, &[("export", export), ("cause", &cause)], count);
        }
    }
}

fn durations(page: &mut Page, exports: &BTreeMap<String, Totals>) {
    let name = "cowherd_request_duration_seconds";
    let help = "Time from a request to its answer being queued, by image and kind.";
    page.family(name, Type::Histogram, help);
    for (export, Totals { latencies, .. }) in exports {
        for kind in Kind::ALL {
            if let Some(spread) = latencies.spread(kind) {
                histogram(
                    page,
                    name,
                    [("export", export), ("kind", kind.name())],
                    &spread,
                );
            }
        }
    }
}

fn histogram(page: &mut Page, name: &str, labels: [(&str, &str); 2], spread: &Spread) {
    let bucket = format!("{name}_bucket");
    let [export, kind] = labels;
    for (end, count) in CLASSES.iter().zip(spread.up_to) {
        let end = seconds(*end, 1_000_000_000).to_string();
        page.sample(&bucket, &[export, kind, ("le", &end)], count);
    }
    page.sample(&bucket, &[export, kind, ("le", "+Inf")], spread.count);
    let sum = seconds(spread.sum, 1_000_000_000);
    page.sample(&format!("{name}_sum"), &labels, sum);
    page.sample(&format!("{name}_count"), &labels, spread.count);
}

#[allow(clippy::cast_precision_loss, reason = "metrics are floating point")]
fn seconds(count: u64, in_a_second: u64) -> f64 {
    count as f64 / in_a_second as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::timelines::Load;
    use crate::status::traffic::Counts;
    use crate::status::{At, Event, Sign, Timelines};

    fn written(name: &str) -> String {
        let mut all = Timelines::default();
        let sign = Sign {
            name: Some(name.to_owned()),
            ..Sign::default()
        };
        let key = all.handle(At(0), &sign, &Event::Reads);
        let mut more = Counts::default();
        more.requests[Kind::Read as usize] = 3;
        more.bytes[Kind::Read as usize] = 4096;
        more.errors[0] = 1;
        let load = Load {
            more,
            underway: 2,
            own_bytes: Some(8192),
            waits: None,
        };
        all.count(&key, &load);
        all.settle(std::time::Duration::from_secs(1));
        let mut totals = Totals::default();
        totals.latencies.record(Kind::Read, 20_000);
        totals.counts.bytes[Kind::Read as usize] = 5000;
        totals.counts.requests[Kind::Write as usize] = 2;
        totals.counts.errors[3] = 4;
        let exports = BTreeMap::from([("arch+1".to_owned(), totals)]);
        page("1.2.3", &all.clients(At(0)), &exports)
    }

    #[test]
    fn counters_gauges_and_histograms_are_there() {
        let page = written("pc");
        let duration = "cowherd_request_duration_seconds";
        let read = "export=\"arch+1\",kind=\"read\"";
        for line in [
            &format!("{duration}_bucket{{{read},le=\"0.00001\"}} 0"),
            &format!("{duration}_bucket{{{read},le=\"0.000025\"}} 1"),
            &format!("{duration}_bucket{{{read},le=\"+Inf\"}} 1"),
            &format!("{duration}_sum{{{read}}} 0.00002"),
            "cowherd_build_info{version=\"1.2.3\"} 1",
            "cowherd_clients{state=\"down\"} 0",
            "cowherd_client_read_bytes_total{client=\"pc\"} 4096",
            "cowherd_client_requests_total{client=\"pc\",kind=\"read\"} 3",
            "cowherd_client_errors_total{client=\"pc\",cause=\"invalid\"} 1",
            "cowherd_client_overlay_bytes{client=\"pc\"} 8192",
            "cowherd_export_read_bytes_total{export=\"arch+1\"} 5000",
            "cowherd_export_written_bytes_total{export=\"arch+1\"} 0",
            "cowherd_export_requests_total{export=\"arch+1\",kind=\"write\"} 2",
            "cowherd_export_errors_total{export=\"arch+1\",cause=\"io\"} 4",
        ] {
            assert!(page.lines().any(|other| other == line), "{line}\n{page}");
        }
    }

    #[test]
    fn what_promtool_asks_of_a_page_holds() {
        let page = written("pc");
        let mut families = BTreeMap::new();
        for line in page.lines().filter(|line| line.starts_with("# TYPE ")) {
            let words: Vec<_> = line.split(' ').collect();
            assert!(
                families.insert(words[2], words[3]).is_none(),
                "twice: {line}"
            );
            assert!(page.contains(&format!("# HELP {} ", words[2])), "{line}");
            assert_eq!(
                words[2].ends_with("_total"),
                words[3] == "counter",
                "{line}"
            );
        }
        for line in page.lines().filter(|line| !line.starts_with('#')) {
            let (series, value) = line.rsplit_once(' ').unwrap();
            assert!(value.parse::<f64>().is_ok(), "{line}");
            let name = series.split('{').next().unwrap();
            let stem = ["_bucket", "_sum", "_count"];
            let stem = stem.iter().find_map(|end| name.strip_suffix(end));
            let is_known = |name: &str| families.contains_key(name);
            assert!(is_known(name) || stem.is_some_and(is_known), "{line}");
        }
    }

    #[test]
    fn a_label_can_t_be_broken_out_of() {
        let page = written("a\"} 1\nb\\");
        let label = "{client=\"a\\\"} 1\\nb\\\\\"}";
        assert!(page.contains(label), "{page}");
    }
}
