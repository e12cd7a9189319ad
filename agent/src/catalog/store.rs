//! The catalogue on disk: SQLite with a write-ahead log. One writer; whoever reads never waits for
//! it. `sqlite3 FILE` shows what is in it.
//!
//! Every batch of a scan is one transaction. A directory's state is stored together with what was
//! found in it and with the names of its subdirectories, so that after a crash at any moment what
//! was not stored is read again.

use std::collections::HashSet;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prost::Message as _;
use rusqlite::{Connection, OpenFlags, OptionalExtension, Transaction, params};
use sifter_proto::v1;

use super::change::{ChangeKind, DirectoryChange, KnownDirectory, KnownFile};
use super::columns;
use super::detail;
use super::entry::{Content, ContentDigest, FileFacts, FileTime, Found, Identity, KnownImage};
use super::row::{Interner, Row, join_path};

/// Steps from one schema version to the next; `user_version` counts those that were taken. A step
/// that was released is never changed.
const MIGRATIONS: &[&str] = &[include_str!("schema/1.sql")];

/// How long a statement waits for another process (an administrator's `sqlite3`) before it fails.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Known directories handed out at a time.
const KNOWN_BATCH: i64 = 1024;

/// What is wrong with the database.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// SQLite's own word.
    #[error("catalogue: {0}")]
    Sqlite(#[from] rusqlite::Error),
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
            Self::Newer { .. } => false,
            Self::Sqlite(error) => matches!(
                error.sqlite_error_code(),
                Some(rusqlite::ErrorCode::DatabaseCorrupt | rusqlite::ErrorCode::NotADatabase)
            ),
        }
    }
}

/// The database.
#[derive(Debug)]
pub struct Store {
    writer: Mutex<Connection>,
    /// For readers, so that they never wait for the writer; a database in memory has but one
    /// connection.
    reader: Option<Mutex<Connection>>,
}

/// What is stored of a root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoredRoot {
    /// Number.
    pub id: i64,
    /// Device and inode of the root directory at the last complete scan.
    pub directory: Option<(u64, u64)>,
    /// When the last complete scan ended; `None`: never.
    pub scanned: Option<FileTime>,
    /// When the last complete scan that looked at the files ended.
    pub files_checked: Option<FileTime>,
}

/// What a batch changed in the listing.
#[derive(Debug, Default)]
pub struct Delta {
    /// Images that are new or changed.
    pub upserts: Vec<Row>,
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
        prepare(&writer)?;
        check(&writer)?;
        writer.pragma_update(None, "journal_mode", "wal")?;
        // A power cut may lose the last batches, which the next scan finds again; it cannot damage
        // the file.
        writer.pragma_update(None, "synchronous", "normal")?;
        migrate(&mut writer)?;
        // A file that can be read but not written must be known now, not in the midst of a scan.
        writer.execute_batch("BEGIN IMMEDIATE; COMMIT")?;
        let reader = Connection::open_with_flags(
            path,
            OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX,
        )?;
        prepare(&reader)?;
        Ok(Self {
            writer: Mutex::new(writer),
            reader: Some(Mutex::new(reader)),
        })
    }

    /// Makes a database in memory, whose images are numbered from `first_id` on.
    ///
    /// # Panics
    ///
    /// SQLite cannot make an empty database in memory, for want of memory.
    #[must_use]
    #[allow(clippy::expect_used)]
    pub fn in_memory(first_id: i64) -> Self {
        let open = || -> Result<Connection, StoreError> {
            let mut writer = Connection::open_in_memory()?;
            prepare(&writer)?;
            migrate(&mut writer)?;
            writer.execute(
                "INSERT INTO sqlite_sequence (name, seq) VALUES ('images', ?1)",
                [first_id],
            )?;
            Ok(writer)
        };
        Self {
            writer: Mutex::new(open().expect("an empty database in memory")),
            reader: None,
        }
    }

    fn write(&self) -> MutexGuard<'_, Connection> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self) -> MutexGuard<'_, Connection> {
        self.reader
            .as_ref()
            .unwrap_or(&self.writer)
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// The root's record, made if there is none.
    ///
    /// # Errors
    ///
    /// The database fails.
    pub fn root(&self, path: &[u8]) -> Result<StoredRoot, StoreError> {
        let connection = self.write();
        connection.execute(
            "INSERT INTO roots (path) VALUES (?1) ON CONFLICT DO NOTHING",
            [path],
        )?;
        Ok(connection.query_row(
            "SELECT id, device, inode, scanned, files_checked FROM roots WHERE path = ?1",
            [path],
            |row| {
                let device: Option<i64> = row.get(1)?;
                let inode: Option<i64> = row.get(2)?;
                Ok(StoredRoot {
                    id: row.get(0)?,
                    directory: device
                        .zip(inode)
                        .map(|(device, inode)| (device.cast_unsigned(), inode.cast_unsigned())),
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
        let mut connection = self.write();
        let transaction = connection.transaction()?;
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

    /// Forgets everything below a root, which then begins anew.
    ///
    /// # Errors
    ///
    /// The database fails.
    pub fn clear_root(&self, id: i64) -> Result<(), StoreError> {
        let mut connection = self.write();
        let transaction = connection.transaction()?;
        forget(&transaction, id)?;
        transaction.commit()?;
        Ok(())
    }

    /// Notes that a scan of the root is complete.
    ///
    /// # Errors
    ///
    /// The database fails.
    pub fn finish_scan(
        &self,
        id: i64,
        directory: (u64, u64),
        at: FileTime,
        files_checked: bool,
    ) -> Result<(), StoreError> {
        self.write().execute(
            "UPDATE roots SET device = ?2, inode = ?3, scanned = ?4,
             files_checked = CASE WHEN ?5 THEN ?4 ELSE files_checked END WHERE id = ?1",
            params![
                id,
                directory.0.cast_signed(),
                directory.1.cast_signed(),
                at.0,
                files_checked
            ],
        )?;
        Ok(())
    }

    /// All images of a root, in no particular order, and the directories that could not be read.
    ///
    /// # Errors
    ///
    /// The database fails.
    pub fn load(
        &self,
        root: i64,
        root_path: &[u8],
        root_text: &Arc<str>,
        texts: &mut Interner,
    ) -> Result<Delta, StoreError> {
        let connection = self.read();
        let mut delta = Delta::default();
        let sql = format!(
            "SELECT (SELECT path FROM directories WHERE id = directory), name, id, {}
             FROM images WHERE root = ?1",
            columns::LISTING
        );
        let mut statement = connection.prepare(&sql)?;
        let mut rows = statement.query([root])?;
        while let Some(row) = rows.next()? {
            let directory = row.get_ref(0)?.as_blob().unwrap_or_default();
            let name = row.get_ref(1)?.as_blob().unwrap_or_default();
            let path = join_path(root_path, directory, name);
            delta
                .upserts
                .push(columns::read(row, 2, path, root_text, texts)?);
        }
        let mut statement = connection
            .prepare("SELECT path, error FROM directories WHERE root = ?1 AND error IS NOT NULL")?;
        delta.unreadable = statement
            .query_map([root], |row| {
                Ok((row.get::<_, Vec<u8>>(0)?.into(), row.get(1)?))
            })?
            .collect::<Result<_, _>>()?;
        Ok(delta)
    }

    /// What only view FULL shows of an image.
    ///
    /// # Errors
    ///
    /// The database fails.
    pub fn details(&self, image: i64) -> Result<v1::Image, StoreError> {
        let data: Option<Vec<u8>> = self
            .read()
            .prepare_cached("SELECT data FROM details WHERE image = ?1")?
            .query_row([image], |row| row.get(0))
            .optional()?;
        // What cannot be decoded was written by another version, and is shown again after the next
        // change of the image.
        Ok(data
            .and_then(|data| v1::Image::decode(&*data).ok())
            .unwrap_or_default())
    }

    /// Applies what a scan found, in one transaction.
    ///
    /// # Errors
    ///
    /// The database fails; nothing of the batch is stored then.
    pub fn apply(
        &self,
        root: i64,
        root_path: &[u8],
        root_text: &Arc<str>,
        changes: Vec<DirectoryChange>,
        texts: &mut Interner,
    ) -> Result<Delta, StoreError> {
        let mut connection = self.write();
        let transaction = connection.transaction()?;
        let mut batch = Batch {
            transaction: &transaction,
            root,
            root_path,
            root_text,
            texts,
            delta: Delta::default(),
            pending: HashSet::new(),
        };
        for change in changes {
            batch.change(change)?;
        }
        let delta = batch.finish()?;
        transaction.commit()?;
        Ok(delta)
    }

    /// Where the walk over the known directories begins.
    ///
    /// # Errors
    ///
    /// The database fails.
    pub fn known(self: &Arc<Self>, root: i64) -> Result<KnownRoot, StoreError> {
        let connection = self.read();
        let last = connection.query_row("SELECT max(id) FROM directories", [], |row| {
            row.get::<_, Option<i64>>(0)
        })?;
        let has_root = connection
            .query_row(
                "SELECT 1 FROM directories WHERE root = ?1 AND path = x''",
                [root],
                |_| Ok(()),
            )
            .optional()?
            .is_some();
        drop(connection);
        Ok(KnownRoot {
            store: Arc::clone(self),
            root,
            last: last.unwrap_or(0),
            has_root,
            cursor: Mutex::new(Cursor::Start),
        })
    }

    /// The same for some directories only.
    #[must_use]
    pub fn known_some(self: &Arc<Self>, root: i64, paths: Vec<Box<[u8]>>) -> KnownRoot {
        KnownRoot {
            store: Arc::clone(self),
            root,
            last: i64::MAX,
            // The walk must not begin at the root.
            has_root: true,
            cursor: Mutex::new(Cursor::Only(paths)),
        }
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

    /// Notes how the root was scanned; true if that is new, and what is known was found otherwise.
    ///
    /// # Errors
    ///
    /// The database fails.
    pub fn set_settings(&self, root: i64, settings: &str) -> Result<bool, StoreError> {
        let updated = self.write().execute(
            "UPDATE roots SET settings = ?2 WHERE id = ?1 AND settings IS NOT ?2",
            params![root, settings],
        )?;
        Ok(updated > 0)
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

/// What the catalogue knows of one root, as a scan asks for it.
#[derive(Debug)]
pub struct KnownRoot {
    store: Arc<Store>,
    root: i64,
    /// Directories with higher numbers were found by this very scan.
    last: i64,
    has_root: bool,
    cursor: Mutex<Cursor>,
}

#[derive(Debug)]
enum Cursor {
    Start,
    After(Vec<u8>),
    /// These only.
    Only(Vec<Box<[u8]>>),
    Done,
}

impl KnownRoot {
    /// Whether the root directory itself is known.
    #[must_use]
    pub fn has_root(&self) -> bool {
        self.has_root
    }

    /// The next directories with their candidates; none when there are no more.
    ///
    /// # Errors
    ///
    /// The database fails.
    pub fn next_directories(&self) -> Result<Vec<KnownDirectory>, StoreError> {
        let mut cursor = self.cursor.lock().unwrap_or_else(PoisonError::into_inner);
        let connection = self.store.read();
        let mut directories: Vec<KnownDirectory> = Vec::new();
        match &*cursor {
            Cursor::Start | Cursor::After(_) => {
                // No path is smaller than the empty one, which is the root's.
                let (after, first) = match &*cursor {
                    Cursor::After(path) => (path.as_slice(), false),
                    _ => (&b""[..], true),
                };
                let mut statement = connection.prepare_cached(
                    "SELECT id, path, inode, modified, changed, volatile OR error IS NOT NULL
                     FROM directories
                     WHERE root = ?1 AND path >= ?2 AND (?3 OR path > ?2) AND id <= ?4
                     ORDER BY path LIMIT ?5",
                )?;
                let mut rows =
                    statement.query(params![self.root, after, first, self.last, KNOWN_BATCH])?;
                while let Some(row) = rows.next()? {
                    directories.push(known_directory(row)?);
                }
            }
            Cursor::Only(paths) => {
                let mut one = connection.prepare_cached(
                    "SELECT id, path, inode, modified, changed, volatile OR error IS NOT NULL
                     FROM directories WHERE root = ?1 AND path = ?2",
                )?;
                for path in paths {
                    let known = one
                        .query_row(params![self.root, path], known_directory)
                        .optional()?;
                    directories.extend(known);
                }
            }
            Cursor::Done => return Ok(Vec::new()),
        }
        let mut files = connection.prepare_cached(
            "SELECT name, inode, size, modified, changed, volatile, image
             FROM files WHERE directory = ?1",
        )?;
        for directory in &mut directories {
            let mut rows = files.query([directory.id])?;
            while let Some(row) = rows.next()? {
                directory.files.push(KnownFile {
                    name: row.get_ref(0)?.as_blob().unwrap_or_default().into(),
                    identity: identity(row, 1)?,
                    volatile: row.get(5)?,
                    image: row.get(6)?,
                });
            }
        }
        *cursor = match (&*cursor, directories.last()) {
            (Cursor::Only(_), _) | (_, None) => Cursor::Done,
            (_, Some(last)) => Cursor::After(last.path.to_vec()),
        };
        Ok(directories)
    }

    /// Names of the directories known in the directory at `path`.
    ///
    /// # Errors
    ///
    /// The database fails.
    pub fn children(&self, path: &[u8]) -> Result<Vec<Box<[u8]>>, StoreError> {
        let connection = self.store.read();
        let mut next = connection.prepare_cached(
            "SELECT path FROM directories WHERE root = ?1 AND path >= ?2 ORDER BY path LIMIT 1",
        )?;
        let mut prefix = path.to_vec();
        if !prefix.is_empty() {
            prefix.push(b'/');
        }
        let mut names = Vec::new();
        // No path holds a NUL, so that what follows `x` immediately is `x` and a NUL.
        let mut from = prefix.clone();
        from.push(0);
        loop {
            let found: Option<Vec<u8>> = next
                .query_row(params![self.root, from], |row| row.get(0))
                .optional()?;
            let Some(found) = found else { break };
            let Some(name) = found.strip_prefix(&*prefix) else {
                break;
            };
            match name.iter().position(|byte| *byte == b'/') {
                None => {
                    names.push(name.into());
                    from = found;
                    from.push(0);
                }
                // Below a child: pass over all of its descendants at once. `0` follows `/`.
                Some(slash) => {
                    from = found[..prefix.len() + slash].to_vec();
                    from.push(b'0');
                }
            }
        }
        Ok(names)
    }

    /// The images known under an inode number.
    ///
    /// # Errors
    ///
    /// The database fails.
    pub fn images_with_inode(&self, inode: u64) -> Result<Vec<(i64, Identity)>, StoreError> {
        let connection = self.store.read();
        let mut statement = connection.prepare_cached(
            "SELECT id, inode, size, modified, changed FROM images WHERE inode = ?1 AND root = ?2",
        )?;
        let images = statement
            .query_map(params![inode.cast_signed(), self.root], |row| {
                Ok((row.get(0)?, identity(row, 1)?))
            })?
            .collect::<Result<_, _>>()?;
        Ok(images)
    }
}

impl KnownRoot {
    /// All that is known of an image; `None` if it is gone meanwhile.
    ///
    /// # Errors
    ///
    /// The database fails.
    pub fn image(&self, id: i64) -> Result<Option<KnownImage>, StoreError> {
        let connection = self.store.read();
        let sql = format!(
            "SELECT (SELECT data FROM details WHERE image = id), id, {} FROM images WHERE id = ?1",
            columns::LISTING
        );
        let known = connection
            .prepare_cached(&sql)?
            .query_row([id], |row| {
                let details: Option<Vec<u8>> = row.get(0)?;
                let details = details
                    .and_then(|data| v1::Image::decode(&*data).ok())
                    .unwrap_or_default();
                let (root, mut texts) = ("".into(), Interner::default());
                let row = columns::read(row, 1, Box::default(), &root, &mut texts)?;
                Ok(KnownImage { row, details })
            })
            .optional()?;
        Ok(known)
    }
}

/// One transaction of [`Store::apply`].
struct Batch<'a> {
    transaction: &'a Transaction<'a>,
    root: i64,
    root_path: &'a [u8],
    root_text: &'a Arc<str>,
    texts: &'a mut Interner,
    delta: Delta,
    /// Directories that were named by their parents and not read in this batch yet.
    pending: HashSet<Box<[u8]>>,
}

impl Batch<'_> {
    fn change(&mut self, change: DirectoryChange) -> Result<(), StoreError> {
        match change.kind {
            ChangeKind::Read {
                identity,
                volatile,
                children,
                found,
                removed,
            } => {
                let id = self.directory(&change.path, change.id, identity, volatile)?;
                let is_sandbox = found.iter().any(|found| found.name.is_empty());
                if is_sandbox {
                    self.gone_below(&change.path)?;
                }
                for child in children {
                    self.pending.insert(join_relative(&change.path, &child));
                }
                self.files(id, &change.path, found, removed)?;
                self.delta.readable.push(change.path);
            }
            ChangeKind::Files { found, removed } => {
                if let Some(id) = change.id {
                    self.files(id, &change.path, found, removed)?;
                }
            }
            ChangeKind::Gone => {
                self.gone_below(&change.path)?;
                if let Some(id) = self.directory_id(&change.path)? {
                    self.remove_directory(id)?;
                }
            }
            ChangeKind::Unreadable { message } => {
                self.transaction
                    .prepare_cached(
                        "INSERT INTO directories (root, path, inode, modified, changed, volatile, error)
                         VALUES (?1, ?2, 0, 0, 0, 1, ?3)
                         ON CONFLICT (root, path) DO UPDATE SET volatile = 1, error = ?3",
                    )?
                    .execute(params![self.root, change.path, message])?;
                self.pending.remove(&change.path);
                self.delta.unreadable.push((change.path, message));
            }
        }
        Ok(())
    }

    fn finish(self) -> Result<Delta, StoreError> {
        let mut insert = self.transaction.prepare_cached(
            "INSERT INTO directories (root, path, inode, modified, changed, volatile)
             VALUES (?1, ?2, 0, 0, 0, 1) ON CONFLICT DO NOTHING",
        )?;
        for path in self.pending {
            insert.execute(params![self.root, path])?;
        }
        Ok(self.delta)
    }

    fn directory_id(&self, path: &[u8]) -> Result<Option<i64>, StoreError> {
        Ok(self
            .transaction
            .prepare_cached("SELECT id FROM directories WHERE root = ?1 AND path = ?2")?
            .query_row(params![self.root, path], |row| row.get(0))
            .optional()?)
    }

    fn directory(
        &mut self,
        path: &[u8],
        id: Option<i64>,
        identity: Identity,
        volatile: bool,
    ) -> Result<i64, StoreError> {
        self.pending.remove(path);
        if let Some(id) = id {
            let updated = self
                .transaction
                .prepare_cached(
                    "UPDATE directories SET inode = ?2, modified = ?3, changed = ?4, volatile = ?5,
                     error = NULL WHERE id = ?1",
                )?
                .execute(params![
                    id,
                    identity.inode.cast_signed(),
                    identity.modified.0,
                    identity.changed.0,
                    volatile
                ])?;
            if updated == 1 {
                return Ok(id);
            }
        }
        Ok(self
            .transaction
            .prepare_cached(
                "INSERT INTO directories (root, path, inode, modified, changed, volatile)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)
                 ON CONFLICT (root, path) DO UPDATE SET inode = ?3, modified = ?4, changed = ?5,
                 volatile = ?6, error = NULL RETURNING id",
            )?
            .query_row(
                params![
                    self.root,
                    path,
                    identity.inode.cast_signed(),
                    identity.modified.0,
                    identity.changed.0,
                    volatile
                ],
                |row| row.get(0),
            )?)
    }

    fn files(
        &mut self,
        directory: i64,
        path: &[u8],
        found: Vec<Found>,
        removed: Vec<Box<[u8]>>,
    ) -> Result<(), StoreError> {
        for name in removed {
            self.remove_file(directory, &name)?;
        }
        for found in found {
            self.file(directory, path, found)?;
        }
        Ok(())
    }

    fn file(&mut self, directory: i64, path: &[u8], found: Found) -> Result<(), StoreError> {
        let known: Option<Option<i64>> = self
            .transaction
            .prepare_cached("SELECT image FROM files WHERE directory = ?1 AND name = ?2")?
            .query_row(params![directory, found.name], |row| row.get(0))
            .optional()?;
        let known_image = known.flatten();
        let image = match &found.content {
            Content::Other => {
                if let Some(image) = known_image {
                    self.remove_image(image)?;
                }
                None
            }
            Content::Image(image) => {
                let row_path = join_path(self.root_path, path, &found.name);
                let mut row = Row::new(
                    known_image.unwrap_or(0),
                    row_path,
                    self.root_text,
                    found.facts,
                    image,
                    self.texts,
                );
                if let Some(known) = known_image {
                    row.content_digest = self.content_digest(known, &found.facts)?;
                }
                row.id = columns::write(
                    self.transaction,
                    &row,
                    known_image,
                    self.root,
                    directory,
                    &found.name,
                )?;
                self.transaction
                    .prepare_cached("INSERT OR REPLACE INTO details (image, data) VALUES (?1, ?2)")?
                    .execute(params![row.id, detail::details(image).encode_to_vec()])?;
                let id = row.id;
                self.delta.upserts.push(row);
                Some(id)
            }
            Content::Moved(known) => {
                let known = (**known).clone();
                Some(self.moved(known, known_image, directory, path, &found)?)
            }
        };
        let identity = Identity::from(&found.facts);
        self.transaction
            .prepare_cached(
                "INSERT OR REPLACE INTO files
                 (directory, name, inode, size, modified, changed, volatile, image)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            )?
            .execute(params![
                directory,
                found.name,
                identity.inode.cast_signed(),
                identity.size.cast_signed(),
                identity.modified.0,
                identity.changed.0,
                found.volatile,
                image
            ])?;
        Ok(())
    }

    /// The digest of an image that was read again, if its file is the same.
    fn content_digest(
        &self,
        image: i64,
        facts: &FileFacts,
    ) -> Result<Option<Box<[u8; 32]>>, StoreError> {
        let identity = Identity::from(facts);
        let digest: Option<Option<[u8; 32]>> = self
            .transaction
            .prepare_cached(
                "SELECT content_digest FROM images
                 WHERE id = ?1 AND inode = ?2 AND size = ?3 AND modified = ?4 AND changed = ?5",
            )?
            .query_row(
                params![
                    image,
                    identity.inode.cast_signed(),
                    identity.size.cast_signed(),
                    identity.modified.0,
                    identity.changed.0
                ],
                |row| row.get(0),
            )
            .optional()?;
        Ok(digest.flatten().map(Box::new))
    }

    /// A known image is now (also) here: a new one with what is known of that one. The old place
    /// reports by itself that it is gone, or stays, as another hard link.
    fn moved(
        &mut self,
        known: KnownImage,
        known_image: Option<i64>,
        directory: i64,
        path: &[u8],
        found: &Found,
    ) -> Result<i64, StoreError> {
        let mut row = known.row;
        row.path = join_path(self.root_path, path, &found.name);
        row.root = Arc::clone(self.root_text);
        row.facts = found.facts;
        self.rename(&mut row, &known.details);
        row.id = columns::write(
            self.transaction,
            &row,
            known_image,
            self.root,
            directory,
            &found.name,
        )?;
        self.transaction
            .prepare_cached("INSERT OR REPLACE INTO details (image, data) VALUES (?1, ?2)")?
            .execute(params![row.id, known.details.encode_to_vec()])?;
        let id = row.id;
        self.delta.upserts.push(row);
        Ok(id)
    }

    /// What a moved image is called now, where that depends on its path.
    fn rename(&mut self, row: &mut Row, details: &v1::Image) {
        use sifter_image::record::ReferenceSource;
        use sifter_image::reference::{Evidence, resolve};
        use std::os::unix::ffi::OsStrExt;
        if matches!(
            row.reference_source,
            ReferenceSource::OciReference | ReferenceSource::Definition
        ) {
            return;
        }
        let labels = details
            .labels
            .iter()
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        let resolution = resolve(
            &Evidence {
                path: Path::new(std::ffi::OsStr::from_bytes(&row.path)),
                // A root with naming rules has its moved images read.
                naming: &[],
                // Would have won before.
                oci_reference: None,
                definition: Some(details.definition.as_str()).filter(|text| !text.is_empty()),
                labels: &labels,
            },
            false,
        );
        row.repository = self.texts.get(&resolution.reference.repository);
        row.tag = self.texts.get(&resolution.reference.tag);
        row.reference_source = resolution.reference.source;
        row.base = self.texts.get(&resolution.base);
    }

    fn remove_file(&mut self, directory: i64, name: &[u8]) -> Result<(), StoreError> {
        let image: Option<Option<i64>> = self
            .transaction
            .prepare_cached("DELETE FROM files WHERE directory = ?1 AND name = ?2 RETURNING image")?
            .query_row(params![directory, name], |row| row.get(0))
            .optional()?;
        if let Some(image) = image.flatten() {
            self.remove_image(image)?;
        }
        Ok(())
    }

    fn remove_image(&mut self, image: i64) -> Result<(), StoreError> {
        for sql in [
            "DELETE FROM images WHERE id = ?1",
            "DELETE FROM details WHERE image = ?1",
        ] {
            self.transaction.prepare_cached(sql)?.execute([image])?;
        }
        self.delta.removed.push(image);
        Ok(())
    }

    fn remove_directory(&mut self, id: i64) -> Result<(), StoreError> {
        let images: Vec<i64> = self
            .transaction
            .prepare_cached("SELECT image FROM files WHERE directory = ?1 AND image IS NOT NULL")?
            .query_map([id], |row| row.get(0))?
            .collect::<Result<_, _>>()?;
        for image in images {
            self.remove_image(image)?;
        }
        for sql in [
            "DELETE FROM files WHERE directory = ?1",
            "DELETE FROM directories WHERE id = ?1",
        ] {
            self.transaction.prepare_cached(sql)?.execute([id])?;
        }
        Ok(())
    }

    fn gone_below(&mut self, path: &[u8]) -> Result<(), StoreError> {
        let (from, to) = descendants(path);
        let ids: Vec<i64> = self
            .transaction
            .prepare_cached(
                "SELECT id FROM directories WHERE root = ?1 AND path > ?2 AND (?3 IS NULL OR path < ?3)",
            )?
            .query_map(params![self.root, from, to], |row| row.get(0))?
            .collect::<Result<_, _>>()?;
        for id in ids {
            self.remove_directory(id)?;
        }
        Ok(())
    }
}

/// The path of `name` in a directory, both relative to the root.
fn join_relative(directory: &[u8], name: &[u8]) -> Box<[u8]> {
    if directory.is_empty() {
        name.into()
    } else {
        join_path(directory, name, b"")
    }
}

/// The range of paths below `path`, both ends exclusive; `0` is the byte after `/`.
fn descendants(path: &[u8]) -> (Vec<u8>, Option<Vec<u8>>) {
    if path.is_empty() {
        return (Vec::new(), None);
    }
    let (mut from, mut to) = (path.to_vec(), path.to_vec());
    from.push(b'/');
    to.push(b'0');
    (from, Some(to))
}

fn forget(transaction: &Transaction<'_>, root: i64) -> Result<(), StoreError> {
    for sql in [
        "DELETE FROM details WHERE image IN (SELECT id FROM images WHERE root = ?1)",
        "DELETE FROM images WHERE root = ?1",
        "DELETE FROM files WHERE directory IN (SELECT id FROM directories WHERE root = ?1)",
        "DELETE FROM directories WHERE root = ?1",
        "UPDATE roots SET device = NULL, inode = NULL, scanned = NULL, files_checked = NULL
         WHERE id = ?1",
    ] {
        transaction.execute(sql, [root])?;
    }
    Ok(())
}

fn known_directory(row: &rusqlite::Row<'_>) -> rusqlite::Result<KnownDirectory> {
    Ok(KnownDirectory {
        id: row.get(0)?,
        path: row.get_ref(1)?.as_blob()?.into(),
        identity: Identity {
            inode: row.get::<_, i64>(2)?.cast_unsigned(),
            size: 0,
            modified: FileTime(row.get(3)?),
            changed: FileTime(row.get(4)?),
        },
        volatile: row.get(5)?,
        files: Vec::new(),
    })
}

fn identity(row: &rusqlite::Row<'_>, first: usize) -> rusqlite::Result<Identity> {
    Ok(Identity {
        inode: row.get::<_, i64>(first)?.cast_unsigned(),
        size: row.get::<_, i64>(first + 1)?.cast_unsigned(),
        modified: FileTime(row.get(first + 2)?),
        changed: FileTime(row.get(first + 3)?),
    })
}

fn prepare(connection: &Connection) -> Result<(), StoreError> {
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.set_prepared_statement_cache_capacity(64);
    // The file is the agent's own, but a damaged one must not be trusted.
    connection.pragma_update(None, "trusted_schema", false)?;
    connection.pragma_update(None, "cell_size_check", true)?;
    Ok(())
}

fn check(connection: &Connection) -> Result<(), StoreError> {
    let found: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if found > MIGRATIONS.len() as i64 {
        return Err(StoreError::Newer {
            found,
            known: MIGRATIONS.len(),
        });
    }
    Ok(())
}

fn migrate(connection: &mut Connection) -> Result<(), StoreError> {
    let done: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    for (index, migration) in MIGRATIONS
        .iter()
        .enumerate()
        .skip(usize::try_from(done).unwrap_or(0))
    {
        let transaction = connection.transaction()?;
        transaction.execute_batch(migration)?;
        transaction.pragma_update(None, "user_version", index as i64 + 1)?;
        transaction.commit()?;
    }
    Ok(())
}
