//! What docs/queries.md and the shipped configuration say is held to the code.

use std::path::Path;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use sifter_agent::catalog::{FileTime, Query};
use sifter_agent::config::{Raw, Settings};

use crate::support::{Agent, skip};
use crate::tool;

const QUERIES: &str = include_str!("../../../docs/queries.md");

/// Lines of the fenced blocks of a kind.
fn examples(kind: &str) -> Vec<&'static str> {
    let fence = format!("```{kind}\n");
    let lines: Vec<_> = QUERIES
        .split(&fence)
        .skip(1)
        .filter_map(|block| block.split("```").next())
        .flat_map(str::lines)
        .collect();
    assert!(lines.len() > 3, "{kind}");
    lines
}

/// The rows of the table of fields: field, other name, kind, remark.
fn fields() -> Vec<[&'static str; 4]> {
    let table = QUERIES.split("| field | also |").nth(1).unwrap();
    table
        .lines()
        .skip(2)
        .take_while(|line| line.starts_with('|'))
        .map(|line| {
            let cells: Vec<_> = line
                .split('|')
                .map(|cell| cell.trim().trim_matches('`'))
                .collect();
            [cells[1], cells[2], cells[3], cells[4]]
        })
        .collect()
}

#[test]
fn filters_and_orders_are_understood() {
    for filter in examples("filter") {
        Query::parse(filter, "", FileTime(0)).unwrap_or_else(|error| panic!("{filter}: {error}"));
    }
    for order in examples("order") {
        Query::parse("", order, FileTime(0)).unwrap_or_else(|error| panic!("{order}: {error}"));
    }
}

#[test]
fn fields_are_of_the_kind_that_is_said() {
    let fields = fields();
    assert!(fields.len() > 30, "{fields:?}");
    for [field, also, kind, remark] in fields {
        for name in [field, also].into_iter().filter(|name| !name.is_empty()) {
            let (takes, refuses) = match kind {
                "text" => (vec!["=*x*", "!=x"], vec!["<x"]),
                "enumeration" => (vec!["=*"], vec!["=x", "!=x*", "="]),
                "yes or no" => (vec!["=true", "!=no"], vec!["=x", "<yes"]),
                "number" => (
                    vec!["=7", "!=7", "<7", "<=7", ">7", ">=7"],
                    vec!["=x y", "<-"],
                ),
                "size" => (vec!["=7", "<7k", ">=7Gi", "!=1P"], vec!["=x", "=1X"]),
                "time" => (
                    vec!["<2026-01-31", ">=2026-01-31T12:00:00Z"],
                    vec!["<1d", "=x"],
                ),
                "age" => (
                    vec!["<30s", ">1y", "<=2w", ">=10m"],
                    vec!["=1d", "<x", "<2026-01-31"],
                ),
                other => panic!("{name}: no such kind: {other}"),
            };
            if kind == "enumeration" {
                let values = remark.split(", ").map(|value| value.trim_matches('`'));
                for value in values {
                    for term in [format!("{name}={value}"), format!("{name}!={value}*")] {
                        let parsed = Query::parse(&term.to_lowercase(), "", FileTime(0));
                        assert!(parsed.is_ok(), "{term}: {parsed:?}");
                    }
                    let term = format!("{name}<{value}");
                    assert!(Query::parse(&term, "", FileTime(0)).is_err(), "{term}");
                }
            }
            for (terms, good) in [(takes, true), (refuses, false)] {
                for term in terms {
                    let term = format!("\"{name}{term}\"");
                    let parsed = Query::parse(&term, "", FileTime(0));
                    assert_eq!(parsed.is_ok(), good, "{term}: {parsed:?}");
                }
            }
            let orders = kind != "age" && !name.starts_with("label.");
            let ordered = Query::parse("", name, FileTime(0)).is_ok();
            assert_eq!(ordered, orders, "order by {name}");
        }
    }
}

#[test]
fn commands_are_understood() {
    let sifter = sifter_agent::cli::command();
    let helps: Vec<String> = sifter
        .get_subcommands()
        .filter_map(|command| Some(command.get_after_help()?.to_string()))
        .collect();
    let of_helps: Vec<&str> = helps
        .iter()
        .flat_map(|help| help.lines())
        .filter(|line| line.starts_with("  sifter "))
        .collect();
    assert!(of_helps.len() > 5, "{helps:?}");
    for command in examples("console").into_iter().chain(of_helps) {
        let arguments = words(command);
        let parsed = sifter.clone().try_get_matches_from(&arguments);
        assert!(parsed.is_ok(), "{command}: {}", parsed.unwrap_err());
        for pair in arguments.windows(2) {
            let (filter, order) = match pair[0].as_str() {
                "--filter" | "-f" => (pair[1].as_str(), ""),
                "--sort" if !command.contains("--group-by") => ("", pair[1].as_str()),
                _ => continue,
            };
            Query::parse(filter, order, FileTime(0)).unwrap();
        }
    }
}

/// Runs a text of the documentation as a shell of the user at `home` would; gives what it prints.
fn shell(text: &str, home: &Path, agent: &Agent) -> String {
    let program = Path::new(env!("CARGO_BIN_EXE_sifter")).parent().unwrap();
    let path = format!("{}:{}", program.display(), std::env::var("PATH").unwrap());
    let output = Command::new("sh")
        .args(["-ec", text])
        .env("PATH", path)
        .env("HOME", home)
        .env("SIFTER_ADDRESS", agent.unix())
        .current_dir(home)
        .output()
        .unwrap();
    let complaint = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{text}: {complaint}");
    assert_eq!(complaint, "", "{text}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn recipes_find_what_they_are_for() {
    let (_guard, tree) = tool::images();
    let directory = tempfile::tempdir().unwrap();
    let home = directory.path().join("images");
    std::fs::rename(tree, &home).unwrap();
    let tool = std::fs::read(home.join("built/tools.sif")).unwrap();
    std::fs::write(home.join("half.sif"), &tool[..20_000]).unwrap();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let old = now.as_secs() - 400 * 86_400;
    tool::set_times(&home.join("half.sif"), old, old);
    let agent = Agent::start(directory.path(), "", "");
    let blocks: Vec<_> = QUERIES
        .split("```sh\n")
        .skip(1)
        .filter_map(|block| block.split("```").next())
        .collect();
    let [recipes, daily] = blocks[..] else {
        panic!("{blocks:?}");
    };

    let has_jq = Command::new("jq").arg("--version").output().is_ok();
    // What follows a comment is one command. The names are those of the images at hand.
    let commands: Vec<_> = recipes
        .split("# ")
        .filter_map(|recipe| recipe.split_once('\n'))
        .map(|(_, command)| {
            command
                .replace("samtools", "bwa")
                .replace("centos", "ubuntu")
        })
        .map(|command| command.replace("/scratch/$USER", "~/pulled"))
        .collect();
    assert!(commands.len() > 7, "{commands:?}");
    for command in commands {
        if command.contains("jq") && !has_jq {
            skip(&command, "there is no jq");
            continue;
        }
        // A header alone is nothing found.
        let shown = shell(&command, &home, &agent);
        let head = usize::from(!command.contains("jq") && !command.contains("--duplicates"));
        assert!(shown.lines().count() > head, "{command}: {shown:?}");
    }

    let daily = daily.replace(
        "/var/lib/sifter-new",
        &format!("{}/new", directory.path().display()),
    );
    assert_eq!(shell(&daily, &home, &agent), "");
    std::fs::write(home.join("new.sif"), &tool).unwrap();
    shell("sifter rescan", &home, &agent);
    let new = format!("{}\n", home.join("new.sif").display());
    assert_eq!(shell(&daily, &home, &agent), new);
    assert_eq!(shell(&daily, &home, &agent), "");
}

/// As a shell would split it: at blanks outside of quotes.
fn words(command: &str) -> Vec<String> {
    command
        .split('\'')
        .enumerate()
        .flat_map(|(index, part)| {
            if index % 2 == 1 {
                vec![part.to_owned()]
            } else {
                part.split_whitespace().map(str::to_owned).collect()
            }
        })
        .collect()
}

#[test]
fn the_shipped_configuration_has_every_key_with_its_default() {
    const SHIPPED: &str = include_str!("../../../deploy/etc/sifter/agent.toml");
    // What stands there as an example, as the comments say.
    const EXAMPLES: [&str; 5] = [
        "system",
        "metrics",
        "width",
        "operations_per_second",
        "exclude",
    ];
    let (mut all, mut defaults, mut table) = (String::new(), String::new(), "");
    for line in SHIPPED.lines() {
        let text = line.strip_prefix('#').unwrap_or(line).trim_start();
        let key = text.split(" = ").next().unwrap_or_default();
        let is_key = key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_') && text != key;
        if text.starts_with('[') {
            table = text;
        } else if !is_key {
            continue;
        }
        all += &format!("{text}\n");
        if ["", "[defaults]"].contains(&table) && !EXAMPLES.contains(&key) {
            defaults += &format!("{text}\n");
        }
    }

    let mut raw: Raw = toml::from_str(&all).unwrap_or_else(|error| panic!("{error}:\n{all}"));
    raw.defaults.path = raw.roots[0].path.take();
    raw.defaults.naming = raw.roots[0].naming.take();
    raw.roots.clear();
    let keys = format!("{raw:?}");
    assert!(!keys.contains("None"), "not in the file: {keys}");

    let settings = |text: &str| {
        let raw = toml::from_str(&format!("{text}\n[[root]]\npath = '/a'")).unwrap();
        format!("{:?}", Settings::validate(raw).unwrap())
    };
    assert!(defaults.lines().count() > 20, "{defaults}");
    assert_eq!(
        settings(&defaults),
        // Both are as if nothing had been said, but that it was said.
        settings("state_directory = '/var/lib/sifter'\nadmin_group = 'sifter-admin'")
    );
}
