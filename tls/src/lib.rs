//! Certificates and keys of TLS, for both programs: reading them with errors that say which file and what to
//! do, when they end and should have been renewed, and whether their files have changed.
//!
//! What a program does with them is its own: which clients it lets in, when it looks, what it logs. Nothing
//! here logs, waits or starts a thread.

mod files;
mod guard;
mod held;
mod validity;
mod watch;

pub use files::{Authorities, Identity, TlsError, certificates};
pub use guard::{Care, Unsafe, check, concern};
pub use held::{Held, Kind, Reminder};
pub use validity::Validity;
pub use watch::{FileWatch, Looks};
