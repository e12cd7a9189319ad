//! SIF: header, descriptors, metadata objects, partitions.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| sifter_image_fuzz::probe_bytes(bytes, "/images/fuzz.sif"));
