//! Entries for the journal: gathered and sent by the thread of [`super::lines`], each in a datagram of
//! its own. On the way each stands behind its length.

use std::io;
use std::io::Write;

use sifter_journal::Journal;

use super::Flush;
use super::lines;
use super::lines::Lines;

/// What events hand their entries to.
pub(super) struct Entries(Lines);

/// Starts the thread that sends entries to `journal`.
pub(super) fn start(journal: Journal) -> io::Result<(Entries, Flush)> {
    let (lines, flush) = lines::start(Sender(journal))?;
    Ok((Entries(lines), flush))
}

impl Entries {
    pub(super) fn add(&self, entry: &[u8]) {
        self.0.add(&[&(entry.len() as u64).to_ne_bytes(), entry]);
    }
}

struct Sender(Journal);

impl Write for Sender {
    /// Sends whole entries.
    fn write(&mut self, entries: &[u8]) -> io::Result<usize> {
        let mut rest = entries;
        while let Some((length, after)) = rest.split_first_chunk() {
            let (entry, after) = after.split_at(u64::from_ne_bytes(*length) as usize);
            self.0.send(entry);
            rest = after;
        }
        Ok(entries.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;
    use std::thread;
    use std::time::Duration;

    use sifter_journal::layer;
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;
    use crate::telemetry::ACCESS;
    use crate::telemetry::IDENTIFIER;

    #[test]
    fn every_entry_arrives_with_its_fields_and_in_order() {
        const COUNT: u64 = 2000;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("journal");
        let socket = UnixDatagram::bind(&path).unwrap();
        let patience = Some(Duration::from_secs(10));
        socket.set_read_timeout(patience).unwrap();
        let (entries, flush) = start(Journal::at(&path).unwrap()).unwrap();
        let subscriber =
            tracing_subscriber::registry().with(layer(IDENTIFIER, move |entry| entries.add(entry)));
        let writer = thread::spawn(move || {
            tracing::subscriber::with_default(subscriber, || {
                for number in 0..COUNT {
                    tracing::info!(
                        target: ACCESS,
                        request_id = format!("R-{number}"),
                        cluster = None::<&str>,
                        status = 200,
                        code = "OK",
                        "answered"
                    );
                }
                drop(flush);
                tracing::warn!(number = COUNT, "after the end");
            });
        });
        let mut buffer = vec![0; 1 << 16];
        let mut receive = || {
            let length = socket.recv(&mut buffer).unwrap();
            String::from_utf8_lossy(&buffer[..length]).into_owned()
        };
        let field = |name: &str, value: &str| {
            let length = (value.len() as u64).to_le_bytes();
            let length = str::from_utf8(&length).unwrap();
            format!("{name}\n{length}{value}\n")
        };
        for number in 0..COUNT {
            let entry = receive();
            let message = format!("answered request_id=R-{number} status=200 code=OK");
            for part in [
                field("MESSAGE", &message),
                field("PRIORITY", "6"),
                field("SYSLOG_IDENTIFIER", "sifter-control"),
                field("TARGET", ACCESS),
                field("SIFTER_REQUEST_ID", &format!("R-{number}")),
                field("SIFTER_STATUS", "200"),
                field("SIFTER_CODE", "OK"),
            ] {
                assert!(entry.contains(&part), "{part:?} in {entry:?}");
            }
            assert!(!entry.contains("CLUSTER"), "{entry:?}");
        }
        assert!(receive().contains(&field("SIFTER_NUMBER", "2000")));
        writer.join().unwrap();
    }
}
