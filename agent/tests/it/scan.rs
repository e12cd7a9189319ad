//! The walk over real trees: what is found, and what a hostile tree can do.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;
use std::sync::{Arc, Mutex};

use nix::errno::Errno;
use sifter_agent::catalog::{ChangeKind, Content, DirectoryChange};
use sifter_agent::config::RootSettings;
use sifter_agent::scan::{Counts, Progress, Root, ScanOptions};

use crate::support::tree::{sif, write};
use crate::support::{open_directory, unprivileged};

fn scan_once(settings: &RootSettings) -> (Vec<String>, Counts, u64) {
    let progress = Arc::new(Progress::default());
    let root = Root::open(settings, &progress).unwrap();
    let found = Mutex::new(Vec::new());
    let sink = |change: DirectoryChange| {
        if let ChangeKind::Read { found: files, .. } = change.kind {
            let mut found = found.lock().unwrap();
            for file in files {
                if let Content::Image(image) = file.content {
                    let directory = String::from_utf8_lossy(&change.path).into_owned();
                    let name = String::from_utf8_lossy(&file.name).into_owned();
                    found.push(format!("{directory}/{name} {}", image.reference.repository));
                }
            }
        }
    };
    root.scan(settings, ScanOptions::default(), None, &progress, &sink)
        .unwrap();
    let mut found = found.into_inner().unwrap();
    found.sort();
    (found, progress.counts(), progress.problems().count())
}

#[test]
fn images_are_found_by_content_wherever_they_are() {
    let tree = tempfile::tempdir().unwrap();
    let at = |path: &str| tree.path().join(path);
    write(&at("a/one.sif"), &sif("alpha:1", 1));
    write(&at("a/b/c/d/two:1.0--h1"), &sif("beta:2", 2));
    write(
        &at("a/text.sif"),
        b"just a camera's raw image, no container at all, but long enough",
    );
    write(&at("a/script.py"), &sif("hidden:1", 3));
    write(&at("node_modules/x.sif"), &sif("skipped:1", 4));
    write(&at("a/small"), b"tiny");
    let (found, counts, problems) = scan_once(&RootSettings::new(tree.path().into()));
    assert_eq!(found, ["a/b/c/d/two:1.0--h1 beta", "a/one.sif alpha"]);
    assert_eq!(counts.images, 2);
    assert_eq!(counts.misnamed, 1);
    assert_eq!(problems, 0);

    let mut all = RootSettings::new(tree.path().into());
    all.candidates = sifter_agent::config::Candidates::All;
    all.skip.clear();
    assert_eq!(scan_once(&all).0.len(), 4);
}

#[test]
fn a_hostile_tree_leads_nowhere() {
    let outside = tempfile::tempdir().unwrap();
    write(&outside.path().join("secret.sif"), &sif("secret:1", 9));
    let tree = tempfile::tempdir().unwrap();
    let at = |path: &str| tree.path().join(path);
    write(&at("good.sif"), &sif("good:1", 1));
    symlink(outside.path(), at("out")).unwrap();
    symlink(outside.path().join("secret.sif"), at("link.sif")).unwrap();
    symlink(".", at("loop")).unwrap();
    nix::unistd::mkfifo(&at("fifo.sif"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(at("socket.sif")).unwrap();
    symlink("/dev/zero", at("zero.sif")).unwrap();
    write(&at("\u{1b}[2Jname.sif"), &sif("escape:1", 2));
    let mut deep = at("deep");
    for _ in 0..300 {
        deep.push("d");
    }
    fs::create_dir_all(&deep).unwrap();
    let (found, _, problems) = scan_once(&RootSettings::new(tree.path().into()));
    assert_eq!(found, ["/\u{1b}[2Jname.sif escape", "/good.sif good"]);
    assert_eq!(problems, 1, "the depth is limited, and that is said");

    let mut following = RootSettings::new(tree.path().into());
    following.follow_symlinks = true;
    let (found, ..) = scan_once(&following);
    assert!(
        found.iter().any(|line| line == "out/secret.sif secret"),
        "{found:?}"
    );
    assert!(
        found.iter().any(|line| line == "/link.sif secret"),
        "{found:?}"
    );
    assert_eq!(found.len(), 4, "{found:?}");
}

#[test]
fn a_deep_and_wide_tree_needs_few_descriptors() {
    let tree = tempfile::tempdir().unwrap();
    let mut directory = tree.path().to_path_buf();
    for level in 0..100 {
        for sibling in 0..8 {
            fs::create_dir_all(directory.join(format!("s{sibling}"))).unwrap();
        }
        directory.push(format!("level{level}"));
    }
    write(&directory.join("bottom.sif"), &sif("bottom:1", 1));
    let (found, counts, problems) = scan_once(&RootSettings::new(tree.path().into()));
    assert_eq!(found.len(), 1);
    assert_eq!(counts.directories, 1 + 100 * 9);
    assert_eq!(problems, 0);
    // Far below what holding one descriptor a pending directory would need. In a process of its own: the limit is one
    // of all that a process does.
    let output = Command::new("sh")
        .args(["-c", "ulimit -n 400 && exec \"$@\"", "sh"])
        .args([env!("CARGO_BIN_EXE_sifter"), "scan"])
        .arg(tree.path())
        .output()
        .unwrap();
    let shown = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{output:?}");
    assert!(shown.contains("bottom"), "{output:?}");
}

#[test]
fn the_inside_of_a_sandbox_that_cannot_be_read_is_not_listed() {
    use std::os::unix::fs::PermissionsExt;

    let tree = open_directory();
    let at = |path: &str| tree.path().join(path);
    write(&at("sandbox/usr/inner.sif"), &sif("inner:1", 1));
    write(&at("sandbox/.singularity.d/runscript"), b"#!/bin/sh\n");
    write(&at("sandbox/.singularity.d/labels.json"), b"{}");
    write(&at("beside.sif"), &sif("beside:1", 2));
    for directory in ["sandbox/bin", "sandbox/etc"] {
        fs::create_dir(at(directory)).unwrap();
    }
    let listed = |mode| {
        let mode = fs::Permissions::from_mode(mode);
        fs::set_permissions(at("sandbox/.singularity.d"), mode).unwrap();
        let settings = RootSettings::new(tree.path().into());
        let (found, _, problems) = unprivileged(move || scan_once(&settings));
        let names: Vec<_> = found
            .iter()
            .map(|found| found.split(' ').next().unwrap().to_owned())
            .collect();
        (names, problems)
    };
    let both = vec!["/beside.sif".to_owned(), "sandbox/".to_owned()];
    assert_eq!(listed(0o755), (both, 0));
    assert_eq!(listed(0o000), (vec!["/beside.sif".to_owned()], 1));
    fs::set_permissions(
        at("sandbox/.singularity.d"),
        fs::Permissions::from_mode(0o755),
    )
    .unwrap();
}

/// Runs a program without `openat2`: its arguments are the number that the call is answered with, and the program.
const WITHOUT_OPENAT2: &str = "
import ctypes, os, struct, sys
LOAD, IF_EQUAL, RETURN = 0x20, 0x15, 0x06
OPENAT2, ERRNO, ALLOW = 437, 0x00050000, 0x7fff0000
PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS, SECCOMP_MODE_FILTER = 22, 38, 2
steps = [(LOAD, 0, 0, 0), (IF_EQUAL, 0, 1, OPENAT2), (RETURN, 0, 0, ERRNO | int(sys.argv[1])), (RETURN, 0, 0, ALLOW)]
code = ctypes.create_string_buffer(b''.join(struct.pack('=HBBI', *step) for step in steps))
filter = ctypes.create_string_buffer(struct.pack('@HP', len(steps), ctypes.addressof(code)))
prctl = ctypes.CDLL(None, use_errno=True).prctl
for call in [(PR_SET_NO_NEW_PRIVS, 1, 0), (PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.addressof(filter))]:
    if prctl(*map(ctypes.c_ulong, (*call, 0, 0))) != 0:
        sys.exit(f'prctl {call[0]}: {os.strerror(ctypes.get_errno())}')
os.execv(sys.argv[2], sys.argv[2:])
";

/// The kernel says `ENOSYS`, and so do most filters; others say `EPERM`, as a file system does that refuses.
#[test]
fn directories_are_opened_whatever_keeps_openat2_from_the_agent() {
    let tree = tempfile::tempdir().unwrap();
    write(&tree.path().join("a/b/one.sif"), &sif("alpha:1", 1));
    for errno in [Errno::ENOSYS, Errno::EPERM] {
        let output = Command::new("python3")
            .args(["-c", WITHOUT_OPENAT2, &(errno as i32).to_string()])
            .args([env!("CARGO_BIN_EXE_sifter"), "scan"])
            .arg(tree.path())
            .output()
            .unwrap();
        let shown = String::from_utf8_lossy(&output.stdout);
        assert!(
            shown.contains("alpha") && output.status.success(),
            "{errno}: {output:?}"
        );
    }
}
