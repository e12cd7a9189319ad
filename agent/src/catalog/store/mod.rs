//! The catalogue on disk: SQLite with a write-ahead log. One writer; whoever reads never waits for
//! it. `sqlite3 FILE` shows what is in it.
//!
//! Every batch of a scan is one transaction. A directory's state is stored together with what was
//! found in it and with the names of its subdirectories, so that after a crash at any moment what
//! was not stored is read again.

mod batch;
mod commons;
mod error;
mod file;
mod frontier;
mod index;
mod known;
mod load;
mod open;
mod root;
mod schema;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};
use sifter_proto::v1;

use self::batch::Batch;
pub use self::error::StoreError;
pub(super) use self::error::to_make_writable;
use self::file::File;
pub(super) use self::file::{beside, file_at, is_on_server};
use self::frontier::Frontier;
pub use self::known::KnownRoot;
pub use self::load::{Loaded, Tally};
pub use self::open::older_at;
use self::open::open_reader;
pub use self::root::StoredRoot;
use super::change::DirectoryChange;
use super::entry::ContentDigest;
use super::facts::{self, IDENTITY};
use super::kept::KeptRow;
use super::packed::unpack;
use super::prepare::Preparation;
use crate::lock::lock;

/// Bytes for which there must be room where a database is used again that could not be written.
const TRIAL_SIZE: u32 = 1 << 20;

/// The database.
#[derive(Debug)]
pub struct Store {
    /// For readers, so that they never wait for the writer; a database in memory has but one
    /// connection. It is closed first: the last one to be closed brings the log into the database.
    reader: Option<Mutex<Connection>>,
    writer: Mutex<Writer>,
    /// Where it is; a database in memory is nowhere.
    path: Option<PathBuf>,
    /// The file that was found there.
    file: Option<File>,
    /// Numbers of images that were given by others before, and none of these here.
    foreign: OnceLock<RangeInclusive<i64>>,
}

/// The connection that writes.
#[derive(Debug)]
struct Writer {
    connection: Connection,
    numbers: Numbers,
    /// Of each root.
    frontiers: HashMap<i64, Frontier>,
    /// See [`commons::forget_unused`].
    forget_at: i64,
}

/// The last numbers that were given away: those of new rows are chosen here, so that a row need not be
/// asked for its number. While a store is open no number is given twice.
#[derive(Debug)]
struct Numbers {
    directory: i64,
    image: i64,
}

impl Numbers {
    fn next_directory(&mut self) -> i64 {
        self.directory += 1;
        self.directory
    }

    fn next_image(&mut self) -> i64 {
        self.image += 1;
        self.image
    }
}

impl Writer {
    fn new(connection: Connection) -> Result<Self, StoreError> {
        let last = |table: &str| {
            let sql = format!("SELECT coalesce(max(id), 0) FROM {table}");
            connection.query_row(&sql, [], |row| row.get(0))
        };
        let numbers = Numbers {
            directory: last("directories")?,
            image: last("images")?,
        };
        Ok(Self {
            connection,
            numbers,
            frontiers: HashMap::new(),
            forget_at: 0,
        })
    }
}

/// What a batch changed in the listing.
#[derive(Debug, Default)]
pub struct Delta {
    /// Images that are new or changed.
    pub upserts: Vec<Arc<KeptRow>>,
    /// Numbers of images that are gone.
    pub removed: Vec<i64>,
    /// What became of directories, relative to the root, one after the other.
    pub reach: Vec<(Box<[u8]>, Reach)>,
}

/// Whether a directory can be read.
#[derive(Debug, PartialEq, Eq)]
pub enum Reach {
    /// It could be (again).
    Readable,
    /// Not now, and why.
    Unreadable(String),
    /// There is none any more, nor any below.
    Gone,
}

impl Delta {
    /// Whether nothing changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.upserts.is_empty() && self.removed.is_empty() && self.reach.is_empty()
    }
}

impl Store {
    /// Whether it is not on disk.
    #[must_use]
    pub fn is_in_memory(&self) -> bool {
        self.path.is_none()
    }

    /// The file that it is in; none where it is in memory, or was deleted as soon as it was opened.
    pub(super) fn file(&self) -> Option<File> {
        self.file
    }

    /// Gives new images higher numbers than this one only: all up to it have been given, here or by others.
    pub fn number_behind(&self, number: i64) {
        let numbers = &mut self.write().numbers;
        let _ = self.foreign.set(numbers.image + 1..=number);
        numbers.image = numbers.image.max(number);
    }

    /// Whether it was another database that gave an image its number.
    pub(super) fn is_foreign(&self, image: i64) -> bool {
        let foreign = self.foreign.get();
        foreign.is_some_and(|foreign| foreign.contains(&image))
    }

    fn write(&self) -> MutexGuard<'_, Writer> {
        lock(&self.writer)
    }

    /// Writes about as much as a batch of a scan, and forgets it; also what an earlier trial could not forget, for
    /// want of the room that forgetting takes.
    ///
    /// # Errors
    ///
    /// The database cannot be written, or only very little.
    pub fn try_write(&self) -> Result<(), StoreError> {
        let connection = &self.write().connection;
        connection.execute_batch(&format!(
            "BEGIN IMMEDIATE; DROP TABLE IF EXISTS trial; CREATE TABLE trial (data); INSERT INTO trial VALUES (zeroblob({TRIAL_SIZE})); COMMIT;
             DROP TABLE trial"
        )).inspect_err(|_| {
            let _ = connection.execute_batch("ROLLBACK");
        })?;
        Ok(())
    }

    /// A scan of the root begins: what the last one left half-read is read again. The first one of all
    /// does without the index of paths, which it does not need.
    fn begin_scan(&self, root: i64) -> Result<(), StoreError> {
        let mut writer = self.write();
        writer.frontiers.remove(&root);
        let exists = |what: &str, values: &[i64]| {
            let sql = format!("SELECT EXISTS (SELECT 1 FROM directories {what})");
            let values = rusqlite::params_from_iter(values);
            writer
                .connection
                .query_row(&sql, values, |row| row.get::<_, bool>(0))
        };
        if exists("WHERE root = ?1", &[root])? {
            index::make(&writer.connection)
        } else if !exists("", &[])? {
            index::remove(&writer.connection)
        } else {
            Ok(())
        }
    }

    fn read(&self) -> Reader<'_> {
        match &self.reader {
            Some(reader) => Reader::Own(lock(reader)),
            None => Reader::Writer(self.write()),
        }
    }

    /// Makes the index of paths, if the scan that ends has done without it.
    ///
    /// # Errors
    ///
    /// The database fails.
    pub fn index_paths(&self) -> Result<(), StoreError> {
        index::make(&self.write().connection)
    }

    /// What only view FULL shows of an image; `None`: there is no such image.
    ///
    /// # Errors
    ///
    /// The database fails.
    pub fn details(&self, image: i64) -> Result<Option<v1::Image>, StoreError> {
        self.read()
            .prepare_cached("SELECT details, details_size FROM images WHERE id = ?1")?
            .query_row([image], |row| stored_details(row, 0))
            .optional()?
            .map(|details| details.ok_or(StoreError::Details(image)))
            .transpose()
    }

    /// Applies what a scan found, in one transaction.
    ///
    /// # Errors
    ///
    /// The database fails; nothing of the batch is stored then.
    pub fn apply(
        &self,
        root: i64,
        preparation: &Preparation,
        changes: Vec<DirectoryChange>,
    ) -> Result<Delta, StoreError> {
        let mut writer = self.write();
        let Writer {
            connection,
            numbers,
            frontiers,
            ..
        } = &mut *writer;
        let frontier = frontiers.entry(root).or_default();
        let transaction = begin(connection)?;
        let mut batch = Batch::new(&transaction, numbers, frontier, root, preparation)?;
        for change in changes {
            batch.change(change)?;
        }
        let delta = batch.finish()?;
        transaction.commit()?;
        Ok(delta)
    }

    /// Paths of all directories of a root, relative to it, but no more than `limit`.
    ///
    /// # Errors
    ///
    /// The database fails.
    pub fn directories(&self, root: i64, limit: usize) -> Result<Vec<Box<[u8]>>, StoreError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let paths = self
            .read()
            .prepare_cached("SELECT path FROM directories WHERE root = ?1 LIMIT ?2")?
            .query_map([root, limit], |row| Ok(row.get_ref(0)?.as_blob()?.into()))?
            .collect::<Result<_, _>>()?;
        Ok(paths)
    }

    /// Stores the digest of an image's whole content, if the image is still the same file; false if
    /// it is not.
    ///
    /// # Errors
    ///
    /// The database fails.
    pub fn set_content_digest(&self, digest: &ContentDigest) -> Result<bool, StoreError> {
        let updated = self
            .write()
            .connection
            .prepare_cached(&format!(
                "UPDATE images SET content_digest = ?2 WHERE id = ?1 AND {IDENTITY} = ?3"
            ))?
            .execute(params![
                digest.image,
                digest.digest,
                facts::of_identity(&digest.identity),
            ])?;
        Ok(updated > 0)
    }
}

#[cfg(test)]
impl Store {
    /// See [`Catalog::settle`](super::Catalog::settle). What was never read stays to be read.
    pub fn settle(&self) {
        let settle = "UPDATE directories SET volatile = 0 WHERE facts IS NOT NULL; UPDATE files SET volatile = 0";
        self.write().connection.execute_batch(settle).unwrap();
    }
}

/// A connection to read from.
enum Reader<'a> {
    Own(MutexGuard<'a, Connection>),
    Writer(MutexGuard<'a, Writer>),
}

impl std::ops::Deref for Reader<'_> {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        match self {
            Self::Own(connection) => connection,
            Self::Writer(writer) => &writer.connection,
        }
    }
}

/// Begins a transaction that will write. One that only reads at first would not wait for another process's lock
/// when it comes to write, but fail.
fn begin(connection: &mut Connection) -> rusqlite::Result<Transaction<'_>> {
    connection.transaction_with_behavior(TransactionBehavior::Immediate)
}

/// Reads `SELECT …, details, details_size`; `None`: they are damaged.
fn stored_details(row: &rusqlite::Row<'_>, first: usize) -> rusqlite::Result<Option<v1::Image>> {
    match row.get_ref(first)?.as_blob_or_null()? {
        Some(data) => Ok(unpack(data, row.get(first + 1)?)),
        None => Ok(Some(v1::Image::default())),
    }
}
