//! Standard error as a terminal: the lower lines show what runs, a log passes above them.

use std::io::{self, IsTerminal, Write};

use console::Term;
use indicatif::{MultiProgress, ProgressDrawTarget, TermLike};

/// How often the lower lines are written at most, a second.
const DRAWS: u8 = 20;

/// Standard error, if it is a terminal.
#[derive(Debug, Clone)]
pub struct Terminal(MultiProgress);

impl Terminal {
    /// The one that there is, if a line of it can be written anew.
    #[must_use]
    pub fn of_standard_error() -> Option<Self> {
        let is_dumb = std::env::var_os("TERM").is_some_and(|name| name == "dumb");
        (io::stderr().is_terminal() && !is_dumb).then(|| {
            let lines = Box::new(Lines(Term::buffered_stderr()));
            let target = ProgressDrawTarget::term_like_with_hz(lines, DRAWS);
            Self(MultiProgress::with_draw_target(target))
        })
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

/// The lower lines, with the cursor at the beginning of the last one: they are filled with blanks, and the `^C`
/// that the terminal writes behind them would go to a line of its own, and then not they would be cleared.
#[derive(Debug)]
struct Lines(Term);

impl TermLike for Lines {
    fn width(&self) -> u16 {
        self.0.size().1
    }

    fn height(&self) -> u16 {
        self.0.size().0
    }

    fn move_cursor_up(&self, lines: usize) -> io::Result<()> {
        self.0.move_cursor_up(lines)
    }

    fn move_cursor_down(&self, lines: usize) -> io::Result<()> {
        self.0.move_cursor_down(lines)
    }

    fn move_cursor_right(&self, columns: usize) -> io::Result<()> {
        self.0.move_cursor_right(columns)
    }

    fn move_cursor_left(&self, columns: usize) -> io::Result<()> {
        self.0.move_cursor_left(columns)
    }

    fn write_line(&self, text: &str) -> io::Result<()> {
        self.0.write_line(text)
    }

    fn write_str(&self, text: &str) -> io::Result<()> {
        self.0.write_str(text)
    }

    fn clear_line(&self) -> io::Result<()> {
        self.0.clear_line()
    }

    fn flush(&self) -> io::Result<()> {
        self.0.write_str("\r")?;
        self.0.flush()
    }
}
