//! What a file is by its first bytes.
//!
//! Damage must not make an image vanish: one wrong byte anywhere, or an end anywhere, still leaves
//! enough to know it by, at least under the name of an image. A name alone never makes one.

use crate::ext::{self, RawExtSuperblock};
use crate::limits;
use crate::record::Format;
use crate::sif::{MAGIC, MAGIC_OFFSET};
use crate::squashfs::{self, RawSuperblock};

/// What every Singularity has put before its payload (2.x `src/lib/image/image.h: LAUNCH_STRING`,
/// apptainer `internal/pkg/build/assemblers/sif.go`).
pub(crate) const LAUNCH: &[u8; 31] = b"#!/usr/bin/env run-singularity\n";

/// What the runtimes know the line by.
const RUN: &[u8; 16] = b" run-singularity";

/// How far into the file 2.x looks for a squashfs (`src/lib/image/squashfs/init.c`).
const SEARCH: usize = 1024;

/// Zeros at the beginning of a file that is to become an image: the header is written last.
const ZEROS: usize = 4096;

/// What a file is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The magic of a SIF is there.
    Sif,
    /// A squashfs at `payload`; `launch` with the line before it.
    Squashfs { payload: u64, launch: bool },
    /// An ext file system at `payload`.
    Ext { payload: u64, launch: bool },
    /// The beginning of an image, or zeros under an image's name.
    Incomplete { format: Format, message: String },
    /// An image beyond doubt, but not one that can be read.
    Damaged { format: Format, message: String },
    /// Something else.
    Other,
}

/// Decides by `head`, the first bytes of a file of `size` bytes.
pub(crate) fn sniff(head: &[u8], size: u64, image_name: bool) -> Kind {
    let at = |offset: usize| head.get(offset..).unwrap_or_default();
    if at(MAGIC_OFFSET).starts_with(MAGIC) {
        return Kind::Sif;
    }
    let launch = differences(head, LAUNCH).is_some_and(|(count, _)| count <= 2);
    if let Some(kind) = payload_at(head, LAUNCH.len(), launch, false) {
        return match kind {
            Kind::Squashfs { .. } if launch => damaged_launch(head, Format::Squashfs),
            Kind::Ext { .. } if launch => damaged_launch(head, Format::Ext3),
            _ => None,
        }
        .unwrap_or(kind);
    }
    if let Some(kind) = payload_at(head, 0, false, image_name) {
        return kind;
    }
    if let Some(payload) = other_launch(head)
        && let Some(kind) = payload_at(head, payload, true, false)
    {
        return kind;
    }
    if launch && let Some(payload) = search_squashfs(head) {
        return Kind::Squashfs {
            payload: payload as u64,
            launch,
        };
    }
    if let Some((count @ 1..=2, first)) = differences(at(MAGIC_OFFSET), MAGIC) {
        return damaged_magic(head, first, count);
    }
    if launch {
        return launch_alone(head, size);
    }
    if image_name {
        by_name(head, size)
    } else {
        Kind::Other
    }
}

/// A file system at `payload`, 31 or 0. Without the line before it, or the name, two bytes of magic
/// are not enough to know an ext file system by.
fn payload_at(head: &[u8], payload: usize, launch: bool, image_name: bool) -> Option<Kind> {
    let bytes = head.get(payload..).unwrap_or_default();
    if bytes.starts_with(squashfs::MAGIC)
        && (launch || payload == 0 || squashfs_is_plausible(bytes, 0))
    {
        return Some(Kind::Squashfs {
            payload: payload as u64,
            launch,
        });
    }
    let superblock = RawExtSuperblock::read(bytes)?;
    let right = superblock.has_magic() && (launch || image_name || superblock.is_plausible());
    right.then_some(Kind::Ext {
        payload: payload as u64,
        launch,
    })
}

/// Where the first line ends, if it runs the file with `run-singularity` by another way than [`LAUNCH`]. The
/// runtimes ask for no more (apptainer `pkg/image/squashfs.go: parseSquashfsHeader`).
fn other_launch(head: &[u8]) -> Option<usize> {
    let line = head
        .get(..SEARCH.min(head.len()))?
        .split(|byte| *byte == b'\n')
        .next()?;
    let is_launch = line.starts_with(b"#!") && line.ends_with(RUN);
    is_launch.then_some(line.len() + 1)
}

/// A squashfs behind a launch script of another length.
fn search_squashfs(head: &[u8]) -> Option<usize> {
    head.get(..SEARCH.min(head.len()))?
        .windows(squashfs::MAGIC.len())
        .position(|window| window == squashfs::MAGIC)
}

/// Whether a superblock with at most `wrong` wrong bytes in its magic is otherwise right.
fn squashfs_is_plausible(bytes: &[u8], wrong: usize) -> bool {
    let Some(mut superblock) = RawSuperblock::read(bytes) else {
        return false;
    };
    let off = superblock
        .magic
        .iter()
        .zip(squashfs::MAGIC)
        .filter(|(a, b)| a != b)
        .count();
    superblock.magic = *squashfs::MAGIC;
    off <= wrong && superblock.check(0, u64::MAX).is_ok()
}

/// The line without the words that the runtimes look for: to them the file system does not begin where it does
/// (apptainer `pkg/image/image.go: launchString`). Damage to the rest of it does not matter.
fn damaged_launch(head: &[u8], format: Format) -> Option<Kind> {
    let words = LAUNCH.len() - RUN.len() - 1..LAUNCH.len() - 1;
    let found = head.get(words.clone()).filter(|found| found != RUN)?;
    Some(Kind::Damaged {
        format,
        message: format!(
            "corrupt: the run-singularity line is damaged at offset {}: expected \"{}\", found \"{}\"",
            words.start,
            RUN.escape_ascii(),
            found.escape_ascii()
        ),
    })
}

fn damaged_magic(head: &[u8], first: usize, count: usize) -> Kind {
    let error = crate::error::SifError::MagicDamaged {
        offset: (MAGIC_OFFSET + first) as u64,
        expected: MAGIC.get(first).copied().unwrap_or_default(),
        found: head.get(MAGIC_OFFSET + first).copied().unwrap_or_default(),
    };
    let more = if count > 1 {
        " (and one more byte)"
    } else {
        ""
    };
    Kind::Damaged {
        format: Format::Sif,
        message: format!("{error}{more}"),
    }
}

/// The line, and nothing known behind it.
fn launch_alone(head: &[u8], size: u64) -> Kind {
    let rest = head.get(LAUNCH.len()..).unwrap_or_default();
    if squashfs_is_plausible(rest, 1) {
        return damaged_squashfs(rest, LAUNCH.len());
    }
    if RawExtSuperblock::read(rest).is_some_and(|superblock| superblock.is_plausible()) {
        return damaged_ext(rest, LAUNCH.len());
    }
    // Too short for the magic of whichever format its first bytes may become.
    let zeros = rest
        .iter()
        .take(ext::SUPERBLOCK_OFFSET)
        .all(|byte| *byte == 0);
    let sif = match rest {
        [] => true,
        [0, magic @ ..] => MAGIC.starts_with(magic),
        _ => false,
    };
    let format = if sif {
        Some(Format::Sif)
    } else if squashfs::MAGIC.starts_with(rest) {
        Some(Format::Squashfs)
    } else if zeros && size < (LAUNCH.len() + ext::SUPERBLOCK_END) as u64 {
        Some(Format::Ext3)
    } else {
        None
    };
    match format {
        Some(format) => Kind::Incomplete {
            format,
            message: format!(
                "truncated: expected a SIF, squashfs or ext header behind the run-singularity line, but the file has {size} bytes"
            ),
        },
        None => Kind::Damaged {
            format: Format::Sif,
            message: "corrupt: expected a SIF magic at byte 32, or a squashfs or ext file system at byte 31, \
                      behind the run-singularity line, found neither"
                .to_owned(),
        },
    }
}

/// What is known only because the file has the name of an image.
fn by_name(head: &[u8], size: u64) -> Kind {
    let zeros = head
        .iter()
        .take(ZEROS)
        .take_while(|byte| **byte == 0)
        .count();
    if size == 0 {
        return Kind::Incomplete {
            format: Format::Sif,
            message: "truncated: the file is empty".to_owned(),
        };
    }
    if zeros == head.len().min(ZEROS) {
        return Kind::Incomplete {
            format: Format::Sif,
            message: format!("incomplete: expected a header at byte 0, found {zeros} zero bytes"),
        };
    }
    if squashfs_is_plausible(head, 1) {
        return damaged_squashfs(head, 0);
    }
    if zeros >= ext::SUPERBLOCK_OFFSET {
        if size < ext::SUPERBLOCK_END as u64 {
            return Kind::Incomplete {
                format: Format::Ext3,
                message: format!(
                    "truncated: the ext superblock ends at byte 2048 but the file has {size}"
                ),
            };
        }
        if RawExtSuperblock::read(head).is_some_and(|superblock| superblock.is_plausible()) {
            return damaged_ext(head, 0);
        }
    }
    if squashfs::MAGIC.starts_with(head) {
        return Kind::Incomplete {
            format: Format::Squashfs,
            message: format!(
                "truncated: the squashfs superblock ends at byte {} but the file has {size}",
                squashfs::SUPERBLOCK_LEN
            ),
        };
    }
    if may_become_image(head) {
        return Kind::Incomplete {
            format: Format::Sif,
            message: format!("truncated: the SIF header ends at byte 128 but the file has {size}"),
        };
    }
    Kind::Other
}

/// Whether a file is how an image may begin, and no more: a launch script or NULs, and after 32 bytes as much of
/// the magic as there is. One with the whole of it is known by that.
fn may_become_image(head: &[u8]) -> bool {
    let (launch, magic) = head.split_at(head.len().min(MAGIC_OFFSET));
    let mut text = launch.splitn(2, |byte| *byte == b'\n');
    let line = text.next().unwrap_or_default();
    let script = (line == b"#" || line.starts_with(b"#!"))
        && line.iter().all(|byte| (b' '..=b'~').contains(byte))
        && text
            .next()
            .unwrap_or_default()
            .iter()
            .all(|byte| *byte == 0);
    let empty = launch.iter().all(|byte| *byte == 0);
    (script || empty) && MAGIC.starts_with(magic)
}

fn damaged_squashfs(bytes: &[u8], payload: usize) -> Kind {
    let magic = bytes.get(..4).unwrap_or_default();
    Kind::Damaged {
        format: Format::Squashfs,
        message: format!(
            "corrupt: magic damaged at offset {payload}: expected hsqs, found {}",
            magic.escape_ascii()
        ),
    }
}

fn damaged_ext(bytes: &[u8], payload: usize) -> Kind {
    let offset = (payload + ext::MAGIC_END - 2) as u64;
    let found = RawExtSuperblock::read(bytes).map_or(0, |superblock| superblock.magic.get());
    let error = crate::error::ExtError::Magic { offset, found };
    Kind::Damaged {
        format: Format::Ext3,
        message: format!("corrupt: {error}"),
    }
}

/// How many bytes of `head` differ from `expected`, and which is the first; `None` if it is
/// shorter.
fn differences(head: &[u8], expected: &[u8]) -> Option<(usize, usize)> {
    let head = head.get(..expected.len())?;
    let mut wrong = head
        .iter()
        .zip(expected)
        .enumerate()
        .filter(|(_, (a, b))| a != b);
    let first = wrong.next();
    Some((
        usize::from(first.is_some()) + wrong.count(),
        first.map_or(0, |(index, _)| index),
    ))
}

const _: () = assert!(limits::HEAD >= LAUNCH.len() + ext::SUPERBLOCK_OFFSET + 1024);
const _: () = assert!(limits::HEAD >= ZEROS);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_wrong_bytes_are_damage_and_three_are_something_else() {
        for wrong in 0..=3 {
            let mut line = LAUNCH.to_vec();
            line[2..2 + wrong].fill(b'?');
            let kind = sniff(&line, line.len() as u64, false);
            let known = matches!(kind, Kind::Incomplete { .. });
            assert_eq!(known, wrong <= 2, "{wrong} of the line: {kind:?}");

            let mut header = [&[0; MAGIC_OFFSET], &MAGIC[..]].concat();
            header[MAGIC_OFFSET..][..wrong].fill(b'?');
            let kind = sniff(&header, 4096, false);
            let known = match wrong {
                0 => kind == Kind::Sif,
                1 | 2 => matches!(kind, Kind::Damaged { .. }),
                _ => kind == Kind::Other,
            };
            assert!(known, "{wrong} of the magic: {kind:?}");
        }
    }
}
