//! Entry point of `sifter-control`.

use std::process::ExitCode;

use sifter_control::cli::Cli;

fn main() -> ExitCode {
    Cli::parse_and_run()
}
