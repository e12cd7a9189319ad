//! `sifter doctor`: what it finds, and with which exit code.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::support::{Agent, images};

fn doctor(config: &Path) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_sifter"))
        .args(["doctor", "--config"])
        .arg(config)
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(text).unwrap())
}

#[test]
fn what_is_wrong_is_named_with_what_to_do() {
    let temporary = tempfile::tempdir().unwrap();
    let directory = temporary.path();
    images(directory, &["a.sif"]);
    let state = format!("state_directory = '{}/state'", directory.display());
    let agent = Agent::start(directory, ", '127.0.0.1:0'", &state);
    let config = directory.join("agent.toml");
    let (code, text) = doctor(&config);
    // The clock of the machine that tests may not be synchronised: a warning.
    assert!(matches!(code, Some(0 | 3)), "{code:?} {text}");
    for line in [
        "catalogue: ",
        "is sound",
        "agent: sifter ",
        "1 images visible here",
    ] {
        assert!(text.contains(line), "{line} in {text}");
    }
    assert!(!text.contains("FAILED"), "{text}");
    drop(agent);

    let (code, text) = doctor(&config);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("nobody answers"), "{text}");
    assert!(text.contains("-> start the agent"), "{text}");

    let good = fs::read_to_string(&config).unwrap();
    let tls = "[tls]\ncert = '/nowhere/c'\nkey = '/nowhere/k'\nclient_ca = '/nowhere/ca'\nallow = ['x']\n";
    let broken = good.replace("'127.0.0.1:0'", "'tls:127.0.0.1:0'").replace(
        "[[root]]",
        &format!("{tls}[[root]]\npath = '/nowhere/images'\n[[root]]"),
    );
    fs::write(&config, broken).unwrap();
    let (code, text) = doctor(&config);
    assert_eq!(code, Some(1), "{text}");
    for line in [
        "FAILED   root /nowhere/images",
        "FAILED   tls: tls.cert /nowhere/c",
    ] {
        assert!(text.contains(line), "{line} in {text}");
    }

    fs::write(&config, "typo = 1").unwrap();
    assert_eq!(doctor(&config).0, Some(2));
}
