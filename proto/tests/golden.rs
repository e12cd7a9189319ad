//! The contract in one text, so that a breaking change cannot pass unseen: a line that vanishes or
//! changes breaks older clients, a new line does not.
//!
//! `UPDATE_GOLDEN=1 cargo test -p sifter-proto` writes the file anew; its difference is the review.

use std::fmt::Write as _;
use std::path::Path;

use prost::Message as _;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorSet};

fn contract() -> FileDescriptorSet {
    FileDescriptorSet::decode(sifter_proto::FILE_DESCRIPTOR_SET).unwrap()
}

fn field(out: &mut String, message: &str, field: &FieldDescriptorProto) {
    let kind = match field.r#type() {
        Type::Message | Type::Enum => field.type_name().trim_start_matches('.').to_owned(),
        other => other
            .as_str_name()
            .trim_start_matches("TYPE_")
            .to_lowercase(),
    };
    let label = if field.label() == Label::Repeated {
        "repeated "
    } else {
        ""
    };
    writeln!(
        out,
        "{message}.{} = {}: {label}{kind} (json {})",
        field.name(),
        field.number(),
        field.json_name()
    )
    .unwrap();
}

fn enumeration(out: &mut String, scope: &str, value: &EnumDescriptorProto) {
    for entry in &value.value {
        writeln!(
            out,
            "{scope}{}.{} = {}",
            value.name(),
            entry.name(),
            entry.number()
        )
        .unwrap();
    }
}

fn message(out: &mut String, scope: &str, value: &DescriptorProto) {
    let name = format!("{scope}{}", value.name());
    for entry in &value.field {
        field(out, &name, entry);
    }
    for nested in &value.nested_type {
        message(out, &format!("{name}."), nested);
    }
    for nested in &value.enum_type {
        enumeration(out, &format!("{name}."), nested);
    }
}

fn text() -> String {
    let mut out = String::new();
    for file in contract()
        .file
        .iter()
        .filter(|file| file.package() == "sifter.v1")
    {
        for service in &file.service {
            for method in &service.method {
                writeln!(
                    out,
                    "{}.{}({}) returns ({}{})",
                    service.name(),
                    method.name(),
                    method.input_type().trim_start_matches('.'),
                    if method.server_streaming() {
                        "stream "
                    } else {
                        ""
                    },
                    method.output_type().trim_start_matches('.')
                )
                .unwrap();
            }
        }
        for entry in &file.message_type {
            message(&mut out, "", entry);
        }
        for entry in &file.enum_type {
            enumeration(&mut out, "", entry);
        }
    }
    out
}

#[test]
fn contract_is_as_released() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("sifter.v1.golden.txt");
    let text = text();
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap();
    let lost: Vec<&str> = golden
        .lines()
        .filter(|line| !text.lines().any(|other| other == *line))
        .collect();
    assert!(
        lost.is_empty(),
        "these lines of the contract changed or vanished, which breaks older clients and agents:\n{}",
        lost.join("\n")
    );
    assert_eq!(
        text, golden,
        "the contract grew: run with UPDATE_GOLDEN=1 and commit the file"
    );
}

/// Every release keeps its contract in `released/`, and no line of it ever goes: a field that is
/// removed, renamed, renumbered or retyped breaks agents, control planes and clients in the field.
#[test]
fn every_released_contract_is_kept() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("released");
    let text = text();
    let mut releases = 0;
    for entry in std::fs::read_dir(&directory).unwrap() {
        let path = entry.unwrap().path();
        let released = std::fs::read_to_string(&path).unwrap();
        let lost = lost(&released, &text);
        assert!(
            lost.is_empty(),
            "{} was released with these lines, which changed or vanished; give a new field a new \
             number, and leave the old one:\n{}",
            path.display(),
            lost.join("\n")
        );
        releases += 1;
    }
    assert!(releases > 0, "{} is empty", directory.display());
}

/// A number that a release used means the same for ever.
fn lost<'a>(released: &'a str, now: &str) -> Vec<&'a str> {
    released
        .lines()
        .filter(|line| !now.lines().any(|other| other == *line))
        .collect()
}

#[test]
fn what_breaks_a_release_is_found() {
    let released = text();
    let now = |from: &str, to: &str| {
        let changed = released.replacen(from, to, 1);
        assert_ne!(changed, released, "{from}");
        changed
    };
    let field = "Image.path = 1: string (json path)\n";
    for broken in [
        now(field, ""),
        now(field, "Image.path = 99: string (json path)\n"),
        now(field, "Image.path = 1: bytes (json path)\n"),
        now(field, "Image.place = 1: string (json place)\n"),
        now("Format.FORMAT_SIF = 1", "Format.FORMAT_SIF = 7"),
        now("returns (stream sifter", "returns (sifter"),
    ] {
        assert_eq!(lost(&released, &broken).len(), 1);
    }
    let grown = format!("{released}Image.new = 99: string (json new)\n");
    assert_eq!(lost(&released, &grown), [""; 0]);
}

#[test]
fn every_field_method_and_value_is_documented() {
    let mut missing = Vec::new();
    for file in contract()
        .file
        .iter()
        .filter(|file| file.package() == "sifter.v1")
    {
        let info = file.source_code_info.as_ref().unwrap();
        let documented = |path: &[i32]| {
            info.location.iter().any(|location| {
                location.path == path && !location.leading_comments().trim().is_empty()
            })
        };
        for (index, message) in file.message_type.iter().enumerate() {
            let index = i32::try_from(index).unwrap();
            for (at, field) in message.field.iter().enumerate() {
                if !documented(&[4, index, 2, i32::try_from(at).unwrap()]) {
                    missing.push(format!("{}.{}", message.name(), field.name()));
                }
            }
        }
        for (index, value) in file.enum_type.iter().enumerate() {
            let index = i32::try_from(index).unwrap();
            for (at, entry) in value.value.iter().enumerate() {
                if !documented(&[5, index, 2, i32::try_from(at).unwrap()]) {
                    missing.push(entry.name().to_owned());
                }
            }
        }
        for (index, service) in file.service.iter().enumerate() {
            let index = i32::try_from(index).unwrap();
            for (at, method) in service.method.iter().enumerate() {
                if !documented(&[6, index, 2, i32::try_from(at).unwrap()]) {
                    missing.push(method.name().to_owned());
                }
            }
        }
    }
    assert!(missing.is_empty(), "without a comment: {missing:?}");
}

#[test]
fn values_of_later_versions_have_a_json_form() {
    let image = sifter_proto::v1::Image {
        format: 99,
        path: "/x".to_owned(),
        ..sifter_proto::v1::Image::default()
    };
    let json = serde_json::to_value(&image).unwrap();
    assert_eq!(json["format"], "FORMAT_UNSPECIFIED");
    assert_eq!(json["path"], "/x");
}
