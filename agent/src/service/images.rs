//! `sifter.v1.ImageService`: every RPC reads one snapshot.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

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

use crate::catalog::{Catalog, FileTime, PageToken, Selection};

use super::aside;
use super::convert;
use super::owners::Owners;
use super::reading::Reading;
use super::source::ImageSource;
use super::status;
use super::visibility::{Sight, Visibility};
use super::watch::Watcher;

/// Images on a page unless another number is asked for.
const PAGE_SIZE: u32 = 50;

/// Most images on a page: some 260 KB, far below the 4 MiB that clients accept.
const PAGE_SIZE_MAX: u32 = 1000;

/// Images in the first batch of a stream, small so that it is there at once, and in later ones.
const FIRST_BATCH: usize = 100;
const BATCH: usize = 1000;

/// Batches that are ready before the client takes them.
const BATCHES_AHEAD: usize = 2;

/// The image service.
pub struct Images<A> {
    agent: Arc<A>,
    owners: Arc<Owners>,
    visibility: Arc<Visibility>,
}

impl<A: ImageSource> Images<A> {
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

/// A stream of messages.
type Messages<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl<A: ImageSource> Reading<A> {
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
                self.visibility
                    .view(caller, subject, &snapshot, |of| self.agent.holds(of))
                    .await
            } else {
                self.visibility
                    .held(caller, token.generation, token.now)
                    .ok_or_else(|| status::generation_expired(token.generation))?
            };
            token.now = view.stamp;
            snapshot = view.of(&snapshot);
            seen = Some(view);
        }
        let query = Self::query(&request.filter, &request.order_by, FileTime(token.now)).await?;
        let selection = aside::select(&self.catalog, snapshot, query, number, token.now).await?;
        let total = selection.rows.len();
        let start = usize::try_from(token.offset.saturating_add(request.skip))
            .unwrap_or(usize::MAX)
            .min(total);
        let end = start.saturating_add(page_size as usize).min(total);
        let (images, end) = self.encoded(&selection, start..end, view).await?;
        let next = (end < total).then(|| {
            PageToken {
                offset: end as u64,
                ..token
            }
            .encode()
        });
        Ok(ListImagesResponse {
            images,
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
                restricted: *sight != Sight::All,
                unavailable_roots: self.agent.unavailable_roots(&selection.snapshot),
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
        let refused = |why, what| {
            let message = format!("{why}: {what}, or leave page_token out to begin anew");
            status::invalid_page_token(&message)
        };
        let token = PageToken::decode(&request.page_token).ok_or_else(|| {
            refused(
                "not a token of this agent",
                "send next_page_token as it was answered",
            )
        })?;
        if token.query != query {
            return Err(refused(
                "belongs to another filter or order",
                "send those of the first page with it",
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
        let mut start = 0;
        loop {
            let size = if start == 0 { FIRST_BATCH } else { BATCH };
            let range = start..(start + size).min(total);
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
            let (response, end) = match self.encoded(selection, range, view).await {
                Ok((images, end)) => (Ok(StreamImagesResponse { images, rest }), end),
                Err(status) => (Err(status), total),
            };
            if sender.send(response).await.is_err() || end == total {
                return;
            }
            start = end;
        }
    }
}

#[tonic::async_trait]
impl<A: ImageSource> ImageService for Images<A> {
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
        let query = Reading::<A>::query(&request.filter, &request.order_by, now).await?;
        let selection = aside::select_once(&this.catalog, snapshot, query).await?;
        let selection = Arc::new(selection);
        let unlisted = this.unlisted(seen.as_deref());
        let (sender, receiver) = mpsc::channel(BATCHES_AHEAD);
        tokio::spawn(
            async move { this.send_all(&selection, view, unlisted, &sender).await }
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
        if request.path.is_empty() && request.raw_path.is_empty() {
            return Err(status::invalid("path", "is empty"));
        }
        let (snapshot, _) = this.present(&sight).await;
        let (row, snapshot) = aside::run(move || {
            let row = Reading::<A>::find(&snapshot, &request)?;
            Ok((row, snapshot))
        })
        .await?;
        this.learn_owners([&row]).await;
        let image = aside::run(move || this.message(&snapshot, &row, view)).await;
        image.map(Response::new)
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
        let query = Reading::<A>::query(&request.filter, "", FileTime::now()).await?;
        let resume = request.resume_generation;
        // The history is of all images: whose changes a user may know is not known any more.
        let is_held = || sight == Sight::All && this.catalog.changes_after(resume).is_some();
        if resume != 0 && !is_held() {
            return Err(status::generation_expired(resume));
        }
        let (sender, receiver) = mpsc::channel(BATCHES_AHEAD);
        let watcher = Watcher {
            reading: this,
            query,
            view,
            sender,
        };
        tokio::spawn(watcher.run(sight, resume).in_current_span());
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

fn view_of(view: i32) -> Result<ImageView, Status> {
    ImageView::try_from(view).map_err(|_| status::invalid("view", format!("{view} is not known")))
}
