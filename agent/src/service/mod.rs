//! gRPC service.

pub mod convert;
mod owners;

pub use self::owners::Owners;
