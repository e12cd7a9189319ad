//! squashfs: as an image of Singularity 2, behind the launch script and bare.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    sifter_image_fuzz::probe_bytes(bytes, "/images/fuzz.simg");
    let mut image = b"#!/usr/bin/env run-singularity\n".to_vec();
    image.extend_from_slice(bytes);
    sifter_image_fuzz::probe_bytes(&image, "/images/fuzz");
});
