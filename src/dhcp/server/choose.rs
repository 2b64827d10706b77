//! Which address a machine gets.

use std::net::Ipv4Addr;

use super::ask::Asked;
use super::{Effect, Event, Report, Server};
use crate::dhcp::lease::{Binding, Source, State};
use crate::dhcp::settings::Network;
use crate::limits::DHCP_QUARANTINE_TIME;

impl Server {
    /// The address for the sender, in the order of RFC 2131, section 4.3.1, after its own: "the
    /// client's current address", "the client's previous (now expired or released) address", "the
    /// address requested", "a new address".
    pub(super) fn choose(
        &mut self,
        asked: &mut Asked<'_>,
        place: usize,
        network: &Network,
    ) -> Option<Ipv4Addr> {
        if let Some(own) = self.own(asked, network) {
            return Some(own);
        }
        self.report_leased(asked);
        if let Some((address, state)) = self.kept(asked, place, network) {
            asked.say(match state {
                State::Leased => format!("it has {address}"),
                State::Expired => format!("it had {address}"),
                _ => format!("it was offered {address}"),
            });
            return Some(address);
        }
        let wanted = asked.requested();
        let wanted =
            wanted.filter(|address| self.leases.is_free(place, *address, asked.is_known()));
        if let Some(address) = wanted {
            asked.say(format!("it asks for {address}, which is free"));
            return Some(address);
        }
        self.fresh(asked, place)
    }

    /// The address that the config gives to the sender, where nobody else has it.
    pub(super) fn own(&self, asked: &mut Asked<'_>, network: &Network) -> Option<Ipv4Addr> {
        let own = asked.machine?.address?;
        if !network.contains(own) {
            asked.say(format!("{own}, its own address, is in another network"));
            return None;
        }
        let in_the_way = match self.leases.get(own) {
            Some(binding) if binding.state == State::Declined => {
                Some("somebody else uses it".to_owned())
            }
            Some(binding) if self.is_used_by_another_card(asked, binding) => {
                Some(format!("its card {} uses it", binding.mac))
            }
            Some(binding) if binding.key == asked.key => None,
            Some(binding) if binding.state == State::Leased => {
                let left = binding.until.since(self.now).as_secs();
                Some(format!(
                    "it is still leased to {} for {left} s",
                    binding.mac
                ))
            }
            _ if self.ours.contains(&own) => Some("it is the server's".to_owned()),
            _ => None,
        };
        match &in_the_way {
            Some(why) => asked.say(format!("not {own}, its own address: {why}")),
            None => asked.say(format!("{own} is its own address")),
        }
        in_the_way.is_none().then_some(own)
    }

    /// Whether another card that says the same of itself was seen to use the address a while ago.
    pub(super) fn is_used_by_another_card(&self, asked: &Asked<'_>, binding: &Binding) -> bool {
        let is_other = (binding.state, &binding.key) == (State::Leased, &asked.key)
            && binding.mac != asked.message.chaddr;
        let seen = binding.in_use.filter(|_| is_other);
        seen.is_some_and(|seen| self.now.since(seen) < DHCP_QUARANTINE_TIME)
    }

    /// Has the leases of the sender's card go by what it is known by now, where the config knows no
    /// other machine by what they went by: it is the same machine. That is saved: the next message
    /// after a restart may come from a system that does not say what its firmware did.
    pub(super) fn adopt(&mut self, asked: &Asked<'_>) {
        let (key, mac) = (&asked.key, asked.message.chaddr);
        let is_of_card = |binding: &Binding| {
            let before = self.machines.of_key(&asked.settings.machines, &binding.key);
            binding.state == State::Leased
                && (binding.mac, &binding.key != key) == (mac, true)
                && before.is_none_or(|before| asked.machine == Some(before))
        };
        let held = self.leases.held_by(key, mac);
        let held = held.filter(|(_, binding)| is_of_card(binding));
        let held: Vec<_> = held.map(|(address, _)| address).collect();
        for address in held {
            let record = self.leases.rename(address, key);
            self.save(record);
        }
    }

    /// Says once that the sender has to wait for its own address.
    fn report_leased(&mut self, asked: &Asked<'_>) {
        let own = asked.machine.and_then(|machine| machine.address);
        let Some((own, holder)) = own.and_then(|own| Some((own, self.leases.get(own)?))) else {
            return;
        };
        if holder.state != State::Leased || holder.key == asked.key {
            return;
        }
        let (holder, left) = (holder.mac, holder.until.since(self.now));
        if self.leases.report(own) {
            self.effects.push_back(Effect::Report(Report {
                what: Event::OwnLeased {
                    address: own,
                    holder,
                    left,
                },
                mac: asked.message.chaddr,
                kind: asked.message.kind().ok().flatten(),
                why: asked.why.clone(),
            }));
        }
    }

    /// Frees what the config took from the sender, which begins anew and so no longer uses it.
    ///
    /// RFC 2131, section 3.1, 5: "If the client receives a DHCPNAK message, the client restarts the
    /// configuration process." The NAK alone does not do: it may be lost, or the host may fail
    /// between the record and the NAK, and then two machines would have one address. Firmware
    /// needs no NAK: it says what it can boot, and beneath it no system runs.
    pub(super) fn free_what_was_taken(&mut self, asked: &mut Asked<'_>) {
        let (mac, is_firmware) = (
            asked.message.chaddr,
            !asked.message.architectures().is_empty(),
        );
        let is_over = |binding: &Binding| {
            binding.is_leased_to(&asked.key, mac) && (binding.is_refused() || is_firmware)
        };
        let held = self.leases.held_by(&asked.key, mac);
        let over = held
            .filter(|(address, binding)| is_over(binding) && self.is_another_s(asked, *address));
        let over: Vec<_> = over.map(|(address, _)| address).collect();
        for address in over {
            asked.say(format!(
                "{address}, which the config gives to another machine, is free: it begins anew"
            ));
            let record = self.leases.give_back(self.now, address);
            self.save(record);
        }
    }

    /// The address that the sender has or had.
    fn kept(
        &self,
        asked: &Asked<'_>,
        place: usize,
        network: &Network,
    ) -> Option<(Ipv4Addr, State)> {
        let bindings = self.leases.of(&asked.key);
        let usable = bindings.filter(|(address, binding)| {
            network.contains(*address)
                && self.leases.is_pooled(place, *address)
                && self.may_have_again(asked, place, binding)
                && !self.is_used_by_another_card(asked, binding)
        });
        let best = usable.max_by_key(|(_, binding)| {
            let rank = match binding.state {
                State::Leased => 2,
                State::Offered => 1,
                _ => 0,
            };
            (binding.mac == asked.message.chaddr, rank, binding.until)
        });
        best.map(|(address, binding)| (address, binding.state))
    }

    /// Whether what a binding of the sender is worth is enough to give it the address. What is no
    /// lease may be needed by a known machine.
    pub(super) fn may_have_again(
        &self,
        asked: &Asked<'_>,
        place: usize,
        binding: &Binding,
    ) -> bool {
        match binding.state {
            State::Leased => true,
            State::Offered => asked.is_known() || self.leases.offers_stand(place),
            State::Declined => false,
            State::Expired | State::Lapsed => {
                asked.is_known() || self.leases.has_room_for_unknown(place)
            }
        }
    }

    fn fresh(&mut self, asked: &mut Asked<'_>, place: usize) -> Option<Ipv4Addr> {
        let Some((address, source)) = self.leases.pick(place, asked.is_known()) else {
            let kept = "of the ranges is left for a machine that is in no config";
            asked.say(match asked.is_known() {
                true => "no address of the ranges is left".to_owned(),
                false => format!("no address {kept}"),
            });
            return None;
        };
        let why = match source {
            Source::Lapsed => "was offered to another machine, which did not take it",
            Source::Unused => "was never used",
            Source::Expired => "has been unused for longest",
            Source::Offered => "is merely offered to a machine that is in no config",
            Source::Kept => "has been unused for longest of those of known machines",
        };
        asked.say(format!("{address} {why}"));
        Some(address)
    }

    /// Whether the config gives this address to another machine.
    pub(super) fn is_another_s(&self, asked: &Asked<'_>, address: Ipv4Addr) -> bool {
        let owner = self.machines.at(&asked.settings.machines, address);
        owner.is_some_and(|owner| asked.machine != Some(owner))
    }
}
