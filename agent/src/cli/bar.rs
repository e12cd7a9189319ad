//! Progress lines of a command that takes long, on the terminal of standard error.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use nix::sys::signal::{SigSet, Signal, raise};

use crate::escape;
use crate::scan::Progress;
use crate::telemetry::Terminal;

/// Time between two looks.
const EVERY: Duration = Duration::from_millis(100);

/// A terminal with room for a progress line.
pub struct Bars(MultiProgress);

/// The progress line of a scan that runs.
pub struct Bar {
    done: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Bars {
    /// Those of the terminal, if it is one. To be called before there are other threads: what the keyboard
    /// interrupts then takes the line along.
    #[must_use]
    pub fn of_standard_error() -> Option<Self> {
        let bars = Terminal::of_standard_error()?.bars().clone();
        // Not SIGTERM: somebody else's signal must not wait until the terminal takes what is written to it.
        let keyboard = SigSet::from_iter([Signal::SIGINT, Signal::SIGQUIT]);
        if keyboard.thread_block().is_ok() {
            let lines = bars.clone();
            std::thread::spawn(move || {
                while let Ok(signal) = keyboard.wait() {
                    // The shell is to see what ended the command. Where the signal is ignored, nothing does.
                    lines.suspend(|| {
                        let _ = keyboard.thread_unblock();
                        let _ = raise(signal);
                        let _ = keyboard.thread_block();
                    });
                }
            });
        }
        Some(Self(bars))
    }

    /// A line for whoever says what is in it.
    #[must_use]
    pub fn line(&self, message: String) -> ProgressBar {
        let bar = self.0.add(ProgressBar::new_spinner());
        bar.set_message(message);
        bar.enable_steady_tick(EVERY);
        bar
    }

    /// A bar for a file of so many bytes.
    #[must_use]
    pub fn file(&self, path: &Path, size: u64) -> ProgressBar {
        let bar = self.0.add(ProgressBar::new(size));
        let style = "{bar:30} {percent:>3} %  {decimal_bytes} of {decimal_total_bytes}  \
                     {decimal_bytes_per_sec}  {eta} left  {msg}";
        if let Ok(style) = ProgressStyle::with_template(style) {
            bar.set_style(style);
        }
        let name = path.file_name().unwrap_or(path.as_os_str());
        bar.set_message(escape::path(Path::new(name)));
        bar
    }

    /// Shows how far a scan is, until [`Bar::finish`].
    #[must_use]
    pub fn show(&self, root: &Path, progress: &Arc<Progress>) -> Bar {
        let done = Arc::new(AtomicBool::new(false));
        let (root, progress, ended) = (root.to_owned(), Arc::clone(progress), Arc::clone(&done));
        let bar = self.0.add(ProgressBar::new_spinner());
        let thread = std::thread::spawn(move || {
            while !ended.load(Ordering::Relaxed) {
                bar.set_message(crate::bars::progress_line(&root, &progress));
                bar.tick();
                std::thread::park_timeout(EVERY);
            }
            bar.finish_and_clear();
        });
        Bar { done, thread }
    }
}

impl Bar {
    /// Takes the line away.
    pub fn finish(self) {
        self.done.store(true, Ordering::Relaxed);
        self.thread.thread().unpark();
        let _ = self.thread.join();
    }
}
