//! `sifter inspect --digest`: the SHA-256 of a whole file now, with a progress bar.

use std::io::{self, IsTerminal};
use std::path::Path;

use crate::{digest, escape, scan};

/// The digest of a file. The progress is shown where standard error is a terminal.
///
/// # Errors
///
/// What reading the file says.
pub fn of(path: &Path) -> io::Result<[u8; 32]> {
    let file = scan::open_file(path)?;
    let bar = if io::stderr().is_terminal() {
        bar(path, file.facts.size)
    } else {
        indicatif::ProgressBar::hidden()
    };
    let digest = digest::of(&file, |bytes| {
        bar.inc(bytes);
        true
    });
    bar.finish_and_clear();
    digest?.ok_or_else(|| io::ErrorKind::Interrupted.into())
}

fn bar(path: &Path, size: u64) -> indicatif::ProgressBar {
    let bar = indicatif::ProgressBar::new(size);
    let style = "{bar:30} {percent:>3} %  {decimal_bytes} of {decimal_total_bytes}  \
                 {decimal_bytes_per_sec}  {eta} left  {msg}";
    if let Ok(style) = indicatif::ProgressStyle::with_template(style) {
        bar.set_style(style);
    }
    let name = path.file_name().unwrap_or(path.as_os_str());
    bar.set_message(escape::path(Path::new(name)));
    bar
}
