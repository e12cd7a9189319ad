//! The command line: one file a subcommand.

mod call;
mod check_config;
mod escape;
mod generate;
mod manager;
mod policy;
mod serve;

use std::fmt::Display;
use std::io;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use clap::Subcommand;

use crate::config::DEFAULT_PATH;

/// The Sifter control plane: answers ListContainerImages from the agents of an HPC site.
#[derive(Debug, Parser)]
#[command(name = "sifter-control", version, about, max_term_width = 100)]
#[command(after_help = "\
Exit codes: 0 done; 1 failed, or denied by a policy; 2 wrong usage; 3 an error of the API;
4 no answer; 78 wrong configuration.")]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve(serve::Args),
    CheckConfig(check_config::Args),
    Policy(policy::Args),
    Call(call::Args),
    #[command(hide = true)]
    Generate(generate::Args),
}

/// Where the configuration is.
#[derive(Debug, clap::Args)]
struct ConfigFile {
    /// Configuration file.
    #[arg(
        id = "config",
        long = "config",
        short = 'c',
        value_name = "FILE",
        env = "SIFTER_CONTROL_CONFIG",
        default_value = DEFAULT_PATH
    )]
    path: PathBuf,
}

impl Cli {
    /// Parses the command line and does what it says.
    pub fn parse_and_run() -> ExitCode {
        // The one place that chooses the cryptography of the whole process.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let cli = match Self::try_parse() {
            Ok(cli) => cli,
            // Not in colours: there the words are as they were given, and for `*` the shell gives names from disk.
            Err(error) if error.use_stderr() => {
                complain(error.render());
                return ExitCode::from(EXIT_USAGE);
            }
            // Help or version: what was asked for, and not there unless it was written.
            Err(help) => {
                let printed = help.print().and_then(|()| io::stdout().flush());
                return written(printed, ExitCode::SUCCESS);
            }
        };
        match cli.command {
            Command::Serve(args) => serve::run(args),
            Command::CheckConfig(args) => check_config::run(args),
            Command::Policy(args) => policy::run(args),
            Command::Call(args) => call::run(args),
            Command::Generate(args) => generate::run(&args),
        }
    }
}

/// What shells and their tools end with when a command cannot be understood.
const EXIT_USAGE: u8 = 2;

/// Codes of sysexits.h, so that scripts and service managers can tell a wrong configuration (do
/// not restart) from a failure (do).
const EXIT_CONFIG: u8 = 78;

/// Prints the answer to a command, and the code to end with: `code`, if it could be written.
fn answer(answer: impl Display, code: ExitCode) -> ExitCode {
    let mut out = io::stdout().lock();
    written(write!(out, "{answer}").and_then(|()| out.flush()), code)
}

fn written(result: io::Result<()>, code: ExitCode) -> ExitCode {
    match result {
        Ok(()) => code,
        // Whoever reads it has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => code,
        Err(error) => fail(&Unwritten(error), 1),
    }
}

#[derive(Debug, thiserror::Error)]
#[error("standard output")]
struct Unwritten(#[source] io::Error);

/// Prints an error with its causes, and the code to end with.
fn fail(error: &(dyn std::error::Error + 'static), code: u8) -> ExitCode {
    complain(format_args!(
        "sifter-control: {}",
        crate::words::chain(error)
    ));
    ExitCode::from(code)
}

/// A message on standard error, with whatever names are in it. Where that cannot be written, there is nowhere to
/// say so.
fn complain(message: impl Display) {
    let message = message.to_string();
    let lines: Vec<String> = message.lines().map(escape::clean).collect();
    let _ = writeln!(io::stderr().lock(), "{}", lines.join("\n"));
}

#[cfg(test)]
mod tests {
    use clap::{Command, CommandFactory, Parser};

    use super::Cli;

    /// What commands do is said in the words of `sifter`: scan, list, show.
    #[test]
    fn commands_say_what_they_do_alike() {
        fn check(command: &Command) {
            for command in command.get_subcommands() {
                let about = command.get_about().expect("about").to_string();
                let does = about.split(' ').next().unwrap_or_default();
                assert!(!does.ends_with('s') && !about.ends_with('.'), "{about}");
                check(command);
            }
        }
        check(&Cli::command());
    }

    #[test]
    fn a_configuration_is_named_as_to_the_agent() {
        for option in ["-c", "--config"] {
            let cli = Cli::try_parse_from(["sifter-control", "check-config", option, "/a"]);
            let cli = cli.expect(option);
            let super::Command::CheckConfig(args) = cli.command else {
                panic!("{cli:?}");
            };
            assert_eq!(args.config.path.to_str(), Some("/a"));
        }
    }
}
