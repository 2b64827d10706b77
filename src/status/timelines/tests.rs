//! Boots as they are seen, and what is made of them.

mod marks;

use super::super::report::{Client, State};
use super::*;
use crate::status::event::{Asker, FileStep};

const MAC: MacAddress = MacAddress([0x52, 0x54, 0, 0, 0, 1]);

/// A machine and the timelines that see it.
struct Seen {
    all: Timelines,
    now: u64,
    sign: Sign,
    /// The file that it asks for when its root is mounted.
    says: Option<String>,
}

impl Seen {
    fn new() -> Self {
        let sign = Sign {
            mac: Some(MAC),
            ..Sign::default()
        };
        Self {
            all: Timelines::default(),
            now: 1000,
            sign,
            says: None,
        }
    }

    /// Something happens after so many milliseconds.
    fn then(&mut self, after: u64, event: Event) -> &mut Self {
        self.now += after;
        self.all.handle(At(self.now), &self.sign, &event);
        self
    }

    fn asks(&mut self, after: u64, speaker: Speaker) -> &mut Self {
        self.then(after, asked(speaker))
    }

    /// It has an address, and is known by that alone from now on.
    fn address(&mut self) -> &mut Self {
        self.sign.address = Some([10, 0, 0, 7].into());
        self.then(10, Event::Offered).then(10, Event::Acknowledged);
        self.sign.mac = None;
        self
    }

    fn loads(&mut self, after: u64, path: &str) -> &mut Self {
        let file = |step| Event::File {
            path: path.to_owned(),
            step,
        };
        self.then(after, file(FileStep::Begun(100)));
        self.then(10, file(FileStep::Sent(100)))
    }

    fn connects(&mut self, after: u64) -> &mut Self {
        let export = "arch+1@pc".to_owned();
        let is_read_only = false;
        self.then(
            after,
            Event::Connected {
                export,
                is_read_only,
                sign: self.says.clone(),
            },
        )
    }

    fn gets_kernel(&mut self) -> &mut Self {
        self.asks(100, Speaker::Firmware).address();
        self.loads(50, "boot/grub/i386-pc/core.0")
            .loads(50, "boot/grub/grub.cfg")
            .loads(50, "disk/arch+1/kernel")
            .loads(50, "disk/arch+1/initrd0")
    }

    fn mounts(&mut self) -> &mut Self {
        self.then(10, Event::Reads)
            .then(10, Event::HasRead)
            .then(100, Event::HasWritten)
    }

    fn boots(&mut self) -> &mut Self {
        self.sign.mac = Some(MAC);
        self.gets_kernel().sign.mac = Some(MAC);
        self.asks(100, Speaker::System)
            .then(10, Event::Offered)
            .then(10, Event::Acknowledged);
        self.connects(100).mounts()
    }

    fn client(&self) -> Client {
        self.client_after(0)
    }

    fn client_after(&self, millis: u64) -> Client {
        let clients = self.all.clients(At(self.now + millis));
        assert_eq!(clients.len(), 1, "{clients:#?}");
        let who = &clients[0].id;
        self.all.client(At(self.now + millis), who).unwrap()
    }
}

fn asked(speaker: Speaker) -> Event {
    Event::Asked(Asker {
        speaker,
        architecture: None,
        hostname: None,
        vendor: None,
    })
}

#[test]
fn a_whole_boot_has_every_stage_once() {
    let mut seen = Seen::new();
    seen.boots();
    let client = seen.client();
    assert_eq!(client.state, State::Up);
    let boot = &client.boots[0];
    let stages: Vec<_> = boot.stages.iter().map(|stage| stage.stage).collect();
    assert_eq!(stages, Stage::ALL);
    assert!(boot.stages.is_sorted_by_key(|stage| stage.ended));
    assert_eq!(client.problem, None);
    assert_eq!(boot.took, boot.stages.last().unwrap().ended);
}

#[test]
fn each_power_on_is_a_boot_of_its_own_and_only_so_many_are_kept() {
    let mut seen = Seen::new();
    for _ in 0..STATUS_BOOTS_MAX + 3 {
        seen.boots()
            .then(5000, Event::Disconnected { is_clean: false });
    }
    let client = seen.client();
    assert_eq!(client.boots.len(), STATUS_BOOTS_MAX);
    assert_eq!(client.state, State::Down);
    assert!(
        client
            .boots
            .iter()
            .all(|boot| boot.stages.len() == Stage::ALL.len())
    );
}

#[test]
fn a_question_that_is_repeated_begins_no_new_boot() {
    let mut seen = Seen::new();
    seen.asks(0, Speaker::Firmware)
        .asks(4000, Speaker::Firmware)
        .asks(8000, Speaker::Firmware);
    let client = seen.client();
    assert_eq!(client.boots.len(), 1);
    assert_eq!(client.boots[0].stages[0].tries, 3);
    assert_eq!(client.state, State::Stuck, "it asks and asks: {client:?}");
}

#[test]
fn ipxe_that_firmware_loaded_goes_on_with_the_boot() {
    let mut seen = Seen::new();
    seen.asks(0, Speaker::Firmware).address();
    seen.loads(10, "ipxe.efi").sign.mac = Some(MAC);
    seen.asks(10, Speaker::Ipxe).then(10, Event::Offered);
    assert_eq!(seen.client().boots.len(), 1);
}

#[test]
fn ipxe_that_is_the_firmware_begins_a_boot_each_time() {
    let mut seen = Seen::new();
    for _ in 0..2 {
        seen.sign.mac = Some(MAC);
        seen.asks(10, Speaker::Ipxe).address();
        seen.loads(10, "boot/grub/i386-pc/core.0");
    }
    assert_eq!(seen.client().boots.len(), 2);
}

#[test]
fn a_system_that_renews_its_address_is_no_boot() {
    let mut seen = Seen::new();
    seen.asks(0, Speaker::System).then(10, Event::Acknowledged);
    assert!(seen.all.clients(At(0)).is_empty(), "a stranger's");
    seen.sign.name = Some("pc".to_owned());
    seen.asks(0, Speaker::System).then(10, Event::Acknowledged);
    assert_eq!(seen.client().state, State::Idle);
    seen.boots();
    seen.asks(60_000, Speaker::System)
        .then(10, Event::Acknowledged);
    let client = seen.client();
    assert_eq!((client.boots.len(), client.state), (1, State::Up));
}

#[test]
fn a_probe_and_a_search_for_menus_are_no_errors() {
    let mut seen = Seen::new();
    seen.asks(0, Speaker::Firmware).address();
    let file = |path: &str, step| Event::File {
        path: path.to_owned(),
        step,
    };
    let loader = "boot/grub/x86_64-efi/core.efi";
    seen.then(10, file(loader, FileStep::Begun(100)))
        .then(10, file(loader, FileStep::Probed))
        .loads(10, loader)
        .then(10, file("boot/grub/grub.cfg-01-52", FileStep::Missing))
        .loads(10, "boot/grub/grub.cfg");
    let client = seen.client();
    assert_eq!(
        (client.state, client.stage),
        (State::Booting, Some(Stage::Config))
    );
    assert!(
        client.boots[0]
            .stages
            .iter()
            .all(|stage| stage.failure.is_none())
    );
}

#[test]
fn each_stage_that_a_boot_hangs_at_is_named_in_words() {
    type Step = fn(&mut Seen);
    let cases: [(Step, Stage, &str); 6] = [
        (
            |seen| {
                seen.address();
            },
            Stage::Ack,
            "no boot loader",
        ),
        (
            |seen| {
                seen.loads(10, "core.0");
            },
            Stage::Loader,
            "no menu",
        ),
        (
            |seen| {
                seen.loads(10, "grub.cfg");
            },
            Stage::Config,
            "no kernel",
        ),
        (
            |seen| {
                seen.loads(10, "vmlinuz");
            },
            Stage::Kernel,
            "no initramfs",
        ),
        (
            |seen| {
                seen.loads(10, "initrd.img");
            },
            Stage::Initramfs,
            "nothing was heard",
        ),
        (
            |seen| {
                seen.connects(10);
            },
            Stage::Connect,
            "reads nothing",
        ),
    ];
    let mut seen = Seen::new();
    seen.asks(0, Speaker::Firmware);
    for (step, stage, word) in cases {
        step(&mut seen);
        assert_eq!(seen.client().problem, None, "{stage:?}");
        let client = seen.client_after(200_000);
        assert_eq!((client.state, client.stage), (State::Stuck, Some(stage)));
        let problem = client.problem.unwrap();
        assert!(problem.contains(word), "{stage:?}: {problem}");
    }
}

#[test]
fn a_missing_kernel_is_a_failure_until_it_is_there() {
    let mut seen = Seen::new();
    seen.asks(0, Speaker::Firmware).address();
    seen.loads(10, "boot/grub/grub.cfg").then(
        10,
        Event::File {
            path: "disk/arch+1/kernel".to_owned(),
            step: FileStep::Missing,
        },
    );
    let client = seen.client();
    assert_eq!(
        (client.state, client.stage),
        (State::Failed, Some(Stage::Config))
    );
    let problem = client.problem.unwrap();
    assert_eq!(problem, "kernel, disk/arch+1/kernel: there is no such file");
    seen.loads(10, "disk/arch+1/kernel");
    assert_eq!(seen.client().problem, None);
}

#[test]
fn a_refused_export_is_told_with_its_reason() {
    let mut seen = Seen::new();
    seen.gets_kernel()
        .then(10, Event::Refused("there is no image nope".to_owned()));
    let client = seen.client();
    assert_eq!(client.state, State::Failed);
    assert!(client.problem.unwrap().ends_with("there is no image nope"));
    seen.connects(10);
    assert_eq!(seen.client().state, State::Booting);
}

#[test]
fn a_first_read_that_is_not_answered_is_our_disk_s_fault() {
    let mut seen = Seen::new();
    seen.gets_kernel().connects(10).then(10, Event::Reads);
    let client = seen.client_after(300_000);
    assert_eq!(
        (client.state, client.stage),
        (State::Stuck, Some(Stage::Connect))
    );
    assert!(client.problem.unwrap().contains("waits for our disk"));
}

#[test]
fn what_takes_far_longer_than_usual_is_marked() {
    let mut seen = Seen::new();
    for _ in 0..4 {
        seen.boots()
            .then(10, Event::Disconnected { is_clean: false });
    }
    seen.asks(100, Speaker::Firmware).address();
    seen.loads(50, "core.0").loads(20_000, "grub.cfg");
    let client = seen.client();
    let config = client.boots[0].stages.last().unwrap();
    assert!(config.slow && config.usual == Some(60), "{config:?}");
    assert!(client.boots[0].stages[..4].iter().all(|stage| !stage.slow));
    assert_eq!(
        seen.client_after(4000).state,
        State::Slow,
        "waits for its kernel"
    );
}

#[test]
fn a_connection_that_comes_back_is_no_boot_and_one_after_a_clean_end_is() {
    let mut seen = Seen::new();
    seen.boots()
        .then(10, Event::Disconnected { is_clean: false });
    seen.connects(1000);
    let client = seen.client();
    assert_eq!((client.state, client.boots.len()), (State::Up, 1));
    assert_eq!(client.boots[0].reconnects, 1);
    seen.then(10, Event::Disconnected { is_clean: true })
        .connects(10);
    assert_eq!(seen.client().boots.len(), 2);
}

#[test]
fn several_connections_at_once_are_one_boot() {
    let mut seen = Seen::new();
    seen.boots().connects(10).connects(10);
    let client = seen.client();
    assert_eq!((client.connections, client.boots.len()), (3, 1));
    assert_eq!(client.boots[0].reconnects, 0);
    seen.then(10, Event::Disconnected { is_clean: true });
    assert_eq!(seen.client().state, State::Up);
}

#[test]
fn what_is_saved_comes_back() {
    let mut seen = Seen::new();
    seen.boots();
    let text = serde_json::to_string(&seen.all.saved()).unwrap();
    let all = Timelines::restored(serde_json::from_str(&text).unwrap());
    let (before, after) = (seen.client(), all.client(At(seen.now), &MAC.to_string()));
    let after = after.unwrap();
    assert_eq!(before.boots[0].stages, after.boots[0].stages);
    assert_eq!(after.state, State::Down, "nobody is connected yet");
    assert!(all.client(At(seen.now), "10.0.0.7").is_some());
}

#[test]
fn another_form_of_the_file_is_not_read() {
    let saved = Saved {
        version: VERSION + 1,
        ..Seen::new().boots().all.saved()
    };
    assert!(Timelines::restored(saved).clients(At(0)).is_empty());
}

#[test]
fn machines_that_somebody_makes_up_push_out_none_that_has_booted() {
    let mut seen = Seen::new();
    seen.boots()
        .then(10, Event::Disconnected { is_clean: false });
    for number in 0..STATUS_CLIENTS_MAX as u64 * 2 {
        let [.., a, b, c, d] = number.to_be_bytes();
        seen.sign = Sign {
            mac: Some(MacAddress([2, 0, a, b, c, d])),
            ..Sign::default()
        };
        seen.asks(1, Speaker::Firmware);
    }
    assert_eq!(seen.all.clients(At(seen.now)).len(), STATUS_CLIENTS_MAX);
    assert!(seen.all.client(At(seen.now), &MAC.to_string()).is_some());
    assert!(seen.all.at.len() <= STATUS_CLIENTS_MAX);
}

#[test]
fn a_machine_is_found_by_name_card_and_address_and_can_be_forgotten() {
    let mut seen = Seen::new();
    seen.sign.name = Some("pc".to_owned());
    seen.boots();
    for who in ["pc", "52:54:00:00:00:01", "52-54-00-00-00-01", "10.0.0.7"] {
        assert!(seen.all.client(At(0), who).is_some(), "{who}");
    }
    seen.then(5, Event::Disconnected { is_clean: true });
    assert!(seen.all.forget("pc") && !seen.all.forget("pc"));
    assert!(seen.all.clients(At(0)).is_empty());
}

#[test]
fn machines_stand_by_need_and_then_by_name() {
    let mut all = Timelines::default();
    for (number, name) in [(1, "pc-10"), (2, "pc-9"), (3, "pc-11")] {
        let sign = Sign {
            mac: Some(MacAddress([2, 0, 0, 0, 0, number])),
            name: Some(name.to_owned()),
            ..Sign::default()
        };
        all.handle(At(0), &sign, &Event::Acknowledged);
        if number == 3 {
            all.handle(At(0), &sign, &asked(Speaker::Firmware));
        }
    }
    let clients = all.clients(At(60_000));
    let ids: Vec<_> = clients.iter().map(|client| client.id.as_str()).collect();
    assert_eq!(ids, ["pc-11", "pc-9", "pc-10"]);
}

#[test]
fn what_a_machine_calls_itself_is_harmless() {
    let mut seen = Seen::new();
    seen.then(
        0,
        Event::Asked(Asker {
            speaker: Speaker::Firmware,
            architecture: Some("bios"),
            hostname: Some("\x1b]0;<script>\n".to_owned()),
            vendor: Some("v".repeat(10_000)),
        }),
    );
    let client = seen.client();
    assert_eq!(client.hostname.unwrap(), "\\u{1b}]0;<script>\\u{a}");
    assert!(client.vendor.unwrap().len() <= crate::limits::STATUS_TEXT_MAX);
}
