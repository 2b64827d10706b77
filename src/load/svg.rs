//! A report as a picture: throughput over time above, latencies by percentile below. Pure.
//!
//! Nothing outside is referred to: the file can be looked at anywhere, in light and in dark.

use std::fmt::Write;

use super::report::{KindReport, Report};

const WIDTH: f64 = 900.0;
const LEFT: f64 = 80.0;
const RIGHT: f64 = 855.0;
/// Top and bottom of the two charts.
const UPPER: (f64, f64) = (90.0, 280.0);
const LOWER: (f64, f64) = (370.0, 600.0);

const STYLE: &str = "
  svg { font: 13px system-ui, sans-serif; background: var(--ground); color-scheme: light dark;
    --ground: #fff; --ink: #1d2733; --faint: #d5dbe3; --soft: #5b6776;
    --k0: #1668b8; --k1: #c2570c; --k2: #7a3fc4; --k3: #0d7d55; --k4: #b3245e }
  @media (prefers-color-scheme: dark) { svg { --ground: #14181d; --ink: #e6ebf1; --faint: #323a45;
    --soft: #9aa7b6; --k0: #6cb2f5; --k1: #f2a15f; --k2: #b995f0; --k3: #5cc79c; --k4: #f084ae } }
  text { fill: var(--ink) } .soft { fill: var(--soft) } .title { font-size: 18px; font-weight: 600 }
  .head { font-weight: 600 } .grid { stroke: var(--faint) }
  .line { fill: none; stroke-width: 2; stroke-linejoin: round } .right { text-anchor: end }
  .middle { text-anchor: middle } .area { opacity: .15; stroke: none }
  .c0 { stroke: var(--k0); fill: var(--k0) } .c1 { stroke: var(--k1); fill: var(--k1) }
  .c2 { stroke: var(--k2); fill: var(--k2) } .c3 { stroke: var(--k3); fill: var(--k3) }
  .c4 { stroke: var(--k4); fill: var(--k4) } polyline.line { fill: none }
";

/// A picture under construction.
struct Picture(String);

impl Picture {
    fn put(&mut self, line: std::fmt::Arguments<'_>) {
        // Nothing can fail in writing to a String.
        let _ = writeln!(self.0, "{line}");
    }

    fn text(&mut self, x: f64, y: f64, class: &str, text: &str) {
        let text = escaped(text);
        self.put(format_args!(
            "<text x=\"{x:.1}\" y=\"{y:.1}\" class=\"{class}\">{text}</text>"
        ));
    }

    fn grid(&mut self, from: (f64, f64), to: (f64, f64)) {
        let ((x1, y1), (x2, y2)) = (from, to);
        self.put(format_args!(
            "<line class=\"grid\" x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\"/>"
        ));
    }

    fn line(&mut self, class: &str, points: &[(f64, f64)]) {
        let points = joined(points);
        self.put(format_args!(
            "<polyline class=\"line {class}\" points=\"{points}\"/>"
        ));
    }
}

/// The report as an SVG file.
#[must_use]
pub fn draw(report: &Report) -> String {
    let mut picture = Picture(String::new());
    picture.put(format_args!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} 650\" role=\"img\">"
    ));
    let title = format!(
        "{} clients, {} under way each",
        report.clients, report.depth
    );
    picture.put(format_args!("<title>cowherd bench: {title}</title>"));
    picture.put(format_args!("<style>{STYLE}</style>"));
    picture.text(LEFT, 32.0, "title", &title);
    let about = format!(
        "{}; {:.1} s; {}",
        report.work,
        report.seconds,
        report.targets.join(", ")
    );
    picture.text(LEFT, 52.0, "soft", &clipped(&about));
    throughput(&mut picture, report);
    latencies(&mut picture, report);
    picture.put(format_args!("</svg>"));
    picture.0
}

fn throughput(picture: &mut Picture, report: &Report) {
    let (top, bottom) = UPPER;
    picture.text(LEFT, top - 12.0, "head", "Requests a second");
    let rates = report.series.iter().map(|point| point.requests_per_second);
    let most = round_up(rates.fold(0.0, f64::max));
    let y = |rate: f64| bottom - rate / most * (bottom - top);
    for quarter in 0..=4 {
        let rate = most * f64::from(quarter) / 4.0;
        picture.grid((LEFT, y(rate)), (RIGHT, y(rate)));
        picture.text(LEFT - 8.0, y(rate) + 4.0, "right soft", &short(rate));
    }
    let x = |at: f64| LEFT + at / report.seconds * (RIGHT - LEFT);
    for fifth in 0..=5 {
        let at = report.seconds * f64::from(fifth) / 5.0;
        picture.text(x(at), bottom + 18.0, "middle soft", &format!("{at:.1} s"));
    }
    let points = report.series.iter();
    let points: Vec<_> = points
        .map(|point| (x(point.at), y(point.requests_per_second)))
        .collect();
    if let (Some((first, _)), Some((last, _))) = (points.first(), points.last()) {
        let line = joined(&points);
        picture.put(format_args!(
            "<polygon class=\"area c0\" points=\"{first:.1},{bottom} {line} {last:.1},{bottom}\"/>"
        ));
    }
    picture.line("c0", &points);
}

/// Latencies against the share of requests that took longer, both in powers of ten.
fn latencies(picture: &mut Picture, report: &Report) {
    let (top, bottom) = LOWER;
    picture.text(LEFT, top - 12.0, "head", "Latency, by percentile");
    let all = || report.kinds.iter().flat_map(|kind| &kind.latencies);
    let (low, high) = all().fold((f64::MAX, 1.0_f64), |(low, high), latency| {
        (low.min(latency.us.max(1.0)), high.max(latency.us))
    });
    let (low, high) = (low.min(high).log10().floor(), high.log10().ceil());
    let span = (high - low).max(1.0);
    let y = |us: f64| bottom - (us.max(1.0).log10() - low) / span * (bottom - top);
    let mut power = low;
    while power <= low + span {
        let us = 10_f64.powf(power);
        picture.grid((LEFT, y(us)), (RIGHT, y(us)));
        picture.text(LEFT - 8.0, y(us) + 4.0, "right soft", &time(us));
        power += 1.0;
    }
    for percentile in [0.0, 50.0, 90.0, 99.0, 99.9, 99.99, 99.999] {
        let label = format!("{percentile} %");
        picture.text(across(percentile), bottom + 18.0, "middle soft", &label);
        picture.grid((across(percentile), top), (across(percentile), bottom));
    }
    for (index, kind) in report.kinds.iter().enumerate() {
        let points = kind.latencies.iter();
        let points = points.filter(|latency| latency.percentile < 100.0);
        let points: Vec<_> = points
            .map(|latency| (across(latency.percentile), y(latency.us)))
            .collect();
        picture.line(&format!("c{index}"), &points);
        legend(picture, index, kind);
    }
}

fn legend(picture: &mut Picture, index: usize, kind: &KindReport) {
    let x = LEFT + 180.0 * f64::from(u32::try_from(index).unwrap_or(0));
    let y = LOWER.1 + 42.0;
    picture.line(&format!("c{index}"), &[(x, y - 4.0), (x + 18.0, y - 4.0)]);
    let text = format!("{}: p99 {}", kind.kind, time(kind.us(99.0)));
    picture.text(x + 24.0, y, "", &text);
}

/// Where a percentile lies: each nine is as wide as the one before.
fn across(percentile: f64) -> f64 {
    let rest = ((100.0 - percentile) / 100.0).max(1e-5);
    LEFT + -rest.log10() / 5.0 * (RIGHT - LEFT)
}

fn joined(points: &[(f64, f64)]) -> String {
    let points = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}"));
    points.collect::<Vec<_>>().join(" ")
}

/// The next number of one digit and zeros that is not smaller.
fn round_up(number: f64) -> f64 {
    let power = 10_f64.powf(number.max(1.0).log10().floor());
    (number.max(1.0) / power).ceil() * power
}

fn short(number: f64) -> String {
    match number {
        number if number >= 1e6 => format!("{:.1} M", number / 1e6),
        number if number >= 1e4 => format!("{:.0} k", number / 1e3),
        number if number >= 1e3 => format!("{:.1} k", number / 1e3),
        number => format!("{number:.0}"),
    }
}

/// Microseconds as people read them.
#[must_use]
pub fn time(us: f64) -> String {
    match us {
        us if us >= 1e6 => format!("{:.2} s", us / 1e6),
        us if us >= 1e4 => format!("{:.1} ms", us / 1e3),
        us if us >= 1e3 => format!("{:.2} ms", us / 1e3),
        us if us >= 100.0 => format!("{us:.0} us"),
        us => format!("{us:.1} us"),
    }
}

/// Names of exports may have anything in them.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '"' => out.push_str("&quot;"),
            // XML has no way to write most control characters.
            control if control.is_control() => out.push('?'),
            other => out.push(other),
        }
    }
    out
}

fn clipped(text: &str) -> String {
    match text.char_indices().nth(118) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::report::{Latency, Point};

    fn report(target: &str) -> Report {
        let latencies = [(0.0, 5.0), (50.0, 80.0), (99.0, 900.0), (100.0, 12_000.0)];
        let latencies = latencies.map(|(percentile, us)| Latency { percentile, us });
        let kind = |kind| KindReport {
            kind,
            requests: 10,
            requests_per_second: 5.0,
            bytes_per_second: 20_480.0,
            mean_us: 90.0,
            latencies: latencies.to_vec(),
        };
        let point = |at, rate| Point {
            at,
            requests_per_second: rate,
            bytes_per_second: 0.0,
        };
        Report {
            targets: vec![target.to_owned()],
            clients: 2,
            depth: 4,
            work: "random 4096 bytes, 1 read".to_owned(),
            seconds: 0.5,
            kinds: vec![kind("read"), kind("write")],
            slowest_client: 2.0,
            fastest_client: 3.0,
            series: vec![point(0.125, 4.0), point(0.375, 6.0)],
            errors: std::collections::BTreeMap::new(),
            wrong_reads: 0,
            wrong_offsets: Vec::new(),
        }
    }

    #[test]
    fn every_coordinate_lies_in_the_picture() {
        let svg = draw(&report("nbd://h/disk"));
        let behind = svg.split(" points=\"").skip(1);
        let coordinates = behind.filter_map(|text| text.split('"').next());
        let numbers = coordinates.flat_map(|text| text.split([' ', ',']));
        let numbers: Vec<f64> = numbers.filter_map(|text| text.parse().ok()).collect();
        assert!(numbers.len() > 20);
        assert!(numbers.iter().all(|number| (0.0..=WIDTH).contains(number)));
    }

    #[test]
    fn names_do_not_become_markup() {
        let svg = draw(&report("nbd://h/<script>&\"\u{1}"));
        assert!(svg.contains("nbd://h/&lt;script&gt;&amp;&quot;?"));
        assert!(!svg.contains("<script>"));
    }

    #[test]
    fn a_run_without_any_answer_is_drawn_too() {
        let empty = Report {
            kinds: Vec::new(),
            series: Vec::new(),
            ..report("nbd://h/disk")
        };
        assert!(!draw(&empty).contains("NaN"));
    }

    #[test]
    fn scales_end_in_round_numbers() {
        let rounded = [0.0, 7.0, 12.0, 45_210.0].map(round_up);
        assert_eq!(rounded, [1.0, 7.0, 20.0, 50_000.0]);
    }

    #[test]
    fn times_are_short() {
        let times = [5.25, 250.0, 1500.0, 25_000.0, 2_500_000.0].map(time);
        assert_eq!(times, ["5.2 us", "250 us", "1.50 ms", "25.0 ms", "2.50 s"]);
    }
}
