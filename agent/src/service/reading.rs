//! One call's way through the catalogue: what there is to be listed, and images as messages.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use prost::Message as _;
use sifter_proto::v1::{GetImageRequest, Image, ImageView, UnlistedRoot};
use tonic::Status;

use crate::catalog::{
    Catalog, Condition, FileTime, KeptRow, Query, QueryError, Selection, Snapshot,
};
use crate::escape;

use super::aside;
use super::convert;
use super::encode::Encoder;
use super::host;
use super::owners::Owners;
use super::source::ImageSource;
use super::status;
use super::visibility::{Sight, View, Visibility};

/// Bytes of images in one message, about: clients accept 4 MiB of a message. One image of view FULL may have more
/// than a megabyte, and the path of any some 20 KiB, where each byte of it is escaped.
const MESSAGE_SIZE: usize = 2 << 20;

/// One call, which reads one catalogue from beginning to end.
pub(super) struct Reading<A> {
    pub(super) catalog: Arc<Catalog>,
    pub(super) agent: Arc<A>,
    pub(super) owners: Arc<Owners>,
    pub(super) visibility: Arc<Visibility>,
}

impl<A> Clone for Reading<A> {
    fn clone(&self) -> Self {
        Self {
            catalog: Arc::clone(&self.catalog),
            agent: Arc::clone(&self.agent),
            owners: Arc::clone(&self.owners),
            visibility: Arc::clone(&self.visibility),
        }
    }
}

impl<A: ImageSource> Reading<A> {
    /// The present listing, as the caller sees it; without a view for those who see all of it.
    pub(super) async fn present(&self, sight: &Sight) -> (Arc<Snapshot>, Option<Arc<View>>) {
        let whole = self.catalog.snapshot();
        match sight {
            Sight::All => (whole, None),
            Sight::Own(subject) => {
                let is_held = |generation| self.agent.holds(generation);
                let view = self
                    .visibility
                    .view(sight.number(), subject, &whole, is_held)
                    .await;
                (view.of(&whole), Some(view))
            }
        }
    }

    /// Roots of which the listing holds nothing because they did not answer.
    pub(super) fn unlisted(&self, view: Option<&View>) -> Vec<UnlistedRoot> {
        let mut roots = self.agent.unlisted_roots();
        for path in view.into_iter().flat_map(|view| &view.unanswered) {
            if !roots.iter().any(|root| root.path == *path) {
                roots.push(UnlistedRoot {
                    path: path.clone(),
                    command: format!("check permissions below {path}"),
                    error: "did not answer in time".to_owned(),
                });
            }
        }
        roots
    }

    /// Whether there is a listing at all.
    pub(super) fn check_ready(&self) -> Result<(), Status> {
        if !self.agent.is_ready() {
            // There is nothing in memory to go on from yet.
            return Err(match self.catalog.condition() {
                Condition::Failed(error) => status::catalog_failed(&error),
                Condition::Ok | Condition::Memory => status::not_ready(),
            });
        }
        let unlisted = self.agent.unlisted_roots();
        if unlisted.len() == self.agent.root_count()
            && let Some(first) = unlisted.into_iter().next()
        {
            return Err(status::scan_failed(first.command, first.error));
        }
        Ok(())
    }

    pub(super) async fn query(
        filter: &str,
        order_by: &str,
        now: FileTime,
    ) -> Result<Query, Status> {
        let (filter, order_by) = (filter.to_owned(), order_by.to_owned());
        let is_plain = filter.is_empty();
        let asks_host = Query::asks_host(&filter);
        let parse = move || {
            Query::parse(&filter, &order_by, now).map_err(|error| match error {
                QueryError::Filter(message) => status::invalid("filter", message),
                QueryError::Order(message) => status::invalid("order_by", message),
            })
        };
        if asks_host {
            host::ask(parse).await?
        } else if is_plain {
            parse()
        } else {
            aside::run(parse).await
        }
    }

    /// One image for the wire.
    pub(super) fn message(
        &self,
        snapshot: &Snapshot,
        row: &KeptRow,
        view: ImageView,
    ) -> Result<Image, Status> {
        let row = row.view();
        let mut image = convert::basic(&row, &self.owners);
        let (now, message) = snapshot.status(&row);
        image.status = convert::status(now).into();
        message.clone_into(&mut image.status_message);
        if view == ImageView::Full {
            convert::add_details(&mut image, self.details(row.id)?);
        }
        Ok(image)
    }

    /// The image that a request names.
    pub(super) fn find(
        snapshot: &Snapshot,
        request: &GetImageRequest,
    ) -> Result<Arc<KeptRow>, Status> {
        let (row, shown) = if request.raw_path.is_empty() {
            let path = request.path.as_str();
            (listed_as(snapshot, path), path.into())
        } else {
            let path = &request.raw_path;
            (snapshot.get(path), Cow::from(escape::utf8(path)))
        };
        row.map(Arc::clone)
            .ok_or_else(|| status::image_not_found(&shown))
    }

    fn details(&self, image: i64) -> Result<Image, Status> {
        self.catalog
            .details(image)
            .map_err(|error| status::catalog_failed(&error))
    }

    /// Learns whose images these are, for the messages that are made of them.
    pub(super) async fn learn_owners(&self, rows: impl IntoIterator<Item = &Arc<KeptRow>>) {
        let ids = rows.into_iter().map(|row| row.owners());
        self.owners.learn_aside(ids).await;
    }

    /// The images at some places of a selection, encoded, and the place behind them: no more than one message takes.
    pub(super) async fn encoded(
        &self,
        selection: &Arc<Selection>,
        range: Range<usize>,
        view: ImageView,
    ) -> Result<(Vec<u8>, usize), Status> {
        self.learn_owners(selection.rows.range(range.clone())).await;
        if view != ImageView::Full {
            return self.encode(selection, range, view);
        }
        let (this, selection) = (self.clone(), Arc::clone(selection));
        aside::run(move || this.encode(&selection, range, view)).await
    }

    fn encode(
        &self,
        selection: &Selection,
        range: Range<usize>,
        view: ImageView,
    ) -> Result<(Vec<u8>, usize), Status> {
        let mut encoder = Encoder::new(&self.owners, range.len());
        let mut end = range.start;
        for row in selection.rows.range(range) {
            let row = row.view();
            let details = match view {
                ImageView::Full => self.details(row.id)?.encode_to_vec(),
                _ => Vec::new(),
            };
            encoder.image(&row, selection.snapshot.status(&row), &details);
            end += 1;
            if encoder.size() >= MESSAGE_SIZE {
                break;
            }
        }
        Ok((encoder.finish(), end))
    }

    /// Images one after the other, no more than one message takes.
    pub(super) fn messages(
        &self,
        snapshot: &Snapshot,
        rows: &[Arc<KeptRow>],
        view: ImageView,
    ) -> Result<Vec<Image>, Status> {
        fitting(rows.iter().map(|row| self.message(snapshot, row, view)))
    }
}

/// The first images, as many as one message takes.
pub(super) fn fitting<E>(images: impl Iterator<Item = Result<Image, E>>) -> Result<Vec<Image>, E> {
    let mut size = 0;
    let mut fit = Vec::with_capacity(images.size_hint().0);
    for image in images {
        let image = image?;
        size += image.encoded_len();
        fit.push(image);
        if size >= MESSAGE_SIZE {
            break;
        }
    }
    Ok(fit)
}

/// The image that is listed with this `path`: its own, or that in which bytes are escaped.
fn listed_as<'s>(snapshot: &'s Snapshot, path: &str) -> Option<&'s Arc<KeptRow>> {
    let is_it = |row: &&Arc<KeptRow>| {
        std::str::from_utf8(row.path()).is_err() && escape::utf8(row.path()) == path
    };
    let escaped = || snapshot.rows.iter().find(is_it);
    let may_be_escaped = path.contains("\\x");
    snapshot
        .get(path.as_bytes())
        .or_else(|| may_be_escaped.then(escaped).flatten())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use super::listed_as;
    use crate::catalog::testing::row;
    use crate::catalog::{Commons, KeptRow, Snapshot};

    #[test]
    fn an_image_is_found_by_the_path_that_is_shown_of_it() {
        let paths: [&[u8]; 5] = [
            b"/r/plain",
            b"/r/\xff",
            b"/r/\xfe",
            b"/r/\xfe\xfe",
            "/r/\u{e9}".as_bytes(),
        ];
        let rows = paths.iter().zip(1..).map(|(path, id)| {
            let mut row = row(id, "", "r", "1");
            row.path = path;
            Arc::new(KeptRow::new(&row, &mut Commons::default()))
        });
        // What is a name of its own is not taken for another that is escaped.
        let literal = row(6, r"/r/\xfe", "r", "1");
        let literal = Arc::new(KeptRow::new(&literal, &mut Commons::default()));
        let all = rows.chain([literal]).collect();
        let (snapshot, _) = Snapshot::default().next(all, &[], BTreeMap::new(), None);
        for (shown, id) in [
            ("/r/plain", Some(1)),
            (r"/r/\xff", Some(2)),
            (r"/r/\xfe", Some(6)),
            (r"/r/\xfe\xfe", Some(4)),
            ("/r/\u{e9}", Some(5)),
            (r"/r/\xc3\xa9", None),
            (r"/r/\xFF", None),
            ("", None),
        ] {
            let found = listed_as(&snapshot, shown).map(|row| row.id());
            assert_eq!(found, id, "{shown}");
        }
    }
}
