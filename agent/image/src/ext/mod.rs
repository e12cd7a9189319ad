//! ext2, ext3 and ext4 images: Singularity 2 made them, and 2.4 and later with `--writable`.
//!
//! Source: 2.x `src/lib/image/ext3/init.c`, `src/lib/image/create/create.c`.

mod superblock;

use std::io;

use sha2::{Digest, Sha256};

pub(crate) use superblock::{MAGIC_END, RawExtSuperblock, SUPERBLOCK_OFFSET};

use crate::error::ExtError;
use crate::probe::{Context, Found, NotImage};
use crate::record::{Format, Image, ImageId, TimeSource};
use crate::sif::timestamp;
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
    let listed = launch || context.has_image_name();
    let start = usize::try_from(payload).unwrap_or(usize::MAX);
    let bytes = windows.head().get(start..).unwrap_or_default();
    let Some(superblock) = RawExtSuperblock::read(bytes) else {
        return Ok(Err(NotImage::OtherContent));
    };
    let mut image = Image::blank(Format::Ext3);
    image.format_version = superblock.revision.get().to_string();
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

    let end = superblock.size().and_then(|size| payload.checked_add(size));
    match end {
        Some(end) if end > windows.size() => {
            let error = ExtError::Truncated { end, size: windows.size() };
            context.fail(&mut image, &format!("truncated: {error}"), true);
            return Ok(if listed { Ok(Found::plain(image)) } else { Err(NotImage::PlainFileSystem) });
        }
        _ => {}
    }
    Ok(Ok(Found::plain(image)))
}
