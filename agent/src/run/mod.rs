//! Wires everything: catalogue, supervisor, services, listeners; and takes it apart again in the
//! right order.

mod ending;
mod wired;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use sifter_proto::encoded::image_service_server::ImageServiceServer;
use sifter_proto::v1::agent_service_server::AgentServiceServer;
use tokio::net::{TcpListener, UnixListener};
use tokio::signal::unix::{SignalKind, signal};
use tonic::transport::Server;

use crate::bars;
use crate::catalog::{FileTime, LEASE_MAX};
use crate::config::{Listen, Settings, host_name};
use crate::confine::{self, Confined, Mounts};
use crate::engine::Engines;
use crate::escape;
use crate::manager;
use crate::net::{self, Bound, Doorkeeper, Doors, Passed, Socket, Tls};
use crate::observe::Sources;
use crate::reload::{self, Changeable, Reloader};
use crate::service::{Agent, AgentState, Images, Owners, Sights, Visibility};

use self::ending::EndingLayer;
use self::wired::Wired;
use crate::telemetry::{Metrics, Pages, RpcLayer, Scrapes, Terminal};

/// The database's file in the state directory.
const CATALOG_FILE: &str = "catalog.sqlite";

/// The file of the state directory that is locked while an agent has it.
const LOCK_FILE: &str = "agent.lock";

/// How long running RPCs may take to finish at the end.
const DRAIN: Duration = Duration::from_secs(5);

/// Time between two looks at the mounts.
const LOOK_AT_MOUNTS: Duration = Duration::from_secs(10);

/// Streams of one connection at a time.
const STREAMS: u32 = 256;

/// Runs the agent until SIGTERM or SIGINT.
///
/// # Errors
///
/// The state directory cannot be made, or an address not be bound.
pub fn agent(
    settings: Settings,
    files: &[PathBuf],
    reload: reload::Read,
    terminal: Option<Terminal>,
    ready: impl FnOnce(&[String]),
) -> anyhow::Result<()> {
    // Before there are threads: they see the environment that this changes …
    let passed = net::passed()?;
    if let Some(directory) = &settings.state_directory {
        std::fs::create_dir_all(directory)
            .with_context(|| format!("make the state directory {}", escape::path(directory)))?;
    }
    let _lock = settings.state_directory.as_deref().map(lock).transpose()?;
    // … and inherit what this thread may do.
    let confined = confine::confine(&settings, files);
    confined.log();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(
            std::thread::available_parallelism()
                .map_or(1, usize::from)
                .clamp(1, 4),
        )
        .enable_all()
        .build()
        .context("start the runtime")?;
    let result = runtime.block_on(serve(settings, passed, confined, reload, terminal, ready));
    // Blocking tasks on a hung file system do not come back.
    runtime.shutdown_timeout(Duration::from_millis(100));
    result
}

/// Makes sure that no other agent has the state directory: two would write one catalogue. The lock ends with
/// the process, however that ends.
fn lock(directory: &Path) -> anyhow::Result<Option<File>> {
    let path = directory.join(LOCK_FILE);
    let file = match File::create(&path) {
        Ok(file) => file,
        // Then there is no catalogue to be written either, which is told elsewhere.
        Err(error) => {
            tracing::debug!(%error, path = %escape::path(&path), "no lock");
            return Ok(None);
        }
    };
    match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
        Err(rustix::io::Errno::WOULDBLOCK) => Err(anyhow::anyhow!(
            "another agent uses the state directory {}: stop it, or configure another one",
            escape::path(directory)
        )),
        // Some network file systems have no locks.
        Err(error) => {
            tracing::debug!(%error, path = %escape::path(&path), "no lock");
            Ok(Some(file))
        }
        Ok(()) => Ok(Some(file)),
    }
}

async fn serve(
    settings: Settings,
    passed: Vec<Passed>,
    confined: Confined,
    reload: reload::Read,
    terminal: Option<Terminal>,
    ready: impl FnOnce(&[String]),
) -> anyhow::Result<()> {
    let begun = Instant::now();
    let catalog_path = settings
        .state_directory
        .as_ref()
        .map(|directory| directory.join(CATALOG_FILE));
    let (bound, passed_metrics) = bind_all(&settings, passed).await?;
    let metrics = Arc::new(Metrics::default());
    let tls = match &settings.tls {
        Some(files) => Some(Arc::new(Tls::new(files.clone())?)),
        None => None,
    };
    let allowing = tls.clone();
    let sights = Arc::new(Sights::new(
        settings.access.clone(),
        Box::new(move |client| {
            allowing
                .as_ref()
                .is_some_and(|tls| tls.still_allows(client))
        }),
    ));
    let hangup = signal(SignalKind::hangup()).context("SIGHUP")?;
    let doorkeeper = Doorkeeper::new(tls.clone(), Arc::clone(&metrics));
    let visibility = Arc::new(Visibility::new(Arc::clone(&sights)));
    let addresses: Vec<String> = bound
        .iter()
        .map(|(bound, ..)| bound.address.to_string())
        .collect();
    let (doors, connections) = Doors::new(Arc::clone(&doorkeeper));
    let doors = Arc::new(doors);

    let mounts = Mounts::now(&confined);
    let engines = Arc::new(Engines::start(
        catalog_path,
        settings.roots.clone(),
        Arc::clone(&metrics),
    )?);
    if let Some(terminal) = terminal {
        bars::show(terminal, &engines).context("start the thread of the bars")?;
    }
    let wired = Arc::new(Wired {
        system: settings.system.clone(),
        host: host_name(),
        started: FileTime::now(),
        engines: Arc::clone(&engines),
        confined: confined.clone(),
    });

    let (health, health_service) = tonic_health::server::health_reporter();
    let images = ImageServiceServer::new(Images::new(
        Arc::clone(&wired),
        Arc::new(Owners::default()),
        Arc::clone(&visibility),
    ));
    let agent = AgentServiceServer::new(AgentState::new(Arc::clone(&wired), visibility));
    health
        .set_serving::<AgentServiceServer<AgentState<Wired>>>()
        .await;
    let health_task = tokio::spawn(report_health(health, Arc::clone(&wired)));

    let sources = Arc::new(Sources {
        metrics: Arc::clone(&metrics),
        engines: Arc::clone(&engines),
        doorkeeper: Arc::clone(&doorkeeper),
        tls: tls.clone(),
    });
    let refresh = {
        let wired = Arc::clone(&wired);
        sources.refresh(move || wired.is_ready())
    };
    let pages = Pages::new(Arc::clone(&metrics), refresh);
    for scrapes in passed_metrics {
        pages.serve_for_good(scrapes);
    }
    if let Some(address) = &settings.metrics {
        let scrapes = net::bind_metrics(address)
            .await
            .with_context(|| format!("serve the metrics at {address}"))?;
        pages.serve(Some(address), Some(scrapes));
    }
    let reloader = Reloader::new(
        reload,
        settings,
        Changeable {
            tls,
            sights,
            doors: Arc::clone(&doors),
            pages,
            engines: Arc::clone(&engines),
            confined,
        },
        metrics.clone(),
    );
    let reload_task = tokio::spawn(reloader.run(hangup));

    let (stop, stopping) = tokio::sync::watch::channel(false);
    let mut drained = stopping.clone();
    let server = Server::builder()
        .max_concurrent_streams(STREAMS)
        .http2_keepalive_interval(Some(Duration::from_secs(30)))
        .http2_keepalive_timeout(Some(Duration::from_secs(20)))
        // Outside, so that it sees with which status the other ends a call.
        .layer(RpcLayer(Arc::clone(&metrics)))
        .layer(EndingLayer { stopping })
        .add_service(health_service)
        .add_service(reflection()?.build_v1().context("reflection v1")?)
        .add_service(
            reflection()?
                .build_v1alpha()
                .context("reflection v1alpha")?,
        )
        .add_service(images)
        .add_service(agent)
        .serve_with_incoming_shutdown(connections, async move {
            let _ = drained.wait_for(|stopping| *stopping).await;
        });
    let server = tokio::spawn(server);
    // One before this that was killed may have promised something of its listing.
    tokio::time::sleep(LEASE_MAX.saturating_sub(begun.elapsed())).await;
    for (bound, asked, passed) in bound {
        doors.open(bound, asked, passed);
    }

    for address in &addresses {
        tracing::info!(address, "listening");
    }
    let _ = sd_notify::notify(&[
        sd_notify::NotifyState::Ready,
        sd_notify::NotifyState::Status("listening"),
    ]);
    let informed = tokio::spawn(manager::inform(Arc::clone(&engines)));
    ready(&addresses);

    let mut terminate = signal(SignalKind::terminate()).context("SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT")?;
    tokio::select! {
        _ = terminate.recv() => tracing::info!("SIGTERM: draining"),
        _ = interrupt.recv() => tracing::info!("SIGINT: draining"),
        () = mounted_anew(mounts) => {}
    }
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);

    // Listeners first, so that nobody new comes; then the RPCs under way, of which those without an
    // end are ended; then the scans.
    health_task.abort();
    reload_task.abort();
    informed.abort();
    stop.send_replace(true);
    match tokio::time::timeout(DRAIN, server).await {
        Ok(Ok(served)) => served.context("serve")?,
        Ok(Err(panic)) => return Err(panic).context("serve"),
        Err(_) => tracing::warn!("some calls did not end in time"),
    }
    tokio::task::spawn_blocking(move || engines.stop()).await?;
    tracing::info!("stopped");
    Ok(())
}

/// Until a root is mounted anew and the service manager can start this agent anew, which its
/// confinement keeps from reading it. Where there is none, the log says what to do.
async fn mounted_anew(mounts: Mounts) {
    let has_manager = std::env::var_os("NOTIFY_SOCKET").is_some();
    let mut told = false;
    loop {
        tokio::time::sleep(LOOK_AT_MOUNTS).await;
        let Some(root) = mounts.changed() else {
            told = false;
            continue;
        };
        let root = escape::path(root);
        if has_manager {
            tracing::warn!(
                root,
                "other file systems are mounted there than at start, which Landlock keeps this \
                 process from reading: ending, to be started anew"
            );
            return;
        }
        if !told {
            tracing::error!(
                root,
                "other file systems are mounted there than at start, which Landlock keeps this \
                 process from reading: restart the agent, or set landlock = false"
            );
            told = true;
        }
    }
}

/// The listeners, with how each was asked for and whether it was passed, and those for the metrics:
/// first what the service manager passes, then those addresses of the configuration for which there
/// is nothing yet.
async fn bind_all(
    settings: &Settings,
    passed: Vec<Passed>,
) -> anyhow::Result<(Vec<(Bound, Listen, bool)>, Vec<Scrapes>)> {
    let mut bound: Vec<(Bound, Listen, bool)> = Vec::new();
    let mut scrapes = Vec::new();
    for passed in passed {
        let place = passed.to_string();
        let name = passed.name;
        tracing::info!(address = place, name, "socket of the service manager");
        let wrong = || format!("socket {name} ({place}) of the service manager");
        if name == net::METRICS {
            scrapes.push(match passed.socket {
                Socket::Unix(listener, _) => {
                    Scrapes::Unix(UnixListener::from_std(listener).with_context(wrong)?, place)
                }
                Socket::Tcp(listener, _) => {
                    Scrapes::Tcp(TcpListener::from_std(listener).with_context(wrong)?, place)
                }
            });
            continue;
        }
        let address = match &passed.socket {
            Socket::Unix(_, path) => Listen::Unix(path.clone()),
            Socket::Tcp(_, address) => settings
                .listen_for(*address, name == net::TLS)
                .map_err(anyhow::Error::msg)
                .with_context(wrong)?,
        };
        let adopted = net::adopt(passed.socket, address.clone()).with_context(wrong)?;
        bound.push((adopted, address, true));
    }
    for address in &settings.listen {
        if !bound.iter().any(|(_, asked, _)| asked == address) {
            let new = net::bind(address, settings.socket_mode)
                .await
                .with_context(|| format!("listen on {address}"))?;
            bound.push((new, address.clone(), false));
        }
    }
    Ok((bound, scrapes))
}

fn reflection() -> anyhow::Result<tonic_reflection::server::Builder<'static>> {
    Ok(tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(sifter_proto::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        // Each version tells of both, so that grpcurl of any age can call either by name.
        .include_reflection_service(false)
        .register_encoded_file_descriptor_set(tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET)
        // Without, grpcurl shows the details of errors as base64.
        .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET))
}

/// Serving as soon as listings are answered.
async fn report_health(reporter: tonic_health::server::HealthReporter, wired: Arc<Wired>) {
    let mut was = None;
    loop {
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
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
