//! The log of an agent in the foreground of a terminal, the lower lines of which somebody else writes.

use std::io::{self, IsTerminal, Write};

use indicatif::{MultiProgress, ProgressDrawTarget};

/// Standard error, if it is a terminal.
#[derive(Debug, Clone)]
pub struct Terminal(MultiProgress);

impl Terminal {
    /// The one that there is.
    #[must_use]
    pub fn of_standard_error() -> Option<Self> {
        io::stderr()
            .is_terminal()
            .then(|| Self(MultiProgress::new()))
    }

    /// Its lower lines.
    #[must_use]
    pub fn bars(&self) -> &MultiProgress {
        &self.0
    }

    /// Takes the lower lines away, for good.
    pub fn clear(&self) {
        // A terminal that is gone has none.
        let _ = self.0.clear();
        self.0.set_draw_target(ProgressDrawTarget::hidden());
    }
}

/// Lines of the log, above the bars.
impl Write for Terminal {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.suspend(|| io::stderr().write_all(line))?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}
