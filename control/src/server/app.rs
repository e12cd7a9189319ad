//! What all requests share.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

use axum::Router;
use axum::middleware::map_response;
use axum::routing::any;
use axum::routing::get;

use super::gate::Gate;
use super::handler;
use super::hosts::Hosts;
use super::pages;
use super::respond;
use crate::auth::Authenticator;
use crate::config::Settings;
use crate::explorer;
use crate::fleet::Fleet;
use crate::telemetry::Metrics;

/// What all requests share.
#[derive(Debug)]
pub struct App {
    pub(super) settings: Settings,
    pub(super) fleet: Arc<Fleet>,
    /// Who may ask; `None` with `auth = "none"`.
    pub(super) authenticator: Option<Authenticator>,
    pub(super) gate: Gate,
    /// Under which names it answers.
    pub(super) hosts: Hosts,
    pub(super) metrics: Arc<Metrics>,
    draining: AtomicBool,
}

impl App {
    /// An application over these parts.
    pub fn new(
        settings: Settings,
        fleet: Arc<Fleet>,
        authenticator: Option<Authenticator>,
        metrics: Arc<Metrics>,
    ) -> Arc<Self> {
        Arc::new(Self {
            gate: Gate::new(&settings.limits),
            hosts: Hosts::new(&settings),
            settings,
            fleet,
            authenticator,
            metrics,
            draining: AtomicBool::new(false),
        })
    }

    /// From now on `/readyz` says no; requests are still answered.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Whether the server is about to stop.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// The address under which clients reach this server, if it is known.
    pub(super) fn public_url(&self) -> Option<&str> {
        self.settings.server.public_url.as_deref()
    }

    /// The paths of the API's listeners.
    pub(super) fn routes(self: &Arc<Self>) -> Router {
        let router = Router::new()
            .route("/", any(handler::api))
            .route("/healthz", get(pages::healthz))
            .route("/readyz", get(pages::readyz))
            .merge(
                explorer::routes(self.authenticator.is_some())
                    .layer(map_response(respond::with_request_id)),
            );
        // With open access the listeners are on loopback, where metrics tell nobody anything new.
        let router = if self.authenticator.is_none() {
            router.route("/metrics", get(pages::metrics))
        } else {
            router
        };
        router
            .fallback(handler::no_such_path)
            .method_not_allowed_fallback(handler::no_such_method)
            .with_state(Arc::clone(self))
    }

    /// The paths of the listener for administrators.
    pub(super) fn admin_routes(self: &Arc<Self>) -> Router {
        Router::new()
            .route("/healthz", get(pages::healthz))
            .route("/readyz", get(pages::readyz))
            .route("/metrics", get(pages::metrics))
            .fallback(handler::no_such_path)
            .method_not_allowed_fallback(handler::no_such_method)
            .with_state(Arc::clone(self))
    }
}
