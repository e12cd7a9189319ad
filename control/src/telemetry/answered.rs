//! The line of the access log, in the shape that all other lines have.
//!
//! There is one for each request, and through `tracing` each costs as much as checking a signature:
//! its fields are visited one by one and written through `fmt`. So it is written by hand where log
//! lines go to [`Lines`], byte for byte as `tracing-subscriber` writes it, which a test compares.

use std::cell::RefCell;
use std::io::Write;
use std::net::IpAddr;
use std::sync::OnceLock;

use jiff::Timestamp;

use super::ACCESS;
use super::lines::Lines;
use crate::config::LogFormat;

/// Where lines go that are written by hand. Set once, as the subscriber is.
static DIRECT: OnceLock<(LogFormat, Lines)> = OnceLock::new();

/// Lines written by hand go there from now on.
pub(super) fn write_to(format: LogFormat, lines: Lines) {
    // Nobody else sets it: whoever installs a subscriber twice has failed before.
    let _ = DIRECT.set((format, lines));
}

/// What the access log says of a request.
#[derive(Debug, Clone, Copy)]
pub struct Answered<'a> {
    /// The request's ID.
    pub request_id: &'a str,
    /// Where it came from.
    pub client: IpAddr,
    /// Its method.
    pub method: &'a str,
    /// The key that has signed it.
    pub access_key_id: Option<&'a str>,
    /// The cluster that it named.
    pub cluster: Option<&'a str>,
    /// The page that it asked for.
    pub page_number: u32,
    /// The size of that page.
    pub page_size: u32,
    /// The ID that the login nodes know it by, if that is another one.
    pub asked_as: Option<&'a str>,
    /// The status of the answer.
    pub status: u16,
    /// The code of the answer.
    pub code: &'a str,
    /// How long it took.
    pub duration_ms: u64,
}

impl Answered<'_> {
    /// Writes the line, if the filter lets it pass.
    pub fn log(&self) {
        let Some((format, lines)) = DIRECT.get() else {
            return self.event();
        };
        if !tracing::enabled!(target: ACCESS, tracing::Level::INFO) {
            return;
        }
        thread_local! {
            static LINE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
        }
        LINE.with_borrow_mut(|line| {
            line.clear();
            match format {
                LogFormat::Text => self.text(line, Timestamp::now()),
                LogFormat::Json => self.json(line, Timestamp::now()),
            }
            lines.add(&[line]);
        });
    }

    /// The same for any subscriber.
    fn event(&self) {
        tracing::info!(
            target: ACCESS,
            request_id = self.request_id,
            client = %self.client,
            method = %self.method,
            access_key_id = self.access_key_id,
            cluster = self.cluster,
            page_number = self.page_number,
            page_size = self.page_size,
            asked_as = self.asked_as,
            status = self.status,
            code = self.code,
            duration_ms = self.duration_ms,
            "answered"
        );
    }

    fn text(&self, out: &mut Vec<u8>, now: Timestamp) {
        time(out, now);
        out.extend_from_slice(b"  INFO ");
        out.extend_from_slice(ACCESS.as_bytes());
        out.extend_from_slice(b": answered");
        self.fields(out, |out, name, value| {
            out.push(b' ');
            out.extend_from_slice(name.as_bytes());
            out.push(b'=');
            match value {
                Value::Text(text) => debug(out, text),
                Value::Bare(text) => out.extend_from_slice(text.as_bytes()),
                Value::Address(address) => write(out, format_args!("{address}")),
                Value::Number(number) => decimal(out, number),
            }
        });
        out.push(b'\n');
    }

    fn json(&self, out: &mut Vec<u8>, now: Timestamp) {
        out.extend_from_slice(b"{\"timestamp\":\"");
        time(out, now);
        out.extend_from_slice(b"\",\"level\":\"INFO\",\"message\":\"answered\"");
        self.fields(out, |out, name, value| {
            out.extend_from_slice(b",\"");
            out.extend_from_slice(name.as_bytes());
            out.extend_from_slice(b"\":");
            match value {
                Value::Text(text) | Value::Bare(text) => escaped(out, text),
                Value::Address(address) => write(out, format_args!("\"{address}\"")),
                Value::Number(number) => decimal(out, number),
            }
        });
        out.extend_from_slice(b",\"target\":\"");
        out.extend_from_slice(ACCESS.as_bytes());
        out.extend_from_slice(b"\"}\n");
    }

    /// The fields that there are, in their order.
    fn fields(&self, out: &mut Vec<u8>, write: impl Fn(&mut Vec<u8>, &str, Value<'_>)) {
        write(out, "request_id", Value::Text(self.request_id));
        write(out, "client", Value::Address(self.client));
        write(out, "method", Value::Bare(self.method));
        let named = [
            ("access_key_id", self.access_key_id),
            ("cluster", self.cluster),
        ];
        for (name, text) in named {
            if let Some(text) = text {
                write(out, name, Value::Text(text));
            }
        }
        write(out, "page_number", Value::Number(self.page_number.into()));
        write(out, "page_size", Value::Number(self.page_size.into()));
        if let Some(id) = self.asked_as {
            write(out, "asked_as", Value::Text(id));
        }
        write(out, "status", Value::Number(self.status.into()));
        write(out, "code", Value::Text(self.code));
        write(out, "duration_ms", Value::Number(self.duration_ms));
    }
}

enum Value<'a> {
    Text(&'a str),
    /// Text without anything to escape, which stands without quotation marks for people.
    Bare(&'a str),
    Address(IpAddr),
    Number(u64),
}

fn write(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    // A vector takes everything.
    let _ = out.write_fmt(text);
}

/// Whether a text looks the same between quotation marks.
fn is_plain(text: &str) -> bool {
    text.bytes()
        .all(|byte| matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\')
}

fn debug(out: &mut Vec<u8>, text: &str) {
    if is_plain(text) {
        quoted(out, text);
    } else {
        write(out, format_args!("{text:?}"));
    }
}

fn escaped(out: &mut Vec<u8>, text: &str) {
    if is_plain(text) {
        quoted(out, text);
    } else {
        // As above; and texts always serialise.
        let _ = serde_json::to_writer(out, text);
    }
}

fn quoted(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    out.extend_from_slice(text.as_bytes());
    out.push(b'"');
}

fn decimal(out: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// `YYYY-MM-DDThh:mm:ss.ffffffZ`.
fn time(out: &mut Vec<u8>, now: Timestamp) {
    let time = jiff::tz::Offset::UTC.to_datetime(now);
    let mut padded = |number: i32, width: usize, after: u8| {
        let mut digits = [b'0'; 6];
        let mut rest = number.unsigned_abs();
        for digit in digits[..width].iter_mut().rev() {
            *digit += (rest % 10) as u8;
            rest /= 10;
        }
        out.extend_from_slice(&digits[..width]);
        out.push(after);
    };
    padded(time.year().into(), 4, b'-');
    padded(time.month().into(), 2, b'-');
    padded(time.day().into(), 2, b'T');
    padded(time.hour().into(), 2, b':');
    padded(time.minute().into(), 2, b':');
    padded(time.second().into(), 2, b'.');
    padded(time.subsec_nanosecond() / 1000, 6, b'Z');
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::Mutex;

    use super::*;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl Write for Written {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// The line as any subscriber of this format gets it.
    fn through_tracing(answered: &Answered<'_>, format: LogFormat) -> String {
        let written = Written::default();
        let writer = written.clone();
        let builder = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_writer(move || writer.clone());
        match format {
            LogFormat::Text => tracing::subscriber::with_default(builder.finish(), || {
                answered.event();
            }),
            LogFormat::Json => {
                let subscriber = builder.json().flatten_event(true).finish();
                tracing::subscriber::with_default(subscriber, || answered.event());
            }
        }
        let bytes = written.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    fn rows() -> [Answered<'static>; 3] {
        let full = Answered {
            request_id: "04F0F334-1335-436C-A1D7-6C044FE70000",
            client: [192, 0, 2, 1].into(),
            method: "GET",
            access_key_id: Some("LTAI"),
            cluster: Some("ehpc-hz-FYUr32****"),
            page_number: 1,
            page_size: 50,
            asked_as: Some("14F0F334-1335-436C-A1D7-6C044FE70000"),
            status: 200,
            code: "OK",
            duration_ms: 0,
        };
        let odd = Answered {
            client: "2001:db8::1".parse().unwrap(),
            access_key_id: Some("a\"b\\c"),
            cluster: Some("\u{1b}[31m\u{4e2d}\n\u{7f}\u{2028}'"),
            page_number: u32::MAX,
            asked_as: None,
            status: 404,
            code: "LoginNotFound",
            duration_ms: u64::MAX,
            ..full
        };
        let empty = Answered {
            access_key_id: None,
            cluster: Some(""),
            method: "PATCH",
            ..odd
        };
        [full, odd, empty]
    }

    #[test]
    fn the_line_is_as_tracing_writes_it() {
        let now = Timestamp::now();
        for answered in rows() {
            let (mut text, mut json) = (Vec::new(), Vec::new());
            answered.text(&mut text, now);
            answered.json(&mut json, now);
            // Behind the time, which is not the same.
            for (line, format, start) in [
                (text, LogFormat::Text, 0),
                (json, LogFormat::Json, "{\"timestamp\":\"".len()),
            ] {
                let line = String::from_utf8(line).unwrap();
                let expected = through_tracing(&answered, format);
                let end = start + "2018-08-02T20:11:36.000001Z".len();
                assert_eq!(line[..start], expected[..start]);
                assert_eq!(line[end..], expected[end..]);
                let (ours, theirs) = (&line[start..end], &expected[start..end]);
                let (ours, theirs): (Timestamp, Timestamp) =
                    (ours.parse().unwrap(), theirs.parse().unwrap());
                assert!(ours <= theirs && theirs.duration_since(ours).as_secs() < 60);
            }
        }
    }

    #[test]
    fn times() {
        for (nanoseconds, expected) in [
            (1_533_240_696_000_001_000, "2018-08-02T20:11:36.000001Z"),
            (1_533_240_696_999_999_999, "2018-08-02T20:11:36.999999Z"),
            (0, "1970-01-01T00:00:00.000000Z"),
        ] {
            let mut out = Vec::new();
            time(&mut out, Timestamp::from_nanosecond(nanoseconds).unwrap());
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        }
    }
}
