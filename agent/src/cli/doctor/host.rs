//! User, state directory, groups and clock.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use nix::sys::statvfs::statvfs;
use nix::unistd::{Group, Uid, User, geteuid};
use rusqlite::{Connection, OpenFlags};
use rustix::fs::{Access, access};

use super::Finding;
use crate::catalog::{FileTime, Store, StoreError};
use crate::cli::unit::UNIT;
use crate::config::Settings;
use crate::escape;
use crate::run::CATALOG_FILE;
use crate::words::count;

/// Free space below which a catalogue may soon not be written. A million images need some 1 GB.
const FREE_MIN: u64 = 256 << 20;

/// Seconds since 1970 that no clock can show that is right: this was written later.
const WRITTEN: i64 = 1_795_000_000;

fn name_of(uid: u32) -> String {
    User::from_uid(Uid::from_raw(uid))
        .ok()
        .flatten()
        .map_or_else(|| uid.to_string(), |user| user.name)
}

/// Who owns a directory, if that is somebody else.
fn other_owner(directory: &Path) -> Option<String> {
    let owner = std::fs::metadata(directory).ok()?.uid();
    (owner != geteuid().as_raw()).then(|| name_of(owner))
}

pub(super) fn user(settings: &Settings, of_unit: Option<&str>) -> Vec<Finding> {
    let name = name_of(geteuid().as_raw());
    let directory = settings.state_directory.as_deref();
    vec![match directory.and_then(other_owner) {
        Some(owner) => Finding::warning(
            "user",
            format!(
                "this is {name}, and the agent's files are {owner}'s: what {name} may do says little \
                 of the agent"
            ),
            format!("runuser -u {owner} -- sifter doctor"),
        ),
        None if of_unit.is_some() => Finding::ok("user", format!("{name}, who runs {UNIT}")),
        None => Finding::ok("user", name),
    }]
}

pub(super) fn state(settings: &Settings) -> Vec<Finding> {
    let subject = "catalogue";
    let Some(directory) = &settings.state_directory else {
        return vec![Finding::warning(
            subject,
            "in memory: after a restart nothing is listed until the first scan has ended",
            "set state_directory",
        )];
    };
    let shown = escape::path(directory);
    if !directory.exists() {
        return vec![Finding::warning(
            subject,
            format!("{shown} does not exist"),
            "the agent makes it at its start, if it may; the package's unit does (StateDirectory=)",
        )];
    }
    if let Err(error) = access(directory, Access::WRITE_OK | Access::EXEC_OK) {
        let own = "let the agent's user own it: `chown sifter:sifter`";
        return vec![Finding::failed(
            subject,
            format!("{shown} cannot be written by this user: {error}"),
            match other_owner(directory) {
                Some(owner) => {
                    format!("if the agent runs as {owner}, run this as {owner}; if not, {own}")
                }
                None => own.to_owned(),
            },
        )];
    }
    let mut findings = vec![database(&directory.join(CATALOG_FILE))];
    if let Ok(facts) = statvfs(directory) {
        let free = facts.blocks_available() * facts.fragment_size();
        if free < FREE_MIN {
            findings.push(Finding::warning(
                subject,
                format!("{} MB are free at {shown}", free >> 20),
                "make room: without, the listing goes on in memory and is lost at a restart",
            ));
        }
    }
    findings
}

fn database(path: &Path) -> Finding {
    let subject = "catalogue";
    let shown = escape::path(path);
    if !path.exists() {
        return Finding::ok(subject, format!("{shown} will be made by the first scan"));
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let checked = Connection::open_with_flags(path, flags).and_then(|connection| {
        connection.query_row("PRAGMA quick_check(1)", [], |row| row.get::<_, String>(0))
    });
    let advice = "nothing is lost: stop the agent, move the file away, start the agent; it reads \
                  the roots again";
    if let Err(StoreError::Newer { found, known }) = Store::open_to_read(path) {
        return Finding::failed(
            subject,
            format!("{shown} has schema version {found}, and this sifter knows {known} at most"),
            format!("install the newer sifter again, or do without the file: {advice}"),
        );
    }
    match checked {
        Ok(answer) if answer == "ok" => Finding::ok(subject, format!("{shown} is sound")),
        Ok(answer) => Finding::failed(subject, format!("{shown} is damaged: {answer}"), advice),
        Err(error) => Finding::failed(subject, format!("{shown}: {error}"), advice),
    }
}

pub(super) fn admin_group(settings: &Settings) -> Vec<Finding> {
    let name = &settings.access.admin_group;
    match Group::from_name(name) {
        Ok(Some(group)) => vec![Finding::ok(
            "admin_group",
            format!("{name}, {} listed", count(group.mem.len() as u64, "member")),
        )],
        _ if settings.access.admin_group_configured => vec![Finding::warning(
            "admin_group",
            format!("there is no group {name}: only root and the agent's user see everything"),
            format!("groupadd --system {name}; usermod -aG {name} USER"),
        )],
        _ => Vec::new(),
    }
}

pub(super) fn clock() -> Vec<Finding> {
    let now = FileTime::now();
    let seconds = now.0.div_euclid(1_000_000_000);
    let shown = now.timestamp();
    if seconds < WRITTEN {
        return vec![Finding::failed(
            "clock",
            format!("shows {shown}, which is over"),
            "set it: certificates and ages of images depend on it",
        )];
    }
    let synchronised = Command::new("timedatectl")
        .args(["show", "--property=NTPSynchronized", "--value"])
        .output()
        .ok()
        .filter(|output| output.status.success())
        .map(|output| output.stdout.starts_with(b"yes"));
    vec![match synchronised {
        Some(false) => Finding::warning(
            "clock",
            format!("shows {shown}, and is not synchronised"),
            "timedatectl set-ntp true, or start chronyd",
        ),
        Some(true) => Finding::ok("clock", format!("synchronised, {shown}")),
        None => Finding::ok(
            "clock",
            format!("{shown}; whether it is synchronised is not known"),
        ),
    }]
}
