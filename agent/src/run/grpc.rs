//! The gRPC server: the agent's two services, and health and reflection beside them.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use sifter_proto::encoded::image_service_server::ImageServiceServer;
use sifter_proto::v1::agent_service_server::AgentServiceServer;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{self, Server};
use tower::layer::layer_fn;

use super::ending::Ending;
use super::wired::Wired;
use crate::net::Connection;
use crate::service::{AgentState, ImageSource, Images, Owners, Sights, Visibility};
use crate::telemetry::{Metrics, Rpc};

/// How long running RPCs may take to finish at the end.
const DRAIN: Duration = Duration::from_secs(5);

/// How often it is asked whether listings are answered, until they are: somebody may wait for it.
const READY_EVERY: Duration = Duration::from_millis(100);

/// Streams of one connection at a time.
const STREAMS: u32 = 256;

/// The server while it runs.
pub(super) struct Serving {
    calls: JoinHandle<Result<(), transport::Error>>,
    health: JoinHandle<()>,
    stop: watch::Sender<bool>,
}

/// Answers through these connections from now on.
pub(super) async fn serve(
    wired: Arc<Wired>,
    sights: Arc<Sights>,
    metrics: Arc<Metrics>,
    connections: ReceiverStream<io::Result<Connection>>,
) -> anyhow::Result<Serving> {
    let listed = Arc::clone(&wired);
    let all_there = move || listed.catalog().snapshot().unavailable.is_empty();
    let visibility = Arc::new(Visibility::new(sights, Arc::new(all_there)));
    let images = ImageServiceServer::new(Images::new(
        Arc::clone(&wired),
        Arc::new(Owners::default()),
        Arc::clone(&visibility),
    ));
    let agent = AgentServiceServer::new(AgentState::new(Arc::clone(&wired), visibility));
    let (reporter, health) = tonic_health::server::health_reporter();
    reporter
        .set_serving::<AgentServiceServer<AgentState<Wired>>>()
        .await;
    let (stop, stopping) = watch::channel(false);
    let mut stopped = stopping.clone();
    let calls = Server::builder()
        .max_concurrent_streams(STREAMS)
        .http2_keepalive_interval(Some(Duration::from_secs(30)))
        .http2_keepalive_timeout(Some(Duration::from_secs(20)))
        // Outside, so that it sees with which status the other ends a call.
        .layer(layer_fn(move |inner| Rpc {
            inner,
            metrics: Arc::clone(&metrics),
        }))
        .layer(layer_fn(move |inner| Ending {
            inner,
            stopping: stopping.clone(),
        }))
        .add_service(health)
        .add_service(reflection().build_v1().context("reflection v1")?)
        .add_service(reflection().build_v1alpha().context("reflection v1alpha")?)
        .add_service(images)
        .add_service(agent)
        .serve_with_incoming_shutdown(connections, async move {
            let _ = stopped.wait_for(|stopping| *stopping).await;
        });
    Ok(Serving {
        calls: tokio::spawn(calls),
        health: tokio::spawn(report_health(reporter, wired)),
        stop,
    })
}

impl Serving {
    /// Takes no new connections and calls, and gives those under way their time.
    pub(super) async fn stop(self) -> anyhow::Result<()> {
        self.health.abort();
        self.stop.send_replace(true);
        match tokio::time::timeout(DRAIN, self.calls).await {
            Ok(Ok(served)) => served.context("serve")?,
            Ok(Err(panic)) => return Err(panic).context("serve"),
            Err(_) => tracing::warn!("some calls did not end in time"),
        }
        Ok(())
    }
}

fn reflection() -> tonic_reflection::server::Builder<'static> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(sifter_proto::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        // Each version tells of both, so that grpcurl of any age can call either by name.
        .include_reflection_service(false)
        .register_encoded_file_descriptor_set(tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET)
        // Without, grpcurl shows the details of errors as base64.
        .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
}

/// Serving as soon as listings are answered; what ends that is a change of the roots.
async fn report_health(reporter: tonic_health::server::HealthReporter, wired: Arc<Wired>) {
    let mut replaced = wired.replaced();
    let mut was = None;
    loop {
        replaced.borrow_and_update();
        let is = wired.is_ready();
        if was != Some(is) {
            let status = if is {
                tonic_health::ServingStatus::Serving
            } else {
                tonic_health::ServingStatus::NotServing
            };
            reporter.set_service_status("", status).await;
            reporter
                .set_service_status("sifter.v1.ImageService", status)
                .await;
            was = Some(is);
        }
        if !is {
            tokio::time::sleep(READY_EVERY).await;
        } else if replaced.changed().await.is_err() {
            return;
        }
    }
}
