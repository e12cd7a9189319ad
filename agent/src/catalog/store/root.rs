//! What is stored of the roots themselves.

use rusqlite::{OptionalExtension, Transaction, params};

use super::super::facts::{FileTime, RootDirectory};
use super::{Store, StoreError, begin, commons};

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

const FIND_ROOT: &str =
    "SELECT id, device, inode, scanned, files_checked, born FROM roots WHERE path = ?1";

/// Directories of a root that cannot be read, and those below them: `0` follows `/`.
const UNREADABLE: &str = "SELECT below.id FROM directories AS above JOIN directories AS below
     ON below.root = above.root AND below.path >= above.path AND below.path < CAST(above.path || '0' AS BLOB)
     AND (below.path = above.path OR below.path > CAST(above.path || '/' AS BLOB))
     WHERE above.root = ?1 AND above.error IS NOT NULL";

fn stored_root(row: &rusqlite::Row<'_>) -> rusqlite::Result<StoredRoot> {
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
}

impl Store {
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
        Ok(connection.query_row(FIND_ROOT, [path], stored_root)?)
    }

    /// The root's record, if there is one.
    ///
    /// # Errors
    ///
    /// The database fails.
    pub fn find_root(&self, path: &[u8]) -> Result<Option<StoredRoot>, StoreError> {
        let found = self.read().query_row(FIND_ROOT, [path], stored_root);
        Ok(found.optional()?)
    }

    /// How many roots there are, also such as are not configured any more.
    ///
    /// # Errors
    ///
    /// The database fails.
    pub fn root_count(&self) -> Result<usize, StoreError> {
        let count: i64 = self
            .read()
            .query_row("SELECT count(*) FROM roots", [], |row| row.get(0))?;
        Ok(usize::try_from(count).unwrap_or(0))
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

    /// Where file systems were mounted below a root: paths relative to it.
    ///
    /// # Errors
    ///
    /// The database fails.
    pub fn mounts(&self, root: i64) -> Result<Vec<Box<[u8]>>, StoreError> {
        let sql = "SELECT mounts FROM roots WHERE id = ?1";
        let stored: Vec<u8> = self.read().query_row(sql, [root], |row| row.get(0))?;
        let points = stored.split(|byte| *byte == 0);
        let points = points.filter(|point| !point.is_empty());
        Ok(points.map(Into::into).collect())
    }

    /// Notes where file systems are mounted below a root.
    ///
    /// # Errors
    ///
    /// The database fails.
    pub fn set_mounts(&self, root: i64, points: &[Box<[u8]>]) -> Result<(), StoreError> {
        let mut stored = Vec::new();
        for point in points {
            stored.extend_from_slice(point);
            stored.push(0);
        }
        self.write().connection.execute(
            "UPDATE roots SET mounts = ?2 WHERE id = ?1",
            params![root, stored],
        )?;
        Ok(())
    }

    /// Whether any image is known in a directory of a root, or below it.
    ///
    /// # Errors
    ///
    /// The database fails.
    pub fn has_images_below(&self, root: i64, path: &[u8]) -> Result<bool, StoreError> {
        // `0` follows `/`.
        let [from, until] = [b"/", b"0"].map(|end| [path, end].concat());
        let any = "SELECT EXISTS (SELECT 1 FROM directories JOIN files ON directory = id
             WHERE root = ?1 AND (path = ?2 OR path > ?3 AND path < ?4) AND image IS NOT NULL)";
        let parameters = params![root, path, from, until];
        Ok(self.read().query_row(any, parameters, |row| row.get(0))?)
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

    /// Notes how the root was scanned. What could not be read was not: all of that is looked at again when it can be.
    ///
    /// # Errors
    ///
    /// The database fails.
    pub fn set_settings(&self, root: i64, settings: &str) -> Result<(), StoreError> {
        let mut writer = self.write();
        let transaction = begin(&mut writer.connection)?;
        for (table, directory) in [("directories", "id"), ("files", "directory")] {
            let sql =
                format!("UPDATE {table} SET volatile = 1 WHERE {directory} IN ({UNREADABLE})");
            transaction.execute(&sql, [root])?;
        }
        transaction.execute(
            "UPDATE roots SET settings = ?2 WHERE id = ?1",
            params![root, settings],
        )?;
        transaction.commit()?;
        Ok(())
    }
}

fn forget(transaction: &Transaction<'_>, root: i64) -> Result<(), StoreError> {
    for sql in [
        "DELETE FROM images WHERE root = ?1",
        "DELETE FROM files WHERE directory IN (SELECT id FROM directories WHERE root = ?1)",
        "DELETE FROM directories WHERE root = ?1",
        "UPDATE roots SET device = NULL, inode = NULL, born = NULL, scanned = NULL, files_checked = NULL,
         mounts = x'' WHERE id = ?1",
    ] {
        transaction.execute(sql, [root])?;
    }
    Ok(())
}
