//! The Sifter agent and command line.

pub mod catalog;
pub mod cli;
pub mod config;
pub mod escape;
pub mod scan;
pub mod service;
