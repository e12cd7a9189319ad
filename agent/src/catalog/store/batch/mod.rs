//! One transaction: what a scan found in some directories, and what of it changes the listing.

mod image;

use std::collections::HashSet;

use foldhash::fast::RandomState;
use rusqlite::{CachedStatement, Connection, OptionalExtension, Row, Transaction, params};

use super::commons::Numbered;
use super::frontier::{Frontier, is_within};
use super::{Delta, Numbers, Reach, StoreError};
use crate::catalog::change::{ChangeKind, DirectoryChange};
use crate::catalog::columns;
use crate::catalog::entry::{Content, Found};
use crate::catalog::facts::{self, Identity};
use crate::catalog::prepare::Preparation;
use crate::catalog::row::join_path;

/// One transaction of [`Store::apply`](super::Store::apply).
pub(super) struct Batch<'a> {
    transaction: &'a Transaction<'a>,
    numbers: &'a mut Numbers,
    frontier: &'a mut Frontier,
    insert: Insert<'a>,
    root: i64,
    preparation: &'a Preparation,
    delta: Delta,
    /// Directories that were named by their parents and not read in this batch yet.
    pending: HashSet<Box<[u8]>, RandomState>,
    commons: Numbered,
}

/// The statements of a first scan, of which all that is found is new. They insert one row and nothing
/// else: `REPLACE`, `ON CONFLICT` and `RETURNING` make SQLite ready to undo a statement alone, which
/// costs more than the row.
struct Insert<'a> {
    directory: CachedStatement<'a>,
    file: CachedStatement<'a>,
    image: CachedStatement<'a>,
}

/// A directory in the database.
#[derive(Clone, Copy)]
struct StoredDirectory {
    id: i64,
    /// Nothing is known of files in it.
    is_new: bool,
}

impl<'a> Batch<'a> {
    /// A batch for the root numbered `root`.
    pub(super) fn new(
        transaction: &'a Transaction<'a>,
        numbers: &'a mut Numbers,
        frontier: &'a mut Frontier,
        root: i64,
        preparation: &'a Preparation,
    ) -> Result<Self, StoreError> {
        Ok(Self {
            transaction,
            numbers,
            frontier,
            insert: Insert {
                directory: transaction.prepare_cached(
                    "INSERT INTO directories (id, root, path, facts, volatile)
                     VALUES (?1, ?2, ?3, ?4, ?5)",
                )?,
                file: transaction.prepare_cached(&file_statement("INSERT"))?,
                image: transaction.prepare_cached(&columns::statement("INSERT"))?,
            },
            root,
            preparation,
            delta: Delta::default(),
            pending: HashSet::default(),
            commons: Numbered::default(),
        })
    }

    /// Applies the change of one directory.
    pub(super) fn change(&mut self, change: DirectoryChange) -> Result<(), StoreError> {
        // A directory that was known when the scan came to it, and is gone from here since: because one above is
        // gone, or has become a sandbox, whose inside is nobody's. What is there nevertheless, its parent names.
        let is_nobodys = match change.id {
            Some(id) => !self.exists(id)?,
            None => self.frontier.is_closed(&change.path),
        };
        if is_nobodys {
            return Ok(());
        }
        match change.kind {
            ChangeKind::Read {
                identity,
                volatile,
                children,
                found,
                removed,
            } => {
                let stored = self.directory(&change.path, change.id, identity, volatile)?;
                let is_sandbox = found.iter().any(|found| found.name.is_empty());
                if is_sandbox && !stored.is_new {
                    self.gone_below(&change.path)?;
                    self.frontier.close(&change.path);
                }
                for child in children {
                    let child = join_relative(&change.path, &child);
                    if !self.frontier.was_read(&child) {
                        self.pending.insert(child);
                    }
                }
                self.files(stored, &change.path, found, removed)?;
                if is_sandbox {
                    self.delta.reach.push((change.path, Reach::Gone));
                } else {
                    self.delta.reach.push((change.path, Reach::Readable));
                }
            }
            ChangeKind::Part { found } => {
                let stored = self.part(&change.path, change.id)?;
                self.files(stored, &change.path, found, Vec::new())?;
            }
            ChangeKind::Files { found, removed } => {
                if let Some(id) = change.id {
                    let stored = StoredDirectory { id, is_new: false };
                    self.files(stored, &change.path, found, removed)?;
                }
            }
            ChangeKind::Gone => {
                self.gone_below(&change.path)?;
                if let Some(id) = self.directory_id(&change.path)? {
                    self.remove_directory(id)?;
                }
                self.delta.reach.push((change.path, Reach::Gone));
            }
            ChangeKind::Unreadable { message } => {
                let stored = match self.stored(&change.path, change.id) {
                    Some(stored) => stored,
                    None => self.insert_directory(&change.path, Identity::default(), true)?,
                };
                self.transaction
                    .prepare_cached("UPDATE directories SET error = ?2 WHERE id = ?1")?
                    .execute(params![stored.id, message])?;
                let unreadable = Reach::Unreadable(message);
                self.delta.reach.push((change.path, unreadable));
            }
        }
        Ok(())
    }

    /// What the batch changed in the listing.
    pub(super) fn finish(mut self) -> Result<Delta, StoreError> {
        for path in std::mem::take(&mut self.pending) {
            let stored = self.insert_directory(&path, Identity::default(), true)?;
            self.frontier.name(path, stored.id);
        }
        Ok(self.delta)
    }

    fn exists(&self, id: i64) -> Result<bool, StoreError> {
        let mut statement = self
            .transaction
            .prepare_cached("SELECT 1 FROM directories WHERE id = ?1")?;
        Ok(statement.exists([id])?)
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
    ) -> Result<StoredDirectory, StoreError> {
        if let Some(stored) = self.stored(path, id)
            && self.update_directory(stored.id, identity, volatile)?
        {
            return Ok(stored);
        }
        self.insert_directory(path, identity, volatile)
    }

    /// The directory that something was found in before it was read to its end: if it is new, it is to
    /// be read again should this scan not come to that.
    fn part(&mut self, path: &[u8], id: Option<i64>) -> Result<StoredDirectory, StoreError> {
        if let Some(id) = self.frontier.begun(path) {
            return Ok(StoredDirectory { id, is_new: true });
        }
        let stored = match self.stored(path, id) {
            Some(stored) => stored,
            None => self.insert_directory(path, Identity::default(), true)?,
        };
        if stored.is_new {
            self.frontier.begin(path, stored.id);
        }
        Ok(stored)
    }

    /// What is stored of a directory, if anything is; `id` is its number, if the scan knew it before. It
    /// is not on the frontier any more.
    fn stored(&mut self, path: &[u8], id: Option<i64>) -> Option<StoredDirectory> {
        let is_pending = self.pending.remove(path);
        if let Some(id) = id {
            return Some(StoredDirectory { id, is_new: false });
        }
        if let Some(id) = self.frontier.take(path) {
            return Some(StoredDirectory { id, is_new: true });
        }
        if !is_pending {
            self.frontier.read_early(path);
        }
        None
    }

    fn insert_directory(
        &mut self,
        path: &[u8],
        identity: Identity,
        volatile: bool,
    ) -> Result<StoredDirectory, StoreError> {
        let new = self.numbers.next_directory();
        let inserted = self.insert.directory.execute(params![
            new,
            self.root,
            path,
            facts::of_directory(&identity),
            volatile
        ]);
        match inserted {
            Ok(_) => Ok(StoredDirectory {
                id: new,
                is_new: true,
            }),
            // A change that was not told of it found it stored nevertheless.
            Err(error) if is_conflict(&error) => {
                let id = self.directory_id(path)?.ok_or(error)?;
                self.update_directory(id, identity, volatile)?;
                Ok(StoredDirectory { id, is_new: false })
            }
            Err(error) => Err(error.into()),
        }
    }

    /// False if there is no such directory.
    fn update_directory(
        &self,
        id: i64,
        identity: Identity,
        volatile: bool,
    ) -> Result<bool, StoreError> {
        let updated = self
            .transaction
            .prepare_cached(
                "UPDATE directories SET facts = ?2, volatile = ?3, error = NULL WHERE id = ?1",
            )?
            .execute(params![id, facts::of_directory(&identity), volatile])?;
        Ok(updated == 1)
    }

    fn files(
        &mut self,
        stored: StoredDirectory,
        path: &[u8],
        found: Vec<Found>,
        removed: Vec<Box<[u8]>>,
    ) -> Result<(), StoreError> {
        for name in removed {
            self.remove_file(stored.id, &name)?;
        }
        for found in found {
            self.file(stored, path, found)?;
        }
        Ok(())
    }

    fn file(
        &mut self,
        stored: StoredDirectory,
        path: &[u8],
        found: Found,
    ) -> Result<(), StoreError> {
        let directory = stored.id;
        let known = if stored.is_new {
            None
        } else {
            self.known_file(directory, &found.name)?
        };
        let known_image = known.flatten();
        let image = match found.content {
            Content::Other => {
                if let Some(image) = known_image {
                    self.remove_image(image)?;
                }
                None
            }
            Content::Image(image) => {
                let prepared = self
                    .preparation
                    .image(path, &found.name, found.facts, &image);
                Some(self.new_image(prepared, known_image, directory, &found.name)?)
            }
            Content::Prepared(prepared) => {
                Some(self.new_image(*prepared, known_image, directory, &found.name)?)
            }
            Content::Moved(known) => {
                let facts = found.facts;
                Some(self.moved(*known, known_image, directory, path, &found.name, facts)?)
            }
        };
        let values = params![
            directory,
            found.name,
            facts::of_file(&found.facts),
            found.volatile,
            image,
            image.and(found.facts.born).map(|born| born.0)
        ];
        if known.is_none() {
            match self.insert.file.execute(values) {
                Err(error) if is_conflict(&error) => {}
                inserted => {
                    inserted?;
                    return Ok(());
                }
            }
            // A directory that is changed while it is read may give a name twice.
            if let Some(first) = self.known_file(directory, &found.name)?.flatten() {
                self.remove_image(first)?;
            }
        }
        self.transaction
            .prepare_cached(&file_statement("REPLACE"))?
            .execute(values)?;
        Ok(())
    }

    /// Number of the image in a known file, if it is one.
    fn known_file(&self, directory: i64, name: &[u8]) -> Result<Option<Option<i64>>, StoreError> {
        Ok(self
            .transaction
            .prepare_cached("SELECT image FROM files WHERE directory = ?1 AND name = ?2")?
            .query_row(params![directory, name], |row| row.get(0))
            .optional()?)
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
        self.frontier.forget(path);
        self.pending.retain(|named| !is_within(named, path));
        let ids = ids_below(self.transaction, self.root, path)?;
        for id in ids {
            self.remove_directory(id)?;
        }
        Ok(())
    }
}

/// Whether there is such a row already.
fn is_conflict(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(rusqlite::ErrorCode::ConstraintViolation)
}

/// The statement that stores a candidate; `verb` is `INSERT` or `REPLACE`.
fn file_statement(verb: &str) -> String {
    format!(
        "{verb} INTO files
         (directory, name, facts, volatile, image, born)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)"
    )
}

/// The path of `name` in a directory, both relative to the root.
fn join_relative(directory: &[u8], name: &[u8]) -> Box<[u8]> {
    if directory.is_empty() {
        name.into()
    } else {
        join_path(directory, name, b"")
    }
}

/// The numbers of the directories below `path`.
pub(super) fn ids_below(
    connection: &Connection,
    root: i64,
    path: &[u8],
) -> Result<Vec<i64>, StoreError> {
    let number = |row: &Row<'_>| row.get(0);
    let ids = if path.is_empty() {
        let below = "SELECT id FROM directories WHERE root = ?1 AND path > x''";
        let mut below = connection.prepare_cached(below)?;
        below.query_map([root], number)?.collect::<Result<_, _>>()?
    } else {
        // `0` is the byte after `/`.
        let (from, to) = ([path, b"/"].concat(), [path, b"0"].concat());
        let mut below = connection.prepare_cached(IDS_BELOW)?;
        let ids = below.query_map(params![root, from, to], number)?;
        ids.collect::<Result<_, _>>()?
    };
    Ok(ids)
}

/// Both ends must be plain comparisons, or all that is behind the last one in the index is looked at.
pub(super) const IDS_BELOW: &str =
    "SELECT id FROM directories WHERE root = ?1 AND path > ?2 AND path < ?3";
