//! One entry in the journal's native form.
//!
//! The message is the first field: who cannot deliver the entry finds it there.

use std::fmt::{self, Write as _};

use tracing::field::{Field, Visit};
use tracing::{Level, Metadata};

/// What names of fields begin with.
const PREFIX: &str = "SIFTER_";

/// Bytes of one value at most: an entry must fit into one datagram.
const VALUE_MAX: usize = 8 << 10;

/// Bytes of memory that are kept for the next entry.
const KEEP_MAX: usize = 32 << 10;

const MESSAGE: &str = "MESSAGE";

/// Fields of a span, in order.
#[derive(Debug, Default)]
pub(crate) struct Outer(Vec<(&'static str, String)>);

impl Outer {
    fn take(&mut self, name: &'static str, value: String) {
        match self.0.iter_mut().find(|(other, _)| *other == name) {
            Some((_, old)) => *old = value,
            None => self.0.push((name, value)),
        }
    }
}

impl Visit for Outer {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.take(field.name(), value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.take(field.name(), format!("{value:?}"));
    }
}

/// An entry while it is made, and its memory.
#[derive(Debug, Default)]
pub(crate) struct Entry {
    /// The event's own words.
    words: String,
    /// Its fields, as they follow the words.
    line: String,
    /// Its fields in the native form.
    fields: Vec<u8>,
    names: Vec<&'static str>,
    /// A value while it is written.
    value: String,
    whole: Vec<u8>,
}

impl Visit for Entry {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field.name(), value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let mut text = std::mem::take(&mut self.value);
        text.clear();
        let _ = write!(text, "{value:?}");
        self.add(field.name(), &text);
        self.value = text;
    }
}

impl Entry {
    fn add(&mut self, name: &'static str, value: &str) {
        if name == "message" {
            self.words.push_str(value);
            return;
        }
        self.names.push(name);
        let is_plain = !value.is_empty()
            && value
                .bytes()
                .all(|byte| byte.is_ascii_graphic() && byte != b'"');
        self.line.push(' ');
        self.line.push_str(name);
        self.line.push('=');
        if is_plain {
            self.line.push_str(value);
        } else {
            let _ = write!(self.line, "{value:?}");
        }
        self.fields.extend_from_slice(PREFIX.as_bytes());
        self.fields.extend(name.bytes().map(|letter| match letter {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => letter.to_ascii_uppercase(),
            _ => b'_',
        }));
        put_value(&mut self.fields, &[value]);
    }

    /// Adds what it happened in; the event's own word counts.
    pub(crate) fn add_outer(&mut self, outer: &Outer) {
        for (name, value) in &outer.0 {
            if !self.names.contains(name) {
                self.add(name, value);
            }
        }
    }

    /// The entry as the journal takes it.
    pub(crate) fn finish(&mut self, metadata: &Metadata<'_>, identifier: &str) -> &[u8] {
        // As in syslog(3); TRACE is no less than DEBUG there.
        let priority = match *metadata.level() {
            Level::ERROR => "3",
            Level::WARN => "4",
            Level::INFO => "6",
            Level::DEBUG | Level::TRACE => "7",
        };
        let whole = &mut self.whole;
        whole.extend_from_slice(MESSAGE.as_bytes());
        put_value(whole, &[&self.words, &self.line]);
        put(whole, "PRIORITY", priority);
        put(whole, "SYSLOG_IDENTIFIER", identifier);
        put(whole, "TARGET", metadata.target());
        if let (Some(file), Some(line)) = (metadata.file(), metadata.line()) {
            put(whole, "CODE_FILE", file);
            self.value.clear();
            let _ = write!(self.value, "{line}");
            put(whole, "CODE_LINE", &self.value);
        }
        whole.extend_from_slice(&self.fields);
        whole
    }

    pub(crate) fn is_small(&self) -> bool {
        self.whole.capacity() + self.line.capacity() + self.value.capacity() <= KEEP_MAX
    }

    pub(crate) fn clear(&mut self) {
        self.words.clear();
        self.line.clear();
        self.fields.clear();
        self.names.clear();
        self.whole.clear();
    }
}

/// The message of an entry.
pub(crate) fn message(entry: &[u8]) -> &[u8] {
    let read = || {
        let rest = entry
            .strip_prefix(MESSAGE.as_bytes())?
            .strip_prefix(b"\n")?;
        let (length, rest) = rest.split_first_chunk()?;
        rest.get(..usize::try_from(u64::from_le_bytes(*length)).ok()?)
    };
    read().unwrap_or_default()
}

fn put(entry: &mut Vec<u8>, name: &str, value: &str) {
    entry.extend_from_slice(name.as_bytes());
    put_value(entry, &[value]);
}

/// The value of a field whose name stands there: the form with a length holds whatever the value
/// has, line ends included.
fn put_value(entry: &mut Vec<u8>, parts: &[&str]) {
    entry.push(b'\n');
    let at = entry.len();
    entry.extend_from_slice(&[0; 8]);
    for part in parts {
        let room = VALUE_MAX - (entry.len() - at - 8);
        // Whole letters, or the journal would take it for something binary.
        entry.extend_from_slice(&part.as_bytes()[..part.floor_char_boundary(room)]);
    }
    let length = (entry.len() - at - 8) as u64;
    entry[at..at + 8].copy_from_slice(&length.to_le_bytes());
    entry.push(b'\n');
}
