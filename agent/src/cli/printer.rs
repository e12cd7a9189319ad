//! From what a scan finds to what is printed: filters and orders as the agent does, with the same
//! code, over the rows of this one scan.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use sifter_proto::v1;

use crate::catalog::{Content, Found, Interner, Labels, Query, Row, Snapshot, join_path};
use crate::service::{Owners, convert};

use super::listing::{Listing, ListingArgs};

/// Prints what a scan finds: at once, or in order at the end.
pub struct Printer {
    listing: Listing,
    query: Query,
    /// The order alone: what is kept has matched already.
    order: Query,
    /// Whether the order was asked for: lines then wait for the last of them.
    ordered: bool,
    full: bool,
    rows: Vec<Row>,
    messages: HashMap<i64, v1::Image>,
    /// Nothing is UNAVAILABLE in a scan.
    empty: Snapshot,
    owners: Owners,
    texts: Interner,
}

/// Labels of the image that is looked at.
struct LabelsOf<'a>(&'a BTreeMap<String, String>);

impl Labels for LabelsOf<'_> {
    fn label(&self, _image: i64, key: &str) -> Option<String> {
        self.0.get(key).cloned()
    }
}

impl Printer {
    /// With `full`, JSON has all of an image.
    ///
    /// # Errors
    ///
    /// What is wrong with filter or order.
    pub fn new(args: &ListingArgs, full: bool) -> anyhow::Result<Self> {
        let listing = args.start()?;
        Ok(Self {
            query: args.query()?,
            order: args.order()?,
            ordered: !listing.is_grouped() && (!listing.streams() || !args.order_by().is_empty()),
            full: full && listing.streams(),
            listing,
            rows: Vec::new(),
            messages: HashMap::new(),
            empty: Snapshot::default(),
            owners: Owners::default(),
            texts: Interner::default(),
        })
    }

    /// Takes what was found in the directory `path` below `root`.
    ///
    /// # Errors
    ///
    /// What writing says.
    pub fn directory(&mut self, root: &Path, path: &[u8], found: Vec<Found>) -> io::Result<()> {
        let root = root.as_os_str().as_bytes();
        let root_text: Arc<str> = crate::escape::utf8(root).into();
        for found in found {
            let Content::Image(image) = &found.content else {
                continue;
            };
            let id = i64::try_from(self.rows.len()).unwrap_or(i64::MAX);
            let path = join_path(root, path, &found.name);
            let row = Row::new(id, path, &root_text, found.facts, image, &mut self.texts);
            if !self
                .query
                .matches(&self.empty, &row, &LabelsOf(&image.labels))
            {
                continue;
            }
            let mut message = convert::basic(&row, &self.owners);
            if self.full {
                convert::add_details(&mut message, crate::catalog::details(image));
            }
            if self.ordered {
                self.rows.push(row);
                self.messages.insert(id, message);
            } else {
                self.listing.image(message)?;
            }
        }
        Ok(())
    }

    /// Prints what waits for the last image.
    ///
    /// # Errors
    ///
    /// What writing says.
    pub fn finish(mut self) -> io::Result<()> {
        if self.ordered {
            let (snapshot, _) = self.empty.next(self.rows, &[], BTreeMap::new(), None);
            for row in self.order.select(&snapshot, &LabelsOf(&BTreeMap::new())) {
                if let Some(message) = self.messages.remove(&row.id) {
                    self.listing.image(message)?;
                }
            }
        }
        self.listing.finish()
    }
}
