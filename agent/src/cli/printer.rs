//! From what a scan finds to what is printed: filters and orders as the agent does, with the same
//! code, over the rows of this one scan.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::mem::ManuallyDrop;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use sifter_image::Image;
use sifter_proto::v1;

use crate::catalog::{
    Commons, Content, Found, KeptRow, Labels, OrderKey, Query, Row, Snapshot, StoreError, in_order,
    join_path,
};
use crate::lock::lock;
use crate::service::{Owners, convert};

use super::lines::Lines;
use super::listing::{Listing, ListingArgs};
use super::render::Output;

/// Prints what a scan finds: at once, or in order at the end. The threads of a scan share it, and
/// each makes the lines of what it found itself.
pub struct Printer {
    query: Query,
    order: Order,
    full: bool,
    /// How lines are made, unless a report is printed.
    output: Option<Output>,
    /// Whether the listing counts images.
    counts: bool,
    /// Nothing is UNAVAILABLE in a scan.
    empty: Snapshot,
    owners: Owners,
    printed: Mutex<Printed>,
}

/// In which order images are printed.
enum Order {
    /// As they come.
    AsFound,
    /// That of listings; lines then wait for the last of them.
    Listing,
    /// One that was asked for, without the filter: what is kept has matched already.
    Asked(Query),
}

/// What the threads have in common.
struct Printed {
    listing: Listing,
    waiting: Waiting,
}

/// By what images are put in order.
#[derive(Default)]
struct Waiting {
    /// The numbers in which the listing took them.
    numbers: Vec<usize>,
    /// Of each the repository, the tag and the path, if they are in the order of listings.
    keys: Lines,
    /// All of each, if an order was asked for.
    rows: Vec<Arc<KeptRow>>,
}

/// What one thread makes of one directory, before the listing takes it.
#[derive(Default)]
struct Part {
    lines: Lines,
    /// The message that the line in hand is made of.
    message: v1::Image,
    keys: Lines,
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
        let mut listing = args.start(true)?;
        let ordered = !listing.is_report() && (!listing.streams() || !args.order_by().is_empty());
        let order = if ordered {
            listing.hold();
            let asked = args.order()?;
            if asked.is_plain() {
                Order::Listing
            } else {
                Order::Asked(asked)
            }
        } else {
            Order::AsFound
        };
        Ok(Self {
            query: args.query()?,
            order,
            full: (full && args.output().is_whole() && !listing.is_report())
                || args.output().needs_details(),
            output: listing.output().cloned(),
            counts: listing.counts(),
            empty: Snapshot::default(),
            owners: Owners::default(),
            printed: Mutex::new(Printed {
                listing,
                waiting: Waiting::default(),
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
        matches!(self.order, Order::AsFound) && self.printed().listing.streams()
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
            part.keys.clear();
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
                match self.order {
                    Order::AsFound => {}
                    Order::Listing => part.push_key(&row),
                    Order::Asked(_) => part.rows.push(KeptRow::new(&row, &mut part.commons)),
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
            let waiting = &mut printed.waiting;
            match self.order {
                Order::AsFound => {}
                Order::Listing => {
                    waiting.numbers.extend(first..first + part.lines.len());
                    waiting.keys.append(&part.keys);
                }
                Order::Asked(_) => {
                    for (number, mut row) in (first..).zip(part.rows.drain(..)) {
                        row.set_id(i64::try_from(number).unwrap_or(i64::MAX));
                        waiting.rows.push(Arc::new(row));
                    }
                }
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
        lock(&self.printed)
    }

    /// Prints what waits for the last image.
    ///
    /// # Errors
    ///
    /// What writing says.
    pub fn finish(self) -> io::Result<()> {
        let printed = self.printed.into_inner();
        let Printed { listing, waiting } = printed.unwrap_or_else(PoisonError::into_inner);
        // The program ends: hundreds of thousands of pieces of memory are not given back one by one.
        let waiting = ManuallyDrop::new(waiting);
        match &self.order {
            Order::AsFound => listing.finish(),
            Order::Listing => {
                let images = (0..waiting.numbers.len()).collect();
                let order = in_order(images, |image| waiting.key(image));
                listing.finish_in_order(order.into_iter().map(|image| waiting.numbers[image]))
            }
            Order::Asked(order) => {
                let rows = waiting.rows.clone();
                let next = self.empty.next(rows, &[], BTreeMap::new(), None);
                let (snapshot, _) = &*ManuallyDrop::new(next);
                let labels = sifter_image::Labels::default();
                let rows = order.select(snapshot, &LabelsOf(&labels));
                let rows = ManuallyDrop::new(rows.map_err(io::Error::other)?);
                let numbers = rows.iter().filter_map(|row| usize::try_from(row.id()).ok());
                listing.finish_in_order(numbers)
            }
        }
    }
}

impl Part {
    fn push_key(&mut self, row: &Row<'_>) {
        for text in [row.repository.as_bytes(), row.tag.as_bytes(), row.path] {
            let Ok(()) = self.keys.push(|key| {
                key.extend_from_slice(text);
                Ok::<_, Infallible>(())
            });
        }
    }
}

impl Waiting {
    fn key(&self, image: usize) -> OrderKey<'_> {
        let text = |part| self.keys.get(3 * image + part).unwrap_or_default();
        (text(0), text(1), text(2))
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
        for options in [
            &["scan"][..],
            &["scan", "--sort=path"],
            &["scan", "--json", "--sort=path"],
        ] {
            let args = Command::parse_from(options).listing;
            let printer = Printer::new(&args, false).unwrap();
            let lost = printer.printed().listing.image(&v1::Image::default());
            lost.unwrap();
            PART.with_borrow_mut(|part| {
                part.rows.push(kept());
                part.push_key(&kept().view());
            });
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
            let waiting = std::mem::take(&mut printer.printed().waiting);
            let ids: Vec<_> = waiting.rows.iter().map(|row| row.id()).collect();
            assert!(waiting.numbers == [1, 2] || ids == [1, 2], "{options:?}");
            if !waiting.numbers.is_empty() {
                assert_eq!(waiting.key(0).2, b"/images/b.sif");
            }
        }
    }
}
