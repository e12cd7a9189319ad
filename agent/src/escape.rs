//! Names from disk are untrusted: on terminals and in logs they are shown escaped, so that they
//! can neither move the cursor nor forge a line.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Bytes as text: what is not UTF-8 as `\xHH`; the rest unchanged. This is the spelling of `path`
/// in `sifter.v1.Image`.
#[must_use]
pub fn utf8(bytes: &[u8]) -> String {
    if let Ok(text) = std::str::from_utf8(bytes) {
        return text.to_owned();
    }
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        for byte in chunk.invalid() {
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text
}

/// A path as text in that spelling.
#[must_use]
pub fn utf8_path(path: &Path) -> String {
    utf8(path.as_os_str().as_bytes())
}

/// Text for a terminal or a log line: control characters and those that reorder or hide text as
/// escapes.
#[must_use]
pub fn terminal(text: &str) -> Cow<'_, str> {
    escaped(text).map_or(text.into(), Cow::from)
}

/// The same; `None` for printable ASCII, which stays as it is.
#[must_use]
pub fn escaped(text: &str) -> Option<String> {
    // As nearly all texts are. All of their bytes are looked at, so that many are at a time.
    let is_other = |byte| u8::from(!matches!(byte, b' '..=b'~'));
    if text.bytes().fold(0, |any, byte| any | is_other(byte)) == 0 {
        return None;
    }
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\n' => shown.push_str("\\n"),
            '\r' => shown.push_str("\\r"),
            '\t' => shown.push_str("\\t"),
            c if is_unsafe(c) => {
                let _ = write!(shown, "\\u{{{:x}}}", u32::from(c));
            }
            c => shown.push(c),
        }
    }
    Some(shown)
}

/// A path for a terminal or a log line.
#[must_use]
pub fn path(path: &Path) -> String {
    terminal(&utf8_path(path)).into_owned()
}

fn is_unsafe(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            // Bidirectional controls, zero-width characters, line and paragraph separators, tags.
            '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{061c}'
                | '\u{feff}'
                | '\u{fff9}'..='\u{fffb}'
                | '\u{e0000}'..='\u{e007f}'
                // Soft hyphen, separator and selectors of variants: nothing is seen of them.
                | '\u{00ad}'
                | '\u{034f}'
                | '\u{180b}'..='\u{180f}'
                | '\u{fe00}'..='\u{fe0f}'
                | '\u{e0100}'..='\u{e01ef}'
                // Letters that are blank: fillers of Hangul, and Braille without dots.
                | '\u{115f}'..='\u{1160}'
                | '\u{3164}'
                | '\u{ffa0}'
                | '\u{2800}'
        )
}

#[cfg(test)]
mod tests {
    use super::{terminal, utf8};

    #[test]
    fn what_could_fool_a_terminal_is_escaped() {
        for (raw, shown) in [
            ("plain é 中", "plain é 中"),
            ("\u{1b}[31mred", "\\u{1b}[31mred"),
            ("a\nb\rc\td", "a\\nb\\rc\\td"),
            ("\u{202e}fis.txt", "\\u{202e}fis.txt"),
            ("\u{9b}31m", "\\u{9b}31m"),
        ] {
            assert_eq!(terminal(raw), shown);
        }
    }

    #[test]
    fn what_cannot_be_seen_is_escaped() {
        for code in [
            0x00ad, 0x034f, 0x061c, 0x115f, 0x1160, 0x180b, 0x180e, 0x180f, 0x200b, 0x200f, 0x2028,
            0x202e, 0x2060, 0x206f, 0x2800, 0x3164, 0xfe00, 0xfe0f, 0xfeff, 0xffa0, 0xfff9,
            0xe0001, 0xe007f, 0xe0100, 0xe01ef,
        ] {
            let text = format!("a{}b", char::from_u32(code).unwrap());
            assert_eq!(terminal(&text), format!("a\\u{{{code:x}}}b"));
        }
        for code in [
            0x00ac, 0x00ae, 0x034e, 0x0350, 0x115e, 0x1161, 0x1810, 0x2010, 0x2030, 0x27ff, 0x2801,
            0x3163, 0x3165, 0xfdff, 0xfe10, 0xff9f, 0xfffc, 0x1f600,
        ] {
            let text = format!("a{}b", char::from_u32(code).unwrap());
            assert_eq!(terminal(&text), text);
        }
    }

    #[test]
    fn bytes_that_are_no_text_stay_visible() {
        assert_eq!(utf8(b"a\xffb\xc3"), "a\\xffb\\xc3");
    }
}
