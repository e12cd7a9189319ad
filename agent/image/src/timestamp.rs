//! Times as headers have them.

use jiff::Timestamp;

/// Go's zero time in seconds since 1970, the beginning of the year 1: what deterministic builds have. No time
/// before it has a place in a `google.protobuf.Timestamp`.
const GO_ZERO_TIME: i64 = -62_135_596_800;

/// The time that a number of seconds since 1970 is, unless it says that there is none, or cannot be one.
pub(crate) fn timestamp(seconds: i64) -> Option<Timestamp> {
    (seconds != 0 && seconds > GO_ZERO_TIME)
        .then(|| Timestamp::from_second(seconds).ok())
        .flatten()
}
