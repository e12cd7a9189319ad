//! The documented API: what is asked, what is answered, and every error.
//!
//! Pure: nothing here does I/O or knows how a request came in.

pub mod error;

pub use error::ApiError;
