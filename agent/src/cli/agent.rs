//! `sifter agent`: the service itself.

use std::io::Write;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use sifter_journal::leads_to_journal;
use sifter_tls::TlsError;

use crate::config::{self, Raw, RawRoot, Settings};
use crate::net::Loaded;
use crate::run;
use crate::telemetry::{self, Terminal};
use crate::words::count;

use super::{Exit, WithExit, unit};

/// Run the agent: scan directories and serve the listing over gRPC
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    config: ConfigArgs,

    /// Show the scans that run below the log, where standard error is a terminal
    #[arg(long)]
    foreground: bool,
}

/// Check the configuration, and the certificates that it names, and print what is wrong
///
/// For root, the configuration of sifter-agent.service is checked as the user who runs that.
#[derive(Debug, clap::Args)]
pub struct CheckArgs {
    #[command(flatten)]
    config: ConfigArgs,
}

/// Where the configuration comes from.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct ConfigArgs {
    /// Configuration file; drop-ins in FILE.d/*.toml [default: /etc/sifter/agent.toml, unless
    /// --root is given]
    #[arg(long, short, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Image directory to scan; several: repeat
    #[arg(long, value_name = "DIR")]
    root: Vec<PathBuf>,

    /// Address to listen on: `unix:/path` or `address:port`; several: repeat
    #[arg(long, value_name = "ADDRESS")]
    listen: Vec<String>,

    /// The cluster's name [default: this host's]
    #[arg(long, value_name = "NAME")]
    system: Option<String>,

    /// Where the catalogue is kept [default: in memory, unless configured]
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,

    /// Time between two scans: `30s`, `5m`
    #[arg(long, value_name = "DURATION")]
    interval: Option<String>,

    /// Let other machines connect over TCP without TLS
    #[arg(long)]
    allow_insecure_remote: bool,
}

impl ConfigArgs {
    fn file(&self) -> Option<PathBuf> {
        match &self.config {
            Some(file) => Some(file.clone()),
            None if self.root.is_empty() => Some(config::DEFAULT_FILE.into()),
            None => None,
        }
    }

    /// The files that are read again at a reload; drop-ins lie beside.
    fn files(&self) -> Vec<PathBuf> {
        let file = self.file().into_iter();
        file.filter_map(|file| std::path::absolute(file).ok())
            .collect()
    }

    /// For root, who asks of the configuration of the agent's unit: goes on as its user, and gives the name. Whoever
    /// runs the agent is the one who must be able to do all that.
    pub(super) fn become_its_user(&self) -> Option<String> {
        let files = self.files();
        files.first().and_then(|file| unit::become_its_user(file))
    }

    /// The validated configuration.
    pub(super) fn resolve(self) -> anyhow::Result<Settings> {
        let wrong = |error: &dyn std::fmt::Display| {
            WithExit::error(Exit::Usage, format!("configuration: {error}"))
        };
        let file = self.file();
        let raw = match file {
            Some(file) => config::read(&file).map_err(|error| match self.config {
                None if !file.exists() => wrong(&format_args!(
                    "{error} (another file: --config FILE; without one: --root DIRECTORY)"
                )),
                _ => wrong(&error),
            })?,
            None => Raw::default(),
        };
        let mut roots = Vec::new();
        for path in self.root {
            roots.push(RawRoot {
                path: Some(absolute(&path).map_err(|error| wrong(&error))?),
                ..RawRoot::default()
            });
        }
        // Relative to where the command is given; in a file that would be nowhere.
        let state_directory = match self.state_dir {
            Some(directory) if directory.is_relative() && !directory.as_os_str().is_empty() => {
                Some(absolute(&directory).map_err(|error| wrong(&error))?)
            }
            given => given,
        };
        let given = Raw {
            system: self.system,
            state_directory,
            listen: (!self.listen.is_empty()).then_some(self.listen),
            allow_insecure_remote: self.allow_insecure_remote.then_some(true),
            defaults: RawRoot {
                interval: self.interval,
                ..RawRoot::default()
            },
            roots,
            ..Raw::default()
        };
        Settings::validate(given.over(raw)).map_err(|error| wrong(&error))
    }
}

/// A path that is relative to the working directory, which somebody may have removed.
fn absolute(path: &Path) -> Result<PathBuf, String> {
    std::path::absolute(path).map_err(|error| format!("{}: {error}", crate::escape::path(path)))
}

/// What a configuration is about, in one line.
pub(super) fn summary(settings: &Settings) -> String {
    format!(
        "system {}, {}, {}",
        crate::escape::terminal(&settings.system),
        count(settings.roots.len() as u64, "root"),
        count(settings.listen.len() as u64, "address")
    )
}

/// Runs the agent.
///
/// # Errors
///
/// The configuration is wrong, or the agent cannot start.
pub fn run(args: Args) -> anyhow::Result<Exit> {
    run::hold_back_hangup();
    let again = args.config.clone();
    let settings = args.config.resolve()?;
    let terminal = args.foreground.then(Terminal::of_standard_error);
    let terminal = terminal.flatten();
    // However the agent ends: what is still shown of a scan is not what the shell writes behind.
    let _cleared = terminal.clone().map(Cleared);
    telemetry::start(&settings.log, terminal.clone())
        .map_err(|error| WithExit::error(Exit::Usage, error))?;
    let files = again.files();
    let reload = Box::new(move || again.clone().resolve());
    let shown = terminal.clone();
    let ran = run::agent(settings, &files, reload, terminal, |addresses| {
        // The log says it there.
        if leads_to_journal(std::io::stdout()) {
            return;
        }
        let print = || {
            let mut out = std::io::stdout().lock();
            for address in addresses {
                let _ = writeln!(out, "listening on {address}");
            }
            let _ = out.flush();
        };
        match shown {
            Some(terminal) => terminal.bars().suspend(print),
            None => print(),
        }
    });
    ran.map_err(|error| match error.downcast_ref() {
        Some(certificates) => wrong_certificates(certificates),
        None => error,
    })?;
    Ok(Exit::Success)
}

/// An error that the user of the agent's unit has met.
pub(super) fn found_as(user: Option<&str>, error: anyhow::Error) -> anyhow::Error {
    match user {
        Some(user) => error.context(format!("as the user {user}, who runs {}", unit::UNIT)),
        None => error,
    }
}

/// Certificates and keys are part of the configuration: starting again would not mend them.
fn wrong_certificates(error: &TlsError) -> anyhow::Error {
    WithExit::error(Exit::Usage, format!("configuration: {error}"))
}

/// Takes the lower lines from a terminal when dropped.
struct Cleared(Terminal);

impl Drop for Cleared {
    fn drop(&mut self) {
        self.0.clear();
    }
}

/// Checks the configuration.
///
/// # Errors
///
/// What is wrong with it.
pub fn check(args: CheckArgs) -> anyhow::Result<Exit> {
    let user = args.config.become_its_user();
    let settings = args.config.resolve();
    let checked = settings.and_then(|settings| {
        let loaded = settings.tls.as_ref().map(Loaded::read).transpose();
        Ok((
            loaded.map_err(|error| wrong_certificates(&error))?,
            settings,
        ))
    });
    let (loaded, settings) = checked.map_err(|error| found_as(user.as_deref(), error))?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "configuration is good: {}", summary(&settings))?;
    for held in loaded.iter().flat_map(|loaded| &loaded.held) {
        for note in held.notes(Timestamp::now()) {
            writeln!(out, "note: {}", crate::escape::terminal(&note))?;
        }
    }
    Ok(Exit::Success)
}
