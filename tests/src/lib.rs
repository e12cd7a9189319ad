//! End-to-end tests of Sifter over the real binaries, and what they share.
