//! A line for each scan that runs, below the log, for an agent in the foreground of a terminal.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar};

use crate::engine::Engines;
use crate::escape;
use crate::scan::Progress;
use crate::telemetry::Terminal;
use crate::words::count;

/// Time between two looks.
const EVERY: Duration = Duration::from_millis(100);

/// Shows what scans run below the log, as long as there are engines.
///
/// # Errors
///
/// A thread cannot be started.
pub fn show(terminal: Terminal, engines: &Arc<Engines>) -> io::Result<()> {
    let engines = Arc::downgrade(engines);
    std::thread::Builder::new()
        .name("sifter-bars".to_owned())
        .spawn(move || run(terminal.bars(), &engines))
        .map(drop)
}

fn run(lower: &MultiProgress, engines: &Weak<Engines>) {
    let mut bars: HashMap<PathBuf, ProgressBar> = HashMap::new();
    while let Some(engines) = engines.upgrade() {
        let status = engines.current().supervisor.status();
        drop(engines);
        for root in &status {
            if let Some((progress, _)) = &root.progress {
                let bar = bars
                    .entry(root.path.clone())
                    .or_insert_with(|| lower.add(ProgressBar::new_spinner()));
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
                lower.remove(bar);
            }
            runs
        });
        std::thread::sleep(EVERY);
    }
}

/// One line that tells how far a scan is.
#[must_use]
pub fn progress_line(root: &Path, progress: &Progress) -> String {
    let counts = progress.counts();
    format!(
        "{}: {} in {}, {}; {} pending, {} in flight, {:.1?}",
        escape::path(root),
        count(counts.images, "image"),
        count(counts.files, "file"),
        count(counts.directories, "directory"),
        progress.pending(),
        progress.width(),
        progress.elapsed(),
    )
}
