//! How a database is opened: to be written, to be read only, or in memory.

use std::io;
use std::path::Path;
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use nix::sys::statvfs::statvfs;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, MAIN_DB, OpenFlags};

use super::file::{beside, file_at};
use super::{Store, StoreError, Writer, index, schema};

/// Bytes of a page: an image takes about five hundred, and each page costs four system calls until it is
/// where it stays.
const PAGE_SIZE: u32 = 16 << 10;

/// How long a statement waits for another process (an administrator's `sqlite3`) before it fails.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

impl Store {
    /// How long a start waits for another process: who asks is answered from what can be read meanwhile.
    pub const START_PATIENCE: Duration = Duration::from_millis(100);

    /// Opens (or makes) the database at `path`.
    ///
    /// # Errors
    ///
    /// The file cannot be opened or written, is no database, is damaged, or was written by a newer
    /// version.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        Self::open_within(path, BUSY_TIMEOUT)
    }

    /// The same, where another process that has it locked is waited for no longer than `patience`.
    ///
    /// # Errors
    ///
    /// As [`Store::open`].
    pub fn open_within(path: &Path, patience: Duration) -> Result<Self, StoreError> {
        let mut writer = Connection::open(path)?;
        // Known now, not in the midst of a scan. (A transaction of such a file begins as one that reads.)
        if writer.is_readonly(MAIN_DB)? {
            return Err(StoreError::ReadOnly {
                path: path.to_owned(),
                error: why_not_writable(path),
            });
        }
        prepare(&writer)?;
        writer.busy_timeout(patience)?;
        schema::check(&writer)?;
        // Of a new file; that of another stays.
        writer.pragma_update(None, "page_size", PAGE_SIZE)?;
        writer.pragma_update(None, "journal_mode", "wal")?;
        // A power cut may lose the last batches, which the next scan finds again; it cannot damage
        // the file.
        writer.pragma_update(None, "synchronous", "normal")?;
        if schema::migrate(&mut writer)? {
            give_back(&writer, path);
        }
        index::make(&writer)?;
        writer.execute_batch("BEGIN IMMEDIATE; COMMIT")?;
        writer.busy_timeout(BUSY_TIMEOUT)?;
        Ok(Self {
            writer: Mutex::new(Writer::new(writer)?),
            reader: Some(Mutex::new(open_reader(path)?)),
            path: Some(path.to_owned()),
            file: file_at(path).ok().flatten(),
            foreign: OnceLock::new(),
        })
    }

    /// Opens a database that is there to be read, and nothing else: for want of permission or of room, or because
    /// another process writes it. As a start does, with no more patience.
    ///
    /// # Errors
    ///
    /// It cannot be read either, or was written by another version.
    pub fn open_to_read(path: &Path) -> Result<Self, StoreError> {
        // Beside its file SQLite needs shared memory, for which there may be no place.
        let connection = open_reader_within(path, Self::START_PATIENCE)
            .or_else(|error| open_unchanging(path).ok_or(error)?)?;
        let found = schema::version(&connection)?;
        let known = schema::MIGRATIONS.len();
        if found < known as i64 {
            return Err(StoreError::Older { found, known });
        }
        schema::check(&connection)?;
        Ok(Self {
            writer: Mutex::new(Writer::new(connection)?),
            reader: None,
            path: None,
            file: None,
            foreign: OnceLock::new(),
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
            file: None,
            foreign: OnceLock::new(),
        }
    }
}

fn prepare(connection: &Connection) -> Result<(), StoreError> {
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.set_prepared_statement_cache_capacity(64);
    // Else a statement is compiled again where a value is bound that might change its plan, such as the number of the
    // first root: a scan asks thousands of times.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    // The file is the agent's own, but a damaged one must not be trusted.
    connection.pragma_update(None, "trusted_schema", false)?;
    connection.pragma_update(None, "cell_size_check", true)?;
    Ok(())
}

/// Gives back the room of what was rewritten: until then the file has all tables twice, and its log once more. Where
/// that does not work, it is only larger than it need be.
fn give_back(writer: &Connection, path: &Path) {
    let given_back = || -> Result<(), String> {
        let pages = "SELECT (page_count - freelist_count) * page_size
                     FROM pragma_page_count, pragma_freelist_count, pragma_page_size";
        let used = writer.query_row(pages, [], |row| row.get::<_, i64>(0));
        let used = used.map_err(|error| error.to_string())?;
        let directory = path.parent().unwrap_or(path);
        let free = statvfs(directory).map_err(|error| error.to_string())?;
        let free = free.blocks_available() * free.fragment_size();
        // It is written to another file, and then to the log.
        if free < 2 * used.unsigned_abs() {
            return Err(format!("{free} bytes are free, and {used} are used"));
        }
        writer
            .execute_batch("VACUUM; PRAGMA wal_checkpoint(TRUNCATE)")
            .map_err(|error| error.to_string())
    };
    if let Err(error) = given_back() {
        tracing::info!(error, "the catalogue's file stays larger than it need be");
    }
}

/// Which older version there is at `path`, from which an agent that starts takes it to the present one.
#[must_use]
pub fn older_at(path: &Path) -> Option<i64> {
    // What cannot be read, or not yet, is told by whoever opens it.
    let connection = open_reader_within(path, Store::START_PATIENCE).ok()?;
    let found = schema::version(&connection).ok()?;
    (1..schema::MIGRATIONS.len() as i64)
        .contains(&found)
        .then_some(found)
}

/// One more connection that reads.
pub(super) fn open_reader(path: &Path) -> Result<Connection, StoreError> {
    open_reader_within(path, BUSY_TIMEOUT)
}

fn open_reader_within(path: &Path, patience: Duration) -> Result<Connection, StoreError> {
    let reader = Connection::open_with_flags(path, READ)?;
    prepare(&reader)?;
    reader.busy_timeout(patience)?;
    // Opened when it is used.
    schema::version(&reader)?;
    Ok(reader)
}

const READ: OpenFlags = OpenFlags::SQLITE_OPEN_READ_ONLY.union(OpenFlags::SQLITE_OPEN_NO_MUTEX);

/// The same of a file that nobody writes, with no other file beside it; `None` if there may be somebody.
fn open_unchanging(path: &Path) -> Option<Result<Connection, StoreError>> {
    let [log, _] = beside(path);
    let is_empty = std::fs::metadata(log).map_or(true, |log| log.len() == 0);
    // In a URI these have a meaning.
    let name = path.to_str().filter(|_| is_empty)?;
    let name = name
        .replace('%', "%25")
        .replace('?', "%3f")
        .replace('#', "%23");
    let open = || {
        let uri = format!("file:{name}?immutable=1");
        let reader = Connection::open_with_flags(uri, READ | OpenFlags::SQLITE_OPEN_URI)?;
        prepare(&reader)?;
        Ok(reader)
    };
    Some(open())
}

/// What the system says to somebody who would write a file.
fn why_not_writable(path: &Path) -> io::Error {
    match std::fs::OpenOptions::new().append(true).open(path) {
        Err(error) => error,
        Ok(_) => io::Error::other("SQLite opens it for reading only"),
    }
}
