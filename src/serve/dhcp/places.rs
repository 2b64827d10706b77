//! Where DHCP is served: interfaces whose addresses change, and which go and come back.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::incoming::{Incoming, receive_all};
use super::link::{OpenLink, OpenedLink, chosen};
use crate::config::{DhcpConfig, OwnNetwork};
use crate::dhcp::boot::Mode;
use crate::dhcp::server::Link;
use crate::dhcp::settings::Settings;
use crate::io::interface::{self, InterfaceAddress};
use crate::serve::takeover::Given;
use crate::serve::takeover::wire::Door;

/// How often the interfaces are looked at.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Our networks as they were seen last, in the order of the config's interfaces.
#[derive(Clone, Debug)]
pub(super) struct Own(Arc<Mutex<Vec<OwnNetwork>>>);

impl Own {
    pub(super) fn new(own: Vec<OwnNetwork>) -> Self {
        Self(Arc::new(Mutex::new(own)))
    }

    pub(super) fn get(&self) -> Vec<OwnNetwork> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn set(&self, own: Vec<OwnNetwork>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = own;
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Served,
    /// There is no such interface, or it does not have the address.
    Gone,
    /// It has an address that the config does not fit.
    Elsewhere,
    /// It has another index, and no sockets can be opened on that.
    Closed(u32),
}

/// One interface.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) link: Link,
    pub(super) sockets: Arc<OpenedLink>,
    /// They receive from the sockets.
    tasks: JoinSet<()>,
    own: OwnNetwork,
    state: State,
}

impl Place {
    /// Whether an address is of the network on this link, so that ARP finds it.
    pub(super) fn is_near(&self, address: Ipv4Addr) -> bool {
        let bits = |address: Ipv4Addr| address.to_bits() >> (32 - self.own.prefix.clamp(1, 32));
        bits(address) == bits(self.link.address)
    }
}

/// All interfaces that the config names.
#[derive(Debug)]
pub(super) struct Places {
    config: DhcpConfig,
    own: Own,
    places: Vec<Place>,
    to: mpsc::Sender<Incoming>,
}

impl Places {
    /// Begins to receive on open links. Inside of a runtime only.
    pub(super) fn open(
        links: Vec<OpenLink>,
        config: DhcpConfig,
        own: Own,
        to: mpsc::Sender<Incoming>,
    ) -> io::Result<Self> {
        let links = links.into_iter().enumerate();
        let places = links.map(|(index, open)| {
            let (own, link) = (open.own.clone(), open.link);
            let sockets = Arc::new(open.watched()?);
            Ok(Place {
                tasks: receive_all(&sockets, index, &to),
                sockets,
                own,
                link,
                state: State::Served,
            })
        });
        Ok(Self {
            places: places.collect::<io::Result<_>>()?,
            config,
            own,
            to,
        })
    }

    /// Listens to nobody from now on, or to everybody again. What comes meanwhile waits in the
    /// kernel.
    pub(super) fn listen(&mut self, listens: bool) {
        for (index, place) in self.places.iter_mut().enumerate() {
            place.tasks = match listens {
                true => receive_all(&place.sockets, index, &self.to),
                false => JoinSet::new(),
            };
        }
    }

    /// The sockets once more, for a server that takes over.
    pub(super) fn share(&self) -> io::Result<Vec<(Door, OwnedFd)>> {
        let is_proxy = self.config.mode() == Mode::Proxy;
        let mut shared = Vec::new();
        for place in &self.places {
            shared.extend(place.sockets.share(place.link.interface, is_proxy)?);
        }
        Ok(shared)
    }

    /// The place of this number, where it is served now.
    pub(super) fn get(&self, index: usize) -> Option<&Place> {
        let place = self.places.get(index)?;
        (place.state == State::Served).then_some(place)
    }

    /// The place with this interface, where it is served now.
    pub(super) fn of_interface(&self, interface: u32) -> Option<(usize, &Place)> {
        let mut places = self.places.iter().enumerate();
        places.find(|(_, place)| place.state == State::Served && place.link.interface == interface)
    }

    /// Goes by another config, which fits what was seen last.
    pub(super) fn replace(&mut self, config: DhcpConfig) {
        self.config = config;
        for place in &mut self.places {
            if place.state == State::Elsewhere {
                place.serve();
            }
        }
    }

    /// Looks for changes; what to go by from now on, where there were any that the config fits.
    pub(super) fn look(&mut self) -> Option<Settings> {
        // It fails for want of memory or descriptors, and the next look may not.
        let all = interface::addresses().ok()?;
        let places = self.places.iter_mut().enumerate();
        let changed = places.filter_map(|(index, place)| {
            let changed = place.look(index, &all, &self.config, &self.to);
            changed.then_some(index)
        });
        let changed: Vec<usize> = changed.collect();
        if changed.is_empty() {
            return None;
        }
        let own: Vec<_> = self.places.iter().map(|place| place.own.clone()).collect();
        let settings = self.config.settings(&own);
        self.own.set(own);
        for index in changed {
            let place = self.places.get_mut(index)?;
            match &settings {
                Ok(_) => place.serve(),
                Err(wrong) => place.leave(wrong),
            }
        }
        settings.ok()
    }
}

impl Place {
    /// Whether it is there and has changed.
    fn look(
        &mut self,
        index: usize,
        all: &[InterfaceAddress],
        config: &DhcpConfig,
        to: &mpsc::Sender<Incoming>,
    ) -> bool {
        let name = self.own.interface.as_str();
        let said = config.address();
        // The address that it had is as good as the first.
        let same = chosen(all, name, Some(self.own.address)).filter(|_| said.is_none());
        let Some(found) = same.or_else(|| chosen(all, name, said)) else {
            if self.state != State::Gone {
                tracing::warn!(
                    "DHCP: {name} is gone, or has not the address that it is to have: nobody is \
                     served there until it is back"
                );
                self.state = State::Gone;
            }
            return false;
        };
        if found.index != self.link.interface && !self.reopen(index, found, config, to) {
            return false;
        }
        let is_same = (found.address, found.prefix) == (self.own.address, self.own.prefix);
        let is_known = matches!(self.state, State::Served | State::Elsewhere);
        self.link.address = found.address;
        self.own.address = found.address;
        self.own.prefix = found.prefix;
        !(is_same && is_known)
    }

    /// Opens new sockets on an interface that was made anew; whether that can be done.
    fn reopen(
        &mut self,
        index: usize,
        found: &InterfaceAddress,
        config: &DhcpConfig,
        to: &mpsc::Sender<Incoming>,
    ) -> bool {
        if self.state == State::Closed(found.index) {
            return false;
        }
        // The old ones go first: no port is taken by them.
        self.tasks.abort_all();
        let name = &found.interface;
        let opened = OpenLink::on(found, config, &mut Given::default())
            .map_err(|failure| failure.to_string());
        let opened = opened.and_then(|open| open.watched().map_err(|error| error.to_string()));
        match opened {
            Ok(opened) => {
                self.sockets = Arc::new(opened);
                self.tasks = receive_all(&self.sockets, index, to);
                self.link.interface = found.index;
                self.state = State::Gone;
                true
            }
            Err(error) => {
                tracing::error!(
                    "DHCP: {name} was made anew and can't be served ({error}): restart cowherd"
                );
                self.state = State::Closed(found.index);
                false
            }
        }
    }

    fn serve(&mut self) {
        let OwnNetwork {
            interface,
            address,
            prefix,
        } = &self.own;
        tracing::warn!(
            "DHCP: {interface} has changed: it is served from now on at {address}/{prefix}"
        );
        self.state = State::Served;
    }

    fn leave(&mut self, wrong: &impl std::fmt::Display) {
        let OwnNetwork {
            interface,
            address,
            prefix,
        } = &self.own;
        tracing::warn!(
            "DHCP: {interface} has the address {address}/{prefix} now, which the config does not \
             fit: nobody is served there until one of them is changed ({wrong})"
        );
        self.state = State::Elsewhere;
    }
}
