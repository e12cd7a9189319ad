//! From a SIF to an [`Image`]: which objects are read, in how few reads, and what they say.
//!
//! Empty containers (`sif new`) and those with data objects alone are SIF files like any other:
//! listed, and READY. Reproducible containers have no UUID; their identity takes in the metadata
//! objects. A metadata object that is not valid JSON leaves the image READY, with what could be
//! read: the runtimes do not look at it.

use std::io;

use compact_str::CompactString;
use smallvec::SmallVec;

use crate::context::{Context, Found};
use crate::held::Held;
use crate::limits;
use crate::metadata;
use crate::record::{
    Encryption, Format, Image, ImageId, ObjectData, Signature, SignatureForm, TimeSource,
};
use crate::reference;
use crate::timestamp::timestamp;
use crate::window::Windows;

use super::{RawDescriptor, Sif, arch_name, data_type, fs_type, inside, type_name};
use crate::error::SifError;

const INSPECT_METADATA: &[u8] = b"inspect-metadata.json";
const OCI_CONFIG: &[u8] = b"oci-config.json";

/// Makes an image of a file that has the magic of a SIF.
pub(crate) fn probe(windows: &mut Windows<'_>, context: &Context<'_>) -> io::Result<Found> {
    let mut found = Found::plain(Image::blank(Format::Sif));
    let Some(sif) = super::parse(windows)? else {
        let error = SifError::HeaderTruncated {
            size: windows.size(),
        };
        context.fail(&mut found.image, error.to_string(), true);
        return Ok(found);
    };
    describe(&sif, &mut found.image);
    let mut error = sif.error.clone();

    if sif.complete_table && sif.of_type(data_type::OCI_ROOT_INDEX).next().is_some() {
        found.image.format = Format::OciSif;
        if let Err(oci) = crate::oci::read(windows, &sif, &mut found)? {
            error.get_or_insert(oci.into());
        }
        read_wanted(windows, &sif, std::iter::empty())?;
        classify_signatures(windows, &sif, &mut found.image);
    } else if sif.complete_table {
        let partition = read_objects(windows, &sif, context, &mut found)?;
        if let Some(partition) = partition {
            error.get_or_insert(partition);
        }
        if let Some(refusal) = super::refusal::of(windows, &sif) {
            found.image.note_refusal(&refusal);
        }
    }
    if let Some(error) = error {
        context.fail(&mut found.image, error.to_string(), error.is_truncation());
    }
    Ok(found)
}

/// What header and descriptors alone say.
fn describe(sif: &Sif, image: &mut Image) {
    let header = &sif.header;
    image.format_version = CompactString::from_utf8_lossy(header.version_text());
    image.uuid = header.uuid();
    image.arch = CompactString::const_new(arch_name(&header.arch));
    image.create_time = timestamp(header.created.get());
    image.update_time = timestamp(header.modified.get());
    if image.update_time.is_some() {
        image.update_time_source = TimeSource::Header;
    }
    image.objects = sif
        .descriptors
        .iter()
        .map(|(slot, descriptor)| descriptor.to_object(*slot))
        .collect();
    if let Some((file_system, _)) = sif.primary().and_then(RawDescriptor::partition) {
        image.encryption = match file_system {
            fs_type::ENCRYPTED_SQUASHFS => Encryption::Luks2,
            fs_type::GOCRYPTFS_SQUASHFS => Encryption::Gocryptfs,
            _ => Encryption::None,
        };
    }
    for object in &image.objects {
        match &object.data {
            ObjectData::Partition {
                file_system,
                partition_type: "primary-system",
                ..
            } if image.file_system.is_none() => {
                image.file_system = Some(file_system);
            }
            ObjectData::Sbom { format } if image.sbom.is_none() => image.sbom = Some(format),
            ObjectData::Signature {
                hash_type,
                fingerprint,
            } if image.signatures.len() < limits::SIGNATURES_MAX => {
                image.signatures.push(Signature {
                    object_id: object.id,
                    form: SignatureForm::Unknown,
                    fingerprint: fingerprint.clone(),
                    signed: object.link,
                    hash_type,
                })
            }
            _ => {}
        }
    }
}

/// A part of the file that is wanted.
#[derive(Debug, Clone, Copy)]
struct Want {
    offset: u64,
    length: u64,
    /// An optional part is only read where that costs no further read.
    required: bool,
}

/// Which objects answer for labels and definition.
struct Chosen<'s> {
    definition: Option<&'s RawDescriptor>,
    inspect: Option<&'s RawDescriptor>,
    labels: Option<&'s RawDescriptor>,
    oci_config: Option<&'s RawDescriptor>,
}

impl<'s> Chosen<'s> {
    fn of(sif: &'s Sif) -> Self {
        Self {
            definition: sif.of_type(data_type::DEFFILE).next(),
            inspect: sif.json_named(INSPECT_METADATA),
            labels: sif.of_type(data_type::LABELS).next(),
            oci_config: sif.json_named(OCI_CONFIG),
        }
    }

    /// Whether the header answers for the labels, so that no file system is looked into for them.
    fn answers(&self) -> bool {
        self.inspect.is_some() || self.labels.is_some()
    }

    /// The objects that are read. `oci-config.json` only matters where nothing better is there, or
    /// where it is part of the identity.
    fn wanted(&self, nil_uuid: bool) -> impl Iterator<Item = &'s RawDescriptor> {
        let oci_config = self.oci_config.filter(|_| nil_uuid || !self.answers());
        [self.definition, self.inspect, self.labels, oci_config]
            .into_iter()
            .flatten()
    }
}

fn read_objects(
    windows: &mut Windows<'_>,
    sif: &Sif,
    context: &Context<'_>,
    found: &mut Found,
) -> io::Result<Option<SifError>> {
    let chosen = Chosen::of(sif);
    let nil_uuid = found.image.uuid.is_none();
    read_wanted(windows, sif, chosen.wanted(nil_uuid))?;

    found.image.image_id = identify(windows, sif, chosen.wanted(nil_uuid), nil_uuid);
    let bytes = |object: Option<&RawDescriptor>| {
        let (offset, _) = object?.range()?;
        windows.get(offset, wanted_length(object?))
    };
    for object in [chosen.inspect, chosen.labels].into_iter().flatten() {
        if let Some((offset, size)) = object.range()
            && size > limits::METADATA_OBJECT_MAX as u64
        {
            found.image.note(&format!(
                "object {} ({}) at byte {offset} has {size} bytes, more than the limit of {}: not read",
                object.id.get(),
                type_name(object.data_type.get()),
                limits::METADATA_OBJECT_MAX
            ));
        }
    }
    found.image.definition = bytes(chosen.definition).map(metadata::definition);
    let stored = [bytes(chosen.inspect), bytes(chosen.labels)];
    if !context.options.details
        && let Some(definition) = &found.image.definition
    {
        found.origin = reference::decided(definition, stored.into_iter().flatten());
    }
    if found.origin.is_none() {
        let [inspect, labels] = stored;
        read_labels(inspect, labels, &mut found.image);
    }
    classify_signatures(windows, sif, &mut found.image);
    let error = inspect_partitions(windows, sif, &mut found.image);

    let from_config = bytes(chosen.oci_config).map(metadata::oci_config);
    let sound = sif.error.is_none() && error.is_none();
    let inside = !chosen.answers()
        || found.image.definition.is_none()
        || context.explain
        || (context.options.details && inside::has_history(&found.image));
    if sound && context.options.inside_file_systems && inside {
        inside::look(windows, sif, !chosen.answers(), &mut found.image)?;
    }
    if !chosen.answers() && found.image.labels.is_empty() {
        found.image.labels = from_config.unwrap_or_default();
    }
    Ok(error)
}

/// Labels, and a definition if there is none yet, from the metadata objects that have them.
fn read_labels(inspect: Option<&[u8]>, labels: Option<&[u8]>, image: &mut Image) {
    match inspect {
        Some(bytes) if image.definition.is_some() => image.labels = metadata::inspect_labels(bytes),
        Some(bytes) => {
            let inspected = metadata::inspect_metadata(bytes);
            image.labels = inspected.labels;
            image.definition = inspected.definition.filter(|text| !text.is_empty());
        }
        None => {}
    }
    if let Some(bytes) = labels
        && image.labels.is_empty()
    {
        image.labels = metadata::labels(bytes);
    }
}

/// Identity: header and descriptors in table order; without a UUID also the metadata objects, in the
/// order of their IDs. The tools number objects by their slots, but nothing else says so.
fn identify<'s>(
    windows: &Windows<'_>,
    sif: &Sif,
    wanted: impl Iterator<Item = &'s RawDescriptor>,
    nil_uuid: bool,
) -> Option<ImageId> {
    let mut hash = sif.identity();
    if nil_uuid {
        let mut objects: Vec<_> = wanted.collect();
        objects.sort_by_key(|object| object.id.get());
        for object in objects {
            let (offset, size) = object.range()?;
            if usize::try_from(size).is_ok_and(|size| size <= limits::METADATA_OBJECT_MAX) {
                sha2::Digest::update(&mut hash, windows.get(offset, size)?);
            }
        }
    }
    Some(ImageId(sha2::Digest::finalize(hash).into()))
}

/// Reads the wanted objects and the beginnings of the primary partition and of signatures, and, where
/// that costs no further read, of other partitions. What lies close together is read together, in
/// no more reads than [`limits::SIF_READS`] with the head, as long as that stays within
/// [`limits::SIF_READ_BUDGET`]. Images of machines with pages of 64 KiB have every object on a page
/// of its own and need a few small reads more.
fn read_wanted<'s>(
    windows: &mut Windows<'_>,
    sif: &Sif,
    wanted: impl Iterator<Item = &'s RawDescriptor>,
) -> io::Result<()> {
    let mut wants: SmallVec<[Want; 8]> = SmallVec::new();
    let size = windows.size();
    let mut want = |object: &RawDescriptor, length: u64, required: bool| {
        let Some((offset, _)) = object.range() else {
            return;
        };
        let fits = offset.checked_add(length).is_some_and(|end| end <= size);
        if fits && length > 0 && windows.get(offset, length).is_none() {
            wants.push(Want {
                offset,
                length,
                required,
            });
        }
    };
    for object in wanted {
        want(object, wanted_length(object), true);
    }
    let partitions = sif
        .of_type(data_type::PARTITION)
        .filter_map(|object| Some((object, held(object)?)))
        // Only of a primary one it matters whether it is sound.
        .filter(|(object, held)| object.is_primary() || *held == Held::Squashfs);
    for (object, held) in partitions.take(limits::PARTITIONS_MAX) {
        want(object, held.head(), object.is_primary());
    }
    for object in sif
        .of_type(data_type::SIGNATURE)
        .take(limits::SIGNATURES_MAX)
    {
        let length = object.range().map_or(0, |(_, size)| size);
        want(object, length.min(limits::SIGNATURE_HEAD as u64), true);
    }
    wants.sort_by_key(|want| want.offset);

    let (reads, bytes) = windows.spent();
    let mut reads = limits::SIF_READS.saturating_sub(reads).max(1);
    let budget = (limits::SIF_READ_BUDGET as u64).saturating_sub(bytes as u64);
    loop {
        let spans = spans(&wants, reads, windows.file().read_gap());
        let total = spans.iter().map(|(start, end)| end - start).sum::<u64>();
        if total <= budget || spans.len() < reads {
            return spans
                .iter()
                .try_for_each(|(start, end)| windows.fetch(*start, end - start));
        }
        match wants.iter().rposition(|want| !want.required) {
            Some(optional) => {
                wants.remove(optional);
            }
            None => reads += 1,
        }
    }
}

/// How much of a metadata object is read: all, or nothing where that is too much; but of a definition
/// as much as shows that it is too long.
fn wanted_length(object: &RawDescriptor) -> u64 {
    let size = object.range().map_or(0, |(_, size)| size);
    if size <= limits::METADATA_OBJECT_MAX as u64 {
        size
    } else if object.data_type.get() == data_type::DEFFILE {
        limits::DEFINITION_MAX as u64 + 1
    } else {
        0
    }
}

/// The kind of a partition whose superblock can be read: squashfs, plain or as that in which gocryptfs keeps
/// its files, ext, and the volume that holds an encrypted squashfs.
fn held(object: &RawDescriptor) -> Option<Held> {
    match object.partition()?.0 {
        fs_type::SQUASHFS | fs_type::GOCRYPTFS_SQUASHFS => Some(Held::Squashfs),
        fs_type::EXT3 => Some(Held::Ext),
        fs_type::ENCRYPTED_SQUASHFS => Some(Held::Luks),
        _ => None,
    }
}

/// Covers `wants`, which are in order, by at most `most` spans, cut at the widest gaps; nearer
/// neighbours than `near` are never cut apart.
fn spans(wants: &[Want], most: usize, near: u64) -> SmallVec<[(u64, u64); 8]> {
    let mut spans: SmallVec<[(u64, u64); 8]> = SmallVec::new();
    for want in wants {
        let end = want.offset + want.length;
        match spans.last_mut() {
            Some((_, last)) if want.offset <= last.saturating_add(near) => {
                *last = end.max(*last);
            }
            _ => spans.push((want.offset, end)),
        }
    }
    while spans.len() > most.max(1) {
        let narrowest = spans
            .windows(2)
            .enumerate()
            .min_by_key(|(_, pair)| pair[1].0 - pair[0].1)
            .map_or(0, |(index, _)| index);
        spans[narrowest].1 = spans[narrowest + 1].1;
        spans.remove(narrowest + 1);
    }
    spans
}

/// How each signature is encoded, where its beginning was read.
fn classify_signatures(windows: &Windows<'_>, sif: &Sif, image: &mut Image) {
    for (signature, object) in image
        .signatures
        .iter_mut()
        .zip(sif.of_type(data_type::SIGNATURE))
    {
        let head = object
            .range()
            .map(|(offset, size)| (offset, size.min(limits::SIGNATURE_HEAD as u64)))
            .and_then(|(offset, length)| windows.get(offset, length));
        if let Some(head) = head {
            signature.form = signature_form(head);
        }
    }
}

/// The form of a signature by its first bytes: `pkg/integrity/sign.go` of apptainer/sif writes a
/// clear-signed JSON or a DSSE envelope, singularity before 3.6 (`pkg/signing/signing.go`) a
/// clear-signed `SIFHASH:` line.
pub(crate) fn signature_form(head: &[u8]) -> SignatureForm {
    let contains = |needle: &[u8]| head.windows(needle.len()).any(|window| window == needle);
    if contains(b"BEGIN PGP SIGNED MESSAGE-----") {
        if contains(b"SIFHASH:") {
            SignatureForm::PgpLegacy
        } else {
            SignatureForm::Pgp
        }
    } else if head.trim_ascii_start().starts_with(b"{") && contains(b"\"payloadType\"") {
        SignatureForm::Dsse
    } else {
        SignatureForm::Unknown
    }
}

/// Compressors of the squashfs partitions whose beginnings were read, and what is wrong with the
/// primary one.
fn inspect_partitions(windows: &Windows<'_>, sif: &Sif, image: &mut Image) -> Option<SifError> {
    let mut error = None;
    for (object, (_, descriptor)) in image.objects.iter_mut().zip(&sif.descriptors) {
        let ObjectData::Partition { compressor, .. } = &mut object.data else {
            continue;
        };
        let Some(held) = held(descriptor) else {
            continue;
        };
        let head = windows.get(object.offset, held.head());
        let checked = held.check(object.offset, object.size, head);
        if let Ok(found) = checked {
            *compressor = found;
        }
        if descriptor.is_primary() {
            image.compressor = *compressor;
            if let Err(problem) = checked
                && error.is_none()
            {
                error = Some(SifError::Partition {
                    id: object.id,
                    error: problem,
                });
            }
        }
    }
    error
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_of_signatures() {
        const PGP: &str = "-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\n";
        for (head, form) in [
            (format!("{PGP}{{\"version\":1"), SignatureForm::Pgp),
            (format!("{PGP}SIFHASH:\n00"), SignatureForm::PgpLegacy),
            (r#"{"payloadType":"x""#.to_owned(), SignatureForm::Dsse),
            (
                "\n\t {\"a\":1,\"payloadType\":\"x\"".to_owned(),
                SignatureForm::Dsse,
            ),
            (r#"{"payload":"x""#.to_owned(), SignatureForm::Unknown),
            (r#""payloadType""#.to_owned(), SignatureForm::Unknown),
            ("SIFHASH:\n00".to_owned(), SignatureForm::Unknown),
            (String::new(), SignatureForm::Unknown),
        ] {
            assert_eq!(signature_form(head.as_bytes()), form, "{head}");
        }
    }
}
