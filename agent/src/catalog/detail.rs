//! What only view FULL shows of an image, in the form in which it is stored and sent.

use std::cell::RefCell;
use std::collections::BTreeMap;

use sifter_image::record::{Link, Object, ObjectData, Signature, SignatureForm};
use sifter_image::{Image, Labels};
use sifter_proto::{Timestamp, v1};

use super::packed::Packed;
use crate::fields::Fields;

thread_local! {
    /// Room for the encoded details of an image, and for one of its objects.
    static ROOM: RefCell<(Vec<u8>, Vec<u8>)> = const { RefCell::new((Vec::new(), Vec::new())) };
}

/// Most bytes of room that a thread keeps: long definitions are rare.
const ROOM_KEPT: usize = 16 << 10;

/// What view FULL has besides, as a message with only those fields.
#[must_use]
pub fn details(image: Image) -> v1::Image {
    let mut message = v1::Image::default();
    fill_details(&mut message, image);
    message
}

/// Gives a message those fields, whatever they were.
pub fn fill_details(message: &mut v1::Image, image: Image) {
    fill_labels(&mut message.labels, &image.labels);
    message.definition = image.definition.unwrap_or_default();
    message
        .objects
        .resize_with(image.objects.len(), v1::Object::default);
    for (message, object) in message.objects.iter_mut().zip(image.objects) {
        fill(message, object);
    }
    message.bootstrap_history = image.bootstrap_history;
}

/// Makes labels, whatever they were, those of an image.
fn fill_labels(message: &mut BTreeMap<String, String>, labels: &Labels) {
    // Most images have labels of the same names.
    if message.keys().eq(labels.iter().map(|(name, _)| name)) {
        for (text, (_, value)) in message.values_mut().zip(labels.iter()) {
            value.clone_into(text);
        }
        return;
    }
    message.clear();
    let labels = labels.iter();
    message.extend(labels.map(|(name, value)| (name.to_owned(), value.to_owned())));
}

/// The same, packed.
#[must_use]
pub(super) fn packed_details(image: &Image) -> Packed {
    ROOM.with_borrow_mut(|(room, object)| {
        room.clear();
        encode_details(image, object, room);
        let packed = Packed::new(room);
        if room.capacity() > ROOM_KEPT {
            *room = Vec::new();
        }
        packed
    })
}

/// The same encoded: the fields of `sifter.v1.Image` that are written by [`fill_details`], in their order.
/// `room` is for one object.
fn encode_details(image: &Image, room: &mut Vec<u8>, data: &mut Vec<u8>) {
    let mut message = Fields(data);
    for (name, value) in image.labels.iter() {
        message.entry(26, name, value);
    }
    message.text(27, image.definition.as_deref().unwrap_or_default());
    for object in &image.objects {
        room.clear();
        encode_object(object, &mut Fields(room));
        message.element(30, room);
    }
    for text in &image.bootstrap_history {
        message.element(36, text.as_bytes());
    }
}

/// The fields of `sifter.v1.Object` that are written by [`fill`], in their order.
fn encode_object(object: &Object, message: &mut Fields<'_>) {
    let (linked_id, linked_group_id) = link(object.link);
    message.number(1, object.id.into());
    message.number(2, u64::from(data_type(&object.data).unsigned_abs()));
    message.number(3, object.group_id.unwrap_or_default().into());
    message.number(4, linked_id.into());
    message.number(5, linked_group_id.into());
    message.number(6, object.offset);
    message.number(7, object.size);
    message.number(8, object.padded_size);
    for (tag, at) in [(9, object.create_time), (10, object.update_time)] {
        if let Some(at) = at {
            message.time(tag, &time(at));
        }
    }
    message.number(11, object.uid);
    message.number(12, object.gid);
    message.text(13, &object.name);
    match &object.data {
        ObjectData::Partition {
            file_system,
            partition_type,
            arch,
            compressor,
        } => {
            message.text(14, file_system);
            message.text(15, partition_type);
            message.text(16, arch);
            message.text(17, compressor.unwrap_or_default());
        }
        ObjectData::OciRootIndex { digest } | ObjectData::OciBlob { digest } => {
            message.text(18, digest);
        }
        ObjectData::Signature {
            hash_type,
            fingerprint,
        } => {
            message.text(19, hash_type);
            message.text(20, fingerprint);
        }
        ObjectData::CryptoMessage {
            format,
            message_type,
        } => {
            message.text(21, format);
            message.text(22, message_type);
        }
        ObjectData::Sbom { format } => message.text(23, format),
        ObjectData::Deffile
        | ObjectData::EnvVar
        | ObjectData::Labels
        | ObjectData::GenericJson
        | ObjectData::Generic
        | ObjectData::Unknown(_) => {}
    }
    message.number(24, object.slot.into());
}

/// A signature as the protocol has it.
#[must_use]
pub fn signature(signature: &Signature) -> v1::Signature {
    let (signed_object_id, signed_group_id) = link(signature.signed);
    v1::Signature {
        object_id: signature.object_id,
        form: match signature.form {
            SignatureForm::Unknown => v1::SignatureForm::Unspecified,
            SignatureForm::Pgp => v1::SignatureForm::Pgp,
            SignatureForm::Dsse => v1::SignatureForm::Dsse,
            SignatureForm::PgpLegacy => v1::SignatureForm::PgpLegacy,
        }
        .into(),
        fingerprint: signature.fingerprint.clone(),
        signed_object_id,
        signed_group_id,
        hash_type: signature.hash_type.to_owned(),
    }
}

fn link(link: Option<Link>) -> (u32, u32) {
    match link {
        Some(Link::Object(id)) => (id, 0),
        Some(Link::Group(id)) => (0, id),
        None => (0, 0),
    }
}

/// Makes a message, whatever it was, that of an object.
fn fill(message: &mut v1::Object, object: Object) {
    let (linked_id, linked_group_id) = link(object.link);
    message.id = object.id;
    message.slot = object.slot;
    message.data_type = data_type(&object.data);
    message.group_id = object.group_id.unwrap_or_default();
    message.linked_id = linked_id;
    message.linked_group_id = linked_group_id;
    message.offset = object.offset;
    message.size_bytes = object.size;
    message.padded_size_bytes = object.padded_size;
    message.create_time = object.create_time.map(time);
    message.update_time = object.update_time.map(time);
    message.uid = object.uid;
    message.gid = object.gid;
    object.name.as_str().clone_into(&mut message.name);
    for text in [
        &mut message.file_system,
        &mut message.partition_type,
        &mut message.arch,
        &mut message.compressor,
        &mut message.hash_type,
        &mut message.fingerprint,
        &mut message.message_format,
        &mut message.message_type,
        &mut message.sbom_format,
        &mut message.digest,
    ] {
        text.clear();
    }
    match object.data {
        ObjectData::Partition {
            file_system,
            partition_type,
            arch,
            compressor,
        } => {
            message.file_system.push_str(file_system);
            message.partition_type.push_str(partition_type);
            message.arch.push_str(arch);
            message.compressor.push_str(compressor.unwrap_or_default());
        }
        ObjectData::Signature {
            hash_type,
            fingerprint,
        } => {
            message.hash_type.push_str(hash_type);
            message.fingerprint = fingerprint;
        }
        ObjectData::CryptoMessage {
            format,
            message_type,
        } => {
            message.message_format.push_str(format);
            message.message_type.push_str(message_type);
        }
        ObjectData::Sbom { format } => message.sbom_format.push_str(format),
        ObjectData::OciRootIndex { digest } | ObjectData::OciBlob { digest } => {
            message.digest = digest;
        }
        ObjectData::Deffile
        | ObjectData::EnvVar
        | ObjectData::Labels
        | ObjectData::GenericJson
        | ObjectData::Generic
        | ObjectData::Unknown(_) => {}
    }
}

fn data_type(data: &ObjectData) -> i32 {
    let data_type = match data {
        ObjectData::Deffile => v1::DataType::Deffile,
        ObjectData::EnvVar => v1::DataType::EnvVar,
        ObjectData::Labels => v1::DataType::Labels,
        ObjectData::Partition { .. } => v1::DataType::Partition,
        ObjectData::Signature { .. } => v1::DataType::Signature,
        ObjectData::GenericJson => v1::DataType::GenericJson,
        ObjectData::Generic => v1::DataType::Generic,
        ObjectData::CryptoMessage { .. } => v1::DataType::CryptoMessage,
        ObjectData::Sbom { .. } => v1::DataType::Sbom,
        ObjectData::OciRootIndex { .. } => v1::DataType::OciRootIndex,
        ObjectData::OciBlob { .. } => v1::DataType::OciBlob,
        ObjectData::Unknown(_) => v1::DataType::Unspecified,
    };
    data_type.into()
}

fn time(time: jiff::Timestamp) -> Timestamp {
    time.into()
}

#[cfg(test)]
mod tests {
    use prost::Message as _;
    use sifter_image::Image;
    use sifter_image::record::{Link, Object, ObjectData};

    use super::{details, encode_details, fill_details, packed_details};
    use crate::catalog::packed::Packed;
    use crate::catalog::testing::cut_image;

    /// An image with an object of each kind.
    fn image() -> Image {
        let digest = || "sha256:1f".to_owned();
        let kinds = [
            ObjectData::Partition {
                file_system: "squashfs",
                partition_type: "primary-system",
                arch: "amd64",
                compressor: Some("gzip"),
            },
            ObjectData::Deffile,
            ObjectData::Signature {
                hash_type: "sha256",
                fingerprint: "12ab".to_owned(),
            },
            ObjectData::CryptoMessage {
                format: "openpgp",
                message_type: "clear-signature",
            },
            ObjectData::Sbom { format: "spdx" },
            ObjectData::OciBlob { digest: digest() },
            ObjectData::OciRootIndex { digest: digest() },
            ObjectData::Unknown(0x4711),
        ];
        let objects = kinds.into_iter().zip(1..).map(|(data, id)| Object {
            id,
            slot: id,
            group_id: (id % 2 == 0).then_some(1),
            link: (id % 3 == 0).then_some(Link::Object(1)),
            offset: u64::from(id) << 12,
            size: 100,
            padded_size: 4096,
            create_time: (id % 2 == 0).then_some(jiff::Timestamp::UNIX_EPOCH),
            update_time: None,
            uid: u64::from(id % 2),
            gid: 0,
            name: if id == 1 { "all" } else { "" }.into(),
            data,
        });
        Image {
            labels: [("a", "1"), ("b", "")].into_iter().collect(),
            definition: Some("Bootstrap: docker\n".to_owned()),
            objects: objects.collect(),
            bootstrap_history: vec!["Bootstrap: library\n".to_owned(), String::new()],
            ..cut_image()
        }
    }

    #[test]
    fn what_is_encoded_object_by_object_is_the_message() {
        let message = details(image());
        assert_eq!(message.objects.len(), 8);
        let mut encoded = Vec::new();
        encode_details(&image(), &mut Vec::new(), &mut encoded);
        assert_eq!(encoded, message.encode_to_vec());
        // What one image leaves behind is no part of the next.
        for _ in 0..2 {
            assert_eq!(packed_details(&image()), Packed::new(&encoded));
        }
    }

    #[test]
    fn a_message_that_was_another_image_is_as_a_new_one() {
        let mut message = details(image());
        let mut other = image();
        other.labels = [("a", "2"), ("c", "3")].into_iter().collect();
        other.objects.rotate_left(3);
        other.objects.truncate(6);
        for image in [other, cut_image(), image()] {
            fill_details(&mut message, image.clone());
            assert_eq!(message, details(image));
        }
    }
}
