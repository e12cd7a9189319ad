//! The Sifter agent and command line.
//!
//! What [`scan`] finds goes into the [`catalog`], from which [`service`] answers; [`run`] wires them.
//! Who may import whom is drawn in docs/architecture.md, and a test looks.

pub mod bars;
pub mod catalog;
pub mod cli;
pub mod config;
pub mod confine;
pub mod digest;
pub mod engine;
pub mod escape;
pub mod fields;
pub mod lock;
pub mod manager;
pub mod mounts;
pub mod net;
pub mod observe;
pub mod peer;
pub mod reload;
pub mod run;
pub mod scan;
pub mod service;
pub mod socket;
pub mod telemetry;
pub mod words;
