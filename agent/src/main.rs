//! The binary `sifter`: agent and command line.

use std::process::ExitCode;

/// A scan and an answer are made of many short texts; the C library's allocator took a fifth of the
/// time of either.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    sifter_agent::cli::run(std::env::args_os())
}
