//! The binary `sifter`: agent and command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    sifter_agent::cli::run(std::env::args_os())
}
