//! An ordered list that never changes, of which the next one shares what is the same: a snapshot costs
//! what was changed, in time and in memory, and past ones cost next to nothing.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hasher};
use std::ops::{Index, Range};
use std::sync::{Arc, OnceLock};

use super::kept::KeptRow;

/// Rows in a run, about: they are copied together when one of them changes.
const RUN: usize = 512;

/// A run that is shorter is joined with the next one.
const RUN_MIN: usize = RUN / 4;

/// Rows in order, in runs that lists share.
#[derive(Debug, Clone, Default)]
pub struct Rows {
    runs: Arc<[Placed]>,
}

/// A run, and the number of rows up to its end.
#[derive(Debug, Clone)]
struct Placed {
    end: usize,
    run: Arc<Run>,
}

#[derive(Debug)]
struct Run {
    /// Of the rows, side by side: looking for some of them is looking through these.
    ids: Box<[i64]>,
    rows: Box<[Arc<KeptRow>]>,
    /// Hashes of the rows' paths, likewise, once one is asked for.
    paths: OnceLock<Box<[u32]>>,
}

impl Run {
    fn with_path(&self, path: &[u8], hash: u32) -> Option<&Arc<KeptRow>> {
        let of_rows = || self.rows.iter().map(|row| path_hash(row.path())).collect();
        let paths = self.paths.get_or_init(of_rows);
        let mut same = paths.iter().zip(&self.rows).filter(|(of, _)| **of == hash);
        same.find_map(|(_, row)| (row.path() == path).then_some(row))
    }
}

fn path_hash(path: &[u8]) -> u32 {
    let mut hasher = DefaultHasher::new();
    hasher.write(path);
    // Any of its bits will do: whoever has the same is looked at.
    hasher.finish() as u32
}

impl Rows {
    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.runs.last().map_or(0, |last| last.end)
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<KeptRow>> {
        self.runs.iter().flat_map(|placed| &placed.run.rows)
    }

    /// Those at some places; places that are not there are passed over.
    pub fn range(&self, range: Range<usize>) -> impl Iterator<Item = &Arc<KeptRow>> {
        let first = self
            .runs
            .partition_point(|placed| placed.end <= range.start);
        self.runs[first..]
            .iter()
            .flat_map(|placed| &placed.run.rows)
            .skip(range.start - self.start(first))
            .take(range.len())
    }

    /// Number of rows before the run numbered `run`.
    fn start(&self, run: usize) -> usize {
        run.checked_sub(1).map_or(0, |before| self.runs[before].end)
    }

    /// The rows with these numbers, which are in order.
    pub(super) fn with_ids(&self, ids: &[i64]) -> impl Iterator<Item = &Arc<KeptRow>> {
        self.runs.iter().flat_map(|placed| {
            let run = &placed.run;
            let places = run.ids.iter().zip(&run.rows);
            places.filter_map(|(id, row)| contains(ids, *id).then_some(row))
        })
    }

    /// The row of the image at `path`.
    #[must_use]
    pub fn with_path(&self, path: &[u8]) -> Option<&Arc<KeptRow>> {
        let hash = path_hash(path);
        let mut runs = self.runs.iter().map(|placed| &placed.run);
        runs.find_map(|run| run.with_path(path, hash))
    }

    /// The list of those at some places, which are in order. Runs of which all are there are shared.
    #[must_use]
    pub fn at(&self, places: &[usize]) -> Self {
        let mut builder = Builder::default();
        let (mut start, mut rest) = (0, places);
        for Placed { end, run } in self.runs.iter() {
            let (here, behind) = rest.split_at(rest.partition_point(|place| place < end));
            if here.len() == run.rows.len() {
                builder.run(run);
            } else {
                for place in here {
                    builder.row(Arc::clone(&run.rows[place - start]));
                }
            }
            (start, rest) = (*end, behind);
        }
        builder.finish()
    }

    /// How many rows are in runs that `other` does not share: what keeping this list besides costs.
    #[must_use]
    pub fn not_shared_with(&self, other: &Self) -> usize {
        let shared: HashSet<_> = other
            .runs
            .iter()
            .map(|placed| Arc::as_ptr(&placed.run))
            .collect();
        self.runs
            .iter()
            .filter(|placed| !shared.contains(&Arc::as_ptr(&placed.run)))
            .map(|placed| placed.run.rows.len())
            .sum()
    }

    /// The list without the rows numbered `gone` and with `fresh`; all are in order, the rows in that
    /// of [`KeptRow::key`].
    pub(super) fn with(&self, gone: &[i64], fresh: Vec<Arc<KeptRow>>) -> Self {
        let mut builder = Builder::default();
        let mut fresh = fresh.into_iter().peekable();
        for (index, Placed { run, .. }) in self.runs.iter().enumerate() {
            let bound = self.runs.get(index + 1).map(|next| next.run.rows[0].key());
            let is_before = |row: &Arc<KeptRow>| bound.is_none_or(|bound| row.key() < bound);
            let stays = !fresh.peek().is_some_and(is_before)
                && (gone.is_empty() || !run.ids.iter().any(|id| contains(gone, *id)));
            if stays {
                builder.run(run);
                continue;
            }
            for (id, row) in run.ids.iter().zip(&run.rows) {
                if contains(gone, *id) {
                    continue;
                }
                while let Some(new) = fresh.next_if(|new| new.key() < row.key()) {
                    builder.row(new);
                }
                builder.row(Arc::clone(row));
            }
            while let Some(new) = fresh.next_if(is_before) {
                builder.row(new);
            }
        }
        fresh.for_each(|row| builder.row(row));
        builder.finish()
    }
}

impl From<Vec<Arc<KeptRow>>> for Rows {
    /// Rows in the order in which they are.
    fn from(rows: Vec<Arc<KeptRow>>) -> Self {
        let mut builder = Builder::default();
        rows.into_iter().for_each(|row| builder.row(row));
        builder.finish()
    }
}

impl Index<usize> for Rows {
    type Output = Arc<KeptRow>;

    fn index(&self, index: usize) -> &Arc<KeptRow> {
        let run = self.runs.partition_point(|placed| placed.end <= index);
        &self.runs[run].run.rows[index - self.start(run)]
    }
}

/// Whether a number is one of some that are in order.
fn contains(ids: &[i64], id: i64) -> bool {
    // Most are not: new images have numbers that no other has.
    let (Some(first), Some(last)) = (ids.first(), ids.last()) else {
        return false;
    };
    (*first..=*last).contains(&id) && ids.binary_search(&id).is_ok()
}

#[derive(Default)]
struct Builder {
    runs: Vec<Placed>,
    end: usize,
    /// The run that is being made.
    open: Vec<Arc<KeptRow>>,
}

impl Builder {
    fn row(&mut self, row: Arc<KeptRow>) {
        self.open.push(row);
        if self.open.len() == 2 * RUN {
            let rest = self.open.split_off(RUN);
            self.close();
            self.open = rest;
        }
    }

    fn run(&mut self, run: &Arc<Run>) {
        if (1..RUN_MIN).contains(&self.open.len()) {
            run.rows.iter().for_each(|row| self.row(Arc::clone(row)));
            return;
        }
        self.close();
        self.place(Arc::clone(run));
    }

    fn close(&mut self) {
        if !self.open.is_empty() {
            let rows: Box<[_]> = std::mem::take(&mut self.open).into();
            let ids = rows.iter().map(|row| row.id()).collect();
            self.place(Arc::new(Run {
                ids,
                rows,
                paths: OnceLock::new(),
            }));
        }
    }

    fn place(&mut self, run: Arc<Run>) {
        self.end += run.rows.len();
        self.runs.push(Placed { end: self.end, run });
    }

    fn finish(mut self) -> Rows {
        self.close();
        Rows {
            runs: self.runs.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::{RUN, RUN_MIN, Rows};
    use crate::catalog::KeptRow;
    use crate::catalog::testing::kept;

    fn ids(rows: &Rows) -> Vec<i64> {
        rows.iter().map(|row| row.id()).collect()
    }

    fn numbered(id: i64, place: u16) -> Arc<KeptRow> {
        kept(id, &format!("/r/{id}"), &format!("{place:05}"), "")
    }

    fn at_path(rows: &Rows, id: i64) -> Option<i64> {
        let row = rows.with_path(format!("/r/{id}").as_bytes());
        row.map(|row| row.id())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn lists_that_share_are_as_lists_made_anew(
            steps in prop::collection::vec(
                (prop::collection::vec(0u16..4000, 0..1500), prop::collection::vec(0u16..4000, 0..1500)),
                1..6,
            ),
        ) {
            let mut rows = Rows::default();
            let mut model: BTreeMap<u16, i64> = BTreeMap::new();
            let mut next = 0;
            for (insert, remove) in steps {
                let mut gone: Vec<i64> = remove.iter().filter_map(|place| model.remove(place)).collect();
                let mut fresh = BTreeMap::new();
                for place in insert {
                    next += 1;
                    gone.extend(model.remove(&place));
                    fresh.insert(place, next);
                }
                gone.sort_unstable();
                model.extend(&fresh);
                let fresh = fresh.into_iter().map(|(place, id)| numbered(id, place)).collect();
                let found: Vec<i64> = rows.with_ids(&gone).map(|row| row.id()).collect();
                prop_assert_eq!(found.len(), gone.len());
                rows = rows.with(&gone, fresh);
                let expected: Vec<i64> = model.values().copied().collect();
                prop_assert_eq!(ids(&rows), &*expected);
                prop_assert_eq!(rows.len(), expected.len());
                for start in [0, 1, RUN - 1, RUN, expected.len() / 2, expected.len()] {
                    let range: Vec<i64> = rows.range(start..start + 50).map(|row| row.id()).collect();
                    let from = start.min(expected.len());
                    let to = (start + 50).min(expected.len());
                    prop_assert_eq!(range, &expected[from..to]);
                    if start < expected.len() {
                        prop_assert_eq!(rows[start].id(), expected[start]);
                    }
                }
                let places: Vec<usize> = (0..expected.len()).filter(|place| place % 1500 < 1400).collect();
                let some: Vec<i64> = places.iter().map(|place| expected[*place]).collect();
                prop_assert_eq!(ids(&rows.at(&places)), some);
                for id in expected.iter().step_by(97) {
                    prop_assert_eq!(at_path(&rows, *id), Some(*id));
                }
                for id in gone.iter().take(9) {
                    prop_assert_eq!(at_path(&rows, *id), None);
                }
                let runs = rows.runs.iter().map(|placed| placed.run.rows.len());
                prop_assert!(runs.clone().all(|len| len > 0 && len < 2 * RUN));
                let short = runs.filter(|len| *len < RUN_MIN).count();
                prop_assert!(short <= 1, "{} short runs", short);
            }
        }
    }

    fn ten_thousand() -> Rows {
        // Places between them are free.
        let all = (0..10_000).map(|place| numbered(place.into(), 2 * place));
        Rows::from(all.collect::<Vec<_>>())
    }

    /// How many runs of a list another one has not.
    fn copied(of: &Rows, other: &Rows) -> usize {
        let is_shared = |placed: &&super::Placed| {
            let same = |other: &super::Placed| Arc::ptr_eq(&other.run, &placed.run);
            other.runs.iter().any(same)
        };
        of.runs.len() - of.runs.iter().filter(is_shared).count()
    }

    #[test]
    fn what_is_left_out_copies_one_run() {
        let all = ten_thousand();
        let places: Vec<usize> = (0..all.len()).filter(|place| *place != 5_000).collect();
        let most = all.at(&places);
        assert_eq!((most.len(), copied(&most, &all)), (all.len() - 1, 1));
        assert_eq!(most.not_shared_with(&all), RUN - 1);
        assert!(all.at(&[]).is_empty());
    }

    #[test]
    fn one_change_copies_one_run() {
        let first = ten_thousand();
        let second = first.with(&[5_000], vec![numbered(20_000, 10_000)]);
        assert_eq!(copied(&second, &first), 1);
        assert_eq!(first.not_shared_with(&second), RUN);
        assert_eq!(second[5_000].id(), 20_000);
        // Between the last of a run and the first of the next.
        let last = u16::try_from(RUN - 1).unwrap();
        let third = first.with(&[], vec![numbered(20_001, 2 * last + 1)]);
        assert_eq!(copied(&third, &first), 1);
        assert_eq!(third[RUN].id(), 20_001);
    }

    #[test]
    fn runs_of_which_little_is_left_are_joined() {
        // Every other run is left with one row, and those between are as they were.
        let run = i64::try_from(RUN).unwrap();
        let gone: Vec<i64> = (0..10_000)
            .filter(|id| id / run % 2 == 0 && id % run != 0)
            .collect();
        let few = ten_thousand().with(&gone, Vec::new());
        let short = few
            .runs
            .iter()
            .filter(|placed| placed.run.rows.len() < RUN_MIN);
        assert!(short.count() <= 1);
        let left: Vec<i64> = (0..10_000).filter(|id| !gone.contains(id)).collect();
        assert_eq!(ids(&few), left);
    }
}
