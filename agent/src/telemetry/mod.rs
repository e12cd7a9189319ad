//! Logs and metrics. Logs are structured, to standard error; where that is the journal, straight to
//! it with their fields.

mod metrics;
mod quiet;
mod rpc;
mod scrape;
mod terminal;

use std::sync::OnceLock;

use sifter_journal::{Journal, stderr};
use tracing_subscriber::fmt::writer::BoxMakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, reload};

use crate::config::LogSettings;

pub use self::metrics::{Metrics, RootFigures, Scanned};
pub use self::quiet::Quiet;
pub use self::rpc::Rpc;
pub use self::scrape::{Pages, Scrapes};
pub use self::terminal::Terminal;

/// The way to another filter while the process runs.
static FILTER: OnceLock<reload::Handle<EnvFilter, Registry>> = OnceLock::new();

/// Starts logging, above the lower lines of a terminal if there is one. `RUST_LOG` wins over the configuration.
///
/// # Errors
///
/// The filter cannot be understood.
pub fn start(settings: &LogSettings, terminal: Option<Terminal>) -> Result<(), String> {
    let (filter, handle) = reload::Layer::new(stderr::filter(&settings.filter)?);
    let journal = if settings.json {
        None
    } else {
        Journal::of_stderr()
    };
    let writer = match terminal {
        Some(terminal) => BoxMakeWriter::new(move || terminal.clone()),
        None => BoxMakeWriter::new(std::io::stderr),
    };
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(writer)
        .with_target(false);
    let lines = if let Some(journal) = journal {
        sifter_journal::layer("sifter", move |entry| journal.send(entry)).boxed()
    } else if settings.json {
        lines
            .json()
            .flatten_event(true)
            .with_current_span(true)
            .boxed()
    } else {
        lines.with_ansi(stderr::has_colours()).boxed()
    };
    // A second call, in tests, changes nothing.
    if tracing_subscriber::registry()
        .with(filter)
        .with(lines)
        .try_init()
        .is_ok()
    {
        let _ = FILTER.set(handle);
    }
    Ok(())
}

/// Takes another filter. The form of the lines stays.
///
/// # Errors
///
/// The filter cannot be understood.
pub fn change_filter(settings: &LogSettings) -> Result<(), String> {
    let new = stderr::filter(&settings.filter)?;
    match FILTER.get() {
        Some(handle) => handle.reload(new).map_err(|error| format!("log: {error}")),
        None => Ok(()),
    }
}
