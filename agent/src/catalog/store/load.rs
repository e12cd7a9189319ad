//! The last listing, as a start begins with: read by several threads, for it is what those wait for who ask
//! first.

use std::collections::HashMap;
use std::ops::{AddAssign, RangeInclusive};
use std::sync::Arc;
use std::thread;

use rusqlite::{Connection, OptionalExtension, params};

use super::super::columns::{self, StoredCommon};
use super::super::kept::{Common, KeptRow};
use super::super::prepare::Preparation;
use super::super::row::join_path;
use super::{Delta, Reach, Store, StoreError, open_reader};

/// Threads that read at most.
const THREADS_MAX: i64 = 4;

/// What of a number is added up: so the sum of a million of them is no overflow, whatever a damaged one is.
const NUMBER_MASK: i64 = 0xffff_ffff;

/// What two tables must agree on. SQLite has no checksums: a byte that is wrong in one of its pages can make it
/// pass over rows in silence.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// How many images there are.
    pub images: i64,
    /// Sum of their numbers.
    numbers: i64,
    /// Sum of the numbers of their directories.
    directories: i64,
}

impl Tally {
    fn count(&mut self, number: i64, directory: i64) {
        self.images += 1;
        self.numbers += number & NUMBER_MASK;
        self.directories += directory & NUMBER_MASK;
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.images += other.images;
        self.numbers += other.numbers;
        self.directories += other.directories;
    }
}

/// What was stored of a root.
#[derive(Debug)]
pub struct Loaded {
    /// Its listing.
    pub listing: Delta,
    /// Of its images.
    pub tally: Tally,
}

/// Images for which one more thread is worth its connection.
const SHARE: i64 = 16 << 10;

/// The directories of a root that could not be read. They have an index of their own.
pub(super) const UNREADABLE: &str =
    "SELECT path, error FROM directories WHERE root = ?1 AND error IS NOT NULL";

impl Store {
    /// What the files that are images say of them, of all roots: the same as the images do themselves, for
    /// both are written in one transaction.
    ///
    /// # Errors
    ///
    /// The database fails.
    pub fn tally(&self) -> Result<Tally, StoreError> {
        let sql = format!(
            "SELECT count(*), coalesce(sum(image & {NUMBER_MASK}), 0), coalesce(sum(directory & {NUMBER_MASK}), 0)
             FROM files WHERE image IS NOT NULL"
        );
        Ok(self.read().query_row(&sql, [], |row| {
            Ok(Tally {
                images: row.get(0)?,
                numbers: row.get(1)?,
                directories: row.get(2)?,
            })
        })?)
    }

    /// All images of a root by their numbers, and the directories that could not be read.
    ///
    /// # Errors
    ///
    /// The database fails.
    pub fn load(&self, root: i64, preparation: &Preparation) -> Result<Loaded, StoreError> {
        self.load_shared(root, preparation, SHARE)
    }

    /// The same by a thread for so many images each.
    pub(super) fn load_shared(
        &self,
        root: i64,
        preparation: &Preparation,
        share: i64,
    ) -> Result<Loaded, StoreError> {
        let connection = self.read();
        let last: i64 =
            connection.query_row("SELECT coalesce(max(id), 0) FROM images", [], |row| {
                row.get(0)
            })?;
        let processors = thread::available_parallelism().map_or(1, |count| count.get() as i64);
        let threads = processors.min(THREADS_MAX).min(last / share);
        let (upserts, tally) = match &self.path {
            Some(path) if threads > 1 => thread::scope(|scope| {
                let parts: Vec<_> = (0..threads)
                    .map(|part| {
                        let ids = last * part / threads + 1..=last * (part + 1) / threads;
                        let read =
                            move || images(&open_reader(path)?, root, ids.clone(), preparation);
                        let reading = thread::Builder::new().spawn_scoped(scope, read.clone());
                        // Where no thread is left, this one has to do.
                        reading.map_err(|_| read())
                    })
                    .collect();
                let (mut all, mut tally) = (Vec::new(), Tally::default());
                for part in parts {
                    let part = part.map(|reading| {
                        let read = reading.join();
                        read.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
                    });
                    let (mut images, of_part) = part.unwrap_or_else(|read| read)?;
                    all.append(&mut images);
                    tally += of_part;
                }
                Ok::<_, StoreError>((all, tally))
            })?,
            _ => images(&connection, root, 1..=last, preparation)?,
        };
        let mut statement = connection.prepare(UNREADABLE)?;
        let reach = statement
            .query_map([root], |row| {
                let path = row.get::<_, Vec<u8>>(0)?.into();
                Ok((path, Reach::Unreadable(row.get(1)?)))
            })?
            .collect::<Result<_, _>>()?;
        Ok(Loaded {
            listing: Delta {
                upserts,
                reach,
                ..Delta::default()
            },
            tally,
        })
    }
}

/// The images of a root with some numbers, in their order.
fn images(
    connection: &Connection,
    root: i64,
    ids: RangeInclusive<i64>,
    preparation: &Preparation,
) -> Result<(Vec<Arc<KeptRow>>, Tally), StoreError> {
    let sql = format!(
        "SELECT directory, name, common, id, {} FROM images
         WHERE id BETWEEN ?2 AND ?3 AND +root = ?1 ORDER BY id",
        columns::LISTING
    );
    // One moment of the database: what an image has in common with others may be added with it.
    let connection = connection.unchecked_transaction()?;
    let mut commons = commons(&connection)?;
    let mut path_of = connection.prepare("SELECT path FROM directories WHERE id = ?1")?;
    // Images that lie together were mostly stored one after the other.
    let mut directory: Option<(i64, Vec<u8>)> = None;
    let mut statement = connection.prepare(&sql)?;
    let mut rows = statement.query(params![root, ids.start(), ids.end()])?;
    let (mut images, mut tally) = (Vec::new(), Tally::default());
    while let Some(row) = rows.next()? {
        let number = row.get(0)?;
        let path = match directory.take() {
            Some((last, path)) if last == number => path,
            _ => path_of
                .query_row([number], |row| row.get(0))
                .optional()?
                .ok_or(StoreError::Orphan(number))?,
        };
        let name = row.get_ref(1)?.as_blob().map_err(rusqlite::Error::from)?;
        let whole = join_path(&preparation.root_path, &path, name);
        directory = Some((number, path));
        let id = row.get(3)?;
        tally.count(id, number);
        let (stored, kept) = commons.get_mut(&row.get(2)?).ok_or(StoreError::Half(id))?;
        let row = columns::read(row, 3, &whole, &preparation.root_text, stored)?;
        let common = kept.get_or_insert_with(|| preparation.common(&row));
        images.push(Arc::new(KeptRow::with(&row, Arc::clone(common))));
    }
    Ok((images, tally))
}

/// What many images have in common, by number: as it is stored and, once an image has it, as it is kept.
type ByNumber = HashMap<i64, (StoredCommon, Option<Arc<Common>>)>;

fn commons(connection: &Connection) -> Result<ByNumber, StoreError> {
    let sql = format!("SELECT id, {} FROM commons", columns::COMMON);
    let mut statement = connection.prepare(&sql)?;
    let rows = statement.query_map([], |row| {
        Ok((row.get(0)?, (StoredCommon::read(row, 1)?, None)))
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}
