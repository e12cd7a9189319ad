//! From what a scan finds to what is printed: filters and orders as the agent does, with the same
//! code, over the rows of this one scan.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::mem::ManuallyDrop;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use sifter_image::Image;
use sifter_proto::v1;

use crate::catalog::{
    Commons, Content, Found, KeptRow, Labels, Query, Row, Snapshot, StoreError, join_path,
};
use crate::service::{Owners, convert};

use super::lines::Lines;
use super::listing::{Listing, ListingArgs};
use super::render::Output;

/// Prints what a scan finds: at once, or in order at the end. The threads of a scan share it, and
/// each makes the lines of what it found itself.
pub struct Printer {
    query: Query,
    /// The order alone: what is kept has matched already.
    order: Query,
    /// Whether the order was asked for: lines then wait for the last of them.
    ordered: bool,
    full: bool,
    /// How lines are made, unless groups are printed.
    output: Option<Output>,
    /// Whether the listing counts images.
    counts: bool,
    /// Nothing is UNAVAILABLE in a scan.
    empty: Snapshot,
    owners: Owners,
    printed: Mutex<Printed>,
}

/// What the threads have in common.
struct Printed {
    listing: Listing,
    /// What is to be put in order, with the numbers in which the listing took them.
    rows: Vec<Arc<KeptRow>>,
}

/// What one thread makes of one directory, before the listing takes it.
#[derive(Default)]
struct Part {
    lines: Lines,
    /// The message that the line in hand is made of.
    message: v1::Image,
    rows: Vec<KeptRow>,
    /// What rows have in common, also with those of directories before.
    commons: Commons,
}

thread_local! {
    static PART: RefCell<Part> = RefCell::default();
}

/// Labels of the image that is looked at.
struct LabelsOf<'a>(&'a sifter_image::Labels);

impl Labels for LabelsOf<'_> {
    fn label(&self, _image: i64, key: &str) -> Result<Option<String>, StoreError> {
        Ok(self.0.get(key).map(str::to_owned))
    }
}

impl Printer {
    /// With `full`, JSON has all of an image.
    ///
    /// # Errors
    ///
    /// What is wrong with filter or order.
    pub fn new(args: &ListingArgs, full: bool) -> anyhow::Result<Self> {
        let mut listing = args.start()?;
        let ordered = !listing.is_grouped() && (!listing.streams() || !args.order_by().is_empty());
        if ordered {
            listing.hold();
        }
        Ok(Self {
            query: args.query()?,
            order: args.order()?,
            ordered,
            full: (full && args.output().is_whole() && !listing.is_grouped())
                || args.output().needs_details(),
            output: listing.output().cloned(),
            counts: listing.counts(),
            empty: Snapshot::default(),
            owners: Owners::default(),
            printed: Mutex::new(Printed {
                listing,
                rows: Vec::new(),
            }),
        })
    }

    /// Whether labels and the like are printed, or asked for by the filter.
    #[must_use]
    pub fn needs_details(&self) -> bool {
        self.full || self.query.needs_labels()
    }

    /// Whether images are printed while the scan runs.
    #[must_use]
    pub fn prints_at_once(&self) -> bool {
        !self.ordered && self.printed().listing.streams()
    }

    /// Takes what was found in the directory `path` below `root`.
    ///
    /// # Errors
    ///
    /// What writing says.
    pub fn directory(&self, root: &Path, path: &[u8], found: Vec<Found>) -> io::Result<()> {
        let root = root.as_os_str().as_bytes();
        let root_text = crate::escape::utf8(root);
        let images = found.into_iter().filter_map(|found| match found.content {
            Content::Image(image) => Some((join_path(root, path, &found.name), found.facts, image)),
            Content::Prepared(_) | Content::Moved(_) | Content::Other => None,
        });
        PART.with_borrow_mut(|part| {
            part.lines.clear();
            part.rows.clear();
            let mut asked = None;
            for (path, facts, image) in images {
                let row = Row::new(&path, &root_text, facts, &image);
                if !self.matches(&row, &image) {
                    continue;
                }
                let ids = (row.facts.uid, row.facts.gid);
                // What is in one directory has mostly the same.
                if asked.replace(ids) != Some(ids) {
                    self.owners.learn(&[ids]);
                }
                convert::fill(&mut part.message, &row, &self.owners);
                if self.ordered {
                    part.rows.push(KeptRow::new(&row, &mut part.commons));
                }
                self.add_details(&mut part.message, *image);
                if self.counts {
                    self.printed().listing.count(&part.message);
                }
                if let Some(output) = &self.output {
                    part.lines
                        .push(|line| output.write_one(line, &part.message))?;
                }
            }
            let printed = &mut *self.printed();
            let first = printed.listing.lines(&part.lines)?;
            for (number, mut row) in (first..).zip(part.rows.drain(..)) {
                row.set_id(i64::try_from(number).unwrap_or(i64::MAX));
                printed.rows.push(Arc::new(row));
            }
            Ok(())
        })
    }

    /// Adds what only view FULL has, if it is printed.
    fn add_details(&self, message: &mut v1::Image, image: Image) {
        if self.full {
            crate::catalog::fill_details(message, image);
        }
    }

    fn matches(&self, row: &Row<'_>, image: &Image) -> bool {
        let labels = LabelsOf(&image.labels);
        // Labels that are at hand are known.
        self.query
            .matches(&self.empty, row, &labels)
            .unwrap_or_default()
    }

    fn printed(&self) -> std::sync::MutexGuard<'_, Printed> {
        // Lines are written whole: a thread that panicked left none half-written.
        self.printed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Prints what waits for the last image.
    ///
    /// # Errors
    ///
    /// What writing says.
    pub fn finish(self) -> io::Result<()> {
        let printed = self.printed.into_inner();
        let printed = printed.unwrap_or_else(PoisonError::into_inner);
        if !self.ordered {
            return printed.listing.finish();
        }
        // The program ends: hundreds of thousands of pieces of memory are not given back one by one.
        let next = self.empty.next(printed.rows, &[], BTreeMap::new(), None);
        let (snapshot, _) = &*ManuallyDrop::new(next);
        let labels = sifter_image::Labels::default();
        let rows = self.order.select(snapshot, &LabelsOf(&labels));
        let rows = ManuallyDrop::new(rows.map_err(io::Error::other)?);
        let numbers = rows.iter().filter_map(|row| usize::try_from(row.id()).ok());
        printed.listing.finish_in_order(numbers)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::catalog::FileFacts;

    #[derive(clap::Parser)]
    struct Command {
        #[command(flatten)]
        listing: ListingArgs,
    }

    fn kept() -> KeptRow {
        let row = crate::catalog::testing::row(0, "/images/lost.sif", "", "");
        KeptRow::new(&row, &mut Commons::default())
    }

    /// A thread that panics where it is caught leaves half of what it did.
    #[test]
    fn a_line_whose_image_was_lost_shifts_no_other() {
        for options in [&["scan"][..], &["scan", "--json", "--sort=path"]] {
            let args = Command::parse_from(options).listing;
            let printer = Printer::new(&args, false).unwrap();
            let lost = printer.printed().listing.image(&v1::Image::default());
            lost.unwrap();
            PART.with_borrow_mut(|part| part.rows.push(kept()));
            for name in [b"b.sif", b"a.sif"] {
                let found = Found {
                    name: name.as_slice().into(),
                    facts: FileFacts::default(),
                    volatile: false,
                    content: Content::Image(Box::new(crate::catalog::testing::cut_image())),
                };
                printer
                    .directory(Path::new("/images"), b"", vec![found])
                    .unwrap();
            }
            let numbers: Vec<_> = printer.printed().rows.iter().map(|row| row.id()).collect();
            assert_eq!(numbers, [1, 2], "{options:?}");
        }
    }
}
