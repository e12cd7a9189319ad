//! `google.protobuf.Timestamp`, in the spelling that the proto3 JSON mapping asks for.

use std::cell::RefCell;

use jiff::fmt::temporal::DateTimePrinter;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};

/// A point in time, UTC.
///
/// In JSON RFC 3339, "Z-normalized and with 0, 3, 6 or 9 fractional digits" (ProtoJSON); that is why
/// this is not the one of pbjson-types, which writes `+00:00`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, prost::Message)]
pub struct Timestamp {
    /// Seconds since 1970-01-01T00:00:00Z.
    #[prost(int64, tag = "1")]
    pub seconds: i64,
    /// Nanoseconds of the second, forwards in time.
    #[prost(int32, tag = "2")]
    pub nanos: i32,
}

impl From<jiff::Timestamp> for Timestamp {
    fn from(time: jiff::Timestamp) -> Self {
        let (seconds, nanos) = (time.as_second(), time.subsec_nanosecond());
        // jiff counts both from 1970 away, the protocol the nanoseconds always forwards.
        if nanos < 0 {
            Self {
                seconds: seconds - 1,
                nanos: nanos + 1_000_000_000,
            }
        } else {
            Self { seconds, nanos }
        }
    }
}

impl TryFrom<Timestamp> for jiff::Timestamp {
    type Error = jiff::Error;

    fn try_from(time: Timestamp) -> Result<Self, Self::Error> {
        Self::new(time.seconds, time.nanos)
    }
}

impl Timestamp {
    fn print(self, text: &mut String) -> Result<(), jiff::Error> {
        const PRINTERS: [DateTimePrinter; 4] = [
            DateTimePrinter::new().precision(Some(0)),
            DateTimePrinter::new().precision(Some(3)),
            DateTimePrinter::new().precision(Some(6)),
            DateTimePrinter::new().precision(Some(9)),
        ];
        let time = jiff::Timestamp::try_from(self)?;
        let [seconds, milliseconds, microseconds, nanoseconds] = &PRINTERS;
        let printer = match self.nanos {
            0 => seconds,
            nanos if nanos % 1_000_000 == 0 => milliseconds,
            nanos if nanos % 1_000 == 0 => microseconds,
            _ => nanoseconds,
        };
        printer.print_timestamp(&time, text)
    }
}

thread_local! {
    /// The last time that was printed: the objects of an image mostly have one in common.
    static LAST: RefCell<Option<(Timestamp, String)>> = const { RefCell::new(None) };
}

impl Timestamp {
    /// Hands its text to `take`: the one that JSON has.
    ///
    /// # Errors
    ///
    /// It is before the year -9999 or after the year 9999.
    pub fn with_text<T>(&self, take: impl FnOnce(&str) -> T) -> Result<T, jiff::Error> {
        LAST.with_borrow_mut(|last| {
            let mut text = match last.take() {
                Some((time, text)) if time == *self => {
                    let (_, text) = last.insert((time, text));
                    return Ok(take(text));
                }
                Some((_, text)) => text,
                None => String::new(),
            };
            text.clear();
            self.print(&mut text)?;
            let (_, text) = last.insert((*self, text));
            Ok(take(text))
        })
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.with_text(|text| serializer.serialize_str(text))
            .map_err(ser::Error::custom)?
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse::<jiff::Timestamp>()
            .map(Self::from)
            .map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::Timestamp;

    #[test]
    fn json_is_rfc_3339_in_utc_with_as_many_digits_as_needed() {
        for (seconds, nanos, text) in [
            (0, 0, "1970-01-01T00:00:00Z"),
            (1_595_355_268, 0, "2020-07-21T18:14:28Z"),
            (1_595_355_268, 500_000_000, "2020-07-21T18:14:28.500Z"),
            (1_595_355_268, 1_000, "2020-07-21T18:14:28.000001Z"),
            (1_595_355_268, 1, "2020-07-21T18:14:28.000000001Z"),
            (-1, 999_000_000, "1969-12-31T23:59:59.999Z"),
            (-62_135_596_800, 0, "0001-01-01T00:00:00Z"),
        ] {
            let time = Timestamp { seconds, nanos };
            let json = serde_json::to_string(&time).unwrap();
            assert_eq!(json, format!("\"{text}\""));
            assert_eq!(serde_json::from_str::<Timestamp>(&json).unwrap(), time);
        }
    }

    #[test]
    fn times_in_a_row_do_not_take_each_other_s_text() {
        let at = |seconds, nanos| Timestamp { seconds, nanos };
        let row = [
            at(0, 0),
            at(0, 0),
            at(0, 1),
            at(1, 0),
            at(i64::MAX, 0),
            at(1, 0),
        ];
        let texts: Vec<_> = row
            .iter()
            .map(|time| serde_json::to_string(time).unwrap_or_default())
            .collect();
        assert_eq!(
            texts,
            [
                "\"1970-01-01T00:00:00Z\"",
                "\"1970-01-01T00:00:00Z\"",
                "\"1970-01-01T00:00:00.000000001Z\"",
                "\"1970-01-01T00:00:01Z\"",
                "",
                "\"1970-01-01T00:00:01Z\"",
            ]
        );
    }

    #[test]
    fn offsets_are_understood_and_nonsense_is_refused() {
        let time: Timestamp = serde_json::from_str("\"2020-07-21T20:14:28+02:00\"").unwrap();
        assert_eq!(time.seconds, 1_595_355_268);
        for text in ["\"\"", "\"yesterday\"", "7", "\"2020-07-21\""] {
            assert!(serde_json::from_str::<Timestamp>(text).is_err(), "{text}");
        }
        let beyond = Timestamp {
            seconds: i64::MAX,
            nanos: 0,
        };
        assert!(serde_json::to_string(&beyond).is_err());
    }
}
