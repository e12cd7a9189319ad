//! Looking through a large listing, or into the database for labels, takes milliseconds: it is done aside,
//! on threads that may wait, so that it holds up nobody who only asks for a page.

use std::sync::Arc;

use tokio::task::{JoinError, spawn_blocking};

use crate::catalog::{Catalog, KeptRow, Query, Selection, Snapshot};

/// The images that a query selects; see [`Catalog::select`].
pub(super) async fn select(
    catalog: &Arc<Catalog>,
    snapshot: Arc<Snapshot>,
    query: Query,
    number: u64,
    now: i64,
) -> Result<Arc<Selection>, JoinError> {
    if query.is_plain() {
        return Ok(catalog.select(snapshot, &query, number, now));
    }
    let catalog = Arc::clone(catalog);
    spawn_blocking(move || catalog.select(snapshot, &query, number, now)).await
}

/// The same without keeping the selection for the next page.
pub(super) async fn rows(
    catalog: &Arc<Catalog>,
    snapshot: &Arc<Snapshot>,
    query: &Query,
) -> Result<Vec<Arc<KeptRow>>, JoinError> {
    let (catalog, snapshot, query) = (Arc::clone(catalog), Arc::clone(snapshot), query.clone());
    spawn_blocking(move || query.select(&snapshot, &*catalog)).await
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::pin::{Pin, pin};
    use std::sync::{Arc, mpsc};
    use std::task::Poll;

    use tokio::task::spawn_blocking;

    use super::{rows, select};
    use crate::catalog::{Catalog, FileTime, Query};

    async fn is_ready(mut future: Pin<&mut impl Future>) -> bool {
        poll_fn(|context| Poll::Ready(future.as_mut().poll(context).is_ready())).await
    }

    #[test]
    fn who_asks_for_a_page_does_not_wait_for_who_filters() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .max_blocking_threads(1)
            .build()
            .unwrap();
        runtime.block_on(async {
            let (release, held) = mpsc::channel::<()>();
            let busy = spawn_blocking(move || held.recv());
            let catalog = Arc::new(Catalog::open(None, &["/r".into()]));
            let query = |filter| Query::parse(filter, "", FileTime(0)).unwrap();
            let snapshot = || catalog.snapshot();
            let mut filtered = pin!(select(&catalog, snapshot(), query("repository=a*"), 1, 0));
            let all = snapshot();
            let everything = query("");
            let mut watched = pin!(rows(&catalog, &all, &everything));
            assert!(!is_ready(filtered.as_mut()).await && !is_ready(watched.as_mut()).await);
            assert!(is_ready(pin!(select(&catalog, snapshot(), query(""), 2, 0))).await);
            drop(release);
            assert_eq!(filtered.await.unwrap().rows.len(), 0);
            assert_eq!(watched.await.unwrap().len(), 0);
            assert!(busy.await.unwrap().is_err());
        });
    }
}
