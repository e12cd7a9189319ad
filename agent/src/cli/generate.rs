//! `sifter generate`: man pages and completions, for packages. Hidden from the help: it is of no use
//! on a host.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap_complete::Shell;

use super::Exit;

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
    let mut command = super::command();
    match what {
        What::Man => clap_mangen::generate_to(command, directory)?,
        What::Completions => {
            let name = command.get_name().to_owned();
            for shell in SHELLS {
                clap_complete::generate_to(shell, &mut command, &name, directory)?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{What, write};

    #[test]
    fn every_shown_subcommand_has_a_page_and_a_completion() {
        let directory = tempfile::tempdir().unwrap();
        write(What::Man, directory.path()).unwrap();
        write(What::Completions, directory.path()).unwrap();
        let bash = std::fs::read_to_string(directory.path().join("sifter.bash")).unwrap();
        let mut shown = 0;
        for command in crate::cli::command().get_subcommands() {
            let page = directory
                .path()
                .join(format!("sifter-{}.1", command.get_name()));
            assert_eq!(page.exists(), !command.is_hide_set(), "{}", page.display());
            assert!(command.is_hide_set() || bash.contains(command.get_name()));
            shown += usize::from(!command.is_hide_set());
        }
        assert!(shown > 5);
        for name in ["sifter.1", "_sifter", "sifter.fish"] {
            assert!(directory.path().join(name).exists(), "{name}");
        }
    }
}
