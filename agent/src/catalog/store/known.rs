//! What the catalogue knows of a root, as a scan asks for it.

use std::sync::{Arc, Mutex, PoisonError};

use prost::Message as _;
use rusqlite::{OptionalExtension, params};
use sifter_proto::v1;

use super::super::change::{KnownDirectory, KnownFile};
use super::super::columns;
use super::super::entry::{FileTime, Identity, KnownImage};
use super::super::row::Interner;
use super::{Store, StoreError};

/// Known directories handed out at a time.
const KNOWN_BATCH: i64 = 1024;

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

impl Store {
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
            "SELECT name, inode, size, modified, changed, volatile, image,
             (SELECT accessed FROM images WHERE id = image)
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
                    accessed: FileTime(row.get::<_, Option<i64>>(7)?.unwrap_or(0)),
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
