//! Facts of files and directories, and how they are stored: numbers of eight bytes each, the highest byte first,
//! side by side in one value. Scans read and write all of them together, and to SQLite each value is a cost.

use jiff::Timestamp;
use rusqlite::types::{FromSqlError, ToSql, ToSqlOutput, Type, ValueRef};

/// Facts of a file by `fstat`. Times are kept as the kernel gives them, so that comparing them is
/// exact.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FileFacts {
    /// Inode number.
    pub inode: u64,
    /// Apparent size in bytes.
    pub size: u64,
    /// Bytes allocated on disk.
    pub allocated: u64,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Permission bits (07777).
    pub mode: u32,
    /// Hard links.
    pub links: u32,
    /// Last access.
    pub accessed: FileTime,
    /// Last modification of the content.
    pub modified: FileTime,
    /// Last change of the inode.
    pub changed: FileTime,
    /// When the inode was made, where the file system tells and it was asked for.
    pub born: Option<FileTime>,
}

/// A time of a file: nanoseconds since 1970, which hold the years 1678 to 2262. Files outside are
/// clamped; no file system in use there stores more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Hash)]
pub struct FileTime(pub i64);

impl FileTime {
    /// From `struct timespec`.
    #[must_use]
    pub fn new(seconds: i64, nanoseconds: u32) -> Self {
        Self(
            seconds
                .saturating_mul(1_000_000_000)
                .saturating_add(i64::from(nanoseconds)),
        )
    }

    /// The time now.
    #[must_use]
    pub fn now() -> Self {
        Timestamp::now().into()
    }

    /// As a timestamp. Every value is within its range.
    #[must_use]
    pub fn timestamp(self) -> Timestamp {
        Timestamp::from_nanosecond(i128::from(self.0)).unwrap_or(Timestamp::UNIX_EPOCH)
    }
}

impl From<Timestamp> for FileTime {
    fn from(time: Timestamp) -> Self {
        let nanoseconds = time.as_nanosecond();
        Self(i64::try_from(nanoseconds).unwrap_or(if nanoseconds < 0 {
            i64::MIN
        } else {
            i64::MAX
        }))
    }
}

/// What tells whether a file or directory is the one seen before, unchanged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Identity {
    /// Inode number.
    pub inode: u64,
    /// Apparent size; 0 for directories, whose size says nothing.
    pub size: u64,
    /// Last modification of the content.
    pub modified: FileTime,
    /// Last change of the inode.
    pub changed: FileTime,
}

impl From<&FileFacts> for Identity {
    fn from(facts: &FileFacts) -> Self {
        Self {
            inode: facts.inode,
            size: facts.size,
            modified: facts.modified,
            changed: facts.changed,
        }
    }
}

/// What tells the directory that a root is from another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RootDirectory {
    /// Device number.
    pub device: u64,
    /// Inode number.
    pub inode: u64,
    /// When the inode was made, where the file system tells: the next one that is mounted may get the same
    /// device number, and all of a kind have the same inode number at their root.
    pub born: Option<FileTime>,
}

impl RootDirectory {
    /// Whether it is the one that was.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        let born = self.born.zip(other.born);
        (self.device, self.inode) == (other.device, other.inode)
            && born.is_none_or(|(one, other)| one == other)
    }
}

/// Some numbers as they are stored.
pub(super) struct Stored<const N: usize>([[u8; 8]; N]);

impl<const N: usize> Stored<N> {
    fn new(numbers: [i64; N]) -> Self {
        Self(numbers.map(i64::to_be_bytes))
    }
}

impl<const N: usize> ToSql for Stored<N> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::from(self.0.as_flattened()))
    }
}

/// The numbers in a column; another length is damage.
fn numbers<const N: usize>(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<[i64; N]> {
    let data = row.get_ref(column)?.as_blob()?;
    let (numbers, rest) = data.as_chunks::<8>();
    match <&[[u8; 8]; N]>::try_from(numbers) {
        Ok(numbers) if rest.is_empty() => Ok(numbers.map(i64::from_be_bytes)),
        _ => {
            let error = FromSqlError::InvalidBlobSize {
                expected_size: N * 8,
                blob_size: data.len(),
            };
            let error = Box::new(error);
            Err(rusqlite::Error::FromSqlConversionFailure(
                column,
                Type::Blob,
                error,
            ))
        }
    }
}

/// Of a directory: inode, modified, changed; `None` of one that was not read yet.
pub(super) fn of_directory(identity: &Identity) -> Option<Stored<3>> {
    let (modified, changed) = (identity.modified.0, identity.changed.0);
    let was_read = *identity != Identity::default();
    was_read.then(|| Stored::new([identity.inode.cast_signed(), modified, changed]))
}

/// The same from a column.
pub(super) fn read_directory(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<Identity> {
    if row.get_ref(column)? == ValueRef::Null {
        return Ok(Identity::default());
    }
    let [inode, modified, changed] = numbers(row, column)?;
    Ok(Identity {
        inode: inode.cast_unsigned(),
        size: 0,
        modified: FileTime(modified),
        changed: FileTime(changed),
    })
}

/// With what those of a candidate and of an image begin: inode, size, modified, changed.
pub(super) fn of_identity(identity: &Identity) -> Stored<4> {
    Stored::new(identity_numbers(identity))
}

/// The same of a stored image, in SQL.
pub(super) const IDENTITY: &str = "substr(facts, 1, 32)";

fn identity_numbers(identity: &Identity) -> [i64; 4] {
    [
        identity.inode.cast_signed(),
        identity.size.cast_signed(),
        identity.modified.0,
        identity.changed.0,
    ]
}

fn identity([inode, size, modified, changed]: [i64; 4]) -> Identity {
    Identity {
        inode: inode.cast_unsigned(),
        size: size.cast_unsigned(),
        modified: FileTime(modified),
        changed: FileTime(changed),
    }
}

/// Of a candidate: inode, size, modified, changed, accessed.
pub(super) fn of_file(facts: &FileFacts) -> Stored<5> {
    let [inode, size, modified, changed] = identity_numbers(&facts.into());
    Stored::new([inode, size, modified, changed, facts.accessed.0])
}

/// The same from a column: the identity, accessed.
pub(super) fn read_file(
    row: &rusqlite::Row<'_>,
    column: usize,
) -> rusqlite::Result<(Identity, FileTime)> {
    let [inode, size, modified, changed, accessed] = numbers(row, column)?;
    let identity = identity([inode, size, modified, changed]);
    Ok((identity, FileTime(accessed)))
}

/// Of an image: inode, size, modified, changed, accessed, allocated.
pub(super) fn of_image(facts: &FileFacts) -> Stored<6> {
    let [inode, size, modified, changed] = identity_numbers(&facts.into());
    let (accessed, allocated) = (facts.accessed.0, facts.allocated.cast_signed());
    Stored::new([inode, size, modified, changed, accessed, allocated])
}

/// The same from a column; the other facts are 0.
pub(super) fn read_image(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<FileFacts> {
    let [inode, size, modified, changed, accessed, allocated] = numbers(row, column)?;
    let identity = identity([inode, size, modified, changed]);
    Ok(FileFacts {
        inode: identity.inode,
        size: identity.size,
        allocated: allocated.cast_unsigned(),
        accessed: FileTime(accessed),
        modified: identity.modified,
        changed: identity.changed,
        ..FileFacts::default()
    })
}

#[cfg(test)]
mod tests {
    use rusqlite::{Connection, params};

    use super::*;
    use crate::catalog::StoreError;

    const FACTS: FileFacts = FileFacts {
        inode: u64::MAX - 1,
        size: 2,
        allocated: 3,
        accessed: FileTime(-4),
        modified: FileTime(5),
        changed: FileTime(6),
        uid: 0,
        gid: 0,
        mode: 0,
        links: 0,
        born: None,
    };

    /// What is read of a value that was stored.
    fn through<T>(
        value: impl ToSql,
        read: impl FnOnce(&rusqlite::Row<'_>, usize) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<T> {
        let connection = Connection::open_in_memory().unwrap();
        connection.query_row("SELECT ?1", [value], |row| read(row, 0))
    }

    #[test]
    fn what_is_stored_is_read() {
        let identity = Identity::from(&FACTS);
        let of_directory = Identity {
            size: 0,
            ..identity
        };
        for expected in [of_directory, Identity::default()] {
            let read = through(super::of_directory(&expected), read_directory);
            assert_eq!(read, Ok(expected));
        }
        let accessed = FACTS.accessed;
        assert_eq!(
            through(of_file(&FACTS), read_file),
            Ok((identity, accessed))
        );
        assert_eq!(through(of_image(&FACTS), read_image), Ok(FACTS));
    }

    #[test]
    fn an_image_is_the_same_file_only_with_its_whole_identity() {
        let connection = Connection::open_in_memory().unwrap();
        let same = |identity: &Identity| {
            let sql = format!("SELECT {IDENTITY} = ?2 FROM (SELECT ?1 AS facts)");
            let values = params![of_image(&FACTS), of_identity(identity)];
            connection.query_row(&sql, values, |row| row.get::<_, bool>(0))
        };
        let identity = Identity::from(&FACTS);
        assert_eq!(same(&identity), Ok(true));
        let later = |time: FileTime| FileTime(time.0 + 1);
        for other in [
            Identity {
                inode: identity.inode + 1,
                ..identity
            },
            Identity {
                size: identity.size + 1,
                ..identity
            },
            Identity {
                modified: later(identity.modified),
                ..identity
            },
            Identity {
                changed: later(identity.changed),
                ..identity
            },
        ] {
            assert_eq!(same(&other), Ok(false), "{other:?}");
        }
    }

    #[test]
    fn another_length_is_damage() {
        for (length, is_damage) in [(0, true), (47, true), (48, false), (49, true), (56, true)] {
            let read = through(vec![0_u8; length], read_image).map_err(StoreError::Sqlite);
            assert_eq!(
                read.is_err_and(|error| error.is_damage()),
                is_damage,
                "{length}"
            );
        }
    }
}
