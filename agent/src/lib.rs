//! The Sifter agent.
