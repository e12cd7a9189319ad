//! Sizes, ages and identifiers in the words of `docker images`.

use std::borrow::Cow;

use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

/// The first 12 digits, as docker shows them.
#[must_use]
pub fn short_id(id: &str) -> &str {
    let digits = id.strip_prefix("sha256:").unwrap_or(id);
    digits.get(..12).unwrap_or(digits)
}

/// A size in the units of `docker images` (powers of 1000), rounded half up to three digits as it
/// does.
#[must_use]
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["kB", "MB", "GB", "TB", "PB", "EB"];
    if bytes < 1000 {
        return with_number(bytes, &[" B"]);
    }
    // Without floating point, whose nearest number may be below the half. Rounding may give a digit more: 9.999 is
    // 10.0, and 999.9 kB is 1.00 MB.
    let rounded = |divisor: u64| bytes.saturating_add(divisor / 2) / divisor;
    let (mut divisor, mut unit) = (1000, 0);
    while rounded(divisor) >= 1000 && unit + 1 < UNITS.len() {
        divisor *= 1000;
        unit += 1;
    }
    // A point between the digits of hundredths or tenths leaves three of them.
    for (parts, before_point) in [(100, 1), (10, 2)] {
        let number = rounded(divisor / parts);
        if number < 1000 {
            let mut text = with_number(number, &[" ", UNITS[unit]]);
            text.insert(before_point, '.');
            return text;
        }
    }
    with_number(rounded(divisor), &[" ", UNITS[unit]])
}

/// A number and what is counted: `1 file`, `2 files`, `3 directories`.
#[must_use]
pub fn count(number: u64, what: &str) -> String {
    if number == 1 {
        return with_number(number, &[" ", what]);
    }
    match what.strip_suffix("ry") {
        Some(stem) => with_number(number, &[" ", stem, "ries"]),
        None if what.ends_with('s') => with_number(number, &[" ", what, "es"]),
        None => with_number(number, &[" ", what, "s"]),
    }
}

/// How long ago, in the words of `docker images`.
#[must_use]
pub fn ago(time: jiff::Timestamp, now: jiff::Timestamp) -> String {
    let seconds = now.duration_since(time).as_secs();
    if seconds < 0 {
        return format!("{}", time.strftime("%Y-%m-%d"));
    }
    let (number, unit) = match seconds {
        0..60 => (seconds, "second"),
        60..3600 => (seconds / 60, "minute"),
        3600..172_800 => (seconds / 3600, "hour"),
        172_800..1_209_600 => (seconds / 86_400, "day"),
        1_209_600..5_184_000 => (seconds / 604_800, "week"),
        5_184_000..63_072_000 => (seconds / 2_592_000, "month"),
        _ => (seconds / 31_536_000, "year"),
    };
    let mut text = count(number.unsigned_abs(), unit);
    text.push_str(" ago");
    text
}

/// A number with what follows it. Tables have two such cells in each of hundreds of thousands of rows,
/// where formatting would cost more than everything else that is in them.
fn with_number(number: u64, rest: &[&str]) -> String {
    // Room for ` ago` as well.
    let mut text = String::with_capacity(32);
    text.push_str(itoa::Buffer::new().format(number));
    for part in rest {
        text.push_str(part);
    }
    text
}

/// A text cut to so many columns of a terminal, the last of them an ellipsis.
#[must_use]
pub fn cut(text: Cow<'_, str>, columns: usize) -> Cow<'_, str> {
    if text.len() <= columns || text.width() <= columns {
        return text;
    }
    let mut left = columns.saturating_sub(1);
    let fits = |character: &char| {
        let rest = left.checked_sub(character.width().unwrap_or_default());
        left = rest.unwrap_or_default();
        rest.is_some()
    };
    let kept: String = text.chars().take_while(fits).collect();
    format!("{kept}…").into()
}

#[cfg(test)]
mod tests {
    use super::{ago, count, cut, size};

    #[test]
    fn one_is_no_plural() {
        for (number, what, text) in [
            (0, "file", "0 files"),
            (1, "file", "1 file"),
            (2, "file", "2 files"),
            (1, "directory", "1 directory"),
            (2, "directory", "2 directories"),
            (2, "day", "2 days"),
            (1, "address", "1 address"),
            (2, "address", "2 addresses"),
        ] {
            assert_eq!(count(number, what), text);
        }
    }

    #[test]
    fn sizes_have_three_digits() {
        for (bytes, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.00 kB"),
            (1_234_567, "1.23 MB"),
            (45_056, "45.1 kB"),
            (1004, "1.00 kB"),
            (1005, "1.01 kB"),
            (1_999_999, "2.00 MB"),
            (9_994, "9.99 kB"),
            (9_995, "10.0 kB"),
            (99_949, "99.9 kB"),
            (99_950, "100 kB"),
            (999_499, "999 kB"),
            (999_500, "1.00 MB"),
            (999_999, "1.00 MB"),
            (12_350_000_000, "12.4 GB"),
            (12_345_678_901, "12.3 GB"),
            (u64::MAX, "18.4 EB"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }

    #[test]
    fn ages_are_told_in_words() {
        let now: jiff::Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        for (time, text) in [
            ("2025-12-31T23:59:59Z", "1 second ago"),
            ("2025-12-31T23:00:00Z", "1 hour ago"),
            ("2025-12-20T00:00:00Z", "12 days ago"),
            ("2025-11-20T00:00:00Z", "6 weeks ago"),
            ("2020-01-01T00:00:00Z", "6 years ago"),
            ("2027-01-01T00:00:00Z", "2027-01-01"),
        ] {
            assert_eq!(ago(time.parse().unwrap(), now), text);
        }
    }

    #[test]
    fn long_texts_end_in_an_ellipsis() {
        for (text, columns, shown) in [
            ("abc", 3, "abc"),
            ("abcd", 3, "ab…"),
            ("äöüß", 3, "äö…"),
            ("镜像", 4, "镜像"),
            ("镜像文件", 5, "镜像…"),
            ("镜像文件", 6, "镜像…"),
            ("a\u{301}bc", 3, "a\u{301}bc"),
            ("a\u{301}bcd", 3, "a\u{301}b…"),
            ("", 3, ""),
        ] {
            assert_eq!(cut(text.into(), columns), shown);
        }
    }
}
