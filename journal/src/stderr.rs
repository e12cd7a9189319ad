//! What both programs do where standard error is anything else: which records are written, and whether in
//! colours.

use std::ffi::OsStr;
use std::io::{self, IsTerminal as _};

use tracing_subscriber::EnvFilter;

/// The filter of records: `RUST_LOG`, or else what is configured.
///
/// # Errors
///
/// The one that is taken cannot be understood.
pub fn filter(configured: &str) -> Result<EnvFilter, String> {
    // An empty one is how a unit takes back what another one set, and no wish for silence.
    let given = std::env::var("RUST_LOG").unwrap_or_default();
    let (name, filter) = match given.trim() {
        "" => ("log", configured),
        given => ("RUST_LOG", given),
    };
    EnvFilter::try_new(filter).map_err(|error| {
        format!("{name}: `{filter}` is no filter, as in info or warn,tonic=debug: {error}")
    })
}

/// Whether lines are coloured: on a terminal that can, unless nobody wants that (no-color.org).
#[must_use]
pub fn has_colours() -> bool {
    let is = |name, refused: fn(&OsStr) -> bool| {
        std::env::var_os(name).is_some_and(|value| refused(&value))
    };
    io::stderr().is_terminal()
        && !is("NO_COLOR", |value| !value.is_empty())
        && !is("TERM", |value| value == "dumb")
}
