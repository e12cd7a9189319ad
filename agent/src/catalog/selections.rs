//! Results of filters that are kept, so that their next pages cost nothing.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};

use super::rows::Rows;
use super::snapshot::Snapshot;
use crate::lock::lock;

/// How many are kept.
const MOST: usize = 16;

/// The same counted in images, 16 bytes each. The last one is always kept.
const MOST_ROWS: usize = 1 << 20;

/// The images of a listing.
#[derive(Debug)]
pub struct Selection {
    /// The snapshot that it is of.
    pub snapshot: Arc<Snapshot>,
    /// The images in order.
    pub rows: Rows,
}

/// What a selection is the answer to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Asked {
    /// Generation of the listing.
    pub(super) generation: u64,
    /// Number of the query.
    pub(super) query: u64,
    /// Seconds from which ages are counted.
    pub(super) now: i64,
}

/// The selections, oldest first.
#[derive(Debug, Default)]
pub(super) struct Selections(Mutex<VecDeque<(Asked, Arc<Selection>)>>);

impl Selections {
    fn lock(&self) -> MutexGuard<'_, VecDeque<(Asked, Arc<Selection>)>> {
        lock(&self.0)
    }

    pub(super) fn get(&self, asked: Asked) -> Option<Arc<Selection>> {
        let kept = self.lock();
        let found = kept.iter().find(|(of, _)| *of == asked);
        found.map(|(_, selection)| Arc::clone(selection))
    }

    pub(super) fn keep(&self, asked: Asked, selection: &Arc<Selection>) {
        let mut kept = self.lock();
        kept.push_back((asked, Arc::clone(selection)));
        let mut rows: usize = kept.iter().map(|(_, kept)| kept.rows.len()).sum();
        while kept.len() > MOST || rows > MOST_ROWS && kept.len() > 1 {
            rows -= kept.pop_front().map_or(0, |(_, oldest)| oldest.rows.len());
        }
    }

    /// Forgets those of listings before `generation`, for whose next pages nobody can ask: a selection holds
    /// its whole listing.
    pub(super) fn forget_before(&self, generation: u64) {
        self.lock().retain(|(of, _)| of.generation >= generation);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{Asked, MOST, MOST_ROWS, Rows, Selection, Selections};
    use crate::catalog::testing::kept;

    fn asked(generation: u64, query: u64) -> Asked {
        Asked {
            generation,
            query,
            now: 0,
        }
    }

    fn selection(rows: usize) -> Arc<Selection> {
        let row = kept(1, "/r/a", "a", "1");
        Arc::new(Selection {
            snapshot: Arc::default(),
            rows: Rows::from(vec![row; rows]),
        })
    }

    /// The queries of which the selections are kept.
    fn queries(selections: &Selections) -> Vec<u64> {
        selections.lock().iter().map(|(of, _)| of.query).collect()
    }

    #[test]
    fn selections_are_bounded_by_their_number_and_by_what_they_cost() {
        let small = || vec![1; MOST + 1];
        let half = MOST_ROWS / 2;
        for (sizes, left) in [
            (small(), (1..=MOST as u64).collect()),
            (vec![half, half], vec![0, 1]),
            (vec![half, half, 1], vec![1, 2]),
            (vec![1, MOST_ROWS + 1], vec![1]),
        ] {
            let selections = Selections::default();
            for (query, rows) in (0..).zip(&sizes) {
                selections.keep(asked(1, query), &selection(*rows));
            }
            assert_eq!(queries(&selections), left, "{sizes:?}");
        }
    }

    #[test]
    fn a_selection_is_found_by_all_that_was_asked() {
        let selections = Selections::default();
        let first = selection(2);
        selections.keep(asked(1, 7), &first);
        let found = selections.get(asked(1, 7)).unwrap();
        assert!(Arc::ptr_eq(&found, &first));
        let later = Asked {
            now: 1,
            ..asked(1, 7)
        };
        for other in [asked(2, 7), asked(1, 8), later] {
            assert!(selections.get(other).is_none(), "{other:?}");
        }
    }
}
