//! `sifter ls --candidates-for-removal`: images that nobody seems to use. It reports; deleting is
//! for people.
//!
//! What is known of use is the last access, and that is weak: many file systems do not record it,
//! copies and restores may carry an old one, and the agent knows it from its last look at the file.
//! Where the agent is on this machine, files are therefore asked once more: one that was read
//! meanwhile is no candidate.

use std::time::Duration;

use sifter_proto::v1::Image;

use crate::catalog::FileTime;

use super::listing::ListingArgs;
use super::{Exit, WithExit, complain};

/// For how long a candidate was not read, unless said otherwise: half a year.
pub const UNUSED_FOR: &str = "180d";

/// Nobody means less: `6m` was meant to be months, and would make nearly every image a candidate.
const SHORTEST: Duration = Duration::from_secs(86_400);

/// Columns unless others are asked for.
const COLUMNS: &str = "accessed,size,owner,repository,tag,path";

/// Makes a listing one of candidates.
pub fn select(listing: &mut ListingArgs, unused_for: &str) {
    listing.also(format!("unused>{unused_for}"));
    // Of what cannot be read now nothing new is known.
    listing.also("status!=UNAVAILABLE".to_owned());
    if !listing.is_grouped() {
        listing.sort_by_default("access_time");
        listing.columns_by_default(COLUMNS);
    }
    listing.total_by_default();
}

/// Asks the files once more.
#[derive(Debug)]
pub struct Confirm {
    /// Whether files are on this machine.
    local: bool,
    before: FileTime,
    dropped: u64,
}

impl Confirm {
    /// # Errors
    ///
    /// `unused_for` is no duration, or less than a day.
    pub fn new(unused_for: &str, local: bool) -> anyhow::Result<Self> {
        let span = crate::config::duration(unused_for).ok_or_else(|| {
            WithExit::error(
                Exit::Usage,
                format!("--unused-for: `{unused_for}` is no duration, as in 180d, 26w, 1y"),
            )
        })?;
        if span < SHORTEST {
            return Err(WithExit::error(
                Exit::Usage,
                format!(
                    "--unused-for: `{unused_for}` is less than a day, which file systems seldom tell; `m` are \
                     minutes: for half a year, write 180d"
                ),
            ));
        }
        let span = i64::try_from(span.as_nanos()).unwrap_or(i64::MAX);
        Ok(Self {
            local,
            before: FileTime(FileTime::now().0.saturating_sub(span)),
            dropped: 0,
        })
    }

    /// Whether the image was really not read, as far as can be told.
    pub fn is_unused(&mut self, image: &Image) -> bool {
        if !self.local {
            return true;
        }
        // A file that cannot be asked is what the agent says.
        let Ok(stat) = nix::sys::stat::lstat(super::path_of(image)) else {
            return true;
        };
        let accessed = FileTime::new(
            stat.st_atime,
            u32::try_from(stat.st_atime_nsec).unwrap_or(0),
        );
        let unused = accessed < self.before;
        self.dropped += u64::from(!unused);
        unused
    }

    /// Says how far the report can be trusted.
    pub fn note(&self) {
        if self.dropped > 0 {
            complain(&format!(
                "left out, since read after the agent last looked: {}",
                crate::words::count(self.dropped, "image")
            ));
        }
        complain(
            "last access is weak evidence: file systems mounted with noatime do not record it, and \
             backups or copies may. Ask the owner before removing anything; nothing was deleted",
        );
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use sifter_proto::v1::Image;

    use super::Confirm;

    #[test]
    fn what_was_read_meanwhile_is_no_candidate() {
        let directory = tempfile::tempdir().unwrap();
        let image = |name: &str, days: u64| {
            let path = directory.path().join(name);
            let file = std::fs::File::create(&path).unwrap();
            let accessed = SystemTime::now() - Duration::from_secs(days * 86_400);
            file.set_times(std::fs::FileTimes::new().set_accessed(accessed))
                .unwrap();
            Image {
                path: path.to_str().unwrap().to_owned(),
                ..Image::default()
            }
        };
        let gone = Image {
            path: "/no/such/image.sif".to_owned(),
            ..Image::default()
        };
        for (image, local, unused) in [
            (image("old", 200), true, true),
            (image("used", 20), true, false),
            (image("elsewhere", 20), false, true),
            (gone, true, true),
        ] {
            let mut confirm = Confirm::new("180d", local).unwrap();
            assert_eq!(confirm.is_unused(&image), unused, "{}", image.path);
        }
        assert!(
            Confirm::new("1y", true)
                .unwrap()
                .is_unused(&image("older", 366))
        );
        // `m` are minutes, whatever was meant.
        for wrong in ["", "180", "soon", "6m", "23h", "0d"] {
            assert!(Confirm::new(wrong, true).is_err(), "{wrong}");
        }
    }
}
