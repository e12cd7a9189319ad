//! What machines around the API ask: is it alive, is it ready, what does it count.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use http::StatusCode;

use super::App;
use super::respond;

/// Whether the process answers at all.
pub(super) async fn healthz() -> Response {
    status(StatusCode::OK, "{\"status\":\"ok\"}")
}

/// Whether requests should be sent here. Says nothing of the agents: one cluster's trouble must
/// not take the others' control plane away.
pub(super) async fn readyz(State(app): State<Arc<App>>) -> Response {
    if app.is_draining() {
        status(StatusCode::SERVICE_UNAVAILABLE, "{\"status\":\"draining\"}")
    } else {
        status(StatusCode::OK, "{\"status\":\"ready\"}")
    }
}

/// Everything that is counted.
pub(super) async fn metrics(State(app): State<Arc<App>>) -> Response {
    let breakers = app.fleet.breaker_states().into_iter();
    let breakers = breakers.map(|(node, state)| (node, state as i64));
    let text = app.metrics.render(breakers.collect());
    respond::answer(
        StatusCode::OK,
        "application/openmetrics-text; version=1.0.0; charset=utf-8",
        &respond::new_request_id(),
        text,
    )
}

fn status(status: StatusCode, body: &'static str) -> Response {
    respond::answer(status, respond::JSON, &respond::new_request_id(), body)
}
