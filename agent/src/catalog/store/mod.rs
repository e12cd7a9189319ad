//! The catalogue on disk: SQLite with a write-ahead log. One writer; whoever reads never waits for
//! it. `sqlite3 FILE` shows what is in it.
//!
//! Every batch of a scan is one transaction. A directory's state is stored together with what was
//! found in it and with the names of its subdirectories, so that after a crash at any moment what
//! was not stored is read again.

mod batch;
mod commons;
mod frontier;
mod index;
mod known;
mod load;
mod schema;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::{
    Connection, MAIN_DB, OpenFlags, OptionalExtension, Transaction, TransactionBehavior, params,
};
use sifter_proto::v1;

use self::batch::Batch;
use self::frontier::Frontier;
pub use self::known::KnownRoot;
use super::change::DirectoryChange;
use super::entry::{ContentDigest, FileTime, RootDirectory};
use super::kept::KeptRow;
use super::packed::unpack;
use super::prepare::Preparation;
use crate::escape;

/// Bytes of a page: an image takes about five hundred, and each page costs four system calls until it is
/// where it stays.
const PAGE_SIZE: u32 = 16 << 10;

/// Bytes for which there must be room where a database is used again that could not be written.
const TRIAL_SIZE: u32 = 1 << 20;

/// How long a statement waits for another process (an administrator's `sqlite3`) before it fails.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// What is wrong with the database.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// SQLite's own word.
    #[error("catalogue: {0}")]
    Sqlite(#[from] rusqlite::Error),
    /// Rows that contradict each other.
    #[error("catalogue: an image in directory number {0}, which is not there")]
    Orphan(i64),
    /// The same.
    #[error("catalogue: what image number {0} has in common with others is not there")]
    Half(i64),
    /// What is to be stored was found with what another database knew.
    #[error("catalogue: another database is in use since")]
    Replaced,
    /// The file can be read, and no more.
    #[error("catalogue: {} cannot be written: give it to the agent's user (chown)", escape::path(.0))]
    ReadOnly(PathBuf),
    /// Written by a newer version.
    #[error(
        "catalogue: schema version {found} is newer than this version knows ({known}): \
         upgrade sifter, or move the file away to have it rebuilt"
    )]
    Newer {
        /// `user_version` of the file.
        found: i64,
        /// The newest known one.
        known: usize,
    },
}

impl StoreError {
    /// Whether the file itself is at fault: another one in its place would do.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Newer { .. } | Self::ReadOnly(_) | Self::Replaced => false,
            Self::Orphan(_) | Self::Half(_) => true,
            Self::Sqlite(error) => matches!(
                error.sqlite_error_code(),
                Some(
                    rusqlite::ErrorCode::DatabaseCorrupt
                        | rusqlite::ErrorCode::NotADatabase
                        // Rows that contradict each other.
                        | rusqlite::ErrorCode::ConstraintViolation
                )
            ),
        }
    }
}

/// The database.
#[derive(Debug)]
pub struct Store {
    writer: Mutex<Writer>,
    /// For readers, so that they never wait for the writer; a database in memory has but one
    /// connection.
    reader: Option<Mutex<Connection>>,
    /// Where it is; a database in memory is nowhere.
    path: Option<PathBuf>,
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

/// What is stored of a root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoredRoot {
    /// Number.
    pub id: i64,
    /// The root directory at the last complete scan.
    pub directory: Option<RootDirectory>,
    /// When the last complete scan ended; `None`: never.
    pub scanned: Option<FileTime>,
    /// When the last complete scan that looked at the files ended.
    pub files_checked: Option<FileTime>,
}

/// What a batch changed in the listing.
#[derive(Debug, Default)]
pub struct Delta {
    /// Images that are new or changed.
    pub upserts: Vec<Arc<KeptRow>>,
    /// Numbers of images that are gone.
    pub removed: Vec<i64>,
    /// Directories that cannot be read now, relative to the root, and why.
    pub unreadable: Vec<(Box<[u8]>, String)>,
    /// Directories that could be read (again).
    pub readable: Vec<Box<[u8]>>,
}

impl Delta {
    /// Whether nothing changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.upserts.is_empty()
            && self.removed.is_empty()
            && self.unreadable.is_empty()
            && self.readable.is_empty()
    }
}

impl Store {
    /// Opens (or makes) the database at `path`.
    ///
    /// # Errors
    ///
    /// The file cannot be opened or written, is no database, is damaged, or was written by a newer
    /// version.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let mut writer = Connection::open(path)?;
        // Known now, not in the midst of a scan. (A transaction of such a file begins as one that reads.)
        if writer.is_readonly(MAIN_DB)? {
            return Err(StoreError::ReadOnly(path.to_owned()));
        }
        prepare(&writer)?;
        schema::check(&writer)?;
        // Of a new file; that of another stays.
        writer.pragma_update(None, "page_size", PAGE_SIZE)?;
        writer.pragma_update(None, "journal_mode", "wal")?;
        // A power cut may lose the last batches, which the next scan finds again; it cannot damage
        // the file.
        writer.pragma_update(None, "synchronous", "normal")?;
        schema::migrate(&mut writer)?;
        index::make(&writer)?;
        writer.execute_batch("BEGIN IMMEDIATE; COMMIT")?;
        Ok(Self {
            writer: Mutex::new(Writer::new(writer)?),
            reader: Some(Mutex::new(open_reader(path)?)),
            path: Some(path.to_owned()),
        })
    }

    /// Makes a database in memory.
    ///
    /// # Panics
    ///
    /// SQLite cannot make an empty database in memory, for want of memory.
    #[must_use]
    #[allow(clippy::expect_used)]
    pub fn in_memory() -> Self {
        let open = || -> Result<Writer, StoreError> {
            let mut connection = Connection::open_in_memory()?;
            prepare(&connection)?;
            schema::migrate(&mut connection)?;
            Writer::new(connection)
        };
        Self {
            writer: Mutex::new(open().expect("an empty database in memory")),
            reader: None,
            path: None,
        }
    }

    /// Whether it is not on disk.
    #[must_use]
    pub fn is_in_memory(&self) -> bool {
        self.path.is_none()
    }

    /// Gives new images higher numbers than this one only.
    pub fn number_behind(&self, number: i64) {
        let numbers = &mut self.write().numbers;
        numbers.image = numbers.image.max(number);
    }

    fn write(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes about as much as a batch of a scan, and forgets it.
    ///
    /// # Errors
    ///
    /// The database cannot be written, or only very little.
    pub fn try_write(&self) -> Result<(), StoreError> {
        let connection = &self.write().connection;
        connection.execute_batch(&format!(
            "BEGIN IMMEDIATE; CREATE TABLE trial (data); INSERT INTO trial VALUES (zeroblob({TRIAL_SIZE})); COMMIT;
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
            Some(reader) => Reader::Own(reader.lock().unwrap_or_else(PoisonError::into_inner)),
            None => Reader::Writer(self.write()),
        }
    }

    /// The root's record, made if there is none.
    ///
    /// # Errors
    ///
    /// The database fails.
    pub fn root(&self, path: &[u8]) -> Result<StoredRoot, StoreError> {
        let writer = self.write();
        let connection = &writer.connection;
        connection.execute(
            "INSERT INTO roots (path) VALUES (?1) ON CONFLICT DO NOTHING",
            [path],
        )?;
        Ok(connection.query_row(
            "SELECT id, device, inode, scanned, files_checked, born FROM roots WHERE path = ?1",
            [path],
            |row| {
                let device: Option<i64> = row.get(1)?;
                let inode: Option<i64> = row.get(2)?;
                let born: Option<i64> = row.get(5)?;
                Ok(StoredRoot {
                    id: row.get(0)?,
                    directory: device.zip(inode).map(|(device, inode)| RootDirectory {
                        device: device.cast_unsigned(),
                        inode: inode.cast_unsigned(),
                        born: born.map(FileTime),
                    }),
                    scanned: row.get::<_, Option<i64>>(3)?.map(FileTime),
                    files_checked: row.get::<_, Option<i64>>(4)?.map(FileTime),
                })
            },
        )?)
    }

    /// Forgets roots that are not configured any more.
    ///
    /// # Errors
    ///
    /// The database fails.
    pub fn keep_roots(&self, ids: &[i64]) -> Result<(), StoreError> {
        let mut writer = self.write();
        let transaction = begin(&mut writer.connection)?;
        let stored: Vec<i64> = transaction
            .prepare("SELECT id FROM roots")?
            .query_map([], |row| row.get(0))?
            .collect::<Result<_, _>>()?;
        for id in stored.into_iter().filter(|id| !ids.contains(id)) {
            forget(&transaction, id)?;
            transaction.execute("DELETE FROM roots WHERE id = ?1", [id])?;
        }
        transaction.commit()?;
        Ok(())
    }

    /// Makes the index of paths, if the scan that ends has done without it.
    ///
    /// # Errors
    ///
    /// The database fails.
    pub fn index_paths(&self) -> Result<(), StoreError> {
        index::make(&self.write().connection)
    }

    /// Notes that a scan of the root, the paths of which are indexed, is complete.
    ///
    /// # Errors
    ///
    /// The database fails.
    pub fn finish_scan(
        &self,
        id: i64,
        directory: RootDirectory,
        at: FileTime,
        files_checked: bool,
    ) -> Result<(), StoreError> {
        let mut writer = self.write();
        writer.frontiers.remove(&id);
        writer.connection.execute(
            "UPDATE roots SET device = ?2, inode = ?3, scanned = ?4, born = ?6,
             files_checked = CASE WHEN ?5 THEN ?4 ELSE files_checked END WHERE id = ?1",
            params![
                id,
                directory.device.cast_signed(),
                directory.inode.cast_signed(),
                at.0,
                files_checked,
                directory.born.map(|born| born.0)
            ],
        )?;
        writer.forget_at = commons::forget_unused(&writer.connection, writer.forget_at)?;
        Ok(())
    }

    /// Whether any image of a root is known.
    ///
    /// # Errors
    ///
    /// The database fails.
    pub fn has_images(&self, root: i64) -> Result<bool, StoreError> {
        let any = "SELECT EXISTS (SELECT 1 FROM images WHERE root = ?1)";
        Ok(self.read().query_row(any, [root], |row| row.get(0))?)
    }

    /// What only view FULL shows of an image.
    ///
    /// # Errors
    ///
    /// The database fails.
    pub fn details(&self, image: i64) -> Result<v1::Image, StoreError> {
        let details = self
            .read()
            .prepare_cached(
                "SELECT details, details_size FROM images WHERE id = ?1 AND details IS NOT NULL",
            )?
            .query_row([image], |row| {
                Ok(unpack(row.get_ref(0)?.as_blob()?, row.get(1)?))
            })
            .optional()?;
        Ok(details.unwrap_or_default())
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

    /// Whether the root will be scanned otherwise than what is known of it was found. That is so until
    /// [`Store::set_settings`] is told that it was, also after a crash.
    ///
    /// # Errors
    ///
    /// The database fails.
    pub fn begin_settings(&self, root: i64, settings: &str) -> Result<bool, StoreError> {
        let known: Option<String> =
            self.read()
                .query_row("SELECT settings FROM roots WHERE id = ?1", [root], |row| {
                    row.get(0)
                })?;
        match known.as_deref() {
            Some(known) if known == settings => return Ok(false),
            // What a first scan finds is found as it is told, and gone on with if it breaks off.
            None => self.set_settings(root, settings)?,
            Some(_) => self.set_settings(root, "")?,
        }
        Ok(true)
    }

    /// Notes how the root was scanned.
    ///
    /// # Errors
    ///
    /// The database fails.
    pub fn set_settings(&self, root: i64, settings: &str) -> Result<(), StoreError> {
        self.write().connection.execute(
            "UPDATE roots SET settings = ?2 WHERE id = ?1",
            params![root, settings],
        )?;
        Ok(())
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
            .prepare_cached(
                "UPDATE images SET content_digest = ?2
                 WHERE id = ?1 AND inode = ?3 AND size = ?4 AND modified = ?5 AND changed = ?6",
            )?
            .execute(params![
                digest.image,
                digest.digest,
                digest.identity.inode.cast_signed(),
                digest.identity.size.cast_signed(),
                digest.identity.modified.0,
                digest.identity.changed.0,
            ])?;
        Ok(updated > 0)
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

fn forget(transaction: &Transaction<'_>, root: i64) -> Result<(), StoreError> {
    for sql in [
        "DELETE FROM images WHERE root = ?1",
        "DELETE FROM files WHERE directory IN (SELECT id FROM directories WHERE root = ?1)",
        "DELETE FROM directories WHERE root = ?1",
        "UPDATE roots SET device = NULL, inode = NULL, born = NULL, scanned = NULL, files_checked = NULL
         WHERE id = ?1",
    ] {
        transaction.execute(sql, [root])?;
    }
    Ok(())
}

fn prepare(connection: &Connection) -> Result<(), StoreError> {
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.set_prepared_statement_cache_capacity(64);
    // The file is the agent's own, but a damaged one must not be trusted.
    connection.pragma_update(None, "trusted_schema", false)?;
    connection.pragma_update(None, "cell_size_check", true)?;
    Ok(())
}

/// One more connection that reads.
fn open_reader(path: &Path) -> Result<Connection, StoreError> {
    let reader = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    prepare(&reader)?;
    Ok(reader)
}
