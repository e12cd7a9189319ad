//! File systems in a SIF that cannot be what their descriptors say: FAILURE, judged by what is read anyway.

use std::path::Path;

use sifter_image::record::{Image, Status};
use sifter_image::{NotImage, Verdict};

use crate::corpus::{verdict, young_verdict};
use crate::made::{INSPECT, Object, Sif, digest, hollow_squashfs};

const PATH: &str = "/images/made.sif";
const EXT3: &[u8] = include_bytes!("data/box.ext3");

fn image(verdict: Verdict) -> Image {
    match verdict {
        Verdict::Image(image) => *image,
        Verdict::NotImage(not) => panic!("{not:?}"),
    }
}

/// A file system with some bytes at `at` changed.
fn with(mut bytes: Vec<u8>, at: usize, change: &[u8]) -> Vec<u8> {
    bytes[at..at + change.len()].copy_from_slice(change);
    bytes
}

/// File systems by their type in a partition, and what is wrong with them at byte 32768.
fn cases() -> Vec<(&'static str, i32, Vec<u8>, &'static str)> {
    let squashfs = || hollow_squashfs(8192);
    let ext = || EXT3.to_vec();
    let luks = || with(vec![0; 4096], 0, b"LUKS\xba\xbe\0\x02");
    vec![
        ("whole squashfs", 1, squashfs(), ""),
        ("whole ext3", 2, ext(), ""),
        ("encrypted", 5, luks(), ""),
        (
            "short volume",
            5,
            luks()[..4095].to_vec(),
            "expected a LUKS volume of 4096 bytes or more at byte 32768, found 4095",
        ),
        (
            "not encrypted",
            5,
            squashfs(),
            "expected a LUKS volume at byte 32768, found 687371730500",
        ),
        (
            "empty squashfs",
            1,
            Vec::new(),
            "expected a squashfs of 96 bytes or more at byte 32768, found 0",
        ),
        (
            "short squashfs",
            1,
            squashfs()[..95].to_vec(),
            "expected a squashfs of 96 bytes or more at byte 32768, found 95",
        ),
        (
            "empty squashfs of gocryptfs",
            6,
            Vec::new(),
            "expected a squashfs of 96 bytes or more at byte 32768, found 0",
        ),
        (
            "no squashfs",
            1,
            vec![0; 8192],
            "expected a squashfs at byte 32768, found 00000000",
        ),
        (
            "block size",
            1,
            with(squashfs(), 12, &[1]),
            "squashfs superblock at byte 32768: block size expected two to its log, found 131073",
        ),
        (
            "small blocks",
            1,
            with(with(squashfs(), 12, &2048u32.to_le_bytes()), 22, &[11]),
            "squashfs superblock at byte 32768: log of the block size expected 12 to 20, found 11",
        ),
        (
            "large blocks",
            1,
            with(with(squashfs(), 12, &(2u32 << 20).to_le_bytes()), 22, &[21]),
            "squashfs superblock at byte 32768: log of the block size expected 12 to 20, found 21",
        ),
        (
            "version",
            1,
            with(squashfs(), 30, &[1]),
            "squashfs superblock at byte 32768: version expected 4.0 (0x40000), found 262145",
        ),
        (
            "compressor",
            1,
            with(squashfs(), 20, &[7]),
            "squashfs superblock at byte 32768: compressor expected 1 to 6, found 7",
        ),
        (
            "bytes used",
            1,
            with(squashfs(), 40, &95u64.to_le_bytes()),
            "squashfs superblock at byte 32768: bytes used expected 96 or more, found 95",
        ),
        (
            "fragment table",
            1,
            with(squashfs(), 80, &8192u64.to_le_bytes()),
            "squashfs superblock at byte 32768: fragment table expected before the end of the file system, found \
             8192",
        ),
        (
            "export table",
            1,
            with(squashfs(), 88, &8192u64.to_le_bytes()),
            "squashfs superblock at byte 32768: export table expected before the end of the file system, found \
             8192",
        ),
        (
            "inode table",
            1,
            with(squashfs(), 71, &[1]),
            "squashfs superblock at byte 32768: inode table expected before the end of the file system, found \
             72057594037927936",
        ),
        (
            "root inode",
            1,
            with(squashfs(), 37, &[1]),
            "squashfs superblock at byte 32768: root inode expected before the end of the file system, found \
             16777216",
        ),
        (
            "directory table",
            1,
            with(squashfs(), 72, &8192u64.to_le_bytes()),
            "squashfs superblock at byte 32768: directory table expected before the end of the file system, found \
             8192",
        ),
        (
            "ID table",
            1,
            with(squashfs(), 48, &[0xFF; 8]),
            "squashfs superblock at byte 32768: ID table expected before the end of the file system, found \
             18446744073709551615",
        ),
        ("no xattrs", 1, with(squashfs(), 56, &[0xFF; 8]), ""),
        (
            "xattr table",
            1,
            with(
                squashfs(),
                56,
                &[0xFE, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF],
            ),
            "squashfs superblock at byte 32768: xattr table expected before the end of the file system, found \
             18446744073709551614",
        ),
        (
            "squashfs cut",
            1,
            squashfs()[..4096].to_vec(),
            "squashfs ends at byte 40960 but the file or partition ends at 36864",
        ),
        (
            "empty ext3",
            2,
            Vec::new(),
            "expected an ext file system of 2048 bytes or more at byte 32768, found 0",
        ),
        (
            "short ext3",
            2,
            EXT3[..2047].to_vec(),
            "expected an ext file system of 2048 bytes or more at byte 32768, found 2047",
        ),
        (
            "no ext3",
            2,
            vec![0; 8192],
            "expected an ext superblock with 0xef53 at byte 33848, found 0x0000",
        ),
        (
            "no blocks",
            2,
            with(ext(), 1028, &[0; 4]),
            "ext file system at byte 32768: the numbers of its superblock make no sense",
        ),
        (
            "inodes",
            2,
            with(ext(), 1025, &[7]),
            "ext file system at byte 32768: the numbers of its superblock make no sense",
        ),
        (
            "clusters",
            2,
            with(ext(), 1052, &[3]),
            "ext file system at byte 32768: the numbers of its superblock make no sense",
        ),
        (
            "ext3 cut",
            2,
            EXT3[..EXT3.len() / 2].to_vec(),
            "ext file system ends at byte",
        ),
    ]
}

#[test]
fn a_primary_partition_is_a_file_system() {
    for (what, kind, bytes, wrong) in cases() {
        for (part, is_primary) in [(2, true), (4, false)] {
            let mut sif = Sif::new()
                .with(Object::new(0x4006, "inspect-metadata.json", INSPECT))
                .with(Object::partition(kind, part, b"02", bytes.clone()))
                .with(Object::new(0x4007, "last", "x"));
            sif.arch = b"02";
            let bytes = sif.bytes();
            let found = image(verdict(&bytes, Path::new(PATH)));
            if wrong.is_empty() || !is_primary {
                assert_eq!(
                    (found.status, found.status_message.as_str()),
                    (Status::Ready, ""),
                    "{what}"
                );
                continue;
            }
            assert_eq!(found.status, Status::Failure, "{what}");
            let message = format!("corrupt: object 2 (partition): {wrong}");
            assert!(
                found.status_message.starts_with(&message),
                "{what}: {}",
                found.status_message
            );
            // Waiting does not make it whole, unless the file is not there to its end.
            let young = image(young_verdict(&bytes, Path::new(PATH)));
            assert_eq!(young.status, Status::Failure, "{what}");
            let growing = image(young_verdict(&&bytes[..bytes.len() - 1], Path::new(PATH)));
            assert_eq!(growing.status, Status::Transfer, "{what}");
        }
    }
}

#[test]
fn a_damaged_file_system_by_itself_is_an_image_by_its_name() {
    use NotImage::{OtherContent, PlainFileSystem};
    for (bytes, wrong, unnamed) in [
        (
            with(hollow_squashfs(8192), 12, &[1]),
            "corrupt: squashfs superblock at byte 0: block size expected",
            PlainFileSystem,
        ),
        (
            with(hollow_squashfs(8192), 0, b"x"),
            "corrupt: magic damaged at offset 0",
            OtherContent,
        ),
        (
            hollow_squashfs(8192),
            "corrupt: squashfs metadata block at byte",
            PlainFileSystem,
        ),
        (
            with(EXT3.to_vec(), 1025, &[7]),
            "corrupt: ext file system at byte 0: the numbers of its superblock make no sense",
            OtherContent,
        ),
        (
            EXT3[..EXT3.len() / 2].to_vec(),
            "truncated: ext file system ends at byte",
            PlainFileSystem,
        ),
    ] {
        let found = image(verdict(&bytes, Path::new("/images/a.img")));
        assert_eq!(found.status, Status::Failure, "{wrong}");
        let message = &found.status_message;
        assert!(message.starts_with(wrong), "{wrong}: {message}");
        // What is damaged does not get better with time.
        let young = image(young_verdict(&bytes, Path::new("/images/a.img")));
        let grows = wrong.starts_with("truncated");
        assert_eq!(young.status == Status::Transfer, grows, "{wrong}");
        let found = verdict(&bytes, Path::new("/images/a"));
        assert_eq!(found, Verdict::NotImage(unnamed), "{wrong}");
    }
}

/// An OCI-SIF of one manifest with these layers: media type and content.
fn oci(layers: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut sif = Sif::new();
    (sif.uuid, sif.launch) = ([0; 16], b"");
    let mut entries = Vec::new();
    for (kind, bytes) in layers {
        let (digest, size) = (digest(bytes), bytes.len());
        entries.push(format!(
            r#"{{"mediaType":"application/vnd.sylabs.image.layer.v1.{kind}","digest":"{digest}","size":{size}}}"#
        ));
        sif = sif.with(Object::blob(0x400B, bytes.clone()));
    }
    let config = r#"{"architecture":"amd64","os":"linux"}"#;
    let manifest = format!(
        r#"{{"config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{}"}},"layers":[{}]}}"#,
        digest(config.as_bytes()),
        entries.join(",")
    );
    let index = format!(
        r#"{{"manifests":[{{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"{}"}}]}}"#,
        digest(manifest.as_bytes())
    );
    sif.with(Object::blob(0x400B, config))
        .with(Object::blob(0x400B, manifest))
        .with(Object::blob(0x400A, index))
        .bytes()
}

#[test]
fn layers_are_file_systems() {
    let whole = || ("squashfs", hollow_squashfs(8192));
    for (what, layers, wrong) in [
        ("whole", vec![whole()], None),
        ("archive", vec![("tar+gzip", vec![1; 10])], None),
        ("overlay", vec![whole(), ("ext3", EXT3.to_vec())], None),
        (
            "empty",
            vec![("squashfs", Vec::new())],
            Some((
                0,
                "expected a squashfs of 96 bytes or more at byte 32176, found 0",
            )),
        ),
        (
            "no squashfs",
            vec![("squashfs", vec![0; 4096])],
            Some((0, "expected a squashfs at byte 32176, found 00000000")),
        ),
        (
            "short second",
            vec![whole(), ("squashfs", vec![1; 95])],
            Some((
                1,
                "expected a squashfs of 96 bytes or more at byte 40368, found 95",
            )),
        ),
        // Read together with the JSON behind it.
        (
            "no ext3",
            vec![whole(), ("ext3", vec![0; 4096])],
            Some((
                1,
                "expected an ext superblock with 0xef53 at byte 41448, found 0x0000",
            )),
        ),
    ] {
        let found = image(verdict(&oci(&layers), Path::new(PATH)));
        let (status, message) = match wrong {
            Some((layer, error)) => (
                Status::Failure,
                format!("corrupt: OCI layer {}: {error}", digest(&layers[layer].1)),
            ),
            None => (Status::Ready, String::new()),
        };
        assert_eq!(
            (found.status, found.status_message),
            (status, message),
            "{what}"
        );
    }
}
