//! `sifter generate`: man pages and completions, for packages. Hidden from the help: it is of no use
//! on a host.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::ValueHint;
use clap_complete::Shell;

use super::{EXIT_CODES, Exit};

/// The shells whose completions packages carry.
const SHELLS: [Shell; 3] = [Shell::Bash, Shell::Zsh, Shell::Fish];

/// Write man pages or completions
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What to write
    what: What,

    /// Directory to write to; made if it is missing
    #[arg(value_name = "DIR")]
    directory: PathBuf,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum What {
    /// One page a subcommand, in section 1
    Man,
    /// bash, zsh and fish
    Completions,
}

/// Writes man pages or completions.
///
/// # Errors
///
/// The directory cannot be written.
pub fn run(args: &Args) -> anyhow::Result<Exit> {
    write(args.what, &args.directory)
        .with_context(|| format!("write to {}", crate::escape::path(&args.directory)))?;
    Ok(Exit::Success)
}

fn write(what: What, directory: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(directory)?;
    match what {
        What::Man => clap_mangen::generate_to(paged(super::command()), directory)?,
        What::Completions => {
            let mut command = shown(&super::command());
            let name = command.get_name().to_owned();
            for shell in SHELLS {
                let script = clap_complete::generate_to(shell, &mut command, &name, directory)?;
                if shell == Shell::Bash {
                    let text = std::fs::read_to_string(&script)?;
                    std::fs::write(&script, offering_files(text, &command))?;
                }
            }
        }
    }
    Ok(())
}

/// The bash script, with options offered only where a word begins as one: offered for an empty word, they would
/// keep bash from offering files to commands that take them.
fn offering_files(mut script: String, command: &clap::Command) -> String {
    for command in command.get_subcommands() {
        let takes_files = command
            .get_positionals()
            .any(|argument| argument.get_value_hint() != ValueHint::Unknown);
        if takes_files {
            let case = format!("sifter__subcmd__{})\n            opts=", command.get_name());
            let only = format!("{case}\"\"\n            [[ ${{cur}} != -* ]] || opts=");
            script = script.replacen(&case, &only, 1);
        }
    }
    script
}

/// With the exit codes on each page: nobody looks for them on the page of another command.
fn paged(mut command: clap::Command) -> clap::Command {
    let names: Vec<String> = command
        .get_subcommands()
        // Those that say it themselves mean something else by some of them.
        .filter(|command| {
            command
                .get_after_help()
                .is_none_or(|help| !help.to_string().contains("Exit codes"))
        })
        .map(|command| command.get_name().to_owned())
        .collect();
    for name in names {
        command = command.mut_subcommand(name, |command| {
            let help = match command.get_after_help() {
                Some(help) => format!("{help}\n\n{EXIT_CODES}"),
                None => EXIT_CODES.to_owned(),
            };
            command.after_help(help)
        });
    }
    command
}

/// Without what is hidden: completions would offer it.
fn shown(command: &clap::Command) -> clap::Command {
    let subcommands = command.get_subcommands();
    clap::Command::new("sifter")
        .version(env!("CARGO_PKG_VERSION"))
        .propagate_version(true)
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
    use std::process::Command;

    use super::{What, write};

    /// What bash offers itself where the script offers nothing: files.
    #[test]
    fn bash_offers_files_to_commands_that_take_them() {
        let directory = tempfile::tempdir().unwrap();
        write(What::Completions, directory.path()).unwrap();
        for (words, expected) in [
            (&["sifter", "scan", ""][..], ""),
            (&["sifter", "inspect", ""], ""),
            (&["sifter", "inspect", "--json", ""], ""),
            (&["sifter", "rescan", ""], ""),
            (&["sifter", "scan", "--tot"], "--totals"),
            (&["sifter", "scan", "--group-by", "ro"], "root"),
            (&["sifter", "rescan", "--fu"], "--full"),
            (&["sifter", "insp"], "inspect"),
        ] {
            let bash = Command::new("bash")
                .args(["--norc", "-c"])
                .arg(
                    "source ./sifter.bash; COMP_WORDS=(\"$@\"); COMP_CWORD=$(($# - 1)); \
                     _sifter \"$1\" \"${@:$#}\" \"${@:$#-1:1}\"; echo \"${COMPREPLY[*]}\"",
                )
                .arg("bash")
                .args(words)
                .current_dir(directory.path())
                // It complains about a locale that this machine does not have.
                .env("LC_ALL", "C")
                .output()
                .unwrap();
            let offered = String::from_utf8(bash.stdout).unwrap();
            let complaint = String::from_utf8(bash.stderr).unwrap();
            assert_eq!((offered.trim(), &*complaint), (expected, ""), "{words:?}");
        }
    }

    #[test]
    fn every_shown_subcommand_has_a_page_and_a_completion() {
        let directory = tempfile::tempdir().unwrap();
        write(What::Man, directory.path()).unwrap();
        write(What::Completions, directory.path()).unwrap();
        let [bash, zsh, fish] = ["sifter.bash", "_sifter", "sifter.fish"]
            .map(|name| std::fs::read_to_string(directory.path().join(name)).unwrap());
        let mut shown = 0;
        for command in crate::cli::command().get_subcommands() {
            let page = directory
                .path()
                .join(format!("sifter-{}.1", command.get_name()));
            assert_eq!(page.exists(), !command.is_hide_set(), "{}", page.display());
            for shell in [&bash, &zsh, &fish] {
                let offered = shell.contains(command.get_name());
                assert_eq!(offered, !command.is_hide_set(), "{}", command.get_name());
            }
            if page.exists() {
                let text = std::fs::read_to_string(&page).unwrap();
                assert_eq!(text.matches("Exit codes").count(), 1, "{}", page.display());
            }
            shown += usize::from(!command.is_hide_set());
        }
        assert!(shown > 5);
        let page = std::fs::read_to_string(directory.path().join("sifter-ls.1")).unwrap();
        assert!(page.contains("SIFTER_ADDRESS"), "{page}");
        for name in ["sifter.1", "_sifter", "sifter.fish"] {
            assert!(directory.path().join(name).exists(), "{name}");
        }
    }
}
