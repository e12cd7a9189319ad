//! The HTTP side: listeners, connections, and what answers on which path.
//!
//! HTTP/1.1 only: every official client speaks it, and nothing here would gain from more. Every
//! answer that leaves is JSON with a `RequestId` (metrics and pages for people apart), also for
//! what never reaches a handler. Nothing is compressed and nothing is redirected: some clients can
//! read neither.

mod access;
mod app;
mod connection;
mod gate;
mod handler;
mod hosts;
mod io;
mod listener;
mod pages;
mod peer;
mod reminder;
mod respond;
mod run;
mod tally;
mod tls;
mod unread;

pub use app::App;
pub use run::RunError;
pub use run::Running;
pub use run::Stuck;
pub use run::check;
pub use run::start;
