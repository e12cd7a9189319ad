//! Wires everything: catalogue, supervisor, services, listeners; and takes it apart again in the
//! right order.

mod ending;
mod grpc;
mod listeners;
mod remounts;
mod wired;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigSet, Signal};
use tokio::signal::unix::{SignalKind, signal};

use self::wired::Wired;
use crate::bars;
use crate::catalog::{FileTime, LEASE_MAX, older_at};
use crate::config::{Settings, host_name};
use crate::confine::{self, Confined, Mounts};
use crate::engine::Engines;
use crate::escape;
use crate::manager;
use crate::mounts;
use crate::net::{self, Doorkeeper, Doors, Passed, Tls};
use crate::observe::Observed;
use crate::reload::{self, Changeable, Reloader};
use crate::service::{ImageSource, Sights};
use crate::telemetry::{Metrics, Pages, Scrapes, Terminal};

/// How long it may take to bring the catalogue of an older version to the present schema: three seconds for 100,000
/// images, and as many times longer as there are more, or the disk is slower. A start that is given up meanwhile
/// is begun anew, and would never come to its end.
const REWRITE_TIME: Duration = Duration::from_secs(30 * 60);

/// The database's file in the state directory.
pub(crate) const CATALOG_FILE: &str = "catalog.sqlite";

/// The file of the state directory that is locked while an agent has it.
const LOCK_FILE: &str = "agent.lock";

/// Time between two looks at the mounts, where the kernel does not tell that they have changed.
const LOOK_AT_MOUNTS: Duration = Duration::from_secs(10);

/// Has SIGHUP wait until it can be acted on: by itself it would end a process that has only begun. To be called
/// first of all, before the configuration is read that it says has changed, and before there are threads.
pub fn hold_back_hangup() {
    // It fails for no set of signals that exist.
    let _ = SigSet::from(Signal::SIGHUP).thread_block();
}

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
    take_descriptors();
    // Before there are threads: they see the environment that this changes …
    let passed = net::passed()?;
    if let Some(directory) = &settings.state_directory {
        std::fs::create_dir_all(directory).with_context(|| {
            let directory = escape::path(directory);
            format!("make the state directory {directory} (state_directory, --state-dir)")
        })?;
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
    let serving = serve(settings, passed, confined, reload, terminal, ready);
    let result = runtime.block_on(serving);
    // Blocking tasks on a hung file system do not come back.
    runtime.shutdown_timeout(Duration::from_millis(100));
    result
}

/// Lets this process have as many descriptors as it may. The 1024 with which one mostly begins are for programs
/// that wait with `select`, which cannot tell more of them apart; connections and scans of some roots take more.
fn take_descriptors() {
    let taken = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, most)| setrlimit(Resource::RLIMIT_NOFILE, most, most));
    if let Err(error) = taken {
        tracing::debug!(%error, "no more descriptors");
    }
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
    let (listeners, passed_metrics) = listeners::bind(&settings, passed).await?;
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
    let _ = SigSet::from(Signal::SIGHUP).thread_unblock();
    let doorkeeper = Doorkeeper::new(tls.clone(), Arc::clone(&metrics));
    let (doors, connections) = Doors::new(Arc::clone(&doorkeeper));
    let doors = Arc::new(doors);

    let mounts = Mounts::now(&confined);
    let engines = Arc::new(start_engines(&settings, &metrics)?);
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

    let observed = Arc::new(Observed {
        metrics: Arc::clone(&metrics),
        engines: Arc::clone(&engines),
        doorkeeper,
        tls: tls.clone(),
    });
    let pages = serve_metrics(&settings, passed_metrics, observed, Arc::clone(&wired)).await?;
    let server = grpc::serve(
        wired,
        Arc::clone(&sights),
        Arc::clone(&metrics),
        connections,
    )
    .await?;
    let changeable = Changeable {
        tls,
        sights,
        doors: Arc::clone(&doors),
        pages,
        engines: Arc::clone(&engines),
        confined,
    };
    let reloader = Reloader::new(reload, settings, changeable, metrics);
    let reload_task = tokio::spawn(reloader.run(hangup));

    // Before anybody is told that the agent is there: until then these end it without a word.
    let mut terminate = signal(SignalKind::terminate()).context("SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT")?;
    // One before this that was killed may have promised something of its listing.
    tokio::time::sleep(LEASE_MAX.saturating_sub(begun.elapsed())).await;
    let mut addresses = Vec::with_capacity(listeners.len());
    for listener in listeners {
        addresses.push(listener.bound.address.to_string());
        doors.open(listener.bound, listener.asked, listener.passed);
    }
    ready(&addresses);
    for address in &addresses {
        tracing::info!(address, "listening");
    }
    let _ = sd_notify::notify(&[
        sd_notify::NotifyState::Ready,
        sd_notify::NotifyState::Status("listening"),
    ]);
    let informed = tokio::spawn(manager::inform(Arc::clone(&engines)));
    let remounts = tokio::spawn(remounts::watch(Arc::clone(&engines)));

    tokio::select! {
        _ = terminate.recv() => tracing::info!("SIGTERM: draining"),
        _ = interrupt.recv() => tracing::info!("SIGINT: draining"),
        () = mounted_anew(mounts) => {}
    }
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);

    // Listeners first, so that nobody new comes; then the RPCs under way, of which those without an
    // end are ended; then the scans.
    reload_task.abort();
    informed.abort();
    remounts.abort();
    server.stop().await?;
    tokio::task::spawn_blocking(move || engines.stop()).await?;
    tracing::info!("stopped");
    Ok(())
}

/// Starts the scans, over a catalogue that is brought to the present schema first.
fn start_engines(settings: &Settings, metrics: &Arc<Metrics>) -> anyhow::Result<Engines> {
    let directory = settings.state_directory.as_deref();
    let catalog = directory.map(|directory| directory.join(CATALOG_FILE));
    if let Some(version) = catalog.as_deref().and_then(older_at) {
        tracing::info!(version, "an older schema: the catalogue is rewritten first");
        manager::extend_start(REWRITE_TIME);
    }
    Engines::start(catalog, settings.roots.clone(), Arc::clone(metrics))
}

/// Serves the metrics through what the service manager passes, and where the configuration says.
async fn serve_metrics(
    settings: &Settings,
    passed: Vec<Scrapes>,
    observed: Arc<Observed>,
    wired: Arc<Wired>,
) -> anyhow::Result<Pages> {
    let metrics = Arc::clone(&observed.metrics);
    let pages = Pages::new(metrics, observed.refresh(move || wired.is_ready()));
    for scrapes in passed {
        pages.serve_for_good(scrapes);
    }
    if let Some(address) = &settings.metrics {
        pages.serve(Some(address), Some(net::bind_metrics(address).await?));
    }
    Ok(pages)
}

/// Until a root is mounted anew and the service manager can start this agent anew, which its
/// confinement keeps from reading it. Where there is none, the log says what to do.
async fn mounted_anew(at_start: Mounts) {
    let has_manager = std::env::var_os("NOTIFY_SOCKET").is_some();
    if at_start.is_empty() {
        return std::future::pending().await;
    }
    let mut changes = mounts::changes();
    let mut told = false;
    loop {
        let root = at_start.changed().map(escape::path);
        if let Some(root) = &root {
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
            }
        }
        told = root.is_some();
        if changes.recv().await.is_none() {
            tokio::time::sleep(LOOK_AT_MOUNTS).await;
        }
    }
}
