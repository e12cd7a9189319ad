//! What the catalogue knows of a root, as a scan asks for it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use rusqlite::{Connection, OptionalExtension, params};

use super::super::change::{KnownDirectory, KnownFile};
use super::super::columns::{self, StoredCommon};
use super::super::entry::KnownImage;
use super::super::facts::{self, FileTime, Identity};
use super::super::kept::{Commons, KeptRow};
use super::super::snapshot::Snapshot;
use super::{Store, StoreError, stored_details};
use crate::lock::lock;

/// Known directories handed out at a time.
const KNOWN_BATCH: i64 = 1024;

/// So many inode numbers are looked for in the whole listing before an index is made: it takes the time of
/// a few searches, and memory that the agent would need for nothing else.
const ASKED_FEW: usize = 4;

/// What the catalogue knows of one root, as a scan asks for it.
#[derive(Debug)]
pub struct KnownRoot {
    store: Arc<Store>,
    root: i64,
    /// Directories with higher numbers were found by this very scan.
    last: i64,
    has_root: bool,
    cursor: Mutex<Cursor>,
    /// The listing, and the places of this root's images in it by inode number, in order, once it pays.
    listing: Arc<Snapshot>,
    root_text: Arc<str>,
    by_inode: OnceLock<Vec<(u64, usize)>>,
    /// Inode numbers that were asked for.
    asked: AtomicUsize,
    /// Why it could not be read on.
    failure: OnceLock<StoreError>,
}

#[derive(Debug)]
enum Cursor {
    /// Those with higher numbers.
    After(i64),
    /// These only.
    Only(Vec<Box<[u8]>>),
    Done,
}

impl Store {
    /// Where the walk over the known directories begins.
    ///
    /// # Errors
    ///
    /// The database fails.
    pub fn known(
        self: &Arc<Self>,
        root: i64,
        root_text: &Arc<str>,
        listing: Arc<Snapshot>,
    ) -> Result<KnownRoot, StoreError> {
        self.begin_scan(root)?;
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
            cursor: Mutex::new(Cursor::After(0)),
            listing,
            root_text: Arc::clone(root_text),
            by_inode: OnceLock::new(),
            asked: AtomicUsize::new(0),
            failure: OnceLock::new(),
        })
    }

    /// The same for some directories only.
    ///
    /// # Errors
    ///
    /// The database fails.
    pub fn known_some(
        self: &Arc<Self>,
        root: i64,
        root_text: &Arc<str>,
        listing: Arc<Snapshot>,
        paths: Vec<Box<[u8]>>,
    ) -> Result<KnownRoot, StoreError> {
        self.begin_scan(root)?;
        Ok(KnownRoot {
            store: Arc::clone(self),
            root,
            last: i64::MAX,
            // The walk must not begin at the root.
            has_root: true,
            cursor: Mutex::new(Cursor::Only(paths)),
            listing,
            root_text: Arc::clone(root_text),
            by_inode: OnceLock::new(),
            asked: AtomicUsize::new(0),
            failure: OnceLock::new(),
        })
    }
}

impl KnownRoot {
    /// Where it is read from.
    pub(in crate::catalog) fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// Notes that it cannot be read on, and says why.
    pub fn fail(&self, error: StoreError) -> String {
        let message = error.to_string();
        let _ = self.failure.set(error);
        message
    }

    /// Where it is read from, and why it could not be read on, if so.
    pub(in crate::catalog) fn failure(&self) -> Option<(&Arc<Store>, &StoreError)> {
        self.failure.get().map(|error| (&self.store, error))
    }

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
        let mut cursor = lock(&self.cursor);
        let connection = self.store.read();
        // One transaction: each statement alone would lock the file and let go of it.
        let transaction = connection.unchecked_transaction()?;
        let directories = match &*cursor {
            Cursor::After(number) => self.directories_after(&transaction, *number)?,
            Cursor::Only(paths) => self.directories_at(&transaction, paths)?,
            Cursor::Done => return Ok(Vec::new()),
        };
        *cursor = match (&*cursor, directories.last()) {
            (Cursor::Only(_), _) | (_, None) => Cursor::Done,
            (_, Some(last)) => Cursor::After(last.id),
        };
        Ok(directories)
    }

    /// In the order of their numbers: so directories and files are each read in one go.
    fn directories_after(
        &self,
        connection: &Connection,
        number: i64,
    ) -> Result<Vec<KnownDirectory>, StoreError> {
        let mut directories: Vec<KnownDirectory> = connection
            .prepare_cached(
                "SELECT id, path, facts, volatile OR error IS NOT NULL
                 FROM directories WHERE id > ?1 AND id <= ?2 AND +root = ?3
                 ORDER BY id LIMIT ?4",
            )?
            .query_map(
                params![number, self.last, self.root, KNOWN_BATCH],
                known_directory,
            )?
            .collect::<Result<_, _>>()?;
        let Some(last) = directories.last().map(|directory| directory.id) else {
            return Ok(directories);
        };
        let mut statement = connection.prepare_cached(
            "SELECT directory, name, facts, volatile, image
             FROM files WHERE directory > ?1 AND directory <= ?2 ORDER BY directory",
        )?;
        let mut rows = statement.query(params![number, last])?;
        let mut of = directories.iter_mut().peekable();
        while let Some(row) = rows.next()? {
            let directory: i64 = row.get(0)?;
            while of.next_if(|known| known.id < directory).is_some() {}
            // Files of other roots lie between.
            if let Some(known) = of.peek_mut().filter(|known| known.id == directory) {
                known.files.push(known_file(row)?);
            }
        }
        Ok(directories)
    }

    fn directories_at(
        &self,
        connection: &Connection,
        paths: &[Box<[u8]>],
    ) -> Result<Vec<KnownDirectory>, StoreError> {
        let mut directories = Vec::new();
        let mut one = connection.prepare_cached(
            "SELECT id, path, facts, volatile OR error IS NOT NULL
             FROM directories WHERE root = ?1 AND path = ?2",
        )?;
        let mut files = connection.prepare_cached(
            "SELECT directory, name, facts, volatile, image
             FROM files WHERE directory = ?1",
        )?;
        for path in paths {
            let known = one
                .query_row(params![self.root, path], known_directory)
                .optional()?;
            let Some(mut known) = known else { continue };
            known.files = files
                .query_map([known.id], known_file)?
                .collect::<Result<_, _>>()?;
            directories.push(known);
        }
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

    /// Where file systems were mounted below the root.
    ///
    /// # Errors
    ///
    /// The database fails.
    pub fn mounts(&self) -> Result<Vec<Box<[u8]>>, StoreError> {
        self.store.mounts(self.root)
    }

    /// Notes where they are mounted now.
    ///
    /// # Errors
    ///
    /// The database fails.
    pub fn set_mounts(&self, points: &[Box<[u8]>]) -> Result<(), StoreError> {
        self.store.set_mounts(self.root, points)
    }

    /// Whether any image is known in a directory, or below it.
    ///
    /// # Errors
    ///
    /// The database fails.
    pub fn has_images_below(&self, path: &[u8]) -> Result<bool, StoreError> {
        self.store.has_images_below(self.root, path)
    }

    /// The images known under an inode number.
    #[must_use]
    pub fn images_with_inode(&self, inode: u64) -> Vec<(i64, Identity)> {
        let known = |row: &KeptRow| (row.id(), row.identity());
        let rows = &self.listing.rows;
        if self.asked.fetch_add(1, Ordering::Relaxed) < ASKED_FEW {
            let rows = rows.iter().filter(|row| row.inode() == inode);
            let of_root = rows.filter(|row| *row.root() == self.root_text);
            return of_root.map(|row| known(row)).collect();
        }
        let by_inode = self.by_inode.get_or_init(|| {
            let is_of_root = |row: &&Arc<KeptRow>| *row.root() == self.root_text;
            let mut by_inode = Vec::with_capacity(rows.iter().filter(is_of_root).count());
            let of_root = rows.iter().enumerate().filter(|(_, row)| is_of_root(row));
            by_inode.extend(of_root.map(|(at, row)| (row.inode(), at)));
            by_inode.sort_unstable();
            by_inode
        });
        let first = by_inode.partition_point(|(known, _)| *known < inode);
        by_inode[first..]
            .iter()
            .take_while(|(known, _)| *known == inode)
            .map(|(_, at)| known(&rows[*at]))
            .collect()
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
            "SELECT details, details_size, born, volatile, images.id, {}, {}
             FROM images JOIN commons ON commons.id = common
             LEFT JOIN (SELECT directory AS place, name AS called, born, volatile FROM files)
             ON place = directory AND called = name WHERE images.id = ?1",
            columns::LISTING,
            columns::COMMON
        );
        let known = connection
            .prepare_cached(&sql)?
            .query_row([id], |row| {
                let Some(details) = stored_details(row, 0)? else {
                    return Ok(None);
                };
                let born = row.get::<_, Option<i64>>(2)?.map(FileTime);
                // Without a file that says otherwise it is looked at.
                let volatile = row.get::<_, Option<bool>>(3)?.unwrap_or(true);
                let common = StoredCommon::read(row, 4 + columns::LISTING_LEN)?;
                let row = columns::read(row, 4, b"", "", &common)?;
                let row = KeptRow::new(&row, &mut Commons::default());
                Ok(Some(KnownImage {
                    row,
                    details,
                    born,
                    volatile,
                }))
            })
            .optional()?;
        known
            .map(|known| known.ok_or(StoreError::Details(id)))
            .transpose()
    }
}

fn known_directory(row: &rusqlite::Row<'_>) -> rusqlite::Result<KnownDirectory> {
    Ok(KnownDirectory {
        id: row.get(0)?,
        path: row.get_ref(1)?.as_blob()?.into(),
        identity: facts::read_directory(row, 2)?,
        volatile: row.get(3)?,
        files: Vec::new(),
    })
}

fn known_file(row: &rusqlite::Row<'_>) -> rusqlite::Result<KnownFile> {
    let (identity, accessed) = facts::read_file(row, 2)?;
    Ok(KnownFile {
        name: row.get_ref(1)?.as_blob()?.into(),
        identity,
        volatile: row.get(3)?,
        image: row.get(4)?,
        accessed,
    })
}
