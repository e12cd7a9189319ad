//! Named limits on what a file may make us do, each with its reason.

/// Most bytes of a definition that are kept: real ones are a few KiB; generated ones of large conda
/// environments reach tens of KiB.
pub const DEFINITION_MAX: usize = 256 << 10;
