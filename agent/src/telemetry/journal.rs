//! Log records straight to the journal, each field under a name of its own, so that `journalctl
//! SIFTER_ROOT=/home -p warning` finds them. Used where standard error is the journal already.
//!
//! The message is the whole line all the same, fields included: what `journalctl -u` shows must say
//! of which root and which request it speaks. (That is why this is not `tracing-journald`, which
//! leaves the fields out of the message.) The protocol is `systemd.io/JOURNAL_NATIVE_PROTOCOL`.

use std::fmt::{self, Write as _};
use std::io::{self, Write as _};
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use nix::sys::stat::fstat;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

/// Where the journal listens.
const SOCKET: &str = "/run/systemd/journal/socket";

/// What names of fields begin with.
const PREFIX: &str = "SIFTER_";

/// Bytes of one value at most: a record must fit into one datagram.
const VALUE_MAX: usize = 8 << 10;

/// Writes records to the journal.
#[derive(Debug)]
pub(super) struct Journal {
    socket: UnixDatagram,
}

impl Journal {
    /// The journal, if it is what standard error leads to.
    pub fn of_stderr() -> Option<Self> {
        let told = std::env::var("JOURNAL_STREAM").ok()?;
        let facts = fstat(io::stderr()).ok()?;
        if told != format!("{}:{}", facts.st_dev, facts.st_ino) {
            return None;
        }
        Self::at(Path::new(SOCKET)).ok()
    }

    fn at(path: &Path) -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        socket.connect(path)?;
        Ok(Self { socket })
    }
}

/// Fields of an event or a span, in order, and the message apart.
#[derive(Debug, Default)]
struct Fields {
    message: String,
    named: Vec<(&'static str, String)>,
}

impl Fields {
    fn take(&mut self, field: &Field, value: String) {
        match field.name() {
            "message" => self.message = value,
            name => match self.named.iter_mut().find(|(other, _)| *other == name) {
                Some((_, old)) => *old = value,
                None => self.named.push((name, value)),
            },
        }
    }
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.take(field, value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.take(field, format!("{value:?}"));
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Journal {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        if let Some(span) = context.span(id) {
            let mut fields = Fields::default();
            attributes.record(&mut fields);
            span.extensions_mut().insert(fields);
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(fields) = span.extensions_mut().get_mut::<Fields>()
        {
            values.record(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        // What it happened in; the event's own word counts.
        for span in context.event_scope(event).into_iter().flatten() {
            if let Some(outer) = span.extensions().get::<Fields>() {
                for (name, value) in &outer.named {
                    if !fields.named.iter().any(|(own, _)| own == name) {
                        fields.named.push((name, value.clone()));
                    }
                }
            }
        }
        let line = line(&fields);
        let record = record(*event.metadata().level(), event, &line, &fields.named);
        if self.socket.send(&record).is_err() {
            // The journal is being started anew, say: its stream may be there.
            let _ = writeln!(io::stderr(), "{line}");
        }
    }
}

/// The record as text.
fn line(fields: &Fields) -> String {
    let mut line = fields.message.clone();
    for (name, value) in &fields.named {
        let is_plain = !value.is_empty()
            && value
                .bytes()
                .all(|byte| byte.is_ascii_graphic() && byte != b'"');
        let _ = if is_plain {
            write!(line, " {name}={value}")
        } else {
            write!(line, " {name}={value:?}")
        };
    }
    line
}

/// The record as the journal takes it.
fn record(
    level: Level,
    event: &Event<'_>,
    line: &str,
    fields: &[(&'static str, String)],
) -> Vec<u8> {
    // As in syslog(3); TRACE is no less than DEBUG there.
    let priority = match level {
        Level::ERROR => "3",
        Level::WARN => "4",
        Level::INFO => "6",
        Level::DEBUG | Level::TRACE => "7",
    };
    let mut record = Vec::new();
    put(&mut record, "PRIORITY", priority);
    put(&mut record, "SYSLOG_IDENTIFIER", "sifter");
    put(&mut record, "MESSAGE", line);
    put(&mut record, "TARGET", event.metadata().target());
    if let (Some(file), Some(line)) = (event.metadata().file(), event.metadata().line()) {
        put(&mut record, "CODE_FILE", file);
        put(&mut record, "CODE_LINE", &line.to_string());
    }
    for (name, value) in fields {
        let name: String = name
            .chars()
            .map(|letter| match letter {
                'a'..='z' | 'A'..='Z' | '0'..='9' => letter.to_ascii_uppercase(),
                _ => '_',
            })
            .collect();
        put(&mut record, &format!("{PREFIX}{name}"), value);
    }
    record
}

/// One field: the form with a length holds whatever the value has, line ends included.
fn put(record: &mut Vec<u8>, name: &str, value: &str) {
    let value = &value.as_bytes()[..value.len().min(VALUE_MAX)];
    record.extend_from_slice(name.as_bytes());
    record.push(b'\n');
    record.extend_from_slice(&(value.len() as u64).to_le_bytes());
    record.extend_from_slice(value);
    record.push(b'\n');
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::os::unix::net::UnixDatagram;

    use tracing_subscriber::layer::SubscriberExt;

    use super::Journal;

    /// The fields of a record, as the journal reads them.
    fn fields(mut record: &[u8]) -> BTreeMap<String, String> {
        let mut fields = BTreeMap::new();
        while let Some(end) = record.iter().position(|byte| *byte == b'\n') {
            let name = String::from_utf8(record[..end].to_vec()).unwrap();
            let rest = &record[end + 1..];
            let length = u64::from_le_bytes(rest[..8].try_into().unwrap()) as usize;
            let value = String::from_utf8_lossy(&rest[8..8 + length]).into_owned();
            assert_eq!(rest[8 + length], b'\n');
            record = &rest[8 + length + 1..];
            assert_eq!(fields.insert(name, value), None);
        }
        fields
    }

    #[test]
    fn every_field_has_a_name_and_is_in_the_line() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("journal");
        let journal = UnixDatagram::bind(&path).unwrap();
        let subscriber = tracing_subscriber::registry().with(Journal::at(&path).unwrap());
        let mut buffer = vec![0; 1 << 17];
        let mut received = || {
            let length = journal.recv(&mut buffer).unwrap();
            fields(&buffer[..length])
        };
        tracing::subscriber::with_default(subscriber, || {
            let span = tracing::info_span!("rpc", request.id = "R-1", code = tracing::field::Empty);
            span.in_scope(|| {
                tracing::warn!(root = "/a\nb", error = %"no such \"thing\"", "root cannot be scanned");
            });
            span.record("code", "OK");
            span.in_scope(|| tracing::error!(count = 3, "over"));
            tracing::debug!(long = "x".repeat(100_000), "much");
        });
        let first = received();
        for (name, value) in [
            ("PRIORITY", "4"),
            ("SYSLOG_IDENTIFIER", "sifter"),
            ("SIFTER_ROOT", "/a\nb"),
            ("SIFTER_ERROR", "no such \"thing\""),
            ("SIFTER_REQUEST_ID", "R-1"),
            (
                "MESSAGE",
                "root cannot be scanned root=\"/a\\nb\" error=\"no such \\\"thing\\\"\" request.id=R-1",
            ),
        ] {
            assert_eq!(first.get(name).map(String::as_str), Some(value), "{name}");
        }
        let second = received();
        assert_eq!(second["PRIORITY"], "3");
        assert_eq!(second["MESSAGE"], "over count=3 request.id=R-1 code=OK");
        let third = received();
        assert_eq!(third["PRIORITY"], "7");
        assert!(third["SIFTER_LONG"].len() < 10_000);
    }
}
