//! The options of `cowherd doctor`, and its findings for people and for programs.

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;

use indicatif::ProgressBar;
use serde::Serialize;

use crate::serve::Failure;
use crate::serve::doctor::{Finding, Level, Question, Step};

/// Says what is wrong with a set-up, and what to do
///
/// It looks at the config and the files that it names, at the network interfaces, at the ports and
/// who has them, for other DHCP servers, at the images and the kernels inside of them, at the
/// overlays, at free space and at what the kernel gives; and it asks a running server for machines
/// whose boots hang, and where. Nothing is changed.
///
/// Other DHCP servers are asked for by a DISCOVER of a card that was made up; what they offer is
/// not taken. That takes five seconds an interface, and the right to raw sockets.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Images that are served without a config
    #[arg(value_name = "IMAGE")]
    images: Vec<PathBuf>,

    /// The config file
    ///
    /// Without it, and without an IMAGE, it is /etc/cowherd/cowherd.toml where that is there.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Directory that keeps the overlays
    ///
    /// Without it, the one of the config, else the one that `cowherd serve` uses without it.
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,

    /// Read the images from end to end, and not here and there only
    #[arg(long)]
    read_images: bool,

    /// Send nothing to the network: other DHCP servers are not asked for
    #[arg(long)]
    silent: bool,

    /// Show only what is not fine
    #[arg(short, long)]
    quiet: bool,

    /// Print the answer as JSON
    #[arg(long)]
    json: bool,
}

/// All that was found, as programs get it.
#[derive(Serialize)]
struct Report<'a> {
    /// Whether nothing is wrong; what may be wrong is not counted.
    ok: bool,
    findings: &'a [Finding],
}

/// Has it looked at; whether nothing is wrong.
pub(super) fn run<W>(arguments: Arguments, work: W) -> Result<bool, Failure>
where
    W: FnOnce(&Question, &mut dyn FnMut(Step)) -> Result<(), Failure>,
{
    let (json, quiet) = (arguments.json, arguments.quiet);
    let question = question(arguments);
    let spinner = spinner();
    let mut findings = Vec::new();
    let mut printed = Ok(());
    let done = work(&question, &mut |step| match step {
        Step::Looks(at) => show(spinner.as_ref(), format!("looking at {at}")),
        Step::Progress { done, total } => progress(spinner.as_ref(), done, total),
        Step::Found(found) => {
            if !json && printed.is_ok() && !(quiet && found.level == Level::Fine) {
                printed = aside(spinner.as_ref(), || print(&mut io::stdout().lock(), &found));
            }
            findings.push(found);
        }
    });
    if let Some(spinner) = spinner {
        spinner.finish_and_clear();
    }
    done?;
    let ok = findings.iter().all(|found| found.level != Level::Wrong);
    let printed = printed.and_then(|()| finish(&mut io::stdout().lock(), &findings, ok, json));
    match printed {
        // Whoever reads has read enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(ok),
        Err(error) => Err(Failure::failed(format!("standard output: {error}"))),
        Ok(()) => Ok(ok),
    }
}

fn question(arguments: Arguments) -> Question {
    Question {
        config: arguments.config,
        images: arguments.images,
        state: arguments.state,
        read_images: arguments.read_images,
        is_silent: arguments.silent,
    }
}

/// On a terminal only.
fn spinner() -> Option<ProgressBar> {
    io::stderr().is_terminal().then(ProgressBar::new_spinner)
}

fn show(spinner: Option<&ProgressBar>, text: String) {
    if let Some(spinner) = spinner {
        spinner.set_message(text);
        spinner.enable_steady_tick(std::time::Duration::from_millis(100));
    }
}

fn progress(spinner: Option<&ProgressBar>, done: u64, total: u64) {
    if let Some(spinner) = spinner {
        let text = spinner.message();
        let text = text.split(": ").next().unwrap_or_default().to_owned();
        let percent = done.saturating_mul(100) / total.max(1);
        spinner.set_message(format!("{text}: {percent} %"));
    }
}

/// Prints while the line of the spinner is out of the way.
fn aside(spinner: Option<&ProgressBar>, print: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    match spinner {
        Some(spinner) => spinner.suspend(print),
        None => print(),
    }
}

fn print(out: &mut impl Write, found: &Finding) -> io::Result<()> {
    let level = match found.level {
        Level::Wrong => "WRONG",
        other => other.name(),
    };
    let area = found.area.name();
    writeln!(out, "{level:<8}{area:<11} {}: {}", found.about, found.what)?;
    match &found.advice {
        Some(advice) => writeln!(out, "{:<20}-> {advice}", ""),
        None => Ok(()),
    }
}

fn finish(out: &mut impl Write, findings: &[Finding], ok: bool, json: bool) -> io::Result<()> {
    if json {
        serde_json::to_writer(&mut *out, &Report { ok, findings })?;
        return writeln!(out);
    }
    writeln!(out, "{}", summary(findings))
}

fn summary(findings: &[Finding]) -> String {
    let count = |level| findings.iter().filter(|found| found.level == level).count();
    let wrong = match count(Level::Wrong) {
        0 => "nothing is wrong".to_owned(),
        1 => "1 thing is wrong".to_owned(),
        many => format!("{many} things are wrong"),
    };
    let (warnings, unknown) = (count(Level::Warning), count(Level::Unknown));
    let more = [
        (warnings, "to be looked after"),
        (unknown, "could not be looked at"),
    ];
    let more = more.iter().filter(|(many, _)| *many > 0);
    let more = more.map(|(many, what)| format!(", {many} {what}"));
    wrong + &more.collect::<String>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::doctor::Area;

    fn found(level: Level) -> Finding {
        Finding {
            area: Area::Ports,
            level,
            about: "TCP 127.0.0.1:69".to_owned(),
            what: "somebody has it".to_owned(),
            advice: Some("stop it".to_owned()),
        }
    }

    #[test]
    fn a_finding_has_its_advice_below_it() {
        let mut out = Vec::new();
        print(&mut out, &found(Level::Wrong)).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert_eq!(
            text,
            "WRONG   ports       TCP 127.0.0.1:69: somebody has it\n                    \
             -> stop it\n"
        );
    }

    #[test]
    fn the_summary_counts_by_level() {
        assert_eq!(summary(&[found(Level::Fine)]), "nothing is wrong");
        let all = [Level::Wrong, Level::Wrong, Level::Warning, Level::Unknown].map(found);
        let words = "2 things are wrong, 1 to be looked after, 1 could not be looked at";
        assert_eq!(summary(&all), words);
    }
}
