//! `sifter doctor`: what it finds, and with which exit code.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use nix::sys::signal::Signal;

use super::support::{
    Agent, Authority, images, install, is_superuser, leave_out, open_directory,
    path_to_unit_of_nobody, until,
};

fn doctor(config: &Path) -> (Option<i32>, String) {
    let output = crate::tool::sifter()
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
        "1 image visible here",
        " clock: ",
        " user: ",
        &format!(" root {}/images: ", directory.display()),
        &format!(
            "metrics unix:{}/metrics.sock: are served",
            directory.display()
        ),
    ] {
        assert!(text.contains(line), "{line} in {text}");
    }
    assert!(!text.contains("FAILED"), "{text}");
    agent.signal(Signal::SIGTERM);
    let left = ["agent.sock", "metrics.sock"].map(|name| directory.join(name));
    until("its sockets to go", || {
        !left.iter().any(|path| path.exists())
    });
    drop(agent);

    let (code, text) = doctor(&config);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("nobody answers"), "{text}");
    let metrics = format!(
        "metrics unix:{}/metrics.sock: nobody answers",
        directory.display()
    );
    assert!(text.contains(&metrics), "{text}");
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

    // Certificates: good, good for those that live a few days, about to end, over, not begun, and one whose key is another's.
    let ca = Authority::new("site");
    let tls = format!(
        "[tls]\ncert = '{0}/c'\nkey = '{0}/k'\nclient_ca = '{0}/ca'\nallow = ['control']\n",
        directory.display()
    );
    let with_tls = good.replace("[[root]]", &format!("{tls}[[root]]"));
    let with_tls = with_tls.replace("'127.0.0.1:0'", "'tls:127.0.0.1:0'");
    fs::write(&config, with_tls).unwrap();
    fs::write(directory.join("ca"), &ca.pem).unwrap();
    let other = ca.sign("agent", (2020, 2120)).key;
    let now = SystemTime::now();
    let ago = |days: u64| now - Duration::from_secs(days * 86_400);
    let in_days = |days: u64| now + Duration::from_secs(days * 86_400);
    for (from, until, key, expected) in [
        (ago(9), in_days(99), None, "ok       tls: dns:agent"),
        (ago(2), in_days(1), None, "ok       tls: dns:agent"),
        (
            ago(30),
            in_days(9),
            None,
            "warning  tls: the certificate expires in less than 9 days: ",
        ),
        (
            ago(9),
            ago(2),
            None,
            "FAILED   tls: the certificate has expired",
        ),
        (
            in_days(2),
            in_days(9),
            None,
            "FAILED   tls: the certificate is valid only from",
        ),
        (ago(9), in_days(99), Some(&other), "FAILED   tls: "),
    ] {
        let server = ca.sign_between("agent", from, until);
        fs::write(directory.join("c"), &server.cert).unwrap();
        fs::write(directory.join("k"), key.unwrap_or(&server.key)).unwrap();
        let (_, text) = doctor(&config);
        assert!(text.contains(expected), "{expected} in {text}");
    }

    // An authority that ends: what it has signed is good for as long as it says itself.
    for (until, expected) in [
        (in_days(9), "the authority expires in less than 9 days: "),
        (ago(2), "the authority has expired: "),
    ] {
        let ca = Authority::between("site", ago(30), until);
        let server = ca.sign_between("agent", ago(9), in_days(99));
        for (name, text) in [("ca", &ca.pem), ("c", &server.cert), ("k", &server.key)] {
            fs::write(directory.join(name), text).unwrap();
        }
        let (_, text) = doctor(&config);
        for expected in [
            format!("warning  tls: {expected}"),
            "ok       tls: dns:agent".to_owned(),
        ] {
            assert!(text.contains(&expected), "{expected} in {text}");
        }
    }

    fs::write(&config, "typo = 1").unwrap();
    assert_eq!(doctor(&config).0, Some(2));
}

#[test]
fn a_catalogue_of_a_newer_version_is_not_sound() {
    let temporary = tempfile::tempdir().unwrap();
    let directory = temporary.path();
    images(directory, &["a.sif"]);
    let state = format!("state_directory = '{}/state'", directory.display());
    drop(Agent::start(directory, "", &state));
    let file = directory.join("state/catalog.sqlite");
    let stored = rusqlite::Connection::open(file).unwrap();
    stored.pragma_update(None, "user_version", 99).unwrap();
    drop(stored);
    let _agent = Agent::start(directory, "", &state);
    let (code, text) = doctor(&directory.join("agent.toml"));
    assert_eq!(code, Some(1), "{text}");
    for expected in [
        "catalog.sqlite has schema version 99, and this sifter knows",
        "-> install the newer sifter again, or do without the file: ",
        "works without its catalogue: catalogue: schema version 99 is newer",
    ] {
        assert!(text.contains(expected), "{expected} in {text}");
    }
    for wrong in ["is sound", "free space"] {
        assert!(!text.contains(wrong), "{wrong} in {text}");
    }
}

#[test]
fn what_another_user_may_not_do_is_not_to_be_mended() {
    if !is_superuser() {
        leave_out("the agent's user and another one", "only root can be them");
        return;
    }
    const AGENT: u32 = 54_398;
    const OTHER: u32 = 54_399;
    let temporary = open_directory();
    let directory = temporary.path();
    let at = |name: &str| directory.join(name);
    install(env!("CARGO_BIN_EXE_sifter"), &at("sifter"));
    let ca = Authority::new("site");
    let server = ca.sign("agent", (2020, 2120));
    for (name, text) in [("ca", &ca.pem), ("c", &server.cert), ("k", &server.key)] {
        fs::write(at(name), text).unwrap();
    }
    fs::create_dir(at("state")).unwrap();
    for (name, mode) in [("k", 0o600), ("state", 0o750)] {
        chown(at(name), Some(AGENT), None).unwrap();
        fs::set_permissions(at(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    let config = format!(
        "listen = ['tls:127.0.0.1:0']\nstate_directory = '{0}/state'\n\
         [tls]\ncert = '{0}/c'\nkey = '{0}/k'\nclient_ca = '{0}/ca'\nallow = ['x']\n[[root]]\npath = '{0}'\n",
        directory.display()
    );
    fs::write(at("agent.toml"), config).unwrap();
    let mut command = Command::new(at("sifter"));
    command.args(["doctor", "--config"]).arg(at("agent.toml"));
    let output = command.uid(OTHER).gid(OTHER).output().unwrap();
    let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    let advice = |finding: &str| {
        let mut lines = text.lines().skip_while(|line| !line.contains(finding));
        lines.nth(1).unwrap_or_default().to_owned()
    };
    let of_state = advice("cannot be written by this user");
    let expected = format!("-> if the agent runs as {AGENT}, run this as {AGENT}; if not, let ");
    assert!(of_state.contains(&expected), "{text}");
    let of_key = advice("let the user of the service read it");
    assert!(
        of_key.contains("-> if this is not the agent's user, run this as that"),
        "{text}"
    );
}

#[test]
fn root_is_told_what_the_units_user_may_not_do() {
    if !is_superuser() {
        leave_out("the unit's user", "only root can become it");
        return;
    }
    let temporary = open_directory();
    let directory = temporary.path();
    let config = directory.join("an agent.toml");
    let (open, closed) = (directory.join("open"), directory.join("closed"));
    for (root, mode) in [(&open, 0o755), (&closed, 0o700)] {
        fs::create_dir(root).unwrap();
        fs::set_permissions(root, fs::Permissions::from_mode(mode)).unwrap();
    }
    let text = format!(
        "listen = ['127.0.0.1:0']\n[[root]]\npath = '{}'\n[[root]]\npath = '{}'\n",
        open.display(),
        closed.display()
    );
    fs::write(&config, text).unwrap();
    let path = path_to_unit_of_nobody(directory, &config);
    let doctor = |config: &Path| {
        let mut command = crate::tool::sifter();
        command.args(["doctor", "--config"]).arg(config);
        let output = command.env("PATH", &path).output().unwrap();
        String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
    };
    let text = doctor(&config);
    for expected in [
        "ok       user: nobody, who runs sifter-agent.service\n".to_owned(),
        format!("ok       root {}: ", open.display()),
        format!("FAILED   root {}: ", closed.display()),
    ] {
        assert!(text.contains(&expected), "{expected} in {text}");
    }
    // What is no unit's is root's own.
    let other = directory.join("other.toml");
    fs::copy(&config, &other).unwrap();
    let text = doctor(&other);
    assert!(
        text.contains(" user: root\n") && !text.contains("FAILED"),
        "{text}"
    );
    fs::set_permissions(&config, fs::Permissions::from_mode(0o600)).unwrap();
    let text = doctor(&config);
    let expected = "as the user nobody, who runs sifter-agent.service: configuration: ";
    assert!(text.contains(expected), "{text}");
}

#[test]
fn what_is_no_page_of_metrics_is_told_from_one() {
    let temporary = tempfile::tempdir().unwrap();
    let directory = temporary.path();
    let config = directory.join("agent.toml");
    let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = other.local_addr().unwrap();
    let text = format!(
        "listen = ['unix:{0}/agent.sock']\nmetrics = '{address}'\n[[root]]\npath = '{0}'\n",
        directory.display()
    );
    fs::write(&config, text).unwrap();
    for (answer, expected) in [
        (
            "HTTP/1.1 404 Not Found\r\n\r\n",
            "not with the agent's metrics: HTTP/1.1 404 Not Found",
        ),
        (
            "HTTP/1.1 200 OK\r\n\r\nhello",
            "not with the agent's metrics: HTTP/1.1 200 OK",
        ),
        ("", "answers nothing"),
    ] {
        let other = other.try_clone().unwrap();
        let served = std::thread::spawn(move || {
            let (mut stream, _) = other.accept().unwrap();
            let mut asked = [0; 512];
            let read = stream.read(&mut asked).unwrap();
            assert!(asked[..read].starts_with(b"GET /metrics HTTP/1.1\r\n"));
            stream.write_all(answer.as_bytes()).unwrap();
        });
        let (code, text) = doctor(&config);
        assert_eq!(code, Some(1), "{text}");
        let line = text
            .lines()
            .find(|line| line.contains(" metrics "))
            .unwrap_or_default();
        assert!(
            line.starts_with("FAILED") && line.contains(expected),
            "{text}"
        );
        // Where nothing asks, that would wait for ever, and not say what was printed instead.
        served.join().unwrap();
    }
}

#[test]
fn what_is_wrong_in_a_file_is_shown_where_it_is_and_no_name_forges_a_line() {
    let temporary = tempfile::tempdir().unwrap();
    let error = |arguments: &[&str]| {
        let ran = crate::tool::run(temporary.path(), arguments);
        assert_ne!(ran.code, Some(0), "{arguments:?}");
        ran.err
    };
    fs::write(
        temporary.path().join("bad.toml"),
        "listn = []\n\"a\\u001b\\nsifter: all is well\" = 1\nlog = \"\"\"=\nsifter: all is well\"\"\"\n",
    )
    .unwrap();
    let shown = error(&["check-config", "-c", "bad.toml"]);
    let lines: Vec<_> = shown.lines().collect();
    assert!(
        lines[1].starts_with("  - bad.toml, line 1: unknown field `listn`"),
        "{shown}"
    );
    assert!(shown.contains("is well"), "{shown}");
    assert!(
        lines[1..].iter().all(|line| line.starts_with("  ")),
        "{shown}"
    );
    // What the agent would refuse at start.
    for (text, key) in [
        ("log = '=x'", "configuration: bad.toml, line 1: log: "),
        (
            "metrics = 'nowhere'",
            "configuration: bad.toml, line 1: metrics: ",
        ),
        (
            "metrics = 'unix:/run/sifter/agent.sock'",
            "configuration: bad.toml, line 1: metrics: ",
        ),
        ("system = ''", "configuration: bad.toml, line 1: system: "),
        (
            "state_directory = 'state'",
            "configuration: bad.toml, line 1: state_directory: ",
        ),
    ] {
        fs::write(
            temporary.path().join("bad.toml"),
            format!("{text}\n[[root]]\npath = '/nowhere'\n"),
        )
        .unwrap();
        let checked = error(&["check-config", "-c", "bad.toml"]);
        assert!(checked.contains(key), "{checked}");
        assert_eq!(error(&["agent", "-c", "bad.toml"]), checked);
    }
    let forged = error(&["inspect", "no\nsifter: all is well"]);
    assert_eq!(forged.lines().count(), 1, "{forged}");
}
