//! A machine and its boots: what each event means for them.

use std::collections::VecDeque;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::load::Loads;
use crate::limits::STATUS_BOOTS_MAX;
use crate::mac::MacAddress;
use crate::status::At;
use crate::status::boot::{Boot, Passage};
use crate::status::event::{Asker, Event, FileStep, Speaker};
use crate::status::stage::{self, Stage};
use crate::status::text::harmless;

/// After so long without a sign of life a boot that got nowhere is not gone on with.
const FORGOTTEN: u64 = 10 * 60 * 1000;
/// A machine without a connection for so long has been started anew when it comes again.
const AWAY: u64 = 5 * 60 * 1000;

/// A machine and its boots.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Machine {
    #[serde(default, with = "as_text", skip_serializing_if = "Option::is_none")]
    pub(super) mac: Option<MacAddress>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) address: Option<IpAddr>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) hostname: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) vendor: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) architecture: Option<String>,
    pub(super) seen: At,
    /// The newest last.
    pub(super) boots: VecDeque<Boot>,
    /// Its system has asked for an address since its last connection ended.
    #[serde(skip)]
    pub(super) asked_since: bool,
    #[serde(skip)]
    pub(super) connections: u32,
    #[serde(skip)]
    pub(super) load: Loads,
}

/// MAC addresses as people write them.
mod as_text {
    use serde::{Deserialize, Deserializer, Serializer};

    use crate::mac::MacAddress;

    #[allow(clippy::ref_option, reason = "serde asks for it")]
    pub(super) fn serialize<S: Serializer>(
        mac: &Option<MacAddress>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match mac {
            Some(mac) => serializer.collect_str(mac),
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<MacAddress>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        let mac = text.map(|text| text.parse());
        mac.transpose().map_err(serde::de::Error::custom)
    }
}

/// Whether who asks for a file boots, as far as that can be told by it alone. Boot loaders look for
/// their menus under many names, and find one; a browser finds none.
pub(super) fn is_of_a_boot(path: &str, step: &FileStep) -> bool {
    let stage = stage::of_file(path);
    stage.is_some() && !(stage == Some(Stage::Config) && *step == FileStep::Missing)
}

impl Machine {
    pub(super) fn newest(&self) -> Option<&Boot> {
        self.boots.back()
    }

    pub(super) fn has_loaded(&self) -> bool {
        let of_boot = |boot: &Boot| boot.passages.iter().any(|one| one.stage > Stage::Ack);
        self.boots.iter().any(of_boot)
    }

    pub(super) fn handle(&mut self, now: At, event: &Event) {
        match event {
            Event::Asked(asker) => self.asked(now, asker),
            Event::Offered => self.answered(now, Stage::Offer),
            Event::Acknowledged => self.answered(now, Stage::Ack),
            Event::Ignored(why) => self.ignored(now, why),
            Event::File { path, step } => self.file(now, path, step),
            Event::Opens(export) => self.opens(now, export),
            Event::Refused(why) => self.refused(now, why),
            Event::Connected {
                export,
                is_read_only,
                sign,
            } => self.connected(now, export, *is_read_only, sign.as_deref()),
            Event::Continued {
                export,
                is_read_only,
            } => self.continued(now, export, *is_read_only),
            Event::Suspended => self.connections = self.connections.saturating_sub(1),
            Event::Reads => self.first(now, Stage::FirstRead, Boot::begin),
            Event::HasRead => self.first(now, Stage::FirstRead, Boot::reach),
            Event::HasWritten => {
                let boot = self.boot_from_here(now);
                boot.last = now;
                if boot.sign.is_none() {
                    self.first(now, Stage::Mounted, Boot::reach);
                }
            }
            Event::Disconnected { is_clean } => self.disconnected(now, *is_clean),
        }
    }

    /// The newest boot, where it can still go on to its disk.
    fn open(&mut self, now: At) -> Option<&mut Boot> {
        let newest = self.boots.back_mut();
        newest.filter(|boot| !boot.has(Stage::Connect) && now.since(boot.last) < FORGOTTEN)
    }

    fn start(&mut self, now: At) -> &mut Boot {
        if let Some(last) = self.boots.back_mut() {
            last.over.get_or_insert(now);
        }
        if self.boots.len() >= STATUS_BOOTS_MAX {
            self.boots.pop_front();
        }
        self.asked_since = false;
        self.boots.push_back(Boot::new(now));
        let last = self.boots.len() - 1;
        &mut self.boots[last]
    }

    /// The newest boot; one that begins in the middle where there is none.
    fn boot_from_here(&mut self, now: At) -> &mut Boot {
        match self.boots.len() {
            0 => self.start(now),
            count => &mut self.boots[count - 1],
        }
    }

    fn asked(&mut self, now: At, asker: &Asker) {
        let told = |text: &Option<String>| text.as_deref().map(harmless);
        self.hostname = told(&asker.hostname).or_else(|| self.hostname.take());
        self.vendor = told(&asker.vendor).or_else(|| self.vendor.take());
        let architecture = asker.architecture.map(str::to_owned);
        self.architecture = architecture.or_else(|| self.architecture.take());
        if asker.speaker == Speaker::System {
            self.asked_since = true;
            if let Some(boot) = self.open(now)
                && boot.newest().is_some_and(|one| one.stage > Stage::Ack)
            {
                boot.begin(now, Stage::DhcpAgain);
            }
            return;
        }
        let by_ipxe = asker.speaker == Speaker::Ipxe;
        if let Some(boot) = self.open(now) {
            let newest = boot.newest().map(|newest| newest.stage);
            if newest <= Some(Stage::Ack) {
                boot.begin(now, Stage::Discover);
                return;
            }
            // It was loaded by firmware of another kind, and asks for itself.
            if by_ipxe && !boot.by_ipxe && newest < Some(Stage::Kernel) {
                boot.last = now;
                return;
            }
        }
        let boot = self.start(now);
        boot.by_ipxe = by_ipxe;
        // To have asked is all there is to it.
        boot.reach(now, Stage::Discover);
    }

    fn answered(&mut self, now: At, stage: Stage) {
        let Some(boot) = self.open(now) else {
            return;
        };
        match boot.newest().map(|newest| newest.stage) {
            Some(Stage::DhcpAgain) if stage == Stage::Ack => {
                boot.reach(now, Stage::DhcpAgain);
            }
            newest if newest <= Some(Stage::Ack) => {
                boot.reach(now, stage);
            }
            _ => boot.last = now,
        }
    }

    fn ignored(&mut self, now: At, why: &str) {
        let Some(boot) = self.open(now) else {
            return;
        };
        let stage = match boot.newest().map(|newest| newest.stage) {
            Some(Stage::DhcpAgain) => Stage::DhcpAgain,
            Some(Stage::Offer | Stage::Ack) => Stage::Ack,
            Some(Stage::Discover) => Stage::Offer,
            _ => return,
        };
        boot.fail(now, stage, harmless(why));
    }

    /// What counts once a boot: connections that are made anew read and write, too.
    fn first(&mut self, now: At, stage: Stage, mark: fn(&mut Boot, At, Stage) -> &mut Passage) {
        let boot = self.boot_from_here(now);
        boot.last = now;
        if !boot.has(stage) {
            mark(boot, now, stage);
        }
    }

    /// The machine says by this file that its root is mounted. Whether it is there does not matter.
    fn is_up_by(&mut self, now: At, path: &str) -> bool {
        let boot = self
            .boots
            .back_mut()
            .filter(|boot| boot.has(Stage::Connect) && boot.sign.as_deref() == Some(path));
        let Some(boot) = boot else {
            return false;
        };
        boot.reach(now, Stage::Mounted).detail = harmless(path);
        true
    }

    fn file(&mut self, now: At, path: &str, step: &FileStep) {
        if self.is_up_by(now, path) {
            return;
        }
        if self.open(now).is_none() {
            if !is_of_a_boot(path, step) {
                return;
            }
            // Its addresses are another server's business, or it was switched on long ago.
            self.start(now);
        }
        let boot = self.boot_from_here(now);
        boot.last = now;
        let Some(stage) = stage::of_file(path) else {
            return;
        };
        match step {
            FileStep::Begun(_) => {
                boot.begin(now, stage).detail = harmless(path);
            }
            FileStep::Sent(bytes) => {
                let passage = boot.reach(now, stage);
                passage.detail = harmless(path);
                passage.bytes = passage.bytes.saturating_add(*bytes);
            }
            FileStep::Probed => {}
            // Boot loaders look for their menus under many names.
            FileStep::Missing if stage == Stage::Config => {}
            FileStep::Missing => {
                boot.begin(now, stage).detail = harmless(path);
                boot.fail(now, stage, "there is no such file".to_owned());
            }
            FileStep::Failed { sent, why } => {
                let passage = boot.begin(now, stage);
                passage.detail = harmless(path);
                let why = format!("{} after {sent} bytes", harmless(why));
                boot.fail(now, stage, why);
            }
        }
    }

    /// One that has a disk and opens it once more is not concerned: its boot got so far.
    fn opens(&mut self, now: At, export: &str) {
        // Several connections at once are one try.
        if let Some(boot) = self.open(now).filter(|boot| !boot.is_opening()) {
            let passage = boot.begin(now, Stage::Connect);
            passage.detail = harmless(export);
            passage.failure = None;
        }
    }

    fn refused(&mut self, now: At, why: &str) {
        let boot = self.boot_from_here(now);
        if !boot.is_opening() {
            boot.begin(now, Stage::Connect);
        }
        boot.fail(now, Stage::Connect, harmless(why));
    }

    fn connected(&mut self, now: At, export: &str, is_read_only: bool, sign: Option<&str>) {
        let was_up = self.boots.back().filter(|boot| boot.has(Stage::Connect));
        let again = was_up.is_some_and(|boot| {
            let is_near = boot.down.is_none_or(|down| now.since(down) < AWAY);
            let has_left = self.connections == 0 && boot.is_clean;
            self.connections > 0 || (is_near && !has_left && !self.asked_since)
        });
        let has_other = self.connections > 0;
        self.connections = self.connections.saturating_add(1);
        self.asked_since = false;
        if !again && self.open(now).is_none() {
            self.start(now);
        }
        let boot = self.boot_from_here(now);
        if again {
            boot.last = now;
            boot.down = None;
            boot.reconnects = boot.reconnects.saturating_add(u32::from(!has_other));
            return;
        }
        boot.export = Some(harmless(export));
        boot.is_read_only = is_read_only;
        boot.sign = sign.map(harmless);
        boot.reach(now, Stage::Connect).detail = harmless(export);
    }

    fn continued(&mut self, now: At, export: &str, is_read_only: bool) {
        match self.boots.back_mut() {
            Some(boot) if boot.has(Stage::Connect) => {
                self.connections = self.connections.saturating_add(1);
                boot.last = now;
                boot.down = None;
            }
            // What was known of it is lost.
            _ => self.connected(now, export, is_read_only, None),
        }
    }

    fn disconnected(&mut self, now: At, is_clean: bool) {
        self.connections = self.connections.saturating_sub(1);
        self.asked_since = false;
        let is_last = self.connections == 0;
        if let (Some(boot), true) = (self.boots.back_mut(), is_last) {
            boot.last = now;
            boot.down = Some(now);
            boot.is_clean = is_clean;
        }
    }
}
