//! The options of `cowherd explain`, and its answers for people and for programs.

use std::io::{self, Write};
use std::net::Ipv4Addr;
use std::path::PathBuf;

use crate::mac::MacAddress;
use crate::serve::Failure;
use crate::serve::explain::{Answer, Machine, Note, Of, Question, Shown, Step, architecture};

/// Says what DHCP tells a machine, and why
///
/// It reads the config and makes the decisions that the running server makes, by the same rules, as
/// if there were no leases yet. Nothing is sent, and a server that runs is not asked. A machine is
/// given by --mac and --arch: its first request is made up, as its firmware would send it, and
/// answered. With --pcap every DHCP packet of a capture is answered instead.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The network card of the machine, such as 52:54:00:12:34:56
    #[arg(long, value_name = "MAC", required_unless_present = "pcap")]
    mac: Option<MacAddress>,

    /// What kind of machine: bios, ia32, x64, x64-9, arm32, arm64, ia32-http, x64-http,
    /// arm32-http, arm64-http, riscv64, riscv64-http, loongarch64, loongarch64-http, or the number
    /// of option 93
    #[arg(long, value_name = "ARCH", required_unless_present = "pcap")]
    arch: Option<String>,

    /// iPXE asks, and not the firmware below it
    #[arg(long, conflicts_with = "http")]
    ipxe: bool,

    /// The firmware boots by HTTP
    #[arg(long)]
    http: bool,

    /// The machine is behind the relay with this address
    #[arg(long, value_name = "IP")]
    relay: Option<Ipv4Addr>,

    /// Explain the DHCP packets in this capture, a pcap file such as tcpdump makes
    #[arg(long, value_name = "FILE", conflicts_with_all = ["mac", "arch", "ipxe", "http", "relay"])]
    pcap: Option<PathBuf>,

    /// The config file
    #[arg(long, value_name = "FILE", default_value = "/etc/cowherd/cowherd.toml")]
    config: PathBuf,

    /// Print one JSON object a message, each on a line of its own
    #[arg(long)]
    json: bool,
}

/// Explains; `work` does it and hands out one step at a time.
pub(super) fn run<W>(arguments: Arguments, work: W) -> Result<bool, Failure>
where
    W: FnOnce(&Question, &mut dyn FnMut(Step)) -> Result<(), Failure>,
{
    let json = arguments.json;
    let question = question(arguments)?;
    let mut out = io::stdout().lock();
    let mut printed = Ok(());
    work(&question, &mut |step| {
        if printed.is_ok() {
            printed = print(&mut out, &step, json);
        }
    })?;
    match printed {
        // Whoever reads has read enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(true),
        printed => {
            let failed = |error: io::Error| Failure::failed(format!("standard output: {error}"));
            printed.map(|()| true).map_err(failed)
        }
    }
}

fn question(arguments: Arguments) -> Result<Question, Failure> {
    let of = match (arguments.pcap, arguments.mac, arguments.arch) {
        (Some(capture), _, _) => Of::Capture(capture),
        (None, Some(mac), Some(arch)) => {
            let number = architecture(&arch, arguments.http);
            let number = number.map_err(|why| Failure::usage(format!("--arch {arch}: {why}")))?;
            Of::Machine(Machine {
                mac,
                architecture: number,
                ipxe: arguments.ipxe,
                relay: arguments.relay,
            })
        }
        _ => return Err(Failure::usage("say --mac and --arch, or --pcap")),
    };
    Ok(Question {
        config: arguments.config,
        of,
    })
}

fn print(out: &mut impl Write, step: &Step, json: bool) -> io::Result<()> {
    if json {
        serde_json::to_writer(&mut *out, step)?;
        return writeln!(out);
    }
    if let Some(number) = step.packet {
        write!(out, "packet {number}: ")?;
    }
    match &step.message {
        Some(message) => print_message(out, message, "")?,
        None => writeln!(out, "no DHCP message")?,
    }
    for Note { what, why } in &step.notes {
        writeln!(out, "- {what}")?;
        print_why(out, why)?;
    }
    for Answer { to, message, why } in &step.replies {
        writeln!(out, "answer to {to}:")?;
        print_message(out, message, "  ")?;
        print_why(out, why)?;
    }
    writeln!(out)
}

fn print_why(out: &mut impl Write, why: &[String]) -> io::Result<()> {
    why.iter()
        .try_for_each(|why| writeln!(out, "    since {why}"))
}

fn print_message(out: &mut impl Write, message: &Shown, indent: &str) -> io::Result<()> {
    writeln!(out, "{indent}{} of {}", message.kind, message.mac)?;
    let addresses = [
        ("yiaddr", message.yiaddr),
        ("ciaddr", message.ciaddr),
        ("siaddr", message.siaddr),
        ("giaddr", message.giaddr),
    ];
    for (name, address) in addresses {
        if let Some(address) = address {
            writeln!(out, "{indent}  {name:<28} {address}")?;
        }
    }
    if let Some(file) = &message.file {
        writeln!(out, "{indent}  {:<28} {file}", "file")?;
    }
    for option in &message.options {
        let name = format!("option {} {}", option.code, option.name.unwrap_or_default());
        writeln!(out, "{indent}  {:<28} {}", name.trim_end(), option.value)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dhcp::boot::ARCHITECTURES;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Explain {
        #[command(flatten)]
        arguments: Arguments,
    }

    #[test]
    fn the_help_has_every_architecture_that_is_served() {
        use clap::CommandFactory;
        let names = ARCHITECTURES.iter().map(|of| of.name);
        let names = names.collect::<Vec<_>>().join(", ");
        let command = Explain::command();
        let mut arguments = command.get_arguments();
        let help = arguments.find_map(|of| of.get_help().filter(|_| of.get_id() == "arch"));
        let help = help.unwrap().to_string();
        assert!(help.contains(&names), "{help:?} has not {names:?}");
    }

    fn asked(words: &str) -> Result<Of, String> {
        let words = std::iter::once("explain").chain(words.split_whitespace());
        let explain = Explain::try_parse_from(words).map_err(|error| error.kind().to_string())?;
        let question = question(explain.arguments).map_err(|failure| failure.to_string())?;
        Ok(question.of)
    }

    fn architecture_of(words: &str) -> u16 {
        let words = format!("--mac 52:54:00:12:34:56 {words}");
        match asked(&words).unwrap() {
            Of::Machine(machine) => machine.architecture,
            Of::Capture(_) => panic!("a machine"),
        }
    }

    #[test]
    fn an_architecture_is_a_name_or_a_number() {
        assert_eq!(architecture_of("--arch bios"), 0);
        assert_eq!(architecture_of("--arch x64"), 7);
        assert_eq!(architecture_of("--arch 9"), 9);
        assert_eq!(architecture_of("--arch 777"), 777);
        assert_eq!(architecture_of("--arch x64 --http"), 16);
        assert!(
            asked("--mac 52:54:00:12:34:56 --arch vax")
                .unwrap_err()
                .contains("riscv64")
        );
        assert!(asked("--mac 52:54:00:12:34:56 --arch bios --http").is_err());
    }

    #[test]
    fn it_is_a_machine_or_a_capture() {
        assert_eq!(asked("--pcap a.pcap"), Ok(Of::Capture("a.pcap".into())));
        assert!(asked("").is_err());
        assert!(asked("--arch x64").is_err());
        assert!(asked("--pcap a.pcap --arch x64").is_err());
    }
}
