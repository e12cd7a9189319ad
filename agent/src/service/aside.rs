//! Looking through a large listing, or into the database for labels, takes milliseconds: it is done aside,
//! on threads that may wait, so that it holds up nobody who only asks for a page. Few look through a listing at a
//! time: what that takes grows with the listing, and anybody may ask for it a thousand times.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{AcquireError, Semaphore};
use tokio::task::spawn_blocking;
use tonic::Status;

use super::status;
use crate::catalog::{Catalog, Query, Selection, Snapshot, StoreError};

/// How many look through a listing at a time, whoever they are: to put a million images in order takes 100 MiB while
/// it lasts, and more processors than these gain little.
const AT_ONCE: usize = 4;

static TURNS: Semaphore = Semaphore::const_new(AT_ONCE);

/// Looks through a listing, when it is its turn. Who goes away while waiting gives the turn up, and nobody else has
/// it before the work is done.
pub(super) async fn look_through<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Status> + Send + 'static,
) -> Result<T, Status> {
    let turn = TURNS.acquire().await;
    let turn = turn.map_err(|error| Status::internal(error.to_string()))?;
    run(move || {
        let done = work();
        drop(turn);
        done
    })
    .await
}

/// Work that takes long.
pub(super) async fn run<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Status> + Send + 'static,
) -> Result<T, Status> {
    let done = spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(Status::internal(error.to_string())))
}

/// Work on a thread of its own that may hang, when there is a slot for it; `None` if that is not done in time. The slot
/// is given back by the thread itself, however long it takes.
pub(super) async fn in_time<S: Send + 'static, T: Send + 'static>(
    slot: impl Future<Output = Result<S, AcquireError>>,
    patience: Duration,
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let done = async {
        let slot = slot.await.ok()?;
        let thread = spawn_blocking(move || {
            let done = work();
            drop(slot);
            done
        });
        thread.await.ok()
    };
    tokio::time::timeout(patience, done).await.ok().flatten()
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
    selected(query, move |query| {
        catalog.select(snapshot, query, number, now)
    })
    .await
}

/// The same for somebody who reads it in one go.
pub(super) async fn select_once(
    catalog: &Arc<Catalog>,
    snapshot: Arc<Snapshot>,
    query: Query,
) -> Result<Selection, Status> {
    let catalog = Arc::clone(catalog);
    selected(query, move |query| catalog.select_once(snapshot, query)).await
}

/// What a plain query selects is there already.
async fn selected<T: Send + 'static>(
    query: Query,
    select: impl FnOnce(&Query) -> Result<T, StoreError> + Send + 'static,
) -> Result<T, Status> {
    let is_plain = query.is_plain();
    let work = move || select(&query).map_err(|error| status::catalog_failed(&error));
    if is_plain {
        work()
    } else {
        look_through(work).await
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::pin::{Pin, pin};
    use std::sync::{Arc, mpsc};
    use std::task::Poll;

    use tokio::task::spawn_blocking;

    use super::{AT_ONCE, TURNS, look_through, select, select_once};
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
            let mut streamed = pin!(select_once(&catalog, snapshot(), query("tag=1")));
            assert!(!is_ready(filtered.as_mut()).await && !is_ready(streamed.as_mut()).await);
            assert!(is_ready(pin!(select(&catalog, snapshot(), query(""), 2, 0))).await);
            drop(release);
            assert_eq!(filtered.await.unwrap().rows.len(), 0);
            assert_eq!(streamed.await.unwrap().rows.len(), 0);
            assert!(busy.await.unwrap().is_err());
        });
    }

    /// Anybody may send hundreds of such requests at once, and each takes memory for every image. A client that gives
    /// up does not end the work, and may ask again at once.
    #[tokio::test]
    async fn few_look_through_a_listing_at_a_time() {
        let (begin, mut begun) = tokio::sync::mpsc::unbounded_channel();
        let (releases, asked): (Vec<_>, Vec<_>) = (0..AT_ONCE)
            .map(|_| {
                let (release, held) = mpsc::channel::<()>();
                let begin = begin.clone();
                let work = move || {
                    let _ = begin.send(());
                    let _ = held.recv();
                    Ok(())
                };
                (release, tokio::spawn(look_through(work)))
            })
            .unzip();
        for _ in 0..AT_ONCE {
            begun.recv().await.unwrap();
        }
        for asked in asked {
            asked.abort();
            assert!(asked.await.is_err_and(|error| error.is_cancelled()));
        }
        assert_eq!(TURNS.available_permits(), 0);
        drop(releases);
        assert!(look_through(|| Ok(())).await.is_ok());
    }
}
