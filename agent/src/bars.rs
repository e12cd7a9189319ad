//! A line for each scan that runs, below the log, for an agent in the foreground of a terminal.

use std::collections::HashMap;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar};

use crate::engine::Engines;
use crate::escape;
use crate::scan::Progress;

/// Time between two looks.
const EVERY: Duration = Duration::from_millis(100);

/// The lower lines of the terminal.
#[derive(Debug, Clone)]
pub struct Bars(MultiProgress);

impl Bars {
    /// Those of standard error, if it is a terminal.
    #[must_use]
    pub fn on_terminal() -> Option<Self> {
        io::stderr()
            .is_terminal()
            .then(|| Self(MultiProgress::new()))
    }

    /// Shows what scans run, as long as there are engines.
    ///
    /// # Errors
    ///
    /// A thread cannot be started.
    pub fn show(self, engines: &Arc<Engines>) -> io::Result<()> {
        let engines = Arc::downgrade(engines);
        std::thread::Builder::new()
            .name("sifter-bars".to_owned())
            .spawn(move || self.run(&engines))
            .map(drop)
    }

    fn run(&self, engines: &Weak<Engines>) {
        let mut bars: HashMap<PathBuf, ProgressBar> = HashMap::new();
        while let Some(engines) = engines.upgrade() {
            let status = engines.current().supervisor.status();
            drop(engines);
            for root in &status {
                if let Some((progress, _)) = &root.progress {
                    let bar = bars
                        .entry(root.path.clone())
                        .or_insert_with(|| self.0.add(ProgressBar::new_spinner()));
                    bar.set_message(progress_line(&root.path, progress));
                    bar.tick();
                }
            }
            bars.retain(|path, bar| {
                let runs = status
                    .iter()
                    .any(|root| root.path == *path && root.progress.is_some());
                if !runs {
                    bar.finish_and_clear();
                    self.0.remove(bar);
                }
                runs
            });
            std::thread::sleep(EVERY);
        }
    }
}

/// Lines of the log, above the bars.
impl Write for Bars {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.suspend(|| io::stderr().write_all(line))?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

/// One line that tells how far a scan is.
#[must_use]
pub fn progress_line(root: &Path, progress: &Progress) -> String {
    let counts = progress.counts();
    format!(
        "{}: {} images in {} files, {} directories; {} pending, {} in flight, {:.1?}",
        escape::path(root),
        counts.images,
        counts.files,
        counts.directories,
        progress.pending(),
        progress.width(),
        progress.elapsed(),
    )
}
