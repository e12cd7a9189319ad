//! Looking through a large listing, or into the database for labels, takes milliseconds: it is done aside,
//! on threads that may wait, so that it holds up nobody who only asks for a page.

use std::sync::Arc;

use tokio::task::spawn_blocking;
use tonic::Status;

use super::status;
use crate::catalog::{Catalog, KeptRow, Query, Selection, Snapshot};

/// Work that takes long.
pub(super) async fn run<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Status> + Send + 'static,
) -> Result<T, Status> {
    let done = spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(Status::internal(error.to_string())))
}

/// The images that a query selects; see [`Catalog::select`].
pub(super) async fn select(
    catalog: &Arc<Catalog>,
    snapshot: Arc<Snapshot>,
    query: Query,
    number: u64,
    now: i64,
) -> Result<Arc<Selection>, Status> {
    let catalog = Arc::clone(catalog);
    let is_plain = query.is_plain();
    let work = move || {
        let selection = catalog.select(snapshot, &query, number, now);
        selection.map_err(|error| status::catalog_failed(&error))
    };
    if is_plain { work() } else { run(work).await }
}

/// The same for somebody who reads it in one go.
pub(super) async fn select_once(
    catalog: &Arc<Catalog>,
    snapshot: Arc<Snapshot>,
    query: Query,
) -> Result<Selection, Status> {
    let catalog = Arc::clone(catalog);
    let is_plain = query.is_plain();
    let work = move || {
        let selection = catalog.select_once(snapshot, &query);
        selection.map_err(|error| status::catalog_failed(&error))
    };
    if is_plain { work() } else { run(work).await }
}

/// The same as a list of their own.
pub(super) async fn rows(
    catalog: &Arc<Catalog>,
    snapshot: &Arc<Snapshot>,
    query: &Query,
) -> Result<Vec<Arc<KeptRow>>, Status> {
    let (catalog, snapshot, query) = (Arc::clone(catalog), Arc::clone(snapshot), query.clone());
    run(move || {
        let rows = query.select(&snapshot, &*catalog);
        rows.map_err(|error| status::catalog_failed(&error))
    })
    .await
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
