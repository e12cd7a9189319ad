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
        .compile_fds(descriptors.clone())?;
    // The image service once more, with responses whose images are encoded already.
    let server = out.join("encoded");
    std::fs::create_dir_all(&server)?;
    tonic_prost_build::configure()
        .build_client(false)
        .out_dir(&server)
        .compile_well_known_types(true)
        .extern_path(".google.protobuf", "::pbjson_types")
        .extern_path(".sifter.v1", "crate::v1")
        .extern_path(
            ".sifter.v1.ListImagesResponse",
            "crate::encoded::ListImagesResponse",
        )
        .extern_path(
            ".sifter.v1.StreamImagesResponse",
            "crate::encoded::StreamImagesResponse",
        )
        .compile_fds(descriptors)?;
    pbjson_build::Builder::new()
        .register_descriptors(&encoded)?
        .btree_map(["."])
        .build(&[".sifter.v1"])?;
    let json = out.join("sifter.v1.serde.rs");
    std::fs::write(&json, lenient(&std::fs::read_to_string(&json)?)?)?;
    Ok(())
}

/// Makes the JSON of a value that this version does not know its enumeration's `…_UNSPECIFIED`
/// ("not known") instead of an error: a newer agent has more formats, and one image of such a format
/// must not keep a command line from showing all others.
fn lenient(generated: &str) -> Result<String, String> {
    const BEGIN: &str = ".map_err(|_| serde::ser::Error::custom(format!(\"Invalid variant {}\", ";
    const END: &str = ")))?;";
    let mut parts = generated.split(BEGIN);
    let mut out = parts.next().unwrap_or_default().to_owned();
    let mut count = 0;
    for part in parts {
        let (_, rest) = part
            .split_once(END)
            .ok_or("pbjson-build writes other code than this knows")?;
        out.push_str(".unwrap_or_default();");
        out.push_str(rest);
        count += 1;
    }
    if count == 0 {
        return Err("pbjson-build writes other code than this knows".to_owned());
    }
    Ok(out)
}
