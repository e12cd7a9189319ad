//! How words, names, sizes and times are written in a query.

use globset::{GlobBuilder, GlobSet};

use super::QueryError;

/// Words separated by blanks; `"…"` keeps blanks together. `\"` is a quote and `\\` a backslash; before anything
/// else a backslash is itself, for paths are written with `\xHH` in them.
pub(super) fn split(text: &str) -> Result<Vec<String>, QueryError> {
    let mut result: Vec<String> = Vec::new();
    let mut word = String::new();
    let (mut quoted, mut any) = (false, false);
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '\\' => {
                let escaped = characters.next_if(|next| is_escaped(*next));
                word.push(escaped.unwrap_or(character));
                any = true;
            }
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

/// What a backslash before it makes a character like others.
fn is_escaped(character: char) -> bool {
    matches!(character, '"' | '\\')
}

/// A term as one word of a filter, from which [`Query::parse`](super::Query::parse) takes it as it is.
#[must_use]
pub fn quote(term: &str) -> String {
    let quoted = term.is_empty() || term.contains(char::is_whitespace);
    let mut word = String::with_capacity(term.len() + 2);
    if quoted {
        word.push('"');
    }
    let mut characters = term.chars().peekable();
    while let Some(character) = characters.next() {
        // Others stay as they are, so that a filter is no longer than it must be. What comes behind
        // the last is the quote, or a blank, which an older agent understands, too.
        let needs = match (character, characters.peek()) {
            ('"', _) => true,
            ('\\', Some(next)) => is_escaped(*next),
            ('\\', None) => quoted,
            _ => false,
        };
        if needs {
            word.push('\\');
        }
        word.push(character);
    }
    if quoted {
        word.push('"');
    }
    word
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

/// Bytes, with a unit: `k`, `M`, `G`, `T`, `P` are powers of 1000, with an `i` of 1024. There may be a
/// fraction, as in the sizes that are shown; what is left of a byte does not count.
pub(super) fn size(text: &str) -> Option<i128> {
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let whole: i128 = whole.parse().ok()?;
    let scale = 10_i128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let fraction: i128 = fraction.parse().ok()?;
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
    let unit = base.pow(exponent);
    let fraction = fraction.checked_mul(unit)? / scale;
    whole.checked_mul(unit)?.checked_add(fraction)
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
    use proptest::prelude::*;

    use super::{quote, size, split};

    #[test]
    fn quotes_and_backslashes() {
        for (text, words) in [
            (r#"a "b c" d"#, &["a", "b c", "d"][..]),
            (r#"a="b c""#, &["a=b c"]),
            (r#"a=\"b\" c"#, &["a=\"b\"", "c"]),
            (r#""say \"hi\" twice""#, &["say \"hi\" twice"]),
            (r"a\\b", &[r"a\b"]),
            (r"a\xffb\*\", &[r"a\xffb\*\"]),
            (r#""a\\" b"#, &["a\\", "b"]),
            (r#""""#, &[""]),
        ] {
            assert_eq!(split(text).unwrap(), words, "{text}");
            let again: Vec<_> = words.iter().map(|word| quote(word)).collect();
            assert_eq!(split(&again.join(" ")).unwrap(), words, "{text}");
        }
        assert!(split(r#""a\""#).is_err());
        for plain in ["tag=1.9", r"path=/data/\xff*"] {
            assert_eq!(quote(plain), plain);
        }
    }

    proptest! {
        #[test]
        fn a_filter_has_the_terms_that_it_is_made_of(
            terms in prop::collection::vec(prop_oneof![r#"[a"\\\\ \t=]{0,6}"#, any::<String>()], 0..5),
        ) {
            let words: Vec<_> = terms.iter().map(|term| quote(term)).collect();
            prop_assert_eq!(split(&words.join(" ")).unwrap(), terms);
        }

        #[test]
        fn any_text_is_words_or_an_error(text in r#"[a"\\\\ ]{0,12}"#) {
            if let Ok(words) = split(&text) {
                let again: Vec<_> = words.iter().map(|word| quote(word)).collect();
                prop_assert_eq!(split(&again.join(" ")).unwrap(), words);
            }
        }
    }

    #[test]
    fn sizes_have_units_and_fractions() {
        for (text, bytes) in [
            ("0", Some(0)),
            ("45056", Some(45_056)),
            ("2k", Some(2000)),
            ("1GiB", Some(1 << 30)),
            ("45.1 kB", Some(45_100)),
            ("1.10 MB", Some(1_100_000)),
            ("1.5Ki", Some(1536)),
            ("0.0001k", Some(0)),
            ("1.5", Some(1)),
            ("1.", None),
            (".5G", None),
            ("1.5.0G", None),
            ("1e3", None),
            ("+1", None),
            ("1.+5k", None),
            ("", None),
            ("k", None),
            ("340282366920938463463374607431768211455", None),
            ("0.0000000000000000000000000000000000000001P", None),
        ] {
            assert_eq!(size(text), bytes, "{text}");
        }
    }

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
