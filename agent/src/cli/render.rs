//! Images for people: tables, templates, JSON lines.

use std::borrow::Cow;
use std::io::{self, Write};
use std::str::FromStr;

use anyhow::{Context, bail};
use comfy_table::{CellAlignment, Table, TableStyle};
use serde_json::Value;
use sifter_proto::Timestamp;
use sifter_proto::v1::Image;

use crate::escape;

use super::words::{ago, cut, short_id, size};

/// Longest text of a cell, but for paths: one long name must not make every line as long. The
/// longest names in use (`quay.io/biocontainers/bioconductor-…`) are shorter.
const CELL_MAX: usize = 72;

/// Columns of a table unless others are asked for.
pub const DEFAULT_COLUMNS: &str = "repository,tag,image_id,updated,size,owner,status,path";

/// How images are printed.
#[derive(Debug, Clone, Default)]
pub struct Output {
    /// One JSON object a line.
    #[allow(clippy::struct_field_names)]
    pub json: bool,
    /// Only image IDs.
    pub quiet: bool,
    /// Whole IDs and exact sizes and times.
    pub no_trunc: bool,
    /// No header line.
    pub no_header: bool,
    /// Columns or template.
    pub format: Format,
}

/// Columns or a template.
#[derive(Debug, Clone)]
pub enum Format {
    /// Columns of a table.
    Columns(Vec<Column>),
    /// Text with fields in it.
    Template(Vec<Piece>),
    /// One JSON object a line, as podman's `--format json`.
    Json,
}

/// A column: a field of `Image`, or one of the short forms for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// As written, in snake case.
    name: String,
    /// Key in the JSON form.
    key: String,
}

/// A piece of a template.
#[derive(Debug, Clone)]
pub enum Piece {
    /// As is.
    Text(String),
    /// The value of a field.
    Field(Column),
    /// The whole image as JSON.
    Json,
}

impl Default for Format {
    fn default() -> Self {
        Self::Columns(
            DEFAULT_COLUMNS
                .split(',')
                .filter_map(|name| name.parse().ok())
                .collect(),
        )
    }
}

impl FromStr for Format {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "json" {
            return Ok(Self::Json);
        }
        if text == "table" {
            return Ok(Self::default());
        }
        let (table, text) = match text.strip_prefix("table ") {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        if text.contains("{{") {
            let pieces = template(text)?;
            if !table {
                return Ok(Self::Template(pieces));
            }
            // `table {{.Repository}}\t{{.Tag}}`, as docker has it: the fields are the columns.
            let columns = pieces.into_iter().filter_map(|piece| match piece {
                Piece::Field(column) => Some(column),
                Piece::Text(_) | Piece::Json => None,
            });
            return Ok(Self::Columns(columns.collect()));
        }
        let columns = text.split(',').map(str::parse).collect::<Result<_, _>>()?;
        Ok(Self::Columns(columns))
    }
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
const FIELDS: &[&str] = &[
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

impl Output {
    /// Whether images can be printed as they come, in any order.
    #[must_use]
    pub fn streams(&self) -> bool {
        self.json || self.quiet || matches!(self.format, Format::Template(_))
    }

    /// Prints one image of a streaming form.
    ///
    /// # Errors
    ///
    /// What writing says.
    pub fn write_one(&self, out: &mut Vec<u8>, image: &Image) -> io::Result<()> {
        if self.json {
            super::json::write(out, image)?;
        } else if self.quiet {
            let id = if self.no_trunc {
                image.image_id.clone()
            } else {
                short_id(&image.image_id)
            };
            write!(out, "{id}")?;
        } else if let Format::Template(pieces) = &self.format {
            for piece in pieces {
                match piece {
                    Piece::Text(text) => write!(out, "{text}")?,
                    Piece::Field(column) => {
                        write!(
                            out,
                            "{}",
                            escape::terminal(&column.show(image, self.no_trunc))
                        )?;
                    }
                    Piece::Json => write!(out, "{}", serde_json::to_value(image)?)?,
                }
            }
        }
        writeln!(out)
    }

    /// A table for images that are printed together.
    #[must_use]
    pub fn table(&self) -> ImageTable {
        let mut table = Table::new();
        table.load_style(TableStyle::new());
        let columns = match &self.format {
            Format::Columns(columns) => columns.clone(),
            // These are not printed in tables.
            Format::Template(_) | Format::Json => Vec::new(),
        };
        if !self.no_header {
            table.set_header(columns.iter().map(Column::title));
        }
        ImageTable {
            table,
            columns,
            no_trunc: self.no_trunc,
        }
    }
}

/// Images in a table. It holds what it shows of them only.
#[derive(Debug)]
pub struct ImageTable {
    table: Table,
    columns: Vec<Column>,
    no_trunc: bool,
}

impl ImageTable {
    /// Adds an image.
    pub fn image(&mut self, image: &Image) {
        let cells = self.columns.iter();
        self.table
            .add_row(cells.map(|column| column.cell(image, self.no_trunc)));
    }

    /// Prints the table.
    ///
    /// # Errors
    ///
    /// What writing says.
    pub fn write(mut self, out: &mut dyn Write) -> io::Result<()> {
        for (index, column) in self.columns.iter().enumerate() {
            if let Some(shown) = self.table.column_mut(index) {
                shown.set_padding((0, 2));
                if column.is_number() {
                    shown.set_cell_alignment(CellAlignment::Right);
                }
            }
        }
        for line in self.table.lines() {
            writeln!(out, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

impl Column {
    fn title(&self) -> String {
        self.name.replace('_', " ").to_uppercase()
    }

    /// The value in a table: escaped, and cut to what a table can hold.
    fn cell(&self, image: &Image, exact: bool) -> String {
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

    fn is_number(&self) -> bool {
        matches!(
            self.key.as_str(),
            "sizeBytes" | "allocatedBytes" | "uid" | "gid" | "links"
        )
    }

    /// The value for people. `exact` shows what is stored.
    fn show(&self, image: &Image, exact: bool) -> String {
        if !exact
            && !self.name.ends_with("_time")
            && let Some(Some(time)) = self.time(image)
            && let Ok(time) = jiff::Timestamp::try_from(*time)
        {
            return ago(time, jiff::Timestamp::now());
        }
        let text = self.text(image).into_owned();
        let prefixed = |prefix: &str| text.strip_prefix(prefix).unwrap_or(&text).to_owned();
        let shown = match self.key.as_str() {
            "status" => prefixed("STATUS_"),
            "format" => prefixed("FORMAT_").to_lowercase().replace('_', "-"),
            "encryption" => prefixed("ENCRYPTION_").to_lowercase(),
            "referenceSource" => prefixed("REFERENCE_SOURCE_").to_lowercase(),
            "updateTimeSource" => prefixed("TIME_SOURCE_").to_lowercase(),
            "imageId" | "contentDigest" if !exact => short_id(&text),
            "mode" => text.parse().map_or(text, |mode: u32| format!("{mode:04o}")),
            "sizeBytes" | "allocatedBytes" if !exact && !self.name.ends_with("_bytes") => {
                size(text.parse().unwrap_or(0))
            }
            "tag" if !exact && text.len() > 19 && text.starts_with("sha256:") => {
                format!("{}…", text.get(..19).unwrap_or_default())
            }
            _ => text,
        };
        if shown.is_empty() {
            "-".to_owned()
        } else {
            shown
        }
    }
}

/// Everything that is known of an image, a line a field.
///
/// # Errors
///
/// What writing says.
pub fn write_all(out: &mut dyn Write, image: &Image) -> io::Result<()> {
    let value = serde_json::to_value(image)?;
    for name in FIELDS {
        let Ok(column) = name.parse::<Column>() else {
            continue;
        };
        let title = format!("{}:", name.replace('_', " "));
        match value.get(&column.key) {
            None | Some(Value::Null) => {}
            Some(Value::Object(entries)) => {
                writeln!(out, "{title}")?;
                for (key, entry) in entries {
                    let entry = entry
                        .as_str()
                        .map_or_else(|| entry.to_string(), str::to_owned);
                    writeln!(
                        out,
                        "    {} = {}",
                        escape::terminal(key),
                        escape::terminal(&entry)
                    )?;
                }
            }
            Some(Value::Array(entries)) => {
                writeln!(out, "{title}")?;
                for entry in entries {
                    writeln!(out, "    {}", escape::terminal(&line_of(entry)))?;
                }
            }
            Some(Value::String(text)) if text.contains('\n') => {
                writeln!(out, "{title}")?;
                for line in text.lines() {
                    writeln!(out, "    {}", escape::terminal(line))?;
                }
            }
            Some(_) => {
                let shown = escape::terminal(&column.show(image, true));
                writeln!(out, "{title:<22}{shown}")?;
            }
        }
    }
    Ok(())
}

fn line_of(entry: &Value) -> String {
    let Value::Object(fields) = entry else {
        return entry
            .as_str()
            .map_or_else(|| entry.to_string(), str::to_owned);
    };
    fields
        .iter()
        .map(|(key, value)| {
            let value = value
                .as_str()
                .map_or_else(|| value.to_string(), str::to_owned);
            format!("{key}={value}")
        })
        .collect::<Vec<_>>()
        .join(" ")
}

fn template(text: &str) -> anyhow::Result<Vec<Piece>> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("{{") {
        let (field, after) = after
            .split_once("}}")
            .with_context(|| format!("template without the closing braces: {text}"))?;
        if !before.is_empty() {
            pieces.push(Piece::Text(unescape(before)));
        }
        let field = field.trim();
        pieces.push(if field == "json ." {
            Piece::Json
        } else {
            Piece::Field(field.trim_start_matches('.').parse()?)
        });
        rest = after;
    }
    if !rest.is_empty() {
        pieces.push(Piece::Text(unescape(rest)));
    }
    Ok(pieces)
}

fn unescape(text: &str) -> String {
    text.replace("\\t", "\t").replace("\\n", "\n")
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
    use super::{Column, FIELDS, Format, Output};
    use prost::Message as _;
    use sifter_proto::v1::Image;

    fn printed(output: &Output, image: &Image) -> String {
        let mut written = Vec::new();
        if output.streams() {
            output.write_one(&mut written, image).unwrap();
        } else {
            let mut table = output.table();
            table.image(image);
            table.write(&mut written).unwrap();
        }
        String::from_utf8(written).unwrap()
    }

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
        let status: Column = "status".parse().unwrap();
        assert_eq!(status.show(&Image::default(), false), "-");
    }

    #[test]
    fn templates_take_the_spellings_that_people_know() {
        let image = Image {
            repository: "ubuntu".to_owned(),
            tag: "22.04\u{1b}[2J".to_owned(),
            size_bytes: 45_056,
            ..Image::default()
        };
        for (template, text) in [
            ("{{.Repository}}:{{ tag }}", "ubuntu:22.04\\u{1b}[2J\n"),
            ("{{.Size}}\\t{{.size_bytes}}", "45.0 kB\t45056\n"),
            ("{{.Owner}}", "-\n"),
            ("{{.Allocated}}", "0 B\n"),
            (
                "table {{.Tag}}\\t{{.Size}}",
                "TAG                SIZE\n22.04\\u{1b}[2J  45.0 kB\n",
            ),
        ] {
            let output = Output {
                format: template.parse().unwrap(),
                ..Output::default()
            };
            assert_eq!(printed(&output, &image), text, "{template}");
        }
        assert!("{{.NoSuch}}".parse::<Format>().is_err());
        assert!("{{.Tag".parse::<Format>().is_err());
        assert!("repository,nonsense".parse::<Format>().is_err());
        assert!("ImageID".parse::<Column>().is_ok());
        assert!(matches!("json".parse(), Ok(Format::Json)));
        assert!(matches!("table".parse(), Ok(Format::Columns(_))));
    }

    #[test]
    fn one_long_name_does_not_widen_the_table() {
        let long = "x".repeat(500);
        let image = Image {
            repository: long.clone(),
            path: format!("/{long}"),
            ..Image::default()
        };
        for (no_trunc, width) in [(false, 72 + 2 + 501), (true, 500 + 2 + 501)] {
            let output = Output {
                format: "repository,path".parse().unwrap(),
                no_header: true,
                no_trunc,
                ..Output::default()
            };
            let line = printed(&output, &image);
            assert_eq!(line.trim_end().chars().count(), width);
        }
    }
}
