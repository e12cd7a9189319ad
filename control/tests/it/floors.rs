//! Who may import whom: each room only from floors below its own.

use std::fs;
use std::path::Path;
use std::path::PathBuf;

/// Rooms by floor, the lowest first.
const FLOORS: [&[&str]; 6] = [
    &["api", "config"],
    &["telemetry", "auth"],
    &["fleet", "explorer", "call"],
    &["server"],
    &["cli"],
    &["main", "lib"],
];

fn floor(room: &str) -> usize {
    FLOORS
        .iter()
        .position(|rooms| rooms.contains(&room))
        .unwrap_or_else(|| panic!("{room} is on no floor"))
}

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

#[test]
fn imports_go_down() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&src, &mut files);
    assert!(files.len() > 20, "{files:?}");
    for file in files {
        let inside = file.strip_prefix(&src).unwrap();
        let room = inside.components().next().unwrap().as_os_str();
        let room = room.to_str().unwrap().trim_end_matches(".rs").to_owned();
        let text = fs::read_to_string(&file).unwrap();
        // Tests may look anywhere.
        let code = text.split("#[cfg(test)]").next().unwrap();
        for part in code.split("crate::").skip(1) {
            let other = part
                .split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
                .next()
                .unwrap();
            assert!(
                other == room || floor(other) < floor(&room),
                "{}: {room} may not import {other}",
                inside.display()
            );
        }
    }
}

#[test]
fn the_agent_is_known_by_its_contract_only() {
    let manifest = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml"));
    let manifest = manifest.unwrap();
    assert!(manifest.contains("sifter-proto"));
    assert!(!manifest.contains("sifter-agent") && !manifest.contains("sifter-image"));
}
