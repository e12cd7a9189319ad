//! Labels as JSON has them: flat or by partition, as an object or as a string that holds one.

use std::borrow::Cow;
use std::fmt;

use serde::de::{IgnoredAny, MapAccess, SeqAccess, Unexpected, Visitor};
use serde::{Deserialize, Deserializer};

use super::Labels;
use crate::json::{self, Name, Numbers};

/// Labels, flat or by partition. Numbers, as they are written, and booleans become text; lists and null are left out.
#[derive(Debug, Default, Clone)]
pub(crate) struct LabelsObject(pub(crate) Labels);

impl<'de> Deserialize<'de> for LabelsObject {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::Labels(labels) => Ok(Self(labels)),
            // One level of quoting and no more: text within text would not end.
            Value::Text(text) => match json::parse(text.as_bytes(), Numbers::All) {
                Ok(Flat(labels)) => Ok(Self(labels)),
                _ => Ok(Self::default()),
            },
            _ => Ok(Self::default()),
        }
    }
}

/// Labels that are no text.
struct Flat(Labels);

impl<'de> Deserialize<'de> for Flat {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(match Value::deserialize(deserializer)? {
            Value::Labels(labels) => Self(labels),
            _ => Self(Labels::default()),
        })
    }
}

/// What a label's value may be.
pub(crate) enum Value<'a> {
    Text(Cow<'a, str>),
    Labels(Labels),
    Other,
}

impl<'de> Deserialize<'de> for Value<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Value<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Value::Text(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Value::Text(Cow::Owned(text.to_owned())))
            }

            fn visit_string<E>(self, text: String) -> Result<Self::Value, E> {
                Ok(Value::Text(Cow::Owned(text)))
            }

            fn visit_bool<E>(self, value: bool) -> Result<Self::Value, E> {
                Ok(Value::Text(Cow::Borrowed(if value {
                    "true"
                } else {
                    "false"
                })))
            }

            fn visit_i64<E>(self, value: i64) -> Result<Self::Value, E> {
                Ok(Value::Text(Cow::Owned(value.to_string())))
            }

            fn visit_u64<E>(self, value: u64) -> Result<Self::Value, E> {
                Ok(Value::Text(Cow::Owned(value.to_string())))
            }

            // Not the number that was written any more: as a text, which it is mended to, it is.
            fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Self::Value, E> {
                Err(E::invalid_type(Unexpected::Float(value), &self))
            }

            fn visit_unit<E>(self) -> Result<Self::Value, E> {
                Ok(Value::Other)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Value::Other)
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut labels = Labels::default();
                while let Some(Name(name)) = map.next_key::<Name<'de>>()? {
                    match map.next_value::<Value<'de>>()? {
                        Value::Text(text) => labels.insert(&name, &text),
                        Value::Labels(inner) => labels.merge(&inner),
                        Value::Other => {}
                    }
                }
                Ok(Value::Labels(labels))
            }
        }
        deserializer.deserialize_any(Any)
    }
}
