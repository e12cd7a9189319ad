//! What is watched, and what is heard of it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, mpsc};
use std::time::Duration;

use nix::errno::Errno;

use super::{Bell, EVENTS, FileSystemType, HintState, Hinted, Watches, explain, watch};
use crate::catalog::{Catalog, ChangeKind, DirectoryChange, Identity, RootDirectory, RootIndex};

const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn the_limit_that_is_reached_is_named() {
    for (error, none_left, expected) in [
        (Errno::ENOSPC, false, "fs.inotify.max_user_watches"),
        (Errno::EMFILE, false, "fs.inotify.max_user_instances"),
        (Errno::EMFILE, true, "LimitNOFILE="),
        (Errno::ENOMEM, false, "inotify: "),
    ] {
        let message = explain(&error.into(), || none_left);
        assert!(message.contains(expected), "{error}: {message}");
    }
}

#[test]
fn what_is_moved_takes_the_watches_of_what_is_below_along() {
    let tree = tempfile::tempdir().unwrap();
    let names = ["a", "a/b", "a/b/c", "a-b", "a0", "ab", "b"];
    for (moved, left) in [
        ("a", &["a-b", "a0", "ab", "b"][..]),
        ("a/b", &["a", "a-b", "a0", "ab", "b"]),
        ("ab", &["a", "a-b", "a/b", "a/b/c", "a0", "b"]),
        ("none", &["a", "a-b", "a/b", "a/b/c", "a0", "ab", "b"]),
    ] {
        let mut watches = Watches::new().unwrap();
        for name in names {
            let path = tree.path().join(name);
            fs::create_dir_all(&path).unwrap();
            let descriptor = watches.inotify.add_watch(&path, EVENTS).unwrap();
            let name: Box<[u8]> = name.as_bytes().into();
            watches.paths.insert(descriptor, name.clone());
            watches.watched.insert(name, descriptor);
        }
        watches.moved_away(moved.as_bytes());
        let watched: Vec<_> = watches.watched.keys().map(|name| &**name).collect();
        let left: Vec<_> = left.iter().map(|name| name.as_bytes()).collect();
        assert_eq!(watched, left, "{moved}");
        assert_eq!(watches.paths.len(), left.len(), "{moved}");
    }
}

/// More happens in `d` than the kernel keeps, and another directory comes to its place; the watcher reads
/// nothing meanwhile, as it is the one that is asked whether it is to end.
struct Flooded {
    path: PathBuf,
    bell: Bell,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    is_watched: bool,
    is_flooded: bool,
    all_hinted: bool,
    is_watched_anew: bool,
    hints_since: u32,
    is_over: bool,
}

impl Flooded {
    fn flood(&self) {
        let limit = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap();
        let (one, other) = (self.path.join("d/one.sif"), self.path.join("d/other.sif"));
        // Equal events that follow each other are told as one.
        for _ in 0..limit.trim().parse::<usize>().unwrap() / 4 + 1 {
            for path in [&one, &other] {
                fs::write(path, b"").unwrap();
                fs::remove_file(path).unwrap();
            }
        }
        fs::rename(self.path.join("d"), self.path.join("away")).unwrap();
        fs::create_dir(self.path.join("d")).unwrap();
    }
}

impl Hinted for Flooded {
    fn path(&self) -> &Path {
        &self.path
    }

    fn index(&self) -> RootIndex {
        RootIndex(0)
    }

    fn follows_links(&self) -> bool {
        false
    }

    fn matters(&self, _: &[u8], _: &[u8]) -> bool {
        true
    }

    fn is_stopping(&self) -> bool {
        let mut state = self.state.lock().unwrap();
        if state.is_watched && !state.is_flooded {
            state.is_flooded = true;
            self.flood();
        } else if state.is_watched_anew {
            fs::write(self.path.join("d/new.sif"), b"").unwrap();
        }
        state.is_over || state.hints_since > 1
    }

    fn finished(&self) -> u64 {
        1 + u64::from(self.state.lock().unwrap().all_hinted)
    }

    fn nature(&self) -> Option<FileSystemType> {
        None
    }

    fn directory(&self) -> Option<RootDirectory> {
        None
    }

    fn set_state(&self, state: HintState) {
        assert_eq!(state, HintState::Inotify);
        let mut state = self.state.lock().unwrap();
        state.is_watched = true;
        state.is_watched_anew = state.all_hinted;
        // So that it is asked again.
        self.bell.ring();
    }

    /// The first one may be of what was read before the flood.
    fn hint(&self, directories: BTreeSet<Box<[u8]>>) {
        let mut state = self.state.lock().unwrap();
        let is_new = state.is_watched_anew && directories.contains(b"d".as_slice());
        state.hints_since += u32::from(is_new);
    }

    fn hint_all(&self) {
        self.state.lock().unwrap().all_hinted = true;
        self.bell.ring();
    }
}

#[test]
fn what_took_the_place_of_another_unseen_is_watched() {
    let tree = tempfile::tempdir().unwrap();
    fs::create_dir(tree.path().join("d")).unwrap();
    let catalog = Catalog::open(None, &[tree.path().to_owned()]);
    let read = |path: &[u8], children: &[&[u8]]| DirectoryChange {
        id: None,
        path: path.into(),
        kind: ChangeKind::Read {
            identity: Identity::default(),
            volatile: false,
            children: children.iter().map(|&name| name.into()).collect(),
            found: Vec::new(),
            removed: Vec::new(),
        },
    };
    let known = catalog.known(RootIndex(0)).unwrap();
    let changes = vec![read(b"", &[b"d"]), read(b"d", &[])];
    catalog.apply(RootIndex(0), &known, changes).unwrap();
    let root = Flooded {
        path: tree.path().to_owned(),
        bell: Bell::new().unwrap(),
        state: Mutex::default(),
    };
    std::thread::scope(|scope| {
        let (ended, is_running) = mpsc::channel::<()>();
        scope.spawn(|| {
            let _ = { is_running }.recv_timeout(PATIENCE);
            root.state.lock().unwrap().is_over = true;
            root.bell.ring();
        });
        watch(&root, &root.bell, &catalog).unwrap();
        drop(ended);
    });
    let state = root.state.lock().unwrap();
    assert!(state.all_hinted, "events are lost");
    assert!(state.hints_since > 1, "the new directory is watched");
}
