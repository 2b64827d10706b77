//! What sessions have done since the last look, as events.

use std::collections::HashMap;

use super::Clock;
use crate::access::{Peer, name_of};
use crate::dhcp::Moment;
use crate::name::Name;
use crate::serve::herd::OfShard;
use crate::serve::host;
use crate::serve::meter::Reading;
use crate::serve::shard::measure::{Ended, Measured};
use crate::status::timelines::{Key, Load, Timelines};
use crate::status::traffic::Counts;
use crate::status::{Event, Sign};
use crate::units::BLOCK_SIZE;

/// The sessions that were there at the last look.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    known: HashMap<(usize, u64), Known>,
    last: Option<Moment>,
}

/// What is known of a session.
#[derive(Debug)]
struct Known {
    key: Key,
    sign: Sign,
    counts: Counts,
    reads: bool,
    has_read: bool,
    has_written: bool,
}

impl Sessions {
    /// Tells the timelines; whether a boot has changed.
    pub(super) fn take(
        &mut self,
        measured: Vec<OfShard>,
        timelines: &mut Timelines,
        clock: Clock,
        signs: &HashMap<Name, String>,
    ) -> bool {
        let now = host::moment();
        let mut has_changed = false;
        for (shard, measured) in measured {
            let id = (shard, measured.id);
            let known = self.known.entry(id).or_insert_with(|| {
                has_changed = true;
                introduce(&measured, timelines, clock, signs)
            });
            has_changed |= known.tell(&measured.reading, timelines, clock);
            known.count(&measured, timelines);
            if let Some(ended) = measured.ended {
                let event = match ended {
                    Ended::Suspended => Event::Suspended,
                    Ended::Clean | Ended::Broken => Event::Disconnected {
                        is_clean: ended == Ended::Clean,
                    },
                };
                timelines.handle(clock.at(now), &known.sign, &event);
                self.known.remove(&id);
                has_changed = true;
            }
        }
        let since = self.last.replace(now).map(|last| now.since(last));
        timelines.settle(since.unwrap_or_default());
        has_changed
    }
}

fn introduce(
    measured: &Measured,
    timelines: &mut Timelines,
    clock: Clock,
    signs: &HashMap<Name, String>,
) -> Known {
    let Measured { key, address, .. } = measured;
    let named_after = address.map(|address| name_of(&Peer::Ip(address)));
    let client = key.client.as_ref();
    let name = client.filter(|name| named_after.as_ref() != Some(*name));
    let sign = Sign {
        mac: None,
        address: *address,
        name: name.map(ToString::to_string),
    };
    let (export, is_read_only) = (key.to_string(), measured.is_read_only);
    let event = match measured.goes_on {
        true => Event::Continued {
            export,
            is_read_only,
        },
        false => Event::Connected {
            export,
            is_read_only,
            sign: signs.get(&key.image).cloned(),
        },
    };
    let at = clock.at(measured.reading.began);
    Known {
        key: timelines.handle(at, &sign, &event),
        sign,
        counts: Counts::default(),
        reads: false,
        has_read: false,
        has_written: false,
    }
}

impl Known {
    /// What it has done for the first time.
    fn tell(&mut self, reading: &Reading, timelines: &mut Timelines, clock: Clock) -> bool {
        let firsts = [
            (&mut self.reads, reading.first_read, Event::Reads),
            (&mut self.has_read, reading.has_read, Event::HasRead),
            (
                &mut self.has_written,
                reading.has_written,
                Event::HasWritten,
            ),
        ];
        let mut has_changed = false;
        for (was_told, moment, event) in firsts {
            let Some(moment) = moment.filter(|_| !*was_told) else {
                continue;
            };
            *was_told = true;
            has_changed = true;
            timelines.handle(clock.at(moment), &self.sign, &event);
        }
        has_changed
    }

    fn count(&mut self, measured: &Measured, timelines: &mut Timelines) {
        let counts = measured.reading.counts;
        let more = counts.less(&self.counts);
        self.counts = counts;
        let own = measured.own_blocks;
        timelines.count(
            &self.key,
            &Load {
                more,
                underway: measured.reading.underway,
                own_bytes: own.map(|own| own.present * BLOCK_SIZE),
                waits: measured.reading.waits,
            },
        );
    }
}
