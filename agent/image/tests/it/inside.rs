//! File systems: as images of Singularity 2, bare and behind the launch script, and as partitions of
//! a SIF whose header does not answer. `data/make.sh` makes them.

use std::path::Path;

use sifter_image::record::{Format, Image, Status};
use sifter_image::{NotImage, Options, Verdict, probe};

use crate::corpus::{subject, verdict};
use crate::made::{INSPECT, Object, Sif};
use crate::refused::REFUSED;

const SQUASHFS: [(&str, &[u8]); 7] = [
    ("gzip", include_bytes!("data/box-gzip.squashfs")),
    ("xz", include_bytes!("data/box-xz.squashfs")),
    ("zstd", include_bytes!("data/box-zstd.squashfs")),
    ("lz4", include_bytes!("data/box-lz4.squashfs")),
    ("gzip", include_bytes!("data/box-stored.squashfs")),
    ("lzo", include_bytes!("data/box-lzo.squashfs")),
    ("lzma", include_bytes!("data/box-lzma.squashfs")),
];
const EXT: [(&str, &[u8]); 3] = [
    ("ext2", include_bytes!("data/box.ext2")),
    ("ext3", include_bytes!("data/box.ext3")),
    ("ext4", include_bytes!("data/box.ext4")),
];
const PLAIN: [&[u8]; 2] = [
    include_bytes!("data/plain.squashfs"),
    include_bytes!("data/plain.ext2"),
];

fn image(bytes: &[u8], path: &str) -> Image {
    match verdict(&bytes, Path::new(path)) {
        Verdict::Image(image) => *image,
        Verdict::NotImage(not) => panic!("{path}: {not:?}"),
    }
}

const LAUNCH: &[u8] = b"#!/usr/bin/env run-singularity\n";

fn launched(bytes: &[u8]) -> Vec<u8> {
    [LAUNCH, bytes].concat()
}

/// Labels, definition and history of the container that all of them hold.
fn check_inside(image: &Image, what: &str) {
    assert_eq!(
        image.status,
        Status::Ready,
        "{what}: {}",
        image.status_message
    );
    assert_eq!(image.labels.get("Author"), Some("someone"), "{what}");
    assert_eq!(image.labels.len(), 3, "{what}");
    assert!(
        image
            .definition
            .as_deref()
            .is_some_and(|text| text.ends_with("true\n")),
        "{what}"
    );
    assert_eq!(image.bootstrap_history, ["alpine:3.8"], "{what}");
    assert_eq!(image.base, "alpine:3.9", "{what}");
}

#[test]
fn squashfs_images() {
    for (compressor, bytes) in SQUASHFS {
        let bare = image(bytes, "/images/x.sqsh");
        let behind = image(&launched(bytes), "/images/x");
        for (what, found) in [("bare", &bare), ("launched", &behind)] {
            assert_eq!(found.format, Format::Squashfs);
            assert_eq!(found.format_version, "4.0");
            assert_eq!(found.compressor, Some(compressor));
            assert_eq!(
                found.update_time.map(|time| time.as_second()),
                Some(1_500_000_000)
            );
            if compressor.starts_with("lz") && compressor != "lz4" {
                assert_eq!(
                    (found.status, found.labels.len()),
                    (Status::Ready, 0),
                    "cannot be read"
                );
            } else {
                check_inside(found, &format!("{compressor} {what}"));
            }
        }
        assert_eq!(
            bare.image_id, behind.image_id,
            "the line is not part of the identity"
        );
    }
    let ids: std::collections::BTreeSet<_> = SQUASHFS
        .iter()
        .map(|(_, bytes)| image(bytes, "/x.sqsh").image_id)
        .collect();
    assert_eq!(ids.len(), SQUASHFS.len());
}

/// The runtimes look for the end of the line.
#[test]
fn a_line_that_runs_the_image_by_another_way() {
    for bytes in [SQUASHFS[0].1, SQUASHFS[1].1, EXT[1].1] {
        let behind = |line: &str| [line.as_bytes(), bytes].concat();
        for path in ["/images/x.simg", "/images/x"] {
            let found = image(&behind("#!/opt/apptainer/bin/env run-singularity\n"), path);
            check_inside(&found, path);
            assert_eq!(found.image_id, image(bytes, "/images/x.img").image_id);
            if bytes.starts_with(b"hsqs") {
                // 2.x looks for it behind whatever follows.
                let line = "#!/usr/bin/env run-singularity\n# more\n";
                check_inside(&image(&behind(line), path), path);
            }
            for line in ["#!/bin/sh\n", "run-singularity\n", "echo run-singularity\n"] {
                let other = verdict(&behind(line), Path::new(path));
                assert!(matches!(other, Verdict::NotImage(_)), "{path}: {line}");
            }
        }
    }
}

/// Of the line the runtimes look for two words alone.
#[test]
fn a_damaged_run_singularity_line() {
    for (bytes, path) in [(SQUASHFS[0].1, "/a/x"), (EXT[1].1, "/a/x.img")] {
        for at in 0..LAUNCH.len() {
            let mut line = LAUNCH.to_vec();
            line[at] ^= 1;
            let found = image(&[&line, bytes].concat(), path);
            if (14..30).contains(&at) {
                let message = format!(
                    "corrupt: the run-singularity line is damaged at offset 14: expected \" run-singularity\", \
                     found \"{}\"",
                    line[14..30].escape_ascii()
                );
                assert_eq!(
                    (found.status, found.status_message),
                    (Status::Failure, message),
                    "{at}"
                );
            } else {
                assert_eq!(found.status, Status::Ready, "{at}");
            }
        }
    }
}

#[test]
fn ext_images() {
    for (kind, bytes) in EXT {
        let bare = image(bytes, "/images/x.img");
        let mut behind = launched(bytes);
        // 2.3 leaves a byte more.
        behind.push(0);
        let behind = image(&behind, "/images/x");
        for found in [&bare, &behind] {
            assert_eq!(
                (found.format, found.file_system),
                (Format::Ext3, Some(kind))
            );
            check_inside(found, kind);
        }
        assert_eq!(bare.image_id, behind.image_id);
        assert!(bare.image_id.is_some() && bare.create_time.is_some());
    }
}

/// Mounting a writable image changes counts and times in its superblock, not the image.
#[test]
fn use_does_not_change_the_identity_of_an_ext_image() {
    let bytes = EXT[1].1.to_vec();
    let mut used = bytes.clone();
    for at in [44, 48, 52, 58, 64] {
        used[1024 + at] ^= 0x55;
    }
    let path = "/images/x.img";
    assert_eq!(image(&used, path).image_id, image(&bytes, path).image_id);
    let mut other = bytes.clone();
    other[1024 + 104] ^= 1;
    assert_ne!(image(&other, path).image_id, image(&bytes, path).image_id);
}

#[test]
fn a_file_system_without_a_container_is_none_whatever_its_name() {
    for bytes in PLAIN {
        for path in ["/a/x.img", "/a/x.sqsh", "/a/x"] {
            let found = verdict(&bytes, Path::new(path));
            assert_eq!(
                found,
                Verdict::NotImage(NotImage::PlainFileSystem),
                "{path}"
            );
        }
        // The line says what it is for.
        assert_eq!(image(&launched(bytes), "/a/x").status, Status::Ready);
    }
}

#[test]
fn a_partition_is_looked_into_only_where_the_header_does_not_answer() {
    let partition = |fs: i32, bytes: &[u8]| Object::partition(fs, 2, b"02", bytes);
    for (fs, bytes) in [
        (1, SQUASHFS[0].1),
        (1, SQUASHFS[1].1),
        (2, EXT[1].1),
        (2, EXT[0].1),
    ] {
        let sif = Sif::new().with(partition(fs, bytes)).bytes();
        check_inside(&image(&sif, "/a/x.sif"), "old");
        let path = Path::new("/a/x.sif");
        let off = Options {
            inside_file_systems: false,
            ..Options::default()
        };
        let Ok(Verdict::Image(unlooked)) = probe(&sif, &subject(path, 60), &off) else {
            panic!("not an image")
        };
        assert!(unlooked.labels.is_empty() && unlooked.bootstrap_history.is_empty());

        let newer = Sif::new()
            .with(Object::new(0x4006, "inspect-metadata.json", INSPECT))
            .with(partition(fs, bytes));
        let newer = image(&newer.bytes(), "/a/x.sif");
        assert!(newer.labels.contains_key("k") && newer.bootstrap_history.is_empty());
    }
    // A definition object goes before the file inside.
    let sif = Sif::new()
        .with(Object::new(0x4001, "", "bootstrap: docker\nfrom: b:1\n"))
        .with(partition(1, SQUASHFS[0].1));
    let found = image(&sif.bytes(), "/a/x.sif");
    assert_eq!(
        found.definition.as_deref(),
        Some("bootstrap: docker\nfrom: b:1\n")
    );
    assert_eq!(found.labels.len(), 3);
}

/// What is said of a READY image with something inside that is not read, and with a journal.
const UNREAD: &str = "labels and definition are not read: ";
const OLD: &str = "the file system is in use or was not unmounted, and its journal is not replayed: labels and \
    definition may be old or missing";

#[test]
fn a_damaged_file_system_is_listed() {
    let images = [
        ("/a/x.sqsh", SQUASHFS[0].1.to_vec()),
        ("/a/x.simg", SQUASHFS[1].1.to_vec()),
        ("/a/x", launched(SQUASHFS[2].1)),
        ("/a/x", launched(&EXT[0].1[..200 << 10])),
        ("/a/x.img", EXT[0].1.to_vec()),
    ];
    for (path, bytes) in images {
        for at in (0..bytes.len().min(8 << 10)).filter(|at| *at < 128 || at % 7 == 0) {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0xFF;
            let found = image(&damaged, path);
            let said = found.status_message.as_str();
            let is_right = match found.status {
                Status::Ready => {
                    let said = said.split("; ").filter(|said| !said.starts_with(REFUSED));
                    let said = said.collect::<Vec<_>>().join("; ");
                    said.is_empty() || said.starts_with(UNREAD) || said == OLD
                }
                _ => !said.is_empty(),
            };
            assert!(is_right, "{path}, {at}: {:?} {said}", found.status);
        }
        for end in (0..bytes.len().min(4 << 10)).chain([bytes.len() - 1]) {
            if path == "/a/x" && end < 31 {
                continue;
            }
            assert_eq!(
                image(&bytes[..end], path).status,
                Status::Failure,
                "{path} cut at {end}"
            );
        }
    }
}

/// The upper half of the block count is something else without the `64bit` feature.
#[test]
fn a_block_count_has_an_upper_half_only_with_its_feature() {
    const SUPERBLOCK: usize = 1024;
    const BLOCKS_COUNT_HIGH: usize = 0x150;
    for (name, bytes) in &EXT[..2] {
        let mut bytes = launched(bytes);
        bytes[LAUNCH.len() + SUPERBLOCK + BLOCKS_COUNT_HIGH] = 0x20;
        check_inside(&image(&bytes, "/a/x"), name);
    }
}

/// What was not unmounted may have in its journal what is missing in its place.
#[test]
fn a_journal_that_is_to_be_replayed_excuses_what_does_not_fit_together() {
    const SUPERBLOCK: usize = 1024;
    const INCOMPATIBLE: usize = 0x60;
    const RECOVER: u8 = 4;
    const INODE_TABLE: usize = 2048 + 8;
    let mut bytes = launched(EXT[1].1);
    let table = LAUNCH.len() + INODE_TABLE;
    bytes[LAUNCH.len() + SUPERBLOCK + INCOMPATIBLE] |= RECOVER;
    let whole = image(&bytes, "/a/x");
    check_inside(&whole, "whole");
    assert_eq!(whole.status_message, OLD);
    bytes[table..table + 4].fill(0xFF);
    let excused = image(&bytes, "/a/x");
    assert_eq!((excused.status, excused.labels.len()), (Status::Ready, 0));
    assert_eq!(
        excused.status_message,
        format!(
            "{UNREAD}ext file system with what is not read here: a journal that is to be replayed"
        )
    );
    bytes[LAUNCH.len() + SUPERBLOCK + INCOMPATIBLE] &= !RECOVER;
    let damaged = image(&bytes, "/a/x");
    assert_eq!(damaged.status, Status::Failure);
    assert_eq!(
        damaged.status_message,
        "corrupt: ext inode at byte 4398046510367 leads outside or makes no sense"
    );
}

/// Descriptors that lie elsewhere (`meta_bg`), names with data behind them (`dirdata`) and what is not known yet
/// are not read; groups that lie together (`flex_bg`) make no difference.
#[test]
fn a_feature_that_is_not_known_is_not_damage() {
    for (feature, is_read) in [
        (0x1, false),
        (0x8, false),
        (0x10, false),
        (0x100, true),
        (0x200, true),
        (0x400, true),
        (0x800, false),
        (0x1000, false),
        (0x2000, true),
        (0x4000, true),
        (0x8000, true),
        (0x1_0000, true),
        (0x2_0000, true),
        (0x4_0000, false),
        (1 << 31, false),
    ] {
        let mut bytes = launched(EXT[1].1);
        let at = LAUNCH.len() + 1024 + 0x60;
        let known = u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four"));
        bytes[at..at + 4].copy_from_slice(&(known | feature).to_le_bytes());
        let found = image(&bytes, "/a/x");
        assert_eq!(found.status, Status::Ready, "{feature:#x}");
        assert_eq!(!found.labels.is_empty(), is_read, "{feature:#x}");
        assert_eq!(
            !found.status_message.contains(UNREAD),
            is_read,
            "{}",
            found.status_message
        );
    }
}
