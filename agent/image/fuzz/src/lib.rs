//! What the targets have in common: a probe of bytes, and what must hold whatever they are.

use std::path::Path;

use jiff::Timestamp;
use sha2::Digest;
use sifter_image::record::{Image, Status};
use sifter_image::{Options, ReadAt, Subject, Verdict, explain, probe};

/// A file of bytes under an image's name, probed as a scan does and as an inspection does.
///
/// Errors are fine; panics are bugs.
pub fn probe_bytes(bytes: &[u8], name: &str) {
    let now = Timestamp::from_second(1_800_000_000).expect("in range");
    let subject = Subject {
        path: Path::new(name),
        modified: now,
        now,
    };
    let options = Options::default();
    let file = &bytes as &dyn ReadAt;
    let verdict = probe(file, &subject, &options).expect("memory does not fail");
    if let Verdict::Image(image) = &verdict {
        check(image);
    }
    let without = Options {
        details: false,
        ..options.clone()
    };
    let brief = probe(file, &subject, &without).expect("memory does not fail");
    assert_eq!(without_details(&brief), without_details(&verdict));
    let explained = explain(file, &subject, &options).expect("memory does not fail");
    assert_eq!(
        matches!(verdict, Verdict::Image(_)),
        matches!(explained.verdict, Verdict::Image(_))
    );
}

/// What is the same whether details are wanted or not.
fn without_details(verdict: &Verdict) -> Verdict {
    let mut verdict = verdict.clone();
    if let Verdict::Image(image) = &mut verdict {
        image.labels = Default::default();
        image.bootstrap_history.clear();
    }
    verdict
}

/// What holds for every image.
pub fn check(image: &Image) {
    if image.status == Status::Ready {
        // What was left out for its size.
        let said = image.status_message.as_str();
        assert!(
            said.is_empty()
                || said.contains("limit")
                || said.contains("labels and definition")
                || said.contains("refuse the image")
        );
    } else {
        assert!(!image.status_message.is_empty());
    }
    assert!(image.update_time.is_some());
    assert!(!image.reference.repository.is_empty() || image.status != Status::Ready);
}

/// An OCI-SIF of a root index, a manifest and a configuration. Where the index says `@M` and the
/// manifest `@C`, the right digest is put, so that the chain holds whatever is around them.
pub fn oci_sif(index: &[u8], manifest: &[u8], config: &[u8]) -> Vec<u8> {
    let manifest = replaced(manifest, b"@C", &digest(config));
    let index = replaced(index, b"@M", &digest(&manifest));
    let blobs: [(u32, &[u8]); 3] = [(0x400B, config), (0x400B, &manifest), (0x400A, &index)];
    let start = 4096 + blobs.len() * 585;
    let mut bytes = vec![0; start];
    bytes[32..48].copy_from_slice(b"SIF_MAGIC\x0001\x0000\0");
    for (slot, (kind, data)) in blobs.iter().enumerate() {
        let descriptor = &mut bytes[4096 + slot * 585..];
        descriptor[..4].copy_from_slice(&kind.to_le_bytes());
        descriptor[4] = 1;
        descriptor[5] = slot as u8 + 1;
        descriptor[201..272].copy_from_slice(digest(data).as_bytes());
        let offset = bytes.len() as u64;
        let descriptor = &mut bytes[4096 + slot * 585..];
        descriptor[17..25].copy_from_slice(&offset.to_le_bytes());
        descriptor[25..33].copy_from_slice(&(data.len() as u64).to_le_bytes());
        bytes.extend_from_slice(data);
    }
    let size = bytes.len();
    for (at, number) in [
        (88, blobs.len()),
        (96, 4096),
        (104, start - 4096),
        (112, start),
        (120, size - start),
    ] {
        bytes[at..at + 8].copy_from_slice(&(number as u64).to_le_bytes());
    }
    bytes
}

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(sha2::Sha256::digest(bytes)))
}

fn replaced(text: &[u8], what: &[u8], with: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.windows(what.len()).position(|window| window == what) {
        out.extend_from_slice(&rest[..at]);
        out.extend_from_slice(with.as_bytes());
        rest = &rest[at + what.len()..];
    }
    out.extend_from_slice(rest);
    out
}
