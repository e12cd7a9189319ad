//! Configuration, in three stages: files as written ([`Raw`]), merged, validated ([`Settings`]).
//!
//! Precedence: the main file, then its drop-ins `<file>.d/*.toml` in the order of their names, then
//! the command line.

mod access;
mod duration;
mod listen;
mod place;
mod problem;
mod raw;
mod read;
mod root;
mod source;
mod understood;

use std::path::PathBuf;

pub use self::access::{AccessSettings, PlainTcp, TlsSettings};
pub use self::duration::duration;
pub use self::listen::Listen;
pub use self::problem::ConfigProblem;
pub use self::raw::{Raw, RawRoot, RawTls};
pub use self::read::read;
pub use self::root::{Candidates, RootSettings};

use self::problem::ConfigProblems;

/// Where the agent's configuration is by default.
pub const DEFAULT_FILE: &str = "/etc/sifter/agent.toml";

/// Where the agent listens by default.
pub const DEFAULT_SOCKET: &str = "unix:/run/sifter/agent.sock";

/// Longest name of a system, which the control plane takes no longer.
const MAX_SYSTEM: usize = 255;

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
    /// Files are no TOML or have keys that are not known, or values make no sense.
    #[error("{}", problem::listed(problems))]
    Values {
        /// Each of them; there is one at least.
        problems: Vec<ConfigProblem>,
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

/// How is logged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogSettings {
    /// One JSON object a line.
    pub json: bool,
    /// Filter, as in `RUST_LOG`.
    pub filter: String,
}

impl Settings {
    /// Validates. Pure but for the host's name, which is the default of `system`.
    ///
    /// # Errors
    ///
    /// Every value that makes no sense, with its line, its key and what would be right.
    pub fn validate(mut raw: Raw) -> Result<Self, ConfigError> {
        let sources = std::mem::take(&mut raw.sources);
        let mut problems = ConfigProblems::default();
        let settings = Self::checked(raw, &mut problems);
        let problems = sources.placed(problems);
        if problems.is_empty() {
            return Ok(settings);
        }
        Err(ConfigError::Values { problems })
    }

    /// What is of use only if there are no problems.
    fn checked(raw: Raw, problems: &mut ConfigProblems) -> Self {
        let allow_insecure_remote = raw.allow_insecure_remote.unwrap_or(false);
        let listen = access::listen_all(
            raw.listen,
            raw.tls.is_some(),
            allow_insecure_remote,
            problems,
        );
        let tls = raw.tls.map(|tls| TlsSettings::validate(tls, problems));
        let access = AccessSettings::validate(raw.admin_group, raw.plain_tcp.as_deref(), problems);
        let metrics = raw
            .metrics
            .and_then(|text| problems.take("metrics", access::metrics(&text, &listen)));
        let socket_mode = raw.socket_mode.and_then(|text| {
            let mode = u32::from_str_radix(&text, 8).ok();
            let mode = mode.filter(|mode| *mode <= 0o777);
            problems.take(
                "socket_mode",
                mode.ok_or_else(|| format!("`{text}` is no octal mode, as in 0660")),
            )
        });
        let log = LogSettings::validate(raw.log_format.as_deref(), raw.log, problems);
        let system = system_name(raw.system, problems);
        if let Some(directory) = &raw.state_directory
            && !directory.is_absolute()
        {
            // Where it would be depends on who starts the agent, and from where.
            problems.add(
                "state_directory",
                format!("{} must be absolute", crate::escape::path(directory)),
            );
        }
        if raw.roots.is_empty() {
            problems.add_absent(
                "root",
                "no image directory: add [[root]] with path = \"/where/images/are\"",
            );
        }
        let mut defaults = raw.defaults;
        if defaults.path.take().is_some() {
            problems.add(
                "defaults.path",
                "is no default: name image directories with [[root]]",
            );
        }
        let mut roots: Vec<RootSettings> = Vec::new();
        for root in raw.roots {
            if let Some(root) = RootSettings::validate(root.over(&defaults), problems) {
                root::check_overlap(&roots, &root, problems);
                roots.push(root);
            }
        }
        Self {
            system,
            state_directory: raw.state_directory,
            listen,
            // Who may see what is decided by who asks.
            socket_mode: socket_mode.unwrap_or(0o666),
            allow_insecure_remote,
            landlock: raw.landlock.unwrap_or(true),
            tls,
            access,
            metrics,
            log,
            roots,
        }
    }
}

/// The cluster's name: this host's where none is given.
fn system_name(given: Option<String>, problems: &mut ConfigProblems) -> String {
    let system = given.unwrap_or_else(host_name);
    if system.trim().is_empty() {
        problems.add(
            "system",
            "is empty: name the cluster, or leave it out for this host's name",
        );
    }
    // It is in every answer, and in logs and tables.
    if system.contains(char::is_control) {
        problems.add(
            "system",
            format!("`{system}` has control characters in it: a name is one line of text"),
        );
    }
    if system.len() > MAX_SYSTEM {
        problems.add(
            "system",
            format!(
                "has {} bytes: a name has at most {MAX_SYSTEM}",
                system.len()
            ),
        );
    }
    system
}

impl LogSettings {
    fn validate(
        format: Option<&str>,
        filter: Option<String>,
        problems: &mut ConfigProblems,
    ) -> Self {
        if let Some(other) = format.filter(|format| !["text", "json"].contains(format)) {
            problems.add("log_format", format!("`{other}` is neither text nor json"));
        }
        let filter = filter.unwrap_or_else(|| "info".to_owned());
        if let Err(error) = tracing_subscriber::EnvFilter::try_new(&filter) {
            problems.add(
                "log",
                format!(
                    "`{filter}` is no filter, as in info or warn,sifter_agent::scan=debug: {error}"
                ),
            );
        }
        Self {
            json: format == Some("json"),
            filter,
        }
    }
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
                "lies within the root /a:",
            ),
            (
                "[[root]]\npath='/a/b'\n[[root]]\npath='/a'",
                "root /a: path: has the root /a/b in it: ",
            ),
            (
                "[[root]]\npath='/a'\n[[root]]\npath='/a/'",
                "path: is the same as that of another root: ",
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
                &format!("system='{}'\n[[root]]\npath='/a'", "x".repeat(256)),
                "system: has 256 bytes",
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
            ("[[root]]\npath='/a'\ninterval='0s'", "from 1s to 100y"),
            ("[[root]]\npath='/a'\ninterval='101y'", "from 1s to 100y"),
            (
                "[[root]]\npath='/a'\nfile_interval='101y'",
                "file_interval: must be at most 100y",
            ),
            (
                "[[root]]\npath='/a'\nrescan_interval='101y'",
                "rescan_interval: must be at most 100y",
            ),
            (
                "[[root]]\npath='/a'\noperations_per_second=1e-9",
                "at least 0.001",
            ),
            ("[[root]]\npath='/a'\ncandidates=[]", "candidates: no glob"),
            ("[defaults]\npath='/a'\n[[root]]", "defaults.path: "),
            ("[[root]]\npath='/a'\nwidth=0", "at least 1"),
            ("[[root]]\npath='/a'\nnaming=['(']", "naming"),
            ("[[root]]\npath='/a'\nskip=['x','a/b']", "skip: `a/b`"),
            ("[[root]]\npath='/a'\nskip=['']", "skip: ``"),
            (
                "[[root]]\npath='/a'\ncandidates=5",
                "neither a text nor a list of texts",
            ),
            ("[[root]]\npath='/a'\nexclude=['[']", "exclude"),
            ("[[root]]\npath='/a'\n[[root]]\npath='/a/b'", "listed twice"),
            (
                "[[root]]\npath='/a'\noperations_per_second=-1.0",
                "0 (no limit), or at least 0.001",
            ),
        ] {
            let error = validate(text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn defaults_and_later_files_come_together() {
        let first: Raw = toml::from_str(
            "system='a'\nlisten=['0.0.0.0:0']\n[defaults]\ninterval='1m'\n[[root]]\npath='/a'\nwidth=3\n\
             [tls]\ncert='/c'\nkey='/k'\nclient_ca='/a'\nallow=['a']",
        )
        .unwrap();
        let second: Raw = toml::from_str(
            "system='b'\n[[root]]\npath='/b'\ninterval='2m'\n[[root]]\npath='/a'\n[tls]\nallow=['b']",
        )
        .unwrap();
        let settings = Settings::validate(second.over(first)).unwrap();
        assert_eq!(settings.system, "b");
        let tls = settings.tls.unwrap();
        assert_eq!(
            (tls.cert.to_str(), &*tls.allow),
            (Some("/c"), &["b".to_owned()][..])
        );
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
