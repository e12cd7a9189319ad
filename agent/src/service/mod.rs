//! The gRPC services over the catalogue. They read snapshots, and never wait for a scan; scanning
//! is asked for through [`ImageSource`] alone.

mod agent;
mod aside;
pub mod convert;
mod encode;
mod host;
mod images;
mod owners;
mod reading;
mod source;
mod status;
mod turns;
mod visibility;
mod watch;

pub use self::agent::AgentState;
pub use self::images::Images;
pub use self::owners::Owners;
pub use self::source::{ImageSource, Ticket};
pub use self::visibility::{Sights, Visibility};
