//! What comes from elsewhere as text for a terminal. Names come from other users' files: nothing in them
//! may steer the terminal.

use std::fmt::Write as _;

/// Text for people: what steers or hides is replaced.
pub(super) fn clean(text: &str) -> String {
    text.chars()
        .map(|c| if steers(c) { '\u{fffd}' } else { c })
        .collect()
}

/// A JSON text, indented: members stay in their order and numbers as they are written, which a parsed
/// value would not keep. In strings, what steers or hides is written as an escape, which is the same text
/// to whoever parses it. Anything but JSON comes out as some text.
pub(super) fn indented(json: &str) -> String {
    let mut out = String::with_capacity(2 * json.len());
    let mut depth = 0;
    let mut chars = json.chars().filter_map({
        let (mut in_string, mut is_escaped) = (false, false);
        // Together with each character whether it is part of a string; white space between is dropped.
        move |c| {
            let within = in_string;
            if !within {
                in_string = c == '"';
                return (!c.is_ascii_whitespace()).then_some((c, in_string));
            }
            in_string = is_escaped || c != '"';
            is_escaped = c == '\\' && !is_escaped;
            Some((c, true))
        }
    });
    let mut next = chars.next();
    while let Some((c, in_string)) = next {
        next = chars.next();
        match c {
            _ if in_string && steers(c) => escape(&mut out, c),
            _ if in_string => out.push(c),
            '{' | '[' => {
                out.push(c);
                if !matches!(next, Some(('}' | ']', false))) {
                    depth += 1;
                    new_line(&mut out, depth);
                }
            }
            '}' | ']' => {
                if !out.ends_with(['{', '[']) {
                    depth = usize::saturating_sub(depth, 1);
                    new_line(&mut out, depth);
                }
                out.push(c);
            }
            ',' => {
                out.push(c);
                new_line(&mut out, depth);
            }
            ':' => out.push_str(": "),
            _ => out.push(c),
        }
    }
    out
}

fn new_line(out: &mut String, depth: usize) {
    out.push('\n');
    out.extend(std::iter::repeat_n("  ", depth));
}

/// As `\uXXXX`, in two where one does not hold it.
fn escape(out: &mut String, character: char) {
    for unit in character.encode_utf16(&mut [0; 2]) {
        // Writing to a string does not fail.
        let _ = write!(out, "\\u{unit:04x}");
    }
}

fn steers(character: char) -> bool {
    character.is_control() || is_hidden(character)
}

/// What turns the direction of writing or is not seen, and is no control character to Rust: the same
/// characters as the agent's command line escapes.
fn is_hidden(character: char) -> bool {
    matches!(
        character,
        '\u{00ad}'
            | '\u{034f}'
            | '\u{061c}'
            | '\u{115f}'..='\u{1160}'
            | '\u{180b}'..='\u{180f}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{2800}'
            | '\u{3164}'
            | '\u{fe00}'..='\u{fe0f}'
            | '\u{feff}'
            | '\u{ffa0}'
            | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e007f}'
            | '\u{e0100}'..='\u{e01ef}'
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_seen_is_replaced() {
        for code in [
            0x1b, 0xad, 0x034f, 0x061c, 0x1160, 0x180e, 0x200b, 0x200e, 0x2028, 0x202e, 0x2069,
            0x2800, 0x3164, 0xfe0f, 0xfeff, 0xffa0, 0xe0041, 0xe0100,
        ] {
            let text = format!("a{}b", char::from_u32(code).unwrap());
            assert_eq!(clean(&text), "a\u{fffd}b", "{code:x}");
        }
        assert_eq!(clean("é 中 \u{1f600}"), "é 中 \u{1f600}");
    }

    #[test]
    fn json_is_indented_as_it_was_written() {
        let served = "{\"Z\":1,\"A\":{\"Images\":[]},\"n\":18446744073709551616.50,\"o\":{ },\n \
                      \"s\":\"a:,{[\\\"\\\\\",\"l\":[1,[true,null]],\"Z\":\"\u{202e}\u{9b}\u{e0041}é\"}";
        let shown = indented(served);
        assert_eq!(
            shown,
            "{\n  \"Z\": 1,\n  \"A\": {\n    \"Images\": []\n  },\n  \"n\": 18446744073709551616.50,\n  \
             \"o\": {},\n  \"s\": \"a:,{[\\\"\\\\\",\n  \"l\": [\n    1,\n    [\n      true,\n      null\n    ]\n  ],\n  \
             \"Z\": \"\\u202e\\u009b\\udb40\\udc41é\"\n}"
        );
        let parsed = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
        assert_eq!(parsed(&shown), parsed(served));
    }

    proptest::proptest! {
        #[test]
        fn indenting_changes_no_value(names in proptest::collection::vec(".*", 0..6)) {
            let value = serde_json::json!({"a": names, "b": names.iter().map(|n| (n, [n])).collect::<Vec<_>>()});
            let shown = indented(&value.to_string());
            proptest::prop_assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).unwrap(), value);
        }

        #[test]
        fn no_text_is_too_strange(text in ".*") {
            indented(&text);
        }
    }
}
