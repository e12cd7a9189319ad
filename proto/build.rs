//! Compiles `sifter/v1/*.proto` with protox (no `protoc` needed): tonic stubs, the proto3 JSON
//! mapping, and the descriptor set that gRPC reflection serves.

use std::path::PathBuf;

use prost::Message;

const PROTOS: [&str; 3] = [
    "sifter/v1/image.proto",
    "sifter/v1/image_service.proto",
    "sifter/v1/agent_service.proto",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=sifter");
    let out = PathBuf::from(std::env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?);

    let descriptors = protox::compile(PROTOS, ["."])?;
    let encoded = descriptors.encode_to_vec();
    std::fs::write(out.join("sifter.v1.bin"), &encoded)?;

    // pbjson-types has the well-known types with their JSON spelling, which prost-types lacks.
    tonic_prost_build::configure()
        .compile_well_known_types(true)
        .extern_path(".google.protobuf", "::pbjson_types")
        .extern_path(".google.protobuf.Timestamp", "crate::Timestamp")
        // Labels come in order, so that the same image is always the same text.
        .btree_map(".")
        .compile_fds(descriptors)?;
    pbjson_build::Builder::new()
        .register_descriptors(&encoded)?
        .btree_map(["."])
        .build(&[".sifter.v1"])?;
    Ok(())
}
