//! JSON as `serde_json` writes it, byte for byte, at a quarter of its cost for messages that are
//! mostly short plain texts: names of fields are copied, and texts are searched for what must be
//! escaped many bytes at a time. A scan spends more on printing images than on reading them.

use serde::ser::{self, Error as _, Impossible, Serialize};
use serde_json::Error;

/// Appends `value` to `out`.
///
/// # Errors
///
/// The value holds what the messages of the contract do not: enums with content, or maps whose keys
/// are no texts.
pub fn write(out: &mut Vec<u8>, value: &impl Serialize) -> Result<(), Error> {
    value.serialize(Writer { out })
}

struct Writer<'o> {
    out: &'o mut Vec<u8>,
}

/// A list or an object that has been begun.
struct Compound<'o> {
    out: &'o mut Vec<u8>,
    empty: bool,
    end: u8,
}

impl<'o> Writer<'o> {
    fn begin(self, begin: u8, end: u8) -> Compound<'o> {
        self.out.push(begin);
        Compound {
            out: self.out,
            empty: true,
            end,
        }
    }

    /// What is rare is left to the original.
    fn plainly(self, value: &impl Serialize) -> Result<(), Error> {
        serde_json::to_writer(self.out, value)
    }
}

fn integer(out: &mut Vec<u8>, value: impl itoa::Integer) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// Texts without anything to be escaped are copied; the others are left to the original.
fn text(out: &mut Vec<u8>, text: &str) -> Result<(), Error> {
    if has_escapes(text.as_bytes()) {
        return serde_json::to_writer(out, text);
    }
    out.push(b'"');
    out.extend_from_slice(text.as_bytes());
    out.push(b'"');
    Ok(())
}

/// Whether there is a control character, a quote or a backslash, eight bytes at a time.
fn has_escapes(bytes: &[u8]) -> bool {
    const ONES: u64 = u64::from_ne_bytes([0x01; 8]);
    const HIGHS: u64 = u64::from_ne_bytes([0x80; 8]);
    // A byte below `bound` borrows into its highest bit, which it had not; a borrow that runs on into
    // the next byte only says again what is so already.
    let below = |word: u64, bound: u64| word.wrapping_sub(ONES * bound) & !word & HIGHS;
    let found = |word: u64| {
        below(word, 0x20)
            | below(word ^ (ONES * u64::from(b'"')), 1)
            | below(word ^ (ONES * u64::from(b'\\')), 1)
    };
    let (words, rest) = bytes.as_chunks::<8>();
    let mut last = [b' '; 8];
    last[..rest.len()].copy_from_slice(rest);
    words
        .iter()
        .fold(found(u64::from_ne_bytes(last)), |all, word| {
            all | found(u64::from_ne_bytes(*word))
        })
        != 0
}

fn unknown<T>() -> Result<T, Error> {
    Err(Error::custom("no message of the contract holds this"))
}

impl<'o> ser::Serializer for Writer<'o> {
    type Ok = ();
    type Error = Error;
    type SerializeSeq = Compound<'o>;
    type SerializeTuple = Compound<'o>;
    type SerializeTupleStruct = Compound<'o>;
    type SerializeTupleVariant = Impossible<(), Error>;
    type SerializeMap = Compound<'o>;
    type SerializeStruct = Compound<'o>;
    type SerializeStructVariant = Impossible<(), Error>;

    fn serialize_str(self, value: &str) -> Result<(), Error> {
        text(self.out, value)
    }

    fn serialize_bool(self, value: bool) -> Result<(), Error> {
        self.plainly(&value)
    }

    fn serialize_i8(self, value: i8) -> Result<(), Error> {
        integer(self.out, value);
        Ok(())
    }

    fn serialize_i16(self, value: i16) -> Result<(), Error> {
        integer(self.out, value);
        Ok(())
    }

    fn serialize_i32(self, value: i32) -> Result<(), Error> {
        integer(self.out, value);
        Ok(())
    }

    fn serialize_i64(self, value: i64) -> Result<(), Error> {
        integer(self.out, value);
        Ok(())
    }

    fn serialize_u8(self, value: u8) -> Result<(), Error> {
        integer(self.out, value);
        Ok(())
    }

    fn serialize_u16(self, value: u16) -> Result<(), Error> {
        integer(self.out, value);
        Ok(())
    }

    fn serialize_u32(self, value: u32) -> Result<(), Error> {
        integer(self.out, value);
        Ok(())
    }

    fn serialize_u64(self, value: u64) -> Result<(), Error> {
        integer(self.out, value);
        Ok(())
    }

    fn serialize_f32(self, value: f32) -> Result<(), Error> {
        self.plainly(&value)
    }

    fn serialize_f64(self, value: f64) -> Result<(), Error> {
        self.plainly(&value)
    }

    fn serialize_char(self, value: char) -> Result<(), Error> {
        self.plainly(&value)
    }

    fn serialize_bytes(self, value: &[u8]) -> Result<(), Error> {
        self.plainly(&value)
    }

    fn serialize_none(self) -> Result<(), Error> {
        self.serialize_unit()
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), Error> {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<(), Error> {
        self.plainly(&())
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<(), Error> {
        self.serialize_unit()
    }

    fn serialize_unit_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
    ) -> Result<(), Error> {
        text(self.out, variant)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<(), Error> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: &T,
    ) -> Result<(), Error> {
        unknown()
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Compound<'o>, Error> {
        Ok(self.begin(b'[', b']'))
    }

    fn serialize_tuple(self, _: usize) -> Result<Compound<'o>, Error> {
        Ok(self.begin(b'[', b']'))
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Compound<'o>, Error> {
        Ok(self.begin(b'[', b']'))
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeTupleVariant, Error> {
        unknown()
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Compound<'o>, Error> {
        Ok(self.begin(b'{', b'}'))
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Compound<'o>, Error> {
        Ok(self.begin(b'{', b'}'))
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeStructVariant, Error> {
        unknown()
    }
}

impl Compound<'_> {
    fn comma(&mut self) {
        if !std::mem::take(&mut self.empty) {
            self.out.push(b',');
        }
    }

    fn element(&mut self, value: &(impl Serialize + ?Sized)) -> Result<(), Error> {
        self.comma();
        value.serialize(Writer { out: self.out })
    }

    fn finish(self) {
        self.out.push(self.end);
    }
}

impl ser::SerializeSeq for Compound<'_> {
    type Ok = ();
    type Error = Error;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
        self.element(value)
    }

    fn end(self) -> Result<(), Error> {
        self.finish();
        Ok(())
    }
}

impl ser::SerializeTuple for Compound<'_> {
    type Ok = ();
    type Error = Error;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
        self.element(value)
    }

    fn end(self) -> Result<(), Error> {
        self.finish();
        Ok(())
    }
}

impl ser::SerializeTupleStruct for Compound<'_> {
    type Ok = ();
    type Error = Error;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
        self.element(value)
    }

    fn end(self) -> Result<(), Error> {
        self.finish();
        Ok(())
    }
}

impl ser::SerializeMap for Compound<'_> {
    type Ok = ();
    type Error = Error;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Error> {
        let start = self.out.len() + usize::from(!self.empty);
        self.element(key)?;
        if self.out.get(start) == Some(&b'"') {
            Ok(())
        } else {
            unknown()
        }
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
        self.out.push(b':');
        value.serialize(Writer { out: self.out })
    }

    fn end(self) -> Result<(), Error> {
        self.finish();
        Ok(())
    }
}

impl ser::SerializeStruct for Compound<'_> {
    type Ok = ();
    type Error = Error;

    /// Names of fields are identifiers: there is nothing to escape in them.
    fn serialize_field<T: Serialize + ?Sized>(
        &mut self,
        name: &'static str,
        value: &T,
    ) -> Result<(), Error> {
        self.comma();
        self.out.push(b'"');
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
        value.serialize(Writer { out: self.out })
    }

    fn end(self) -> Result<(), Error> {
        self.finish();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Serialize;
    use sifter_proto::{Timestamp, v1};

    #[derive(Serialize)]
    struct Unit;

    #[derive(Serialize)]
    enum Kind {
        Plain,
        Content(u8),
    }

    fn check(value: &impl Serialize) {
        let mut written = Vec::new();
        super::write(&mut written, value).unwrap();
        let expected = serde_json::to_string(value).unwrap();
        assert_eq!(String::from_utf8(written).unwrap(), expected);
    }

    #[test]
    fn as_serde_json_writes_it() {
        let texts = [
            "",
            "plain",
            "\u{0}\u{1f}\u{20}\u{7f}",
            "\"quoted\"",
            "back\\slash",
            "/a/\u{fc}\u{4e2d}\u{1f980}",
            "a long text of more than sixty-four bytes that ends with something to be escaped\n",
        ];
        for text in texts {
            check(&text);
            check(&BTreeMap::from([(text, text)]));
        }
        check(&(
            i8::MIN,
            i16::MIN,
            i32::MIN,
            i64::MIN,
            u8::MAX,
            u16::MAX,
            u32::MAX,
            u64::MAX,
        ));
        check(&(1.5f32, -0.1f64, f64::NAN, true, 'x', '"', (), Unit));
        check(&(
            Some(7),
            None::<u8>,
            Kind::Plain,
            [0u8; 0],
            vec![[1, 2], [3, 4]],
        ));
        check(&v1::Image::default());
        check(&v1::Image {
            path: "/i/\u{fc}\"".to_owned(),
            raw_path: b"/i/\xff".to_vec(),
            status: v1::Status::Ready.into(),
            size_bytes: 1 << 60,
            mode: 0o644,
            update_time: Some(Timestamp {
                seconds: 1,
                nanos: 5,
            }),
            labels: BTreeMap::from([
                ("a".to_owned(), "1\n".to_owned()),
                ("b\t".to_owned(), String::new()),
            ]),
            objects: vec![v1::Object::default(), v1::Object::default()],
            bootstrap_history: vec!["x".to_owned()],
            ..v1::Image::default()
        });
    }

    #[test]
    fn every_byte_is_found_or_passed_wherever_it_stands() {
        for byte in 0..=u8::MAX {
            for length in 1..20 {
                for at in 0..length {
                    let mut bytes = vec![b'a'; length];
                    bytes[at] = byte;
                    let expected = byte < 0x20 || matches!(byte, b'"' | b'\\');
                    assert_eq!(super::has_escapes(&bytes), expected, "{byte:#x} at {at}");
                }
            }
        }
        assert!(!super::has_escapes(b""));
    }

    #[test]
    fn what_has_no_place_in_a_message_is_refused() {
        let mut out = Vec::new();
        assert!(super::write(&mut out, &Kind::Content(1)).is_err());
        assert!(super::write(&mut out, &BTreeMap::from([(1, 2)])).is_err());
        assert!(super::write(&mut out, &BTreeMap::from([(1, 2), (3, 4)])).is_err());
    }
}
