//! What a probe reads.

use std::cell::RefCell;
use std::fs;
use std::io;
use std::path::Path;

use sifter_image::{ReadAt, Verdict};

use crate::corpus::{shared, skipped, verdict};
use crate::made::{INSPECT, Object, Sif, digest, native};

/// Counts the reads of a file.
struct Counting<'a> {
    bytes: &'a [u8],
    /// What one more is worth, if it is another number than usual.
    gap: Option<u64>,
    reads: RefCell<Vec<(u64, usize)>>,
}

impl ReadAt for Counting<'_> {
    fn size(&self) -> u64 {
        self.bytes.size()
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.reads.borrow_mut().push((offset, buf.len()));
        self.bytes.read_exact_at(buf, offset)
    }

    fn read_gap(&self) -> u64 {
        self.gap.unwrap_or_else(|| self.bytes.read_gap())
    }
}

fn reads(bytes: &[u8]) -> Vec<(u64, usize)> {
    reads_with(bytes, None)
}

fn reads_with(bytes: &[u8], gap: Option<u64>) -> Vec<(u64, usize)> {
    let file = Counting {
        bytes,
        gap,
        reads: RefCell::default(),
    };
    verdict(&file, Path::new("/images/x.sif"));
    file.reads.into_inner()
}

/// Whether an image was made of another one, so that its root is looked into, too.
fn has_history(bytes: &[u8]) -> bool {
    let has = |text: &[u8]| bytes.windows(text.len()).any(|window| window == text);
    ["localimage", "library", "shub", "oras"]
        .iter()
        .any(|agent| has(format!("deffile.bootstrap\":\"{agent}\"").as_bytes()))
}

#[test]
fn a_sif_with_metadata_objects_costs_three_reads_of_64_kib() {
    let far = vec![0u8; 3 << 20];
    let mut cases = vec![
        ("native".to_owned(), native().bytes()),
        ("partition first".to_owned(), {
            let objects = native().objects;
            let mut sif = Sif::new();
            sif.objects = vec![objects[2].clone(), objects[0].clone(), objects[1].clone()];
            sif.bytes()
        }),
        (
            "signed, with an overlay between".to_owned(),
            native()
                .with(Object::partition(2, 4, b"02", far.clone()))
                .with(Object::new(
                    0x4005,
                    "",
                    "-----BEGIN PGP SIGNED MESSAGE-----\n",
                ))
                .bytes(),
        ),
        ("ten objects".to_owned(), {
            (0..7)
                .fold(native(), |sif, n| {
                    sif.with(Object::new(0x4007, &n.to_string(), "x"))
                })
                .bytes()
        }),
    ];
    if let Some(shared) = shared() {
        for entry in fs::read_dir(shared.join("images/apptainer")).expect("a corpus") {
            let path = entry.expect("an entry").path();
            let bytes = fs::read(&path).expect("an image");
            let has = |text: &[u8]| bytes.windows(text.len()).any(|window| window == text);
            if has(b"inspect-metadata.json") && !has_history(&bytes) {
                cases.push((path.display().to_string(), bytes));
            }
        }
    } else {
        skipped("cost of the corpus");
    }
    let mut total = 0;
    for (name, bytes) in &cases {
        if !name.contains("deleted_obj") {
            let reads = reads(bytes);
            let sum: usize = reads.iter().map(|(_, length)| length).sum();
            assert!(reads.len() <= 3 && sum <= 64 << 10, "{name}: {reads:?}");
            total += reads.len();
        }
    }
    assert!(total >= 2 * cases.len() - 2, "the count counts nothing");
    assert_eq!(reads(&native().bytes()).len(), 2);
}

#[test]
fn what_is_near_enough_is_read_together() {
    let objects = native().objects;
    let mut sif = Sif::new();
    let between = Object::new(0x4007, "between", "x".repeat(10_000));
    sif.objects = vec![
        objects[0].clone(),
        objects[1].clone(),
        Some(between),
        objects[2].clone(),
    ];
    let bytes = sif.bytes();
    for (gap, count) in [(None, 3), (Some(8 << 10), 3), (Some(16 << 10), 2)] {
        let reads = reads_with(&bytes, gap);
        assert_eq!(reads.len(), count, "{gap:?}: {reads:?}");
    }
}

/// The tables of a small file system come with one read, and the superblock was read before. Where there are
/// more names, the first inodes take another one.
#[test]
fn a_history_costs_few_reads_more() {
    let inspect = INSPECT.replace("bootstrap\":\"docker", "bootstrap\":\"localimage");
    let squashfs = include_bytes!("data/box-gzip.squashfs");
    let made = |inspect: &str| {
        Sif::new()
            .with(Object::new(0x4006, "inspect-metadata.json", inspect))
            .with(Object::partition(1, 2, b"02", *squashfs))
            .bytes()
    };
    assert_eq!(reads(&made(INSPECT)).len(), 2);
    assert!(has_history(&made(&inspect)));
    let mut cases = vec![("made".to_owned(), made(&inspect), 5)];
    if let Some(shared) = shared() {
        for name in ["local_of_sif", "lib_direct", "oras_rebuild", "shub_def"] {
            let path = shared.join(format!("images/apptainer/{name}.sif"));
            cases.push((name.to_owned(), fs::read(&path).expect("an image"), 4));
        }
    } else {
        skipped("cost of the corpus");
    }
    for (name, bytes, count) in cases {
        let reads = reads(&bytes);
        assert_eq!(reads.len(), count, "{name}: {reads:?}");
    }
}

/// An index of thousands of indexes, each an object of its own.
#[test]
fn reads_of_oci_json_are_bounded() {
    let mut sif = Sif {
        slots: 4097,
        ..Sif::new()
    };
    let mut entries = Vec::new();
    for n in 0..4096 {
        let index = format!("{{\"n\":{n}}}");
        entries.push(format!(
            "{{\"mediaType\":\"application/vnd.oci.image.index.v1+json\",\"digest\":\"{}\"}}",
            digest(index.as_bytes())
        ));
        // Apart, so that no read brings two.
        sif = sif.with(Object::blob(0x400B, index));
    }
    let root = format!("{{\"manifests\":[{}]}}", entries.join(","));
    sif.align = 16 << 10;
    let bytes = sif.with(Object::blob(0x400A, root)).bytes();
    let reads = reads(&bytes).len();
    assert!(reads < 1100, "{reads}");
    let Verdict::Image(image) = verdict(&bytes, Path::new("/images/x.sif")) else {
        panic!("not an image");
    };
    let message = " is not read: an image may have 8388608 bytes of JSON";
    assert!(
        image.status_message.ends_with(message),
        "{}",
        image.status_message
    );
}
