//! squashfs: the superblock for the listing, and single files from inside.

mod block;
mod blocks;
mod superblock;
#[cfg(test)]
mod tests;
mod tree;

use std::io;

use sha2::{Digest, Sha256};
use zerocopy::IntoBytes;

pub(crate) use superblock::{MAGIC, RawSuperblock, SUPERBLOCK_LEN};
pub(crate) use tree::SquashfsTree;

use crate::container;
use crate::context::{Context, Found, NotImage};
use crate::error::SquashfsError;
use crate::record::{Format, Image, ImageId, TimeSource};
use crate::timestamp::timestamp;
use crate::window::Windows;

/// Makes an image of a file with a squashfs, if there is a container inside.
///
/// Identity: SHA-256 over the superblock, which has the time it was made, the counts and the
/// places of all tables.
pub(crate) fn probe(
    windows: &mut Windows<'_>,
    payload: u64,
    launch: bool,
    context: &Context<'_>,
) -> io::Result<Result<Found, NotImage>> {
    let mut image = Image::blank(Format::Squashfs);
    image.file_system = Some("squashfs");
    let start = usize::try_from(payload).unwrap_or(usize::MAX);
    let Some(superblock) = RawSuperblock::read(windows.head().get(start..).unwrap_or_default())
    else {
        let end = payload.saturating_add(SUPERBLOCK_LEN as u64);
        let error = SquashfsError::Truncated {
            end,
            size: windows.size(),
        };
        return Ok(context.unsound(image, &error, true, launch));
    };
    image.format_version = compact_str::format_compact!(
        "{}.{}",
        superblock.version_major.get(),
        superblock.version_minor.get()
    );
    image.compressor = superblock.compressor_name();
    image.create_time = timestamp(i64::from(superblock.mkfs_time.get()));
    image.update_time = image.create_time;
    if image.update_time.is_some() {
        image.update_time_source = TimeSource::Header;
    }
    let mut hash = Sha256::new();
    hash.update(b"sifter squashfs\0");
    hash.update(superblock.as_bytes());
    image.image_id = Some(ImageId(hash.finalize().into()));

    if let Err(error) = superblock.check(payload, windows.size().saturating_sub(payload)) {
        let incomplete = matches!(error, SquashfsError::Truncated { .. });
        return Ok(context.unsound(image, &error, incomplete, launch));
    }
    if launch && !context.options.inside_file_systems {
        return Ok(Ok(Found::plain(image)));
    }
    let tree = SquashfsTree::open(windows.file(), payload, superblock);
    let looked = match &tree {
        Ok(tree) => container::look(tree, &image, true)?,
        Err(error) => Err(error.clone().into()),
    };
    Ok(context.judge(image, looked, launch))
}

/// The tree of a squashfs in the `size` bytes at `offset` of a file; `None` if it cannot be one, or
/// has a compressor that is not read here.
pub(crate) fn tree_at<'f>(
    windows: &Windows<'f>,
    offset: u64,
    size: u64,
) -> io::Result<Option<SquashfsTree<'f>>> {
    let mut bytes = [0; SUPERBLOCK_LEN];
    windows.copy(&mut bytes, offset)?;
    Ok(RawSuperblock::read(&bytes)
        .filter(|superblock| superblock.check(offset, size).is_ok())
        .and_then(|superblock| SquashfsTree::open(windows.file(), offset, superblock).ok()))
}
