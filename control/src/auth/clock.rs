//! Time stamps of requests and the window in which they are accepted.
//!
//! Clients use their own clock and none corrects it from an answer, so the window is wide; it is
//! also what bounds how long a nonce must be remembered.

use jiff::{SignedDuration, Timestamp};

use crate::api::ApiError;

/// How far a time stamp may be off, either way, for clients with badly set clocks.
pub const WINDOW: SignedDuration = SignedDuration::from_mins(15);

/// Reads `YYYY-MM-DDThh:mm:ssZ`, with up to nine digits of a fraction (the Rust client sends
/// nanoseconds). Nothing else: offsets, spaces and leap-second spellings are refused.
pub fn parse(text: &str) -> Result<Timestamp, ApiError> {
    if !well_formed(text.as_bytes()) {
        return Err(ApiError::InvalidTimeStampFormat);
    }
    text.parse().map_err(|_| ApiError::InvalidTimeStampFormat)
}

fn well_formed(text: &[u8]) -> bool {
    const SHAPE: &[u8] = b"0000-00-00T00:00:00";
    let Some((head, tail)) = text.split_at_checked(SHAPE.len()) else {
        return false;
    };
    let head_fits = head.iter().zip(SHAPE).all(|(byte, shape)| match shape {
        b'0' => byte.is_ascii_digit(),
        _ => byte == shape,
    });
    // 60 seconds would be read as 59: two spellings of one instant, so only the plain one.
    let plain_second = &head[17..] < b"60".as_slice();
    let tail_fits = match tail {
        b"Z" => true,
        [b'.', fraction @ .., b'Z'] => {
            (1..=9).contains(&fraction.len()) && fraction.iter().all(u8::is_ascii_digit)
        }
        _ => false,
    };
    head_fits && plain_second && tail_fits
}

/// Refuses a time stamp outside of the window.
pub fn check(stamp: Timestamp, now: Timestamp) -> Result<(), ApiError> {
    if stamp.duration_since(now).abs() > WINDOW {
        return Err(ApiError::InvalidTimeStampExpired);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats() {
        for (text, good) in [
            ("2026-01-02T03:04:05Z", true),
            ("2026-11-24T02:47:44.646364705Z", true),
            ("2026-01-02T03:04:05.1Z", true),
            ("2024-02-29T00:00:00Z", true),
            ("", false),
            ("2026-01-02", false),
            ("2026-01-02T03:04:05", false),
            ("2026-01-02T03:04:05.Z", false),
            ("2026-01-02T03:04:05.1234567890Z", false),
            ("2026-01-02T03:04:05+00:00", false),
            ("2026-01-02T03:04:05.5+08:00Z", false),
            ("2026-01-02 03:04:05Z", false),
            ("2026-01-02t03:04:05z", false),
            (" 2026-01-02T03:04:05Z", false),
            ("2026-13-02T03:04:05Z", false),
            ("2023-02-29T00:00:00Z", false),
            ("2026-01-02T24:00:00Z", false),
            ("2026-06-30T23:59:60Z", false),
            ("Fri, 02 Jan 2026 03:04:05 GMT", false),
            ("1767323045", false),
            ("２026-01-02T03:04:05Z", false),
        ] {
            let result = parse(text);
            assert_eq!(result.is_ok(), good, "{text}: {result:?}");
            if !good {
                assert_eq!(result.unwrap_err(), ApiError::InvalidTimeStampFormat);
            }
        }
    }

    #[test]
    fn window_is_fifteen_minutes_either_side() {
        let now: Timestamp = "2026-01-02T03:00:00Z".parse().unwrap();
        for (stamp, good) in [
            ("2026-01-02T03:00:00Z", true),
            ("2026-01-02T02:45:00Z", true),
            ("2026-01-02T02:44:59.999Z", false),
            ("2026-01-02T03:15:00Z", true),
            ("2026-01-02T03:15:00.001Z", false),
            ("0001-01-01T00:00:00Z", false),
            ("9999-12-30T00:00:00Z", false),
        ] {
            let stamp_parsed = parse(stamp).unwrap();
            assert_eq!(check(stamp_parsed, now).is_ok(), good, "{stamp}");
        }
    }
}
