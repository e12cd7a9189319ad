//! Configuration.

mod root;

pub use self::root::{Candidates, DEPTH_MAX, RootSettings, SKIPPED_DIRECTORIES};
