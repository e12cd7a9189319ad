//! Which agent answers for a cluster: registry, channels, failover.
//!
//! A cluster's login nodes are asked in the configured order. The next one is asked as soon as one
//! has failed, and also when one is silent for a while, without giving the silent one up: the first
//! whole answer wins, and the budget of the request bounds it all. Where one cannot read a root, and
//! so lists what it knew of it, the others are asked at once and may do better for as long as a silent
//! one is waited for.
//!
//! Nodes whose circuit breaker is open are asked last, if nobody else answers or another is silent. Meanwhile
//! probes in the background find out whether they are back, at nobody's expense, and if nobody asks for anything.
//!
//! Requests for one page that come while a call for it is under way share the next call (see
//! [`together`]). Where there is a crowd, an answer is kept for as long as its agent has promised that
//! nothing of it changes (a lease of some milliseconds), and no longer: a listing that was read before a
//! request came may otherwise be untrue when it is answered.

mod breaker;
mod channel;
mod failure;
mod key;
mod lease;
mod node;
mod registry;
mod tls;
mod together;
mod verdict;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::Weak;
use std::time::Duration;
use std::time::Instant;

use arc_swap::ArcSwapOption;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use sifter_proto::v1;
use tonic::transport::ClientTlsConfig;

pub use breaker::Breaker;
pub use breaker::BreakerSettings;
pub use breaker::BreakerState;
pub use breaker::Permit;
pub use failure::Failure;
pub use node::Node;
pub use node::REQUEST_ID_METADATA;
pub use registry::FileRegistry;
pub use registry::Registry;
pub use tls::AgentTlsError;
pub use tls::load as load_agent_tls;

use key::PageKey;
use lease::LEASE;
use lease::Lease;
use together::Outcome;
use together::Together;
use verdict::Answer;
use verdict::Leased;
use verdict::Verdict;

use crate::api::ApiError;
use crate::api::ListContainerImages;
use crate::api::Page;
use crate::config::AgentSettings;
use crate::config::ClusterSettings;
use crate::config::NodeAddress;
use crate::lock::lock;
use crate::telemetry::Metrics;

/// How often login nodes that are left alone are thought of.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// How long a request that finds all login nodes left alone waits for another one that asks them. One that was
/// restarted answers sooner; one that does not is not worth waiting for.
const MOMENT: Duration = Duration::from_millis(200);

/// The agents of all clusters.
pub struct Fleet {
    registry: Arc<dyn Registry>,
    settings: AgentSettings,
    tls: ArcSwapOption<ClientTlsConfig>,
    nodes: Mutex<HashMap<NodeAddress, Arc<Node>>>,
    together: Arc<Together<PageKey, Listing>>,
    metrics: Arc<Metrics>,
}

/// What came of a request.
#[derive(Debug, Clone)]
pub struct Listing {
    /// The page, or the error to answer.
    pub result: Result<Arc<Page>, ApiError>,
    /// The ID of the request that the login nodes were asked with, which others may share.
    pub asked_as: Arc<str>,
}

impl fmt::Debug for Fleet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fleet").finish_non_exhaustive()
    }
}

/// What goes along with a request.
#[derive(Debug, Clone, Copy)]
pub struct CallContext<'a> {
    /// The request's ID, for the logs of both sides.
    pub request_id: &'a str,
    /// When the answer must be there.
    pub deadline: Instant,
}

impl Fleet {
    /// A fleet over a registry.
    pub fn new(
        registry: Arc<dyn Registry>,
        settings: AgentSettings,
        metrics: Arc<Metrics>,
    ) -> Arc<Self> {
        Arc::new(Self {
            registry,
            settings,
            tls: ArcSwapOption::empty(),
            nodes: Mutex::default(),
            together: Arc::new(Together::new(together::PATIENCE)),
            metrics,
        })
    }

    /// The registry.
    pub fn registry(&self) -> &dyn Registry {
        &*self.registry
    }

    /// Takes other certificates to the agents. Calls under way finish on the old connections.
    pub fn set_tls(&self, tls: Option<ClientTlsConfig>) {
        self.tls.store(tls.map(Arc::new));
        self.lock_nodes()
            .retain(|address, _| !matches!(address, NodeAddress::Tls(_)));
    }

    /// Forgets login nodes that are no longer registered. Calls under way finish.
    pub fn registry_changed(&self) {
        let registered = self.registry.addresses();
        self.lock_nodes()
            .retain(|address, _| registered.contains(address));
        self.metrics
            .retain_nodes(&registered.iter().map(ToString::to_string).collect());
    }

    /// The breakers of the login nodes that were asked so far.
    pub fn breaker_states(&self) -> Vec<(Arc<str>, BreakerState)> {
        // A request that was under way at a change goes on asking those of before.
        self.registry_changed();
        self.lock_nodes()
            .values()
            .map(|node| (Arc::clone(node.name()), node.breaker().state()))
            .collect()
    }

    /// A page of a cluster's listing, read after this moment.
    pub async fn list(
        self: &Arc<Self>,
        cluster: &Arc<ClusterSettings>,
        request: &ListContainerImages,
        context: CallContext<'_>,
    ) -> Listing {
        let key = PageKey::new(cluster, request);
        let make = |crowd: bool| {
            let asked_as: Arc<str> = context.request_id.into();
            let (fleet, cluster) = (Arc::clone(self), Arc::clone(cluster));
            let (request, deadline) = (request.clone(), context.deadline);
            let metrics = Arc::clone(&self.metrics);
            let request_id = Arc::clone(&asked_as);
            let call = async move {
                let context = CallContext {
                    request_id: &asked_as,
                    deadline,
                };
                let max_lease = crowd.then_some(LEASE);
                let result = fleet.list_now(&cluster, &request, max_lease, context).await;
                let (result, lease) = match result {
                    Ok(leased) => (Ok(Arc::new(leased.page)), leased.lease),
                    Err(error) => (Err(error), None),
                };
                Outcome {
                    value: Listing { result, asked_as },
                    lease,
                }
            };
            let lost = move || {
                // The panic hook has logged where; this line says for whom.
                tracing::error!(request_id = &*request_id, "a call ended in a panic");
                metrics.panics.inc();
                Listing {
                    result: Err(ApiError::UnknownError),
                    asked_as: request_id,
                }
            };
            (call, lost)
        };
        self.together.ask(key, make).await
    }

    /// The same, asking at once: from whichever login node has it first.
    async fn list_now(
        self: &Arc<Self>,
        cluster: &ClusterSettings,
        request: &ListContainerImages,
        max_lease: Option<Duration>,
        context: CallContext<'_>,
    ) -> Result<Leased, ApiError> {
        if cluster.login_nodes.is_empty() {
            return Err(ApiError::LoginNotFound);
        }
        let mut waiting = self.candidates(cluster);
        let mut attempts: Vec<Attempt> = Vec::new();
        let mut running = FuturesUnordered::new();
        let mut verdict = Verdict::default();
        let hedge_after = self.hedge_after(waiting.len());
        let mut next_at = None;
        // Until when the others may do better than what there is to answer.
        let mut patience = None;
        let mut has_lingered = false;
        loop {
            tokio::select! {
                biased;
                Some((index, result)) = running.next() => {
                    let attempt: &mut Attempt = &mut attempts[index];
                    match self.settle(attempt, result, cluster, context) {
                        Ok(Answer::Whole(page)) => {
                            self.give_up_slow(attempts, hedge_after);
                            return Ok(page);
                        }
                        Ok(Answer::Stale(page, roots)) => {
                            verdict.stale(page, roots);
                            self.look_for_lost(&mut waiting);
                            patience.get_or_insert(tokio::time::Instant::now() + hedge_after);
                        }
                        Ok(Answer::Partial(page, failure)) => verdict.partial(page, failure),
                        Err(failure) => verdict.failed(failure),
                    }
                    // No need to wait for the others.
                    next_at = None;
                }
                () = pause(next_at), if !waiting.is_empty() => {
                    let Some((node, permit)) = take(&mut waiting) else {
                        // Others find out whether these are back, and may know in a moment.
                        let wait = if running.is_empty() { MOMENT } else { hedge_after };
                        let is_late = Instant::now() + wait > context.deadline;
                        if running.is_empty() && (is_late || has_lingered) {
                            break;
                        }
                        has_lingered |= running.is_empty();
                        next_at = Some(tokio::time::Instant::now() + wait);
                        continue;
                    };
                    let index = attempts.len();
                    attempts.push(Attempt::new(Arc::clone(&node), permit));
                    // Counted from then, as its silence is.
                    let later = Some(tokio::time::Instant::now() + hedge_after);
                    (next_at, patience) = match patience {
                        None => (later, None),
                        Some(_) => (None, later),
                    };
                    let fleet = Arc::clone(self);
                    running.push(async move {
                        (index, fleet.ask(&node, request, max_lease, context).await)
                    });
                }
                () = pause(patience), if patience.is_some() && !running.is_empty() => break,
                // Nothing left to wait for: no login node may be asked now.
                else => break,
            }
        }
        self.give_up_slow(attempts, hedge_after);
        verdict.conclude(self.settings.partial_listings, &cluster.id, context)
    }

    /// The login nodes to ask, in order; those whose breakers are not closed come last.
    fn candidates(self: &Arc<Self>, cluster: &ClusterSettings) -> Vec<Arc<Node>> {
        let mut nodes: Vec<_> = cluster
            .login_nodes
            .iter()
            .filter_map(|address| self.node(address))
            .collect();
        // Each is looked at once, since that may change at any time.
        nodes.sort_by_cached_key(|node| !node.answers());
        nodes
    }

    /// Has those of the nodes looked for in the background that may well be gone: who has an answer does not wait
    /// for them.
    fn look_for_lost(self: &Arc<Self>, nodes: &mut Vec<Arc<Node>>) {
        for node in nodes.extract_if(.., |node| !node.answers()) {
            if let Some(permit) = node.breaker().acquire_early() {
                tokio::spawn(Arc::clone(self).probe(node, permit));
            }
        }
    }

    /// Finds out whether a login node is back.
    async fn probe(self: Arc<Self>, node: Arc<Node>, permit: Permit) {
        let request = ListContainerImages {
            cluster_id: String::new(),
            page_number: 1,
            page_size: 1,
        };
        let context = CallContext {
            request_id: "",
            deadline: Instant::now() + self.settings.answer_within,
        };
        match self.ask(&node, &request, None, context).await {
            Err(failure) if failure.trips_breaker() => permit.failed(Instant::now()),
            _ => {
                tracing::info!(node = %node.name(), "login node answers again");
                permit.succeeded();
            }
        }
    }

    /// One call to one login node, measured and checked.
    async fn ask(
        &self,
        node: &Node,
        request: &ListContainerImages,
        max_lease: Option<Duration>,
        context: CallContext<'_>,
    ) -> Result<Answer, Failure> {
        let started = Instant::now();
        let budget = context.deadline.saturating_duration_since(started);
        let message = v1::ListImagesRequest {
            page_size: request.page_size,
            skip: request.skip(),
            max_lease: max_lease.map(Into::into),
            ..Default::default()
        };
        let result = node
            .list_images(&message, context.request_id, budget)
            .await
            .and_then(|mut response| {
                let unlisted = std::mem::take(&mut response.unlisted_roots)
                    .into_iter()
                    .next();
                let unlisted = unlisted
                    .map(|root| Failure::ScanFailed(format!("{}: {}", root.command, root.error)));
                let lacks = unlisted.or(response.restricted.then_some(Failure::Restricted));
                let lease = response.lease.take();
                let lease = lease.map(|lease| Lease::granted(lease, started));
                let unavailable = response.unavailable_roots.len();
                let page = Page::from_response(request, response)?;
                Ok(match lacks {
                    None if unavailable > 0 => Answer::Stale(page, unavailable),
                    None => Answer::Whole(Leased { page, lease }),
                    Some(failure) => Answer::Partial(page, failure),
                })
            });
        let outcome = match &result {
            Ok(Answer::Whole(_)) => "ok",
            Ok(Answer::Stale(..)) => "stale",
            Ok(Answer::Partial(..)) => "partial",
            Err(failure) => failure.label(),
        };
        self.metrics
            .agent_rpc(node.name(), outcome, started.elapsed());
        result
    }

    /// Tells the breaker how an attempt went.
    fn settle(
        &self,
        attempt: &mut Attempt,
        result: Result<Answer, Failure>,
        cluster: &ClusterSettings,
        context: CallContext<'_>,
    ) -> Result<Answer, Failure> {
        if let Err(failure) = &result {
            tracing::warn!(
                request_id = context.request_id,
                cluster = cluster.id,
                node = %attempt.node.name(),
                error = %failure.line(),
                "login node gave no listing"
            );
        }
        if let Some(permit) = attempt.permit.take() {
            match &result {
                Err(failure) if failure.trips_breaker() => permit.failed(Instant::now()),
                _ => permit.succeeded(),
            }
        }
        result
    }

    /// Counts silence against login nodes that another one has overtaken, so that a hanging node
    /// costs a few requests some time and not every request.
    fn give_up_slow(&self, attempts: Vec<Attempt>, hedge_after: Duration) {
        for attempt in attempts {
            if let Some(permit) = attempt.permit
                && attempt.started.elapsed() >= hedge_after
            {
                self.metrics
                    .agent_rpc(attempt.node.name(), "overtaken", attempt.started.elapsed());
                permit.failed(Instant::now());
            }
        }
    }

    /// How long to wait for one login node before asking the next: never so long that the last one
    /// has less time than the others.
    fn hedge_after(&self, nodes: usize) -> Duration {
        let steps = u32::try_from(nodes).unwrap_or(u32::MAX).saturating_add(1);
        self.settings
            .hedge_after
            .min(self.settings.answer_within / steps)
    }

    fn node(self: &Arc<Self>, address: &NodeAddress) -> Option<Arc<Node>> {
        let mut nodes = self.lock_nodes();
        if let Some(node) = nodes.get(address) {
            return Some(Arc::clone(node));
        }
        let tls = self.tls.load();
        match Node::new(address, &self.settings, tls.as_deref()) {
            Ok(node) => {
                let node = Arc::new(node);
                nodes.insert(address.clone(), Arc::clone(&node));
                tokio::spawn(look_after(Arc::downgrade(self), Arc::downgrade(&node)));
                Some(node)
            }
            Err(error) => {
                tracing::error!(node = %address, %error, "login node cannot be used");
                None
            }
        }
    }

    fn lock_nodes(&self) -> std::sync::MutexGuard<'_, HashMap<NodeAddress, Arc<Node>>> {
        lock(&self.nodes)
    }
}

/// Takes the first node whose breaker gives leave, if only for finding out whether it is back.
fn take(nodes: &mut Vec<Arc<Node>>) -> Option<(Arc<Node>, Permit)> {
    let leave = |(index, node): (usize, &Arc<Node>)| Some((index, node.breaker().acquire_early()?));
    let (index, permit) = nodes.iter().enumerate().find_map(leave)?;
    Some((nodes.remove(index), permit))
}

/// Has a login node probed whenever its breaker gives leave, for as long as it is registered.
async fn look_after(fleet: Weak<Fleet>, node: Weak<Node>) {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let (Some(fleet), Some(node)) = (fleet.upgrade(), node.upgrade()) else {
            return;
        };
        if !node.answers()
            && let Some(permit) = node.breaker().acquire(Instant::now())
        {
            fleet.probe(node, permit).await;
        }
    }
}

/// Waits until then, or not at all: even a sleep that is over by now would last until the timer's
/// next tick, a millisecond for every request.
async fn pause(until: Option<tokio::time::Instant>) {
    if let Some(until) = until {
        tokio::time::sleep_until(until).await;
    }
}

/// A login node that was asked.
struct Attempt {
    node: Arc<Node>,
    permit: Option<Permit>,
    started: Instant,
}

impl Attempt {
    fn new(node: Arc<Node>, permit: Permit) -> Self {
        Self {
            node,
            permit: Some(permit),
            started: Instant::now(),
        }
    }
}

#[cfg(test)]
mod tests;
