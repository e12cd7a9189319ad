//! Durations as people write them, in the configuration, in filters and on the command line: docs/queries.md says
//! it once for all.

use std::time::Duration;

/// `30s`, `5m`, `12h`, `2d`, `2w`, `1y` (365 days).
#[must_use]
pub fn duration(text: &str) -> Option<Duration> {
    let split = text.len().checked_sub(1)?;
    let (number, unit) = (text.get(..split)?, text.get(split..)?);
    // Parsing would take a sign, too.
    if !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let seconds: u64 = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        "w" => 604_800,
        "y" => 31_536_000,
        _ => return None,
    };
    number
        .parse::<u64>()
        .ok()?
        .checked_mul(seconds)
        .map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::duration;

    #[test]
    fn a_number_and_a_unit() {
        for (text, seconds) in [
            ("0s", Some(0)),
            ("30s", Some(30)),
            ("5m", Some(300)),
            ("12h", Some(43_200)),
            ("2d", Some(172_800)),
            ("2w", Some(1_209_600)),
            ("1y", Some(31_536_000)),
            ("", None),
            ("s", None),
            ("5", None),
            ("5 m", None),
            ("1.5h", None),
            ("+5m", None),
            ("-5m", None),
            ("5M", None),
            ("1h30m", None),
            ("5µ", None),
            ("18446744073709551615s", Some(u64::MAX)),
            ("18446744073709551615y", None),
        ] {
            let found = duration(text).map(|duration| duration.as_secs());
            assert_eq!(found, seconds, "{text}");
        }
    }
}
