//! As much of a configuration file as can be understood: a mistake in it does not hide the others.

use std::path::Path;

use serde::Deserialize;
use toml::de::{DeTable, DeValue, Deserializer};

use super::place::{Line, path_of};
use super::problem::{ConfigProblem, Key};
use super::raw::Raw;

/// What types are called for people, who do not write this program.
const TYPES: [(&str, &str); 9] = [
    ("u32", "a whole number, 0 to 4294967295"),
    ("u64", "a whole number, 0 or more"),
    ("f64", "a number"),
    ("a boolean", "true or false"),
    ("a string", "a text in quotes"),
    ("path string", "a path in quotes"),
    ("a sequence", "a list in brackets"),
    ("struct RawTls", "a table, as [tls]"),
    ("struct RawRoot", "a table, as [defaults]"),
];

/// What is written of image directories, and what is not.
const ROOTS: &str = "name each image directory in a table of its own: [[root]] in two brackets, then path = \"/where/images/are\"";

/// Tables of which there is one. The parser takes the elements of a list for their values, in some order.
const ONE: [&str; 2] = ["tls", "defaults"];

/// What a file says, without what cannot be understood, and that. Nothing is taken from a file that is no TOML, and
/// only its first mistake is told: where a bracket is not closed, all that follows looks like one.
pub(super) fn understood(path: &Path, text: &str) -> (Raw, Vec<ConfigProblem>) {
    let line = |start| Some(Line::of(path, text, start));
    let at = |error: &toml::de::Error| line(error.span().map_or(0, |span| span.start));
    let mut table = match DeTable::parse(text) {
        Ok(table) => table,
        Err(error) => {
            let problem = ConfigProblem {
                line: at(&error),
                key: None,
                message: format!("not TOML: {}", error.message()),
            };
            return (Raw::default(), vec![problem]);
        }
    };
    let mut problems = Vec::new();
    for name in ONE {
        let is_list = |value: &DeValue<'_>| matches!(value, DeValue::Array(_));
        let Some((key, _)) =
            (table.get_ref().get_key_value(name)).filter(|(_, value)| is_list(value.get_ref()))
        else {
            continue;
        };
        problems.push(ConfigProblem {
            line: line(key.span().start),
            key: Some(Key {
                root: None,
                name: name.into(),
            }),
            message: format!("there is one such table: write [{name}] in single brackets"),
        });
        table.get_mut().remove(name);
    }
    loop {
        let error = match Raw::deserialize(Deserializer::from(table.clone())) {
            Ok(raw) => return (raw, problems),
            Err(error) => error,
        };
        let taken = error
            .span()
            .and_then(|span| take(table.get_mut(), span.start, None, ""));
        let is_lost = taken.is_none();
        let is_known = !error.message().starts_with("unknown field");
        problems.push(ConfigProblem {
            line: at(&error),
            message: for_people(error.message(), taken.as_ref()),
            key: taken.filter(|_| is_known),
        });
        if is_lost {
            return (Raw::default(), problems);
        }
    }
}

fn for_people(message: &str, key: Option<&Key>) -> String {
    if key.is_some_and(|key| key.name == "root") {
        return ROOTS.to_owned();
    }
    let Some((found, expected)) = message.rsplit_once(", expected ") else {
        return message.to_owned();
    };
    let known = TYPES.iter().find(|(name, _)| *name == expected);
    format!(
        "{found}, expected {}",
        known.map_or(expected, |(_, name)| name)
    )
}

/// Takes the innermost value out whose key or text is at this place, and gives its key. `within` is the name of
/// the tables around it.
fn take(table: &mut DeTable<'_>, at: usize, root: Option<&Path>, within: &str) -> Option<Key> {
    for (key, value) in table.iter_mut() {
        let name = named(within, key.get_ref());
        let taken = match value.get_mut() {
            DeValue::Table(inner) => take(inner, at, None, &name),
            DeValue::Array(elements) => elements.iter_mut().find_map(|element| {
                let DeValue::Table(inner) = element.get_mut() else {
                    return None;
                };
                let path = path_of(inner).map(Path::to_owned);
                match &path {
                    Some(path) => take(inner, at, Some(path), ""),
                    None => take(inner, at, None, &name),
                }
            }),
            _ => None,
        };
        if taken.is_some() {
            return taken;
        }
    }
    let (key, _) = table
        .iter()
        .find(|(key, value)| key.span().contains(&at) || value.span().contains(&at))?;
    let key = key.get_ref().to_string();
    table.remove(&*key);
    Some(Key {
        root: root.map(Path::to_owned),
        name: named(within, &key).into(),
    })
}

fn named(within: &str, key: &str) -> String {
    if within.is_empty() {
        key.to_owned()
    } else {
        format!("{within}.{key}")
    }
}
