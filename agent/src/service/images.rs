//! `sifter.v1.ImageService`: every RPC reads one snapshot.

use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use prost::Message as _;
use sifter_proto::encoded::image_service_server::ImageService;
use sifter_proto::encoded::{ListImagesResponse, StreamImagesResponse};
use sifter_proto::v1::{
    self, GetImageRequest, Image, ImageView, ListImagesRequest, StreamImagesRequest, UnlistedRoot,
    WatchImagesRequest, WatchImagesResponse,
};
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};
use tracing::Instrument;

use crate::catalog::{
    Catalog, Condition, FileTime, KeptRow, PageToken, Query, QueryError, Selection, Snapshot,
};

use super::aside;
use super::convert;
use super::encode::Encoder;
use super::owners::Owners;
use super::source::Agent;
use super::status;
use super::visibility::{Sight, View, Visibility};
use super::watch::Watcher;

/// Images on a page unless another number is asked for.
const PAGE_SIZE: u32 = 50;

/// Most images on a page: some 260 KB, far below the 4 MiB that clients accept.
const PAGE_SIZE_MAX: u32 = 1000;

/// Images in the first batch of a stream, small so that it is there at once, and in later ones.
const FIRST_BATCH: usize = 100;
const BATCH: usize = 1000;

/// Images in a batch with all details, of which each may have hundreds of kilobytes.
const FULL_BATCH: usize = 10;

/// Batches that are ready before the client takes them.
const BATCHES_AHEAD: usize = 2;

/// The image service.
pub struct Images<A> {
    agent: Arc<A>,
    owners: Arc<Owners>,
    visibility: Arc<Visibility>,
}

impl<A: Agent> Images<A> {
    /// The service over an agent.
    pub fn new(agent: Arc<A>, owners: Arc<Owners>, visibility: Arc<Visibility>) -> Self {
        Self {
            agent,
            owners,
            visibility,
        }
    }

    /// A call that reads this catalogue.
    fn reading(&self, catalog: Arc<Catalog>) -> Reading<A> {
        Reading {
            catalog,
            agent: Arc::clone(&self.agent),
            owners: Arc::clone(&self.owners),
            visibility: Arc::clone(&self.visibility),
        }
    }

    /// A call that reads what is listed now.
    fn now(&self) -> Reading<A> {
        self.reading(self.agent.catalog())
    }

    /// A call that goes on in the listing of a generation, which may be the one of before the roots
    /// changed.
    fn of(&self, generation: u64) -> Reading<A> {
        let now = self.agent.catalog();
        if now.snapshot_of(generation).is_some() {
            return self.reading(now);
        }
        match self.agent.former_catalog() {
            Some(former) if former.snapshot_of(generation).is_some() => self.reading(former),
            _ => self.reading(now),
        }
    }
}

/// One call, which reads one catalogue from beginning to end.
pub(super) struct Reading<A> {
    catalog: Arc<Catalog>,
    pub(super) agent: Arc<A>,
    owners: Arc<Owners>,
    visibility: Arc<Visibility>,
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

/// A stream of messages.
type Messages<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl<A: Agent> Reading<A> {
    /// The present listing, as the caller sees it; without a view for those who see all of it.
    pub(super) async fn present(&self, sight: &Sight) -> (Arc<Snapshot>, Option<Arc<View>>) {
        let whole = self.catalog.snapshot();
        match sight {
            Sight::All => (whole, None),
            Sight::Own(subject) => {
                let view = self.visibility.view(sight.number(), subject, &whole).await;
                (view.of(&whole), Some(view))
            }
        }
    }

    /// Roots of which the listing holds nothing because they did not answer.
    fn unlisted(&self, view: Option<&View>) -> Vec<UnlistedRoot> {
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
    fn check_ready(&self) -> Result<(), Status> {
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

    fn query(filter: &str, order_by: &str, now: FileTime) -> Result<Query, Status> {
        Query::parse(filter, order_by, now).map_err(|error| match error {
            QueryError::Filter(message) => status::invalid("filter", message),
            QueryError::Order(message) => status::invalid("order_by", message),
        })
    }

    /// One image for the wire.
    fn message(
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

    fn details(&self, image: i64) -> Result<Image, Status> {
        self.catalog
            .details(image)
            .map_err(|error| status::catalog_failed(&error))
    }

    /// The images at some places of a selection, encoded.
    async fn encoded(
        &self,
        selection: &Arc<Selection>,
        range: Range<usize>,
        view: ImageView,
    ) -> Result<Vec<u8>, Status> {
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
    ) -> Result<Vec<u8>, Status> {
        let mut encoder = Encoder::new(&self.owners, range.len());
        for row in selection.rows.range(range) {
            let row = row.view();
            let details = match view {
                ImageView::Full => self.details(row.id)?.encode_to_vec(),
                _ => Vec::new(),
            };
            encoder.image(&row, selection.snapshot.status(&row), &details);
        }
        Ok(encoder.finish())
    }

    pub(super) fn messages(
        &self,
        snapshot: &Snapshot,
        rows: &[Arc<KeptRow>],
        view: ImageView,
    ) -> Result<Vec<Image>, Status> {
        rows.iter()
            .map(|row| self.message(snapshot, row, view))
            .collect()
    }

    async fn page(
        &self,
        request: &ListImagesRequest,
        sight: &Sight,
    ) -> Result<ListImagesResponse, Status> {
        let view = view_of(request.view)?;
        let page_size = match request.page_size {
            0 => PAGE_SIZE,
            size if size <= PAGE_SIZE_MAX => size,
            size => {
                return Err(status::invalid(
                    "page_size",
                    format!("{size} is more than {PAGE_SIZE_MAX}"),
                ));
            }
        };
        // Before the snapshot is read, which it is about.
        let lease = self.lease(request, view, sight);
        // Tokens are the caller's own.
        let number = PageToken::query_of(&request.filter, &request.order_by) ^ sight.number();
        let mut token = self.token(request, number)?;
        let mut snapshot = self
            .catalog
            .snapshot_of(token.generation)
            .ok_or_else(|| status::generation_expired(token.generation))?;
        let mut seen = None;
        if let Sight::Own(subject) = sight {
            let caller = sight.number();
            // The pages of one listing are cut from one view, which its time tells from others.
            let view = if request.page_token.is_empty() {
                self.visibility.view(caller, subject, &snapshot).await
            } else {
                self.visibility
                    .held(caller, token.generation, token.now)
                    .ok_or_else(|| status::generation_expired(token.generation))?
            };
            token.now = view.stamp;
            snapshot = view.of(&snapshot);
            seen = Some(view);
        }
        let query = Self::query(&request.filter, &request.order_by, FileTime(token.now))?;
        let selection = aside::select(&self.catalog, snapshot, query, number, token.now).await?;
        let total = selection.rows.len();
        let start = usize::try_from(token.offset.saturating_add(request.skip))
            .unwrap_or(usize::MAX)
            .min(total);
        let end = start.saturating_add(page_size as usize).min(total);
        let next = (end < total).then(|| {
            PageToken {
                offset: end as u64,
                ..token
            }
            .encode()
        });
        Ok(ListImagesResponse {
            images: self.encoded(&selection, start..end, view).await?,
            rest: v1::ListImagesResponse {
                images: Vec::new(),
                next_page_token: next.unwrap_or_default(),
                total_size: total as u64,
                generation: selection.snapshot.generation,
                as_of: selection.snapshot.as_of.map(convert::timestamp),
                system: self.agent.system().to_owned(),
                catalog_uri: self.catalog.uri(),
                unlisted_roots: self.unlisted(seen.as_deref()),
                lease: lease.map(Into::into),
            },
        })
    }

    /// A promise that this response stays true, if one is asked for and can be kept: what details, ages and
    /// permissions say may change with no new listing, and so may which roots are not listed.
    fn lease(
        &self,
        request: &ListImagesRequest,
        view: ImageView,
        sight: &Sight,
    ) -> Option<Duration> {
        let wanted = Duration::try_from(request.max_lease?).ok()?;
        let can_be_kept = *sight == Sight::All
            && view != ImageView::Full
            && request.filter.is_empty()
            && request.page_token.is_empty()
            && self.agent.knows_all_roots();
        can_be_kept.then(|| self.catalog.lease(wanted)).flatten()
    }

    fn token(&self, request: &ListImagesRequest, query: u64) -> Result<PageToken, Status> {
        if request.page_token.is_empty() {
            return Ok(PageToken {
                generation: self.catalog.snapshot().generation,
                offset: 0,
                now: FileTime::now().0,
                query,
            });
        }
        let token = PageToken::decode(&request.page_token)
            .ok_or_else(|| status::invalid_page_token("not a token of this agent"))?;
        if token.query != query {
            return Err(status::invalid_page_token(
                "belongs to another filter or order",
            ));
        }
        Ok(token)
    }

    async fn send_all(
        &self,
        selection: &Arc<Selection>,
        view: ImageView,
        unlisted: Vec<UnlistedRoot>,
        sender: &mpsc::Sender<Result<StreamImagesResponse, Status>>,
    ) {
        let total = selection.rows.len();
        let batch = if view == ImageView::Full {
            FULL_BATCH
        } else {
            BATCH
        };
        let mut start = 0;
        loop {
            let size = if start == 0 {
                FIRST_BATCH.min(batch)
            } else {
                batch
            };
            let end = (start + size).min(total);
            let rest = v1::StreamImagesResponse {
                images: Vec::new(),
                total_size: total as u64,
                generation: selection.snapshot.generation,
                as_of: selection.snapshot.as_of.map(convert::timestamp),
                unlisted_roots: if start == 0 {
                    unlisted.clone()
                } else {
                    Vec::new()
                },
            };
            let response = self
                .encoded(selection, start..end, view)
                .await
                .map(|images| StreamImagesResponse { images, rest });
            let failed = response.is_err();
            if sender.send(response).await.is_err() || failed || end == total {
                return;
            }
            start = end;
        }
    }
}

#[tonic::async_trait]
impl<A: Agent> ImageService for Images<A> {
    type StreamImagesStream = Messages<StreamImagesResponse>;
    type WatchImagesStream = Messages<WatchImagesResponse>;

    async fn list_images(
        &self,
        request: Request<ListImagesRequest>,
    ) -> Result<Response<ListImagesResponse>, Status> {
        let this = match PageToken::decode(&request.get_ref().page_token) {
            Some(token) => self.of(token.generation),
            None => self.now(),
        };
        this.check_ready()?;
        let sight = this.visibility.sights.of(request.extensions()).await?;
        this.page(request.get_ref(), &sight)
            .await
            .map(Response::new)
    }

    async fn stream_images(
        &self,
        request: Request<StreamImagesRequest>,
    ) -> Result<Response<Self::StreamImagesStream>, Status> {
        let this = self.now();
        this.check_ready()?;
        let sight = this.visibility.sights.of(request.extensions()).await?;
        let request = request.into_inner();
        let view = view_of(request.view)?;
        let (snapshot, seen) = this.present(&sight).await;
        let now = FileTime(seen.as_ref().map_or(FileTime::now().0, |seen| seen.stamp));
        let query = Reading::<A>::query(&request.filter, &request.order_by, now)?;
        let selection = aside::select_once(&this.catalog, snapshot, query).await?;
        let selection = Arc::new(selection);
        let unlisted = this.unlisted(seen.as_deref());
        let (sender, receiver) = mpsc::channel(BATCHES_AHEAD);
        let service = this;
        tokio::spawn(
            async move { service.send_all(&selection, view, unlisted, &sender).await }
                .in_current_span(),
        );
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn get_image(
        &self,
        request: Request<GetImageRequest>,
    ) -> Result<Response<Image>, Status> {
        let this = self.now();
        this.check_ready()?;
        let sight = this.visibility.sights.of(request.extensions()).await?;
        let request = request.into_inner();
        let view = match view_of(request.view)? {
            ImageView::Unspecified => ImageView::Full,
            view => view,
        };
        let path: &[u8] = if request.raw_path.is_empty() {
            request.path.as_bytes()
        } else {
            &request.raw_path
        };
        if path.is_empty() {
            return Err(status::invalid("path", "is empty"));
        }
        let (snapshot, _) = this.present(&sight).await;
        let row = snapshot
            .get(path)
            .map(Arc::clone)
            .ok_or_else(|| status::image_not_found(&crate::escape::utf8(path)))?;
        let message = aside::run(move || this.message(&snapshot, &row, view)).await;
        message.map(Response::new)
    }

    async fn watch_images(
        &self,
        request: Request<WatchImagesRequest>,
    ) -> Result<Response<Self::WatchImagesStream>, Status> {
        let this = self.now();
        this.check_ready()?;
        let sight = this.visibility.sights.of(request.extensions()).await?;
        let request = request.into_inner();
        let view = view_of(request.view)?;
        let query = Reading::<A>::query(&request.filter, "", FileTime::now())?;
        // The history is of all images: whose changes a user may know is not known any more.
        if request.resume_generation != 0 && sight != Sight::All {
            return Err(status::generation_expired(request.resume_generation));
        }
        if request.resume_generation != 0
            && this
                .catalog
                .changes_after(request.resume_generation)
                .is_none()
        {
            return Err(status::generation_expired(request.resume_generation));
        }
        let (sender, receiver) = mpsc::channel(BATCHES_AHEAD);
        let watcher = Watcher::new(this.clone(), Arc::clone(&this.catalog), query, view, sender);
        tokio::spawn(
            watcher
                .run(sight, request.resume_generation)
                .in_current_span(),
        );
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

fn view_of(view: i32) -> Result<ImageView, Status> {
    ImageView::try_from(view).map_err(|_| status::invalid("view", format!("{view} is not known")))
}
