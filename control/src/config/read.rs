//! The configuration from its files: the main one, then its drop-ins `<file>.d/*.toml` in the order of
//! their names. What a later file says counts; tables come together key by key, and `[[clusters]]` add
//! up, where one with the ID of an earlier one takes its place.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::path::PathBuf;

use serde::Deserialize;
use toml::Table;
use toml::Value;
use toml::de::DeTable;
use toml::de::DeValue;
use toml::de::Deserializer;

use super::ConfigError;
use super::RawConfig;

/// The list whose entries add up.
const CLUSTERS: &str = "clusters";

/// The directory of a file's drop-ins.
pub(super) fn drop_ins(path: &Path) -> PathBuf {
    let mut directory = path.as_os_str().to_owned();
    directory.push(".d");
    directory.into()
}

/// What was read, file by file.
#[derive(Default)]
pub(super) struct Read {
    merged: Table,
    files: Vec<(PathBuf, String)>,
    problems: Vec<String>,
}

impl Read {
    /// Adds a file, over those before it.
    pub(super) fn add(&mut self, path: PathBuf, text: String) {
        let (table, problems) = understood(&text);
        self.merged = merge(std::mem::take(&mut self.merged), table);
        let problems = problems.iter();
        self.problems
            .extend(problems.map(|problem| format!("{}, {problem}", path.display())));
        self.files.push((path, text));
    }

    /// The configuration, the files with their texts, and what in them could not be understood.
    pub(super) fn merged(mut self) -> (RawConfig, Vec<(PathBuf, String)>, Vec<String>) {
        let raw = self.merged.try_into().unwrap_or_else(|error| {
            self.problems.push(located(&error, ""));
            RawConfig::default()
        });
        (raw, self.files, self.problems)
    }
}

/// Reads all files.
pub(super) fn read(path: &Path) -> Result<Read, ConfigError> {
    let mut read = Read::default();
    for file in std::iter::once(path.to_owned()).chain(files(&drop_ins(path))?) {
        let text = text(&file)?;
        read.add(file, text);
    }
    Ok(read)
}

/// What a file says, without what cannot be understood, and that. Nothing is taken from a file that is no TOML, and
/// only its first mistake is told: where a bracket is not closed, all that follows looks like one.
fn understood(text: &str) -> (Table, Vec<String>) {
    let mut table = match DeTable::parse(text) {
        Ok(table) => table,
        Err(error) => return (Table::new(), vec![located(&error, text)]),
    };
    let mut problems = Vec::new();
    while let Err(error) = RawConfig::deserialize(Deserializer::from(table.clone())) {
        let at = error.span().map(|span| span.start);
        problems.push((at, located(&error, text)));
        if !at.is_some_and(|at| take(table.get_mut(), at)) {
            table.get_mut().clear();
        }
    }
    problems.sort();
    let table = Table::deserialize(Deserializer::from(table)).unwrap_or_default();
    let problems = problems.into_iter().map(|(_, problem)| problem);
    (table, problems.collect())
}

/// Takes the innermost value out whose key or text is at this place.
fn take(table: &mut DeTable<'_>, at: usize) -> bool {
    let in_value = |value: &mut DeValue<'_>| match value {
        DeValue::Table(inner) => take(inner, at),
        _ => false,
    };
    let is_taken = table.iter_mut().any(|(_, value)| match value.get_mut() {
        DeValue::Array(elements) => elements
            .iter_mut()
            .any(|element| in_value(element.get_mut())),
        value => in_value(value),
    });
    let key = table
        .iter()
        .find(|(key, value)| key.span().contains(&at) || value.span().contains(&at))
        .map(|(key, _)| key.get_ref().to_string());
    is_taken || key.is_some_and(|key| table.remove(&*key).is_some())
}

/// What is wrong in a text, behind line and column. The error's own words quote the line, and the line may be
/// a secret, also where none belongs.
pub(crate) fn located(error: &toml::de::Error, text: &str) -> String {
    let message = without_values(error.message());
    let Some(before) = error.span().and_then(|span| text.get(..span.start)) else {
        return message;
    };
    let line = before.matches('\n').count() + 1;
    let begun = before.rsplit('\n').next().unwrap_or_default();
    let column = begun.chars().count() + 1;
    format!("line {line}, column {column}: {message}")
}

/// A message without the values that it quotes. Names of keys stay, and what would be right.
fn without_values(message: &str) -> String {
    let message = message.lines().next().unwrap_or_default();
    let names_a_field = ["missing field", "unknown field", "duplicate key"];
    if names_a_field.iter().any(|kind| message.starts_with(kind)) {
        return message.to_owned();
    }
    let (found, expected) = match message.rfind(", expected ") {
        Some(at) => message.split_at(at),
        None => (message, ""),
    };
    let quote = found.find(['"', '`', '\'']).unwrap_or(found.len());
    format!("{}{}", found[..quote].trim_end(), for_people(expected))
}

/// What would be right, without the names that types have in a program.
fn for_people(expected: &str) -> String {
    let Some(name) = expected.strip_prefix(", expected ") else {
        return expected.to_owned();
    };
    let name = match name {
        "u16" => format!("a whole number, 0 to {}", u16::MAX),
        "u32" => format!("a whole number, 0 to {}", u32::MAX),
        "u64" | "usize" => "a whole number, 0 or more".to_owned(),
        "a boolean" => "true or false".to_owned(),
        "a string" => "a text in quotes".to_owned(),
        "path string" => "a path in quotes".to_owned(),
        "a sequence" => "a list in brackets".to_owned(),
        name if name.starts_with("struct ") => "a table".to_owned(),
        name => name.to_owned(),
    };
    format!(", expected {name}")
}

fn text(path: &Path) -> Result<String, ConfigError> {
    std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
        path: path.to_owned(),
        source,
    })
}

fn files(directory: &Path) -> Result<BTreeSet<PathBuf>, ConfigError> {
    let list = || {
        let mut files = BTreeSet::new();
        for entry in std::fs::read_dir(directory)? {
            let path = entry?.path();
            // Hidden ones are what editors leave beside a file while it is open.
            let is_hidden = path
                .file_name()
                .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
            if !is_hidden && path.extension().is_some_and(|ending| ending == "toml") {
                files.insert(path);
            }
        }
        Ok(files)
    };
    match list() {
        Err(error) if io::Error::kind(&error) == io::ErrorKind::NotFound => Ok(BTreeSet::new()),
        listed => listed.map_err(|source| ConfigError::Read {
            path: directory.to_owned(),
            source,
        }),
    }
}

fn merge(mut earlier: Table, later: Table) -> Table {
    for (key, value) in later {
        let value = match (earlier.remove(&key), value) {
            (Some(Value::Table(earlier)), Value::Table(later)) => {
                Value::Table(merge(earlier, later))
            }
            (Some(Value::Array(mut clusters)), Value::Array(later)) if key == CLUSTERS => {
                let is_replaced = |earlier: &Value| {
                    later
                        .iter()
                        .any(|other| other.get("id") == earlier.get("id"))
                };
                clusters.retain(|cluster| !is_replaced(cluster));
                clusters.extend(later);
                Value::Array(clusters)
            }
            (_, later) => later,
        };
        earlier.insert(key, value);
    }
    earlier
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::AuthSettings;
    use super::super::Settings;

    const MAIN: &str = "auth = \"none\"\n[server]\nlisten = [\"127.0.0.1:1\", \"127.0.0.1:2\"]\n\
                        drain_delay_seconds = 3\n[[clusters]]\nid = \"a\"\naccount = \"1\"\n\
                        [[clusters]]\nid = \"b\"\naccount = \"1\"\n";

    /// The configuration of a main file and drop-ins.
    fn load(drop_ins: &[(&str, &str)]) -> Result<Settings, String> {
        let directory = tempfile::tempdir().unwrap();
        let main = directory.path().join("config.toml");
        fs::write(&main, MAIN).unwrap();
        if !drop_ins.is_empty() {
            fs::create_dir(super::drop_ins(&main)).unwrap();
        }
        for (name, text) in drop_ins {
            fs::write(super::drop_ins(&main).join(name), text).unwrap();
        }
        Settings::load(&main).map_err(|error| crate::words::chain(&error))
    }

    #[test]
    fn later_files_count_and_clusters_add_up() {
        let settings = load(&[]).unwrap();
        assert_eq!(settings.clusters.len(), 2);

        let settings = load(&[
            // Written first, read last.
            ("20.toml", "[[clusters]]\nid = \"a\"\naccount = \"3\""),
            (
                "10.toml",
                "[server]\nlisten = [\"127.0.0.1:3\"]\n[limits]\nmax_connections = 7\n\
                 [[clusters]]\nid = \"a\"\naccount = \"2\"\n[[clusters]]\nid = \"c\"\naccount = \"2\"",
            ),
            ("30.toml.off", "not read"),
            (".40.toml", "not read"),
        ])
        .unwrap();
        let clusters: Vec<(&str, &str)> = settings
            .clusters
            .iter()
            .map(|cluster| (&*cluster.id, &*cluster.account))
            .collect();
        assert_eq!(clusters, [("b", "1"), ("c", "2"), ("a", "3")]);
        assert_eq!(settings.server.listen, ["127.0.0.1:3".parse().unwrap()]);
        assert_eq!(settings.server.drain_delay.as_secs(), 3, "as it was");
        assert_eq!(settings.limits.max_connections, 7);
        assert!(matches!(settings.auth, AuthSettings::None));

        // Also a table that is whole only with all of them.
        let settings = load(&[
            ("10.toml", "[auth]\nmax_nonces = 1\n[agent_tls]\nca = \"a\""),
            ("20.toml", "[agent_tls]\ncert = \"c\"\nkey = \"k\""),
            ("30.toml", "[auth]\nkeys = \"k\""),
        ])
        .unwrap();
        assert!(matches!(settings.auth, AuthSettings::Signatures(_)));
        assert!(settings.agents.tls.is_some());
    }

    /// Somebody puts a key where the configuration is, and shows the error to somebody else.
    #[test]
    fn no_value_is_shown() {
        for (text, expected) in [
            (
                "[auth]\nsecret = \"hunter2\"",
                "line 2, column 1: unknown field `secret`",
            ),
            (
                "[auth]\nkeys = \"k\"\nsecret = \"hunter2\"",
                "unknown field `secret`",
            ),
            (
                "secret = 'hunter2'\n",
                "line 1, column 1: unknown field `secret`",
            ),
            ("secret = \"hunter2", "line 1, column"),
            ("secret = hunter2", "line 1, column"),
            ("secret = \"hunter2\" x", "line 1, column"),
            ("secret = \"\"\"\nhunter2\n\"\"\"", "unknown field `secret`"),
            (
                "[limits]\nmax_connections = \"hunter2\"",
                "line 2, column 19: invalid type: string, expected a whole number, 0 or more",
            ),
            (
                "[server]\ndrain_delay_seconds = 70000",
                "expected a whole number, 0 to 65535",
            ),
            (
                "[server]\nrequire_tls = \"hunter2\"",
                "invalid type: string, expected true or false",
            ),
            (
                "[server]\ncert = 5",
                "line 2, column 8: invalid type: integer, expected a path in quotes",
            ),
            (
                "[server]\npublic_url = ['hunter2']",
                "invalid type: sequence, expected a text in quotes",
            ),
            (
                "[server]\nlisten = 'hunter2'",
                "invalid type: string, expected a list in brackets",
            ),
            (
                "server = 'hunter2'",
                "invalid type: string, expected a table",
            ),
            (
                "clusters = ['hunter2']",
                "invalid type: string, expected a table",
            ),
            ("[log]\nformat = \"hunter2\"", "unknown variant, expected"),
            (
                "[server]\nlisten = [\"hunter2, expected x\", 1]",
                "line 2, column",
            ),
            ("auth = \"hunter2\"", "auth is a text other than"),
        ] {
            let whole = format!("{text}\n");
            let parsed = Settings::parse(&whole, std::path::Path::new("x"));
            let error = crate::words::chain(&parsed.unwrap_err());
            assert!(
                !error.contains("hunter2") && error.contains(expected),
                "{text}: {error}"
            );
            let dropped = load(&[("10.toml", text)]).unwrap_err();
            assert!(!dropped.contains("hunter2"), "{text}: {dropped}");
        }
    }

    #[test]
    fn the_file_that_is_wrong_is_named() {
        for (wrong, expected) in [
            (
                "[server]\ntypo = 1",
                "line 2, column 1: unknown field `typo`",
            ),
            (
                "[limits]\nmax_connections = \"many\"",
                "line 2, column 19: invalid type",
            ),
            (
                "[auth]\nmax_nonces = \"many\"",
                "line 2, column 14: invalid type",
            ),
            ("[auth]\nmax_nonces = 1", "line 1: auth.keys is missing"),
            (
                "[agent_tls]\nkey = \"k\"",
                "line 1: agent_tls.ca is missing",
            ),
            ("[server", "line 1"),
        ] {
            let error = load(&[("10.toml", "[log]\nfilter = \"info\""), ("20.toml", wrong)]);
            let error = error.unwrap_err();
            assert!(error.contains("config.toml.d/20.toml"), "{error}");
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn what_cannot_be_understood_hides_nothing() {
        let error = load(&[
            (
                "10.toml",
                "sever = 1\n[limits]\nkey_burst = 0\nmax_connections = 'many'\nanswer_in = 1\n\
                 [log]\nformat = 'x'\nfilter = '=['\n[[clusters]]\nid = 'c'\naccount = 5\n\
                 login_nodes = ['n']\n[[clusters]]\nid = 7\nregion = ''",
            ),
            ("20.toml", "[agent_tls]\nca = 'a'\nkye = 'k'"),
            ("30.toml", "[server"),
            (
                "40.toml",
                "[auth]\nkyes = 'k'\n[server]\nlisten = ['0.0.0.0:80', 'x']\ncrt = 'c'\nkey = 'k'",
            ),
        ])
        .unwrap_err();
        let lines: Vec<&str> = error.lines().skip(1).collect();
        // Not that anything is missing: it may be what was misspelt.
        let expected = [
            ("10.toml", "line 1, column 1: unknown field `sever`"),
            ("10.toml", "line 4, column 19: invalid type: string"),
            ("10.toml", "line 5, column 1: unknown field `answer_in`"),
            ("10.toml", "line 7, column 10: unknown variant"),
            ("10.toml", "line 11, column 11: invalid type"),
            ("10.toml", "line 14, column 6: invalid type"),
            ("20.toml", "line 3, column 1: unknown field `kye`"),
            ("30.toml", "line 1, column"),
            ("40.toml", "line 2, column 1: unknown field `kyes`"),
            ("40.toml", "line 5, column 1: unknown field `crt`"),
            ("10.toml", "line 3: limits.key_burst = 0"),
            ("10.toml", "line 8: log.filter"),
            ("10.toml", "line 12: cluster \"c\": login node \"n\""),
            ("10.toml", "line 15: clusters[3]: region is empty"),
            ("40.toml", "line 4: server.listen: \"x\""),
        ];
        assert_eq!(lines.len(), expected.len(), "{error}");
        for (index, (file, problem)) in expected.iter().enumerate() {
            let place = format!("config.toml.d/{file}, {problem}");
            let found = lines.iter().position(|line| line.contains(&place));
            // In the order of the text; values are told in that of their checks.
            let is_in_order = index >= 10 || found == Some(index);
            assert!(found.is_some() && is_in_order, "{place}: {error}");
        }
    }

    #[test]
    fn values_that_are_wrong_have_their_line() {
        let error = load(&[
            (
                "10.toml",
                "[limits]\nkey_burst = 0\nanswer_within_ms = 0\n[server]\ncert = \"c\"",
            ),
            (
                "20.toml",
                "# This one counts.\n\n[limits]\nanswer_within_ms = 99999\n[[clusters]]\nid = \"b\"\n\
                 login_nodes = [\n  \"n\",\n]\n[[clusters]]\naccount = \"1\"\n[[clusters]]\nid = \"b\"\n\
                 [[clusters]]\nregion = \"r\"",
            ),
        ])
        .unwrap_err();
        let lines: Vec<&str> = error.lines().skip(1).collect();
        for (file, line, problem) in [
            ("10.toml", 2, "limits.key_burst = 0"),
            ("20.toml", 4, "limits.answer_within_ms = 99999"),
            ("10.toml", 5, "server.cert needs server.key"),
            ("20.toml", 7, "cluster \"b\": login node \"n\""),
            ("20.toml", 10, "clusters[2].id is missing"),
            ("20.toml", 13, "cluster \"b\" is configured twice"),
            ("20.toml", 14, "clusters[4].id is missing"),
        ] {
            let place = format!("config.toml.d/{file}, line {line}: {problem}");
            assert!(
                lines.iter().any(|line| line.contains(&place)),
                "{place}: {error}"
            );
        }
        assert_eq!(lines.len(), 7, "{error}");
    }
}
