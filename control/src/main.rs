//! Entry point of `sifter-control`.

use std::process::ExitCode;

use sifter_control::cli::Cli;

/// An answer is made of many short texts; the C library's allocator took a fifth of its time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    Cli::parse_and_run()
}
