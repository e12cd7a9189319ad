//! Integration tests of the agent, one module a topic, one binary for all.

mod scan;
