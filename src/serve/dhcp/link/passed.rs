//! The sockets of an interface on their way from one server to the next.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use super::{OpenedLink, Raw};
use crate::dhcp::boot::Mode;
use crate::dhcp::server::Port;
use crate::io::{ArpSocket, CardSender, DatagramSocket, EarSocket, RoutedSender};
use crate::serve::takeover::Given;
use crate::serve::takeover::wire::{Door, Role};

/// What there is for one interface.
pub(super) struct Passed<'a> {
    given: &'a mut Given,
    interface: u32,
    is_proxy: bool,
}

impl<'a> Passed<'a> {
    pub(super) fn new(given: &'a mut Given, interface: u32, mode: Mode) -> Self {
        Self {
            given,
            interface,
            is_proxy: mode == Mode::Proxy,
        }
    }

    fn take(&mut self, role: Role) -> Option<OwnedFd> {
        let wanted = Door::Dhcp {
            interface: self.interface,
            is_proxy: self.is_proxy,
            role,
        };
        let (_, socket) = self.given.take(|door, _| *door == wanted)?;
        Some(socket)
    }

    /// The socket of a port.
    pub(super) fn datagrams(&mut self, port: Port) -> Option<DatagramSocket> {
        let role = match port {
            Port::Server => Role::Server,
            Port::Boot => Role::Boot,
        };
        let socket = self.take(role)?;
        Some(DatagramSocket::passed(socket, Some(self.interface)))
    }

    /// The sockets below UDP: all, or none.
    pub(super) fn raw(&mut self) -> Option<Raw> {
        let interface = self.interface;
        Some(Raw {
            cards: CardSender::passed(self.take(Role::Cards)?, interface),
            arp: ArpSocket::passed(self.take(Role::Arp)?, interface).ok()?,
            routed: RoutedSender::passed(self.take(Role::Routed)?),
            ear: EarSocket::passed(self.take(Role::Ear)?),
        })
    }
}

impl OpenedLink {
    /// Its sockets once more, for a server that takes over.
    pub(in crate::serve::dhcp) fn share(
        &self,
        interface: u32,
        is_proxy: bool,
    ) -> io::Result<Vec<(Door, OwnedFd)>> {
        let mut shared = Vec::new();
        let mut add = |role, socket: &dyn AsFd| {
            let door = Door::Dhcp {
                interface,
                is_proxy,
                role,
            };
            shared.push((door, socket.as_fd().try_clone_to_owned()?));
            Ok::<_, io::Error>(())
        };
        if let Some(server) = &self.server {
            add(Role::Server, server)?;
        }
        add(Role::Boot, &self.boot)?;
        if let (Some(below), Some(arp)) = (&self.below, &self.arp) {
            add(Role::Cards, &below.cards)?;
            add(Role::Arp, arp)?;
            add(Role::Routed, &below.routed)?;
            add(Role::Ear, &below.ear)?;
        }
        Ok(shared)
    }
}
