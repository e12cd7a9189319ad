//! Lines of the log on their way to standard error, or entries on theirs to the journal: gathered for a
//! moment and written by a thread, since a system call for each line costs a request more than the line
//! itself.
//!
//! Invariants: lines come out whole, in order, and all of them: where they come faster than they can
//! be written, whoever writes one waits, as for the stream itself. [`Flush`] writes what is left; what
//! comes after it goes straight to the stream. A process that is killed takes the last [`GATHER`]
//! with it.

use std::io;
use std::io::Write;
use std::sync::Arc;
use std::sync::Condvar;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::thread;
use std::time::Duration;

use tracing_subscriber::fmt::MakeWriter;

use crate::lock::lock;

/// How long lines are gathered before they are written.
const GATHER: Duration = Duration::from_millis(20);

/// Bytes that may wait: some thousand lines.
const MAX_WAITING: usize = 1 << 20;

/// How long the end of the process may wait for whoever reads the log.
const FLUSH_WITHIN: Duration = Duration::from_secs(1);

/// What writers of lines share with the thread.
#[derive(Clone)]
pub(super) struct Lines(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    /// Told when there is something to write, or to end.
    work: Condvar,
    /// Told when what was waiting has been taken, and at the end.
    taken: Condvar,
}

struct State {
    waiting: Vec<u8>,
    is_closing: bool,
    /// The stream, when nothing is left and the thread has ended.
    closed: Option<Box<dyn Write + Send>>,
}

/// Writes all lines when it is dropped.
#[must_use = "lines are lost without it"]
pub struct Flush(Lines);

/// Starts the thread that writes lines to `stream`: whole ones, one or many at a time.
pub(super) fn start(stream: impl Write + Send + 'static) -> io::Result<(Lines, Flush)> {
    let lines = Lines(Arc::new(Shared {
        state: Mutex::new(State {
            waiting: Vec::new(),
            is_closing: false,
            closed: None,
        }),
        work: Condvar::new(),
        taken: Condvar::new(),
    }));
    let shared = Arc::clone(&lines.0);
    thread::Builder::new()
        .name("log".to_owned())
        .spawn(move || shared.run(stream))?;
    Ok((lines.clone(), Flush(lines)))
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    fn add(&self, line: &[&[u8]]) {
        let full = |state: &mut State| state.waiting.len() >= MAX_WAITING && state.closed.is_none();
        let wait = self.taken.wait_while(self.lock(), full);
        let mut state = wait.unwrap_or_else(PoisonError::into_inner);
        if let Some(stream) = &mut state.closed {
            // As it would fail, it fails: there is nobody to be told.
            let _ = stream
                .write_all(&line.concat())
                .and_then(|()| stream.flush());
            return;
        }
        let before = state.waiting.len();
        for part in line {
            state.waiting.extend_from_slice(part);
        }
        let after = state.waiting.len();
        if before == 0 || (before < MAX_WAITING / 2 && after >= MAX_WAITING / 2) {
            self.work.notify_one();
        }
    }

    fn run(&self, mut stream: impl Write + Send + 'static) {
        let mut lines = Vec::new();
        loop {
            let wait = self.work.wait_while(self.lock(), |state| {
                state.waiting.is_empty() && !state.is_closing
            });
            let state = wait.unwrap_or_else(PoisonError::into_inner);
            let wait = self.work.wait_timeout_while(state, GATHER, |state| {
                state.waiting.len() < MAX_WAITING / 2 && !state.is_closing
            });
            let mut state = wait.unwrap_or_else(PoisonError::into_inner).0;
            if state.waiting.is_empty() {
                state.closed = Some(Box::new(stream));
                self.taken.notify_all();
                return;
            }
            std::mem::swap(&mut lines, &mut state.waiting);
            drop(state);
            self.taken.notify_all();
            // As above.
            let _ = stream.write_all(&lines).and_then(|()| stream.flush());
            lines.clear();
        }
    }
}

impl Drop for Flush {
    fn drop(&mut self) {
        let shared = &*self.0.0;
        let mut state = shared.lock();
        state.is_closing = true;
        shared.work.notify_one();
        // A terminal that is stopped or a pipe that nobody reads must not keep the process.
        let _ = shared
            .taken
            .wait_timeout_while(state, FLUSH_WITHIN, |state| state.closed.is_none());
    }
}

impl Lines {
    /// Adds a line that lies in parts.
    pub(super) fn add(&self, line: &[&[u8]]) {
        self.0.add(line);
    }
}

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.add(&[line]);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// A stream that is read one write at a time.
    struct Piped(mpsc::SyncSender<Vec<u8>>);

    impl Write for Piped {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let sent = self.0.send(bytes.to_owned());
            sent.map_err(|_| io::ErrorKind::BrokenPipe)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn every_line_comes_out_whole_and_in_order() {
        // Nobody reads while twice as much is written as may wait: writers must wait, not lose.
        let (send, receive) = mpsc::sync_channel(0);
        let (mut lines, flush) = start(Piped(send)).unwrap();
        let line = |number: usize| format!("{number:063}\n");
        let count = 2 * MAX_WAITING / line(0).len();
        let writer = thread::spawn(move || {
            for number in 0..count {
                lines.write_all(line(number).as_bytes()).unwrap();
            }
            drop(flush);
        });
        let mut read = Vec::new();
        while let Ok(bytes) = receive.recv() {
            assert!(bytes.len() < MAX_WAITING + line(0).len());
            assert!(bytes.ends_with(b"\n"));
            read.extend(bytes);
        }
        writer.join().unwrap();
        let expected: String = (0..count).map(line).collect();
        assert!(read == expected.as_bytes());
    }

    #[test]
    fn a_line_comes_out_without_another_one() {
        let (send, receive) = mpsc::sync_channel(1);
        let (mut lines, _flush) = start(Piped(send)).unwrap();
        lines.write_all(b"alone\n").unwrap();
        assert_eq!(receive.recv().unwrap(), b"alone\n");
    }
}
