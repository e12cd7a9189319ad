//! Whether the image directories can be read.

use std::os::unix::fs::MetadataExt;

use rustix::fs::{Access, access};

use super::Finding;
use crate::catalog::FileTime;
use crate::config::RootSettings;
use crate::scan::{Nature, Progress, Root};

/// Directories of a root that are tried. Homes of a large site are some thousands.
const TRIED: usize = 10_000;

/// How far a file server's clock may be ahead, in seconds.
const AHEAD: i64 = 60;

pub(super) fn examine(subject: &str, settings: &RootSettings) -> Vec<Finding> {
    let progress = Progress::default();
    let opened = Root::open(settings, &progress)
        .and_then(|root| Ok((root.is_empty(settings, &progress)?, root)));
    let (is_empty, root) = match opened {
        Ok(opened) => opened,
        Err(error) => {
            return vec![Finding::failed(
                subject,
                error.to_string(),
                format!(
                    "is it mounted? may this user read it? Try `ls {}`; to read what others \
                     closed, give the service CAP_DAC_READ_SEARCH (docs/security.md)",
                    crate::escape::path(&settings.path)
                ),
            )];
        }
    };
    let kind = root.facts().file_system;
    let network = if kind.nature == Nature::Network {
        ", a network file system: scanned gently"
    } else {
        ""
    };
    let mut findings = vec![Finding::ok(subject, format!("{}{network}", kind.name))];
    if is_empty {
        findings.push(Finding::warning(
            subject,
            "is empty",
            "if it is a mount point, mount it: its images stay listed as UNAVAILABLE until then",
        ));
    }
    findings.extend(closed_directories(subject, settings));
    if let Ok(facts) = std::fs::metadata(&settings.path) {
        let ahead = facts.mtime() - FileTime::now().0.div_euclid(1_000_000_000);
        if ahead > AHEAD {
            findings.push(Finding::warning(
                subject,
                format!("was changed {ahead} s in the future"),
                "this host's clock or the file server's is wrong: compare `chronyc tracking`",
            ));
        }
    }
    findings
}

fn closed_directories(subject: &str, settings: &RootSettings) -> Option<Finding> {
    let mut directories = 0;
    let mut closed = Vec::new();
    for entry in std::fs::read_dir(&settings.path)
        .ok()?
        .filter_map(Result::ok)
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .take(TRIED)
    {
        directories += 1;
        if access(entry.path(), Access::READ_OK | Access::EXEC_OK).is_err() {
            closed.push(entry.path());
        }
    }
    let first = closed.first()?;
    Some(Finding::warning(
        subject,
        format!(
            "{} of {} in it cannot be read by this user, {} for one",
            closed.len(),
            crate::words::count(directories, "directory"),
            crate::escape::path(first)
        ),
        "their images are not listed. If they should be: give the service CAP_DAC_READ_SEARCH \
         (docs/security.md); if not, this is as it should be",
    ))
}
