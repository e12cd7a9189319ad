//! Who may import whom: the rooms of a crate lie on floors, and each imports only from floors below its own.
//! docs/architecture.md draws them.

use std::fs;
use std::path::{Path, PathBuf};

use sifter_tests::workspace;

/// Rooms by floor, the lowest first.
const CRATES: [(&str, &[&[&str]]); 2] = [
    (
        "agent",
        &[
            &["escape", "fields", "lock", "mounts", "socket", "words"],
            &["config"],
            &["catalog"],
            &["peer"],
            &["telemetry"],
            &["scan", "service", "net"],
            &["digest", "confine"],
            &["engine"],
            &["manager", "observe", "reload", "bars"],
            &["run"],
            &["cli"],
            &["main", "lib"],
        ],
    ),
    (
        "control",
        &[
            &["lock", "words"],
            &["api", "config"],
            &["telemetry", "auth"],
            &["fleet", "explorer", "call"],
            &["server"],
            &["cli"],
            &["main", "lib"],
        ],
    ),
];

fn sources(dir: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push(path);
        }
    }
}

/// The rooms that are named after `crate::`: one, or several in braces.
fn imported(path: &str) -> Vec<&str> {
    fn first(path: &str) -> &str {
        let end = path.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        &path[..end.unwrap_or(path.len())]
    }
    let Some(group) = path.strip_prefix('{') else {
        return vec![first(path)];
    };
    let (mut rooms, mut depth, mut from) = (Vec::new(), 1, 0);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 || depth == 1 && c == ',' {
            rooms.push(first(group[from..at].trim()));
            from = at + 1;
        }
        if depth == 0 {
            break;
        }
    }
    rooms.retain(|room| !room.is_empty());
    rooms
}

#[test]
fn groups_are_taken_apart() {
    for (path, rooms) in [
        ("scan::Progress;", &["scan"][..]),
        ("{run, telemetry};", &["run", "telemetry"]),
        ("{a::{b, c}, d::e,\n};", &["a", "d"]),
    ] {
        assert_eq!(imported(path), rooms, "{path}");
    }
}

#[test]
fn imports_go_down() {
    for (name, floors) in CRATES {
        let floor = |room: &str| {
            let floor = floors.iter().position(|rooms| rooms.contains(&room));
            floor.unwrap_or_else(|| panic!("{name}: `{room}` is on no floor"))
        };
        let src = workspace().join(name).join("src");
        let mut files = Vec::new();
        sources(&src, &mut files);
        assert!(files.len() > 20, "{files:?}");
        for file in files {
            let inside = file.strip_prefix(&src).unwrap();
            let parts: Vec<_> = inside.iter().map(|part| part.to_str().unwrap()).collect();
            // Tests may look anywhere.
            if parts
                .iter()
                .any(|part| part.trim_end_matches(".rs") == "tests")
            {
                continue;
            }
            let room = parts[0].trim_end_matches(".rs");
            let text = fs::read_to_string(&file).unwrap();
            let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
            for other in code.split("crate::").skip(1).flat_map(imported) {
                assert!(
                    other == room || floor(other) < floor(room),
                    "{name}/{}: `{room}` may not import `{other}`",
                    inside.display()
                );
            }
        }
    }
}

#[test]
fn the_agent_is_known_to_others_by_its_contract_only() {
    for name in ["control", "tests"] {
        let manifest = fs::read_to_string(workspace().join(name).join("Cargo.toml")).unwrap();
        assert!(manifest.contains("sifter-proto"), "{name}");
        for other in ["sifter-agent", "sifter-image", "sifter-control"] {
            let depends = manifest.contains(&format!("{other}.workspace"))
                || manifest.contains(&format!("{other} ="));
            assert!(!depends, "{name} knows {other}");
        }
    }
}

/// Such a field would be written into the text of its line, without a blank, and be none.
#[test]
fn no_field_of_a_log_line_is_called_message() {
    let mut all = Vec::new();
    for part in ["agent/src", "control/src", "tls/src"] {
        sources(&workspace().join(part), &mut all);
    }
    let mut lines = 0;
    for path in all {
        let text = fs::read_to_string(&path).unwrap();
        for macro_call in text.split("tracing::").skip(1) {
            let is_line = ["error!(", "warn!(", "info!(", "debug!("]
                .iter()
                .any(|name| macro_call.starts_with(name));
            let fields = macro_call.split('"').next().unwrap_or_default();
            if is_line {
                lines += 1;
                let mut words = fields.split(|c: char| !c.is_alphanumeric() && !"_.=".contains(c));
                let mut before = "";
                let is_field = words.any(|word| {
                    let is = word == "message" && before != "=";
                    before = if word.is_empty() { before } else { word };
                    is
                });
                assert!(!is_field, "{}: {fields}", path.display());
            }
        }
    }
    assert!(lines > 50, "log lines are looked for in vain");
}
