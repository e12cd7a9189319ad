//! One moment of the listing: immutable, ordered, shared by all who read it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use sifter_image::record::Status;

use super::entry::FileTime;
use super::row::Row;

/// An ordered view of all images with a generation number.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// Grows with every change of the listing, also over restarts; says nothing else.
    pub generation: u64,
    /// When a scan last confirmed it; `None` before the first complete scan.
    pub as_of: Option<FileTime>,
    /// By repository, tag, path.
    pub rows: Arc<[Arc<Row>]>,
    /// What cannot be read now: absolute paths of roots and directories, and why. What is known of
    /// the images below is shown as UNAVAILABLE.
    pub unavailable: Arc<BTreeMap<Box<[u8]>, String>>,
}

/// What became of an image from one generation to the next.
#[derive(Debug, Clone, PartialEq)]
pub struct Changes {
    /// The generation that the changes lead to.
    pub generation: u64,
    /// When it was made.
    pub as_of: Option<FileTime>,
    /// New images.
    pub added: Vec<Arc<Row>>,
    /// Images of which something changed.
    pub changed: Vec<Arc<Row>>,
    /// Images that are gone, as they were.
    pub removed: Vec<Arc<Row>>,
}

impl Snapshot {
    /// Whether the image can be reached now: its own status, or UNAVAILABLE with the reason.
    #[must_use]
    pub fn status<'s, T: AsRef<str>>(&'s self, row: &'s Row<T>) -> (Status, &'s str) {
        match self.unavailable_reason(&row.path) {
            Some(reason) => (Status::Unavailable, reason),
            None => (row.status, row.status_message.as_ref()),
        }
    }

    /// The same moment with some of its images only, in the same order.
    #[must_use]
    pub fn with_only(&self, rows: Arc<[Arc<Row>]>) -> Self {
        Self {
            generation: self.generation,
            as_of: self.as_of,
            rows,
            unavailable: Arc::clone(&self.unavailable),
        }
    }

    fn unavailable_reason(&self, path: &[u8]) -> Option<&str> {
        if self.unavailable.is_empty() {
            return None;
        }
        let mut ends = path
            .iter()
            .enumerate()
            .filter(|(_, byte)| **byte == b'/')
            .map(|(index, _)| index.max(1))
            .chain([path.len()]);
        ends.find_map(|end| self.unavailable.get(path.get(..end)?))
            .map(String::as_str)
    }

    /// The image listed under `path`.
    #[must_use]
    pub fn get(&self, path: &[u8]) -> Option<&Arc<Row>> {
        self.rows.iter().find(|row| *row.path == *path)
    }

    /// The next snapshot: without the images in `removed`, with those in `upserts`.
    #[must_use]
    pub fn next(
        &self,
        upserts: Vec<Arc<Row>>,
        removed: &[i64],
        unavailable: BTreeMap<Box<[u8]>, String>,
        as_of: Option<FileTime>,
    ) -> (Self, Changes) {
        // Several changes of one image in a scan: the last one counts.
        let mut latest: HashMap<i64, Arc<Row>> =
            upserts.into_iter().map(|row| (row.id, row)).collect();
        let removed: HashSet<i64> = removed.iter().copied().collect();
        latest.retain(|id, _| !removed.contains(id));

        let mut changes = Changes {
            generation: self.generation + 1,
            as_of,
            added: Vec::new(),
            changed: Vec::new(),
            removed: Vec::new(),
        };
        let mut kept = Vec::with_capacity(self.rows.len() + latest.len());
        let mut fresh: Vec<Arc<Row>> = Vec::with_capacity(latest.len());
        for row in self.rows.iter() {
            if removed.contains(&row.id) {
                changes.removed.push(Arc::clone(row));
            } else if let Some(new) = latest.remove(&row.id) {
                if new == *row {
                    kept.push(Arc::clone(row));
                } else {
                    changes.changed.push(Arc::clone(&new));
                    fresh.push(new);
                }
            } else {
                kept.push(Arc::clone(row));
            }
        }
        let added: Vec<Arc<Row>> = latest.into_values().collect();
        changes.added.clone_from(&added);
        fresh.extend(added);
        let fresh = in_order(&fresh);
        let mut next = Self {
            generation: changes.generation,
            as_of,
            rows: merge(kept, fresh).into(),
            unavailable: Arc::new(unavailable),
        };
        if next.unavailable == self.unavailable {
            next.unavailable = Arc::clone(&self.unavailable);
        } else {
            // Images whose availability changed were changed, too.
            let named: HashSet<i64> = changes
                .added
                .iter()
                .chain(&changes.changed)
                .map(|row| row.id)
                .collect();
            let turned = next
                .rows
                .iter()
                .filter(|row| {
                    !named.contains(&row.id)
                        && self.unavailable_reason(&row.path) != next.unavailable_reason(&row.path)
                })
                .map(Arc::clone);
            changes.changed.extend(turned);
        }
        (next, changes)
    }
}

impl Changes {
    /// Whether the listing is as it was.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.changed.is_empty() && self.removed.is_empty()
    }

    /// How many images are concerned.
    #[must_use]
    pub fn len(&self) -> usize {
        self.added.len() + self.changed.len() + self.removed.len()
    }
}

/// The order of the listing.
fn key(row: &Row) -> (&str, &str, &[u8]) {
    (&row.repository, &row.tag, &row.path)
}

/// The rows in the order of the listing. The keys are laid side by side: each look into a row, of which
/// there are as many as comparisons, would be another place in memory.
fn in_order(rows: &[Arc<Row>]) -> Vec<Arc<Row>> {
    let mut keyed: Vec<_> = rows.iter().map(|row| (key(row), row)).collect();
    keyed.sort_unstable_by_key(|(key, _)| *key);
    keyed.into_iter().map(|(_, row)| Arc::clone(row)).collect()
}

/// Merges two ordered lists.
fn merge(left: Vec<Arc<Row>>, right: Vec<Arc<Row>>) -> Vec<Arc<Row>> {
    if right.is_empty() {
        return left;
    }
    if left.is_empty() {
        return right;
    }
    let mut merged = Vec::with_capacity(left.len() + right.len());
    let mut right = right.into_iter().peekable();
    for row in left {
        while let Some(next) = right.next_if(|next| key(next) < key(&row)) {
            merged.push(next);
        }
        merged.push(row);
    }
    merged.extend(right);
    merged
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use sifter_image::record::Status;

    use super::Snapshot;
    use crate::catalog::Row;
    use crate::catalog::testing::row;

    fn rows(rows: impl IntoIterator<Item = Row>) -> Vec<Arc<Row>> {
        rows.into_iter().map(Arc::new).collect()
    }

    fn paths(snapshot: &Snapshot) -> Vec<String> {
        snapshot
            .rows
            .iter()
            .map(|row| String::from_utf8_lossy(&row.path).into_owned())
            .collect()
    }

    #[test]
    fn images_come_and_go_and_the_order_holds() {
        let (first, changes) = Snapshot::default().next(
            rows([
                row(1, "/r/b", "b", "1"),
                row(2, "/r/a", "a", "2"),
                row(3, "/r/c", "a", "1"),
            ]),
            &[],
            BTreeMap::new(),
            None,
        );
        assert_eq!(paths(&first), ["/r/c", "/r/a", "/r/b"]);
        assert_eq!(changes.added.len(), 3);

        let (second, changes) = first.next(
            rows([
                row(2, "/r/a", "z", "1"),
                row(4, "/r/d", "aa", "1"),
                row(1, "/r/b", "b", "1"),
            ]),
            &[3],
            BTreeMap::new(),
            None,
        );
        assert_eq!(paths(&second), ["/r/d", "/r/b", "/r/a"]);
        assert_eq!(second.generation, first.generation + 1);
        let ids = |rows: &[Arc<super::Row>]| rows.iter().map(|row| row.id).collect::<Vec<_>>();
        assert_eq!(ids(&changes.added), [4]);
        assert_eq!(ids(&changes.changed), [2], "image 1 is as it was");
        assert_eq!(ids(&changes.removed), [3]);
        assert_eq!(paths(&first).len(), 3, "a snapshot never changes");
    }

    #[test]
    fn what_lies_below_an_unreadable_directory_is_unavailable() {
        let unavailable = BTreeMap::from([(b"/r/x".to_vec().into(), "gone".to_owned())]);
        let both = rows([row(1, "/r/x/a", "a", "1"), row(2, "/r/xy", "b", "1")]);
        let (before, _) = Snapshot::default().next(both, &[], BTreeMap::new(), None);
        let (after, changes) = before.next(Vec::new(), &[], unavailable, None);
        let status = |index: usize| after.status(&after.rows[index]);
        assert_eq!(status(0), (Status::Unavailable, "gone"));
        assert_eq!(status(1), (Status::Ready, ""));
        assert_eq!(changes.changed.len(), 1);
        let root = BTreeMap::from([(b"/".to_vec().into(), "gone".to_owned())]);
        let (all, _) = before.next(Vec::new(), &[], root, None);
        assert_eq!(all.status(&all.rows[1]).0, Status::Unavailable);
    }
}
