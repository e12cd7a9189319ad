//! OCI-SIF: root index, manifest and configuration, separated by NULs; see
//! `sifter_image_fuzz::oci_sif` for how they are joined.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut parts = bytes.splitn(3, |byte| *byte == 0);
    let mut part = || parts.next().unwrap_or_default();
    let sif = sifter_image_fuzz::oci_sif(part(), part(), part());
    sifter_image_fuzz::probe_bytes(&sif, "/images/fuzz.oci.sif");
});
