//! Configuration, in two stages: [`raw`] is the TOML file as it stands, with unknown keys refused;
//! [`Settings`] is what was validated, with every default filled in, and the only thing the rest of
//! the crate sees.
//!
//! [`Settings::load`] reads the file and its drop-ins and reports every problem at once, so that nobody repairs
//! a file one error at a time. A file without `auth` is refused: an open listing must be asked for by name.

mod address;
mod auth;
mod clusters;
mod network;
mod problem;
mod raw;
mod read;
mod server;
mod validate;

use std::net::SocketAddr;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use crate::words::count;

pub use address::AddressError;
pub use address::NodeAddress;
pub use auth::AuthSettings;
pub use auth::SignatureSettings;
pub use network::parse_network;
pub use raw::LogFormat;
pub use raw::PartialListings;
pub use raw::RawConfig;
pub(crate) use read::located;

use self::read::Read;

/// Where the configuration is looked for if nobody says otherwise.
pub const DEFAULT_PATH: &str = "/etc/sifter-control/config.toml";

/// The region of clusters that name none.
pub const DEFAULT_REGION: &str = "local";

/// Everything that can be wrong with a configuration file.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Files are not TOML or have keys or types that are not known, or values make no sense.
    #[error("the configuration {} has {}:\n  - {}", listed(files), count(problems.len(), "problem"), problems.join("\n  - "))]
    Invalid {
        /// The file, and the drop-ins that were read after it.
        files: Vec<PathBuf>,
        /// Each problem: in which line, which key, what is wrong, what to write. What cannot be understood is
        /// told without any value: it may be a secret in the wrong file.
        problems: Vec<String>,
    },
}

/// Any of them may be where the mistake is.
fn listed(files: &[PathBuf]) -> String {
    let shown: Vec<String> = files
        .iter()
        .map(|file| file.display().to_string())
        .collect();
    shown.join(" + ")
}

/// The validated configuration.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Who may ask.
    pub auth: AuthSettings,
    /// The HTTP side.
    pub server: ServerSettings,
    /// Where metrics are served, if not on the API's own listeners.
    pub admin_listen: Option<SocketAddr>,
    /// Limits that protect this server.
    pub limits: Limits,
    /// How agents are called.
    pub agents: AgentSettings,
    /// The clusters, in the order of the file.
    pub clusters: Vec<ClusterSettings>,
    /// How to log.
    pub log: LogSettings,
}

/// The HTTP side.
#[derive(Debug, Clone)]
pub struct ServerSettings {
    /// Addresses to listen on. Port 0 takes any free port.
    pub listen: Vec<SocketAddr>,
    /// The address under which clients reach this server, without a slash at the end.
    pub public_url: Option<String>,
    /// Certificate and key; without them plain HTTP is served.
    pub tls: Option<ServerTls>,
    /// Whether requests without TLS (to here, or to a trusted proxy) are refused.
    pub require_tls: bool,
    /// Proxies whose `X-Forwarded-For` and `X-Forwarded-Proto` are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// How long `/readyz` says no before the listeners close, so that balancers can look away.
    pub drain_delay: Duration,
    /// How long requests under way may take to finish when the server stops.
    pub drain_timeout: Duration,
}

/// Certificate and key of the HTTP side.
#[derive(Debug, Clone)]
pub struct ServerTls {
    /// PEM file with the certificate and its intermediates.
    pub cert: PathBuf,
    /// PEM file with the private key.
    pub key: PathBuf,
}

/// Limits that protect this server.
#[derive(Debug, Clone)]
pub struct Limits {
    /// The whole answer is given within this time.
    pub answer_within: Duration,
    /// Largest body of a request, in bytes.
    pub max_body_bytes: usize,
    /// Largest request line with all headers, in bytes.
    pub max_header_bytes: usize,
    /// Longest time for the headers of a request to arrive; also how long an idle connection lives.
    pub header_timeout: Duration,
    /// Longest time for the body of a request to arrive.
    pub body_timeout: Duration,
    /// Longest time that a client may not take up what is being sent to it.
    pub write_timeout: Duration,
    /// Connections held at a time.
    pub max_connections: usize,
    /// Requests worked on at a time; the next one is answered `ServiceUnavailable`.
    pub max_concurrent_requests: usize,
    /// Requests a second from everyone together.
    pub requests_per_second: Option<Rate>,
    /// Requests a second from each access key.
    pub key_requests_per_second: Option<Rate>,
}

/// A sustained rate and what may come at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Requests a second.
    pub per_second: std::num::NonZeroU32,
    /// Requests at once.
    pub burst: std::num::NonZeroU32,
}

/// How agents are called.
#[derive(Debug, Clone)]
pub struct AgentSettings {
    /// The whole answer is given within this time (`limits.answer_within_ms`).
    pub answer_within: Duration,
    /// Longest time to connect to a login node.
    pub connect_timeout: Duration,
    /// After this time without an answer the next login node is asked too.
    pub hedge_after: Duration,
    /// Failures in a row after which a login node is asked last for a while.
    pub breaker_failures: u32,
    /// How long it is left alone at first; doubled with each further failure.
    pub breaker_open: Duration,
    /// How long it is left alone at most.
    pub breaker_open_max: Duration,
    /// What to do with a listing that is not whole.
    pub partial_listings: PartialListings,
    /// Mutual TLS to the agents.
    pub tls: Option<AgentTls>,
}

/// Mutual TLS to the agents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentTls {
    /// PEM file with the authorities that sign the agents' certificates.
    pub ca: PathBuf,
    /// PEM file with this server's client certificate.
    pub cert: PathBuf,
    /// PEM file with its private key.
    pub key: PathBuf,
    /// Name to expect in the agents' certificates instead of the address's host.
    pub server_name: Option<String>,
}

/// One cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterSettings {
    /// What `ClusterId` names.
    pub id: String,
    /// The account that the cluster belongs to.
    pub account: String,
    /// The region that the cluster belongs to.
    pub region: String,
    /// The agents, the preferred one first. May be empty: such a cluster is `LoginNotFound`.
    pub login_nodes: Vec<NodeAddress>,
}

/// How to log.
#[derive(Debug, Clone)]
pub struct LogSettings {
    /// Shape of the lines.
    pub format: LogFormat,
    /// Filter in the syntax of `RUST_LOG`, which wins over it.
    pub filter: String,
}

impl Settings {
    /// Reads a file and its drop-ins, and validates.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        read::read(path).and_then(Self::of)
    }

    /// Parses and validates the text of a file.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let mut read = Read::default();
        read.add(path.to_owned(), text.to_owned());
        Self::of(read)
    }

    /// The directory of a file's drop-ins.
    pub fn drop_ins(path: &Path) -> PathBuf {
        read::drop_ins(path)
    }

    /// Fills in the defaults and checks every value; relative paths start where the file is, those of
    /// drop-ins, too.
    fn of(read: Read) -> Result<Self, ConfigError> {
        let (raw, files, mut problems) = read.merged();
        let base = files.first().and_then(|(path, _)| path.parent());
        match validate::validate(raw, base.unwrap_or(Path::new(""))) {
            Ok(settings) if problems.is_empty() => return Ok(settings),
            Ok(_) => {}
            Err(found) => problems.extend(found.in_files(&files, problems.is_empty())),
        }
        Err(ConfigError::Invalid {
            problems,
            files: files.into_iter().map(|(path, _)| path).collect(),
        })
    }
}
