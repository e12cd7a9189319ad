//! All that is known of one image, for people: a line a field, and tables of what is inside.

use std::io::{self, Write};

use serde_json::Value;
use sifter_proto::Timestamp;
use sifter_proto::v1::{Image, Object, Signature};

use crate::escape;

use super::column::{Column, FIELDS, Field};
use super::table::Table;

/// Prints what is known.
///
/// # Errors
///
/// What writing says.
pub fn write(out: &mut dyn Write, image: &Image) -> io::Result<()> {
    let value = serde_json::to_value(image)?;
    for Field { name, .. } in FIELDS {
        let Ok(column) = name.parse::<Column>() else {
            continue;
        };
        let title = format!("{}:", name.replace('_', " "));
        match (*name, value.get(column.key())) {
            (_, None | Some(Value::Null)) => {}
            ("objects", Some(_)) => {
                writeln!(out, "{title}")?;
                write_objects(out, &image.objects)?;
            }
            ("signatures", Some(_)) => {
                writeln!(out, "{title}")?;
                write_signatures(out, &image.signatures)?;
            }
            (_, Some(Value::Object(entries))) => {
                writeln!(out, "{title}")?;
                for (key, entry) in entries {
                    let (key, entry) = (escape::terminal(key), text_of(entry));
                    writeln!(out, "    {key} = {}", escape::terminal(&entry))?;
                }
            }
            (_, Some(Value::Array(entries))) => {
                writeln!(out, "{title}")?;
                for entry in entries {
                    writeln!(out, "    {}", escape::terminal(&text_of(entry)))?;
                }
            }
            // The one text that is made of lines: indented, none of them can pass for a field.
            ("definition", Some(Value::String(text))) if text.contains('\n') => {
                writeln!(out, "{title}")?;
                for line in text.lines() {
                    writeln!(out, "    {}", escape::terminal(line))?;
                }
            }
            _ => {
                let shown = column.show(image, true);
                writeln!(out, "{title:<22}{}", escape::terminal(&shown))?;
            }
        }
    }
    Ok(())
}

fn text_of(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

/// The objects of a SIF. What follows from the rest is left to JSON: the padding, the slot of an object that has its
/// number, the time of a change that was none.
fn write_objects(out: &mut dyn Write, objects: &[Object]) -> io::Result<()> {
    let mut table = Table::new([true, false, true, true, true, false, false]);
    table.row([
        "ID", "TYPE", "GROUP", "OFFSET", "SIZE", "CREATED", "DETAILS",
    ]);
    for object in objects {
        let offset = object.offset.to_string();
        let size = object.size_bytes.to_string();
        table.row([
            &number(object.id),
            &constant(object.data_type().as_str_name(), "DATA_TYPE_"),
            &number(object.group_id),
            &offset,
            &size,
            &time(object.create_time.as_ref()),
            &*escape::terminal(&of_object(object)),
        ]);
    }
    write_indented(out, &table)
}

fn of_object(object: &Object) -> String {
    let mut words: Vec<String> = [
        &object.name,
        &object.partition_type,
        &object.file_system,
        &object.compressor,
        &object.arch,
        &object.digest,
        &object.message_format,
        &object.message_type,
        &object.sbom_format,
        &object.hash_type,
        &object.fingerprint,
    ]
    .into_iter()
    .filter(|text| !text.is_empty())
    .cloned()
    .collect();
    if object.linked_id != 0 {
        words.push(format!("of object {}", object.linked_id));
    }
    if object.linked_group_id != 0 {
        words.push(format!("of group {}", object.linked_group_id));
    }
    if object.slot.checked_add(1) != Some(object.id) {
        words.push(format!("in slot {}", object.slot));
    }
    if (object.uid, object.gid) != (0, 0) {
        words.push(format!("owner {}:{}", object.uid, object.gid));
    }
    if object.update_time != object.create_time {
        words.push(format!("changed {}", time(object.update_time.as_ref())));
    }
    words.join(", ")
}

fn write_signatures(out: &mut dyn Write, signatures: &[Signature]) -> io::Result<()> {
    let mut table = Table::new([true, false, false, false, false]);
    table.row(["OBJECT", "FORM", "SIGNED", "HASH", "FINGERPRINT"]);
    for signature in signatures {
        let signed = match (signature.signed_object_id, signature.signed_group_id) {
            (0, 0) => "-".to_owned(),
            (0, group) => format!("group {group}"),
            (object, _) => format!("object {object}"),
        };
        table.row([
            &number(signature.object_id),
            &constant(signature.form().as_str_name(), "SIGNATURE_FORM_"),
            &signed,
            &*escape::terminal(or_dash(&signature.hash_type)),
            &*escape::terminal(or_dash(&signature.fingerprint)),
        ]);
    }
    write_indented(out, &table)
}

fn write_indented(out: &mut dyn Write, table: &Table) -> io::Result<()> {
    let mut lines = Vec::new();
    table.write(&mut lines)?;
    for line in lines.split_inclusive(|byte| *byte == b'\n') {
        out.write_all(b"    ")?;
        out.write_all(line)?;
    }
    Ok(())
}

/// A value of an enumeration; what is not known is a dash, as everywhere.
fn constant(name: &str, prefix: &str) -> String {
    match name.strip_prefix(prefix).unwrap_or(name) {
        "UNSPECIFIED" => "-".to_owned(),
        word => word.to_lowercase(),
    }
}

/// A number of which 0 says that there is none.
fn number(number: u32) -> String {
    match number {
        0 => "-".to_owned(),
        number => number.to_string(),
    }
}

fn time(time: Option<&Timestamp>) -> String {
    let text = time.and_then(|time| time.with_text(str::to_owned).ok());
    text.unwrap_or_else(|| "-".to_owned())
}

fn or_dash(text: &str) -> &str {
    if text.is_empty() { "-" } else { text }
}

#[cfg(test)]
mod tests {
    use sifter_proto::Timestamp;
    use sifter_proto::v1::{DataType, Image, Object, Signature, SignatureForm};

    fn written(image: &Image) -> String {
        let mut written = Vec::new();
        super::write(&mut written, image).unwrap();
        String::from_utf8(written).unwrap()
    }

    /// A text of an image that begins a line would pass for a field of another name.
    #[test]
    fn a_text_of_several_lines_is_one_line_unless_it_is_the_definition() {
        let text = written(&Image {
            repository: "a\nstatus:               READY".to_owned(),
            labels: [("k\nl".to_owned(), "v\r\nw".to_owned())].into(),
            definition: "Bootstrap: docker\nstatus: \u{1b}[2J\n".to_owned(),
            objects: vec![Object {
                name: "n\nstatus: \u{1b}[2J".to_owned(),
                ..Object::default()
            }],
            signatures: vec![Signature {
                hash_type: "h\ni".to_owned(),
                fingerprint: "f\ng".to_owned(),
                ..Signature::default()
            }],
            bootstrap_history: vec!["b\nc".to_owned()],
            ..Image::default()
        });
        for part in [
            "repository:           a\\nstatus:               READY\n",
            "labels:\n    k\\nl = v\\r\\nw\n",
            "definition:\n    Bootstrap: docker\n    status: \\u{1b}[2J\n",
            "  n\\nstatus: \\u{1b}[2J, in slot 0\n",
            "  h\\ni  f\\ng\n",
            "bootstrap history:\n    b\\nc\n",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }

    #[test]
    fn objects_and_signatures_are_tables() {
        let at = |seconds| Some(Timestamp { seconds, nanos: 0 });
        let text = |text: &str| text.to_owned();
        let objects = vec![
            Object {
                id: 1,
                data_type: DataType::GenericJson.into(),
                group_id: 1,
                offset: 32_768,
                size_bytes: 700,
                padded_size_bytes: 710,
                create_time: at(0),
                update_time: at(0),
                name: text("inspect-metadata.json"),
                ..Object::default()
            },
            Object {
                id: 4,
                data_type: DataType::Partition.into(),
                offset: 36_864,
                create_time: at(0),
                update_time: at(1),
                uid: 1000,
                gid: 100,
                partition_type: text("primary-system"),
                file_system: text("squashfs"),
                compressor: text("gzip"),
                arch: text("amd64"),
                slot: 1,
                ..Object::default()
            },
            Object {
                id: 3,
                data_type: DataType::Signature.into(),
                linked_group_id: 1,
                hash_type: text("sha256"),
                fingerprint: text("AB"),
                slot: 2,
                ..Object::default()
            },
            Object {
                id: u32::MAX,
                linked_id: 3,
                digest: text("sha256:0"),
                message_format: text("pem"),
                message_type: text("rsa-oaep"),
                sbom_format: text("spdx-json"),
                slot: u32::MAX,
                ..Object::default()
            },
        ];
        let signatures = vec![
            Signature {
                object_id: 3,
                form: SignatureForm::Pgp.into(),
                fingerprint: text("AB"),
                signed_group_id: 1,
                hash_type: text("sha256"),
                ..Signature::default()
            },
            Signature {
                object_id: 14,
                form: SignatureForm::Dsse.into(),
                signed_object_id: 4,
                ..Signature::default()
            },
            Signature::default(),
        ];
        let written = written(&Image {
            objects,
            signatures,
            ..Image::default()
        });
        let (_, tables) = written.split_once("objects:\n").unwrap();
        insta::assert_snapshot!(tables, @"
            ID  TYPE          GROUP  OFFSET  SIZE  CREATED               DETAILS
             1  generic_json      1   32768   700  1970-01-01T00:00:00Z  inspect-metadata.json
             4  partition         -   36864     0  1970-01-01T00:00:00Z  primary-system, squashfs, gzip, amd64, in slot 1, owner 1000:100, changed 1970-01-01T00:00:01Z
             3  signature         -       0     0  -                     sha256, AB, of group 1
    4294967295  -                 -       0     0  -                     sha256:0, pem, rsa-oaep, spdx-json, of object 3, in slot 4294967295
signatures:
    OBJECT  FORM  SIGNED    HASH    FINGERPRINT
         3  pgp   group 1   sha256  AB
        14  dsse  object 4  -       -
         -  -     -         -       -
");
    }
}
