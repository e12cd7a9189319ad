//! Wires everything, and takes it apart again in order.
//!
//! Start: whatever could fail (keys, certificates, addresses) fails before the first request is
//! let in. Stop: say so on `/readyz`, close the listeners, let requests under way finish for as
//! long as allowed.

mod reload;

use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use jiff::Timestamp;
use nix::fcntl::Flock;
use sifter_tls::Held;
use sifter_tls::TlsError;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio_util::task::TaskTracker;

use self::reload::Watches;
use super::App;
use super::connection;
use super::connection::Context;
use super::listener;
use super::listener::Slots;
use super::reminder::Reminder;
use super::tls::Certificate;
use crate::auth::Authenticator;
use crate::auth::journal;
use crate::auth::journal::JournaledNonces;
use crate::auth::keys::KeyError;
use crate::auth::keys::KeySource;
use crate::auth::keys::KeyStore;
use crate::auth::nonce::MemoryNonces;
use crate::auth::nonce::NonceStore;
use crate::config::AuthSettings;
use crate::config::Settings;
use crate::config::SignatureSettings;
use crate::fleet;
use crate::fleet::AgentTlsError;
use crate::fleet::BreakerState;
use crate::fleet::FileRegistry;
use crate::fleet::Fleet;
use crate::telemetry::Metrics;
use crate::words::count;

/// How long the end may wait for the disk.
const CLOSE_WITHIN: Duration = Duration::from_secs(1);

/// Why the server does not start.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// An address cannot be listened on.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The certificate of the HTTP side cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The certificates to the agents cannot be used.
    #[error(transparent)]
    AgentTls(#[from] AgentTlsError),
    /// The access keys cannot be used.
    #[error("auth.keys")]
    Keys(#[from] KeyError),
    /// Another process has the state directory.
    #[error(
        "another control plane uses the state directory {}: stop it, or set auth.state_directory to another one",
        path.display()
    )]
    StateInUse {
        /// The directory.
        path: PathBuf,
    },
    /// What earlier runs accepted cannot be read.
    #[error("cannot read the nonces of earlier runs in {}", path.display())]
    Nonces {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// A server that answers.
pub struct Running {
    app: Arc<App>,
    /// Addresses of the API, in the order of the configuration.
    pub addresses: Vec<SocketAddr>,
    /// Address of the listener for administrators.
    pub admin_address: Option<SocketAddr>,
    source: Option<PathBuf>,
    registry: Arc<FileRegistry>,
    certificate: Option<Arc<Certificate>>,
    closing: watch::Sender<bool>,
    tasks: TaskTracker,
    /// The tasks that accept connections.
    accepting: Vec<AbortHandle>,
    /// What every connection to the API is given.
    context: Context,
    watches: Mutex<Watches>,
    reminder: Mutex<Reminder>,
    /// Held until the end.
    _state: Option<Flock<File>>,
}

/// Why the server is not alive.
#[derive(Debug, thiserror::Error)]
pub enum Stuck {
    /// Nobody is let in any more.
    #[error("a listener has ended")]
    Listener,
    /// A request got another answer than it must.
    #[error("a request was not answered as it must be")]
    Answer,
    /// A request got no answer.
    #[error("a request was not answered")]
    Exchange(#[source] io::Error),
}

/// Checks everything that `start` would refuse, without listening. Returns the certificates and keys that it
/// would use.
pub fn check(settings: &Settings) -> Result<Vec<Held>, RunError> {
    Ok(parts(settings)?.held)
}

struct Parts {
    authenticator: Option<Authenticator>,
    certificate: Option<Arc<Certificate>>,
    agent_tls: Option<tonic::transport::ClientTlsConfig>,
    held: Vec<Held>,
}

fn parts(settings: &Settings) -> Result<Parts, RunError> {
    let authenticator = match &settings.auth {
        AuthSettings::None => None,
        AuthSettings::Signatures(signatures) => {
            let keys = KeyStore::open(KeySource::new(&signatures.keys)?)?;
            Some(Authenticator::new(Arc::new(keys), nonces(signatures)?))
        }
    };
    let mut parts = Parts {
        authenticator,
        certificate: None,
        agent_tls: None,
        held: Vec::new(),
    };
    if let Some(files) = &settings.server.tls {
        let (certificate, held) = Certificate::load(files)?;
        parts.certificate = Some(Arc::new(certificate));
        parts.held.extend(held);
    }
    if let Some(files) = &settings.agents.tls {
        let (config, held) = fleet::load_agent_tls(files)?;
        parts.agent_tls = Some(config);
        parts.held.extend(held);
    }
    Ok(parts)
}

/// The nonces: kept in the state directory, or else for as long as the process lives.
fn nonces(signatures: &SignatureSettings) -> Result<Arc<dyn NonceStore>, RunError> {
    let capacity = signatures.max_nonces;
    let memory = MemoryNonces::new(capacity.unwrap_or(MemoryNonces::DEFAULT_CAPACITY));
    let Some(path) = state_directory(signatures) else {
        return Ok(Arc::new(memory));
    };
    match JournaledNonces::open(&path, memory, Timestamp::now()) {
        Ok(nonces) => Ok(Arc::new(nonces)),
        Err(source) => Err(RunError::Nonces { path, source }),
    }
}

/// The directory of the configuration, or of the unit.
fn state_directory(signatures: &SignatureSettings) -> Option<PathBuf> {
    // The service manager gives several, if told to, between colons.
    let of_unit = || std::env::split_paths(&std::env::var_os("STATE_DIRECTORY")?).next();
    signatures.state_directory.clone().or_else(of_unit)
}

/// The state directory for this process alone. Not of [`check`], which is asked while another one runs.
fn lock_state(auth: &AuthSettings) -> Result<Option<Flock<File>>, RunError> {
    let path = match auth {
        AuthSettings::None => None,
        AuthSettings::Signatures(signatures) => state_directory(signatures),
    };
    let Some(path) = path else { return Ok(None) };
    journal::lock_directory(&path).map_err(|_| RunError::StateInUse { path })
}

/// Starts to listen and to answer. `source`: the file that the settings came from, if changes to
/// it shall be followed.
pub async fn start(settings: Settings, source: Option<PathBuf>) -> Result<Running, RunError> {
    // What changes while the files are read must be noticed later.
    let watches = Watches::new(&settings, source.as_ref());
    let state = lock_state(&settings.auth)?;
    let Parts {
        authenticator,
        certificate,
        agent_tls,
        held,
    } = parts(&settings)?;
    let metrics = Arc::new(Metrics::new());
    let registry = Arc::new(FileRegistry::new(settings.clusters.clone()));
    metrics.clusters.set(registry.len() as i64);
    let fleet = Fleet::new(
        registry.clone(),
        settings.agents.clone(),
        Arc::clone(&metrics),
    );
    fleet.set_tls(agent_tls);

    let mut listeners = Vec::with_capacity(settings.server.listen.len());
    for &address in &settings.server.listen {
        listeners.push(bind(address).await?);
    }
    let admin = match settings.admin_listen {
        Some(address) => Some(bind(address).await?),
        None => None,
    };
    let addresses = listeners.iter().map(|&(_, address)| address).collect();
    let admin_address = admin.as_ref().map(|&(_, address)| address);

    warn_of_exposure(&settings);
    let mut reminder = Reminder::new(Arc::clone(&metrics));
    reminder.replace(held);
    reminder.remind(Timestamp::now());
    let max_connections = settings.limits.max_connections;
    let trusted_proxies = settings.server.trusted_proxies.clone();
    let app = App::new(settings, fleet, authenticator, metrics);
    let (closing, receiver) = watch::channel(false);
    let tasks = TaskTracker::new();
    let slots = Slots::new(max_connections, trusted_proxies);
    let context = Context {
        routes: app.routes(),
        serves_api: true,
        app: Arc::clone(&app),
        certificate: certificate.clone(),
        closing: receiver,
    };
    let mut accepting = Vec::new();
    for (listener, _) in listeners {
        let accept = listener::accept(listener, context.clone(), slots.clone(), tasks.clone());
        accepting.push(tasks.spawn(accept).abort_handle());
    }
    if let Some((listener, _)) = admin {
        let context = Context {
            routes: app.admin_routes(),
            serves_api: false,
            certificate: None,
            ..context.clone()
        };
        // Slots of its own: whoever looks why everything is full must get in.
        let slots = Slots::new(64, Vec::new());
        tasks.spawn(listener::accept(listener, context, slots, tasks.clone()));
    }
    Ok(Running {
        app,
        addresses,
        admin_address,
        source,
        registry,
        certificate,
        closing,
        tasks,
        accepting,
        context,
        watches: Mutex::new(watches),
        reminder: Mutex::new(reminder),
        _state: state,
    })
}

impl Running {
    /// What all requests share.
    pub fn app(&self) -> &Arc<App> {
        &self.app
    }

    /// Whether requests are let in and answered. Takes as long as an answer does, which is the caller's to limit.
    pub async fn check_alive(&self) -> Result<(), Stuck> {
        if self.accepting.iter().any(AbortHandle::is_finished) {
            return Err(Stuck::Listener);
        }
        match connection::probe(&self.context).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(Stuck::Answer),
            Err(error) => Err(Stuck::Exchange(error)),
        }
    }

    /// One line for people: how many clusters there are, and which login nodes are left alone.
    pub fn summary(&self) -> String {
        let clusters = self.registry.len();
        let states = self.app.fleet.breaker_states().into_iter();
        let silent = states.filter(|(_, state)| *state != BreakerState::Closed);
        let mut line = format!("answering for {}", count(clusters, "cluster"));
        let silent = silent.count();
        if silent > 0 {
            line += &format!(", {} without answer", count(silent, "login node"));
        }
        line
    }

    /// Stops: says so on `/readyz`, then takes no new connections; requests under way finish or are cut off when the time is up.
    /// Returns whether all of them finished.
    pub async fn stop(&self) -> bool {
        self.app.drain();
        tokio::time::sleep(self.app.settings.server.drain_delay).await;
        self.closing.send_replace(true);
        self.tasks.close();
        let limit = self.app.settings.server.drain_timeout;
        let finished = tokio::time::timeout(limit, self.tasks.wait()).await.is_ok();
        if let Some(authenticator) = &self.app.authenticator {
            let nonces = Arc::clone(authenticator.nonces());
            let close = tokio::task::spawn_blocking(move || nonces.close());
            // A disk that hangs must not keep the process.
            let _ = tokio::time::timeout(CLOSE_WITHIN, close).await;
        }
        finished
    }
}

async fn bind(address: SocketAddr) -> Result<(TcpListener, SocketAddr), RunError> {
    let error = |source| RunError::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(error)?;
    let bound = listener.local_addr().map_err(error)?;
    Ok((listener, bound))
}

/// What is allowed, but should be known.
fn warn_of_exposure(settings: &Settings) {
    let exposed = settings
        .server
        .listen
        .iter()
        .find(|address| !address.ip().is_loopback());
    if let (Some(address), None) = (exposed, &settings.server.tls) {
        tracing::warn!(
            %address,
            "plain HTTP: signatures protect requests, but listings can be read on the way; \
             set server.cert and server.key"
        );
    }
    for cluster in &settings.clusters {
        for node in cluster.login_nodes.iter().filter(|node| node.is_exposed()) {
            tracing::warn!(
                cluster = cluster.id,
                %node,
                "plain gRPC to another host: configure [agent_tls] and an https:// address"
            );
        }
    }
    if settings.clusters.is_empty() {
        tracing::warn!("no clusters are configured: every request is answered LoginNotFound");
    }
}
