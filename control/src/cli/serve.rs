//! `sifter-control serve`: answers until it is told to stop.
//!
//! SIGHUP reads configuration, keys and certificates again (changes are also noticed within
//! seconds); SIGTERM and SIGINT drain and stop, a second one stops at once.

use std::io;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use sd_notify::NotifyState;
use sifter_journal::leads_to_journal;
use tokio::signal::unix::Signal;
use tokio::signal::unix::SignalKind;
use tokio::signal::unix::signal;

use super::manager;
use super::manager::notify;
use crate::config::ConfigError;
use crate::config::Settings;
use crate::server;
use crate::server::RunError;
use crate::server::Running;
use crate::telemetry;

/// How often files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Answer the API
///
/// Ends with 0 when it was told to stop, 1 if an address cannot be listened on or the state directory is in use,
/// 78 if the configuration is wrong.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    config: super::ConfigFile,
}

#[derive(Debug, thiserror::Error)]
enum ServeError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("cannot log")]
    Log(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error(transparent)]
    Run(#[from] RunError),
    #[error("cannot start the runtime")]
    Runtime(#[source] io::Error),
}

pub(super) fn run(args: Args) -> ExitCode {
    match serve(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let code = match &error {
                ServeError::Run(RunError::Listen { .. } | RunError::StateInUse { .. })
                | ServeError::Runtime(_) => 1,
                _ => super::EXIT_CONFIG,
            };
            super::fail(&error, code)
        }
    }
}

fn serve(args: Args) -> Result<(), ServeError> {
    let settings = Settings::load(&args.config.path)?;
    // Dropped last: whatever is logged on the way out is written.
    let _flush = telemetry::init(&settings.log).map_err(ServeError::Log)?;
    telemetry::log_panics();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(ServeError::Runtime)?;
    let result = runtime.block_on(serve_until_told(settings, args.config.path));
    // A look at a file on a dead file system must not keep the process.
    runtime.shutdown_background();
    result
}

async fn serve_until_told(settings: Settings, config: PathBuf) -> Result<(), ServeError> {
    let listen = |kind| signal(kind).map_err(ServeError::Runtime);
    let mut terminate = listen(SignalKind::terminate())?;
    let mut interrupt = listen(SignalKind::interrupt())?;
    let hangup = listen(SignalKind::hangup())?;

    let scheme = if settings.server.tls.is_some() {
        "https"
    } else {
        "http"
    };
    let running = Arc::new(server::start(settings, Some(config)).await?);
    announce(&running, scheme);
    notify(&[NotifyState::Ready]);

    let reload = tokio::spawn(reload(Arc::clone(&running), hangup));
    let inform = tokio::spawn(manager::inform(Arc::clone(&running)));
    told(&mut terminate, &mut interrupt).await;
    tracing::info!("stopping");
    inform.abort();
    notify(&[NotifyState::Stopping, NotifyState::Status("draining")]);
    reload.abort();
    let finished = tokio::select! {
        finished = running.stop() => finished,
        () = told(&mut terminate, &mut interrupt) => false,
    };
    if finished {
        tracing::info!("stopped");
    } else {
        tracing::warn!("stopped with requests under way");
    }
    Ok(())
}

async fn told(terminate: &mut Signal, interrupt: &mut Signal) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

/// Follows changes of files, and asks for a look at all of them on SIGHUP.
async fn reload(running: Arc<Running>, mut hangup: Signal) {
    let mut clock = tokio::time::interval(LOOK_EVERY);
    clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let asked = tokio::select! {
            Some(()) = hangup.recv() => true,
            _ = clock.tick() => false,
        };
        let running = Arc::clone(&running);
        // Files may be on file systems that take their time.
        let look = tokio::task::spawn_blocking(move || {
            if asked {
                manager::notify_reloading();
                running.reload();
                notify(&[NotifyState::Ready]);
            } else {
                running.reload_changed();
            }
        });
        if let Err(error) = look.await {
            tracing::error!(%error, "reading files again failed");
        }
    }
}

/// One line for each address, for people and for tests that asked for port 0. They are in the log, too:
/// nothing is lost where nobody reads this, and where both are the journal, the log is enough.
fn announce(running: &Running, scheme: &str) {
    let mut out: Box<dyn io::Write> = if leads_to_journal(io::stdout()) {
        Box::new(io::sink())
    } else {
        Box::new(io::stdout().lock())
    };
    for address in &running.addresses {
        let _ = writeln!(out, "listening on {scheme}://{address}");
        tracing::info!(%address, scheme, "listening");
    }
    if let Some(address) = running.admin_address {
        let _ = writeln!(out, "metrics on http://{address}/metrics");
        tracing::info!(%address, "metrics");
    }
    // Whoever reads this through a pipe waits for it.
    let _ = out.flush();
}
