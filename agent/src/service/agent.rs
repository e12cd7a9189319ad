//! `sifter.v1.AgentService`: the agent's own state, and asking it for a scan.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use sifter_proto::v1::agent_service_server::AgentService;
use sifter_proto::v1::{
    CatalogState, GetStatusRequest, GetStatusResponse, Root, ScanProgress, ScanRequest,
    ScanResponse, ScanResult,
};
use tokio::sync::{mpsc, watch};
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use crate::catalog::{Condition, Snapshot, status_name};

use super::aside;
use super::convert;
use super::source::{ImageSource, Ticket};
use super::status;
use super::turns::{Turn, Turns};
use super::visibility::{Sight, Visibility};

/// Time between two messages of progress.
const PROGRESS_EVERY: Duration = Duration::from_millis(250);

/// The agent service.
pub struct AgentState<A> {
    agent: Arc<A>,
    visibility: Arc<Visibility>,
    turns: Turns,
}

impl<A: ImageSource> AgentState<A> {
    /// The service over an agent.
    pub fn new(agent: Arc<A>, visibility: Arc<Visibility>) -> Self {
        Self {
            agent,
            visibility,
            turns: Turns::default(),
        }
    }
}

/// Takes out what speaks of images that the caller may not see: problems name paths, and counts
/// are of all files.
fn without_counts(mut result: ScanResult) -> ScanResult {
    result.counts = None;
    result.problem_count_by_kind.clear();
    result.problem_count = 0;
    result
}

/// The same for a running scan.
fn without_progress_counts(progress: ScanProgress) -> ScanProgress {
    ScanProgress {
        counts: None,
        directories_pending: 0,
        ..progress
    }
}

/// The same for a root.
fn without_private(mut root: Root) -> Root {
    root.last_scan = root.last_scan.map(without_counts);
    root.progress = root.progress.map(without_progress_counts);
    root.problems.clear();
    root.hint_message.clear();
    root
}

#[tonic::async_trait]
impl<A: ImageSource> AgentService for AgentState<A> {
    type ScanStream = Pin<Box<dyn Stream<Item = Result<ScanResponse, Status>> + Send>>;

    async fn get_status(
        &self,
        request: Request<GetStatusRequest>,
    ) -> Result<Response<GetStatusResponse>, Status> {
        let sight = self.visibility.sights.of(request.extensions()).await?;
        let catalog = self.agent.catalog();
        let mut snapshot = catalog.snapshot();
        if let Sight::Own(subject) = &sight {
            let view = self
                .visibility
                .view(sight.number(), subject, &snapshot, |generation| {
                    self.agent.holds(generation)
                })
                .await;
            snapshot = view.of(&snapshot);
        }
        let (by_status, by_root) = aside::run({
            let snapshot = Arc::clone(&snapshot);
            move || Ok(counts(&snapshot))
        })
        .await?;
        let (catalog_state, catalog_message) = match catalog.condition() {
            Condition::Ok => (CatalogState::Ok, String::new()),
            Condition::Memory => (CatalogState::Memory, String::new()),
            Condition::Failed(message) => (CatalogState::Failed, message),
        };
        let mut roots = self.agent.roots(&by_root);
        if sight != Sight::All {
            roots = roots.into_iter().map(without_private).collect();
        }
        let (confinement, confinement_message) = self.agent.confinement();
        Ok(Response::new(GetStatusResponse {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            system: self.agent.system().to_owned(),
            catalog_uri: catalog.uri(),
            host: self.agent.host().to_owned(),
            start_time: Some(convert::timestamp(self.agent.started())),
            generation: snapshot.generation,
            as_of: snapshot.as_of.map(convert::timestamp),
            ready: self.agent.is_ready(),
            image_count: snapshot.rows.len() as u64,
            image_count_by_status: by_status,
            catalog_state: catalog_state.into(),
            catalog_message,
            roots,
            confinement: confinement.into(),
            confinement_message,
        }))
    }

    async fn scan(
        &self,
        request: Request<ScanRequest>,
    ) -> Result<Response<Self::ScanStream>, Status> {
        let sight = self.visibility.sights.of(request.extensions()).await?;
        let mut request = request.into_inner();
        if request.full && sight != Sight::All {
            return Err(status::permission_denied(
                "reading everything again is for administrators: leave out `full`",
            ));
        }
        let known = self.agent.root_paths();
        let roots = if request.roots.is_empty() {
            known
        } else {
            if let Some(unknown) = request.roots.iter().find(|root| !known.contains(root)) {
                return Err(status::root_not_found(unknown));
            }
            // One may be named as often as a message has room.
            request.roots.sort_unstable();
            request.roots.dedup();
            request.roots
        };
        let mut turns = Vec::new();
        for root in roots {
            let turn = if sight == Sight::All {
                let ticket = self.agent.scan(&root, request.full);
                let ticket = ticket.ok_or_else(|| status::root_not_found(&root))?;
                watch::channel(Some(ticket)).1
            } else {
                self.turns.take(&self.agent, root.clone())
            };
            turns.push((root, turn));
        }
        let (sender, receiver) = mpsc::channel(16);
        if request.wait {
            for (root, turn) in turns {
                let follower = Follower {
                    agent: Arc::clone(&self.agent),
                    root,
                    full: request.full,
                    counts: sight == Sight::All,
                    sender: sender.clone(),
                };
                tokio::spawn(follower.run(turn));
            }
        }
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

/// Tells a client of the progress of one root's scan.
struct Follower<A> {
    agent: Arc<A>,
    root: String,
    full: bool,
    /// Whether the client may know the counts.
    counts: bool,
    sender: mpsc::Sender<Result<ScanResponse, Status>>,
}

/// Waits until a scan has ended; false if it will not.
async fn ended(ticket: &mut Ticket) -> bool {
    let number = ticket.number;
    ticket
        .finished
        .wait_for(|last| *last >= number)
        .await
        .is_ok()
}

impl<A: ImageSource> Follower<A> {
    async fn run(self, mut turn: Turn) {
        let begun = tokio::select! {
            begun = turn.wait_for(Option::is_some) => begun.ok().and_then(|ticket| ticket.clone()),
            () = self.sender.closed() => None,
        };
        // Nobody waits any more, or the root is not configured any more.
        let Some(mut ticket) = begun else { return };
        let mut tick = tokio::time::interval(PROGRESS_EVERY);
        loop {
            let message = tokio::select! {
                is_done = ended(&mut ticket) => {
                    // The roots were changed meanwhile, and the scan may not have been done.
                    if !is_done || self.agent.roots_number() != ticket.roots_number {
                        let Some(again) = self.agent.scan(&self.root, self.full) else {
                            return;
                        };
                        ticket = again;
                        continue;
                    }
                    ScanResponse {
                        root: self.root.clone(),
                        progress: None,
                        result: self.agent.result(&self.root).map(|result| {
                            if self.counts { result } else { without_counts(result) }
                        }),
                        generation: self.agent.catalog().snapshot().generation,
                    }
                }
                _ = tick.tick() => match self.agent.progress(&self.root) {
                    Some(progress) => ScanResponse {
                        root: self.root.clone(),
                        progress: Some(if self.counts {
                            progress
                        } else {
                            without_progress_counts(progress)
                        }),
                        result: None,
                        generation: 0,
                    },
                    None => continue,
                },
                () = self.sender.closed() => return,
            };
            let last = message.progress.is_none();
            if self.sender.send(Ok(message)).await.is_err() || last {
                return;
            }
        }
    }
}

/// How many images have each status, and how many each root has.
fn counts(snapshot: &Snapshot) -> (BTreeMap<String, u64>, BTreeMap<String, u64>) {
    let mut by_status: BTreeMap<String, u64> = BTreeMap::new();
    let mut by_root: BTreeMap<String, u64> = BTreeMap::new();
    let count = |counts: &mut BTreeMap<String, u64>, name: &str| match counts.get_mut(name) {
        Some(count) => *count += 1,
        None => drop(counts.insert(name.to_owned(), 1)),
    };
    for row in snapshot.rows.iter() {
        count(&mut by_status, status_name(snapshot.status_of(row)));
        count(&mut by_root, row.root());
    }
    (by_status, by_root)
}

#[cfg(test)]
mod tests {
    use sifter_proto::v1::{Problem, Root, ScanCounts, ScanProgress, ScanResult};

    use super::without_private;

    #[test]
    fn who_does_not_see_all_is_told_nothing_that_speaks_of_the_rest() {
        let of_all = Some(ScanCounts {
            files: 7,
            ..ScanCounts::default()
        });
        let told = Root {
            path: "/r".to_owned(),
            message: "cannot be read".to_owned(),
            image_count: 3,
            last_scan: Some(ScanResult {
                error: "scan /r: gone".to_owned(),
                ..ScanResult::default()
            }),
            progress: Some(ScanProgress {
                width: 4,
                ..ScanProgress::default()
            }),
            ..Root::default()
        };
        let root = Root {
            hint_message: "watch /r/private: too many".to_owned(),
            last_scan: Some(ScanResult {
                counts: of_all,
                problem_count_by_kind: [("PERMISSION_DENIED".to_owned(), 1)].into(),
                problem_count: 1,
                ..told.last_scan.clone().unwrap()
            }),
            progress: Some(ScanProgress {
                counts: of_all,
                directories_pending: 5,
                ..told.progress.unwrap()
            }),
            problems: vec![Problem {
                path: "/r/private".to_owned(),
                ..Problem::default()
            }],
            ..told.clone()
        };
        assert_eq!(without_private(root), told);
    }
}
