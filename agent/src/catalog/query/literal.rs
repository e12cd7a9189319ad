//! How words, names, sizes and times are written in a query.

use globset::{GlobBuilder, GlobSet};

use super::QueryError;

/// Words separated by blanks; `"…"` keeps blanks together.
pub(super) fn split(text: &str) -> Result<Vec<String>, QueryError> {
    let mut result: Vec<String> = Vec::new();
    let mut word = String::new();
    let (mut quoted, mut any) = (false, false);
    for character in text.chars() {
        match character {
            '"' => {
                quoted = !quoted;
                any = true;
            }
            c if c.is_whitespace() && !quoted => {
                if any {
                    result.push(std::mem::take(&mut word));
                    any = false;
                }
            }
            c => {
                word.push(c);
                any = true;
            }
        }
    }
    if quoted {
        return Err(QueryError::Filter("a quote is not closed".to_owned()));
    }
    if any {
        result.push(word);
    }
    Ok(result)
}

/// A set of one: unlike a single glob it compares where there is nothing to be searched for.
pub(super) fn glob(text: &str, case_insensitive: bool) -> Result<GlobSet, String> {
    // Only `*` and `?` are special: brackets and braces occur in names.
    let mut pattern = String::with_capacity(text.len());
    for character in text.chars() {
        if matches!(character, '[' | ']' | '{' | '}' | '\\' | '!' | ',') {
            pattern.push('\\');
        }
        pattern.push(character);
    }
    GlobBuilder::new(&pattern)
        .literal_separator(false)
        .backslash_escape(true)
        .case_insensitive(case_insensitive)
        .build()
        .and_then(|glob| GlobSet::new([glob]))
        .map_err(|error| error.to_string())
}

/// Bytes, with a unit: `k`, `M`, `G`, `T`, `P` are powers of 1000, with an `i` of 1024.
pub(super) fn size(text: &str) -> Option<i128> {
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: i128 = number.parse().ok()?;
    let unit = unit
        .trim()
        .trim_end_matches(['B', 'b'])
        .to_ascii_lowercase();
    let (power, base) = match unit.strip_suffix('i') {
        Some(unit) => (unit.to_owned(), 1024_i128),
        None => (unit, 1000),
    };
    let exponent = match power.as_str() {
        "" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        "p" => 5,
        _ => return None,
    };
    number.checked_mul(base.pow(exponent))
}

/// Nanoseconds: `30s`, `10m`, `12h`, `90d`, `2w`, `1y`.
pub(super) fn duration(text: &str) -> Option<i128> {
    let split = text.len().checked_sub(1)?;
    let (number, unit) = (text.get(..split)?, text.get(split..)?);
    if !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number: i128 = number.parse().ok()?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        "w" => 604_800,
        "y" => 31_536_000,
        _ => return None,
    };
    number.checked_mul(seconds * 1_000_000_000)
}

pub(super) fn time(text: &str) -> Option<i128> {
    if let Ok(time) = text.parse::<jiff::Timestamp>() {
        return Some(time.as_nanosecond());
    }
    // Parsing takes a time of day, too, and forgets it.
    let date = jiff::civil::Date::strptime("%Y-%m-%d", text).ok()?;
    let midnight =
        jiff::tz::TimeZone::UTC.to_timestamp(date.to_datetime(jiff::civil::Time::midnight()));
    Some(midnight.ok()?.as_nanosecond())
}

#[cfg(test)]
mod tests {
    #[test]
    fn patterns_match_whatever_the_text_looks_like() {
        for (pattern, matching, other) in [
            ("", &[""][..], &["a", " "][..]),
            ("*", &["", "a", "a/b", "/", "..", ".sif"], &[]),
            ("a", &["a"], &["", "a/", "/a", "b/a", "A"]),
            ("a/..", &["a/.."], &["", "a"]),
            ("/", &["/"], &["", "//"]),
            (
                "*.sif",
                &["a.sif", ".sif", "d/a.sif", "a.b.sif"],
                &["a.sif/", "sif", "a.sif/.."],
            ),
            ("*/a", &["/a", "d/a", "d/e/a"], &["a", "d/a/"]),
            ("**/a", &["d/a", "d/e/a"], &["d/a/"]),
            ("d/*", &["d/", "d/a", "d/a/b"], &["d", "e/a"]),
            ("1.?", &["1.2", "1./"], &["1.", "1.22"]),
            ("[a]", &["[a]"], &["a"]),
        ] {
            let set = super::glob(pattern, false).unwrap();
            for text in matching {
                assert!(set.is_match(text), "{pattern} and {text}");
            }
            for text in other {
                assert!(!set.is_match(text), "{pattern} and {text}");
            }
        }
        assert!(super::glob("A*", true).unwrap().is_match("ab"));
    }
}
