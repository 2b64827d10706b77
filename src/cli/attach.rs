//! The options of `cowherd-attach`.

use std::process::ExitCode;
use std::time::Duration;

use clap::{CommandFactory, Parser};

use crate::attach::options::{Attach, Device, Server, Work};
use crate::limits::ATTACH_CONNECTIONS_MAX;

/// Attaches a network block device that outlives restarts of its server
///
/// The device is one of the kernel, such as /dev/nbd0. It is attached to an export of a server, and
/// a process stays that connects it again, for ever, whenever its connections end: through
/// restarts, crashes and power cuts of the server, and to another address where several are named.
/// Programs that use the device wait meanwhile, and see no error.
#[derive(Debug, Parser)]
#[command(name = "cowherd-attach", version, max_term_width = 100)]
#[command(arg_required_else_help = true)]
struct Cli {
    /// The device, such as /dev/nbd0 or nbd0
    #[arg(value_name = "DEVICE")]
    device: Device,

    /// The export, such as arch or arch@studio-3; "" is the server's default
    #[arg(value_name = "EXPORT", required_unless_present_any = ["status", "detach"])]
    export: Option<String>,

    /// A server: HOST, HOST:PORT or [ADDRESS]:PORT; several are tried in turn
    ///
    /// Names are looked up once, before the device is there: a root file system that hangs can't be
    /// asked who is who. All addresses of a name are tried.
    #[arg(value_name = "SERVER", required_unless_present_any = ["status", "detach"])]
    servers: Vec<Server>,

    /// Connections to use, where the server allows several to one export
    ///
    /// With one, a request may take as long as it likes as long as the connection lives. With
    /// several, the kernel gives up a connection that has a request without an answer for the time
    /// of --resend, and sends the request over another.
    #[arg(long, value_name = "N", default_value_t = 1)]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=i64::from(ATTACH_CONNECTIONS_MAX)))]
    connections: u16,

    /// Seconds to try for before the device is there; 0 is one attempt
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    wait: u32,

    /// Seconds after which a request that was on its way when the connection ended is sent again
    ///
    /// They are counted from when it was sent first. The default is 3 with one connection, and 20
    /// with several.
    #[arg(long, value_name = "SECONDS")]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=3600))]
    resend: Option<u16>,

    /// Bytes of a sector: 512, 1024, 2048 or 4096
    ///
    /// Partition tables count in sectors, so this has to be what they were made with.
    #[arg(long, value_name = "BYTES", default_value_t = 512)]
    #[arg(value_parser = sector)]
    sector: u16,

    /// Stay in the foreground, and log to standard error
    #[arg(long)]
    foreground: bool,

    /// Say how the device is; exits with 1 where no process keeps it
    #[arg(long, conflicts_with_all = ["detach", "export"])]
    status: bool,

    /// Detach the device, once all that was written to it is at the server
    #[arg(long, conflicts_with = "export")]
    detach: bool,

    /// Detach it also where it is in use or its server is away; what is under way fails
    #[arg(long, requires = "detach", conflicts_with = "status")]
    force: bool,

    /// Print what there is to say as one line of JSON
    #[arg(long)]
    json: bool,
}

fn sector(text: &str) -> Result<u16, String> {
    let sizes = [512, 1024, 2048, 4096];
    let found = sizes.into_iter().find(|size| size.to_string() == text);
    found.ok_or_else(|| "512, 1024, 2048 or 4096".to_owned())
}

impl Cli {
    fn work(self) -> (Work, bool) {
        let device = self.device;
        let resend = self
            .resend
            .unwrap_or(if self.connections == 1 { 3 } else { 20 });
        let work = if self.status {
            Work::Status(device)
        } else if self.detach {
            Work::Detach {
                device,
                force: self.force,
            }
        } else {
            Work::Attach(Attach {
                device,
                export: self.export.unwrap_or_default(),
                servers: self.servers,
                connections: self.connections,
                sector: self.sector,
                wait: Duration::from_secs(self.wait.into()),
                resend: Duration::from_secs(resend.into()),
                foreground: self.foreground,
            })
        };
        (work, self.json)
    }
}

/// The whole command line of `cowherd-attach`, for man pages and tests.
#[must_use]
pub fn attach_command() -> clap::Command {
    Cli::command()
}

/// Reads the arguments of `cowherd-attach` and has them done.
pub fn attach_with(run: impl FnOnce(&Work, bool) -> ExitCode) -> ExitCode {
    match Cli::try_parse() {
        Ok(cli) => {
            let (work, json) = cli.work();
            run(&work, json)
        }
        Err(error) => ExitCode::from(super::explain(&error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn work(arguments: &[&str]) -> Option<Work> {
        let arguments = std::iter::once(&"cowherd-attach").chain(arguments);
        let cli = Cli::try_parse_from(arguments).ok()?;
        Some(cli.work().0)
    }

    #[test]
    fn the_definition_of_the_options_is_sound() {
        attach_command().debug_assert();
    }

    #[test]
    fn a_device_an_export_and_servers_are_all_it_takes() {
        let Some(Work::Attach(attach)) = work(&["/dev/nbd1", "arch@a", "10.77.0.1", "b:1"]) else {
            panic!("it is to be attached");
        };
        assert_eq!(
            (attach.device, attach.export.as_str()),
            (Device(1), "arch@a")
        );
        assert_eq!((attach.servers.len(), attach.connections), (2, 1));
        assert_eq!(attach.resend, Duration::from_secs(3));
    }

    #[test]
    fn requests_wait_longer_where_several_connections_are_used() {
        let arguments = ["nbd0", "arch", "a", "--connections", "4"];
        let Some(Work::Attach(attach)) = work(&arguments) else {
            panic!("it is to be attached");
        };
        assert_eq!(attach.resend, Duration::from_secs(20));
    }

    #[test]
    fn a_device_alone_is_asked_about_or_detached() {
        assert_eq!(work(&["nbd2", "--status"]), Some(Work::Status(Device(2))));
        let detach = Work::Detach {
            device: Device(2),
            force: true,
        };
        assert_eq!(work(&["nbd2", "--detach", "--force"]), Some(detach));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for arguments in [
            &["nbd0"][..],
            &["nbd0", "arch"],
            &["sda", "arch", "a"],
            &["nbd0", "arch", "a", "--connections", "0"],
            &["nbd0", "arch", "a", "--sector", "513"],
            &["nbd0", "--status", "--detach"],
            &["nbd0", "arch", "a", "--status"],
            &["nbd0", "--status", "--force"],
        ] {
            assert_eq!(work(arguments), None, "{arguments:?}");
        }
    }
}
