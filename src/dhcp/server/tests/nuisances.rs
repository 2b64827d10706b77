//! Whatever strangers do, machines that the config knows can boot.

use proptest::collection::vec;
use proptest::prelude::*;

use super::properties::{CONFIGS, addresses, changed, config, small};
use super::*;

/// What is done to the server.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// A machine that is in no config does what it can with any address.
    Stranger(u8, Doing, usize, bool),
    /// A machine of the config does something with an address that it has; where it has none, with
    /// any.
    Known(usize, Doing, usize, bool),
    Reload(usize),
    Wait(u64),
}

#[derive(Clone, Copy, Debug)]
enum Doing {
    Discover,
    Take,
    Renew,
    Release,
    Decline,
}

fn steps() -> impl Strategy<Value = Step> {
    let doing = prop_oneof![
        4 => Just(Doing::Discover),
        4 => Just(Doing::Take),
        2 => Just(Doing::Renew),
        1 => Just(Doing::Release),
        1 => Just(Doing::Decline),
    ];
    let (at, relayed) = (any::<usize>(), prop::bool::weighted(0.2));
    let stranger = (0..8_u8, doing.clone(), at, relayed);
    prop_oneof![
        10 => stranger.prop_map(|(who, doing, at, far)| Step::Stranger(who, doing, at, far)),
        4 => (0..5_usize, doing, at, relayed)
            .prop_map(|(who, doing, at, far)| Step::Known(who, doing, at, far)),
        1 => (0..CONFIGS).prop_map(Step::Reload),
        1 => prop_oneof![4 => 0..40_u64, 1 => 0..700_u64].prop_map(Step::Wait),
    ]
}

/// Two machines share the ranges with strangers.
fn crowded(config: usize) -> Settings {
    let mut settings = changed(config, false);
    let other = machine("studio-3", Some(guest(100)), None);
    settings.machines.push(other);
    settings
}

/// What a machine of the config says of itself.
fn introduces(machine: &Machine) -> Message {
    let spare = guest(if machine.uuid.is_some() { 201 } else { 200 });
    let mut said = discover(machine.mac.unwrap_or(spare));
    if let Some(identifier) = &machine.client_identifier {
        said.options
            .set(code::CLIENT_IDENTIFIER, identifier.as_slice());
    }
    if machine.uuid.is_some() {
        said.options.set(code::MACHINE_UUID, uuid_option());
    }
    said
}

fn does(mut said: Message, doing: Doing, address: Ipv4Addr) -> Message {
    let kind = match doing {
        Doing::Discover => MessageType::Discover,
        Doing::Take | Doing::Renew => MessageType::Request,
        Doing::Release => MessageType::Release,
        Doing::Decline => MessageType::Decline,
    };
    said.options.set(code::MESSAGE_TYPE, [kind as u8]);
    match doing {
        Doing::Renew | Doing::Release => said.at(address),
        Doing::Take => said.wants(address).of_server(HERE),
        Doing::Discover | Doing::Decline => said.wants(address),
    }
}

impl Lab {
    fn copy(&self) -> Self {
        Self {
            server: self.server.clone(),
            now: self.now,
        }
    }

    fn is_known(&self, card: MacAddress) -> bool {
        let mut machines = self.server.settings.machines.iter();
        machines.any(|machine| machine.mac == Some(card))
    }

    fn takes(&mut self, step: Step) {
        let all = addresses();
        let any = |at: usize| all[at % all.len()];
        let (mut message, far) = match step {
            Step::Wait(seconds) => return self.wait(Duration::from_secs(seconds)),
            Step::Reload(config) => return self.server.replace(crowded(config)),
            Step::Stranger(who, doing, at, far) => {
                (does(discover(guest(who)), doing, any(at)), far)
            }
            Step::Known(who, doing, at, far) => {
                let machines = &self.server.settings.machines;
                let said = introduces(&machines[who % machines.len()]);
                let (key, _) = self
                    .server
                    .machines
                    .identify(machines, &self.server.leases, &said);
                let held = self.server.leases.of(&key).map(|(address, _)| address);
                let held: Vec<_> = held.collect();
                let address = held.get(at % held.len().max(1)).copied();
                let address = address.unwrap_or_else(|| any(at));
                (does(said, doing, address), far)
            }
        };
        if far {
            message.giaddr = RELAY;
        }
        self.send(&message);
    }

    /// Whether the machine gets an address and has it.
    fn can_boot(&mut self, discover: &Message) -> bool {
        let answer = |effects: &[Effect], wanted| match replies(effects)[..] {
            [reply] if kind(reply) == Some(wanted) => Some(reply.message.yiaddr),
            _ => None,
        };
        let offered = answer(&self.send(discover), MessageType::Offer);
        offered.is_some_and(|address| {
            let accepts = does(discover.clone(), Doing::Take, address);
            answer(&self.send(&accepts), MessageType::Ack) == Some(address)
        })
    }

    /// Whether all machines of the config can boot, one after the other: those with an own address
    /// where that is, the others in any network.
    fn can_all_boot(&self) -> bool {
        let settings = Arc::clone(&self.server.settings);
        let (mut near, mut far) = (self.copy(), self.copy());
        settings.machines.iter().all(|machine| {
            let said = introduces(machine);
            let floats = machine.address.is_none();
            near.can_boot(&said) && (!floats || far.can_boot(&said.behind(RELAY)))
        })
    }
}

proptest! {
    // After each step the whole herd boots.
    #![proptest_config(ProptestConfig { cases: config().cases / 4, ..config() })]

    #[test]
    fn strangers_never_keep_known_machines_from_booting(
        steps in vec(steps(), 1..60),
    ) {
        let mut lab = Lab::with(|settings| *settings = crowded(0));
        prop_assert!(lab.can_all_boot());
        for step in steps {
            let is_stranger = match step {
                Step::Stranger(who, ..) => !lab.is_known(guest(who)),
                Step::Wait(_) => true,
                _ => false,
            };
            let mut next = lab.copy();
            next.takes(step);
            let can_boot = next.can_all_boot();
            prop_assert!(can_boot || !is_stranger, "after {step:?}");
            // What known machines or the config take from known machines is their affair.
            if can_boot {
                lab = next;
            }
            prop_assert!(lab.server.leases.is_consistent());
        }
    }
}

#[test]
fn the_settings_of_the_property_leave_room_for_strangers() {
    let mut lab = Lab::with(|settings| *settings = crowded(0));
    assert_eq!(small(false).networks, crowded(0).networks);
    assert_eq!(lab.boots(&discover(GUEST)), here(100));
}
