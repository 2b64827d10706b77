//! Log lines: their fields for people, and whole lines for programs, as JSON and as systemd's
//! journal takes them.
//!
//! Invariant: an event is one line, and nothing that a machine has sent moves a cursor or turns the
//! direction of writing where it is shown.

use std::fmt::{self, Write};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::status::text::{Shown, is_plain};

/// The message, and what else there is to it as NAME=VALUE.
pub(super) struct Plain;

impl<'writer> FormatFields<'writer> for Plain {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'writer>, fields: R) -> fmt::Result {
        let mut words = Words {
            writer,
            gap: "",
            written: Ok(()),
        };
        fields.record(&mut words);
        words.written
    }
}

struct Words<'writer> {
    writer: Writer<'writer>,
    /// What comes before the next one.
    gap: &'static str,
    written: fmt::Result,
}

impl Visit for Words<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let (gap, text) = (self.gap, format!("{value:?}"));
        let text = Shown(&text);
        self.written = self.written.and_then(|()| match field.name() {
            "message" => write!(self.writer, "{gap}{text}"),
            // Of the crate log: where an event comes from.
            name if name.starts_with("log.") => Ok(()),
            name => write!(self.writer, "{gap}{name}={text}"),
        });
        self.gap = " ";
    }
}

/// One object a line: `time` (milliseconds since 1970), `level`, `message`, and what else there is
/// to it under its own name.
pub(super) struct Json;

/// A line with its priority before it, as sd-daemon(3) has it: `<4>` is a warning. The journal has
/// the time.
pub(super) struct Journal;

impl<S, N> FormatEvent<S, N> for Json
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.map_or(0, |now| u64::try_from(now.as_millis()).unwrap_or(u64::MAX));
        let mut fields = Fields(Map::new());
        fields.0.insert("time".to_owned(), now.into());
        let level = event.metadata().level().as_str().to_lowercase();
        fields.0.insert("level".to_owned(), level.into());
        event.record(&mut fields);
        // All but the strings in it are plain, and in strings this stands for the same character.
        for c in Value::Object(fields.0).to_string().chars() {
            match is_plain(c) {
                true => writer.write_char(c)?,
                false => write!(writer, "\\u{:04x}", u32::from(c))?,
            }
        }
        writeln!(writer)
    }
}

impl<S, N> FormatEvent<S, N> for Journal
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        write!(writer, "<{}>", priority(*event.metadata().level()))?;
        context.format_fields(writer.by_ref(), event)?;
        writeln!(writer)
    }
}

/// sd-daemon(3): 3 is an error, 4 a warning, 6 information, 7 for debugging.
fn priority(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        Level::DEBUG | Level::TRACE => 7,
    }
}

/// The fields of an event. Its message is one of them.
struct Fields(Map<String, Value>);

impl Visit for Fields {
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.0.insert(field.name().to_owned(), value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.0.insert(field.name().to_owned(), value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.0.insert(field.name().to_owned(), value.into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().to_owned(), value.into());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let mut text = String::new();
        // A String takes whatever is written to it.
        let _ = write!(text, "{value:?}");
        self.0.insert(field.name().to_owned(), text.into());
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use tracing_subscriber::fmt::MakeWriter;

    use super::*;

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl<'a> MakeWriter<'a> for Kept {
        type Writer = Self;

        fn make_writer(&'a self) -> Self {
            self.clone()
        }
    }

    impl Kept {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    #[test]
    fn a_line_of_json_has_level_message_and_fields() {
        let kept = Kept::default();
        let builder = tracing_subscriber::fmt().with_writer(kept.clone());
        let log = builder.event_format(Json).finish();
        tracing::subscriber::with_default(log, || {
            tracing::warn!(client = "pc-1", tries = 3, "a \"name\"\nand a line");
        });
        let text = kept.text();
        assert_eq!(text.lines().count(), 1, "{text}");
        let line: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(line["level"], "warn");
        assert_eq!(line["message"], "a \"name\"\nand a line");
        assert_eq!(
            (&line["client"], &line["tries"]),
            (&"pc-1".into(), &3.into())
        );
        assert!(line["time"].as_u64().unwrap() > 1_000_000_000_000);
    }

    /// What a peer may send: an end of line, a control sequence, and writing from right to left.
    const NASTY: &str = "a\n<3>b\x1b[2J\u{9b}c\x7f\u{202e}d";

    #[test]
    fn what_a_machine_sends_stays_in_its_line_and_shows_as_what_it_is() {
        let spelt = "a\\u{a}<3>b\\u{1b}[2J\\u{9b}c\\u{7f}\\u{202e}d";
        let say = || tracing::warn!(client = "pc-1", "{NASTY}");
        let kept = Kept::default();
        let builder = tracing_subscriber::fmt().with_writer(kept.clone());
        let builder = builder.with_ansi(false).fmt_fields(Plain);
        let log = builder.with_target(false).compact().finish();
        tracing::subscriber::with_default(log, say);
        let text = kept.text();
        let end = format!("WARN {spelt} client=\"pc-1\"\n");
        assert!(text.ends_with(&end), "{text:?}");

        let kept = Kept::default();
        let builder = tracing_subscriber::fmt().with_writer(kept.clone());
        let builder = builder.with_ansi(false).fmt_fields(Plain);
        let log = builder.event_format(Journal).finish();
        tracing::subscriber::with_default(log, say);
        assert_eq!(kept.text(), format!("<4>{spelt} client=\"pc-1\"\n"));
    }

    #[test]
    fn programs_get_what_a_machine_sends_and_a_screen_does_not() {
        let kept = Kept::default();
        let builder = tracing_subscriber::fmt().with_writer(kept.clone());
        let log = builder.event_format(Json).finish();
        tracing::subscriber::with_default(log, || tracing::warn!("{NASTY}"));
        let text = kept.text();
        assert!(text.trim_end().chars().all(is_plain), "{text:?}");
        let line: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(line["message"], NASTY);
    }

    #[test]
    fn a_line_for_the_journal_has_its_priority_and_no_time() {
        let kept = Kept::default();
        let builder = tracing_subscriber::fmt().with_writer(kept.clone());
        let log = builder.with_ansi(false).event_format(Journal).finish();
        tracing::subscriber::with_default(log, || {
            tracing::warn!("careful");
            tracing::error!("broken");
            tracing::info!("well");
        });
        assert_eq!(kept.text(), "<4>careful\n<3>broken\n<6>well\n");
    }
}
