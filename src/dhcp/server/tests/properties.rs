//! Whatever comes, in whatever order: virtual time, a lease file, power cuts.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::dhcp::lease::Saved;
use crate::dhcp::lease::file::{self, BootId, Chain};

/// The machines: by place, what a message of theirs has besides the type.
const MACHINES: usize = 7;

/// What is done to the server, or by it.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// Machine `who` sends something about an address; `full` says whether with all it can say.
    Send {
        who: usize,
        what: What,
        address: usize,
        full: bool,
        short: bool,
        relayed: bool,
    },
    Wait(u64),
    /// A probe is answered.
    Probed(bool),
    /// Of the effects that wait, so many are seen to, in order: what is to be saved becomes
    /// durable, and then what is to be sent is sent.
    Drive(usize),
    /// The config is read again, and says something else.
    Reload(usize),
    /// The server ends while the file is written: this many bytes reached it. Where the host
    /// booted, that was so many milliseconds before the server is there again.
    Crash {
        written: usize,
        booted: Option<u64>,
    },
}

#[derive(Clone, Copy, Debug)]
enum What {
    Discover,
    DiscoverAny,
    Accept,
    AcceptOther,
    Remember,
    Renew,
    Release,
    Decline,
    Inform,
    Bootp,
}

fn steps() -> impl Strategy<Value = Step> {
    let what = prop_oneof![
        4 => Just(What::Discover),
        4 => Just(What::DiscoverAny),
        8 => Just(What::Accept),
        2 => Just(What::AcceptOther),
        3 => Just(What::Remember),
        4 => Just(What::Renew),
        2 => Just(What::Release),
        2 => Just(What::Decline),
        1 => Just(What::Inform),
        1 => Just(What::Bootp),
    ];
    let said = (
        any::<bool>(),
        prop::bool::weighted(0.2),
        prop::bool::weighted(0.1),
    );
    let send = (0..MACHINES, what, any::<usize>(), said);
    prop_oneof![
        14 => send.prop_map(|(who, what, address, (full, short, relayed))| Step::Send {
            who,
            what,
            address,
            full,
            short,
            relayed,
        }),
        2 => prop_oneof![4 => 0..40_u64, 1 => 0..700_u64].prop_map(Step::Wait),
        4 => any::<bool>().prop_map(Step::Probed),
        6 => (1..8_usize).prop_map(Step::Drive),
        1 => (0..CONFIGS).prop_map(Step::Reload),
        2 => (any::<usize>(), prop::option::of(0..2_000_000_u64))
            .prop_map(|(written, booted)| Step::Crash { written, booted }),
    ]
}

/// An ACK that a machine may have got: its address until then.
#[derive(Clone, Copy, Debug)]
struct Promise {
    who: usize,
    card: MacAddress,
    address: Ipv4Addr,
    /// In milliseconds of true time.
    until: u64,
}

/// The server, its lease file, and what the machines may believe.
struct World {
    lab: Lab,
    settings: Settings,
    /// True time in milliseconds, which no machine and no boot changes.
    time: u64,
    boot: BootId,
    disk: Vec<u8>,
    chain: Chain,
    /// Effects that nobody has seen to, with the moment that they are of.
    pending: Vec<(u64, Effect)>,
    promises: Vec<Promise>,
    probes: Vec<(Ipv4Addr, MacAddress)>,
    /// What was seen to be used by no other card than this one.
    cleared: BTreeSet<(Ipv4Addr, MacAddress)>,
    /// The last offer to each card.
    offers: BTreeMap<MacAddress, Ipv4Addr>,
    /// The address that each message is about, by its number.
    asked: Vec<Ipv4Addr>,
    /// What machines were told that they can't have, whether or not they heard it.
    refused: BTreeSet<(usize, Ipv4Addr)>,
}

/// Addresses that messages are about, those that are fought for more often.
pub(super) fn addresses() -> Vec<Ipv4Addr> {
    let pool = [100, 101, 102, 100, 101, 102, 100, 101, 102].map(here);
    let others = [here(10), here(11), here(12), there(100), there(101), HERE];
    pool.into_iter().chain(others).collect()
}

/// Two networks of few addresses, so that they are fought for.
pub(super) fn small(probe: bool) -> Settings {
    let mut settings = settings();
    settings.networks[0].ranges = vec![here(100)..=here(102)];
    settings.networks[1].ranges = vec![there(100)..=there(101)];
    settings.told.lease = Some(600);
    settings.probe = probe;
    settings
}

pub(super) const CONFIGS: usize = 6;

/// The same with something changed.
pub(super) fn changed(config: usize, probe: bool) -> Settings {
    let mut settings = small(probe);
    let machines = &mut settings.machines;
    match config {
        1 => machines[0].address = Some(here(100)),
        2 => (machines[1].address, machines[2].address) = (Some(here(101)), None),
        3 => machines[3].mac = Some(card(3)),
        5 => machines[3].address = Some(here(100)),
        4 => {
            machines.truncate(1);
            settings.networks[0].ranges = vec![here(101)..=here(102), here(10)..=here(11)];
        }
        _ => {}
    }
    settings
}

/// Who really sends it: the tower has two cards.
fn owner(who: usize) -> usize {
    if who == 6 { 3 } else { who }
}

fn card(who: usize) -> MacAddress {
    match who {
        0 => OWN,
        1 => FLOATING,
        _ => guest(u8::try_from(who).unwrap()),
    }
}

fn sender(reply: &Reply) -> usize {
    let mut all = 0..MACHINES;
    owner(all.find(|who| card(*who) == reply.message.chaddr).unwrap())
}

impl World {
    fn new(probe: bool) -> Self {
        let settings = small(probe);
        let (disk, chain) = file::start(&[1; 16], []);
        Self {
            lab: Lab::with(|lab| *lab = settings.clone()),
            settings,
            time: 0,
            boot: [1; 16],
            disk,
            chain,
            pending: Vec::new(),
            promises: Vec::new(),
            probes: Vec::new(),
            cleared: BTreeSet::new(),
            offers: BTreeMap::new(),
            asked: Vec::new(),
            refused: BTreeSet::new(),
        }
    }

    fn step(&mut self, step: Step) -> Result<(), TestCaseError> {
        match step {
            Step::Send {
                who,
                what,
                address,
                full,
                short,
                relayed,
            } => {
                let mut message = self.said(who, what, address, full);
                if short {
                    message.options.set(code::LEASE_TIME, 60_u32.to_be_bytes());
                }
                if relayed {
                    message.giaddr = RELAY;
                }
                self.arrives(&message);
            }
            Step::Wait(seconds) => {
                self.time += seconds * 1000;
                self.lab.wait(Duration::from_secs(seconds));
            }
            Step::Probed(is_free) => self.probed(is_free),
            Step::Reload(config) => {
                let probe = self.settings.probe;
                self.settings = changed(config, probe);
                self.lab.server.replace(self.settings.clone());
            }
            Step::Drive(effects) => self.drive(effects)?,
            Step::Crash { written, booted } => self.crash(written, booted)?,
        }
        for effect in self.lab.effects() {
            match &effect {
                Effect::Probe { address, mac, .. } => {
                    self.probes.retain(|(other, _)| other != address);
                    self.probes.push((*address, *mac));
                }
                Effect::Send(reply @ Reply { message, .. }) => {
                    self.check_cards(reply)?;
                    self.note_refusal(reply);
                    self.offers.insert(message.chaddr, message.yiaddr);
                }
                _ => {}
            }
            self.pending.push((self.time, effect));
        }
        Ok(())
    }

    /// No card is given what another card of its machine was promised, before nobody answered.
    fn check_cards(&mut self, reply: &Reply) -> Result<(), TestCaseError> {
        let Message { chaddr, yiaddr, .. } = reply.message;
        let is_new = reply.message.ciaddr.is_unspecified();
        if kind(reply) != Some(MessageType::Ack) || yiaddr.is_unspecified() {
            return Ok(());
        }
        let mut promises = self.promises.iter();
        let other = promises.find(|promise| {
            (promise.address, promise.card != chaddr) == (yiaddr, true) && promise.until > self.time
        });
        let is_fine = other.is_none() || self.cleared.contains(&(yiaddr, chaddr));
        prop_assert!(
            is_fine || !is_new || !self.settings.probe,
            "{chaddr} gets {yiaddr}, but {other:?}: {:?}",
            reply.why
        );
        self.cleared
            .retain(|(address, card)| *address != yiaddr || *card == chaddr);
        // A machine that runs with it may have changed its card.
        self.cleared.insert((yiaddr, chaddr));
        Ok(())
    }

    fn note_refusal(&mut self, reply: &Reply) {
        let (who, number) = (sender(reply), usize::try_from(reply.message.xid).unwrap());
        match kind(reply) {
            Some(MessageType::Nak) => drop(self.refused.insert((who, self.asked[number]))),
            Some(MessageType::Ack) => drop(self.refused.remove(&(who, reply.message.yiaddr))),
            _ => {}
        }
    }

    /// A machine that looks for an address has none (RFC 2131, figure 5: INIT). Of those that it
    /// was never refused it is still taken to use them: perhaps another of its programs asks.
    fn begins_anew(&mut self, who: usize) {
        let (gone, kept) = std::mem::take(&mut self.refused)
            .into_iter()
            .partition(|(of, _)| *of == who);
        self.refused = kept;
        let gone: BTreeSet<(usize, Ipv4Addr)> = gone;
        for (_, address) in gone {
            self.gives_up(who, address);
        }
    }

    /// What machine `who` says of an address: one that it has, was offered, or makes up. What it
    /// gives up it no longer believes to have.
    fn said(&mut self, who: usize, what: What, address: usize, full: bool) -> Message {
        let all = addresses();
        let any = all[address % all.len()];
        let held = self.promises.iter().rev();
        let mut held = held.filter(|promise| promise.who == owner(who));
        let held = held.nth(address % 2).map_or(any, |promise| promise.address);
        let mac = card(who);
        let offered = self.offers.get(&mac).copied().unwrap_or(any);
        let mut said = match what {
            What::Discover => discover(mac),
            What::DiscoverAny => discover(mac).wants(any),
            What::Accept => accepts(mac, offered),
            What::AcceptOther => remembers(mac, any).of_server(here(250)),
            What::Remember => remembers(mac, any),
            What::Renew => renews(mac, held),
            What::Release => message(MessageType::Release, mac).at(held),
            What::Decline => message(MessageType::Decline, mac).wants(held),
            What::Inform => message(MessageType::Inform, mac).at(any),
            What::Bootp => Message::request(1, mac),
        };
        match who {
            2 if full => said.options.set(code::CLIENT_IDENTIFIER, &b"\0kiosk"[..]),
            3 | 6 if full => said.options.set(code::MACHINE_UUID, uuid_option()),
            _ => {}
        }
        said.xid = u32::try_from(self.asked.len()).unwrap();
        let about = said.options.address(code::REQUESTED_ADDRESS);
        self.asked.push(about.unwrap_or(said.ciaddr));
        if matches!(what, What::Discover | What::DiscoverAny) {
            self.begins_anew(owner(who));
        }
        if matches!(what, What::Release | What::Decline) {
            self.gives_up(owner(who), held);
        }
        said
    }

    /// A machine no longer believes to have an address, nor answers that it has yet to get.
    fn gives_up(&mut self, who: usize, address: Ipv4Addr) {
        let is_gone = |promise: &Promise| promise.who == who && promise.address == address;
        self.promises.retain(|promise| !is_gone(promise));
        self.pending.retain(|(_, effect)| match effect {
            Effect::Send(reply) => sender(reply) != who || reply.message.yiaddr != address,
            _ => true,
        });
    }

    fn arrives(&mut self, message: &Message) {
        let arrival = Arrival {
            link: LINK,
            port: Port::Server,
            from: SocketAddrV4::new(message.ciaddr, 68),
            message,
        };
        self.lab.server.handle_message(self.lab.now, &arrival);
    }

    fn probed(&mut self, is_free: bool) {
        if let Some((address, mac)) = self.probes.pop() {
            if is_free {
                self.cleared.insert((address, mac));
            }
            let found = if is_free { Probed::Free } else { Probed::Taken };
            self.lab.server.handle_probed(self.lab.now, address, found);
        }
    }

    /// What whoever drives the server does: one batch, one sync, then the replies.
    fn drive(&mut self, effects: usize) -> Result<(), TestCaseError> {
        let rest = self.pending.split_off(effects.min(self.pending.len()));
        let batch = std::mem::replace(&mut self.pending, rest);
        self.disk.extend(self.chain.append(&to_save(&batch)));
        for (time, effect) in batch {
            if let Effect::Send(reply) = effect {
                self.sent(time, &reply)?;
            }
        }
        Ok(())
    }

    fn sent(&mut self, time: u64, reply: &Reply) -> Result<(), TestCaseError> {
        let seconds = reply.message.options.number(code::LEASE_TIME);
        let address = reply.message.yiaddr;
        let (Some(MessageType::Ack), Some(seconds)) = (kind(reply), seconds) else {
            return Ok(());
        };
        let promise = Promise {
            who: sender(reply),
            card: reply.message.chaddr,
            address,
            until: time + u64::from(seconds) * 1000,
        };
        let clash = self.promises.iter().find(|other| {
            other.address == address && other.who != promise.who && other.until > time
        });
        prop_assert!(
            clash.is_none(),
            "{promise:?} at {time}, but {clash:?}: {:?}",
            reply.why
        );
        self.check_saved(&promise)?;
        self.promises.push(promise);
        Ok(())
    }

    /// Whatever happens from now on, the promise can be read from the disk.
    fn check_saved(&self, promise: &Promise) -> Result<(), TestCaseError> {
        let recovered = file::read(&self.disk, &self.boot, self.lab.now);
        let records = recovered.map_err(|damaged| TestCaseError::fail(damaged.to_string()))?;
        let mut own = records.records.iter().rev();
        let own = own.find(|record| record.address == promise.address);
        let released = |record: &Record| record.state != Saved::Leased;
        let left = promise.until.saturating_sub(self.time);
        let lasts = |record: &Record| left == 0 || record.until.0 >= self.lab.now.0 + left;
        prop_assert!(
            own.is_some_and(|record| released(record) || lasts(record)),
            "{promise:?}, but {own:?}"
        );
        Ok(())
    }

    fn crash(&mut self, written: usize, booted: Option<u64>) -> Result<(), TestCaseError> {
        let mut last = self.chain.append(&to_save(&self.pending));
        last.truncate(written % (last.len() + 1));
        self.disk.extend(last);
        self.pending.clear();
        self.probes.clear();
        if let Some(since) = booted {
            self.boot[0] += 1;
            self.lab.now = Moment(since);
        }
        self.lab.server = self.started()?;
        (self.disk, self.chain) = file::start(&self.boot, self.lab.server.records());
        Ok(())
    }
}

impl World {
    /// A server that knows what the disk has.
    fn started(&self) -> Result<Server, TestCaseError> {
        let recovered = file::read(&self.disk, &self.boot, self.lab.now);
        let recovered = recovered.map_err(|damaged| TestCaseError::fail(damaged.to_string()))?;
        let leases = Leases::recovered(recovered.records);
        Ok(Server::new(self.settings.clone(), leases))
    }
}

/// Whether a server would let a card keep an address.
fn lets_keep(server: &Server, now: Moment, card: MacAddress, address: Ipv4Addr) -> bool {
    let server = server.clone();
    let effects = Lab { server, now }.send(&renews(card, address));
    let replies = replies(&effects);
    replies
        .iter()
        .any(|reply| kind(reply) == Some(MessageType::Ack))
}

fn to_save(effects: &[(u64, Effect)]) -> Vec<Record> {
    let saves = effects.iter().filter_map(|(_, effect)| match effect {
        Effect::Save(record) => Some(record.clone()),
        _ => None,
    });
    saves.collect()
}

pub(super) fn config() -> ProptestConfig {
    let usual = ProptestConfig::default();
    ProptestConfig {
        cases: usual.cases * 4,
        failure_persistence: None,
        ..usual
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn no_address_is_promised_to_two_machines(
        steps in vec(steps(), 1..120),
        probe in any::<bool>(),
    ) {
        let mut world = World::new(probe);
        for step in steps {
            world.step(step)?;
        }
        world.drive(usize::MAX)?;
    }

    #[test]
    fn a_restart_takes_from_no_machine_what_it_has(
        steps in vec(steps(), 1..60),
    ) {
        let mut world = World::new(false);
        for step in steps {
            world.step(step)?;
        }
        world.drive(usize::MAX)?;
        let (before, after, now) = (&world.lab.server, world.started()?, world.lab.now);
        let all = before.records();
        for Record { address, mac, .. } in all.filter(|record| record.state == Saved::Leased) {
            if lets_keep(before, now, mac, address) {
                prop_assert!(lets_keep(&after, now, mac, address), "{mac} loses {address}");
            }
        }
    }
}

/// Messages with the fields that matter, right or wrong, and whatever else.
fn any_messages() -> impl Strategy<Value = Message> {
    let known = prop::sample::select(addresses());
    let address = prop_oneof![
        4 => Just(Ipv4Addr::UNSPECIFIED),
        4 => known,
        1 => any::<u32>().prop_map(Ipv4Addr::from),
    ];
    let code = prop_oneof![
        1..=254_u8,
        prop::sample::select(vec![
            43, 50, 51, 54, 55, 57, 60, 61, 77, 82, 93, 97, 118, 175
        ]),
    ];
    let value = prop_oneof![
        vec(any::<u8>(), 0..40),
        address
            .clone()
            .prop_map(|address| address.octets().to_vec()),
        Just(b"PXEClient:Arch:00007:UNDI:003016".to_vec()),
        Just(b"iPXE".to_vec()),
        Just(uuid_option()),
        Just(vec![0, 7]),
        Just(vec![5, 4, 10, 78, 0, 0, 11, 4, 10, 78, 0, 1, 19, 0]),
        Just(vec![71, 4, 0, 0, 0, 0, 255]),
        vec(any::<u8>(), 250..600),
    ];
    let header = (
        any::<bool>(),
        prop::bool::weighted(0.1),
        0..MACHINES,
        any::<u8>(),
    );
    let addresses = (address.clone(), address);
    let options = vec((code, value), 0..6);
    (header, addresses, options).prop_map(
        |((broadcast, reply, who, kind), (ciaddr, giaddr), options)| {
            let mut message = Message::request(1, card(who));
            message.op = if reply { Op::Reply } else { Op::Request };
            (message.broadcast, message.ciaddr, message.giaddr) = (broadcast, ciaddr, giaddr);
            message.options = options.into_iter().collect();
            if kind % 16 != 0 {
                message.options.set(code::MESSAGE_TYPE, [kind % 9]);
            }
            message
        },
    )
}

fn check_reply(mode: Mode, asked: &Message, reply: &Reply) -> Result<(), TestCaseError> {
    let bytes = reply.message.write(reply.room).bytes;
    prop_assert!((300..=1472).contains(&bytes.len()));
    let message = Message::read(&bytes).map_err(|error| TestCaseError::fail(error.to_string()))?;
    prop_assert_eq!(message.op, Op::Reply);
    prop_assert_eq!((message.xid, message.chaddr), (asked.xid, asked.chaddr));
    prop_assert_eq!(message.giaddr, asked.giaddr);
    for never in [13, 50, 52, 55, 57] {
        prop_assert_eq!(message.options.get(never), None);
    }
    let is_dhcp = kind(reply).is_some();
    prop_assert_eq!(is_dhcp, message.options.get(54).is_some());
    prop_assert_eq!(is_dhcp, !matches!(asked.kind(), Ok(None)));
    prop_assert!(!reply.why.is_empty());
    if mode == Mode::Proxy || reply.port == Port::Boot {
        prop_assert_eq!(message.yiaddr, Ipv4Addr::UNSPECIFIED);
        prop_assert_ne!(kind(reply), Some(MessageType::Nak));
        prop_assert_eq!(message.options.get(code::LEASE_TIME), None);
    }
    Ok(())
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn whatever_is_asked_each_reply_is_one_that_may_be_sent(
        messages in vec((any_messages(), prop::bool::weighted(0.2), 0..100_u64), 1..40),
        is_proxy in any::<bool>(),
        probe in any::<bool>(),
    ) {
        let mode = if is_proxy { Mode::Proxy } else { Mode::Server };
        let mut lab = Lab::with(|settings| *settings = Settings { mode, ..small(probe) });
        for (message, is_boot, seconds) in messages {
            lab.wait(Duration::from_secs(seconds));
            let port = if is_boot { Port::Boot } else { Port::Server };
            let effects = lab.arrive(port, SocketAddrV4::new(message.ciaddr, 68), &message);
            prop_assert!(effects.len() <= 3);
            for reply in replies(&effects) {
                check_reply(mode, &message, reply)?;
            }
            for effect in effects {
                if let Effect::Probe { address, .. } = effect {
                    lab.server.handle_probed(lab.now, address, Probed::Taken);
                    lab.effects();
                }
            }
            prop_assert!(lab.server.leases.is_consistent());
        }
    }
}
