//! What only view FULL shows of an image, in the form in which it is stored and sent.

use sifter_image::Image;
use sifter_image::record::{Link, Object, ObjectData, Signature, SignatureForm};
use sifter_proto::{Timestamp, v1};

/// What view FULL has besides, as a message with only those fields.
#[must_use]
pub fn details(image: Image) -> v1::Image {
    v1::Image {
        labels: image.labels,
        definition: image.definition.unwrap_or_default(),
        objects: image.objects.into_iter().map(object).collect(),
        bootstrap_history: image.bootstrap_history,
        ..v1::Image::default()
    }
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

fn object(object: Object) -> v1::Object {
    let (linked_id, linked_group_id) = link(object.link);
    let mut message = v1::Object {
        id: object.id,
        slot: object.slot,
        data_type: data_type(&object.data).into(),
        group_id: object.group_id.unwrap_or_default(),
        linked_id,
        linked_group_id,
        offset: object.offset,
        size_bytes: object.size,
        padded_size_bytes: object.padded_size,
        create_time: object.create_time.map(time),
        update_time: object.update_time.map(time),
        uid: object.uid,
        gid: object.gid,
        name: object.name,
        ..v1::Object::default()
    };
    match object.data {
        ObjectData::Partition {
            file_system,
            partition_type,
            arch,
            compressor,
        } => {
            message.file_system = file_system.to_owned();
            message.partition_type = partition_type.to_owned();
            message.arch = arch.to_owned();
            message.compressor = compressor.unwrap_or_default().to_owned();
        }
        ObjectData::Signature {
            hash_type,
            fingerprint,
        } => {
            message.hash_type = hash_type.to_owned();
            message.fingerprint = fingerprint;
        }
        ObjectData::CryptoMessage {
            format,
            message_type,
        } => {
            message.message_format = format.to_owned();
            message.message_type = message_type.to_owned();
        }
        ObjectData::Sbom { format } => message.sbom_format = format.to_owned(),
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
    message
}

fn data_type(data: &ObjectData) -> v1::DataType {
    match data {
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
    }
}

fn time(time: jiff::Timestamp) -> Timestamp {
    time.into()
}
