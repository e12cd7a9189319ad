//! Integration tests of the agent, one module a topic, one binary for all.

mod access;
mod catalog;
mod docs;
mod doctor;
mod enroll;
mod full;
mod golden;
mod links;
mod log;
mod ls;
mod mounts;
mod overlap;
mod paths;
mod rescan;
mod roots;
mod scan;
mod support;
mod terminal;
mod tls;
mod tool;
