//! Singularity and Apptainer image formats, read without a runtime from files written by strangers.
//!
//! Pure: no I/O of its own, no async, no clock. Bytes come through [`ReadAt`] (files) and
//! [`ReadTree`] (sandbox directories); every length, count and offset from a file is checked
//! against a limit of [`limits`]; damaged content is a result, never a panic.
//!
//! [`probe::probe`] and [`probe::probe_directory`] are the entrances.

mod container;
mod context;
pub mod definition;
pub mod error;
mod ext;
mod held;
mod json;
mod labels;
pub mod limits;
mod little_endian;
mod metadata;
mod oci;
pub mod probe;
mod read_at;
pub mod record;
pub mod reference;
mod sandbox;
mod sif;
#[cfg(feature = "verify")]
pub mod signature;
mod sniff;
mod squashfs;
mod timestamp;
mod window;

pub use context::{NotImage, Options, Subject};
pub use labels::Labels;
pub use probe::{Probed, Verdict, explain, explain_directory, probe, probe_directory};
pub use read_at::{ReadAt, ReadTree};
pub use record::Image;
