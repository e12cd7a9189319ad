//! One field of an image, as a column or a piece of a template shows it.

use std::borrow::Cow;
use std::str::FromStr;

use anyhow::bail;
use serde_json::Value;
use sifter_proto::Timestamp;
use sifter_proto::v1::Image;

use crate::escape;

use super::words::{ago, cut, short_id, size};

/// Longest text of a cell, but for paths: one long name must not make every line as long. The
/// longest names in use (`quay.io/biocontainers/bioconductor-…`) are shorter.
const CELL_MAX: usize = 72;

/// A column: a field of `Image`, or one of the short forms for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// As written, in snake case.
    name: String,
    /// Key in the JSON form.
    key: String,
}

impl FromStr for Column {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let name = snake_case(text.trim());
        let key = match name.as_str() {
            // What docker, podman and crictl call them.
            "id" => "image_id",
            "size" => "size_bytes",
            "updated" => "update_time",
            "created" => "create_time",
            "accessed" => "access_time",
            "allocated" => "allocated_bytes",
            "digest" => "content_digest",
            other => other,
        };
        if !FIELDS.contains(&key) {
            bail!("no such field: {text} (fields: {})", FIELDS.join(", "));
        }
        Ok(Self {
            key: camel_case(key),
            name,
        })
    }
}

/// Fields of `sifter.v1.Image`; a test compares them with the contract.
pub(super) const FIELDS: &[&str] = &[
    "path",
    "root",
    "image_id",
    "format",
    "format_version",
    "status",
    "status_message",
    "repository",
    "tag",
    "reference_source",
    "base",
    "update_time",
    "update_time_source",
    "create_time",
    "arch",
    "uuid",
    "size_bytes",
    "allocated_bytes",
    "uid",
    "gid",
    "owner",
    "group",
    "mode",
    "links",
    "access_time",
    "labels",
    "definition",
    "file_system",
    "compressor",
    "objects",
    "signatures",
    "encryption",
    "sbom",
    "content_digest",
    "raw_path",
    "bootstrap_history",
];

impl Column {
    /// Key in the JSON form.
    pub(super) fn key(&self) -> &str {
        &self.key
    }

    /// The heading.
    pub(super) fn title(&self) -> String {
        self.name.replace('_', " ").to_uppercase()
    }

    /// The value in a table: escaped, and cut to what a table can hold.
    pub(super) fn cell(&self, image: &Image, exact: bool) -> String {
        let shown = escape::terminal(&self.show(image, exact));
        if exact || self.key == "path" {
            shown
        } else {
            cut(&shown, CELL_MAX)
        }
    }

    /// A time, if the column is one.
    fn time<'i>(&self, image: &'i Image) -> Option<Option<&'i Timestamp>> {
        Some(match self.key.as_str() {
            "updateTime" => image.update_time.as_ref(),
            "createTime" => image.create_time.as_ref(),
            "accessTime" => image.access_time.as_ref(),
            _ => return None,
        })
    }

    /// The value as JSON has it, but for numbers, which JSON leaves out where they are zero.
    fn text<'i>(&self, image: &'i Image) -> Cow<'i, str> {
        fn name(name: &'static str) -> Cow<'static, str> {
            // JSON leaves out what is not known.
            if name.ends_with("_UNSPECIFIED") {
                ""
            } else {
                name
            }
            .into()
        }
        match self.key.as_str() {
            "path" => image.path.as_str().into(),
            "root" => image.root.as_str().into(),
            "imageId" => image.image_id.as_str().into(),
            "format" => name(image.format().as_str_name()),
            "formatVersion" => image.format_version.as_str().into(),
            "status" => name(image.status().as_str_name()),
            "statusMessage" => image.status_message.as_str().into(),
            "repository" => image.repository.as_str().into(),
            "tag" => image.tag.as_str().into(),
            "referenceSource" => name(image.reference_source().as_str_name()),
            "base" => image.base.as_str().into(),
            "updateTimeSource" => name(image.update_time_source().as_str_name()),
            "arch" => image.arch.as_str().into(),
            "uuid" => image.uuid.as_str().into(),
            "sizeBytes" => image.size_bytes.to_string().into(),
            "allocatedBytes" => image.allocated_bytes.to_string().into(),
            "uid" => image.uid.to_string().into(),
            "gid" => image.gid.to_string().into(),
            "owner" => image.owner.as_str().into(),
            "group" => image.group.as_str().into(),
            "mode" => image.mode.to_string().into(),
            "links" => image.links.to_string().into(),
            "definition" => image.definition.as_str().into(),
            "fileSystem" => image.file_system.as_str().into(),
            "compressor" => image.compressor.as_str().into(),
            "encryption" => name(image.encryption().as_str_name()),
            "sbom" => image.sbom.as_str().into(),
            "contentDigest" => image.content_digest.as_str().into(),
            _ => match serde_json::to_value(image)
                .ok()
                .as_mut()
                .and_then(|value| value.get_mut(&self.key))
                .map(Value::take)
            {
                None | Some(Value::Null) => "".into(),
                Some(Value::String(text)) => text.into(),
                Some(other) => other.to_string().into(),
            },
        }
    }

    /// Whether only view FULL has it.
    pub(super) fn is_detail(&self) -> bool {
        matches!(
            self.key.as_str(),
            "labels" | "definition" | "objects" | "bootstrapHistory"
        )
    }

    /// Whether it is shown flush right.
    pub(super) fn is_number(&self) -> bool {
        matches!(
            self.key.as_str(),
            "sizeBytes" | "allocatedBytes" | "uid" | "gid" | "links"
        )
    }

    /// Whether a number of bytes is shown in its unit.
    fn is_short(&self, exact: bool) -> bool {
        !exact && !self.name.ends_with("_bytes")
    }

    /// The value for people. `exact` shows what is stored.
    pub(super) fn show<'i>(&self, image: &'i Image, exact: bool) -> Cow<'i, str> {
        if !exact
            && !self.name.ends_with("_time")
            && let Some(Some(time)) = self.time(image)
            && let Ok(time) = jiff::Timestamp::try_from(*time)
        {
            return ago(time, jiff::Timestamp::now()).into();
        }
        let text = self.text(image);
        let prefixed = |prefix: &str| text.strip_prefix(prefix).unwrap_or(&text);
        let shown: Cow<'_, str> = match self.key.as_str() {
            "status" => prefixed("STATUS_").to_owned().into(),
            "format" => prefixed("FORMAT_").to_lowercase().replace('_', "-").into(),
            "encryption" => prefixed("ENCRYPTION_").to_lowercase().into(),
            "referenceSource" => prefixed("REFERENCE_SOURCE_").to_lowercase().into(),
            "updateTimeSource" => prefixed("TIME_SOURCE_").to_lowercase().into(),
            "imageId" | "contentDigest" if !exact => short_id(&text).into(),
            "mode" => format!("{:04o}", image.mode).into(),
            "sizeBytes" if self.is_short(exact) => size(image.size_bytes).into(),
            "allocatedBytes" if self.is_short(exact) => size(image.allocated_bytes).into(),
            "tag" if !exact && text.len() > 19 && text.starts_with("sha256:") => {
                format!("{}…", text.get(..19).unwrap_or_default()).into()
            }
            _ => text,
        };
        if shown.is_empty() { "-".into() } else { shown }
    }
}

/// `ImageId`, `imageID` and `image_id` are one.
fn snake_case(text: &str) -> String {
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
        let mut known = FIELDS.to_vec();
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
        for name in FIELDS {
            let column: Column = name.parse().unwrap();
            let expected = match json.get(&column.key) {
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
