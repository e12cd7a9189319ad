//! The schema of the database and its versions.

use rusqlite::Connection;

use super::StoreError;

/// Steps from one schema version to the next; `user_version` counts those that were taken. A step
/// that was released is never changed.
pub(super) const MIGRATIONS: &[&str] = &[
    include_str!("../schema/1.sql"),
    include_str!("../schema/2.sql"),
    include_str!("../schema/3.sql"),
    include_str!("../schema/4.sql"),
    include_str!("../schema/5.sql"),
    include_str!("../schema/6.sql"),
    include_str!("../schema/7.sql"),
    include_str!("../schema/8.sql"),
    include_str!("../schema/9.sql"),
];

/// The version of a database.
pub(super) fn version(connection: &Connection) -> Result<i64, StoreError> {
    Ok(connection.query_row("PRAGMA user_version", [], |row| row.get(0))?)
}

/// That the database was not written by a newer version.
pub(super) fn check(connection: &Connection) -> Result<(), StoreError> {
    let found = version(connection)?;
    if found > MIGRATIONS.len() as i64 {
        return Err(StoreError::Newer {
            found,
            known: MIGRATIONS.len(),
        });
    }
    Ok(())
}

/// Takes the steps that are to be taken, each in a transaction; gives whether an older version was brought up to date.
pub(super) fn migrate(connection: &mut Connection) -> Result<bool, StoreError> {
    let done = version(connection)?;
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
    Ok((1..MIGRATIONS.len() as i64).contains(&done))
}
