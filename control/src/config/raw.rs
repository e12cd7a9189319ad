//! The configuration file as it stands. Every key is optional here; what is missing, and what is
//! out of range, is decided in validation. Unknown keys are refused: a misspelt limit must not be
//! a limit that is not there.

use std::path::PathBuf;

use serde::Deserialize;

use super::auth::RawAuth;

/// The whole file.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawConfig {
    /// `auth = "none"` or `[auth]`.
    pub auth: Option<RawAuth>,
    /// `[server]`.
    pub server: RawServer,
    /// `[admin]`.
    pub admin: RawAdmin,
    /// `[limits]`.
    pub limits: RawLimits,
    /// `[agents]`.
    pub agents: RawAgents,
    /// `[agent_tls]`.
    pub agent_tls: Option<RawAgentTls>,
    /// `[log]`.
    pub log: RawLog,
    /// `[[clusters]]`.
    pub clusters: Vec<RawCluster>,
}

/// `[server]`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawServer {
    /// Addresses, `IP:PORT`; default `127.0.0.1:8080`.
    pub listen: Option<Vec<String>>,
    /// Address under which clients reach the server.
    pub public_url: Option<String>,
    /// PEM file with the certificate chain.
    pub cert: Option<PathBuf>,
    /// PEM file with the private key.
    pub key: Option<PathBuf>,
    /// Default false.
    pub require_tls: bool,
    /// Networks of the reverse proxies in front.
    pub trusted_proxies: Vec<String>,
    /// Seconds; default 0.
    pub drain_delay_seconds: u16,
    /// Seconds; default 10.
    pub drain_timeout_seconds: Option<u64>,
}

/// `[admin]`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawAdmin {
    /// Address of the metrics, `IP:PORT`.
    pub listen: Option<String>,
}

/// `[limits]`. For rates, 0 means no limit.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawLimits {
    /// Milliseconds; default 2500.
    pub answer_within_ms: Option<u64>,
    /// Bytes; default 65536.
    pub max_body_bytes: Option<usize>,
    /// Bytes; default 65536.
    pub max_header_bytes: Option<usize>,
    /// Seconds; default 15.
    pub header_timeout_seconds: Option<u64>,
    /// Seconds; default 10.
    pub body_timeout_seconds: Option<u64>,
    /// Seconds; default 10.
    pub write_timeout_seconds: Option<u64>,
    /// Default 4096.
    pub max_connections: Option<usize>,
    /// Default 512.
    pub max_concurrent_requests: Option<usize>,
    /// Default 0.
    pub requests_per_second: Option<u32>,
    /// Default 200.
    pub key_requests_per_second: Option<u32>,
    /// Default twice the rate.
    pub key_burst: Option<u32>,
}

/// `[agents]`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawAgents {
    /// Milliseconds; default 1000.
    pub connect_timeout_ms: Option<u64>,
    /// Milliseconds; default 600.
    pub hedge_after_ms: Option<u64>,
    /// Default 3.
    pub breaker_failures: Option<u32>,
    /// Milliseconds; default 1000.
    pub breaker_open_ms: Option<u64>,
    /// Milliseconds; default 15000.
    pub breaker_open_max_ms: Option<u64>,
    /// Default `refuse`.
    pub partial_listings: PartialListings,
}

/// What to do where no login node has a whole listing: a root is missing, because it cannot be read and
/// nothing is known of it, or what the control plane's user may not see.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PartialListings {
    /// Answer `ExecFail`: the documented reply has no place to say that something is missing.
    #[default]
    Refuse,
    /// Answer what there is, and warn in the log.
    Serve,
}

/// `[agent_tls]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawAgentTls {
    /// PEM file with the authorities of the agents' certificates.
    pub ca: Option<PathBuf>,
    /// PEM file with the client certificate.
    pub cert: Option<PathBuf>,
    /// PEM file with its private key.
    pub key: Option<PathBuf>,
    /// Name to expect instead of the address's host.
    pub server_name: Option<String>,
}

/// `[log]`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawLog {
    /// Default `text`.
    pub format: LogFormat,
    /// Default `info`.
    pub filter: Option<String>,
}

/// Shape of the log lines.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// One `[[clusters]]`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawCluster {
    /// What `ClusterId` names.
    pub id: String,
    /// The account that owns the cluster.
    pub account: String,
    /// Default `local`.
    pub region: Option<String>,
    /// Addresses of the agents.
    pub login_nodes: Vec<String>,
}
