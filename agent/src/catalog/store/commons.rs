//! What many images have in common, kept once: found, added, and forgotten.

use std::sync::Arc;

use rusqlite::Connection;

use super::super::columns;
use super::super::kept::{Common, KeptRow};
use super::StoreError;

/// The least number at which those are forgotten that no image has any more.
const FORGET_AT_MIN: i64 = 1024;

/// Numbers of what images of one transaction have in common with others.
#[derive(Debug, Default)]
pub(super) struct Numbered(Vec<(Arc<Common>, i64)>);

impl Numbered {
    /// The number of what a row has in common with others, which is added if no row had it before.
    pub(super) fn of(&mut self, connection: &Connection, row: &KeptRow) -> Result<i64, StoreError> {
        let common = row.common();
        // The next image has mostly what one of the last had.
        let mut last = self.0.iter().rev();
        if let Some((_, number)) = last.find(|(known, _)| Arc::ptr_eq(known, common)) {
            return Ok(*number);
        }
        let number = columns::common(connection, &row.view())?;
        self.0.push((Arc::clone(common), number));
        Ok(number)
    }
}

/// Forgets what no image has any more, if there is so much; gives the number at which that is worth it again.
pub(super) fn forget_unused(connection: &Connection, at: i64) -> Result<i64, StoreError> {
    let count = || -> rusqlite::Result<i64> {
        connection
            .prepare_cached("SELECT count(*) FROM commons")?
            .query_row([], |row| row.get(0))
    };
    if count()? < at.max(FORGET_AT_MIN) {
        return Ok(at);
    }
    connection.execute(
        "DELETE FROM commons WHERE id NOT IN (SELECT common FROM images)",
        [],
    )?;
    Ok(2 * count()?)
}
