//! `Condition` of a statement: operators, keys, and three answers.
//!
//! A condition is met, not met, or cannot be decided: the request lacks the key, or its value is
//! of another kind than the operator compares. Whoever asks must read "cannot be decided" as the
//! answer that gives less: an `Allow` then does not apply, a `Deny` does.

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use jiff::Timestamp;

use super::pattern;
use crate::config::parse_network;

/// What is known of a request, by condition key.
#[derive(Debug, Clone)]
pub struct Context {
    source_ip: IpAddr,
    secure_transport: bool,
    now: Timestamp,
    /// What was added, before what every request has.
    added: Vec<(String, String)>,
}

/// The keys that every request has.
const SOURCE_IP: &str = "acs:SourceIp";
const SECURE_TRANSPORT: &str = "acs:SecureTransport";
const CURRENT_TIME: &str = "acs:CurrentTime";
const OF_EVERY_REQUEST: [&str; 3] = [SOURCE_IP, SECURE_TRANSPORT, CURRENT_TIME];

impl Context {
    /// The keys that every request has: `acs:SourceIp`, `acs:SecureTransport`, `acs:CurrentTime`.
    pub fn new(source_ip: IpAddr, secure_transport: bool, now: Timestamp) -> Self {
        Self {
            // An IPv4 client on a socket that serves both families is still an IPv4 client.
            source_ip: source_ip.to_canonical(),
            secure_transport,
            now,
            added: Vec::new(),
        }
    }

    /// Adds or replaces a key.
    #[must_use]
    pub fn with(mut self, key: &str, value: &str) -> Self {
        self.added.retain(|(k, _)| !k.eq_ignore_ascii_case(key));
        self.added.push((key.to_owned(), value.to_owned()));
        self
    }

    /// The value of a key; names compare without regard to case. Written when a condition asks for it,
    /// which few do.
    fn get(&self, key: &str) -> Option<Cow<'_, str>> {
        let is = |name: &str| name.eq_ignore_ascii_case(key);
        if let Some((_, value)) = self.added.iter().find(|(name, _)| is(name)) {
            return Some(value.into());
        }
        let name = self.of_every_request().find(|name| is(name))?;
        Some(self.own(name).into())
    }

    /// What of [`OF_EVERY_REQUEST`] is known. A client that a proxy does not name comes from nowhere, and is
    /// neither within a network nor outside of it.
    fn of_every_request(&self) -> impl Iterator<Item = &'static str> + use<> {
        let is_from_nowhere = self.source_ip.is_unspecified();
        OF_EVERY_REQUEST
            .into_iter()
            .filter(move |name| *name != SOURCE_IP || !is_from_nowhere)
    }

    /// The value of one of [`OF_EVERY_REQUEST`].
    fn own(&self, name: &str) -> String {
        match name {
            SOURCE_IP => self.source_ip.to_string(),
            SECURE_TRANSPORT => self.secure_transport.to_string(),
            _ => self.now.to_string(),
        }
    }

    /// All keys and values.
    pub fn entries(&self) -> impl Iterator<Item = (&str, Cow<'_, str>)> {
        let added = |name: &str| self.added.iter().any(|(k, _)| k.eq_ignore_ascii_case(name));
        let own = self
            .of_every_request()
            .filter(move |name| !added(name))
            .map(|name| (name, self.own(name).into()));
        own.chain(self.added.iter().map(|(k, v)| (k.as_str(), v.into())))
    }
}

/// Whether a condition holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Truth {
    /// It holds.
    Met,
    /// It does not.
    NotMet,
    /// Key missing or of another kind.
    Unknown,
}

/// One operator applied to one key: any of the values, or (negated) none of them.
#[derive(Debug, Clone, PartialEq)]
pub struct Test {
    operator: String,
    key: String,
    negated: bool,
    values: Values,
}

#[derive(Debug, Clone, PartialEq)]
enum Values {
    Exact(Vec<String>),
    ExactIgnoringCase(Vec<String>),
    Like(Vec<String>),
    Number(Order, Vec<f64>),
    Date(Order, Vec<Timestamp>),
    Bool(Vec<bool>),
    Ip(Vec<IpNet>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    Equal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Order {
    fn holds<T: PartialOrd>(self, left: &T, right: &T) -> bool {
        match self {
            Self::Equal => left == right,
            Self::Less => left < right,
            Self::LessOrEqual => left <= right,
            Self::Greater => left > right,
            Self::GreaterOrEqual => left >= right,
        }
    }
}

impl Test {
    /// Reads one entry of a condition; the error says what is wrong with it.
    pub(super) fn parse(operator: &str, key: &str, values: &[String]) -> Result<Self, String> {
        // NumericNotEquals is the negation of NumericEquals, and so on through the families.
        let (family, order, negated) = match operator {
            "StringEquals" => ("exact", Order::Equal, false),
            "StringNotEquals" => ("exact", Order::Equal, true),
            "StringEqualsIgnoreCase" => ("nocase", Order::Equal, false),
            "StringNotEqualsIgnoreCase" => ("nocase", Order::Equal, true),
            "StringLike" => ("like", Order::Equal, false),
            "StringNotLike" => ("like", Order::Equal, true),
            "NumericEquals" => ("number", Order::Equal, false),
            "NumericNotEquals" => ("number", Order::Equal, true),
            "NumericLessThan" => ("number", Order::Less, false),
            "NumericLessThanEquals" => ("number", Order::LessOrEqual, false),
            "NumericGreaterThan" => ("number", Order::Greater, false),
            "NumericGreaterThanEquals" => ("number", Order::GreaterOrEqual, false),
            "DateEquals" => ("date", Order::Equal, false),
            "DateNotEquals" => ("date", Order::Equal, true),
            "DateLessThan" => ("date", Order::Less, false),
            "DateLessThanEquals" => ("date", Order::LessOrEqual, false),
            "DateGreaterThan" => ("date", Order::Greater, false),
            "DateGreaterThanEquals" => ("date", Order::GreaterOrEqual, false),
            "Bool" => ("bool", Order::Equal, false),
            "IpAddress" => ("ip", Order::Equal, false),
            "NotIpAddress" => ("ip", Order::Equal, true),
            _ => return Err(format!("unknown condition operator {operator:?}")),
        };
        if key.is_empty() {
            return Err(format!("{operator}: empty condition key"));
        }
        if values.is_empty() {
            return Err(format!("{operator}: no value for {key}"));
        }
        let bad = |value: &str, what: &str| format!("{operator} {key}: {value:?} is not {what}");
        let texts = || values.to_vec();
        let values = match family {
            "exact" => Values::Exact(texts()),
            "nocase" => Values::ExactIgnoringCase(texts()),
            "like" => Values::Like(texts()),
            "number" => Values::Number(
                order,
                each(values, |v| number(v).ok_or_else(|| bad(v, "a number")))?,
            ),
            "date" => Values::Date(
                order,
                each(values, |v| {
                    v.parse().map_err(|_| bad(v, "a time with its offset"))
                })?,
            ),
            "bool" => Values::Bool(each(values, |v| {
                boolean(v).ok_or_else(|| bad(v, "true or false"))
            })?),
            _ => Values::Ip(each(values, |v| {
                parse_network(v).ok_or_else(|| bad(v, "an address or a network"))
            })?),
        };
        Ok(Self {
            operator: operator.to_owned(),
            key: key.to_owned(),
            negated,
            values,
        })
    }

    /// Whether the request passes.
    pub(super) fn evaluate(&self, context: &Context) -> Truth {
        let Some(given) = context.get(&self.key) else {
            return Truth::Unknown;
        };
        let given = &*given;
        let any = match &self.values {
            Values::Exact(list) => Some(list.iter().any(|v| v == given)),
            Values::ExactIgnoringCase(list) => {
                let given = given.to_lowercase();
                Some(list.iter().any(|v| v.to_lowercase() == given))
            }
            Values::Like(list) => Some(list.iter().any(|v| pattern::matches(v, given))),
            Values::Number(order, list) => {
                number(given).map(|given| list.iter().any(|v| order.holds(&given, v)))
            }
            Values::Date(order, list) => given
                .parse::<Timestamp>()
                .ok()
                .map(|given| list.iter().any(|v| order.holds(&given, v))),
            Values::Bool(list) => boolean(given).map(|given| list.contains(&given)),
            Values::Ip(list) => given
                .parse::<IpAddr>()
                .ok()
                .map(|given| list.iter().any(|net| net.contains(&given.to_canonical()))),
        };
        match any {
            None => Truth::Unknown,
            Some(any) if any != self.negated => Truth::Met,
            Some(_) => Truth::NotMet,
        }
    }
}

impl fmt::Display for Test {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.operator, self.key)
    }
}

fn each<T>(
    values: &[String],
    read: impl Fn(&String) -> Result<T, String>,
) -> Result<Vec<T>, String> {
    values.iter().map(read).collect()
}

fn number(text: &str) -> Option<f64> {
    text.parse().ok().filter(|n: &f64| n.is_finite())
}

fn boolean(text: &str) -> Option<bool> {
    if text.eq_ignore_ascii_case("true") {
        Some(true)
    } else if text.eq_ignore_ascii_case("false") {
        Some(false)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context() -> Context {
        Context::new(
            "10.1.2.3".parse().unwrap(),
            true,
            "2026-01-02T03:04:05Z".parse().unwrap(),
        )
        .with("x:Name", "Mixed")
        .with("x:Size", "10")
    }

    #[test]
    fn operators() {
        use Truth::{Met, NotMet, Unknown};
        for (operator, key, values, expected) in [
            ("StringEquals", "x:Name", &["a", "Mixed"][..], Met),
            ("StringEquals", "x:Name", &["mixed"], NotMet),
            ("StringEquals", "X:NAME", &["Mixed"], Met),
            ("StringNotEquals", "x:Name", &["a", "b"], Met),
            ("StringNotEquals", "x:Name", &["a", "Mixed"], NotMet),
            ("StringEqualsIgnoreCase", "x:Name", &["mIXED"], Met),
            ("StringNotEqualsIgnoreCase", "x:Name", &["mIXED"], NotMet),
            ("StringLike", "x:Name", &["M?x*"], Met),
            ("StringLike", "x:Name", &["m*"], NotMet),
            ("StringNotLike", "x:Name", &["M*"], NotMet),
            ("StringNotLike", "x:Name", &["m*"], Met),
            ("NumericEquals", "x:Size", &["10.0"], Met),
            ("NumericNotEquals", "x:Size", &["10"], NotMet),
            ("NumericLessThan", "x:Size", &["10"], NotMet),
            ("NumericLessThanEquals", "x:Size", &["10"], Met),
            ("NumericGreaterThan", "x:Size", &["9"], Met),
            ("NumericGreaterThanEquals", "x:Size", &["11"], NotMet),
            ("NumericEquals", "x:Name", &["1"], Unknown),
            (
                "DateEquals",
                "acs:CurrentTime",
                &["2026-01-02T11:04:05+08:00"],
                Met,
            ),
            (
                "DateNotEquals",
                "acs:CurrentTime",
                &["2026-01-02T03:04:05Z"],
                NotMet,
            ),
            (
                "DateLessThan",
                "acs:CurrentTime",
                &["2026-01-02T03:04:06Z"],
                Met,
            ),
            (
                "DateLessThan",
                "acs:CurrentTime",
                &["2026-01-02T03:04:05Z"],
                NotMet,
            ),
            (
                "DateLessThanEquals",
                "acs:CurrentTime",
                &["2026-01-02T03:04:05Z"],
                Met,
            ),
            (
                "DateGreaterThan",
                "acs:CurrentTime",
                &["2026-01-02T03:04:04Z"],
                Met,
            ),
            (
                "DateGreaterThanEquals",
                "acs:CurrentTime",
                &["2027-01-01T00:00:00Z"],
                NotMet,
            ),
            ("DateLessThan", "x:Name", &["2026-01-02T03:04:06Z"], Unknown),
            ("Bool", "acs:SecureTransport", &["true"], Met),
            ("Bool", "acs:SecureTransport", &["False"], NotMet),
            ("Bool", "x:Name", &["true"], Unknown),
            ("IpAddress", "acs:SourceIp", &["10.0.0.0/8"], Met),
            ("IpAddress", "acs:SourceIp", &["10.1.2.3"], Met),
            (
                "IpAddress",
                "acs:SourceIp",
                &["10.1.2.4", "fd00::/8"],
                NotMet,
            ),
            ("IpAddress", "acs:SourceIp", &["::ffff:10.1.2.3"], Met),
            ("IpAddress", "acs:SourceIp", &["::ffff:10.0.0.0/104"], Met),
            ("NotIpAddress", "acs:SourceIp", &["::ffff:10.1.2.3"], NotMet),
            ("NotIpAddress", "acs:SourceIp", &["10.0.0.0/8"], NotMet),
            ("NotIpAddress", "acs:SourceIp", &["192.168.0.0/16"], Met),
            ("IpAddress", "x:Name", &["10.0.0.0/8"], Unknown),
            // A key that the request lacks decides nothing, negated or not.
            ("StringEquals", "acs:MFAPresent", &["true"], Unknown),
            ("StringNotEquals", "acs:MFAPresent", &["true"], Unknown),
            ("NotIpAddress", "acs:SourceVpc", &["10.0.0.0/8"], Unknown),
        ] {
            let values: Vec<String> = values.iter().map(|v| (*v).to_owned()).collect();
            let test = Test::parse(operator, key, &values).unwrap();
            assert_eq!(
                test.evaluate(&context()),
                expected,
                "{operator} {key} {values:?}"
            );
        }
    }

    #[test]
    fn source_addresses_of_both_families() {
        for (source, network, expected) in [
            ("::ffff:10.1.2.3", "10.0.0.0/8", Truth::Met),
            ("fd00::1", "fd00::/8", Truth::Met),
            ("fd00::1", "10.0.0.0/8", Truth::NotMet),
            ("10.1.2.3", "::/0", Truth::NotMet),
            // Of a client that a proxy did not name.
            ("0.0.0.0", "10.0.0.0/8", Truth::Unknown),
        ] {
            let context = Context::new(source.parse().unwrap(), false, Timestamp::UNIX_EPOCH);
            let test = Test::parse("IpAddress", "acs:SourceIp", &[network.to_owned()]).unwrap();
            assert_eq!(test.evaluate(&context), expected, "{source} {network}");
        }
        // As text, too, an IPv4 client of a socket of both families is one.
        let source = "::ffff:10.1.2.3";
        let context = Context::new(source.parse().unwrap(), false, Timestamp::UNIX_EPOCH);
        let test = Test::parse("StringLike", "acs:SourceIp", &["10.1.*".to_owned()]).unwrap();
        assert_eq!(test.evaluate(&context), Truth::Met);
    }

    #[test]
    fn what_is_added_takes_the_place_of_what_was_there() {
        let context = context()
            .with("X:NAME", "other")
            .with("acs:sourceip", "::ffff:192.0.2.1");
        for (operator, key, value) in [
            ("StringEquals", "x:Name", "other"),
            ("IpAddress", "acs:SourceIp", "192.0.2.1"),
        ] {
            let test = Test::parse(operator, key, &[value.to_owned()]).unwrap();
            assert_eq!(test.evaluate(&context), Truth::Met, "{key}");
        }
        let entries: Vec<_> = context
            .entries()
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        assert_eq!(
            entries,
            [
                "acs:SecureTransport=true",
                "acs:CurrentTime=2026-01-02T03:04:05Z",
                "x:Size=10",
                "X:NAME=other",
                "acs:sourceip=::ffff:192.0.2.1",
            ]
        );
    }

    #[test]
    fn refused() {
        for (operator, key, value) in [
            ("stringequals", "k", "v"),
            ("StringEqualsIfExists", "k", "v"),
            ("ForAnyValue:StringEquals", "k", "v"),
            ("", "k", "v"),
            ("StringEquals", "", "v"),
            ("NumericEquals", "k", "ten"),
            ("NumericEquals", "k", "NaN"),
            ("DateLessThan", "k", "2026-01-02"),
            ("DateLessThan", "k", "2026-01-02T03:04:05"),
            ("Bool", "k", "yes"),
            ("IpAddress", "k", "10.0.0.0/33"),
            ("IpAddress", "k", "10.0.0"),
            ("NotIpAddress", "k", "everywhere"),
        ] {
            assert!(
                Test::parse(operator, key, &[value.to_owned()]).is_err(),
                "{operator} {key} {value}"
            );
        }
        assert!(Test::parse("StringEquals", "k", &[]).is_err());
    }
}
