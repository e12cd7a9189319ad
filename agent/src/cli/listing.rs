//! What `ls` and `scan` have in common: which images, in which order, and how they are printed.

use std::io::{self, BufWriter, Stdout, Write};
use std::mem;

use sifter_proto::v1::Image;

use crate::catalog::{FileTime, Query, quote};

use super::duplicates::Duplicates;
use super::lines::Lines;
use super::render::{Format, ImageTable, Output};
use super::usage::{GroupBy, Groups, Sum};
use super::{Exit, WithExit};

/// Which images, and how they are printed.
#[derive(Debug, clap::Args)]
pub struct ListingArgs {
    /// Only images that match: `repository=samtools*`, `size>1G`, `status=FAILURE`, `age>90d`;
    /// several: all must match
    ///
    /// Fields have the names of the JSON, written `image_id`; the short forms are `id`, `digest`, `size`, `allocated`, `owner`,
    /// `group`, `updated`, `created` and `accessed`; there are `reference`, `signed`, `encrypted`, `fingerprint`, `age`,
    /// `unused` and `label.KEY` besides. In texts `*` stands for any characters, and `?` for one.
    #[arg(long, short, value_name = "TERM", value_parser = parse_term)]
    filter: Vec<String>,

    /// Order by fields: `size desc,path` or `-size,path`
    #[arg(
        long,
        short,
        value_name = "FIELDS",
        allow_hyphen_values = true,
        value_parser = parse_order
    )]
    sort: Option<String>,

    /// Count images and bytes by a field instead of listing them
    #[arg(long, value_name = "FIELD", conflicts_with_all = ["format", "quiet"])]
    group_by: Option<GroupBy>,

    /// Only images that are on disk more than once, and the bytes that could be saved
    ///
    /// By the digest of their content where an agent has computed it (`content_digest` in its configuration), else
    /// by image ID and size.
    #[arg(long, conflicts_with_all = ["format", "group_by", "sort"])]
    duplicates: bool,

    /// End with the number of images and their bytes
    #[arg(long, conflicts_with = "quiet")]
    totals: bool,

    /// One JSON object a line, in the spelling of the gRPC contract
    #[arg(long, conflicts_with_all = ["format", "quiet"])]
    json: bool,

    /// Columns (`repository,tag,size`), template (`{{.Repository}}:{{.Tag}}`) or `json`
    #[arg(long, value_name = "FORMAT", value_parser = parse_format)]
    format: Option<Format>,

    /// Only image IDs; images without one are left out
    #[arg(long, short, conflicts_with = "format")]
    quiet: bool,

    /// Whole IDs, sizes in bytes, exact times
    #[arg(long)]
    no_trunc: bool,

    /// No header line
    #[arg(long, alias = "noheading")]
    no_header: bool,
}

/// An option without a value, from a variable of a script that was never set, say, is no wish for
/// all images.
pub(super) fn parse_term(text: &str) -> Result<String, String> {
    if text.trim().is_empty() {
        return Err(
            "an empty term: write one, as in `status=READY`, or leave the option out".into(),
        );
    }
    // What a shell leaves of `size>1G` has the rest in a file by now.
    let Some(operator) = text.find(['=', '!', '<', '>']) else {
        return Err(
            "no operator (= != < <= > >=); the shell takes `<` and `>` for itself unless the term is quoted: 'size>1G'"
                .into(),
        );
    };
    if text[..operator].ends_with(' ') {
        return Err("a blank before the operator: write it without, as in 'size>1G'".into());
    }
    Ok(text.to_owned())
}

fn parse_order(text: &str) -> Result<String, String> {
    if text.trim().is_empty() {
        return Err(
            "an empty order: write fields, as in `size desc`, or leave the option out".into(),
        );
    }
    Ok(text.to_owned())
}

fn parse_format(text: &str) -> Result<Format, String> {
    text.parse()
        .map_err(|error: anyhow::Error| error.to_string())
}

impl ListingArgs {
    /// Adds a term to the filter.
    pub fn also(&mut self, term: String) {
        self.filter.push(term);
    }

    /// Whether groups are printed instead of images.
    #[must_use]
    pub fn is_grouped(&self) -> bool {
        self.group_by.is_some()
    }

    /// The order, unless one was asked for.
    pub fn sort_by_default(&mut self, fields: &str) {
        self.sort.get_or_insert_with(|| fields.to_owned());
    }

    /// The columns, unless others were asked for.
    pub fn columns_by_default(&mut self, columns: &str) {
        self.format.get_or_insert_with(|| Format::columns(columns));
    }

    /// Ends with totals whatever was asked for, where that does not spoil the output.
    pub fn total_by_default(&mut self) {
        self.totals |= !self.output().streams();
    }

    /// The filter as one text.
    #[must_use]
    pub fn filter(&self) -> String {
        let terms: Vec<String> = self.filter.iter().map(|term| quote(term)).collect();
        terms.join(" ")
    }

    /// The order of images; groups have their own.
    #[must_use]
    pub fn order_by(&self) -> &str {
        match self.group_by {
            None => self.sort.as_deref().unwrap_or_default(),
            Some(_) => "",
        }
    }

    /// The query, for whoever selects here and not in the agent.
    ///
    /// # Errors
    ///
    /// What is wrong with the filter or the order.
    pub fn query(&self) -> anyhow::Result<Query> {
        parse(&self.filter(), self.order_by())
    }

    /// The order of all images.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn order(&self) -> anyhow::Result<Query> {
        parse("", self.order_by())
    }

    /// How images are printed.
    #[must_use]
    pub fn output(&self) -> Output {
        let format = match &self.format {
            _ if self.json => Format::Json,
            _ if self.quiet => Format::Ids,
            asked => asked.clone().unwrap_or_default(),
        };
        Output {
            format,
            no_trunc: self.no_trunc,
            no_header: self.no_header,
        }
    }

    /// A listing to standard output; `local` if the images are on this machine.
    ///
    /// # Errors
    ///
    /// Groups cannot be ordered as asked.
    pub fn start(&self, local: bool) -> anyhow::Result<Listing> {
        let report = match self.group_by {
            Some(by) => Some(Report::Groups(Groups::new(by, self.sort.as_deref())?)),
            None if self.duplicates => Some(Report::Duplicates(Duplicates::new(local))),
            None => None,
        };
        let output = self.output();
        let table = output.table().filter(|_| report.is_none());
        Ok(Listing {
            output,
            report,
            totals: self.totals.then(Sum::default),
            held: table.map(Held::Table),
            line: Lines::default(),
            // What one directory of a scan gives is written past it, uncopied.
            out: BufWriter::with_capacity(16 << 10, io::stdout()),
        })
    }
}

fn parse(filter: &str, order_by: &str) -> anyhow::Result<Query> {
    Query::parse(filter, order_by, FileTime::now())
        .map_err(|error| WithExit::error(Exit::Usage, error.to_string()))
}

/// Prints images as they come, or together as a table.
pub struct Listing {
    output: Output,
    report: Option<Report>,
    totals: Option<Sum>,
    /// What waits for the last image.
    held: Option<Held>,
    /// The image that is taken.
    line: Lines,
    out: BufWriter<Stdout>,
}

/// What is printed instead of single images.
enum Report {
    Groups(Groups),
    Duplicates(Duplicates),
}

/// Images that are printed together.
enum Held {
    Table(ImageTable),
    Lines(Lines),
}

impl Default for Held {
    fn default() -> Self {
        Self::Lines(Lines::default())
    }
}

impl Listing {
    /// How single images are printed: whoever makes them can then make their lines, too. `None` where a report is
    /// printed instead.
    #[must_use]
    pub fn output(&self) -> Option<&Output> {
        self.report.is_none().then_some(&self.output)
    }

    /// Whether images are counted.
    #[must_use]
    pub fn counts(&self) -> bool {
        self.totals.is_some() || self.report.is_some()
    }

    /// Whether images are printed at once, in no order unless one is asked for.
    #[must_use]
    pub fn streams(&self) -> bool {
        self.report.is_none() && self.output.streams()
    }

    /// Whether groups or duplicates are printed instead of single images.
    #[must_use]
    pub fn is_report(&self) -> bool {
        self.report.is_some()
    }

    /// Prints no image before [`Listing::finish_in_order`].
    pub fn hold(&mut self) {
        self.held.get_or_insert_default();
    }

    /// Takes the next image.
    ///
    /// # Errors
    ///
    /// What writing says.
    pub fn image(&mut self, image: &Image) -> io::Result<()> {
        self.count(image);
        if self.report.is_some() {
            return Ok(());
        }
        let mut line = mem::take(&mut self.line);
        line.clear();
        line.push(|text| self.output.write_one(text, image))?;
        self.lines(&line)?;
        self.line = line;
        Ok(())
    }

    /// Counts an image whose line is made elsewhere.
    pub fn count(&mut self, image: &Image) {
        if let Some(sum) = &mut self.totals {
            sum.add(image);
        }
        match &mut self.report {
            None => {}
            Some(Report::Groups(groups)) => groups.add(image),
            Some(Report::Duplicates(duplicates)) => duplicates.add(image.clone()),
        }
    }

    /// Takes images as [`Output::write_one`] makes them. Gives the number of the first, if they wait for
    /// their places: how many waited already.
    ///
    /// # Errors
    ///
    /// What writing says.
    pub fn lines(&mut self, lines: &Lines) -> io::Result<usize> {
        match &mut self.held {
            None => write_texts(&mut self.out, lines).map(|()| 0),
            Some(Held::Table(table)) => {
                let first = table.images();
                table.append(lines);
                Ok(first)
            }
            Some(Held::Lines(held)) => {
                let first = held.len();
                held.append(lines);
                Ok(first)
            }
        }
    }

    /// Prints what was kept, and the totals.
    ///
    /// # Errors
    ///
    /// What writing says.
    pub fn finish(mut self) -> io::Result<()> {
        match &self.held {
            None => {}
            Some(Held::Table(table)) => table.write(&mut self.out)?,
            Some(Held::Lines(lines)) => write_texts(&mut self.out, lines)?,
        }
        self.end()
    }

    /// The same, with the images in this order, by the numbers that [`Listing::lines`] gave.
    ///
    /// # Errors
    ///
    /// What writing says.
    pub fn finish_in_order(mut self, order: impl IntoIterator<Item = usize>) -> io::Result<()> {
        match &self.held {
            None => {}
            Some(Held::Table(table)) => table.write_in_order(&mut self.out, order)?,
            Some(Held::Lines(lines)) => {
                for line in order.into_iter().filter_map(|image| lines.get(image)) {
                    self.out.write_all(line)?;
                }
            }
        }
        self.end()
    }

    /// Prints the report, and the totals.
    fn end(mut self) -> io::Result<()> {
        let out = &mut self.out;
        let is_json = matches!(self.output.format, Format::Json);
        match self.report {
            Some(Report::Duplicates(duplicates)) => {
                // With totals of its own.
                duplicates.write(out, &self.output)?;
                return out.flush();
            }
            Some(Report::Groups(groups)) if is_json => groups.write_json(out)?,
            Some(Report::Groups(groups)) => {
                let (no_header, exact) = (self.output.no_header, self.output.no_trunc);
                groups.write_table(out, no_header, exact, self.totals.as_ref())?;
                return out.flush();
            }
            None => {}
        }
        if let Some(sum) = &self.totals {
            if is_json {
                writeln!(out, "{}", serde_json::json!({"totals": sum.json()}))?;
            } else {
                writeln!(out, "{}", sum.line())?;
            }
        }
        out.flush()
    }
}

fn write_texts(out: &mut dyn Write, lines: &Lines) -> io::Result<()> {
    lines.texts().try_for_each(|text| out.write_all(text))
}
