//! The READMEs say the same in both languages: what can be compared without reading them.

use std::collections::BTreeSet;
use std::process::Command;

use sifter_tests::workspace;

fn read(name: &str) -> String {
    std::fs::read_to_string(workspace().join(name))
        .unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The blocks of a Markdown text, with their kind: commands and what they print.
fn blocks(text: &str) -> Vec<&str> {
    text.split("\n```").skip(1).step_by(2).collect()
}

/// Targets of the links within the repository.
fn links(text: &str) -> BTreeSet<&str> {
    let targets = text.split("](").skip(1);
    targets
        .filter_map(|rest| rest.split_once(')').map(|(target, _)| target))
        .filter(|target| !target.starts_with("README"))
        .collect()
}

/// Commands, file names and the like.
fn words_of_code(text: &str) -> BTreeSet<&str> {
    let prose = text.split("\n```").step_by(2);
    prose
        .flat_map(|part| part.split('`').skip(1).step_by(2))
        .collect()
}

#[test]
fn both_readmes_have_the_same_commands_and_links() {
    let (english, chinese) = (read("README.md"), read("README.zh-CN.md"));
    assert!(blocks(&english).len() >= 4, "{:?}", blocks(&english));
    assert_eq!(blocks(&english), blocks(&chinese));
    assert_eq!(links(&english), links(&chinese));
    let missing: Vec<_> = words_of_code(&english)
        .difference(&words_of_code(&chinese))
        .copied()
        .collect();
    assert!(missing.is_empty(), "README.zh-CN.md leaves out {missing:?}");
    let headings = |text: &str| text.lines().filter(|line| line.starts_with("##")).count();
    assert_eq!(headings(&english), headings(&chinese));
    assert!(english.contains("](README.zh-CN.md)") && chinese.contains("](README.md)"));
}

#[test]
fn what_they_link_is_there() {
    for target in links(&read("README.md")) {
        let file = target.split('#').next().unwrap_or_default();
        assert!(workspace().join(file).exists(), "{target}");
    }
}

/// Before anything is built.
#[test]
fn quickstart_says_what_it_cannot_do() {
    for (arguments, expected) in [
        (&["/a", "/b"][..], "one directory at a time: /a, /b"),
        (&["/nowhere"], "not a directory: /nowhere"),
        (&[""], "not a directory: "),
        (&["--twice"], "unknown option: --twice"),
    ] {
        let quickstart = Command::new(workspace().join("deploy/quickstart.sh"))
            .args(arguments)
            // Bash complains about a locale that this machine does not have.
            .env("LC_ALL", "C")
            .output()
            .unwrap();
        let complaint = String::from_utf8(quickstart.stderr).unwrap();
        assert!(
            complaint.starts_with(expected),
            "{arguments:?}: {complaint}"
        );
        assert_eq!(quickstart.status.code(), Some(2), "{arguments:?}");
    }
}
