//! Configuration, in three stages: files as written ([`Raw`]), merged, validated ([`Settings`]).
//!
//! Precedence: the main file, then its drop-ins `<file>.d/*.toml` in the order of their names, then
//! the command line.

mod access;
mod raw;
mod root;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use globset::{Glob, GlobSet, GlobSetBuilder};
use sifter_image::reference::NamingRule;

pub use self::access::{AccessSettings, DEFAULT_ADMIN_GROUP, PlainTcp, TlsSettings};
pub use self::raw::{OneOrMany, Raw, RawRoot, RawTls};
pub use self::root::{
    Candidates, DEPTH_MAX, DIGEST_BYTES_PER_SECOND, RootSettings, SKIPPED_DIRECTORIES,
};

/// Where the agent's configuration is by default.
pub const DEFAULT_FILE: &str = "/etc/sifter/agent.toml";

/// Where the agent listens by default.
pub const DEFAULT_SOCKET: &str = "unix:/run/sifter/agent.sock";

/// Longest path of a unix socket, in bytes: `sun_path` has 108, one of them for the NUL at its end.
const SOCKET_PATH_MAX: usize = 107;

/// What is wrong with the configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file cannot be read.
    #[error("{}: {error}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// A file is no TOML, or has keys that are not known.
    #[error("{}: {error}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Where and what.
        error: Box<toml::de::Error>,
    },
    /// A value makes no sense.
    #[error("{key}: {message}")]
    Value {
        /// Which key.
        key: String,
        /// What is wrong, and what would be right.
        message: String,
    },
}

/// Validated configuration of the agent.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The cluster's name.
    pub system: String,
    /// Where the catalogue is kept; `None`: in memory.
    pub state_directory: Option<PathBuf>,
    /// Where the agent listens.
    pub listen: Vec<Listen>,
    /// Permission bits of unix sockets.
    pub socket_mode: u32,
    /// Whether other machines may connect over TCP without TLS.
    pub allow_insecure_remote: bool,
    /// Whether the agent confines itself with Landlock.
    pub landlock: bool,
    /// Certificates, for TLS over TCP.
    pub tls: Option<TlsSettings>,
    /// Who may see what.
    pub access: AccessSettings,
    /// Where metrics are served.
    pub metrics: Option<Listen>,
    /// Log form and filter.
    pub log: LogSettings,
    /// The image directories.
    pub roots: Vec<RootSettings>,
}

/// An address to listen on.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Listen {
    /// A unix socket.
    Unix(PathBuf),
    /// A TCP port.
    Tcp(SocketAddr),
    /// A TCP port with TLS.
    Tls(SocketAddr),
}

/// How is logged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogSettings {
    /// One JSON object a line.
    pub json: bool,
    /// Filter, as in `RUST_LOG`.
    pub filter: String,
}

impl std::str::FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(path) = text.strip_prefix("unix:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            return if !path.starts_with('/') {
                Err(format!("`{text}`: the path of a socket must be absolute"))
            } else if path.contains('\0') {
                Err(format!("`{text}`: there is a NUL in the path"))
            } else if path.len() > SOCKET_PATH_MAX {
                Err(format!(
                    "`{text}`: the path of a socket has at most {SOCKET_PATH_MAX} bytes, and this \
                     one has {}",
                    path.len()
                ))
            } else {
                Ok(Self::Unix(path.into()))
            };
        }
        let (kind, address): (fn(SocketAddr) -> Self, &str) = match text.strip_prefix("tls:") {
            Some(address) => (Self::Tls, address),
            None => (Self::Tcp, text.strip_prefix("tcp:").unwrap_or(text)),
        };
        let address = address.replace("localhost:", "127.0.0.1:");
        address.parse().map(kind).map_err(|_| {
            format!("`{text}` is neither unix:/path nor tls:address:port nor address:port")
        })
    }
}

impl std::fmt::Display for Listen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Tls(address) => write!(f, "tls:{address}"),
        }
    }
}

/// Reads a file and its drop-ins, and merges them.
///
/// # Errors
///
/// A file cannot be read or understood.
pub fn read(path: &Path) -> Result<Raw, ConfigError> {
    let mut raw = read_one(path)?;
    let mut directory = path.as_os_str().to_owned();
    directory.push(".d");
    let mut names = BTreeSet::new();
    match std::fs::read_dir(&directory) {
        Ok(entries) => names.extend(
            entries
                .filter_map(Result::ok)
                .map(|entry| entry.path())
                .filter(|path| path.extension().is_some_and(|ending| ending == "toml")),
        ),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => {
            return Err(ConfigError::Read {
                path: directory.into(),
                error,
            });
        }
    }
    for path in names {
        raw = read_one(&path)?.over(raw);
    }
    Ok(raw)
}

fn read_one(path: &Path) -> Result<Raw, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|error| ConfigError::Read {
        path: path.to_owned(),
        error,
    })?;
    toml::from_str(&text).map_err(|error| ConfigError::Syntax {
        path: path.to_owned(),
        error: Box::new(error),
    })
}

impl Settings {
    /// Validates. Pure but for the host's name, which is the default of `system`.
    ///
    /// # Errors
    ///
    /// The first value that makes no sense, with its key and what would be right.
    pub fn validate(raw: Raw) -> Result<Self, ConfigError> {
        let fail = |key: &str, message: String| ConfigError::Value {
            key: key.to_owned(),
            message,
        };
        let listen: Vec<Listen> = raw
            .listen
            .unwrap_or_else(|| vec![DEFAULT_SOCKET.to_owned()])
            .iter()
            .map(|text| {
                access::listen(text, raw.tls.is_some()).map_err(|message| fail("listen", message))
            })
            .collect::<Result<_, _>>()?;
        if listen.is_empty() {
            return Err(fail(
                "listen",
                "no address: the agent could not be asked".to_owned(),
            ));
        }
        let tls = raw.tls.map(TlsSettings::validate).transpose()?;
        let allow_insecure_remote = raw.allow_insecure_remote.unwrap_or(false);
        access::check_listen(&listen, tls.is_some(), allow_insecure_remote)?;
        let access = AccessSettings::validate(raw.admin_group, raw.plain_tcp.as_deref())?;
        let metrics = raw
            .metrics
            .as_deref()
            .map(|text| access::metrics(text, &listen))
            .transpose()?;
        let socket_mode = match raw.socket_mode {
            // Who may see what is decided by who asks.
            None => 0o666,
            Some(text) => u32::from_str_radix(&text, 8)
                .ok()
                .filter(|mode| *mode <= 0o777)
                .ok_or_else(|| {
                    fail(
                        "socket_mode",
                        format!("`{text}` is no octal mode, as in 0660"),
                    )
                })?,
        };
        let json = match raw.log_format.as_deref() {
            None | Some("text") => false,
            Some("json") => true,
            Some(other) => {
                return Err(fail(
                    "log_format",
                    format!("`{other}` is neither text nor json"),
                ));
            }
        };
        let filter = raw.log.unwrap_or_else(|| "info".to_owned());
        if let Err(error) = tracing_subscriber::EnvFilter::try_new(&filter) {
            return Err(fail(
                "log",
                format!(
                    "`{filter}` is no filter, as in info or warn,sifter_agent::scan=debug: {error}"
                ),
            ));
        }
        let system = raw.system.unwrap_or_else(host_name);
        if system.trim().is_empty() {
            return Err(fail(
                "system",
                "is empty: name the cluster, or leave it out for this host's name".to_owned(),
            ));
        }
        // It is in every answer, and in logs and tables.
        if system.contains(char::is_control) {
            return Err(fail(
                "system",
                format!("`{system}` has control characters in it: a name is one line of text"),
            ));
        }
        if let Some(directory) = &raw.state_directory
            && !directory.is_absolute()
        {
            // Where it would be depends on who starts the agent, and from where.
            return Err(fail(
                "state_directory",
                format!("{} must be absolute", crate::escape::path(directory)),
            ));
        }
        if raw.roots.is_empty() {
            return Err(fail(
                "root",
                "no image directory: add [[root]] with path = \"/where/images/are\"".to_owned(),
            ));
        }
        let defaults = raw.defaults;
        let mut roots: Vec<RootSettings> = Vec::new();
        for root in raw.roots {
            let root = validate_root(root.over(&defaults))?;
            check_overlap(&roots, &root)?;
            roots.push(root);
        }
        Ok(Self {
            system,
            state_directory: raw.state_directory,
            listen,
            socket_mode,
            allow_insecure_remote,
            landlock: raw.landlock.unwrap_or(true),
            tls,
            access,
            metrics,
            log: LogSettings { json, filter },
            roots,
        })
    }
}

fn validate_root(raw: RawRoot) -> Result<RootSettings, ConfigError> {
    let path = raw.path.ok_or_else(|| ConfigError::Value {
        key: "root.path".to_owned(),
        message: "missing".to_owned(),
    })?;
    let shown = crate::escape::path(&path);
    let fail = |key: &str, message: String| ConfigError::Value {
        key: format!("root {shown}: {key}"),
        message,
    };
    if !path.is_absolute() {
        return Err(fail("path", "must be absolute".to_owned()));
    }
    if path.components().any(|part| part == Component::ParentDir) {
        return Err(fail("path", "must do without `..`".to_owned()));
    }
    // Without a slash at the end, say: it is the beginning of the paths of all images in it.
    let mut root = RootSettings::new(path.components().collect());
    let span = |key: &str, text: Option<String>, default: Duration| match text {
        None => Ok(default),
        Some(text) => duration(&text).ok_or_else(|| {
            fail(
                key,
                format!("`{text}` is no duration, as in 30s, 5m, 12h, 2d"),
            )
        }),
    };
    root.interval = span("interval", raw.interval, root.interval)?;
    root.file_interval = span("file_interval", raw.file_interval, root.file_interval)?;
    root.transfer_age = span("transfer_age", raw.transfer_age, root.transfer_age)?;
    if root.interval < Duration::from_secs(1) {
        return Err(fail("interval", "must be at least 1s".to_owned()));
    }
    root.file_interval = root.file_interval.max(root.interval);
    if raw.width == Some(0) {
        return Err(fail("width", "must be at least 1".to_owned()));
    }
    root.width = raw.width;
    if raw
        .operations_per_second
        .is_some_and(|rate| !(0.0..=1e9).contains(&rate))
    {
        return Err(fail(
            "operations_per_second",
            "must be 0 (no limit) or more".to_owned(),
        ));
    }
    root.operations_per_second = raw.operations_per_second;
    root.background = raw.background.unwrap_or(root.background);
    root.max_depth = raw.max_depth.unwrap_or(root.max_depth);
    root.candidates = match raw.candidates {
        None => root.candidates,
        Some(OneOrMany::One(text)) if text == "auto" => Candidates::Auto,
        Some(OneOrMany::One(text)) if text == "all" => Candidates::All,
        Some(OneOrMany::One(text)) => {
            Candidates::Globs(globs(&[text]).map_err(|message| fail("candidates", message))?)
        }
        Some(OneOrMany::Many(texts)) => {
            Candidates::Globs(globs(&texts).map_err(|message| fail("candidates", message))?)
        }
    };
    if let Some(texts) = raw.exclude {
        root.exclude = globs(&texts).map_err(|message| fail("exclude", message))?;
    }
    if let Some(names) = raw.skip {
        root.skip = names.into_iter().map(String::into_bytes).collect();
    }
    root.cross_file_systems = raw.cross_file_systems.unwrap_or(root.cross_file_systems);
    root.follow_symlinks = raw.follow_symlinks.unwrap_or(root.follow_symlinks);
    root.naming = raw
        .naming
        .unwrap_or_default()
        .iter()
        .map(|text| NamingRule::new(text).map_err(|message| fail("naming", message)))
        .collect::<Result<_, _>>()?;
    root.inside_file_systems = raw.inside_file_systems.unwrap_or(root.inside_file_systems);
    root.hints = raw.hints.unwrap_or(root.hints);
    root.content_digest = raw.content_digest.unwrap_or(root.content_digest);
    root.digest_bytes_per_second = raw
        .digest_bytes_per_second
        .unwrap_or(root.digest_bytes_per_second);
    Ok(root)
}

/// An image is listed once: a root within another one would list its images twice.
fn check_overlap(roots: &[RootSettings], new: &RootSettings) -> Result<(), ConfigError> {
    for root in roots {
        if new.path.starts_with(&root.path) || root.path.starts_with(&new.path) {
            return Err(ConfigError::Value {
                key: format!("root {}: path", crate::escape::path(&new.path)),
                message: format!(
                    "lies within the root {}, or that one in it: every image would be listed twice; \
                     keep one of them",
                    crate::escape::path(&root.path)
                ),
            });
        }
    }
    Ok(())
}

fn globs(texts: &[String]) -> Result<GlobSet, String> {
    let mut set = GlobSetBuilder::new();
    for text in texts {
        set.add(Glob::new(text).map_err(|error| error.to_string())?);
    }
    set.build().map_err(|error| error.to_string())
}

/// A duration as people write it: `30s`, `5m`, `12h`, `2d`.
#[must_use]
pub fn duration(text: &str) -> Option<Duration> {
    let split = text.len().checked_sub(1)?;
    let (number, unit) = (text.get(..split)?, text.get(split..)?);
    let seconds: u64 = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        "w" => 604_800,
        _ => return None,
    };
    number
        .parse::<u64>()
        .ok()?
        .checked_mul(seconds)
        .map(Duration::from_secs)
}

/// This host's name.
#[must_use]
pub fn host_name() -> String {
    nix::unistd::gethostname()
        .ok()
        .and_then(|name| name.into_string().ok())
        .unwrap_or_else(|| "localhost".to_owned())
}

#[cfg(test)]
mod tests {
    use super::{Raw, Settings};

    fn validate(text: &str) -> Result<Settings, String> {
        let raw: Raw = toml::from_str(text).map_err(|error| error.to_string())?;
        Settings::validate(raw).map_err(|error| error.to_string())
    }

    #[test]
    fn what_makes_no_sense_is_refused_and_named() {
        for (text, expected) in [
            ("", "root: no image directory"),
            ("typo = 1", "unknown field"),
            ("[[root]]", "root.path: missing"),
            ("[[root]]\npath='relative'", "must be absolute"),
            (
                "[[root]]\npath='/a/../b'",
                "root /a/../b: path: must do without `..`",
            ),
            (
                "[[root]]\npath='/a/'\n[[root]]\npath='/a/./b//c'",
                "lies within the root /a,",
            ),
            (
                "listen=['0.0.0.0:1']\n[[root]]\npath='/a'",
                "allow_insecure_remote",
            ),
            (
                "listen=['nonsense']\n[[root]]\npath='/a'",
                "neither unix:/path",
            ),
            (
                "listen=['unix:rel']\n[[root]]\npath='/a'",
                "must be absolute",
            ),
            ("listen=[]\n[[root]]\npath='/a'", "no address"),
            ("socket_mode='999'\n[[root]]\npath='/a'", "octal"),
            ("log='info,=x'\n[[root]]\npath='/a'", "log: `info,=x`"),
            ("system=''\n[[root]]\npath='/a'", "system: is empty"),
            ("system=' '\n[[root]]\npath='/a'", "system: is empty"),
            (
                "system=\"a\\nb\"\n[[root]]\npath='/a'",
                "control characters",
            ),
            (
                "state_directory='state'\n[[root]]\npath='/a'",
                "state_directory: state must be absolute",
            ),
            (
                "state_directory=''\n[[root]]\npath='/a'",
                "must be absolute",
            ),
            (
                "listen=[\"unix:/a\\u0000b\"]\n[[root]]\npath='/a'",
                "listen: ",
            ),
            ("[[root]]\npath='/a'\ninterval='5'", "no duration"),
            ("[[root]]\npath='/a'\ninterval='0s'", "at least 1s"),
            ("[[root]]\npath='/a'\nwidth=0", "at least 1"),
            ("[[root]]\npath='/a'\nnaming=['(']", "naming"),
            ("[[root]]\npath='/a'\nexclude=['[']", "exclude"),
            ("[[root]]\npath='/a'\n[[root]]\npath='/a/b'", "listed twice"),
            (
                "[[root]]\npath='/a'\noperations_per_second=-1.0",
                "0 (no limit) or more",
            ),
        ] {
            let error = validate(text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn defaults_and_later_files_come_together() {
        let first: Raw = toml::from_str(
            "system='a'\nlisten=['127.0.0.1:0']\n[defaults]\ninterval='1m'\n[[root]]\npath='/a'\nwidth=3",
        )
        .unwrap();
        let second: Raw =
            toml::from_str("system='b'\n[[root]]\npath='/b'\ninterval='2m'\n[[root]]\npath='/a'")
                .unwrap();
        let settings = Settings::validate(second.over(first)).unwrap();
        assert_eq!(settings.system, "b");
        let roots: Vec<_> = settings
            .roots
            .iter()
            .map(|root| {
                (
                    root.path.to_str().unwrap(),
                    root.interval.as_secs(),
                    root.width,
                )
            })
            .collect();
        assert_eq!(roots, [("/b", 120, None), ("/a", 60, None)]);
    }

    #[test]
    fn the_path_of_a_socket_is_as_long_as_the_kernel_takes() {
        let directory = tempfile::tempdir().unwrap();
        let base = directory.path().to_str().unwrap().to_owned() + "/";
        for (length, fits) in [(107, true), (108, false)] {
            let path = format!("{base}{}", "s".repeat(length - base.len()));
            let bound = std::os::unix::net::UnixListener::bind(&path);
            assert_eq!(bound.is_ok(), fits, "{length}: {bound:?}");
            for key in ["listen=['unix:PATH']", "metrics='unix:PATH'"] {
                let text = format!("{key}\n[[root]]\npath='/a'").replace("PATH", &path);
                match validate(&text) {
                    Ok(_) => assert!(fits, "{text}"),
                    Err(error) => assert!(
                        !fits && error.contains("at most 107 bytes, and this one has 108"),
                        "{error}"
                    ),
                }
            }
        }
    }

    #[test]
    fn loopback_needs_no_permission() {
        let settings = validate(
            "listen=['127.0.0.1:7', '[::1]:7', 'localhost:8', 'unix:/run/x']\n[[root]]\npath='/a'",
        )
        .unwrap();
        assert_eq!(settings.listen.len(), 4);
        assert_eq!(settings.socket_mode, 0o666);
    }
}
