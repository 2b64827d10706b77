//! Log lines for programs: as JSON, and as systemd's journal takes them.

use std::fmt::{self, Write};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

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
        writeln!(writer, "{}", Value::Object(fields.0))
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
        let mut line = String::new();
        context.format_fields(Writer::new(&mut line), event)?;
        let priority = priority(*event.metadata().level());
        // Each line is an entry of its own there.
        line.lines()
            .try_for_each(|line| writeln!(writer, "<{priority}>{line}"))
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
