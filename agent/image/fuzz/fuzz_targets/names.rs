//! Names: path, definition, labels and OCI reference, separated by NULs.
#![no_main]

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use libfuzzer_sys::fuzz_target;
use sifter_image::Labels;
use sifter_image::reference::{Evidence, resolve};

fuzz_target!(|bytes: &[u8]| {
    let mut parts = bytes.split(|byte| *byte == 0);
    let path = Path::new(OsStr::from_bytes(parts.next().unwrap_or_default()));
    let mut text = || parts.next().map(String::from_utf8_lossy);
    let definition = text();
    let oci_reference = text();
    let mut labels = Labels::default();
    while let (Some(key), Some(value)) = (text(), text()) {
        labels.insert(&key, &value);
    }
    let evidence = Evidence {
        path,
        naming: &[],
        oci_reference: oci_reference.as_deref(),
        definition: definition.as_deref(),
        labels: &labels,
    };
    let explained = resolve(&evidence, true);
    let plain = resolve(&evidence, false);
    assert_eq!(explained.reference, plain.reference);
    assert_eq!(explained.base, plain.base);
});
