//! What a signature states, against what is in the file.

use std::io;

use serde::Deserialize;
use sha2::{Digest, Sha256, Sha384, Sha512};
use zerocopy::IntoBytes;

use super::Outcome;
use crate::read_at::ReadAt;
use crate::record::Link;
use crate::sif::{RawDescriptor, Sif, data_type, hash_name};

/// Bytes hashed at a time.
const CHUNK: usize = 256 << 10;

/// `metadata.go: imageMetadata`.
#[derive(Deserialize)]
struct ImageMetadata {
    version: u32,
    header: HeaderMetadata,
    #[serde(default)]
    objects: Vec<ObjectMetadata>,
}

#[derive(Deserialize)]
struct HeaderMetadata {
    digest: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ObjectMetadata {
    relative_id: u32,
    descriptor_digest: String,
    object_digest: String,
}

/// Compares the digests of header, descriptors and objects (`metadata.go: imageMetadata.matches`).
pub(super) fn compare(
    file: &dyn ReadAt,
    sif: &Sif,
    signature: &RawDescriptor,
    text: &str,
) -> io::Result<Result<(), Outcome>> {
    let metadata: ImageMetadata = match serde_json::from_str(text) {
        Ok(metadata) => metadata,
        Err(error) => return Ok(altered(format!("the signed text is not valid: {error}"))),
    };
    if metadata.version != 1 {
        let why = format!(
            "version {} of the signed text is not known",
            metadata.version
        );
        return Ok(Err(Outcome::Rejected { why }));
    }
    let header = &sif.header;
    let parts: [&[u8]; 4] = [&header.launch, &header.magic, &header.version, &header.uuid];
    if let Err(outcome) = matches(&metadata.header.digest, &parts, "the global header") {
        return Ok(Err(outcome));
    }
    let Some((group, covered)) = covered(sif, signature) else {
        return Ok(altered(
            "the signed group or object is not in the file".to_owned(),
        ));
    };
    let Some(first) = in_group(sif, group).map(|object| object.id.get()).min() else {
        return Ok(altered(format!("group {group} is empty")));
    };
    for stated in &metadata.objects {
        let id = first.checked_add(stated.relative_id);
        if !in_group(sif, group).any(|object| Some(object.id.get()) == id) {
            return Ok(altered(format!(
                "object {} was signed and is no longer in group {group}",
                u64::from(first) + u64::from(stated.relative_id)
            )));
        }
    }
    for object in covered {
        let id = object.id.get();
        let relative = id.checked_sub(first);
        let stated = metadata
            .objects
            .iter()
            .find(|stated| Some(stated.relative_id) == relative);
        let Some(stated) = stated else {
            return Ok(altered(format!(
                "object {id} is in group {group} and was not signed"
            )));
        };
        let what = format!("the descriptor of object {id}");
        let relative = stated.relative_id.to_le_bytes();
        // `descriptor.go: GetIntegrityReader`.
        let parts: [&[u8]; 10] = [
            object.data_type.as_bytes(),
            &[object.used],
            &relative,
            object.link.as_bytes(),
            object.size.as_bytes(),
            object.created.as_bytes(),
            object.uid.as_bytes(),
            object.gid.as_bytes(),
            &object.name,
            &object.extra,
        ];
        if let Err(outcome) = matches(&stated.descriptor_digest, &parts, &what) {
            return Ok(Err(outcome));
        }
        let Some(hash) = Hash::named(&stated.object_digest) else {
            return Ok(unknown_hash(&stated.object_digest));
        };
        if hash.of_objects(file, &[object])? != hexadecimal(&stated.object_digest) {
            return Ok(altered(format!("object {id}")));
        }
    }
    Ok(Ok(()))
}

/// Compares the digest of a legacy signature: `SIFHASH:` and the hash, of the kind that the
/// descriptor names, of one object or of all of a group (`digest.go: newLegacyDigest`).
pub(super) fn compare_legacy(
    file: &dyn ReadAt,
    sif: &Sif,
    signature: &RawDescriptor,
    text: &str,
) -> io::Result<Result<(), Outcome>> {
    let Some((_, covered)) = covered(sif, signature) else {
        return Ok(altered(
            "the signed group or object is not in the file".to_owned(),
        ));
    };
    let Some(hash) = Hash::of_descriptor(signature) else {
        return Ok(unknown_hash(hash_name(signature.hash_type())));
    };
    let stated = text
        .trim()
        .strip_prefix("SIFHASH:")
        .unwrap_or_default()
        .trim();
    if hash.of_objects(file, &covered)? == stated.to_ascii_lowercase() {
        return Ok(Ok(()));
    }
    let ids: Vec<_> = covered
        .iter()
        .map(|object| object.id.get().to_string())
        .collect();
    Ok(altered(format!("object {}", ids.join(" or "))))
}

/// The group that is signed, and the objects of it that the signature is to cover.
fn covered<'s>(sif: &'s Sif, signature: &RawDescriptor) -> Option<(u32, Vec<&'s RawDescriptor>)> {
    match signature.link()? {
        Link::Group(group) => Some((group, in_group(sif, group).collect())),
        Link::Object(id) => {
            let object = sif
                .descriptors
                .iter()
                .map(|(_, object)| object)
                .find(|object| object.id.get() == id)?;
            Some((object.group_id().unwrap_or_default(), vec![object]))
        }
    }
}

/// The objects of a group, signatures left out (`select.go: getGroupObjects`).
fn in_group(sif: &Sif, group: u32) -> impl Iterator<Item = &RawDescriptor> {
    sif.descriptors
        .iter()
        .map(|(_, object)| object)
        .filter(move |object| {
            object.data_type.get() != data_type::SIGNATURE
                && object.group_id().unwrap_or_default() == group
        })
}

fn altered(what: String) -> Result<(), Outcome> {
    Err(Outcome::Altered { what })
}

fn unknown_hash(digest: &str) -> Result<(), Outcome> {
    let name = digest.split(':').next().unwrap_or_default();
    Err(Outcome::Rejected {
        why: format!("a hash that is not supported: {name}"),
    })
}

fn hexadecimal(digest: &str) -> String {
    digest
        .split_once(':')
        .map_or("", |(_, hex)| hex)
        .to_ascii_lowercase()
}

fn matches(digest: &str, parts: &[&[u8]], what: &str) -> Result<(), Outcome> {
    let Some(hash) = Hash::named(digest) else {
        return unknown_hash(digest);
    };
    if hash.of_parts(parts) == hexadecimal(digest) {
        Ok(())
    } else {
        altered(what.to_owned())
    }
}

/// The hashes that signatures use; SHA-2 is all that apptainer writes.
#[derive(Clone, Copy)]
enum Hash {
    Sha256,
    Sha384,
    Sha512,
}

impl Hash {
    fn named(digest: &str) -> Option<Self> {
        match digest.split_once(':')?.0 {
            "sha256" => Some(Self::Sha256),
            "sha384" => Some(Self::Sha384),
            "sha512" => Some(Self::Sha512),
            _ => None,
        }
    }

    fn of_descriptor(signature: &RawDescriptor) -> Option<Self> {
        match signature.hash_type() {
            1 => Some(Self::Sha256),
            2 => Some(Self::Sha384),
            3 => Some(Self::Sha512),
            _ => None,
        }
    }

    fn of_parts(self, parts: &[&[u8]]) -> String {
        fn hash<D: Digest>(parts: &[&[u8]]) -> String {
            let mut hash = D::new();
            parts.iter().for_each(|part| hash.update(part));
            hex::encode(hash.finalize())
        }
        match self {
            Self::Sha256 => hash::<Sha256>(parts),
            Self::Sha384 => hash::<Sha384>(parts),
            Self::Sha512 => hash::<Sha512>(parts),
        }
    }

    fn of_objects(self, file: &dyn ReadAt, objects: &[&RawDescriptor]) -> io::Result<String> {
        fn hash<D: Digest>(file: &dyn ReadAt, objects: &[&RawDescriptor]) -> io::Result<String> {
            let mut hash = D::new();
            let mut buffer = vec![0; CHUNK];
            for object in objects {
                let Some((mut offset, mut left)) = object.range() else {
                    continue;
                };
                while left > 0 {
                    let length = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
                    let chunk = &mut buffer[..length];
                    file.read_exact_at(chunk, offset)?;
                    hash.update(&*chunk);
                    offset += length as u64;
                    left -= length as u64;
                }
            }
            Ok(hex::encode(hash.finalize()))
        }
        match self {
            Self::Sha256 => hash::<Sha256>(file, objects),
            Self::Sha384 => hash::<Sha384>(file, objects),
            Self::Sha512 => hash::<Sha512>(file, objects),
        }
    }
}
