//! The shared corpus of real images, a directory as a tree, and how a file is probed in tests.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use sifter_image::{Options, ReadAt, ReadTree, Subject, Verdict, probe, probe_directory};

/// The time of the scan in all tests.
pub(crate) const NOW: i64 = 1_800_000_000;

/// The directory of shared material, by `SIFTER_SHARED` or beside the repository.
pub(crate) fn shared() -> Option<PathBuf> {
    let path = std::env::var_os("SIFTER_SHARED").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared"),
        PathBuf::from,
    );
    path.join("images/truth.json").is_file().then_some(path)
}

/// Says that a test has nothing to do.
#[expect(clippy::print_stderr, reason = "a skipped test must be visible")]
pub(crate) fn skipped(test: &str) {
    eprintln!("{test}: skipped, no shared corpus (set SIFTER_SHARED)");
}

/// A file's subject, modified `age` before [`NOW`].
pub(crate) fn subject(path: &Path, age: i64) -> Subject<'_> {
    let time = |seconds| Timestamp::from_second(seconds).expect("in range");
    Subject {
        path,
        modified: time(NOW - age),
        now: time(NOW),
    }
}

/// Probes an old file with the default options.
pub(crate) fn verdict(file: &dyn ReadAt, path: &Path) -> Verdict {
    probe(file, &subject(path, 86_400 * 365), &Options::default()).expect("memory does not fail")
}

/// Probes a file that has just been written.
pub(crate) fn young_verdict(file: &dyn ReadAt, path: &Path) -> Verdict {
    let age = i64::try_from(Duration::from_secs(1).as_secs()).expect("in range");
    probe(file, &subject(path, age), &Options::default()).expect("memory does not fail")
}

/// Probes a directory on disk.
pub(crate) fn directory_verdict(path: &Path) -> Verdict {
    probe_directory(
        &Directory(path),
        &subject(path, 86_400 * 365),
        &Options::default(),
    )
    .expect("a readable directory")
}

/// A directory on disk as a tree. Links are not followed, as in the agent.
pub(crate) struct Directory<'a>(pub(crate) &'a Path);

impl ReadTree for Directory<'_> {
    fn read(&self, path: &str, limit: usize) -> io::Result<Option<Vec<u8>>> {
        let path = self.0.join(path);
        match fs::symlink_metadata(&path) {
            Ok(metadata) if metadata.is_file() => {
                let mut bytes = fs::read(path)?;
                bytes.truncate(limit);
                Ok(Some(bytes))
            }
            Ok(_) => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn list(&self, path: &str, limit: usize) -> io::Result<Option<Vec<String>>> {
        match fs::read_dir(self.0.join(path)) {
            Ok(entries) => entries
                .take(limit)
                .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
                .collect::<io::Result<_>>()
                .map(Some),
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                ) =>
            {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}
