//! Opening and reading directories.

use std::collections::BTreeSet;
use std::mem::MaybeUninit;

use nix::errno::Errno;

use super::{Access, Operations, c_name, mount_by_proc, mount_of};
use crate::scan::automount::NotMounted;
use crate::scan::file_system;

#[test]
fn a_directory_is_read_to_its_end_whether_that_is_asked_for_or_not() {
    let directory = tempfile::tempdir().unwrap();
    let file_system = file_system::of(directory.path()).unwrap();
    let knows_end = file_system.end_of_directory().is_some();
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut expected = BTreeSet::new();
    // With hashed names in one block, and in several, which is where their order is another one.
    for names in [0, 1, 40, 3000] {
        for number in expected.len()..names {
            let name = format!("{number}-{}", "x".repeat(number % 50));
            std::fs::write(directory.path().join(&name), b"").unwrap();
            expected.insert(name);
        }
        let mut calls = Vec::new();
        for access in [Access::new(false), Access::new(false).on(&file_system)] {
            let mut operations = Operations::default();
            let dir = access.open_root(directory.path(), &mut operations).unwrap();
            operations = Operations::default();
            let mut found = Vec::new();
            access
                .read_dir(&dir, &mut buffer, &mut operations, |name, _, _| {
                    found.push(name.to_str().unwrap().to_owned());
                })
                .unwrap();
            assert_eq!(found.len(), names);
            assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), expected);
            calls.push(operations.calls);
        }
        assert_eq!(calls[0] - calls[1], u64::from(knows_end), "{names} names");
    }
}

#[test]
fn a_directory_is_opened_below_its_parent_only() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(directory.path().join("a/b")).unwrap();
    std::os::unix::fs::symlink("a", directory.path().join("link")).unwrap();
    std::fs::write(directory.path().join("file"), b"").unwrap();
    for access in [Access::new(false), Access::new(true)] {
        let mut operations = Operations::default();
        let root = access.open_root(directory.path(), &mut operations).unwrap();
        let mut open = |name| {
            let opened = access.open_dir(&root, name, &mut operations);
            opened.map_err(|error| Errno::from_raw(error.raw_os_error().unwrap()))
        };
        for (name, errno) in [
            (c"..", Errno::EXDEV),
            (c"a/b", Errno::EXDEV),
            (c"a/../..", Errno::EXDEV),
            (c"/", Errno::EXDEV),
            (c"link", Errno::ENOTDIR),
            (c"file", Errno::ENOTDIR),
            (c"none", Errno::ENOENT),
        ] {
            assert_eq!(open(name).err(), Some(errno), "{name:?}");
        }
        let a = open(c"a").unwrap();
        assert!(access.open_dir(&a, c"b", &mut operations).is_ok());
        assert!(access.open_below(&root, b"a/b", &mut operations).is_ok());
        assert!(
            access
                .open_below(&root, b"a/../../", &mut operations)
                .is_err()
        );
    }
}

#[test]
fn what_an_automounter_answers_is_told_from_what_is_gone_or_a_link() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir(directory.path().join("directory")).unwrap();
    std::os::unix::fs::symlink("directory", directory.path().join("link")).unwrap();
    let mut operations = Operations::default();
    let access = Access::new(true);
    let dir = access.open_root(directory.path(), &mut operations).unwrap();
    let cases = [
        (Errno::ENOENT, "directory", Some(NotMounted::Named)),
        (Errno::ENOENT, "absent", None),
        (Errno::ELOOP, "directory", Some(NotMounted::Elsewhere)),
        (Errno::ELOOP, "link", None),
        (Errno::EACCES, "directory", None),
    ];
    for (errno, name, expected) in cases {
        let entry = c_name(name.as_bytes()).unwrap();
        let behind = dir.automounter_behind(&errno.into(), &entry, &mut operations);
        assert_eq!(behind, expected, "{errno} {name}");
    }
}

#[test]
fn old_kernels_tell_the_mount_of_what_is_open_too() {
    let mut operations = Operations::default();
    let access = Access::new(false);
    let mut open = |path: &str| access.open_root(path.as_ref(), &mut operations).unwrap();
    let mounts = ["/", "/proc", "/proc/self"].map(|path| {
        let fd = open(path).fd;
        let mount = mount_by_proc(&fd);
        assert_eq!(mount, mount_of(&fd).unwrap(), "{path}");
        mount.unwrap()
    });
    assert_ne!(mounts[0], mounts[1]);
    assert_eq!(mounts[1], mounts[2]);
}
