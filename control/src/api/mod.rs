//! The documented API: what is asked, what is answered, and every error.
//!
//! Pure: nothing here does I/O or knows how a request came in.

pub mod error;
pub mod reply;
pub mod request;

pub use error::ApiError;
pub use reply::Malformed;
pub use reply::Page;
pub use request::ListContainerImages;
pub use request::RpcRequest;
