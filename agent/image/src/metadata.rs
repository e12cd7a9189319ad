//! The metadata objects: `inspect-metadata.json`, labels, `oci-config.json`, definition.
//!
//! Sources: apptainer `internal/pkg/build/metadata.go: insertJSONInspectMetadata, insertLabelsJSON`,
//! `pkg/inspect/inspect.go`, singularity 3.x `cmd/internal/cli/inspect.go`. Shapes differ by
//! release: labels as an object or as a string that holds one, attributes with or without `data`
//! around them, labels by partition (`{"system-partition": {…}}`). A broken object gives what can
//! still be read of it.

use std::fmt;

use serde::de::{DeserializeOwned, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::json::{self, Numbers};
use crate::labels::{Labels, LabelsObject, Value};
use crate::limits;

/// What `inspect-metadata.json` says.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Inspected {
    pub(crate) labels: Labels,
    pub(crate) definition: Option<String>,
}

/// Reads `inspect-metadata.json`.
pub(crate) fn inspect_metadata(bytes: &[u8]) -> Inspected {
    let attributes = attributes::<Text>(bytes);
    Inspected {
        labels: attributes.labels.0.unwrap_or_default().0,
        definition: attributes.deffile.0.map(crate::definition::cut),
    }
}

/// Reads the labels of `inspect-metadata.json`, where the definition is an object of its own.
pub(crate) fn inspect_labels(bytes: &[u8]) -> Labels {
    let attributes = attributes::<Passed>(bytes);
    attributes.labels.0.unwrap_or_default().0
}

/// The attributes in `inspect-metadata.json`, with a definition of type `D`.
fn attributes<D: Deffile>(bytes: &[u8]) -> Attributes<D> {
    match parse::<Document<D>>(bytes) {
        Ok(document) => document.into_attributes(),
        Err(_) => {
            let mended = json::mended(bytes, Numbers::All);
            let bytes = mended.as_bytes();
            Attributes {
                labels: Lenient(salvage::<LabelsObject>(bytes, b"\"labels\":")),
                deffile: salvage::<D>(bytes, b"\"deffile\":").unwrap_or_default(),
            }
        }
    }
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> serde_json::Result<T> {
    json::parse(bytes, Numbers::All)
}

/// Reads a labels object or file.
pub(crate) fn labels(bytes: &[u8]) -> Labels {
    parse::<LabelsObject>(bytes).unwrap_or_default().0
}

/// Reads the labels of an OCI image configuration's `config` part.
pub(crate) fn oci_config(bytes: &[u8]) -> Labels {
    json::objects! {
        struct Config {
            "Labels" => labels: Lenient<LabelsObject>,
        }
    }
    parse::<Config>(bytes)
        .unwrap_or_default()
        .labels
        .0
        .unwrap_or_default()
        .0
}

/// A definition's bytes as text, [cut](crate::definition::cut) where there are more than
/// [`limits::DEFINITION_MAX`]: the first of those further ones is enough.
pub(crate) fn definition(bytes: &[u8]) -> String {
    let end = bytes.len().min(limits::DEFINITION_MAX + 1);
    let text = match std::str::from_utf8(&bytes[..end]) {
        Ok(text) => text.to_owned(),
        Err(_) => String::from_utf8_lossy(&bytes[..end]).into_owned(),
    };
    crate::definition::cut(text)
}

json::objects! {
    struct Document<D: Deffile> {
        "data" => data: Lenient<Data<D>>,
        "attributes" => attributes: Lenient<Attributes<D>>,
        "labels" => labels: Lenient<LabelsObject>,
        "deffile" => deffile: D,
    }

    struct Data<D: Deffile> {
        "attributes" => attributes: Lenient<Attributes<D>>,
        "labels" => labels: Lenient<LabelsObject>,
        "deffile" => deffile: D,
    }

    struct Attributes<D: Deffile> {
        "labels" => labels: Lenient<LabelsObject>,
        "deffile" => deffile: D,
    }
}

/// A definition in `inspect-metadata.json`: taken, or passed over.
trait Deffile: DeserializeOwned + Default {
    /// Whether this is the one to take.
    fn is_given(&self) -> bool;
}

impl<D: Deffile> Document<D> {
    /// The attributes, wherever this release puts them.
    fn into_attributes(self) -> Attributes<D> {
        let data = self.data.0.unwrap_or_default();
        let inner = data.attributes.0.unwrap_or_default();
        let outer = self.attributes.0.unwrap_or_default();
        let labels = [inner.labels, outer.labels, data.labels, self.labels]
            .into_iter()
            .find_map(|labels| labels.0);
        let deffile = [inner.deffile, outer.deffile, data.deffile, self.deffile]
            .into_iter()
            .find(Deffile::is_given);
        Attributes {
            labels: Lenient(labels),
            deffile: deffile.unwrap_or_default(),
        }
    }
}

/// Parses the value behind the first `key` of a document that is broken elsewhere.
fn salvage<T: DeserializeOwned>(bytes: &[u8], key: &[u8]) -> Option<T> {
    let at = bytes.windows(key.len()).position(|window| window == key)?;
    serde_json::Deserializer::from_slice(&bytes[at + key.len()..])
        .into_iter()
        .next()?
        .ok()
}

/// A value of type `T`, or a string that holds its JSON; anything else is `None`, not an error.
struct Lenient<T>(Option<T>);

impl<T> Default for Lenient<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<'de, T: DeserializeOwned> Deserialize<'de> for Lenient<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either<T>(std::marker::PhantomData<T>);
        impl<'de, T: DeserializeOwned> Visitor<'de> for Either<T> {
            type Value = Option<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object, or a string that holds one")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                T::deserialize(serde::de::value::MapAccessDeserializer::new(map)).map(Some)
            }

            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(parse(text.as_bytes()).ok())
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok(None)
            }

            fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
                Ok(None)
            }

            fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
                Ok(None)
            }

            fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
                Ok(None)
            }

            fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
                Ok(None)
            }

            fn visit_unit<E>(self) -> Result<Self::Value, E> {
                Ok(None)
            }
        }
        deserializer
            .deserialize_any(Either(std::marker::PhantomData))
            .map(Self)
    }
}

/// Text, or nothing for any other value.
#[derive(Default)]
struct Text(Option<String>);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(match Value::deserialize(deserializer)? {
            Value::Text(text) => Self(Some(text.into_owned())),
            _ => Self(None),
        })
    }
}

impl Deffile for Text {
    fn is_given(&self) -> bool {
        self.0.is_some()
    }
}

/// Any value, passed over.
#[derive(Default)]
struct Passed;

impl<'de> Deserialize<'de> for Passed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        IgnoredAny::deserialize(deserializer).map(|_| Self)
    }
}

impl Deffile for Passed {
    fn is_given(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> Labels {
        pairs.iter().copied().collect()
    }

    #[test]
    fn every_known_shape_of_inspect_metadata() {
        let expected = Inspected {
            labels: map(&[("a", "1"), ("q", "\"<\n")]),
            definition: Some("bootstrap: docker\n".to_owned()),
        };
        let shapes = [
            r#"{"type":"container","data":{"attributes":{"labels":{"a":"1","q":"\"\u003c\n"},"deffile":"bootstrap: docker\n","apps":{}}}}"#,
            r#"{"data":{"attributes":{"deffile":"bootstrap: docker\n","labels":"{\"a\":\"1\",\"q\":\"\\\"<\\n\"}"}}}"#,
            r#"{"attributes":{"labels":{"a":"1","q":"\"<\n"},"deffile":"bootstrap: docker\n"},"type":"container"}"#,
            r#"{"labels":{"a":1,"q":"\"<\n","list":[1],"none":null},"deffile":"bootstrap: docker\n"}"#,
            r#"{"data":{"labels":{"a":"1","q":"\"<\n"},"deffile":"bootstrap: docker\n"}}"#,
            r#"{"data":{"attributes":{"deffile":"bootstrap: docker\n","labels":{"system-partition":{"a":"1","q":"\"<\n"}}}}}"#,
            // Broken behind what matters.
            r#"{"data":{"attributes":{"labels":{"a":"1","q":"\"<\n"},"deffile":"bootstrap: docker\n","runscript":"#,
        ];
        for shape in shapes {
            assert_eq!(inspect_metadata(shape.as_bytes()), expected, "{shape}");
            assert_eq!(inspect_labels(shape.as_bytes()), expected.labels, "{shape}");
        }
    }

    #[test]
    fn the_innermost_counts() {
        let of = |name: &str| format!(r#""labels":{{"of":"{name}"}},"deffile":"from: {name}""#);
        let mut document = String::new();
        for (name, key) in [("inner", ""), ("data", "attributes"), ("root", "data")] {
            let inside = std::mem::take(&mut document);
            document = match key {
                "" => format!("{{{}}}", of(name)),
                _ => format!(r#"{{{},"{key}":{inside}}}"#, of(name)),
            };
        }
        // All four places have both, and then one place less each time.
        let mut document: serde_json::Value = serde_json::from_str(&document).unwrap();
        document["attributes"] = serde_json::from_str(&format!("{{{}}}", of("outer"))).unwrap();
        for (expected, place) in [
            ("inner", "/data/attributes"),
            ("outer", "/attributes"),
            ("data", "/data"),
            ("root", ""),
        ] {
            let bytes = document.to_string().into_bytes();
            let found = inspect_metadata(&bytes);
            assert_eq!(found.labels, map(&[("of", expected)]), "{document}");
            assert_eq!(
                found.definition,
                Some(format!("from: {expected}")),
                "{document}"
            );
            let taken = document
                .pointer_mut(place)
                .unwrap()
                .as_object_mut()
                .unwrap();
            taken.remove("labels");
            taken.remove("deffile");
        }
    }

    #[test]
    fn nothing_readable_is_nothing() {
        for shape in [
            "",
            "{}",
            "[]",
            "null",
            "7",
            "\"x\"",
            "{\"data\":7,\"attributes\":[1]}",
            "\u{0}",
        ] {
            assert_eq!(
                inspect_metadata(shape.as_bytes()),
                Inspected::default(),
                "{shape:?}"
            );
            let shape = shape.replace("\"data\":7,", "");
            assert_eq!(labels(shape.as_bytes()), Labels::default(), "{shape:?}");
        }
    }

    #[test]
    fn deep_nesting_ends() {
        let deep = "{\"a\":".repeat(100_000);
        assert_eq!(labels(deep.as_bytes()), Labels::default());
        assert_eq!(inspect_metadata(deep.as_bytes()), Inspected::default());
    }

    #[test]
    fn one_odd_value_costs_no_other_label() {
        for (raw, expected) in [
            (&br#""\ud800""#[..], "\u{fffd}"),
            (br#""a\udc00b""#, "a\u{fffd}b"),
            (br#""\ud83d\ude00""#, "\u{1f600}"),
            (b"\"a\xff\xfe\"", "a\u{fffd}\u{fffd}"),
            (b"\"tab\there\"", "tab\there"),
            (br#""C:\dir""#, "C:\\dir"),
            (b"1e999", "1e999"),
            (b"NaN", "NaN"),
            (b"1.10", "1.10"),
            (b"-0", "-0"),
            (b"1E5", "1E5"),
            (b"18446744073709551615", "18446744073709551615"),
            (b"18446744073709551616", "18446744073709551616"),
            (b"-9223372036854775809", "-9223372036854775809"),
            (b"true", "true"),
        ] {
            let flat = [br#"{"a":"1 \"<","odd":"#, raw, br#","z":2}"#].concat();
            let quoted =
                std::str::from_utf8(&flat).map(|flat| serde_json::json!({ "labels": flat }));
            let within = [
                br#"{"data":{"attributes":{"deffile":"x\n","labels":"#,
                &*flat,
                b"}}}",
            ]
            .concat();
            let cut = within[..within.len() - 2].to_vec();
            let expected = map(&[("a", "1 \"<"), ("odd", expected), ("z", "2")]);
            assert_eq!(labels(&flat), expected);
            if let Ok(quoted) = quoted {
                assert_eq!(inspect_labels(quoted.to_string().as_bytes()), expected);
            }
            for document in [within, cut] {
                let inspected = inspect_metadata(&document);
                assert_eq!(inspected.labels, expected);
                assert_eq!(inspected.definition.as_deref(), Some("x\n"));
            }
            let config = [br#"{"Labels":"#, &*flat, b"}"].concat();
            assert_eq!(oci_config(&config), expected);
        }
    }

    #[test]
    fn the_last_of_repeated_members_counts() {
        for shape in [
            r#"{"labels":{"a":"0"},"labels":{"a":"1","a":"2"}}"#,
            r#"{"data":null,"data":{"attributes":{"labels":{"a":"2"},"labels":null}}}"#,
        ] {
            assert_eq!(
                inspect_labels(shape.as_bytes()),
                map(&[("a", "2")]),
                "{shape}"
            );
        }
    }

    #[test]
    fn labels_of_an_oci_configuration() {
        assert_eq!(
            oci_config(br#"{"Env":["A=1"],"Labels":{"k":"v"}}"#),
            map(&[("k", "v")])
        );
        assert_eq!(oci_config(br#"{"Labels":null}"#), Labels::default());
    }
}
