//! Log records straight to the journal, each field under a name of its own, so that `journalctl
//! SIFTER_ROOT=/home -p warning` finds them. Used where standard error is the journal already.
//!
//! The message is the whole line all the same, fields included: what `journalctl -u` shows must say
//! of which root and which request it speaks. (That is why this is not `tracing-journald`, which
//! leaves the fields out of the message.) The protocol is `systemd.io/JOURNAL_NATIVE_PROTOCOL`.

mod entry;
pub mod stderr;

use std::cell::Cell;
use std::fmt;
use std::io::{self, Write as _};
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

use nix::sys::stat::fstat;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{Context, Layer};
use tracing_subscriber::registry::LookupSpan;

use self::entry::{Entry, Outer};

/// Where the journal listens.
const SOCKET: &str = "/run/systemd/journal/socket";

/// Sends entries to the journal.
#[derive(Debug)]
pub struct Journal {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Journal {
    /// The journal, if it is what standard error leads to.
    pub fn of_stderr() -> Option<Self> {
        let is_journal = leads_to_journal(io::stderr());
        is_journal.then(|| Self::at(Path::new(SOCKET)).ok())?
    }

    /// The journal that listens there.
    ///
    /// # Errors
    ///
    /// None does.
    pub fn at(path: &Path) -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        socket.connect(path)?;
        let path = path.to_owned();
        Ok(Self { socket, path })
    }

    /// Sends one entry, as [`layer`] makes them. Waits where the journal is behind.
    pub fn send(&self, entry: &[u8]) {
        // The second time to a journal whose socket was made anew.
        let sent = self.socket.send(entry).or_else(|_| {
            self.socket.connect(&self.path)?;
            self.socket.send(entry)
        });
        if sent.is_err() {
            // Its stream may be there.
            let mut line = entry::message(entry).to_owned();
            line.push(b'\n');
            let _ = io::stderr().write_all(&line);
        }
    }
}

/// Whether the journal is what a stream leads to, as the service manager tells.
pub fn leads_to_journal(stream: impl AsFd) -> bool {
    let told = std::env::var("JOURNAL_STREAM");
    let facts = fstat(stream).map(|facts| format!("{}:{}", facts.st_dev, facts.st_ino));
    matches!((told, facts), (Ok(told), Ok(facts)) if told == facts)
}

/// A layer that makes an entry of each event, under the name of the program, and has it delivered.
pub fn layer<D>(identifier: &'static str, deliver: D) -> Entries<D>
where
    D: Fn(&[u8]) + Send + Sync + 'static,
{
    Entries {
        identifier,
        deliver,
    }
}

/// What [`layer`] returns.
pub struct Entries<D> {
    identifier: &'static str,
    deliver: D,
}

impl<D> fmt::Debug for Entries<D> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_tuple("Entries")
            .field(&self.identifier)
            .finish()
    }
}

thread_local! {
    /// The memory of the last entry, for the next one.
    static LAST: Cell<Entry> = Cell::default();
}

impl<S, D> Layer<S> for Entries<D>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    D: Fn(&[u8]) + Send + Sync + 'static,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        if let Some(span) = context.span(id) {
            let mut fields = Outer::default();
            attributes.record(&mut fields);
            span.extensions_mut().insert(fields);
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(fields) = span.extensions_mut().get_mut::<Outer>()
        {
            values.record(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        // Taken, not borrowed: writing a value may log.
        let mut entry = LAST.take();
        event.record(&mut entry);
        for span in context.event_scope(event).into_iter().flatten() {
            if let Some(outer) = span.extensions().get::<Outer>() {
                entry.add_outer(outer);
            }
        }
        (self.deliver)(entry.finish(event.metadata(), self.identifier));
        if entry.is_small() {
            entry.clear();
            LAST.set(entry);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::os::unix::net::UnixDatagram;

    use tracing_subscriber::layer::SubscriberExt;

    use super::{Journal, layer};

    /// The fields of an entry, as the journal reads them.
    fn fields(mut entry: &[u8]) -> BTreeMap<String, String> {
        let mut fields = BTreeMap::new();
        while let Some(end) = entry.iter().position(|byte| *byte == b'\n') {
            let name = String::from_utf8(entry[..end].to_vec()).unwrap();
            let rest = &entry[end + 1..];
            let length = u64::from_le_bytes(rest[..8].try_into().unwrap()) as usize;
            let value = String::from_utf8(rest[8..8 + length].to_vec()).unwrap();
            assert_eq!(rest[8 + length], b'\n');
            entry = &rest[8 + length + 1..];
            assert_eq!(fields.insert(name, value), None);
        }
        fields
    }

    #[test]
    fn every_field_has_a_name_and_is_in_the_line() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("journal");
        let socket = UnixDatagram::bind(&path).unwrap();
        let journal = Journal::at(&path).unwrap();
        let subscriber =
            tracing_subscriber::registry().with(layer("sifter", move |entry| journal.send(entry)));
        let mut buffer = vec![0; 1 << 17];
        let mut received = || {
            let length = socket.recv(&mut buffer).unwrap();
            fields(&buffer[..length])
        };
        tracing::subscriber::with_default(subscriber, || {
            let span = tracing::info_span!(
                "rpc",
                request.id = "R-1",
                count = 1,
                code = tracing::field::Empty
            );
            span.in_scope(|| {
                tracing::warn!(root = "/a\nb", error = %"no such \"thing\"", count = 2, "root cannot be scanned");
            });
            span.record("code", "ABORTED");
            span.record("code", "OK");
            span.in_scope(|| tracing::error!(count = 3, "over"));
            tracing::debug!(
                long = "é".repeat(50_000),
                none = tracing::field::Empty,
                "much"
            );
        });
        let first = received();
        for (name, value) in [
            ("PRIORITY", "4"),
            ("SYSLOG_IDENTIFIER", "sifter"),
            ("TARGET", "sifter_journal::tests"),
            ("SIFTER_ROOT", "/a\nb"),
            ("SIFTER_ERROR", "no such \"thing\""),
            ("SIFTER_REQUEST_ID", "R-1"),
            // Its own word, not that of what it happened in.
            ("SIFTER_COUNT", "2"),
            (
                "MESSAGE",
                "root cannot be scanned root=\"/a\\nb\" error=\"no such \\\"thing\\\"\" count=2 request.id=R-1",
            ),
        ] {
            assert_eq!(first.get(name).map(String::as_str), Some(value), "{name}");
        }
        assert!(first["CODE_FILE"].ends_with("lib.rs"));
        let second = received();
        assert_eq!(second["PRIORITY"], "3");
        assert_eq!(second["MESSAGE"], "over count=3 request.id=R-1 code=OK");
        assert!(!second.contains_key("SIFTER_ROOT"));
        let third = received();
        assert_eq!(third["PRIORITY"], "7");
        assert!((8_000..10_000).contains(&third["SIFTER_LONG"].len()));
        assert!(!third.contains_key("SIFTER_NONE"));
    }

    #[test]
    fn a_journal_that_is_started_anew_is_found() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("journal");
        let first = UnixDatagram::bind(&path).unwrap();
        let journal = Journal::at(&path).unwrap();
        journal.send(b"one");
        drop(first);
        std::fs::remove_file(&path).unwrap();
        let second = UnixDatagram::bind(&path).unwrap();
        second.set_nonblocking(true).unwrap();
        journal.send(b"two");
        let mut buffer = [0; 8];
        assert_eq!(second.recv(&mut buffer).unwrap(), 3);
        assert_eq!(&buffer[..3], b"two");
    }
}
