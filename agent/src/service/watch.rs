//! `WatchImages`: the snapshot, then the changes of every generation.
//!
//! Nothing is buffered for a slow reader: it takes the changes from the catalogue's history when it
//! is ready for them, and is dropped when the history does not reach back far enough. A user's watch
//! compares what the user sees now with what was sent.

use std::collections::HashMap;
use std::sync::Arc;

use sifter_image::record::Status as ImageStatus;
use sifter_proto::v1::watch_images_response::Event;
use sifter_proto::v1::{Image, ImageView, WatchImagesResponse};
use tokio::sync::mpsc;
use tonic::Status;

use crate::catalog::{Changes, FileTime, KeptRow, Query, Selection, Snapshot, StoreError};

use super::aside;
use super::convert;
use super::reading::{Reading, fitting};
use super::source::ImageSource;
use super::status;
use super::visibility::{FRESH, Sight};

/// Images in one message: some of these wait for each client that is slow, and each image is a kilobyte before it
/// is encoded.
const BATCH: usize = 100;

/// One client's watch.
pub(super) struct Watcher<A> {
    pub(super) reading: Reading<A>,
    pub(super) query: Query,
    pub(super) view: ImageView,
    pub(super) sender: mpsc::Sender<Result<WatchImagesResponse, Status>>,
}

/// Images that were sent, by their numbers.
type Sent = HashMap<i64, (Arc<KeptRow>, ImageStatus)>;

/// The client went away, or cannot be served any longer.
struct Ended;

impl<A: ImageSource> Watcher<A> {
    /// Runs until the client ends the call.
    pub async fn run(self, sight: Sight, resume: u64) {
        let _ = match sight {
            Sight::All => self.watch(resume).await,
            Sight::Own(_) => self.watch_own(&sight).await,
        };
    }

    /// The watch of a caller who does not see everything.
    async fn watch_own(&self, sight: &Sight) -> Result<(), Ended> {
        let mut generations = self.reading.catalog.subscribe();
        let mut replaced = self.reading.agent.replaced();
        if !Arc::ptr_eq(&self.reading.catalog, &self.reading.agent.catalog()) {
            return self.expired(0).await;
        }
        let mut sent: Option<Sent> = None;
        loop {
            generations.borrow_and_update();
            let (snapshot, _) = self.reading.present(sight).await;
            let at = (snapshot.generation, snapshot.as_of);
            let mut gone = sent.clone().unwrap_or_default();
            let (mut added, mut changed) = (Vec::new(), Vec::new());
            let mut now = HashMap::new();
            for row in self.select(&snapshot).await?.rows.iter() {
                let status = snapshot.status_of(row);
                match gone.remove(&row.id()) {
                    None => added.push(Arc::clone(row)),
                    Some((was, status_was)) if was != *row || status_was != status => {
                        changed.push(Arc::clone(row));
                    }
                    Some(_) => {}
                }
                now.insert(row.id(), (Arc::clone(row), status));
            }
            changed.append(&mut renumbered(&mut added, &mut gone));
            let quiet = added.is_empty() && changed.is_empty() && gone.is_empty();
            self.images(&snapshot, Event::Added, &added, at).await?;
            self.images(&snapshot, Event::Changed, &changed, at).await?;
            let gone: Vec<_> = gone.into_values().map(|(row, _)| row).collect();
            self.removed(&gone, at).await?;
            if sent.is_none() {
                self.send(Event::SnapshotEnd, Vec::new(), at).await?;
            }
            if sent.is_none() || !quiet {
                self.send(Event::Generation, Vec::new(), at).await?;
            }
            sent = Some(now);
            tokio::select! {
                changed = generations.changed() => changed.map_err(|_| Ended)?,
                // Permissions change without a scan.
                () = tokio::time::sleep(FRESH) => {}
                _ = replaced.changed() => return self.expired(at.0).await,
                () = self.sender.closed() => return Err(Ended),
            }
        }
    }

    /// The roots are others now, and so is the catalogue: its changes are no changes of this one.
    async fn expired(&self, generation: u64) -> Result<(), Ended> {
        let status = status::generation_expired(generation);
        let _ = self.sender.send(Err(status)).await;
        Err(Ended)
    }

    async fn watch(&self, resume: u64) -> Result<(), Ended> {
        let mut generations = self.reading.catalog.subscribe();
        let mut replaced = self.reading.agent.replaced();
        if !Arc::ptr_eq(&self.reading.catalog, &self.reading.agent.catalog()) {
            return self.expired(0).await;
        }
        let mut seen = if resume == 0 {
            let snapshot = self.reading.catalog.snapshot();
            self.snapshot(&snapshot).await?;
            snapshot.generation
        } else {
            resume
        };
        loop {
            generations.borrow_and_update();
            let Some(all) = self.reading.catalog.changes_after(seen) else {
                let message = "too slow: the changes are not held any more; watch again";
                let _ = self.sender.send(Err(status::overloaded(message))).await;
                return Err(Ended);
            };
            for changes in all {
                self.changes(&changes).await?;
                seen = changes.generation;
            }
            tokio::select! {
                changed = generations.changed() => changed.map_err(|_| Ended)?,
                _ = replaced.changed() => return self.expired(seen).await,
                () = self.sender.closed() => return Err(Ended),
            }
        }
    }

    /// The images of a snapshot that are watched.
    async fn select(&self, snapshot: &Arc<Snapshot>) -> Result<Selection, Ended> {
        let (snapshot, query) = (Arc::clone(snapshot), self.query.clone());
        let selection = aside::select_once(&self.reading.catalog, snapshot, query).await;
        self.answered(selection).await
    }

    /// Tells the client what failed, which ends the call.
    async fn answered<T>(&self, answer: Result<T, Status>) -> Result<T, Ended> {
        match answer {
            Ok(answer) => Ok(answer),
            Err(status) => {
                let _ = self.sender.send(Err(status)).await;
                Err(Ended)
            }
        }
    }

    async fn snapshot(&self, snapshot: &Arc<Snapshot>) -> Result<(), Ended> {
        let rows = self.select(snapshot).await?.rows;
        let at = (snapshot.generation, snapshot.as_of);
        // Never all of them: many may watch a large listing, and take their time.
        for start in (0..rows.len()).step_by(BATCH) {
            let batch: Vec<_> = rows.range(start..start + BATCH).map(Arc::clone).collect();
            self.images(snapshot, Event::Added, &batch, at).await?;
        }
        self.send(Event::SnapshotEnd, Vec::new(), at).await?;
        self.send(Event::Generation, Vec::new(), at).await
    }

    async fn changes(&self, changes: &Arc<Changes>) -> Result<(), Ended> {
        let snapshot = self.reading.catalog.snapshot();
        let at = (changes.generation, changes.as_of);
        let watched = {
            let (changes, snapshot) = (Arc::clone(changes), Arc::clone(&snapshot));
            let (catalog, query) = (Arc::clone(&self.reading.catalog), self.query.clone());
            aside::look_through(move || {
                watched(&changes, |row| {
                    query.matches(&snapshot, &row.view(), &*catalog)
                })
                .map_err(|error| status::catalog_failed(&error))
            })
            .await
        };
        let Watched {
            added,
            changed,
            removed,
        } = self.answered(watched).await?;
        self.images(&snapshot, Event::Added, &added, at).await?;
        self.images(&snapshot, Event::Changed, &changed, at).await?;
        self.removed(&removed, at).await?;
        self.send(Event::Generation, Vec::new(), at).await
    }

    async fn images(
        &self,
        snapshot: &Arc<Snapshot>,
        event: Event,
        rows: &[Arc<KeptRow>],
        at: (u64, Option<FileTime>),
    ) -> Result<(), Ended> {
        let mut rest = rows;
        while !rest.is_empty() {
            let batch = &rest[..rest.len().min(BATCH)];
            self.reading.learn_owners(batch).await;
            let images = match self.view {
                ImageView::Full => {
                    let (reading, view) = (self.reading.clone(), self.view);
                    let (snapshot, batch) = (Arc::clone(snapshot), batch.to_vec());
                    aside::run(move || reading.messages(&snapshot, &batch, view)).await
                }
                view => self.reading.messages(snapshot, batch, view),
            };
            let images = self.answered(images).await?;
            rest = &rest[images.len()..];
            self.send(event, images, at).await?;
        }
        Ok(())
    }

    async fn removed(
        &self,
        rows: &[Arc<KeptRow>],
        at: (u64, Option<FileTime>),
    ) -> Result<(), Ended> {
        let mut rest = rows;
        while !rest.is_empty() {
            let batch = rest.iter().take(BATCH).map(|row| Ok(removed_image(row)));
            let images = fitting(batch)?;
            rest = &rest[images.len()..];
            self.send(Event::Removed, images, at).await?;
        }
        Ok(())
    }

    async fn send(
        &self,
        event: Event,
        images: Vec<Image>,
        (generation, as_of): (u64, Option<FileTime>),
    ) -> Result<(), Ended> {
        let message = WatchImagesResponse {
            event: event.into(),
            images,
            generation,
            as_of: as_of.map(convert::timestamp),
        };
        self.sender.send(Ok(message)).await.map_err(|_| Ended)
    }
}

/// What a watcher is told of changes.
struct Watched {
    added: Vec<Arc<KeptRow>>,
    changed: Vec<Arc<KeptRow>>,
    removed: Vec<Arc<KeptRow>>,
}

/// An image that was changed so that it does not match any more is gone for a watcher. Whether it matched before
/// is not known: being told of an unknown one does no harm.
fn watched(
    changes: &Changes,
    matches: impl Fn(&KeptRow) -> Result<bool, StoreError>,
) -> Result<Watched, StoreError> {
    let (mut added, mut changed) = (Vec::new(), Vec::new());
    let mut removed = changes.removed.clone();
    for row in &changes.added {
        if matches(row)? {
            added.push(Arc::clone(row));
        }
    }
    for row in &changes.changed {
        if matches(row)? {
            changed.push(Arc::clone(row));
        } else {
            removed.push(Arc::clone(row));
        }
    }
    Ok(Watched {
        added,
        changed,
        removed,
    })
}

/// Takes out what is gone and new at the same path: it has another number, which nobody sees, and has changed.
fn renumbered(added: &mut Vec<Arc<KeptRow>>, gone: &mut Sent) -> Vec<Arc<KeptRow>> {
    let numbers: HashMap<Box<[u8]>, i64> = gone
        .iter()
        .map(|(number, (row, _))| (row.path().into(), *number))
        .collect();
    let is_gone = |row: &mut Arc<KeptRow>| {
        let number = numbers.get(row.path());
        number.is_some_and(|number| gone.remove(number).is_some())
    };
    added.extract_if(.., is_gone).collect()
}

fn removed_image(row: &KeptRow) -> Image {
    let path = crate::escape::utf8(row.path());
    let raw_path = if path.as_bytes() == row.path() {
        Vec::new()
    } else {
        row.path().to_vec()
    };
    Image {
        path,
        raw_path,
        root: row.root().as_ref().to_owned(),
        ..Image::default()
    }
}

#[cfg(test)]
mod tests {
    use sifter_image::record::Status;

    use super::{Sent, renumbered, watched};
    use crate::catalog::Changes;
    use crate::catalog::testing::kept;

    #[test]
    fn what_does_not_match_any_more_is_gone() {
        let of = |numbers: [i64; 2]| numbers.map(|id| kept(id, &format!("/r/{id}"), "a", "1"));
        let changes = Changes {
            added: of([1, 2]).into(),
            changed: of([3, 4]).into(),
            removed: of([5, 6]).into(),
            generation: 1,
            as_of: None,
        };
        let told = watched(&changes, |row| Ok(row.id() % 2 == 1)).unwrap();
        let ids = [told.added, told.changed, told.removed]
            .map(|rows| rows.iter().map(|row| row.id()).collect::<Vec<_>>());
        assert_eq!(ids, [vec![1], vec![3], vec![5, 6, 4]]);
    }

    #[test]
    fn what_gets_another_number_is_neither_gone_nor_new() {
        let sent = [kept(1, "/r/a", "a", "1"), kept(2, "/r/b", "b", "1")];
        let sent = sent.map(|row| (row.id(), (row, Status::Ready)));
        let mut gone = Sent::from(sent);
        let mut added = vec![kept(11, "/r/a", "a", "1"), kept(12, "/r/c", "c", "1")];
        let changed = renumbered(&mut added, &mut gone);
        assert_eq!((changed.len(), changed[0].id()), (1, 11));
        assert_eq!((added.len(), added[0].id()), (1, 12));
        assert_eq!(gone.into_keys().collect::<Vec<_>>(), [2]);
    }
}
