//! Trees of small images.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::open_directory;

/// A small SIF: header, four descriptors, a definition of a pulled image.
pub fn sif(reference: &str, uuid: u8) -> Vec<u8> {
    let definition = format!("bootstrap: docker\nfrom: {reference}\n\n");
    let mut bytes = vec![0; 40_960];
    let mut put = |at: usize, data: &[u8]| bytes[at..at + data.len()].copy_from_slice(data);
    put(0, b"#!/usr/bin/env run-singularity\n");
    put(32, b"SIF_MAGIC\0");
    put(42, b"01\0");
    put(45, b"02\0");
    put(48, &[uuid; 16]);
    put(64, &1_600_000_000_i64.to_le_bytes());
    put(72, &1_700_000_000_i64.to_le_bytes());
    put(80, &46_i64.to_le_bytes());
    put(88, &48_i64.to_le_bytes());
    put(96, &4096_i64.to_le_bytes());
    put(104, &(48 * 585_i64).to_le_bytes());
    put(112, &32_768_i64.to_le_bytes());
    put(120, &8192_i64.to_le_bytes());
    let mut descriptor = |slot: usize, kind: i32, offset: i64, size: i64| {
        let at = 4096 + slot * 585;
        put(at, &kind.to_le_bytes());
        put(at + 4, &[1]);
        put(at + 5, &u32::try_from(slot + 1).unwrap().to_le_bytes());
        put(at + 9, &0xf000_0001_u32.to_le_bytes());
        put(at + 17, &offset.to_le_bytes());
        put(at + 25, &size.to_le_bytes());
        put(at + 33, &size.to_le_bytes());
    };
    let length = i64::try_from(definition.len()).unwrap();
    descriptor(0, 0x4001, 32_768, length);
    descriptor(1, 0x4004, 36_864, 4096);
    put(4096 + 585 + 201, &1_i32.to_le_bytes());
    put(4096 + 585 + 205, &2_i32.to_le_bytes());
    put(4096 + 585 + 209, b"02\0");
    put(32_768, definition.as_bytes());
    // A superblock of squashfs 4.0 with gzip.
    put(36_864, b"hsqs");
    for (at, value, length) in [
        (4, 5_u64, 4),
        (8, 1_600_000_000, 4),
        (12, 131_072, 4),
        (20, 1, 2),
        (22, 17, 2),
        (28, 4, 2),
        (40, 4096, 8),
    ] {
        put(36_864 + at, &value.to_le_bytes()[..length]);
    }
    bytes
}

/// Files that are old enough not to be "racy".
pub fn settle(path: &Path) {
    let old = SystemTime::now() - Duration::from_secs(86_400);
    for entry in walkdir::WalkDir::new(path).contents_first(true) {
        let entry = entry.unwrap();
        if !entry.file_type().is_symlink() {
            let file = fs::File::open(entry.path()).unwrap();
            file.set_times(fs::FileTimes::new().set_modified(old))
                .unwrap();
        }
    }
}

pub fn write(path: &Path, bytes: &[u8]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

pub fn tree_of(images: usize) -> (tempfile::TempDir, Vec<PathBuf>) {
    let tree = open_directory();
    let mut paths = Vec::new();
    for index in 0..images {
        let path = tree.path().join(format!("d{}/image{index}.sif", index % 7));
        write(
            &path,
            &sif(
                &format!("image{index}:1"),
                u8::try_from(index % 250 + 1).unwrap(),
            ),
        );
        paths.push(path);
    }
    settle(tree.path());
    (tree, paths)
}

/// Waits until what was just made is no longer within a timestamp's granularity: the change time
/// cannot be set, so that only the clock can make it old.
pub fn outwait_granularity(tree: &Path) {
    use std::os::unix::fs::MetadataExt;
    let newest = walkdir::WalkDir::new(tree)
        .into_iter()
        .map(|entry| entry.unwrap().metadata().unwrap())
        .map(|metadata| (metadata.ctime(), metadata.ctime_nsec()))
        .max()
        .unwrap();
    let changed = Duration::new(newest.0.try_into().unwrap(), newest.1.try_into().unwrap());
    super::until("the change times are old", || {
        let now = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap();
        now.saturating_sub(changed) > Duration::from_millis(2100)
    });
}
