//! One moment of the listing: immutable, ordered, shared by all who read it.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use sifter_image::record::Status;

use super::facts::FileTime;
use super::kept::KeptRow;
use super::order::in_order;
use super::row::Row;
use super::rows::Rows;

/// An ordered view of all images with a generation number.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// Grows with every change of the listing, also over restarts; says nothing else.
    pub generation: u64,
    /// When a scan last confirmed it; `None` before the first complete scan.
    pub as_of: Option<FileTime>,
    /// By repository, tag, path.
    pub rows: Rows,
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
    pub added: Vec<Arc<KeptRow>>,
    /// Images of which something changed.
    pub changed: Vec<Arc<KeptRow>>,
    /// Images that are gone, as they were.
    pub removed: Vec<Arc<KeptRow>>,
}

impl Snapshot {
    /// Whether the image can be reached now: its own status, or UNAVAILABLE with the reason.
    #[must_use]
    pub fn status<'s>(&'s self, row: &Row<'s>) -> (Status, &'s str) {
        match self.unavailable_reason(row.path) {
            Some(reason) => (Status::Unavailable, reason),
            None => (row.status, row.status_message),
        }
    }

    /// The same without the message.
    #[must_use]
    pub fn status_of(&self, row: &KeptRow) -> Status {
        match self.unavailable_reason(row.path()) {
            Some(_) => Status::Unavailable,
            None => row.status(),
        }
    }

    /// The directory for whose sake an image is UNAVAILABLE, if it is: its root, or one below.
    #[must_use]
    pub fn unavailable_directory(&self, row: &KeptRow) -> Option<&[u8]> {
        let (directory, _) = self.unavailable_at(row.path())?;
        Some(directory)
    }

    /// Whether a root or directory cannot be read now.
    #[must_use]
    pub fn is_unavailable(&self, directory: &[u8]) -> bool {
        self.unavailable.contains_key(directory)
    }

    /// The same moment with some of its images only, in the same order.
    #[must_use]
    pub fn with_only(&self, rows: Rows) -> Self {
        Self {
            generation: self.generation,
            as_of: self.as_of,
            rows,
            unavailable: Arc::clone(&self.unavailable),
        }
    }

    fn unavailable_reason(&self, path: &[u8]) -> Option<&str> {
        self.unavailable_at(path).map(|(_, reason)| reason)
    }

    fn unavailable_at(&self, path: &[u8]) -> Option<(&[u8], &str)> {
        if self.unavailable.is_empty() {
            return None;
        }
        let mut ends = path
            .iter()
            .enumerate()
            .filter(|(_, byte)| **byte == b'/')
            .map(|(index, _)| index.max(1))
            .chain([path.len()]);
        let (directory, reason) =
            ends.find_map(|end| self.unavailable.get_key_value(path.get(..end)?))?;
        Some((directory, reason))
    }

    /// The image listed under `path`.
    #[must_use]
    pub fn get(&self, path: &[u8]) -> Option<&Arc<KeptRow>> {
        self.rows.with_path(path)
    }

    /// The next snapshot: without the images in `removed`, with those in `upserts`.
    #[must_use]
    pub fn next(
        &self,
        upserts: Vec<Arc<KeptRow>>,
        removed: &[i64],
        unavailable: BTreeMap<Box<[u8]>, String>,
        as_of: Option<FileTime>,
    ) -> (Self, Changes) {
        let mut removed = removed.to_vec();
        removed.sort_unstable();
        let is_removed = |id: i64| removed.binary_search(&id).is_ok();
        let latest = latest(upserts);
        let mut ids: Vec<i64> = latest.iter().map(|row| row.id()).collect();
        ids.extend(&removed);
        ids.sort_unstable();

        let mut changes = Changes {
            generation: self.generation + 1,
            as_of,
            added: Vec::new(),
            changed: Vec::new(),
            removed: Vec::new(),
        };
        // Numbers of those that are listed now and will not be, or otherwise.
        let mut gone = Vec::new();
        // Places in `latest` of those that are listed now.
        let mut listed = Vec::new();
        for row in self.rows.with_ids(&ids) {
            let place = latest.binary_search_by_key(&row.id(), |new| new.id());
            listed.extend(place);
            if is_removed(row.id()) {
                changes.removed.push(Arc::clone(row));
            } else if let Some(new) = place.ok().map(|place| &latest[place])
                && new != row
            {
                changes.changed.push(Arc::clone(new));
            } else {
                continue;
            }
            gone.push(row.id());
        }
        gone.sort_unstable();
        listed.sort_unstable();
        let mut listed = listed.into_iter().peekable();
        for (place, row) in latest.into_iter().enumerate() {
            if listed.next_if_eq(&place).is_none() && !is_removed(row.id()) {
                changes.added.push(row);
            }
        }
        changes.unite_paths();
        let fresh: Vec<_> = changes.added.iter().chain(&changes.changed).collect();
        let fresh = in_order(fresh, |row| row.key());
        let mut next = Self {
            generation: changes.generation,
            as_of,
            rows: self
                .rows
                .with(&gone, fresh.into_iter().map(Arc::clone).collect()),
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
                .map(|row| row.id())
                .collect();
            let turned = next
                .rows
                .iter()
                .filter(|row| {
                    !named.contains(&row.id())
                        && self.unavailable_reason(row.path())
                            != next.unavailable_reason(row.path())
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

    /// What is gone and new at the same path, as where the listing comes from another database, has changed.
    fn unite_paths(&mut self) {
        if self.added.is_empty() || self.removed.is_empty() {
            return;
        }
        let new: HashSet<&[u8]> = self.added.iter().map(|row| row.path()).collect();
        let gone = self.removed.iter().map(|row| row.path());
        let both: HashSet<Box<[u8]>> = gone
            .filter(|path| new.contains(path))
            .map(Into::into)
            .collect();
        self.removed.retain(|row| !both.contains(row.path()));
        let changed = self.added.extract_if(.., |row| both.contains(row.path()));
        self.changed.extend(changed);
    }

    /// How many images are concerned.
    #[must_use]
    pub fn len(&self) -> usize {
        self.added.len() + self.changed.len() + self.removed.len()
    }
}

/// The rows by number; of several changes of one image in a scan the last one counts.
fn latest(mut rows: Vec<Arc<KeptRow>>) -> Vec<Arc<KeptRow>> {
    // They mostly are so already: numbers are given one after the other.
    if !rows.is_sorted_by(|a, b| a.id() < b.id()) {
        rows.sort_by_key(|row| row.id());
        rows.dedup_by(|later, kept| {
            let same = later.id() == kept.id();
            if same {
                std::mem::swap(later, kept);
            }
            same
        });
    }
    rows
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use sifter_image::record::Status;

    use super::Snapshot;
    use crate::catalog::KeptRow;
    use crate::catalog::testing::kept;

    fn paths(snapshot: &Snapshot) -> Vec<String> {
        snapshot
            .rows
            .iter()
            .map(|row| String::from_utf8_lossy(row.path()).into_owned())
            .collect()
    }

    #[test]
    fn images_come_and_go_and_the_order_holds() {
        let (first, changes) = Snapshot::default().next(
            vec![
                kept(1, "/r/b", "b", "1"),
                kept(2, "/r/a", "a", "2"),
                kept(3, "/r/c", "a", "1"),
            ],
            &[],
            BTreeMap::new(),
            None,
        );
        assert_eq!(paths(&first), ["/r/c", "/r/a", "/r/b"]);
        assert_eq!(changes.added.len(), 3);

        let (second, changes) = first.next(
            vec![
                kept(2, "/r/a", "z", "1"),
                kept(4, "/r/d", "aa", "1"),
                kept(1, "/r/b", "b", "1"),
            ],
            &[3],
            BTreeMap::new(),
            None,
        );
        assert_eq!(paths(&second), ["/r/d", "/r/b", "/r/a"]);
        assert_eq!(second.generation, first.generation + 1);
        let ids = |rows: &[Arc<KeptRow>]| rows.iter().map(|row| row.id()).collect::<Vec<_>>();
        assert_eq!(ids(&changes.added), [4]);
        assert_eq!(ids(&changes.changed), [2], "image 1 is as it was");
        assert_eq!(ids(&changes.removed), [3]);
        assert_eq!(paths(&first).len(), 3, "a snapshot never changes");
    }

    #[test]
    fn what_gets_another_number_has_changed() {
        let (before, _) = Snapshot::default().next(
            vec![kept(1, "/r/a", "a", "1"), kept(2, "/r/b", "b", "1")],
            &[],
            BTreeMap::new(),
            None,
        );
        let new = vec![kept(11, "/r/a", "a", "2"), kept(12, "/r/c", "c", "1")];
        let (after, changes) = before.next(new, &[1, 2], BTreeMap::new(), None);
        let ids = |rows: &[Arc<KeptRow>]| rows.iter().map(|row| row.id()).collect::<Vec<_>>();
        assert_eq!(ids(&changes.added), [12]);
        assert_eq!(ids(&changes.changed), [11]);
        assert_eq!(ids(&changes.removed), [2]);
        assert_eq!(paths(&after), ["/r/a", "/r/c"]);
    }

    #[test]
    fn the_order_is_that_of_repository_tag_and_path() {
        let tags = [
            "1.0.0--beta2",
            "1.0.0--beta10",
            "",
            "1.0.0-",
            "1.0.0--",
            "1",
            "2",
            "10",
        ];
        let mut images = Vec::new();
        for (repository, path) in [("b", "/r/2"), ("a", "/r/2"), ("b", "/r/1"), ("a/b", "/r/1")] {
            images.extend(tags.map(|tag| (repository, tag, path)));
        }
        let row = |(id, (repository, tag, path)): (usize, &(&str, &str, &str))| {
            kept(i64::try_from(id).unwrap(), path, repository, tag)
        };
        let all = images.iter().enumerate().map(row).collect();
        let (snapshot, _) = Snapshot::default().next(all, &[], BTreeMap::new(), None);
        images.sort_unstable();
        let listed: Vec<_> = snapshot.rows.iter().map(|row| row.view()).collect();
        let listed = listed.iter().map(|row| {
            (
                row.repository,
                row.tag,
                std::str::from_utf8(row.path).unwrap(),
            )
        });
        assert_eq!(listed.collect::<Vec<_>>(), images);
    }

    #[test]
    fn the_last_of_several_changes_counts() {
        let changes = vec![
            kept(2, "/r/b", "b", "1"),
            kept(1, "/r/a", "a", "1"),
            kept(2, "/r/b", "b", "2"),
            kept(2, "/r/b", "b", "3"),
        ];
        let (snapshot, changes) = Snapshot::default().next(changes, &[], BTreeMap::new(), None);
        assert_eq!(changes.added.len(), 2);
        assert_eq!(snapshot.rows[1].view().tag, "3");
    }

    #[test]
    fn what_lies_below_an_unreadable_directory_is_unavailable() {
        let unavailable = BTreeMap::from([(b"/r/x".to_vec().into(), "gone".to_owned())]);
        let both = vec![kept(1, "/r/x/a", "a", "1"), kept(2, "/r/xy", "b", "1")];
        let (before, _) = Snapshot::default().next(both, &[], BTreeMap::new(), None);
        let (after, changes) = before.next(Vec::new(), &[], unavailable, None);
        let status = |index: usize| after.status(&after.rows[index].view());
        assert_eq!(status(0), (Status::Unavailable, "gone"));
        assert_eq!(status(1), (Status::Ready, ""));
        assert_eq!(changes.changed.len(), 1);
        let root = BTreeMap::from([(b"/".to_vec().into(), "gone".to_owned())]);
        let (all, _) = before.next(Vec::new(), &[], root, None);
        assert_eq!(all.status_of(&all.rows[1]), Status::Unavailable);
    }
}
