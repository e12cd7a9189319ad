//! Messages of the protocol written field by field, where making them first would cost more than all else.

use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint};
use sifter_proto::Timestamp;

/// Appends fields to an encoded message. What is empty or zero is left out, as proto3 has it.
pub struct Fields<'m>(pub &'m mut Vec<u8>);

impl Fields<'_> {
    /// A field that is a message, or bytes that are there though they are empty.
    pub fn element(&mut self, tag: u32, bytes: &[u8]) {
        self.length_of(tag, bytes.len());
        self.0.extend_from_slice(bytes);
    }

    /// Bytes.
    pub fn bytes(&mut self, tag: u32, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.element(tag, bytes);
        }
    }

    /// A text.
    pub fn text(&mut self, tag: u32, text: &str) {
        self.bytes(tag, text.as_bytes());
    }

    /// A number that is not negative.
    pub fn number(&mut self, tag: u32, number: u64) {
        if number != 0 {
            self.key(tag, WireType::Varint);
            self.varint(number);
        }
    }

    /// A value of an enumeration, of which none is negative.
    pub fn enumeration(&mut self, tag: u32, value: impl Into<i32>) {
        self.number(tag, value.into().unsigned_abs().into());
    }

    /// A time.
    pub fn time(&mut self, tag: u32, time: &Timestamp) {
        let (seconds, nanos) = (
            time.seconds.cast_unsigned(),
            u64::from(time.nanos.unsigned_abs()),
        );
        let length = |number| match number {
            0 => 0,
            number => 1 + encoded_len_varint(number),
        };
        self.length_of(tag, length(seconds) + length(nanos));
        self.number(1, seconds);
        self.number(2, nanos);
    }

    /// An entry of a map of texts.
    pub fn entry(&mut self, tag: u32, key: &str, value: &str) {
        let length = |text: &str| match text.len() {
            0 => 0,
            length => 1 + encoded_len_varint(length as u64) + length,
        };
        self.length_of(tag, length(key) + length(value));
        self.text(1, key);
        self.text(2, value);
    }

    fn length_of(&mut self, tag: u32, length: usize) {
        self.key(tag, WireType::LengthDelimited);
        self.varint(length as u64);
    }

    fn key(&mut self, tag: u32, wire_type: WireType) {
        encode_key(tag, wire_type, self.0);
    }

    fn varint(&mut self, number: u64) {
        // Most are lengths of one byte.
        match u8::try_from(number) {
            Ok(byte @ 0..=0x7f) => self.0.push(byte),
            _ => encode_varint(number, self.0),
        }
    }
}
