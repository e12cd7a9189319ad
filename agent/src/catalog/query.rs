//! Filters and orders, the same for gRPC and the command line. See docs/queries.md.

use std::cmp::Ordering;
use std::sync::Arc;

use globset::GlobBuilder;
use nix::unistd::{Group, User};
use sifter_image::record::{Encryption, Format, ReferenceSource, Status};

use super::entry::FileTime;
use super::row::Row;
use super::snapshot::Snapshot;

/// Longest filter: what people write has some hundred bytes.
const FILTER_MAX: usize = 4096;

/// Most terms of a filter.
const TERMS_MAX: usize = 32;

/// What is wrong with a filter or an order.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct QueryError(pub String);

/// Which images, and in which order.
#[derive(Debug, Clone, Default)]
pub struct Query {
    terms: Vec<Term>,
    order: Vec<(Field, bool)>,
}

#[derive(Debug, Clone)]
struct Term {
    field: Field,
    op: Op,
    value: Value,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Op {
    Equal,
    NotEqual,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
}

#[derive(Debug, Clone)]
enum Value {
    Text(globset::GlobMatcher),
    Number(i128),
    Boolean(bool),
}

/// Fields that can be compared or ordered by.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Field {
    Path,
    Root,
    ImageId,
    Format,
    FormatVersion,
    Status,
    StatusMessage,
    Repository,
    Tag,
    Reference,
    ReferenceSource,
    Base,
    Arch,
    Uuid,
    FileSystem,
    Compressor,
    Sbom,
    Encryption,
    ContentDigest,
    Fingerprint,
    Signed,
    Encrypted,
    SizeBytes,
    AllocatedBytes,
    Uid,
    Gid,
    Mode,
    Links,
    UpdateTime,
    CreateTime,
    AccessTime,
    Label(String),
}

/// Labels of images, for filters that ask for them.
pub trait Labels {
    /// The value of label `key` of the image numbered `image`.
    fn label(&self, image: i64, key: &str) -> Option<String>;
}

impl Query {
    /// Parses a filter (terms separated by blanks) and an order (fields separated by commas). `now`
    /// is what ages are counted from.
    ///
    /// # Errors
    ///
    /// What is wrong, with the term.
    pub fn parse(filter: &str, order_by: &str, now: FileTime) -> Result<Self, QueryError> {
        if filter.len() > FILTER_MAX || order_by.len() > FILTER_MAX {
            return Err(QueryError(format!(
                "filter: longer than {FILTER_MAX} bytes"
            )));
        }
        let words = split(filter)?;
        if words.len() > TERMS_MAX {
            return Err(QueryError(format!("filter: more than {TERMS_MAX} terms")));
        }
        let terms = words
            .iter()
            .map(|word| Term::parse(word, now))
            .collect::<Result<_, _>>()?;
        let order = order_by
            .split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty())
            .map(parse_order)
            .collect::<Result<_, _>>()?;
        Ok(Self { terms, order })
    }

    /// Whether the query takes all images in the order of the snapshot.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        self.terms.is_empty() && self.order.is_empty()
    }

    /// Whether the image matches.
    #[must_use]
    pub fn matches<T: AsRef<str>>(
        &self,
        snapshot: &Snapshot,
        row: &Row<T>,
        labels: &dyn Labels,
    ) -> bool {
        self.terms
            .iter()
            .all(|term| term.matches(snapshot, row, labels))
    }

    /// The images of a snapshot that match, in order.
    #[must_use]
    pub fn select(&self, snapshot: &Snapshot, labels: &dyn Labels) -> Vec<Arc<Row>> {
        let mut rows: Vec<Arc<Row>> = snapshot
            .rows
            .iter()
            .filter(|row| self.matches(snapshot, row, labels))
            .map(Arc::clone)
            .collect();
        if !self.order.is_empty() {
            // Stable: images that are equal stay in the order of the snapshot.
            rows.sort_by(|a, b| self.compare(snapshot, a, b));
        }
        rows
    }

    fn compare(&self, snapshot: &Snapshot, a: &Row, b: &Row) -> Ordering {
        self.order
            .iter()
            .map(|(field, descending)| {
                let order = match (field.number(a), field.number(b)) {
                    (Some(a), Some(b)) => a.cmp(&b),
                    _ => field.text(snapshot, a).cmp(&field.text(snapshot, b)),
                };
                if *descending { order.reverse() } else { order }
            })
            .find(|order| order.is_ne())
            .unwrap_or(Ordering::Equal)
    }
}

impl Term {
    fn parse(word: &str, now: FileTime) -> Result<Self, QueryError> {
        let at = word.find(['=', '!', '<', '>']).ok_or_else(|| {
            QueryError(format!("filter: `{word}` has no operator (= != < <= > >=)"))
        })?;
        let (name, rest) = word.split_at(at);
        let (op, value) = [
            ("!=", Op::NotEqual),
            ("<=", Op::LessEqual),
            (">=", Op::GreaterEqual),
            ("=", Op::Equal),
            ("<", Op::Less),
            (">", Op::Greater),
        ]
        .into_iter()
        .find_map(|(text, op)| rest.strip_prefix(text).map(|value| (op, value)))
        .ok_or_else(|| QueryError(format!("filter: `{word}` has no operator (= != < <= > >=)")))?;
        let fail = |what: &str| QueryError(format!("filter: `{word}`: {what}"));
        // `age>180d` is `update_time<` that long ago; `unused` the same for the last access.
        if let Some(field) = match name {
            "age" => Some(Field::UpdateTime),
            "unused" => Some(Field::AccessTime),
            _ => None,
        } {
            let age = duration(value).ok_or_else(|| fail("not a duration, as in 90d, 12h, 2w"))?;
            let op = match op {
                Op::Less => Op::Greater,
                Op::LessEqual => Op::GreaterEqual,
                Op::Greater => Op::Less,
                Op::GreaterEqual => Op::LessEqual,
                Op::Equal | Op::NotEqual => return Err(fail("ages are compared with < and >")),
            };
            return Ok(Self {
                field,
                op,
                value: Value::Number(i128::from(now.0) - age),
            });
        }
        // `label=key=value`, as docker has it, is `label.key=value`; `label=key` asks for presence.
        if name == "label" {
            let (key, value) = value.split_once('=').unwrap_or((value, "*"));
            return Ok(Self {
                field: Field::Label(key.to_owned()),
                op,
                value: Value::Text(glob(value, false).map_err(|what| fail(&what))?),
            });
        }
        let field = Field::parse(name).ok_or_else(|| fail("no such field"))?;
        let value = field.value(name, value).map_err(|what| fail(&what))?;
        if matches!(value, Value::Text(_) | Value::Boolean(_))
            && !matches!(op, Op::Equal | Op::NotEqual)
        {
            return Err(fail("is compared with = and != only"));
        }
        Ok(Self { field, op, value })
    }

    fn matches<T: AsRef<str>>(
        &self,
        snapshot: &Snapshot,
        row: &Row<T>,
        labels: &dyn Labels,
    ) -> bool {
        match &self.value {
            Value::Text(glob) => {
                let equal = if let Field::Label(key) = &self.field {
                    labels
                        .label(row.id, key)
                        .is_some_and(|value| glob.is_match(value))
                } else {
                    glob.is_match(&*self.field.text(snapshot, row))
                };
                equal == (self.op == Op::Equal)
            }
            Value::Boolean(wanted) => {
                let is = match self.field {
                    Field::Signed => !row.signatures.is_empty(),
                    _ => row.encryption != Encryption::None,
                };
                (is == *wanted) == (self.op == Op::Equal)
            }
            Value::Number(wanted) => self.field.number(row).is_some_and(|number| match self.op {
                Op::Equal => number == *wanted,
                Op::NotEqual => number != *wanted,
                Op::Less => number < *wanted,
                Op::LessEqual => number <= *wanted,
                Op::Greater => number > *wanted,
                Op::GreaterEqual => number >= *wanted,
            }),
        }
    }
}

impl Field {
    fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "path" => Self::Path,
            "root" => Self::Root,
            "image_id" | "id" => Self::ImageId,
            "format" => Self::Format,
            "format_version" => Self::FormatVersion,
            "status" => Self::Status,
            "status_message" => Self::StatusMessage,
            "repository" => Self::Repository,
            "tag" => Self::Tag,
            "reference" => Self::Reference,
            "reference_source" => Self::ReferenceSource,
            "base" => Self::Base,
            "arch" => Self::Arch,
            "uuid" => Self::Uuid,
            "file_system" => Self::FileSystem,
            "compressor" => Self::Compressor,
            "sbom" => Self::Sbom,
            "encryption" => Self::Encryption,
            "content_digest" | "digest" => Self::ContentDigest,
            "fingerprint" => Self::Fingerprint,
            "signed" => Self::Signed,
            "encrypted" => Self::Encrypted,
            "size_bytes" | "size" => Self::SizeBytes,
            "allocated_bytes" | "allocated" => Self::AllocatedBytes,
            "uid" | "owner" => Self::Uid,
            "gid" | "group" => Self::Gid,
            "mode" => Self::Mode,
            "links" => Self::Links,
            "update_time" | "updated" => Self::UpdateTime,
            "create_time" | "created" => Self::CreateTime,
            "access_time" | "accessed" => Self::AccessTime,
            _ => Self::Label(name.strip_prefix("label.")?.to_owned()),
        })
    }

    /// What is compared with: parsed as the field needs it.
    fn value(&self, name: &str, text: &str) -> Result<Value, String> {
        let number =
            |number: Option<i128>, what: &str| number.map(Value::Number).ok_or(what.to_owned());
        match self {
            Self::SizeBytes | Self::AllocatedBytes => {
                number(size(text), "not a size, as in 500M, 2G, 1GiB")
            }
            Self::Uid if name == "owner" => Ok(Value::Number(match text.parse::<u32>() {
                Ok(uid) => uid.into(),
                Err(_) => User::from_name(text)
                    .ok()
                    .flatten()
                    .ok_or("no such user")?
                    .uid
                    .as_raw()
                    .into(),
            })),
            Self::Gid if name == "group" => Ok(Value::Number(match text.parse::<u32>() {
                Ok(gid) => gid.into(),
                Err(_) => Group::from_name(text)
                    .ok()
                    .flatten()
                    .ok_or("no such group")?
                    .gid
                    .as_raw()
                    .into(),
            })),
            Self::Uid | Self::Gid | Self::Links => number(text.parse().ok(), "not a number"),
            Self::Mode => number(i128::from_str_radix(text, 8).ok(), "not an octal mode"),
            Self::UpdateTime | Self::CreateTime | Self::AccessTime => number(
                time(text),
                "not a time, as in 2026-01-31 or 2026-01-31T12:00:00Z",
            ),
            Self::Signed | Self::Encrypted => match text {
                "true" | "yes" => Ok(Value::Boolean(true)),
                "false" | "no" => Ok(Value::Boolean(false)),
                _ => Err("neither true nor false".to_owned()),
            },
            Self::Format | Self::Status | Self::Encryption | Self::ReferenceSource => {
                let text = text.to_ascii_uppercase().replace('-', "_");
                let short = ["FORMAT_", "STATUS_", "ENCRYPTION_", "REFERENCE_SOURCE_"]
                    .iter()
                    .find_map(|prefix| text.strip_prefix(prefix))
                    .unwrap_or(&text);
                glob(short, true).map(Value::Text)
            }
            _ => glob(text, false).map(Value::Text),
        }
    }

    fn number<T>(&self, row: &Row<T>) -> Option<i128> {
        Some(match self {
            Self::SizeBytes => row.facts.size.into(),
            Self::AllocatedBytes => row.facts.allocated.into(),
            Self::Uid => row.facts.uid.into(),
            Self::Gid => row.facts.gid.into(),
            Self::Mode => row.facts.mode.into(),
            Self::Links => row.facts.links.into(),
            Self::UpdateTime => row.update_time.0.into(),
            Self::CreateTime => row.create_time?.0.into(),
            Self::AccessTime => row.facts.accessed.0.into(),
            _ => return None,
        })
    }

    fn text<'r, T: AsRef<str>>(
        &self,
        snapshot: &'r Snapshot,
        row: &'r Row<T>,
    ) -> std::borrow::Cow<'r, str> {
        match self {
            Self::Path => crate::escape::utf8(&row.path).into(),
            Self::Root => row.root.as_ref().into(),
            Self::ImageId => row
                .image_id
                .map(|id| id.to_string())
                .unwrap_or_default()
                .into(),
            Self::Format => format_name(row.format).into(),
            Self::FormatVersion => row.format_version.as_ref().into(),
            Self::Status => status_name(snapshot.status(row).0).into(),
            Self::StatusMessage => snapshot.status(row).1.to_owned().into(),
            Self::Repository => row.repository.as_ref().into(),
            Self::Tag => row.tag.as_ref().into(),
            Self::Reference => format!("{}:{}", row.repository.as_ref(), row.tag.as_ref()).into(),
            Self::ReferenceSource => match row.reference_source {
                ReferenceSource::NamingRule => "NAMING_RULE",
                ReferenceSource::OciReference => "OCI_REFERENCE",
                ReferenceSource::Definition => "DEFINITION",
                ReferenceSource::NamingConvention => "NAMING_CONVENTION",
                ReferenceSource::Labels => "LABELS",
                ReferenceSource::FileStem => "FILE_STEM",
            }
            .into(),
            Self::Base => row.base.as_ref().into(),
            Self::Arch => row.arch.as_ref().into(),
            Self::Uuid => row
                .uuid
                .map(|uuid| uuid.to_string())
                .unwrap_or_default()
                .into(),
            Self::FileSystem => row.file_system.as_ref().into(),
            Self::Compressor => row.compressor.as_ref().into(),
            Self::Sbom => row.sbom.as_ref().into(),
            Self::Encryption => match row.encryption {
                Encryption::None => "NONE",
                Encryption::Luks2 => "LUKS2",
                Encryption::Gocryptfs => "GOCRYPTFS",
            }
            .into(),
            Self::ContentDigest => row
                .content_digest
                .as_ref()
                .map(|digest| format!("sha256:{}", hex::encode(**digest)))
                .unwrap_or_default()
                .into(),
            Self::Fingerprint => row
                .signatures
                .iter()
                .map(|signature| signature.fingerprint.as_str())
                .collect::<Vec<_>>()
                .join(",")
                .into(),
            _ => "".into(),
        }
    }
}

/// Name of a status, without prefix.
#[must_use]
pub fn status_name(status: Status) -> &'static str {
    match status {
        Status::Ready => "READY",
        Status::Transfer => "TRANSFER",
        Status::Failure => "FAILURE",
        Status::Unavailable => "UNAVAILABLE",
    }
}

/// Name of a format, without prefix.
#[must_use]
pub fn format_name(format: Format) -> &'static str {
    match format {
        Format::Sif => "SIF",
        Format::OciSif => "OCI_SIF",
        Format::Squashfs => "SQUASHFS",
        Format::Ext3 => "EXT3",
        Format::Sandbox => "SANDBOX",
    }
}

fn parse_order(part: &str) -> Result<(Field, bool), QueryError> {
    let (name, descending) = match part.split_once(' ') {
        Some((name, direction)) if direction.trim().eq_ignore_ascii_case("desc") => (name, true),
        Some((name, direction)) if direction.trim().eq_ignore_ascii_case("asc") => (name, false),
        Some(_) => return Err(QueryError(format!("order: `{part}`: neither asc nor desc"))),
        None => part
            .strip_prefix('-')
            .map_or((part, false), |name| (name, true)),
    };
    match Field::parse(name) {
        Some(Field::Label(_)) | None => {
            Err(QueryError(format!("order: `{name}`: no field to order by")))
        }
        Some(field) => Ok((field, descending)),
    }
}

/// Words separated by blanks; `"…"` keeps blanks together.
fn split(text: &str) -> Result<Vec<String>, QueryError> {
    let mut result: Vec<String> = Vec::new();
    let mut word = String::new();
    let (mut quoted, mut any) = (false, false);
    for character in text.chars() {
        match character {
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
        return Err(QueryError("filter: a quote is not closed".to_owned()));
    }
    if any {
        result.push(word);
    }
    Ok(result)
}

fn glob(text: &str, case_insensitive: bool) -> Result<globset::GlobMatcher, String> {
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
        .map(|glob| glob.compile_matcher())
        .map_err(|error| error.to_string())
}

/// Bytes, with a unit: `k`, `M`, `G`, `T`, `P` are powers of 1000, with an `i` of 1024.
fn size(text: &str) -> Option<i128> {
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: i128 = number.parse().ok()?;
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
    number.checked_mul(base.pow(exponent))
}

/// Nanoseconds: `30s`, `10m`, `12h`, `90d`, `2w`, `1y`.
fn duration(text: &str) -> Option<i128> {
    let split = text.len().checked_sub(1)?;
    let (number, unit) = (text.get(..split)?, text.get(split..)?);
    let number: i128 = number.parse().ok()?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        "w" => 604_800,
        "y" => 31_536_000,
        _ => return None,
    };
    number.checked_mul(seconds * 1_000_000_000)
}

fn time(text: &str) -> Option<i128> {
    if let Ok(time) = text.parse::<jiff::Timestamp>() {
        return Some(time.as_nanosecond());
    }
    let date: jiff::civil::Date = text.parse().ok()?;
    let midnight =
        jiff::tz::TimeZone::UTC.to_timestamp(date.to_datetime(jiff::civil::Time::midnight()));
    Some(midnight.ok()?.as_nanosecond())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::{Labels, Query};
    use crate::catalog::testing::row;
    use crate::catalog::{FileTime, Snapshot};

    struct Fixed;

    impl Labels for Fixed {
        fn label(&self, image: i64, key: &str) -> Option<String> {
            (image == 1 && key == "maintainer").then(|| "me".to_owned())
        }
    }

    fn snapshot() -> Snapshot {
        let mut rows = vec![
            row(
                1,
                "/data/u/samtools_1.9.sif",
                "quay.io/biocontainers/samtools",
                "1.9",
            ),
            row(2, "/data/v/ubuntu.sif", "ubuntu", "22.04"),
            row(3, "/data/v/with space.sif", "with space", "[1]"),
        ];
        rows[0].facts.size = 2_000_000_000;
        rows[1].facts.size = 10;
        rows[0].update_time = "2020-01-01T00:00:00Z"
            .parse::<jiff::Timestamp>()
            .unwrap()
            .into();
        rows[1].update_time = "2025-12-31T00:00:00Z"
            .parse::<jiff::Timestamp>()
            .unwrap()
            .into();
        rows[2].update_time = "2025-12-31T00:00:00Z"
            .parse::<jiff::Timestamp>()
            .unwrap()
            .into();
        rows[1].facts.uid = 4711;
        Snapshot::default().next(rows, &[], BTreeMap::new(), None).0
    }

    #[test]
    fn filters_select() {
        let now: FileTime = "2026-01-01T00:00:00Z"
            .parse::<jiff::Timestamp>()
            .unwrap()
            .into();
        let snapshot = snapshot();
        for (filter, order, expected) in [
            ("", "", &[1, 2, 3][..]),
            ("repository=ubuntu", "", &[2]),
            ("repository!=ubuntu", "", &[1, 3]),
            ("repository=*samtools", "", &[1]),
            ("reference=ubuntu:22.*", "", &[2]),
            ("path=/data/v/*", "", &[2, 3]),
            ("repository=\"with space\"", "", &[3]),
            ("tag=[1]", "", &[3]),
            ("size>1G", "", &[1]),
            ("size<1GiB size_bytes>=10", "", &[2]),
            ("age>1y", "", &[1]),
            ("update_time>=2025-01-01", "", &[2, 3]),
            ("owner=4711", "", &[2]),
            ("status=ready", "", &[1, 2, 3]),
            ("status=STATUS_FAILURE", "", &[]),
            ("format=sif signed=false encrypted=no", "", &[1, 2, 3]),
            ("label=maintainer", "", &[1]),
            ("label=maintainer=you", "", &[]),
            ("label.maintainer=m*", "", &[1]),
            ("", "size_bytes desc", &[1, 2, 3]),
            ("", "-update_time,path", &[2, 3, 1]),
            ("", "tag", &[1, 2, 3]),
        ] {
            let query = Query::parse(filter, order, now).unwrap();
            let mut ids: Vec<i64> = query
                .select(&snapshot, &Fixed)
                .iter()
                .map(|row| row.id)
                .collect();
            if order.is_empty() {
                ids.sort_unstable();
            }
            assert_eq!(ids, expected, "{filter} {order}");
        }
    }

    #[test]
    fn what_cannot_be_understood_is_refused_with_the_term() {
        for (filter, order) in [
            ("repository", ""),
            ("nosuch=1", ""),
            ("size>big", ""),
            ("age=3d", ""),
            ("repository<a", ""),
            ("owner=no-such-user-here", ""),
            ("signed=perhaps", ""),
            ("tag=\"open", ""),
            ("", "nosuch"),
            ("", "tag sideways"),
            ("", "label.x"),
        ] {
            let error = Query::parse(filter, order, FileTime(0)).unwrap_err();
            assert!(
                error.0.starts_with("filter:") || error.0.starts_with("order:"),
                "{error}"
            );
        }
    }
}
