//! The Sifter control plane: the documented `ListContainerImages` HTTP API over the agents.

pub mod api;
