//! The Sifter control plane: the documented `ListContainerImages` HTTP API over the agents.
//!
//! A request comes in through [`server`], is read by [`api`], signed by somebody that [`auth`]
//! knows, and answered from a login node that [`fleet`] chooses. Who may import whom is drawn in
//! docs/architecture.md, and a test looks.

pub mod api;
pub mod auth;
pub mod call;
pub mod cli;
pub mod config;
pub mod explorer;
pub mod fleet;
mod lock;
pub mod server;
pub mod telemetry;
mod words;
