//! Sandbox directories: a container's root, unpacked.
//!
//! A directory with `.singularity.d` is one (2.3 and later), and one with the files of 2.0 to 2.2 in
//! its root. It has no header: the time is the directory's own.
//!
//! Identity: SHA-256 over names, lengths and contents of [`IDENTITY`], files that are not there
//! left out. It tells builds apart by what they say of themselves, not by their content; where
//! none of the files says anything, there is no identity, for then any two would share it.

use std::io;

use sha2::{Digest, Sha256};

use crate::container;
use crate::context::{Found, NotImage};
use crate::limits;
use crate::read_at::ReadTree;
use crate::record::{Format, Image, ImageId};

/// The files that tell one sandbox from another. The rest of `.singularity.d` is the same in all
/// of a release.
const IDENTITY: [&str; 8] = [
    ".singularity.d/labels.json",
    ".singularity.d/Singularity",
    ".singularity.d/runscript",
    ".singularity.d/env/10-docker2singularity.sh",
    ".singularity.d/env/10-docker.sh",
    ".singularity.d/env/90-environment.sh",
    "singularity",
    "etc/os-release",
];

/// Makes an image of a directory, if it is one.
pub(crate) fn probe(tree: &dyn ReadTree) -> io::Result<Result<Found, NotImage>> {
    let mut image = Image::blank(Format::Sandbox);
    let Some(container) = container::read(tree, &image, true)? else {
        return Ok(Err(NotImage::OtherContent));
    };
    image.image_id = identity(tree)?;
    container.fill(&mut image);
    Ok(Ok(Found::plain(image)))
}

fn identity(tree: &dyn ReadTree) -> io::Result<Option<ImageId>> {
    let mut hash = Sha256::new();
    hash.update(b"sifter sandbox\0");
    let mut said = false;
    for path in IDENTITY {
        let Some(bytes) = tree.read(path, limits::DEFINITION_MAX)? else {
            continue;
        };
        said |= !bytes.trim_ascii().is_empty();
        hash.update(path.as_bytes());
        hash.update([0]);
        hash.update((bytes.len() as u64).to_le_bytes());
        hash.update(&bytes);
    }
    Ok(said.then(|| ImageId(hash.finalize().into())))
}
