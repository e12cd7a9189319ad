//! Logs and metrics. Nothing secret goes in: no signatures, no keys, no tokens, no query strings.

mod lines;
mod metrics;

use std::io;

use tracing_subscriber::EnvFilter;

pub use lines::Flush;
pub use metrics::Metrics;

use crate::config::LogFormat;
use crate::config::LogSettings;

/// Target of the access log, so that it can be filtered apart from the rest.
pub const ACCESS: &str = "sifter_control::access";

/// Sends log lines to standard error until the end, which is for what is returned to tell. `RUST_LOG`
/// wins over the configured filter.
pub fn init(settings: &LogSettings) -> Result<Flush, Box<dyn std::error::Error + Send + Sync>> {
    let filter = match EnvFilter::try_from_default_env() {
        Ok(filter) => filter,
        Err(_) => EnvFilter::try_new(&settings.filter)?,
    };
    let (lines, flush) = lines::start(io::stderr())?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(lines);
    match settings.format {
        LogFormat::Json => builder.json().flatten_event(true).try_init()?,
        LogFormat::Text => builder
            .with_ansi(io::IsTerminal::is_terminal(&io::stderr()))
            .try_init()?,
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
        tracing::error!(location, message, "panic");
    }));
}
