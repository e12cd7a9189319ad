//! JSON as people and Go programs write it: a value that is wrong by itself costs nothing but itself.
//!
//! A document is parsed as it is. Only if that fails, it is [mended] and parsed again, so that the usual one
//! pays nothing. Objects are read as Go's `encoding/json` does (`decode.go: object, literalStore`): null leaves
//! a field as it is, and of a key that is repeated the last value counts, even of two objects, which Go would
//! merge and no tool writes.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeOwned, Visitor};
use serde::{Deserialize, Deserializer};

/// Which numbers become texts when a document is mended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Numbers {
    /// All: nothing is expected to be a number.
    All,
    /// Those of labels and annotations: elsewhere a number for a text is an error.
    OfLabels,
}

/// Parses a document, mended if it must be; the error is that of the document as it is.
pub(crate) fn parse<T: DeserializeOwned>(bytes: &[u8], numbers: Numbers) -> serde_json::Result<T> {
    // Whether it is UTF-8 is asked once for all of its texts.
    let parsed = match std::str::from_utf8(bytes) {
        Ok(text) => serde_json::from_str(text),
        Err(_) => serde_json::from_slice(bytes),
    };
    parsed.or_else(|error| serde_json::from_str(&mended(bytes, numbers)).map_err(|_| error))
}

/// A document in which what no parser takes is replaced, and nothing else changed: bytes that are not
/// UTF-8 and halves of surrogate pairs by U+FFFD, as Go does; control characters and unknown escapes in
/// texts by what they stand for; numbers, which have more digits than any type of ours or a form
/// that would be lost, and words that are no JSON by texts. A broken structure stays broken.
pub(crate) fn mended(bytes: &[u8], numbers: Numbers) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut mended = String::with_capacity(text.len() + 64);
    // Whether each object or list that is open holds labels.
    let mut open: Vec<bool> = Vec::new();
    let mut key = "";
    let mut rest = text.as_ref();
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '"' => {
                let length = string(rest, &mut mended);
                key = rest.get(1..length.saturating_sub(1)).unwrap_or_default();
                length
            }
            '{' | '[' => {
                let inherited = open.last().copied().unwrap_or_default();
                open.push(inherited || (first == '{' && is_labels(key)));
                key = "";
                mended.push(first);
                1
            }
            '}' | ']' => {
                open.pop();
                mended.push(first);
                1
            }
            _ if is_word(first) => {
                let length = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
                let word = &rest[..length];
                let wanted = numbers == Numbers::All || open.last().copied().unwrap_or_default();
                if wanted && !matches!(word, "true" | "false" | "null") {
                    mended.extend(["\"", word, "\""]);
                } else {
                    mended.push_str(word);
                }
                length
            }
            _ => {
                mended.push(first);
                first.len_utf8()
            }
        };
        rest = &rest[length..];
    }
    mended
}

fn is_labels(key: &str) -> bool {
    key.eq_ignore_ascii_case("labels") || key == "annotations"
}

fn is_word(character: char) -> bool {
    character.is_ascii_alphanumeric() || matches!(character, '+' | '-' | '.' | '_')
}

/// Mends the string at the beginning of `text`; returns how long it is.
fn string(text: &str, mended: &mut String) -> usize {
    mended.push('"');
    let mut at = 1;
    while let Some(character) = text[at..].chars().next() {
        at += character.len_utf8();
        match character {
            '"' => {
                mended.push('"');
                break;
            }
            '\\' => at += escape(&text[at..], mended),
            '\0'..='\x1f' => mended.push_str(&format!("\\u{:04x}", u32::from(character))),
            _ => mended.push(character),
        }
    }
    at
}

/// Mends an escape, without its backslash; returns how long it is.
fn escape(text: &str, mended: &mut String) -> usize {
    match text.as_bytes().first() {
        Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => {
            mended.extend(["\\", &text[..1]]);
            1
        }
        Some(b'u') => match unit(text) {
            Some(0xD800..=0xDBFF) => {
                let low = text[5..].strip_prefix('\\').and_then(unit);
                if let Some(0xDC00..=0xDFFF) = low {
                    mended.extend(["\\", &text[..11]]);
                    11
                } else {
                    mended.push('\u{fffd}');
                    5
                }
            }
            Some(0xDC00..=0xDFFF) => {
                mended.push('\u{fffd}');
                5
            }
            Some(_) => {
                mended.extend(["\\", &text[..5]]);
                5
            }
            None => {
                mended.push_str("\\\\");
                0
            }
        },
        // At the end of the text there is nothing to stand for.
        None => 0,
        Some(_) => {
            mended.push_str("\\\\");
            0
        }
    }
}

/// The number in `uXXXX`.
fn unit(text: &str) -> Option<u32> {
    let digits = text.strip_prefix('u')?.get(..4)?;
    let is_hex = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    u32::from_str_radix(digits, 16).ok().filter(|_| is_hex)
}

/// The name of a member; in place, where nothing in it is escaped.
pub(crate) struct Name<'a>(pub(crate) Cow<'a, str>);

impl<'de> Deserialize<'de> for Name<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Borrowed;
        impl<'de> Visitor<'de> for Borrowed {
            type Value = Name<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Name(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Name(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(Borrowed)
    }
}

/// Structures that are read from JSON objects as Go reads them; fields are what they are by default
/// until a value comes.
macro_rules! objects {
    ($(
        $(#[$attribute:meta])*
        struct $name:ident $(<$parameter:ident: $bound:ident>)? {
            $($key:literal => $field:ident: $type:ty,)+
        }
    )+) => {$(
        $(#[$attribute])*
        #[derive(Default)]
        struct $name $(<$parameter>)? {
            $($field: $type,)+
        }

        impl<'de $(, $parameter: $bound)?> serde::Deserialize<'de> for $name $(<$parameter>)? {
            fn deserialize<Z: serde::Deserializer<'de>>(deserializer: Z) -> Result<Self, Z::Error> {
                struct Members<T>(std::marker::PhantomData<T>);

                impl<'de $(, $parameter: $bound)?> serde::de::Visitor<'de> for Members<$name $(<$parameter>)?> {
                    type Value = $name $(<$parameter>)?;

                    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        f.write_str("an object")
                    }

                    fn visit_unit<E>(self) -> Result<Self::Value, E> {
                        Ok(Default::default())
                    }

                    fn visit_map<M: serde::de::MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
                        let mut value = Self::Value::default();
                        while let Some(crate::json::Name(key)) = map.next_key()? {
                            match &*key {
                                $($key => {
                                    if let Some(given) = map.next_value::<Option<$type>>()? {
                                        value.$field = given;
                                    }
                                })+
                                _ => {
                                    map.next_value::<serde::de::IgnoredAny>()?;
                                }
                            }
                        }
                        Ok(value)
                    }
                }

                deserializer.deserialize_any(Members(std::marker::PhantomData))
            }
        }
    )+};
}

pub(crate) use objects;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::{Numbers, mended};

    #[test]
    fn what_is_wrong_is_replaced_and_nothing_else() {
        for (raw, expected) in [
            (
                &br#"{"a":"b\n\u0041\ud83d\ude00"}"#[..],
                r#"{"a":"b\n\u0041\ud83d\ude00"}"#,
            ),
            (
                br#"["\ud800x","\udc00","\ud800\u0041"]"#,
                r#"["�x","�","�\u0041"]"#,
            ),
            (
                br#"["\uzzzz","\u12","\x","\"#,
                r#"["\\uzzzz","\\u12","\\x",""#,
            ),
            (
                b"[\"\xff\",\"a\tb\nc\"]",
                "[\"\u{fffd}\",\"a\\u0009b\\u000ac\"]",
            ),
            (
                b"[1e999,-1.10,NaN,true,null]",
                r#"["1e999","-1.10","NaN",true,null]"#,
            ),
            (br#"{"a": 1.10 ,"1":"2"}"#, r#"{"a": "1.10" ,"1":"2"}"#),
            (br#"{"\"1":1}"#, r#"{"\"1":"1"}"#),
            (br#"{"a":"#, r#"{"a":"#),
            (br#"{"a":"x"#, r#"{"a":"x"#),
        ] {
            assert_eq!(mended(raw, Numbers::All), expected);
        }
        assert_eq!(
            mended(
                br#"{"size":1,"Labels":{"v":1.10,"l":[2]},"n":{"v":3}}"#,
                Numbers::OfLabels
            ),
            r#"{"size":1,"Labels":{"v":"1.10","l":["2"]},"n":{"v":3}}"#
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_mended(bytes in prop::collection::vec(prop_oneof![
            any::<u8>(),
            prop::sample::select(&b"\"\\u{}[]d8c01,:"[..]),
        ], 0..60)) {
            let once = mended(&bytes, Numbers::All);
            // A text by itself is always one that is taken.
            let text = [b"\"", bytes.split(|b| matches!(b, b'"' | b'\\')).next().unwrap(), b"\""].concat();
            prop_assert!(serde_json::from_str::<String>(&mended(&text, Numbers::All)).is_ok());
            prop_assert_eq!(mended(once.as_bytes(), Numbers::All), once);
        }

        #[test]
        fn texts_stay_what_they_are(text in any::<String>()) {
            let document = serde_json::to_string(&text).unwrap();
            let mended = mended(document.as_bytes(), Numbers::All);
            prop_assert_eq!(serde_json::from_str::<Value>(&mended).unwrap(), Value::from(text));
        }
    }
}
