//! ext2, ext3 and ext4 images: Singularity 2 made them, and 2.4 and later with `--writable`.
//!
//! Source: 2.x `src/lib/image/ext3/init.c`, `src/lib/image/create/create.c`.

mod pages;
mod superblock;
mod tree;

use std::io;

use sha2::{Digest, Sha256};

pub(crate) use superblock::{MAGIC_END, RawExtSuperblock, SUPERBLOCK_END, SUPERBLOCK_OFFSET};
pub(crate) use tree::ExtTree;

use crate::container;
use crate::context::{Context, Found, NotImage};
use crate::error::ExtError;
use crate::record::{Format, Image, ImageId, TimeSource};
use crate::timestamp::timestamp;
use crate::window::Windows;

/// Makes an image of a file with an ext superblock, if there is a container inside.
///
/// Identity: SHA-256 over UUID, hash seed and creation time of the superblock, which neither use
/// nor growth of a writable image changes.
pub(crate) fn probe(
    windows: &mut Windows<'_>,
    payload: u64,
    launch: bool,
    context: &Context<'_>,
) -> io::Result<Result<Found, NotImage>> {
    let start = usize::try_from(payload).unwrap_or(usize::MAX);
    let bytes = windows.head().get(start..).unwrap_or_default();
    let Some(superblock) = RawExtSuperblock::read(bytes) else {
        return Ok(Err(NotImage::OtherContent));
    };
    let mut image = Image::blank(Format::Ext3);
    image.format_version = superblock.revision.get().to_string().into();
    image.file_system = Some(superblock.name());
    image.create_time = timestamp(superblock.made());
    image.update_time = timestamp(i64::from(superblock.write_time.get()));
    if image.update_time.is_some() {
        image.update_time_source = TimeSource::Header;
    }
    let mut hash = Sha256::new();
    hash.update(b"sifter ext\0");
    hash.update(superblock.identity());
    image.image_id = Some(ImageId(hash.finalize().into()));

    let room = windows.size().saturating_sub(payload);
    if let Err(error) = superblock.check(payload, room) {
        let incomplete = matches!(error, ExtError::Truncated { .. });
        return Ok(context.unsound(image, &error, incomplete, launch));
    }
    if let Some(refusal) = superblock.refusal() {
        image.note_refusal(&refusal);
    }
    if launch && !context.options.inside_file_systems {
        return Ok(Ok(Found::plain(image)));
    }
    let tree = ExtTree::open(windows.file(), payload, windows.size(), &superblock);
    let looked = match tree {
        Ok(tree) => container::look(&tree, &image, true)?,
        Err(error) => Err(error.into()),
    };
    if superblock.needs_recovery() && looked.is_ok() {
        image.note(
            "the file system is in use or was not unmounted, and its journal is not replayed: labels and \
             definition may be old or missing",
        );
    }
    Ok(context.judge(image, looked, launch))
}

/// The tree of an ext file system in the `size` bytes at `offset` of a file; `None` if it cannot be one, or
/// has features that are not read here.
pub(crate) fn tree_at<'f>(
    windows: &Windows<'f>,
    offset: u64,
    size: u64,
) -> io::Result<Option<ExtTree<'f>>> {
    let mut bytes = [0; SUPERBLOCK_END];
    windows.copy(&mut bytes, offset)?;
    let end = offset.saturating_add(size);
    Ok(RawExtSuperblock::read(&bytes)
        .filter(|superblock| superblock.check(offset, size).is_ok())
        .and_then(|superblock| ExtTree::open(windows.file(), offset, end, &superblock).ok()))
}
