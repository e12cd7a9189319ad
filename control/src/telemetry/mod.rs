//! Logs and metrics. Nothing secret goes in: no signatures, no keys, no tokens, no query strings.

mod answered;
mod entries;
mod lines;
mod metrics;

use std::io;

use sifter_journal::{Journal, stderr};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

pub use answered::Answered;
pub use lines::Flush;
pub use metrics::Metrics;

use crate::config::LogFormat;
use crate::config::LogSettings;

/// Target of the access log, so that it can be filtered apart from the rest.
pub const ACCESS: &str = "sifter_control::access";

/// What the journal calls the program: as the service manager would.
const IDENTIFIER: &str = "sifter-control";

/// Sends log lines to standard error until the end, which is for what is returned to tell; where that is
/// the journal, straight to it with their fields. `RUST_LOG` wins over the configured filter.
pub fn init(settings: &LogSettings) -> Result<Flush, Box<dyn std::error::Error + Send + Sync>> {
    let filter = stderr::filter(&settings.filter)?;
    let journal = match settings.format {
        LogFormat::Text => Journal::of_stderr(),
        LogFormat::Json => None,
    };
    if let Some(journal) = journal {
        let (entries, flush) = entries::start(journal)?;
        let layer = sifter_journal::layer(IDENTIFIER, move |entry| entries.add(entry));
        tracing_subscriber::registry()
            .with(filter)
            .with(layer)
            .try_init()?;
        return Ok(flush);
    }
    let (lines, flush) = lines::start(io::stderr())?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(lines.clone());
    let has_colours = settings.format == LogFormat::Text && stderr::has_colours();
    match settings.format {
        LogFormat::Json => builder.json().flatten_event(true).try_init()?,
        LogFormat::Text => builder.with_ansi(has_colours).try_init()?,
    }
    // Nobody reads a terminal so fast that its lines need be written by hand.
    if !has_colours {
        answered::write_to(settings.format, lines);
    }
    Ok(flush)
}

/// Sends panics to the log too, where they have the shape of everything else.
pub fn log_panics() {
    std::panic::set_hook(Box::new(|info| {
        let payload = info.payload();
        let message = payload
            .downcast_ref::<&str>()
            .copied()
            .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
            .unwrap_or("no message");
        let location = info.location().map(ToString::to_string);
        tracing::error!(location, error = message, "panic");
    }));
}
