//! Images for people: tables, templates, JSON lines.

use std::io::{self, Write};
use std::str::FromStr;

use anyhow::{Context, bail};
use comfy_table::{CellAlignment, Table, TableStyle};
use serde_json::Value;
use sifter_proto::v1::Image;

use crate::escape;

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
        if text.contains("{{") {
            return template(text).map(Self::Template);
        }
        let columns = text
            .strip_prefix("table ")
            .unwrap_or(text)
            .split(',')
            .map(str::parse)
            .collect::<Result<_, _>>()?;
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
    pub fn write_one(&self, out: &mut dyn Write, image: &Image) -> io::Result<()> {
        if self.json {
            serde_json::to_writer(&mut *out, image)?;
        } else if self.quiet {
            let id = if self.no_trunc {
                image.image_id.clone()
            } else {
                short_id(&image.image_id)
            };
            write!(out, "{id}")?;
        } else if let Format::Template(pieces) = &self.format {
            let value = serde_json::to_value(image)?;
            for piece in pieces {
                match piece {
                    Piece::Text(text) => write!(out, "{text}")?,
                    Piece::Field(column) => {
                        write!(out, "{}", escape::terminal(&column.show(&value, self.no_trunc)))?;
                    }
                    Piece::Json => write!(out, "{value}")?,
                }
            }
        }
        writeln!(out)
    }

    /// Prints a table.
    ///
    /// # Errors
    ///
    /// What writing says.
    pub fn write_table(&self, out: &mut dyn Write, images: &[Image]) -> io::Result<()> {
        let Format::Columns(columns) = &self.format else {
            return images.iter().try_for_each(|image| self.write_one(out, image));
        };
        let mut table = Table::new();
        table.load_style(TableStyle::new());
        if !self.no_header {
            table.set_header(columns.iter().map(Column::title));
        }
        for image in images {
            let value = serde_json::to_value(image)?;
            table.add_row(
                columns
                    .iter()
                    .map(|column| escape::terminal(&column.show(&value, self.no_trunc))),
            );
        }
        for (index, column) in columns.iter().enumerate() {
            if let Some(shown) = table.column_mut(index) {
                shown.set_padding((0, 2));
                if column.is_number() {
                    shown.set_cell_alignment(CellAlignment::Right);
                }
            }
        }
        for line in table.lines() {
            writeln!(out, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

impl Column {
    fn title(&self) -> String {
        self.name.replace('_', " ").to_uppercase()
    }

    fn is_number(&self) -> bool {
        matches!(
            self.key.as_str(),
            "sizeBytes" | "allocatedBytes" | "uid" | "gid" | "links"
        )
    }

    /// The value for people. `exact` shows what is stored.
    fn show(&self, image: &Value, exact: bool) -> String {
        let value = image.get(&self.key);
        let text = match value {
            None | Some(Value::Null) => String::new(),
            Some(Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
        };
        let prefixed = |prefix: &str| text.strip_prefix(prefix).unwrap_or(&text).to_owned();
        let shown = match self.key.as_str() {
            "status" => prefixed("STATUS_"),
            "format" => prefixed("FORMAT_").to_lowercase().replace('_', "-"),
            "encryption" => prefixed("ENCRYPTION_").to_lowercase(),
            "referenceSource" => prefixed("REFERENCE_SOURCE_").to_lowercase(),
            "updateTimeSource" => prefixed("TIME_SOURCE_").to_lowercase(),
            "imageId" | "contentDigest" if !exact => short_id(&text),
            "mode" => text.parse().map_or(text, |mode: u32| format!("{mode:04o}")),
            "sizeBytes" | "allocatedBytes" if !exact && self.name == "size" => {
                size(text.parse().unwrap_or(0))
            }
            "updateTime" | "createTime" | "accessTime" if !exact && !self.name.ends_with("_time") => {
                text.parse().map_or(text, |time| ago(time, jiff::Timestamp::now()))
            }
            "tag" if !exact && text.len() > 19 && text.starts_with("sha256:") => {
                format!("{}…", text.get(..19).unwrap_or_default())
            }
            _ => text,
        };
        if shown.is_empty() { "-".to_owned() } else { shown }
    }
}

/// The first 12 digits, as docker shows them.
#[must_use]
pub fn short_id(id: &str) -> String {
    let digits = id.strip_prefix("sha256:").unwrap_or(id);
    digits.get(..12).unwrap_or(digits).to_owned()
}

/// A size in the units of `docker images` (powers of 1000).
#[must_use]
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["kB", "MB", "GB", "TB", "PB", "EB"];
    if bytes < 1000 {
        return format!("{bytes} B");
    }
    // Three digits, without floating point: `scaled` is in tenths or hundredths of the unit.
    let mut unit = 0;
    let mut divisor: u64 = 1000;
    while unit + 1 < UNITS.len() && bytes / divisor >= 1000 {
        divisor *= 1000;
        unit += 1;
    }
    let whole = bytes / divisor;
    let rest = bytes % divisor;
    let name = UNITS[unit];
    match whole {
        0..10 => format!("{whole}.{:02} {name}", rest / (divisor / 100)),
        10..100 => format!("{whole}.{} {name}", rest / (divisor / 10)),
        _ => format!("{whole} {name}"),
    }
}

/// How long ago, in the words of `docker images`.
#[must_use]
pub fn ago(time: jiff::Timestamp, now: jiff::Timestamp) -> String {
    let seconds = now.duration_since(time).as_secs();
    if seconds < 0 {
        return format!("{}", time.strftime("%Y-%m-%d"));
    }
    let (count, unit) = match seconds {
        0..60 => (seconds, "second"),
        60..3600 => (seconds / 60, "minute"),
        3600..172_800 => (seconds / 3600, "hour"),
        172_800..1_209_600 => (seconds / 86_400, "day"),
        1_209_600..5_184_000 => (seconds / 604_800, "week"),
        5_184_000..63_072_000 => (seconds / 2_592_000, "month"),
        _ => (seconds / 31_536_000, "year"),
    };
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {unit}{plural} ago")
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
                    let entry = entry.as_str().map_or_else(|| entry.to_string(), str::to_owned);
                    writeln!(out, "    {} = {}", escape::terminal(key), escape::terminal(&entry))?;
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
                let shown = escape::terminal(&column.show(&value, true));
                writeln!(out, "{title:<22}{shown}")?;
            }
        }
    }
    Ok(())
}

fn line_of(entry: &Value) -> String {
    let Value::Object(fields) = entry else {
        return entry.as_str().map_or_else(|| entry.to_string(), str::to_owned);
    };
    fields
        .iter()
        .map(|(key, value)| {
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            format!("{key}={value}")
        })
        .collect::<Vec<_>>()
        .join(" ")
}

/// One line that tells how far a scan is.
#[must_use]
pub fn progress_line(root: &std::path::Path, progress: &crate::scan::Progress) -> String {
    let counts = progress.counts();
    format!(
        "{}: {} images in {} files, {} directories; {} pending, {} in flight, {:.1?}",
        escape::path(root),
        counts.images,
        counts.files,
        counts.directories,
        progress.pending(),
        progress.width(),
        progress.elapsed(),
    )
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
    use super::{Column, FIELDS, Format, Output, ago, size};
    use prost::Message as _;
    use sifter_proto::v1::Image;

    #[test]
    fn sizes_have_three_digits() {
        for (bytes, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.00 kB"),
            (1_234_567, "1.23 MB"),
            (45_056, "45.0 kB"),
            (999_999, "999 kB"),
            (12_345_678_901, "12.3 GB"),
            (u64::MAX, "18.4 EB"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }

    #[test]
    fn ages_are_told_in_words() {
        let now: jiff::Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        for (time, text) in [
            ("2025-12-31T23:59:59Z", "1 second ago"),
            ("2025-12-31T23:00:00Z", "1 hour ago"),
            ("2025-12-20T00:00:00Z", "12 days ago"),
            ("2025-11-20T00:00:00Z", "6 weeks ago"),
            ("2020-01-01T00:00:00Z", "6 years ago"),
            ("2027-01-01T00:00:00Z", "2027-01-01"),
        ] {
            assert_eq!(ago(time.parse().unwrap(), now), text);
        }
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
        ] {
            let output = Output {
                format: template.parse().unwrap(),
                ..Output::default()
            };
            let mut written = Vec::new();
            output.write_one(&mut written, &image).unwrap();
            assert_eq!(String::from_utf8(written).unwrap(), text, "{template}");
        }
        assert!("{{.NoSuch}}".parse::<Format>().is_err());
        assert!("{{.Tag".parse::<Format>().is_err());
        assert!("repository,nonsense".parse::<Format>().is_err());
        assert!("ImageID".parse::<Column>().is_ok());
    }
}
