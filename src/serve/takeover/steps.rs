//! What the old server of a take-over does next, by what it hears: a pure machine.
//!
//! Invariants:
//! - It goes on with its sessions only where the new one can have begun nothing: the new one has
//!   ended, and before it took [`Yours`](super::wire::Message::Yours) off its socket.
//! - It serves nobody as long as the new one may.
//! - It ends only when the new one serves.

/// What happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The new one wants the rest.
    Freeze,
    /// The new one has opened everything.
    Prepared,
    /// The new one serves.
    Serving,
    /// The new one gives up, and is about to end.
    Refused(String),
    /// What the new one said makes no sense here.
    Nonsense(String),
    /// The new one has ended.
    Ended {
        /// The last that it was told was still in its queue.
        is_unread: bool,
    },
    /// The sessions could not be stopped, or something else went wrong on this side.
    Failed(String),
    /// It has taken longer than it may.
    Late,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Stop everything, and hand it over.
    Freeze,
    /// Say that all is the new one's.
    Give,
    /// End.
    Leave,
    /// Wait for the end of the new one.
    Await,
    /// Bring about the end of the new one, and wait for it.
    Kill,
    /// Go on as if nothing had been; why.
    Keep(String),
    /// Go on without the sessions that were handed over: what was read of their connections is not
    /// known.
    KeepDoors(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// It serves, and has shown what it has.
    Shown,
    /// It serves nobody, and has handed all over.
    Frozen,
    /// It has said that all is the new one's.
    Given,
}

/// The old server's side.
#[derive(Debug)]
pub struct Giver {
    stage: Stage,
    /// Why it will not come to an end well.
    failure: Option<String>,
}

impl Default for Giver {
    fn default() -> Self {
        Self {
            stage: Stage::Shown,
            failure: None,
        }
    }
}

impl Giver {
    /// What follows.
    pub fn handle(&mut self, event: Event) -> Next {
        match (self.stage, event) {
            (_, Event::Ended { is_unread }) => self.ended(is_unread),
            // Whatever it says then comes too late: it is to end.
            _ if self.failure.is_some() => Next::Await,
            (Stage::Shown, Event::Freeze) => {
                self.stage = Stage::Frozen;
                Next::Freeze
            }
            (Stage::Frozen, Event::Prepared) => {
                self.stage = Stage::Given;
                Next::Give
            }
            (Stage::Given, Event::Serving) => Next::Leave,
            // It may be about to serve: it is left to its end, however long that takes.
            (Stage::Given, Event::Late) => Next::Await,
            (_, Event::Refused(why) | Event::Nonsense(why) | Event::Failed(why)) => self.fail(why),
            (_, Event::Late) => self.fail("it took too long".to_owned()),
            (_, Event::Freeze | Event::Prepared | Event::Serving) => {
                self.fail("the new server has mixed up the order of things".to_owned())
            }
        }
    }

    fn fail(&mut self, why: String) -> Next {
        self.failure = Some(why);
        match self.stage {
            // Nothing is in its hands yet: it need not be waited for.
            Stage::Shown => Next::Keep(self.failure.take().unwrap_or_default()),
            // It may have files of overlays open: only its end is safe.
            Stage::Frozen => Next::Kill,
            Stage::Given => Next::Await,
        }
    }

    fn ended(&mut self, is_unread: bool) -> Next {
        let why = self.failure.take();
        let why = why.unwrap_or_else(|| "the new server ended".to_owned());
        match self.stage {
            Stage::Given if !is_unread => Next::KeepDoors(why),
            Stage::Shown | Stage::Frozen | Stage::Given => Next::Keep(why),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn refused() -> Event {
        Event::Refused("no".to_owned())
    }

    fn after(events: &[Event], last: Event) -> Next {
        let mut giver = Giver::default();
        for event in events {
            giver.handle(event.clone());
        }
        giver.handle(last)
    }

    const ENDED: Event = Event::Ended { is_unread: false };
    const ENDED_UNREAD: Event = Event::Ended { is_unread: true };

    #[test]
    fn a_take_over_that_goes_well_ends_the_old_server() {
        let mut giver = Giver::default();
        assert_eq!(giver.handle(Event::Freeze), Next::Freeze);
        assert_eq!(giver.handle(Event::Prepared), Next::Give);
        assert_eq!(giver.handle(Event::Serving), Next::Leave);
    }

    #[test]
    fn one_that_ends_before_the_point_of_no_return_has_changed_nothing() {
        let keeps = |events: &[Event], last| matches!(after(events, last), Next::Keep(_));
        assert!(keeps(&[], ENDED));
        assert!(keeps(&[Event::Freeze], ENDED));
        assert!(keeps(&[Event::Freeze], ENDED_UNREAD));
        assert!(keeps(&[Event::Freeze, Event::Prepared], ENDED_UNREAD));
    }

    #[test]
    fn one_that_ends_behind_it_takes_its_sessions_along() {
        let next = after(&[Event::Freeze, Event::Prepared], ENDED);
        assert!(matches!(next, Next::KeepDoors(_)));
    }

    #[test]
    fn one_that_may_have_files_open_is_waited_for() {
        for failure in [refused(), Event::Late, Event::Freeze, Event::Serving] {
            assert_eq!(after(&[Event::Freeze], failure.clone()), Next::Kill);
            let next = after(&[Event::Freeze, failure], Event::Prepared);
            assert_eq!(next, Next::Await, "what is to end gets nothing");
        }
        assert!(matches!(after(&[], refused()), Next::Keep(_)));
    }

    #[test]
    fn one_that_may_serve_is_neither_killed_nor_forgotten() {
        let given = [Event::Freeze, Event::Prepared];
        for event in [Event::Late, refused(), Event::Prepared] {
            assert_eq!(after(&given, event), Next::Await);
        }
    }

    fn any_event() -> impl Strategy<Value = Event> {
        prop_oneof![
            Just(Event::Freeze),
            Just(Event::Prepared),
            Just(Event::Serving),
            Just(refused()),
            Just(Event::Nonsense(String::new())),
            any::<bool>().prop_map(|is_unread| Event::Ended { is_unread }),
            Just(Event::Failed(String::new())),
            Just(Event::Late),
        ]
    }

    proptest! {
        /// The oracle is the new server as it is: it begins when it has read that all is its own.
        #[test]
        fn never_do_two_serve(events in proptest::collection::vec(any_event(), 0..9)) {
            let (mut giver, mut given) = (Giver::default(), false);
            for event in events {
                let is_end = matches!(event, Event::Ended { .. });
                let has_begun = given && event != ENDED_UNREAD;
                match giver.handle(event) {
                    Next::Freeze | Next::Await | Next::Kill => {}
                    Next::Give => given = true,
                    Next::Leave => {
                        prop_assert!(given);
                        break;
                    }
                    Next::Keep(_) => {
                        prop_assert!(!has_begun);
                        break;
                    }
                    Next::KeepDoors(_) => {
                        prop_assert!(is_end && given);
                        break;
                    }
                }
                prop_assert!(!is_end, "what has ended is not waited for");
            }
        }
    }
}
