//! Configuration as it is written: TOML, every unknown key refused.

use std::path::PathBuf;

use serde::Deserialize;

use super::source::Sources;

/// One configuration file, or all of them merged.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub struct Raw {
    /// The cluster's name, reported as `system`.
    pub system: Option<String>,
    /// Where the catalogue is kept.
    pub state_directory: Option<PathBuf>,
    /// Addresses to listen on: `unix:/path` or `host:port`.
    pub listen: Option<Vec<String>>,
    /// Whether other machines may connect over TCP without TLS.
    pub allow_insecure_remote: Option<bool>,
    /// Permission bits of unix sockets, octal.
    pub socket_mode: Option<String>,
    /// Whether the agent confines itself with Landlock, where the kernel has it.
    pub landlock: Option<bool>,
    /// Certificates, for TLS over TCP.
    pub tls: Option<RawTls>,
    /// Group whose members see every image.
    pub admin_group: Option<String>,
    /// What is shown over TCP without TLS: `own`, `all`.
    pub plain_tcp: Option<String>,
    /// Address of the metrics: `unix:/path` or `host:port`.
    pub metrics: Option<String>,
    /// Log form: `text`, `json`.
    pub log_format: Option<String>,
    /// Log filter, as in `RUST_LOG`.
    pub log: Option<String>,
    /// Defaults for all roots.
    #[serde(default)]
    pub defaults: RawRoot,
    /// The image directories.
    #[serde(default, rename = "root")]
    pub roots: Vec<RawRoot>,
    /// The files that it was read from.
    #[serde(skip)]
    pub sources: Sources,
}

/// Certificates, for TLS over TCP.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub struct RawTls {
    /// PEM file with the agent's certificate chain.
    pub cert: Option<PathBuf>,
    /// PEM file with its private key.
    pub key: Option<PathBuf>,
    /// PEM file with the authorities that sign clients' certificates.
    pub client_ca: Option<PathBuf>,
    /// Names of the clients that may connect.
    pub allow: Option<Vec<String>>,
}

/// Settings of a root, or defaults for all.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub struct RawRoot {
    /// The directory.
    pub path: Option<PathBuf>,
    /// Time between looks at the directories: `5m`.
    pub interval: Option<String>,
    /// Time between looks at the files: `1h`.
    pub file_interval: Option<String>,
    /// Time between scans that users ask for: `1m`.
    pub rescan_interval: Option<String>,
    /// Operations in flight at most.
    pub width: Option<u32>,
    /// Operations a second at most.
    pub operations_per_second: Option<f64>,
    /// Whether scanning gives way to everybody else.
    pub background: Option<bool>,
    /// Deepest directory below the root.
    pub max_depth: Option<u32>,
    /// `auto`, `all`, or globs.
    pub candidates: Option<OneOrMany>,
    /// Globs of paths below the root that are left out.
    pub exclude: Option<Vec<String>>,
    /// Names of directories that are not entered.
    pub skip: Option<Vec<String>>,
    /// Whether other file systems mounted below are entered.
    pub cross_file_systems: Option<bool>,
    /// Whether symbolic links are followed.
    pub follow_symlinks: Option<bool>,
    /// Regular expressions with the groups `repository` and `tag`.
    pub naming: Option<Vec<String>>,
    /// Age up to which an incomplete file is taken to be still written.
    pub transfer_age: Option<String>,
    /// Whether labels are looked for inside file systems.
    pub inside_file_systems: Option<bool>,
    /// Whether inotify is used on local file systems.
    pub hints: Option<bool>,
    /// Whether whole files are digested in the background.
    pub content_digest: Option<bool>,
    /// Bytes a second that are read for that at most.
    pub digest_bytes_per_second: Option<u64>,
}

/// A string or a list of them.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged, expecting = "neither a text nor a list of texts")]
pub enum OneOrMany {
    /// One.
    One(String),
    /// Several.
    Many(Vec<String>),
}

impl Raw {
    /// This file over an earlier one: what it says counts, roots are added.
    #[must_use]
    pub fn over(self, earlier: Self) -> Self {
        let sources = self.sources.over(
            earlier.sources,
            &[
                ("system", self.system.is_some()),
                ("state_directory", self.state_directory.is_some()),
                ("listen", self.listen.is_some()),
                ("interval", self.defaults.interval.is_some()),
            ],
        );
        let mut roots = earlier.roots;
        for root in self.roots {
            roots.retain(|other| other.path != root.path);
            roots.push(root);
        }
        Self {
            system: self.system.or(earlier.system),
            state_directory: self.state_directory.or(earlier.state_directory),
            listen: self.listen.or(earlier.listen),
            allow_insecure_remote: self.allow_insecure_remote.or(earlier.allow_insecure_remote),
            socket_mode: self.socket_mode.or(earlier.socket_mode),
            landlock: self.landlock.or(earlier.landlock),
            tls: match (self.tls, earlier.tls) {
                (Some(tls), Some(earlier)) => Some(tls.over(earlier)),
                (tls, earlier) => tls.or(earlier),
            },
            admin_group: self.admin_group.or(earlier.admin_group),
            plain_tcp: self.plain_tcp.or(earlier.plain_tcp),
            metrics: self.metrics.or(earlier.metrics),
            log_format: self.log_format.or(earlier.log_format),
            log: self.log.or(earlier.log),
            defaults: self.defaults.over(&earlier.defaults),
            roots,
            sources,
        }
    }
}

impl RawTls {
    fn over(self, other: Self) -> Self {
        Self {
            cert: self.cert.or(other.cert),
            key: self.key.or(other.key),
            client_ca: self.client_ca.or(other.client_ca),
            allow: self.allow.or(other.allow),
        }
    }
}

impl RawRoot {
    /// These settings, and where they say nothing, the others.
    #[must_use]
    pub fn over(self, other: &Self) -> Self {
        Self {
            path: self.path.or_else(|| other.path.clone()),
            interval: self.interval.or_else(|| other.interval.clone()),
            file_interval: self.file_interval.or_else(|| other.file_interval.clone()),
            rescan_interval: self
                .rescan_interval
                .or_else(|| other.rescan_interval.clone()),
            width: self.width.or(other.width),
            operations_per_second: self.operations_per_second.or(other.operations_per_second),
            background: self.background.or(other.background),
            max_depth: self.max_depth.or(other.max_depth),
            candidates: self.candidates.or_else(|| other.candidates.clone()),
            exclude: self.exclude.or_else(|| other.exclude.clone()),
            skip: self.skip.or_else(|| other.skip.clone()),
            cross_file_systems: self.cross_file_systems.or(other.cross_file_systems),
            follow_symlinks: self.follow_symlinks.or(other.follow_symlinks),
            naming: self.naming.or_else(|| other.naming.clone()),
            transfer_age: self.transfer_age.or_else(|| other.transfer_age.clone()),
            inside_file_systems: self.inside_file_systems.or(other.inside_file_systems),
            hints: self.hints.or(other.hints),
            content_digest: self.content_digest.or(other.content_digest),
            digest_bytes_per_second: self
                .digest_bytes_per_second
                .or(other.digest_bytes_per_second),
        }
    }
}
