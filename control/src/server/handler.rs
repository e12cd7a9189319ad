//! From a request on `/` to its answer.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use axum::extract::Extension;
use axum::extract::State;
use axum::response::Response;
use futures_util::FutureExt;
use http::HeaderMap;
use http::Method;
use http::Request;
use http::StatusCode;
use http::header;
use http::request::Parts;
use http_body_util::BodyExt;
use http_body_util::LengthLimitError;
use http_body_util::Limited;
use jiff::Timestamp;

use super::App;
use super::access;
use super::access::Record;
use super::peer::Peer;
use super::respond;
use crate::api::ApiError;
use crate::api::ListContainerImages;
use crate::api::RpcRequest;
use crate::auth::SignedRequest;
use crate::fleet::CallContext;
use crate::telemetry::Metrics;

/// Answers the API.
pub(super) async fn api(
    State(app): State<Arc<App>>,
    Extension(peer): Extension<Peer>,
    request: Request<Body>,
) -> Response {
    let started = Instant::now();
    let request_id = respond::new_request_id();
    let (parts, body) = request.into_parts();
    let client = peer.client(&parts.headers, &app.settings.server.trusted_proxies);
    let mut record = Record::default();

    let _in_flight = InFlight::new(&app.metrics);
    let work = list(&app, &parts, body, client, &request_id, &mut record);
    let result = AssertUnwindSafe(work)
        .catch_unwind()
        .await
        .unwrap_or_else(|_| {
            // The panic hook has logged where; this line says for whom.
            tracing::error!(request_id, "a request ended in a panic");
            app.metrics.panics.inc();
            Err(ApiError::UnknownError)
        });

    finish(&app, &parts, client, &request_id, &record, started, result)
}

/// What is answered, written to the access log and counted.
fn finish(
    app: &App,
    parts: &Parts,
    client: Peer,
    request_id: &str,
    record: &Record,
    started: Instant,
    result: Result<Vec<u8>, ApiError>,
) -> Response {
    let (code, response) = match result {
        Ok(json) => (
            "OK",
            respond::answer(StatusCode::OK, respond::JSON, request_id, json),
        ),
        Err(error) => {
            let headers = &parts.headers;
            let public_url = app.public_url();
            let response = respond::failure(&error, request_id, headers, client.tls, public_url);
            (error.code(), response)
        }
    };
    access::log(
        request_id,
        &parts.method,
        client.ip,
        record,
        (code, response.status().as_u16()),
        started.elapsed(),
        &app.metrics,
    );
    response
}

/// Counts a request as worked on, also if its client goes away in the middle.
struct InFlight<'a>(&'a Metrics);

impl<'a> InFlight<'a> {
    fn new(metrics: &'a Metrics) -> Self {
        metrics.in_flight.inc();
        Self(metrics)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.in_flight.dec();
    }
}

/// Answers any other path.
pub(super) async fn no_such_path(
    State(app): State<Arc<App>>,
    Extension(peer): Extension<Peer>,
    request: Request<Body>,
) -> Response {
    refuse(&app, peer, request, ApiError::InvalidActionNotFound)
}

/// Answers any other method on a path that there is: all but the API's are pages.
pub(super) async fn no_such_method(
    State(app): State<Arc<App>>,
    Extension(peer): Extension<Peer>,
    request: Request<Body>,
) -> Response {
    let allowed = "GET, HEAD";
    let error = ApiError::UnsupportedHttpMethod { allowed };
    refuse(&app, peer, request, error)
}

/// Answers whatever names a host that is not ours.
pub(super) fn misdirected(app: &App, peer: Peer, request: Request<Body>) -> Response {
    refuse(app, peer, request, ApiError::MisdirectedRequest)
}

fn refuse(app: &App, peer: Peer, request: Request<Body>, error: ApiError) -> Response {
    let started = Instant::now();
    let request_id = respond::new_request_id();
    let (parts, _) = request.into_parts();
    let client = peer.client(&parts.headers, &app.settings.server.trusted_proxies);
    let record = Record::default();
    finish(
        app,
        &parts,
        client,
        &request_id,
        &record,
        started,
        Err(error),
    )
}

/// The action, from the request to the JSON of the reply.
async fn list(
    app: &App,
    parts: &Parts,
    body: Body,
    client: Peer,
    request_id: &str,
    record: &mut Record,
) -> Result<Vec<u8>, ApiError> {
    if parts.method != Method::GET && parts.method != Method::POST {
        let allowed = "GET, POST";
        return Err(ApiError::UnsupportedHttpMethod { allowed });
    }
    let body = read_body(app, &parts.headers, body).await?;
    // The time to answer begins when the client has said all it has to say.
    let deadline = Instant::now() + app.settings.limits.answer_within;
    // Held by a stranger for no longer than it takes to find that out: nothing is waited for before.
    let _permit = app.gate.enter()?;

    let content_type = parts
        .headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    let request = RpcRequest::decode(parts.uri.query().unwrap_or_default(), content_type, &body)?;
    request.check_action(&parts.headers)?;
    if app.settings.server.require_tls && !client.tls {
        return Err(ApiError::InvalidProtocolNeedSsl);
    }
    record.cluster_id = request.get("ClusterId").map(str::to_owned);

    let (action, cluster) = match &app.authenticator {
        None => {
            app.gate.spend()?;
            let action = ListContainerImages::from_request(&request)?;
            let cluster = app.fleet.registry().cluster(&action.cluster_id);
            (action, cluster)
        }
        Some(authenticator) => {
            let signed = SignedRequest {
                method: &parts.method,
                headers: &parts.headers,
                parameters: &request,
                body: &body,
                source_ip: client.ip,
                secure_transport: client.tls,
                now: Timestamp::now(),
            };
            let principal = authenticator.authenticate(&signed, |key| {
                record.access_key_id = Some(key.to_owned());
                // The key's own share first: who has used that up takes nothing of the others'.
                app.gate.charge(key)?;
                app.gate.spend()
            })?;
            // A cluster of another account is no cluster, and looks like none.
            let registry = app.fleet.registry();
            let cluster = request
                .get("ClusterId")
                .and_then(|id| registry.cluster(id))
                .filter(|cluster| cluster.account == principal.account_id());
            let regions = match cluster {
                Some(_) => Default::default(),
                None => registry.regions(principal.account_id()),
            };
            authenticator.authorize_listing(
                &principal,
                cluster.as_ref().map(|cluster| cluster.region.as_str()),
                regions.iter().map(String::as_str),
                &signed.context(),
            )?;
            (ListContainerImages::from_request(&request)?, cluster)
        }
    };
    record.page_number = action.page_number;
    record.page_size = action.page_size;
    let cluster = cluster.ok_or(ApiError::LoginNotFound)?;
    let context = CallContext {
        request_id,
        deadline,
    };
    let _waiting = app.gate.wait_for(&cluster.id)?;
    let listing = app.fleet.list(&cluster, &action, context).await;
    record.asked_as = (&*listing.asked_as != request_id).then_some(listing.asked_as);
    Ok(listing.result?.to_json(request_id))
}

/// Reads the body, no more of it and no longer than allowed.
async fn read_body(
    app: &App,
    headers: &HeaderMap,
    body: Body,
) -> Result<hyper::body::Bytes, ApiError> {
    let limits = &app.settings.limits;
    let announced = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.parse::<u64>().ok());
    if announced.is_some_and(|length| length > limits.max_body_bytes as u64) {
        return Err(ApiError::RequestTooLarge);
    }
    let body = Limited::new(body, limits.max_body_bytes).collect();
    match tokio::time::timeout(limits.body_timeout, body).await {
        Err(_) => Err(ApiError::RequestTimeout),
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(ApiError::RequestTooLarge),
        Ok(Err(_)) => Err(ApiError::BadRequest),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::collections::HashSet;
    use std::path::Path;

    use tower::ServiceExt;

    use super::*;
    use crate::config::ClusterSettings;
    use crate::config::NodeAddress;
    use crate::config::Settings;
    use crate::fleet::Fleet;
    use crate::fleet::Registry;

    /// A registry with a bug.
    struct Broken;

    impl Registry for Broken {
        fn cluster(&self, _: &str) -> Option<Arc<ClusterSettings>> {
            panic!("a bug");
        }

        fn regions(&self, _: &str) -> BTreeSet<String> {
            BTreeSet::new()
        }

        fn addresses(&self) -> HashSet<NodeAddress> {
            HashSet::new()
        }
    }

    #[tokio::test]
    async fn a_panic_is_an_unknown_error() {
        let settings = Settings::parse("auth = \"none\"", Path::new("x")).unwrap();
        let metrics = Arc::new(Metrics::new());
        let fleet = Fleet::new(
            Arc::new(Broken),
            settings.agents.clone(),
            Arc::clone(&metrics),
        );
        let app = App::new(settings, fleet, None, Arc::clone(&metrics));
        let target = "/?Action=ListContainerImages&Version=2018-04-12&ClusterId=c";
        let request = Request::get(target)
            .extension(Peer {
                ip: [127, 0, 0, 1].into(),
                tls: false,
            })
            .body(Body::empty())
            .unwrap();
        let response = app.routes().oneshot(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let json: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(json["Code"], "UnknownError");
        assert_eq!(json["Message"], "An unknown error occurred.");
        assert_eq!(metrics.panics.get(), 1);
        assert_eq!(metrics.in_flight.get(), 0);
    }
}
