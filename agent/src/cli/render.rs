//! Images for people: tables, templates, JSON lines.

use std::io::{self, Write};
use std::str::FromStr;

use anyhow::Context;
use sifter_proto::v1::Image;

use crate::escape;
use crate::words::short_id;

use super::column::Column;
use super::lines::Lines;
use super::table::{Table, push_cell};

/// Columns of a table unless others are asked for.
pub const DEFAULT_COLUMNS: &str = "repository,tag,image_id,updated,size,owner,status,path";

/// How images are printed.
#[derive(Debug, Clone, Default)]
pub struct Output {
    /// In which form.
    pub format: Format,
    /// Whole IDs and exact sizes and times.
    pub no_trunc: bool,
    /// No header line.
    pub no_header: bool,
}

/// The form in which images are printed.
#[derive(Debug, Clone)]
pub enum Format {
    /// Columns of a table.
    Columns(Vec<Column>),
    /// Text with fields in it.
    Template(Vec<Piece>),
    /// One JSON object a line.
    Json,
    /// Only image IDs; images without one are left out.
    Ids,
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
        Self::columns(DEFAULT_COLUMNS)
    }
}

impl Format {
    /// Those of these columns that there are.
    #[must_use]
    pub fn columns(names: &str) -> Self {
        let columns = names.split(',').filter_map(|name| name.parse().ok());
        Self::Columns(columns.collect())
    }
}

impl FromStr for Format {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // As with filters: rather a variable of a script that was never set.
        anyhow::ensure!(
            !text.trim().is_empty(),
            "an empty format: name fields, as in `repository,tag`, or leave the option out"
        );
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
            // A whole image is no cell of a table.
            let whole = pieces.iter().any(|piece| matches!(piece, Piece::Json));
            if !table || whole {
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

impl Output {
    /// Whether images can be printed as they come, in any order.
    #[must_use]
    pub fn streams(&self) -> bool {
        !matches!(self.format, Format::Columns(_))
    }

    /// Whether something is asked for that only view FULL has.
    #[must_use]
    pub fn needs_details(&self) -> bool {
        match &self.format {
            Format::Columns(columns) => columns.iter().any(Column::is_detail),
            Format::Template(pieces) => pieces
                .iter()
                .any(|piece| matches!(piece, Piece::Field(column) if column.is_detail())),
            Format::Json | Format::Ids => false,
        }
    }

    /// Whether all that is known of an image is printed.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        match &self.format {
            Format::Template(pieces) => pieces.iter().any(|piece| matches!(piece, Piece::Json)),
            Format::Json => true,
            Format::Columns(_) | Format::Ids => false,
        }
    }

    /// Appends an image as it is printed: a line or more, or, in a table, the cells of its row.
    ///
    /// # Errors
    ///
    /// What writing says.
    pub fn write_one(&self, out: &mut Vec<u8>, image: &Image) -> io::Result<()> {
        match &self.format {
            Format::Columns(columns) => {
                for column in columns {
                    push_cell(out, &column.cell(image, self.no_trunc));
                }
                return Ok(());
            }
            Format::Template(pieces) => self.write_pieces(out, pieces, image)?,
            Format::Json => super::json::write(out, image)?,
            // Whoever reads them line by line would take an empty one for an ID, and a path, too.
            Format::Ids if image.image_id.is_empty() => return Ok(()),
            Format::Ids if self.no_trunc => write!(out, "{}", image.image_id)?,
            Format::Ids => write!(out, "{}", short_id(&image.image_id))?,
        }
        writeln!(out)
    }

    fn write_pieces(&self, out: &mut Vec<u8>, pieces: &[Piece], image: &Image) -> io::Result<()> {
        for piece in pieces {
            match piece {
                Piece::Text(text) => write!(out, "{text}")?,
                Piece::Field(column) => {
                    let shown = column.show(image, self.no_trunc);
                    write!(out, "{}", escape::terminal(&shown))?;
                }
                Piece::Json => super::json::write(out, image)?,
            }
        }
        Ok(())
    }

    /// A table for images that are printed together, if they are.
    #[must_use]
    pub fn table(&self) -> Option<ImageTable> {
        let Format::Columns(columns) = &self.format else {
            return None;
        };
        let mut table = Table::new(columns.iter().map(Column::is_number));
        if !self.no_header {
            table.row(columns.iter().map(Column::title));
        }
        let head = table.len();
        Some(ImageTable { table, head })
    }
}

/// Images in a table.
#[derive(Debug)]
pub struct ImageTable {
    table: Table,
    /// Rows before the first image.
    head: usize,
}

impl ImageTable {
    /// Adds images, as [`Output::write_one`] makes them.
    pub fn append(&mut self, images: &Lines) {
        self.table.append(images);
    }

    /// How many images there are.
    #[must_use]
    pub fn images(&self) -> usize {
        self.table.len() - self.head
    }

    /// Prints the table.
    ///
    /// # Errors
    ///
    /// What writing says.
    pub fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        self.table.write(out)
    }

    /// Prints the table with the images in this order, by the numbers in which they were added.
    ///
    /// # Errors
    ///
    /// What writing says.
    pub fn write_in_order(
        &self,
        out: &mut dyn Write,
        order: impl IntoIterator<Item = usize>,
    ) -> io::Result<()> {
        let images = order.into_iter().map(|image| self.head + image);
        self.table.write_rows(out, (0..self.head).chain(images))
    }
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

#[cfg(test)]
mod tests {
    use super::{Column, Format, Lines, Output};
    use sifter_proto::v1::Image;

    fn printed(output: &Output, image: &Image) -> String {
        let mut written = Vec::new();
        if let Some(mut table) = output.table() {
            let mut images = Lines::default();
            let image = images.push(|text| output.write_one(text, image));
            image.unwrap();
            table.append(&images);
            table.write(&mut written).unwrap();
        } else {
            output.write_one(&mut written, image).unwrap();
        }
        String::from_utf8(written).unwrap()
    }

    #[test]
    fn templates_take_the_spellings_that_people_know() {
        let image = Image {
            repository: "ubuntu".to_owned(),
            tag: "22.04\u{1b}[2J".to_owned(),
            size_bytes: 45_056,
            uid: 4711,
            group: "users".to_owned(),
            gid: 100,
            ..Image::default()
        };
        for (template, text) in [
            ("{{.Repository}}:{{ tag }}", "ubuntu:22.04\\u{1b}[2J\n"),
            ("{{.Size}}\\t{{.size_bytes}}", "45.1 kB\t45056\n"),
            ("{{.Base}}", "-\n"),
            // Nobody has that number any more.
            ("{{.Owner}}:{{.Group}}", "4711:users\n"),
            ("{{.Allocated}}", "0 B\n"),
            (
                "table {{.Tag}}\\t{{.Size}}",
                "TAG                SIZE\n22.04\\u{1b}[2J  45.1 kB\n",
            ),
        ] {
            let output = Output {
                format: template.parse().unwrap(),
                ..Output::default()
            };
            assert_eq!(printed(&output, &image), text, "{template}");
        }
        let json = "{\"repository\":\"ubuntu\",\"tag\":\"22.04\\u001b[2J\",\"sizeBytes\":\"45056\",\
             \"uid\":4711,\"gid\":100,\"group\":\"users\"}\n";
        for (template, text) in [
            ("{{json .}}", json.to_owned()),
            ("table {{json .}}", json.to_owned()),
            ("table {{.Repository}} {{json .}}", format!("ubuntu {json}")),
        ] {
            let output = Output {
                format: template.parse().unwrap(),
                ..Output::default()
            };
            assert!(output.is_whole() && output.streams(), "{template}");
            assert_eq!(printed(&output, &image), text, "{template}");
        }
        assert!("ImageID".parse::<Column>().is_ok());
        assert!(matches!("json".parse(), Ok(Format::Json)));
        assert!(matches!("table".parse(), Ok(Format::Columns(_))));
    }

    #[test]
    fn what_is_wrong_with_a_format_is_said() {
        for (format, problem) in [
            ("", "an empty format: "),
            (" ", "an empty format: "),
            ("repository,,tag", "a field without a name"),
            ("repository,", "a field without a name"),
            ("{{.}}", "a field without a name"),
            ("table ", "a field without a name"),
            ("repository,nonsense", "`nonsense`: no such field; "),
            ("{{.NoSuch}}", "`NoSuch`: no such field; "),
            ("{{.Tag", "without the closing braces"),
        ] {
            let error = format.parse::<Format>().unwrap_err().to_string();
            assert!(error.contains(problem), "{format:?}: {error}");
        }
    }

    /// What is wrong stands at its end as often as not: `…, but the file has 20000`.
    #[test]
    fn what_is_wrong_with_an_image_is_said_whole() {
        let image = Image {
            status_message: "x".repeat(500),
            ..Image::default()
        };
        let output = Output {
            format: "status_message".parse().unwrap(),
            no_header: true,
            no_trunc: false,
        };
        assert_eq!(printed(&output, &image).trim_end(), image.status_message);
    }

    #[test]
    fn an_image_without_an_id_is_no_line_of_the_quiet_output() {
        let output = Output {
            format: Format::Ids,
            ..Output::default()
        };
        let image = |id: &str| Image {
            image_id: id.to_owned(),
            path: "/a".to_owned(),
            ..Image::default()
        };
        assert_eq!(
            printed(&output, &image("sha256:0123456789abcdef")),
            "0123456789ab\n"
        );
        assert_eq!(printed(&output, &image("")), "");
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
            };
            let line = printed(&output, &image);
            assert_eq!(line.trim_end().chars().count(), width);
        }
    }
}
