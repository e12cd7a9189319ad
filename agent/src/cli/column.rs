//! One field of an image, as a column or a piece of a template shows it.

use std::borrow::Cow;
use std::str::FromStr;

use anyhow::bail;
use serde::Serialize;
use sifter_proto::Timestamp;
use sifter_proto::v1::{Format, Image};

use crate::escape;
use crate::words::{ago, cut, short_id, size};

/// Longest text of a cell, but for paths and for what is wrong with an image: one long name must not make
/// every line as long. The longest names in use (`quay.io/biocontainers/bioconductor-…`) are shorter.
const CELL_MAX: usize = 72;

/// Longest tag of a cell that is a digest: 12 digits of it, as of other IDs, and an ellipsis.
const TAG_MAX: usize = "sha256:".len() + 13;

/// A column: a field of `Image`, or one of the short forms for people.
#[derive(Debug, Clone)]
pub struct Column {
    /// As written, in snake case.
    name: String,
    field: &'static Field,
}

impl FromStr for Column {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let name = snake_case(text.trim());
        if name.is_empty() {
            bail!("a field without a name: write one, as in `repository`");
        }
        let long = SHORT.iter().find(|(short, _)| *short == name);
        let long = long.map_or(name.as_str(), |(_, long)| long);
        let Some(field) = FIELDS.iter().find(|known| known.name == long) else {
            let names: Vec<_> = FIELDS.iter().map(Field::names).collect();
            bail!("`{text}`: no such field; there are {}", names.join(", "));
        };
        Ok(Self { name, field })
    }
}

/// Short forms, as docker, podman and crictl call them, with the fields that they stand for.
const SHORT: [(&str, &str); 7] = [
    ("id", "image_id"),
    ("size", "size_bytes"),
    ("updated", "update_time"),
    ("created", "create_time"),
    ("accessed", "access_time"),
    ("allocated", "allocated_bytes"),
    ("digest", "content_digest"),
];

/// A field of `sifter.v1.Image`.
#[derive(Debug)]
pub(super) struct Field {
    pub(super) name: &'static str,
    value: Value,
}

/// Where the value of a field is, and with that how it is shown.
#[derive(Debug)]
enum Value {
    Text(fn(&Image) -> &str),
    /// The name of a user or group, and the number to show where there is none.
    Name(fn(&Image) -> &str, fn(&Image) -> u32),
    /// A text that may be a digest, of which a cell has only the beginning.
    Tag(fn(&Image) -> &str),
    Digest(fn(&Image) -> &str),
    /// A name from an enumeration, with the words that all of them begin with.
    Constant(fn(&Image) -> &'static str, &'static str),
    Time(fn(&Image) -> Option<&Timestamp>),
    Bytes(fn(&Image) -> u64),
    Number(fn(&Image) -> u64),
    Mode(fn(&Image) -> u32),
    /// As JSON has it.
    Json,
    /// The same, and only view FULL has it.
    Detail,
}

/// Fields of `sifter.v1.Image`; a test compares them with the contract.
pub(super) static FIELDS: &[Field] = &[
    field("path", Value::Text(|image| &image.path)),
    field("root", Value::Text(|image| &image.root)),
    field("image_id", Value::Digest(|image| &image.image_id)),
    field(
        "format",
        Value::Constant(|image| image.format().as_str_name(), "FORMAT_"),
    ),
    field("format_version", Value::Text(|image| &image.format_version)),
    field(
        "status",
        Value::Constant(|image| image.status().as_str_name(), "STATUS_"),
    ),
    field("status_message", Value::Text(|image| &image.status_message)),
    field("repository", Value::Text(|image| &image.repository)),
    field("tag", Value::Tag(|image| &image.tag)),
    field(
        "reference_source",
        Value::Constant(
            |image| image.reference_source().as_str_name(),
            "REFERENCE_SOURCE_",
        ),
    ),
    field("base", Value::Text(|image| &image.base)),
    field(
        "update_time",
        Value::Time(|image| image.update_time.as_ref()),
    ),
    field(
        "update_time_source",
        Value::Constant(
            |image| image.update_time_source().as_str_name(),
            "TIME_SOURCE_",
        ),
    ),
    field(
        "create_time",
        Value::Time(|image| image.create_time.as_ref()),
    ),
    field("arch", Value::Text(|image| &image.arch)),
    field("uuid", Value::Text(|image| &image.uuid)),
    field("size_bytes", Value::Bytes(|image| image.size_bytes)),
    field(
        "allocated_bytes",
        Value::Bytes(|image| image.allocated_bytes),
    ),
    field("uid", Value::Number(|image| image.uid.into())),
    field("gid", Value::Number(|image| image.gid.into())),
    field(
        "owner",
        Value::Name(|image| &image.owner, |image| image.uid),
    ),
    field(
        "group",
        Value::Name(|image| &image.group, |image| image.gid),
    ),
    field("mode", Value::Mode(|image| image.mode)),
    field("links", Value::Number(|image| image.links)),
    field(
        "access_time",
        Value::Time(|image| image.access_time.as_ref()),
    ),
    field("labels", Value::Detail),
    field("definition", Value::Detail),
    field("file_system", Value::Text(|image| &image.file_system)),
    field("compressor", Value::Text(|image| &image.compressor)),
    field("objects", Value::Detail),
    field("signatures", Value::Json),
    field(
        "encryption",
        Value::Constant(|image| image.encryption().as_str_name(), "ENCRYPTION_"),
    ),
    field("sbom", Value::Text(|image| &image.sbom)),
    field(
        "content_digest",
        Value::Digest(|image| &image.content_digest),
    ),
    field("raw_path", Value::Json),
    field("bootstrap_history", Value::Detail),
];

const fn field(name: &'static str, value: Value) -> Field {
    Field { name, value }
}

impl Field {
    /// Key in the JSON form.
    fn key(&self) -> String {
        camel_case(self.name)
    }

    /// What it is called, with the short form if there is one, for whoever took another name.
    fn names(&self) -> String {
        match SHORT.iter().find(|(_, long)| *long == self.name) {
            Some((short, name)) => format!("{name} ({short})"),
            None => self.name.to_owned(),
        }
    }
}

impl Column {
    /// Key in the JSON form.
    pub(super) fn key(&self) -> String {
        self.field.key()
    }

    /// The heading.
    pub(super) fn title(&self) -> String {
        self.name.replace('_', " ").to_uppercase()
    }

    /// The value in a table: escaped, and cut to what a table can hold.
    pub(super) fn cell<'i>(&self, image: &'i Image, exact: bool) -> Cow<'i, str> {
        let shown = match self.show(image, exact) {
            Cow::Borrowed(shown) => escape::terminal(shown),
            Cow::Owned(shown) => match escape::escaped(&shown) {
                Some(escaped) => escaped.into(),
                None => shown.into(),
            },
        };
        if exact || matches!(self.field.name, "path" | "status_message") {
            shown
        } else {
            cut(shown, CELL_MAX)
        }
    }

    /// The value as JSON has it, but for numbers, which JSON leaves out where they are zero.
    fn text<'i>(&self, image: &'i Image) -> Cow<'i, str> {
        match &self.field.value {
            Value::Text(of) | Value::Name(of, _) | Value::Tag(of) | Value::Digest(of) => {
                of(image).into()
            }
            Value::Constant(of, _) => match of(image) {
                // JSON leaves out what is not known.
                name if name.ends_with("_UNSPECIFIED") => "".into(),
                name => name.into(),
            },
            Value::Bytes(of) | Value::Number(of) => of(image).to_string().into(),
            Value::Mode(of) => of(image).to_string().into(),
            Value::Time(of) => json(of(image)),
            Value::Json | Value::Detail => {
                let mut image = serde_json::to_value(image).unwrap_or_default();
                json(image.get_mut(self.key()).map(serde_json::Value::take))
            }
        }
    }

    /// Whether only view FULL has it.
    pub(super) fn is_detail(&self) -> bool {
        matches!(self.field.value, Value::Detail)
    }

    /// Whether it is shown flush right.
    pub(super) fn is_number(&self) -> bool {
        matches!(self.field.value, Value::Bytes(_) | Value::Number(_))
    }

    /// The value for people. `exact` shows what is stored.
    pub(super) fn show<'i>(&self, image: &'i Image, exact: bool) -> Cow<'i, str> {
        let shown = match &self.field.value {
            Value::Constant(_, prefix) => {
                let text = self.text(image);
                let word = text.strip_prefix(prefix).unwrap_or(&text);
                match self.field.name {
                    "status" => word.to_owned().into(),
                    "format" => word.to_lowercase().replace('_', "-").into(),
                    _ => word.to_lowercase().into(),
                }
            }
            // As `ls -l` does: who has left the site still owns files.
            Value::Name(of, number) if of(image).is_empty() => number(image).to_string().into(),
            Value::Mode(of) => format!("{:04o}", of(image)).into(),
            Value::Digest(of) if !exact => short_id(of(image)).into(),
            Value::Bytes(of) if !exact && !self.name.ends_with("_bytes") => match image.format() {
                // Not known: what is in a directory is never summed up.
                Format::Sandbox => "".into(),
                _ => size(of(image)).into(),
            },
            Value::Tag(of) if !exact && of(image).starts_with("sha256:") => {
                cut(of(image).into(), TAG_MAX)
            }
            Value::Time(of) if !exact && !self.name.ends_with("_time") => {
                let time = of(image).and_then(|time| jiff::Timestamp::try_from(*time).ok());
                time.map_or("".into(), |time| ago(time, jiff::Timestamp::now()).into())
            }
            _ => self.text(image),
        };
        if shown.is_empty() { "-".into() } else { shown }
    }
}

/// A value as JSON has it, in one text.
fn json(value: impl Serialize) -> Cow<'static, str> {
    match serde_json::to_value(value) {
        Err(_) | Ok(serde_json::Value::Null) => "".into(),
        Ok(serde_json::Value::String(text)) => text.into(),
        Ok(other) => other.to_string().into(),
    }
}

/// `ImageId`, `imageID` and `image_id` are one.
pub(super) fn snake_case(text: &str) -> String {
    let mut snake = String::with_capacity(text.len() + 4);
    let mut before_lower = false;
    for character in text.chars() {
        if character.is_ascii_uppercase() {
            if before_lower {
                snake.push('_');
            }
            snake.push(character.to_ascii_lowercase());
            before_lower = false;
        } else {
            snake.push(character);
            before_lower = character.is_ascii_lowercase() || character.is_ascii_digit();
        }
    }
    snake
}

fn camel_case(snake: &str) -> String {
    let mut camel = String::with_capacity(snake.len());
    let mut upper = false;
    for character in snake.chars() {
        if character == '_' {
            upper = true;
        } else if upper {
            camel.push(character.to_ascii_uppercase());
            upper = false;
        } else {
            camel.push(character);
        }
    }
    camel
}

#[cfg(test)]
mod tests {
    use super::{Column, FIELDS};
    use prost::Message as _;
    use sifter_proto::v1::Image;

    #[test]
    fn every_field_of_the_contract_is_a_column() {
        let set =
            pbjson_types::FileDescriptorSet::decode(sifter_proto::FILE_DESCRIPTOR_SET).unwrap();
        let image = set
            .file
            .iter()
            .flat_map(|file| &file.message_type)
            .find(|message| message.name() == "Image")
            .unwrap();
        let mut fields: Vec<&str> = image.field.iter().map(|field| field.name()).collect();
        let mut known: Vec<&str> = FIELDS.iter().map(|field| field.name).collect();
        fields.sort_unstable();
        known.sort_unstable();
        assert_eq!(fields, known);
    }

    /// Fields are read one by one for a table, and must be those that JSON has.
    #[test]
    fn a_column_is_what_json_has() {
        let row = crate::catalog::testing::full_row();
        let owners = crate::service::Owners::default();
        let mut image = crate::service::convert::basic(&row, &owners);
        image.owner = "owner".to_owned();
        image.group = "group".to_owned();
        image.labels = [("a".to_owned(), "b".to_owned())].into();
        image.definition = "Bootstrap: docker".to_owned();
        let json = serde_json::to_value(&image).unwrap();
        for super::Field { name, .. } in FIELDS {
            let column: Column = name.parse().unwrap();
            let expected = match json.get(column.key()) {
                Some(serde_json::Value::String(text)) => text.clone(),
                Some(other) => other.to_string(),
                None => String::new(),
            };
            assert_eq!(column.text(&image), expected, "{name}");
        }
        let uid: Column = "uid".parse().unwrap();
        assert_eq!(uid.show(&Image::default(), false), "0");
        for (name, exact, shown) in [
            ("update_time", false, "1969-12-31T23:59:59.999999999Z"),
            ("updated", true, "1969-12-31T23:59:59.999999999Z"),
            ("updated", false, "years ago"),
        ] {
            let column: Column = name.parse().unwrap();
            let text = column.show(&image, exact);
            assert!(text.ends_with(shown), "{name}: {text}");
        }
        let status: Column = "status".parse().unwrap();
        assert_eq!(status.show(&Image::default(), false), "-");
    }
}
