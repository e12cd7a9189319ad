//! Tests of the formats against real and made images. What needs the shared corpus says so and
//! passes where that is absent.

mod beginnings;
mod brief;
mod corpus;
mod cost;
mod damage;
mod formats;
mod hostile;
mod inside;
#[cfg(feature = "verify")]
mod keyring;
mod large;
mod made;
mod objects;
mod oci_json;
mod oci_limits;
mod partitions;
mod refused;
#[cfg(feature = "verify")]
mod signed;
mod truth;
#[cfg(feature = "verify")]
mod verify;
