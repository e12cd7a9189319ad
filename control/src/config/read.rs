//! The configuration from its files: the main one, then its drop-ins `<file>.d/*.toml` in the order of
//! their names. What a later file says counts; tables come together key by key, and `[[clusters]]` add
//! up, where one with the ID of an earlier one takes its place.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::path::PathBuf;

use serde::de::DeserializeOwned;
use toml::Table;
use toml::Value;

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

/// Reads all files, and gives their texts as well.
pub(super) fn read(path: &Path) -> Result<(RawConfig, Vec<(PathBuf, String)>), ConfigError> {
    let mut merged = Table::new();
    let mut read = Vec::new();
    for file in std::iter::once(path.to_owned()).chain(files(&drop_ins(path))?) {
        let text = text(&file)?;
        // By itself: from a text, errors have their line.
        parse::<RawConfig>(&text, &file)?;
        merged = merge(merged, parse(&text, &file)?);
        read.push((file, text));
    }
    let raw = merged.try_into().map_err(|error| wrong(&error, "", path))?;
    Ok((raw, read))
}

/// One file's text: as a configuration, or as the table that it is.
pub(super) fn parse<T: DeserializeOwned>(text: &str, path: &Path) -> Result<T, ConfigError> {
    toml::from_str(text).map_err(|error| wrong(&error, text, path))
}

/// What is wrong in a file, and where.
fn wrong(error: &toml::de::Error, text: &str, path: &Path) -> ConfigError {
    ConfigError::Parse {
        path: path.to_owned(),
        problem: located(error, text),
    }
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
    match expected.strip_prefix(", expected ") {
        Some("u16") => format!(", expected a whole number, 0 to {}", u16::MAX),
        Some("u32") => format!(", expected a whole number, 0 to {}", u32::MAX),
        Some("u64" | "usize") => ", expected a whole number, 0 or more".to_owned(),
        _ => expected.to_owned(),
    }
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
                "invalid type: string, expected a boolean",
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
