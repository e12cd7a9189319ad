//! The `sifter.v1` contract: what an agent tells a control plane, a command line or `grpcurl`.
//!
//! The `.proto` files under `sifter/v1/` are the reference; this crate is what the compiler makes
//! of them, with the proto3 JSON mapping (the spelling that `grpcurl` prints) as `serde`
//! implementations and the descriptor set for gRPC reflection.

pub mod encoded;
mod timestamp;

pub use pbjson_types::Duration;
pub use timestamp::Timestamp;

/// Messages, clients and servers of package `sifter.v1`.
#[allow(missing_docs, clippy::all, clippy::pedantic, rustdoc::all)]
pub mod v1 {
    tonic::include_proto!("sifter.v1");
    include!(concat!(env!("OUT_DIR"), "/sifter.v1.serde.rs"));
}

/// The encoded `google.protobuf.FileDescriptorSet` of the contract and of all it imports, with
/// the comments of the sources.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/sifter.v1.bin"));

/// The `domain` of every `google.rpc.ErrorInfo` that Sifter sends.
pub const ERROR_DOMAIN: &str = "sifter";

/// Reasons of `google.rpc.ErrorInfo` in domain [`ERROR_DOMAIN`]. Callers decide by these, never by
/// the text of a message.
pub mod reason {
    /// `FAILED_PRECONDITION`: a root cannot be read and nothing is known of it. Metadata:
    /// `command` (what was attempted, with the root), `error` (the operating system's error).
    pub const SCAN_FAILED: &str = "SCAN_FAILED";
    /// `INTERNAL`: the catalogue cannot be read or written. Metadata: `error`.
    pub const CATALOG_FAILED: &str = "CATALOG_FAILED";
    /// `UNAVAILABLE`: the first scan has not finished.
    pub const NOT_READY: &str = "NOT_READY";
    /// `INVALID_ARGUMENT`: the page token is malformed or belongs to another filter, order or caller.
    pub const INVALID_PAGE_TOKEN: &str = "INVALID_PAGE_TOKEN";
    /// `ABORTED`: the generation that a page token or a resumed watch names is no longer held;
    /// start again from the first page.
    pub const GENERATION_EXPIRED: &str = "GENERATION_EXPIRED";
    /// `INVALID_ARGUMENT`: a field of the request is out of range. Metadata: `field`.
    pub const INVALID_ARGUMENT: &str = "INVALID_ARGUMENT";
    /// `NOT_FOUND`: no image is listed under this path.
    pub const IMAGE_NOT_FOUND: &str = "IMAGE_NOT_FOUND";
    /// `NOT_FOUND`: no such root is configured. Metadata: `root`.
    pub const ROOT_NOT_FOUND: &str = "ROOT_NOT_FOUND";
    /// `RESOURCE_EXHAUSTED`: a watch fell behind and was dropped. `UNAVAILABLE`: the agent's host does not say in time
    /// who its users and groups are.
    pub const OVERLOADED: &str = "OVERLOADED";
    /// `PERMISSION_DENIED`: this caller may not do this. `UNAUTHENTICATED`: its certificate has expired, or is not
    /// allowed any more.
    pub const PERMISSION_DENIED: &str = "PERMISSION_DENIED";
}
