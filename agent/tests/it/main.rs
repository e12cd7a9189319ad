//! Integration tests of the agent, one module a topic, one binary for all.

mod access;
mod doctor;
mod scan;
mod support;
mod tls;
