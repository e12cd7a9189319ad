use std::fs;

use super::super::{Raw, RawRoot, Settings};

/// What is wrong with a main file and a drop-in, under the command line; the directory of both is `DIR`.
fn wrong(main: &str, drop_in: &str, given: Raw) -> String {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("agent.toml");
    fs::write(&file, main).unwrap();
    fs::create_dir(directory.path().join("agent.toml.d")).unwrap();
    fs::write(directory.path().join("agent.toml.d/10.toml"), drop_in).unwrap();
    let error = Settings::validate(given.over(super::read(&file).unwrap())).unwrap_err();
    let shown = directory.path().to_str().unwrap();
    error.to_string().replace(shown, "DIR")
}

#[test]
fn file_and_line_of_what_is_wrong_are_named() {
    const ROOT: &str = "[[root]]\npath = '/a'\n";
    for (main, drop_in, expected) in [
        (
            "# how often\n\n[defaults]\ninterval = 'x'\n[[root]]\npath = '/a'",
            "",
            "DIR/agent.toml, line 4: root /a: interval: `x`",
        ),
        (
            ROOT,
            "[[root]]\npath = '/b/'\nwidth = 0",
            "DIR/agent.toml.d/10.toml, line 3: root /b/: width: ",
        ),
        // The later one counts.
        (
            "log_format = 'text'\n[[root]]\npath = '/a'",
            "log_format = 'x'",
            "DIR/agent.toml.d/10.toml, line 1: log_format: ",
        ),
        (
            "[[root]]\npath = '/a'\ninterval = 'x'\n[defaults]\nfile_interval = 'y'",
            "[[root]]\npath = '/a'",
            "DIR/agent.toml, line 5: root /a: file_interval: `y`",
        ),
        (
            "[[root]]\npath = '/a'\n[tls]\ncert = 'c'\nkey = '/k'\nclient_ca = '/c'\nallow = ['*']",
            "",
            "DIR/agent.toml, line 4: tls.cert: ",
        ),
        (
            "[[root]]\npath = '/a'\n[tls]\ncert = '/c'\nkey = '/k'\nclient_ca = '/c'\nallow = ['*']",
            "",
            "DIR/agent.toml, line 3: tls: no address",
        ),
        (
            "[[root]]\npath = '/a'\n[tls]\ncert = '/c'",
            "\n[tls]\nkey = 'k'",
            "DIR/agent.toml.d/10.toml, line 2: tls.client_ca: write ",
        ),
        (
            ROOT,
            "\n[[root]]\npath = '/a/b'",
            "DIR/agent.toml.d/10.toml, line 3: root /a/b: path: ",
        ),
        (
            ROOT,
            "[[root]]\nwidth = 1\n",
            "DIR/agent.toml.d/10.toml, line 1: root.path: missing",
        ),
        ("", "system = 'x'", "root: no image directory"),
    ] {
        let error = wrong(main, drop_in, Raw::default());
        let mut problems = error.lines().map(|line| line.trim_start_matches("- "));
        assert!(
            problems.any(|problem| problem.starts_with(expected)),
            "{expected}: {error}"
        );
    }
}

#[test]
fn what_an_editor_leaves_beside_a_drop_in_is_none() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    fs::write(at("agent.toml"), "[[root]]\npath = '/a'").unwrap();
    fs::create_dir(at("agent.toml.d")).unwrap();
    fs::write(at("agent.toml.d/10.toml"), "system = 'a'").unwrap();
    fs::write(at("agent.toml.d/.10.toml"), "system = 'b'").unwrap();
    fs::write(at("agent.toml.d/20.toml~"), "system = 'c'").unwrap();
    std::os::unix::fs::symlink("root@host.1234", at("agent.toml.d/.#10.toml")).unwrap();
    let settings = Settings::validate(super::read(&at("agent.toml")).unwrap()).unwrap();
    assert_eq!(settings.system, "a");
}

#[test]
fn a_file_is_not_blamed_for_the_command_line() {
    let main = "system = 'a'\n[defaults]\ninterval = '5m'\n[[root]]\npath = '/a'";
    let system = Raw {
        system: Some(String::new()),
        ..Raw::default()
    };
    assert!(wrong(main, "", system).starts_with("system: is empty"));
    let interval = || Raw {
        defaults: RawRoot {
            interval: Some("x".to_owned()),
            ..RawRoot::default()
        },
        ..Raw::default()
    };
    assert!(wrong(main, "", interval()).starts_with("root /a: interval: `x`"));
    // Its own interval counts, whatever the default is.
    let own = "[[root]]\npath = '/a'\ninterval = 'y'";
    assert!(wrong(main, own, interval()).starts_with("DIR/agent.toml.d/10.toml, line 3: root /a"));
}

#[test]
fn a_path_that_is_wrong_is_told_once() {
    let main = "[[root]]\npath = ''\n[[root]]\npath = '/a/../b'\n[[root]]\npath = '/a'\n[[root]]\npath = '/b'";
    let error = wrong(main, "", Raw::default());
    let problems: Vec<&str> = error.lines().collect();
    assert_eq!(
        problems,
        [
            "2 problems",
            "- DIR/agent.toml, line 2: root : path: must be absolute",
            "- DIR/agent.toml, line 4: root /a/../b: path: must do without `..`",
        ]
    );
}

#[test]
fn what_cannot_be_understood_hides_nothing() {
    let main = "sytem = 'a'\nsocket_mode = 660\nlog_format = 'x'\nlisten = ['0.0.0.0:1', 5]\nlandlock = 'no'\n\
        defaults = 3\n[[root]]\npath = 5\n[[root]]\npath = '/a'\nwidth = -1\ninterval = 'x'\n\
        candidates = 5\noperations_per_second = 'fast'\nskip = 'a'\nwdith = 1\n[tls]\ncert = 'c'\nkey = 1\n";
    for (drop_in, told) in [
        ("system = x", "DIR/agent.toml.d/10.toml, line 1: not TOML: "),
        (
            "\n[root]\npath = '/b'",
            "DIR/agent.toml.d/10.toml, line 2: root: name each image directory",
        ),
        (
            "tls = true",
            "DIR/agent.toml.d/10.toml, line 1: tls: invalid type: boolean `true`, expected a table, as [tls]",
        ),
        (
            "\n[[tls]]\ncert = '/c'",
            "DIR/agent.toml.d/10.toml, line 2: tls: there is one such table: write [tls] in single brackets",
        ),
        (
            "defaults = [1]",
            "DIR/agent.toml.d/10.toml, line 1: defaults: there is one such table: write [defaults] in",
        ),
        (
            "log_format = 'y'",
            "DIR/agent.toml.d/10.toml, line 1: log_format: `y`",
        ),
    ] {
        let error = wrong(main, drop_in, Raw::default());
        let found: Vec<&str> = error
            .lines()
            .filter_map(|line| line.strip_prefix("  - ").or(line.strip_prefix("- ")))
            .collect();
        let expected = [
            "DIR/agent.toml, line 1: unknown field `sytem`, expected one of `system`, ",
            "DIR/agent.toml, line 2: socket_mode: invalid type: integer `660`, expected a text in quotes",
            "DIR/agent.toml, line 3: log_format: `x` is neither text nor json",
            "DIR/agent.toml, line 4: listen: invalid type: integer `5`, expected a text in quotes",
            "DIR/agent.toml, line 5: landlock: invalid type: string \"no\", expected true or false",
            "DIR/agent.toml, line 6: defaults: invalid type: integer `3`, expected a table",
            "DIR/agent.toml, line 8: root.path: invalid type: integer `5`, expected a path in quotes",
            "DIR/agent.toml, line 11: root /a: width: invalid value: integer `-1`, expected a whole number, 0 to 4294967295",
            "DIR/agent.toml, line 12: root /a: interval: `x` is no duration",
            "DIR/agent.toml, line 13: root /a: candidates: neither a text nor a list of texts",
            "DIR/agent.toml, line 14: root /a: operations_per_second: invalid type: string \"fast\", expected a number",
            "DIR/agent.toml, line 15: root /a: skip: invalid type: string \"a\", expected a list in brackets",
            "DIR/agent.toml, line 16: unknown field `wdith`, expected one of `path`, ",
            // Not that other keys of [tls] are missing: they may be what was not understood.
            "DIR/agent.toml, line 18: tls.cert: write the absolute path",
            "DIR/agent.toml, line 19: tls.key: invalid type: integer `1`, expected a path in quotes",
            told,
        ];
        // A later value takes the place of an earlier one, which nobody has to mend.
        let expected = expected
            .iter()
            .filter(|line| !(told.contains("`y`") && line.contains("`x` is neither")));
        assert_eq!(found.len(), expected.clone().count(), "{error}");
        for (found, expected) in found.iter().zip(expected) {
            assert!(found.starts_with(expected), "{expected}: {error}");
        }
    }
}

#[test]
fn what_is_missing_is_not_told_of_what_was_not_understood() {
    for main in [
        "[[rot]]\npath = '/a'",
        "[[root]]\npth = '/a'",
        "root = 1",
        "[[root]]\npath = '/a'\n[tls]\ncert = '/c'\nkye = '/k'",
        "listen = ['0.0.0.0:1']\ntsl = 1\n[[root]]\npath = '/a'",
        "[[root]\npath = '/a'",
    ] {
        let error = wrong(main, "", Raw::default());
        assert_eq!(error.lines().count(), 1, "{error}");
        assert!(error.starts_with("DIR/agent.toml, line "), "{error}");
    }
}

#[test]
fn everything_that_is_wrong_is_told_at_once() {
    let main = "socket_mode = '999'\nlog_format = 'x'\nlisten = ['nonsense', '0.0.0.0:1']\n\
        [defaults]\ninterval = '5'\n[[root]]\npath = '/a'\nwidth = 0\nskip = ['', 'a/b']\n";
    let drop_in = "plain_tcp = 'x'\n[[root]]\npath = '/b'\nnaming = ['(', ')']\n[[root]]\npath = 'c'\n\
        [tls]\ncert = 'c'\nkey = 'k'\nclient_ca = '/c'\nallow = []\n";
    let error = wrong(main, drop_in, Raw::default());
    let (first, problems) = error.split_once('\n').unwrap();
    assert_eq!(first, "14 problems");
    let found: Vec<&str> = problems
        .lines()
        .filter_map(|line| line.strip_prefix("- "))
        .collect();
    let expected = [
        "DIR/agent.toml, line 1: socket_mode: ",
        "DIR/agent.toml, line 2: log_format: ",
        "DIR/agent.toml, line 3: listen: `nonsense`",
        // Once, though it is that of three roots.
        "DIR/agent.toml, line 5: root /a: interval: ",
        "DIR/agent.toml, line 8: root /a: width: ",
        "DIR/agent.toml, line 9: root /a: skip: ``",
        "DIR/agent.toml, line 9: root /a: skip: `a/b`",
        "DIR/agent.toml.d/10.toml, line 1: plain_tcp: ",
        "DIR/agent.toml.d/10.toml, line 4: root /b: naming: ",
        "DIR/agent.toml.d/10.toml, line 4: root /b: naming: ",
        "DIR/agent.toml.d/10.toml, line 6: root c: path: must be absolute",
        "DIR/agent.toml.d/10.toml, line 8: tls.cert: ",
        "DIR/agent.toml.d/10.toml, line 9: tls.key: ",
        "DIR/agent.toml.d/10.toml, line 11: tls.allow: ",
    ];
    assert_eq!(found.len(), expected.len(), "{error}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.starts_with(expected), "{expected}: {error}");
    }
}
