//! Which transfers go on, to whom.
//!
//! Invariant: a client, an address with a port, has one transfer at most: its last request counts.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use tokio::task::{AbortHandle, Id, JoinError, JoinSet};
use tokio::time::Instant;

use crate::io::Envelope;
use crate::limits::{TFTP_TRANSFERS_MAX, TFTP_TRANSFERS_PER_ADDRESS_MAX};
use crate::tftp::transfer::Outcome;

/// A copy of a request that came so shortly before the client ended its transfer was none: it was
/// sent behind the end of it, and only read before.
const AGAIN: Duration = Duration::from_millis(100);

/// The transfers of one well-known port.
#[derive(Debug, Default)]
pub(super) struct Transfers {
    tasks: JoinSet<Option<Outcome>>,
    by_client: HashMap<SocketAddrV4, Active>,
    /// How many of them each address has.
    of_address: HashMap<Ipv4Addr, usize>,
    /// Whose a task is, or was.
    clients: HashMap<Id, SocketAddrV4>,
}

#[derive(Debug)]
struct Active {
    task: AbortHandle,
    request: Vec<u8>,
    /// When its request came again.
    again: Option<(Instant, Envelope)>,
}

/// A task that ended, or was cut short.
pub(super) type Ended = Result<(Id, Option<Outcome>), JoinError>;

impl Transfers {
    /// Begins one, for which there is room.
    pub(super) fn begin(
        &mut self,
        client: SocketAddrV4,
        request: Vec<u8>,
        transfer: impl Future<Output = Option<Outcome>> + Send + 'static,
    ) {
        let task = self.tasks.spawn(transfer);
        self.clients.insert(task.id(), client);
        let active = Active {
            task,
            request,
            again: None,
        };
        self.by_client.insert(client, active);
        *self.of_address.entry(*client.ip()).or_default() += 1;
    }

    /// Whether a request is a copy of one that is being served: what was sent may have been lost,
    /// and its transfer sends it again in time.
    pub(super) fn is_under_way(&mut self, envelope: Envelope, request: &[u8]) -> bool {
        match self.by_client.get_mut(&envelope.from) {
            Some(active) if active.request == request => {
                active.again = Some((Instant::now(), envelope));
                true
            }
            _ => false,
        }
    }

    /// Makes room for another transfer of `client`, which has given up its last one.
    pub(super) fn make_room(&mut self, client: SocketAddrV4) -> Result<(), &'static str> {
        if let Some(last) = self.remove(client) {
            last.task.abort();
        }
        if self.by_client.len() >= TFTP_TRANSFERS_MAX {
            return Err("too many transfers");
        }
        let same = self.of_address.get(client.ip()).copied();
        if same.unwrap_or_default() >= TFTP_TRANSFERS_PER_ADDRESS_MAX {
            return Err("too many transfers to this address");
        }
        Ok(())
    }

    /// Waits for one to end; `None` where there is none.
    pub(super) async fn next(&mut self) -> Option<Ended> {
        self.tasks.join_next_with_id().await
    }

    /// Forgets one that ended. The request that is to be served next, if its client has sent it
    /// already.
    pub(super) fn forget(&mut self, ended: &Ended) -> Option<(Envelope, Vec<u8>)> {
        let (id, outcome) = match ended {
            Ok((id, outcome)) => (*id, *outcome),
            Err(error) => (error.id(), None),
        };
        let client = self.clients.remove(&id)?;
        // One that was cut short for another has no entry any more.
        self.by_client
            .get(&client)
            .filter(|active| active.task.id() == id)?;
        let active = self.remove(client)?;
        let (came, envelope) = active.again?;
        let is_over = matches!(
            outcome,
            Some(Outcome::Complete | Outcome::Probed | Outcome::Refused(_))
        );
        (is_over && came.elapsed() < AGAIN).then_some((envelope, active.request))
    }

    fn remove(&mut self, client: SocketAddrV4) -> Option<Active> {
        let active = self.by_client.remove(&client)?;
        if let Some(count) = self.of_address.get_mut(client.ip()) {
            *count -= 1;
            if *count == 0 {
                self.of_address.remove(client.ip());
            }
        }
        Some(active)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn envelope(last: u8, port: u16) -> Envelope {
        Envelope {
            from: SocketAddrV4::new([10, 77, 0, last].into(), port),
            to: [10, 77, 0, 1].into(),
        }
    }

    async fn ended(transfers: &mut Transfers) -> Option<Vec<u8>> {
        let ended = transfers.next().await.unwrap();
        transfers.forget(&ended).map(|(_, request)| request)
    }

    #[tokio::test]
    async fn an_address_has_so_many_and_room_again_as_they_end() {
        let mut transfers = Transfers::default();
        let ports = 1..=u16::try_from(TFTP_TRANSFERS_PER_ADDRESS_MAX).unwrap();
        for port in ports {
            let client = envelope(9, port).from;
            assert_eq!(transfers.make_room(client), Ok(()));
            transfers.begin(client, vec![], async { None });
        }
        let late = envelope(9, 1000).from;
        assert!(transfers.make_room(late).is_err());
        assert_eq!(transfers.make_room(envelope(8, 1000).from), Ok(()));
        ended(&mut transfers).await;
        assert_eq!(transfers.make_room(late), Ok(()));
        while !transfers.tasks.is_empty() {
            ended(&mut transfers).await;
        }
        assert!(transfers.of_address.is_empty() && transfers.clients.is_empty());
    }

    #[tokio::test]
    async fn another_request_of_a_client_takes_the_place_of_its_last() {
        let mut transfers = Transfers::default();
        let one = envelope(9, 1);
        transfers.begin(one.from, b"a".to_vec(), std::future::pending());
        assert!(transfers.is_under_way(one, b"a"));
        assert!(!transfers.is_under_way(one, b"b"));
        assert_eq!(transfers.make_room(one.from), Ok(()));
        transfers.begin(one.from, b"b".to_vec(), std::future::pending());
        assert_eq!(ended(&mut transfers).await, None, "the first was cut short");
        assert!(transfers.is_under_way(one, b"b"));
        assert_eq!(transfers.of_address.get(one.from.ip()), Some(&1));
    }

    #[tokio::test]
    async fn a_request_that_overtook_the_end_of_the_one_before_is_served() {
        let outcomes = [
            (Outcome::Probed, true),
            (Outcome::Complete, true),
            (Outcome::GaveUp, false),
        ];
        for (outcome, is_served) in outcomes {
            let mut transfers = Transfers::default();
            let one = envelope(9, 1);
            transfers.begin(one.from, b"a".to_vec(), async move { Some(outcome) });
            assert!(transfers.is_under_way(one, b"a"));
            let next = ended(&mut transfers).await;
            assert_eq!(next, is_served.then(|| b"a".to_vec()), "{outcome:?}");
        }
    }
}
