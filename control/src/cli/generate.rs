//! `sifter-control generate`: man pages and completions, for packages. Hidden from the help: it is of
//! no use on a host.

use std::path::Path;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::CommandFactory;
use clap_complete::Shell;

/// The shells whose completions packages carry.
const SHELLS: [Shell; 3] = [Shell::Bash, Shell::Zsh, Shell::Fish];

/// Write man pages or completions
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// What to write.
    what: What,
    /// Directory to write to; made if it is missing.
    #[arg(value_name = "DIR")]
    directory: PathBuf,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum What {
    /// One page a subcommand, in section 1.
    Man,
    /// bash, zsh and fish.
    Completions,
}

pub(super) fn run(args: &Args) -> ExitCode {
    match write(args.what, &args.directory) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => super::fail(&error, 1),
    }
}

fn write(what: What, directory: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(directory)?;
    match what {
        What::Man => clap_mangen::generate_to(super::Cli::command(), directory)?,
        What::Completions => {
            let mut command = shown(&super::Cli::command());
            let name = command.get_name().to_owned();
            for shell in SHELLS {
                clap_complete::generate_to(shell, &mut command, &name, directory)?;
            }
        }
    }
    Ok(())
}

/// Without what is hidden: completions would offer it.
fn shown(command: &clap::Command) -> clap::Command {
    let subcommands = command.get_subcommands();
    clap::Command::new("sifter-control")
        .version(env!("CARGO_PKG_VERSION"))
        .about(command.get_about().cloned().unwrap_or_default())
        .args(command.get_arguments())
        .subcommands(
            subcommands
                .filter(|command| !command.is_hide_set())
                .cloned(),
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shown_subcommand_has_a_page() {
        let directory = tempfile::tempdir().expect("a directory");
        write(What::Man, directory.path()).expect("pages");
        write(What::Completions, directory.path()).expect("completions");
        for command in super::super::Cli::command().get_subcommands() {
            let name = format!("sifter-control-{}.1", command.get_name());
            let is_there = directory.path().join(&name).exists();
            assert_eq!(is_there, !command.is_hide_set(), "{name}");
            for shell in [
                "sifter-control.bash",
                "_sifter-control",
                "sifter-control.fish",
            ] {
                let text = std::fs::read_to_string(directory.path().join(shell)).expect(shell);
                let is_offered = text.contains(command.get_name());
                assert_eq!(is_offered, !command.is_hide_set(), "{name} in {shell}");
            }
        }
        // Where it is not on the page of an action below.
        for name in ["sifter-control-serve.1", "sifter-control-check-config.1"] {
            let text = std::fs::read_to_string(directory.path().join(name)).expect(name);
            assert!(text.contains("Ends with 0"), "{name}: {text}");
        }
        for (name, variable) in [
            ("sifter-control-serve.1", "SIFTER_CONTROL_CONFIG"),
            (
                "sifter-control-call-ListContainerImages.1",
                "ALIBABA_CLOUD_ACCESS_KEY_ID",
            ),
        ] {
            let text = std::fs::read_to_string(directory.path().join(name)).expect(name);
            assert!(text.contains(variable), "{name}: {text}");
        }
        for name in [
            "sifter-control.1",
            "sifter-control.bash",
            "_sifter-control",
            "sifter-control.fish",
        ] {
            assert!(directory.path().join(name).exists(), "{name}");
        }
    }
}
