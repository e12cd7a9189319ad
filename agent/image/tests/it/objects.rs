//! The objects of a SIF: where they lie, what their descriptors say, and which of them answers.

use sifter_image::record::{Encryption, Link, Status};

use crate::formats::image;
use crate::made::{Object, Sif, hollow_squashfs, native};

/// Empty objects lie anywhere, and others in any order.
#[test]
fn where_objects_lie() {
    let slot = |slot: usize, field: usize| 4096 + slot * 585 + field;
    let empty = native().with(Object::new(0x4007, "empty", "")).bytes();
    for (offset, status) in [
        (0i64, Status::Ready),
        (32_180, Status::Ready),
        (1 << 40, Status::Failure),
        (-1, Status::Failure),
    ] {
        let mut bytes = empty.clone();
        bytes[slot(3, 17)..][..8].copy_from_slice(&offset.to_le_bytes());
        let found = image(&bytes);
        assert_eq!(found.status, status, "{offset}: {}", found.status_message);
    }
    // Side by side, the second first, and an empty one within.
    let mut bytes = empty;
    bytes[slot(3, 17)..][..8].copy_from_slice(&32_180u64.to_le_bytes());
    let (first, second) = (
        bytes[slot(0, 0)..slot(1, 0)].to_vec(),
        slot(1, 0)..slot(2, 0),
    );
    bytes.copy_within(second, slot(0, 0));
    bytes[slot(1, 0)..slot(2, 0)].copy_from_slice(&first);
    assert_eq!(image(&bytes).status_message, "");
    bytes[slot(1, 25)] += 1;
    let said = image(&bytes).status_message;
    assert!(
        said.starts_with("corrupt: object 2 begins at byte"),
        "{said}"
    );
}

#[test]
fn as_many_descriptors_as_may_be() {
    for (slots, status) in [(8192, Status::Ready), (8193, Status::Failure)] {
        let sif = Sif { slots, ..native() };
        assert_eq!(image(&sif.bytes()).status, status, "{slots}");
    }
}

#[test]
fn what_descriptors_say_of_the_image() {
    let partition =
        |kind: i32, part: i32| Object::partition(kind, part, b"02", hollow_squashfs(96));
    for (kind, encryption, name) in [
        (1, Encryption::None, "squashfs"),
        (2, Encryption::None, "ext3"),
        (5, Encryption::Luks2, "encrypted-squashfs"),
        (6, Encryption::Gocryptfs, "gocryptfs-squashfs"),
    ] {
        let sif = Sif::new().with(partition(1, 4)).with(partition(kind, 2));
        let found = image(&sif.bytes());
        assert_eq!(
            (found.encryption, found.file_system),
            (encryption, Some(name))
        );
    }
    // Of two, the first; both are damaged.
    let two = image(
        &Sif::new()
            .with(partition(1, 2))
            .with(partition(2, 2))
            .bytes(),
    );
    assert_eq!(two.file_system, Some("squashfs"));
    let mut two = Sif::new().with(partition(1, 2)).with(partition(2, 2));
    for object in two.objects.iter_mut().flatten() {
        object.data.truncate(9);
    }
    let said = image(&two.bytes()).status_message;
    assert!(said.starts_with("corrupt: object 1 (partition)"), "{said}");
    let sbom = |format: u8| {
        let mut object = Object::new(0x4009, "", "{}");
        object.extra = vec![format, 0, 0, 0];
        object
    };
    let mut signature = Object::new(0x4005, "", "-");
    signature.link = 1;
    let sif = native().with(sbom(1)).with(sbom(4)).with(signature);
    let found = image(&sif.bytes());
    assert_eq!(found.sbom, Some("cyclonedx-json"));
    assert_eq!(found.signatures[0].signed, Some(Link::Object(1)));
    assert_eq!(found.signatures[0].object_id, 6);
}

/// Where the labels of one object are not empty, no other object is asked.
#[test]
fn which_object_answers() {
    let inspect = |labels: &str, definition: &str| {
        let text = format!(
            r#"{{"data":{{"attributes":{{"labels":{labels},"deffile":"{definition}"}}}}}}"#
        );
        Object::new(0x4006, "inspect-metadata.json", text)
    };
    let labels = Object::new(0x4003, "", r#"{"k":"of an object"}"#);
    for (inspect, expected, definition) in [
        (inspect(r#"{"k":"v"}"#, "from: a"), "v", Some("from: a")),
        (inspect("{}", "from: a"), "of an object", Some("from: a")),
        (inspect(r#"{"k":"v"}"#, ""), "v", None),
    ] {
        let found = image(&Sif::new().with(inspect).with(labels.clone()).bytes());
        assert_eq!(found.labels.get("k"), Some(expected));
        assert_eq!(found.definition.as_deref(), definition);
    }
}
