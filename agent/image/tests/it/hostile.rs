//! Inputs of 4 MiB made to be dear: each ends soon, with a bounded result.

use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

use sifter_image::Verdict;

use crate::corpus::verdict;
use crate::made::{INSPECT, Object, Sif, digest, hollow_squashfs};

/// A release build takes a tenth of this; the tests are not optimised.
const SOON: Duration = Duration::from_secs(10);
const SIZE: usize = 4 << 20;

fn ends_soon(what: &str, bytes: &[u8]) {
    assert!(bytes.len() <= SIZE + (64 << 10), "{what}: {}", bytes.len());
    let start = computed();
    verdict(&bytes, Path::new("/images/x.sif"));
    let took = computed() - start;
    assert!(took < SOON, "{what}: {took:?}");
}

/// The time for which this thread has computed: what else the machine does is not in it.
fn computed() -> Duration {
    let told = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(told.split(' ').next().unwrap().parse().unwrap())
}

fn slots(count: usize) -> Sif {
    Sif {
        slots: count,
        ..Sif::new()
    }
}

#[test]
fn thousands_of_partitions_signatures_or_objects() {
    for object in [
        Object::partition(1, 2, b"02", hollow_squashfs(96)),
        Object::partition(1, 1, b"02", hollow_squashfs(96)),
        Object::new(0x4005, "", "-"),
        Object::new(0x4006, "inspect-metadata.json", INSPECT),
    ] {
        let mut sif = slots(900);
        sif.objects = vec![Some(object); 900];
        ends_soon("objects", &sif.bytes());
    }
    let mut sif = slots(7000);
    sif.objects = vec![Some(Object::new(0x4007, "x", "")); 7000];
    ends_soon("empty objects", &sif.bytes());
}

#[test]
fn lists_of_millions() {
    let index = format!(
        "{{\"manifests\":[{}{{}}]}}",
        "{},".repeat(SIZE / 3 - 30_000)
    );
    ends_soon(
        "manifests",
        &Sif::new().with(Object::blob(0x400A, index)).bytes(),
    );
    let mut labels = String::from("{");
    for n in 0..SIZE / 14 {
        let _ = write!(labels, "\"{n:x}\":\"\",");
    }
    labels.push_str("\"z\":1}");
    labels.truncate(labels.len().min(SIZE - (64 << 10)));
    ends_soon(
        "labels",
        &Sif::new().with(Object::new(0x4003, "", labels)).bytes(),
    );
    let deep = "[".repeat(SIZE - (64 << 10));
    ends_soon(
        "deep",
        &Sif::new()
            .with(Object::new(0x4006, "inspect-metadata.json", deep))
            .bytes(),
    );
}

/// Labels within labels, each level with as many as are kept of one, and all before those of the level above.
#[test]
fn labels_within_labels() {
    let mut labels = String::from("1");
    for level in 0..96 {
        let mut outer = String::from("{");
        for n in 0..4095 {
            let _ = write!(outer, "\"{level:02}{n:03x}\":1,");
        }
        labels = format!("{outer}\"\":{labels}}}");
    }
    ends_soon(
        "labels within labels",
        &Sif::new().with(Object::new(0x4003, "", labels)).bytes(),
    );
}

/// An ext file system of 64 KiB whose root directory is made of one block, over and over: by pointers through
/// blocks of pointers to each other, and by a tree of extents each of whose nodes has the same child many times.
#[test]
fn a_directory_that_leads_back_into_itself() {
    const BLOCK: usize = 1024;
    const ROOT: usize = 5 * BLOCK + 256;
    let plain = include_bytes!("data/plain.ext2");
    let block = |bytes: &mut [u8], number: usize, numbers: &[u32]| {
        let words = numbers.iter().flat_map(|number| number.to_le_bytes());
        for (byte, word) in bytes[number * BLOCK..].iter_mut().zip(words) {
            *byte = word;
        }
    };

    let mut pointers = plain.to_vec();
    // Names of one letter.
    block(&mut pointers, 30, &[12, 12 | 1 << 16, 120].repeat(84));
    block(&mut pointers, 30, &[12, 28 | 1 << 16, 120]);
    for number in 31..34 {
        block(&mut pointers, number, &[number as u32 - 1; BLOCK / 4]);
    }
    let mut place = [30; 15];
    place[12..].copy_from_slice(&[31, 32, 33]);
    for (at, number) in place.iter().enumerate() {
        let at = ROOT + 40 + 4 * at;
        pointers[at..at + 4].copy_from_slice(&u32::to_le_bytes(*number));
    }

    let mut extents = plain.to_vec();
    extents[ROOT + 34] |= 8;
    let node = |depth: u32, entries: u32| {
        let mut node = vec![0xF30A | entries << 16, 84 | depth << 16, 0];
        for _ in 0..entries {
            // The child of an inner node; in the last an extent of no length.
            node.extend([0, if depth == 0 { 0 } else { 29 + depth }, 0]);
        }
        node
    };
    for depth in 0..5 {
        block(&mut extents, 30 + depth as usize, &node(depth, 84));
    }
    for (at, number) in node(5, 4).iter().enumerate() {
        let at = ROOT + 40 + 4 * at;
        extents[at..at + 4].copy_from_slice(&number.to_le_bytes());
    }

    for (what, mut bytes) in [("pointers", pointers), ("extents", extents)] {
        for size in [4 << 10, 200 << 10, 1 << 30] {
            bytes[ROOT + 4..ROOT + 8].copy_from_slice(&u32::to_le_bytes(size));
            ends_soon(
                what,
                &[b"#!/usr/bin/env run-singularity\n", &bytes[..]].concat(),
            );
        }
    }
}

/// A squashfs whose root directory has 65 thousand bytes, in stored metadata blocks of `length` bytes.
fn directory_of_blocks(length: usize) -> Vec<u8> {
    let names = [0, 0, 0, 0, 2, 0, 0, 0, b'z'].repeat(256);
    let names = [&[255, 0, 0, 0][..], &[0; 8], &names].concat().repeat(28);
    let stored = |bytes: &[u8], length: usize| -> Vec<u8> {
        bytes
            .chunks(length)
            .flat_map(|block| {
                [&[block.len() as u8, (block.len() >> 8) as u8 | 0x80], block].concat()
            })
            .collect()
    };
    let mut inode = [0; 40];
    inode[0] = 8;
    inode[20..24].copy_from_slice(&(names.len() as u32 + 3).to_le_bytes());
    let tables = [stored(&inode, 40), stored(&names, length)].concat();
    let mut bytes = hollow_squashfs(96 + tables.len());
    bytes[64] = 96;
    bytes[72] = 96 + 42;
    bytes[96..].copy_from_slice(&tables);
    bytes
}

/// Blocks that are not compressed count as those that are: else each byte of a directory may be one.
#[test]
fn a_directory_of_a_block_for_each_byte() {
    for (length, said) in [
        (8192, ""),
        (
            1,
            "labels and definition are not read: squashfs needs more than 25165824 bytes of blocks",
        ),
    ] {
        let bytes = [
            &b"#!/usr/bin/env run-singularity\n"[..],
            &directory_of_blocks(length),
        ]
        .concat();
        let Verdict::Image(image) = verdict(&&bytes[..], Path::new("/images/x")) else {
            panic!("not an image")
        };
        assert_eq!(image.status_message, said, "{length}");
    }
}

/// An index with a name of 3 MiB, around another one that lists the same manifest hundreds of times.
#[test]
fn a_name_of_megabytes_for_hundreds_of_manifests() {
    let manifest = "{}";
    let entry = format!("{{\"digest\":\"{}\"}}", digest(manifest.as_bytes()));
    let inner = format!(
        "{{\"manifests\":[{}{entry}]}}",
        format!("{entry},").repeat(300)
    );
    let index = format!(
        "{{\"manifests\":[{{\"mediaType\":\"application/vnd.oci.image.index.v1+json\",\"digest\":\"{}\",\
         \"annotations\":{{\"org.opencontainers.image.ref.name\":\"{}\"}}}}]}}",
        digest(inner.as_bytes()),
        "n".repeat(3 << 20)
    );
    let sif = Sif::new()
        .with(Object::blob(0x400B, manifest))
        .with(Object::blob(0x400B, inner))
        .with(Object::blob(0x400A, index));
    let before = peak_memory();
    ends_soon("a name", &sif.bytes());
    // Tests at the same time take some tens of MiB; the names would take three quarters of a GiB.
    let taken = peak_memory() - before;
    assert!(taken < 512 << 10, "{taken} KiB");
}

/// The most memory that this process has had, in KiB.
fn peak_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    number
        .and_then(|number| number.parse().ok())
        .expect("a number")
}

/// Two hundred manifests of two thousand layers each, none of which is in the file, among thousands
/// of blobs.
#[test]
fn layers_that_are_looked_for_among_thousands_of_blobs() {
    let layer = format!("{{\"digest\":\"{}\"}}", digest(b"none"));
    let mut entries = Vec::new();
    let mut sif = slots(3000);
    for n in 0..20 {
        let manifest = format!(
            "{{\"n\":{n},\"layers\":[{}{layer}]}}",
            format!("{layer},").repeat(1000)
        );
        entries.push(format!(
            "{{\"digest\":\"{}\"}}",
            digest(manifest.as_bytes())
        ));
        sif = sif.with(Object::blob(0x400B, manifest));
    }
    for n in 0..2900u32 {
        sif = sif.with(Object::blob(0x400B, n.to_le_bytes()));
    }
    let index = format!("{{\"manifests\":[{}]}}", entries.join(","));
    ends_soon("layers", &sif.with(Object::blob(0x400A, index)).bytes());
}
