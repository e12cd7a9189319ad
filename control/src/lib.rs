//! The Sifter control plane.
