//! The command line: one file a subcommand.

mod agent;
mod bar;
mod candidates;
mod column;
mod connect;
mod details;
mod doctor;
mod duplicates;
mod exit;
mod generate;
mod inspect;
mod json;
mod lines;
mod listing;
mod ls;
mod printer;
mod render;
mod rescan;
mod scan;
mod status;
mod table;
mod targets;
mod unit;
mod usage;
mod verify;
mod watch;

use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

pub use self::exit::Exit;

/// What the numbers of [`Exit`] mean, for people.
const EXIT_CODES: &str = "\
Exit codes: 0 done; 1 failed; 2 wrong usage or configuration;
3 done, but something could not be read; 4 not an image, or a signature is not valid;
5 the agent does not answer.";

/// Which Singularity and Apptainer images are on this machine's file systems.
#[derive(Debug, Parser)]
#[command(
    name = "sifter",
    version,
    propagate_version = true,
    max_term_width = 100
)]
#[command(after_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Scan(scan::Args),
    Inspect(inspect::Args),
    Ls(ls::Args),
    Watch(watch::Args),
    Status(status::Args),
    Rescan(rescan::Args),
    Agent(agent::Args),
    CheckConfig(agent::CheckArgs),
    Doctor(doctor::Args),
    #[command(hide = true)]
    Generate(generate::Args),
}

/// Parses the command line and runs it.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) if error.use_stderr() => {
            // Not in colours: there the words are as they were given, and for `*` the shell gives names from disk.
            for line in error.render().to_string().lines() {
                let _ = writeln!(std::io::stderr(), "{}", crate::escape::terminal(line));
            }
            return Exit::Usage.into();
        }
        // Help or version: what was asked for, and not there unless it was written.
        Err(help) => {
            let done = help.print().and_then(|()| std::io::stdout().flush());
            return ended(printed(done.map(|()| Exit::Success).map_err(Into::into)));
        }
    };
    let result = match cli.command {
        Command::Scan(args) => printed(scan::run(args)),
        Command::Inspect(args) => printed(inspect::run(args)),
        Command::Ls(args) => printed(ls::run(args)),
        Command::Watch(args) => printed(watch::run(args)),
        Command::Status(args) => printed(status::run(args)),
        Command::Rescan(args) => printed(rescan::run(args)),
        Command::Agent(args) => agent::run(args),
        Command::CheckConfig(args) => printed(agent::check(args)),
        Command::Doctor(args) => printed(doctor::run(args)),
        Command::Generate(args) => generate::run(&args),
    };
    ended(result)
}

/// What a command that prints ended with. It says itself what it could not read: what says nothing more than
/// the system is about its output.
fn printed(result: anyhow::Result<Exit>) -> anyhow::Result<Exit> {
    result.map_err(|error| match error.chain().next() {
        Some(outermost) if outermost.is::<std::io::Error>() => error.context("standard output"),
        _ => error,
    })
}

/// The exit code of a command, with a message where it failed.
fn ended(result: anyhow::Result<Exit>) -> ExitCode {
    match result {
        Ok(exit) => exit.into(),
        // Whoever reads our output has seen enough.
        Err(error) if is_broken_pipe(&error) => Exit::Success.into(),
        Err(error) => {
            let exit = error
                .downcast_ref::<WithExit>()
                .map_or(Exit::Failure, |error| error.0);
            complain(&format!("{error:#}"));
            exit.into()
        }
    }
}

/// The command, for man pages and completions.
#[must_use]
pub fn command() -> clap::Command {
    Cli::command()
}

/// An error that ends the command with a certain exit code.
#[derive(Debug, thiserror::Error)]
#[error("{1}")]
struct WithExit(Exit, String);

impl WithExit {
    fn error(exit: Exit, message: impl Into<String>) -> anyhow::Error {
        Self(exit, message.into()).into()
    }
}

/// A message on standard error. What is wrong in a file is shown in several lines, of which only the first can
/// look like a message.
fn complain(message: &str) {
    let lines: Vec<_> = message.lines().map(crate::escape::terminal).collect();
    let _ = writeln!(std::io::stderr().lock(), "sifter: {}", lines.join("\n  "));
}

/// Where an image is, if it is on this machine: its path to the byte.
fn path_of(image: &sifter_proto::v1::Image) -> &Path {
    let bytes = match &*image.raw_path {
        [] => image.path.as_bytes(),
        raw => raw,
    };
    Path::new(OsStr::from_bytes(bytes))
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause
            .downcast_ref::<std::io::Error>()
            .is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn command_line_is_consistent() {
        super::command().debug_assert();
    }
}
