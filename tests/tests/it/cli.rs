//! The command line: `scan` without a daemon, `ls`, `inspect` and `status` with one.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::process::Output;
use std::process::Stdio;

use nix::sys::signal::Signal;
use nix::sys::signal::kill;
use nix::unistd::Pid;
use serde_json::Value;
use sifter_tests::agent::Agent;
use sifter_tests::agent::Options;
use sifter_tests::agent::SYSTEM;
use sifter_tests::images;
use sifter_tests::is_superuser;
use sifter_tests::process::Process;
use sifter_tests::process::binary;
use sifter_tests::process::install;
use sifter_tests::sif::Tiny;
use sifter_tests::skip;
use sifter_tests::wait;
use tempfile::TempDir;

fn sifter(args: &[&str]) -> Output {
    Command::new(binary("sifter")).args(args).output().unwrap()
}

fn text(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// One JSON object a line.
fn lines(output: &Output) -> Vec<Value> {
    text(output)
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect()
}

fn paths(images: &[Value]) -> BTreeSet<String> {
    let path = |image: &Value| image["path"].as_str().expect("path").to_owned();
    images.iter().map(path).collect()
}

#[test]
fn scan_and_ls_show_the_same_images() {
    let root = images::dir();
    let agent = Agent::ready(Options::roots([&root]));
    let scanned = lines(&sifter(&["scan", "--json", root.to_str().unwrap()]));
    let listed = lines(&sifter(&[
        "ls",
        "--json",
        "--address",
        &agent.unix_address(),
    ]));
    let expected: BTreeSet<_> = images::truth()
        .keys()
        .map(|path| root.join(path).to_str().unwrap().to_owned())
        .collect();
    assert_eq!(paths(&scanned), expected);
    assert_eq!(paths(&listed), expected);
    assert_eq!(scanned.len(), listed.len());
}

#[test]
fn scan_prints_a_table() {
    let table = text(&sifter(&["scan", images::dir().to_str().unwrap()]));
    for word in ["ubuntu", "22.04", "READY", "quay.io/biocontainers/fastqc"] {
        assert!(table.contains(word), "{word} not in\n{table}");
    }
}

#[test]
fn inspect_shows_all_that_is_known() {
    let path = images::dir().join("built/tools.sif");
    let output = sifter(&["inspect", "--json", path.to_str().unwrap()]);
    let image: Value = serde_json::from_str(&text(&output)).unwrap();
    let entry = &images::truth()["built/tools.sif"];
    assert_eq!(image["definition"], entry["definition"]);
    assert_eq!(image["labels"], entry["labels"]);
    assert_eq!(image["uuid"], entry["header"]["id"]);
    let output = sifter(&["inspect", path.to_str().unwrap()]);
    assert!(text(&output).contains("Sifter tests"), "the label Author");
}

#[test]
fn status_shows_the_system_and_the_roots() {
    let root = images::dir();
    let agent = Agent::ready(Options::roots([&root]));
    let shown = text(&sifter(&["status", "--address", &agent.unix_address()]));
    for word in [SYSTEM, root.to_str().unwrap()] {
        assert!(shown.contains(word), "{word} not in\n{shown}");
    }
}

/// Counts of what a caller may not see are not there: a zero would be a lie.
#[test]
fn status_leaves_out_what_was_withheld() {
    if !is_superuser() {
        return sifter_tests::skip("another user's status", "needs root");
    }
    let dir = TempDir::new().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let program = dir.path().join("sifter");
    install("sifter", &program);
    let roots = ["a", "b"].map(|name| dir.path().join("roots").join(name));
    for root in &roots {
        fs::create_dir_all(root).unwrap();
        Tiny::numbered(1, "lab/tool:1").write(&root.join("tool.sif"));
    }
    let agent = Agent::ready(Options::roots(&roots));
    let sifter = |user: &[&str], command: &str| {
        let output = Command::new("setpriv")
            .args(user)
            .arg(&program)
            .args([command, "--address", &agent.tcp.to_string()])
            .stdin(Stdio::null())
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let all = sifter(&["--reuid=0"], "status");
    assert!(
        all.contains("1 directory") && all.contains("0 problems"),
        "{all}"
    );
    let nobody = ["--reuid=65534", "--regid=65534", "--clear-groups"];
    let rescan = sifter(&nobody, "rescan");
    assert!(rescan.contains("roots/a: scanned\n"), "{rescan}");
    let own = sifter(&nobody, "status");
    assert!(own.contains("last scan"), "{own}");
    for withheld in ["director", "file read", "operations", "problems"] {
        assert!(!own.contains(withheld), "{withheld} in\n{own}");
    }
}

#[test]
fn names_cannot_write_to_the_terminal() {
    let root = TempDir::new().unwrap();
    let name = "evil\u{1b}[2J\u{7}\nline.sif";
    Tiny::numbered(1, "lab/tool:1").write(&root.path().join(name));
    let output = sifter(&["scan", root.path().to_str().unwrap()]);
    let table = text(&output);
    assert!(table.contains("evil"), "{table}");
    assert!(
        !table.contains('\u{1b}') && !table.contains('\u{7}'),
        "{table:?}"
    );
}

#[test]
fn failures_have_an_exit_code_and_say_what_and_where() {
    let dir = TempDir::new().unwrap();
    let missing = dir.path().join("missing");
    let text_file = dir.path().join("notes.txt");
    fs::write(&text_file, "no image").unwrap();
    let socket = format!("unix:{}", missing.display());
    for (args, words) in [
        (
            vec!["scan", missing.to_str().unwrap()],
            missing.to_str().unwrap(),
        ),
        (
            vec!["inspect", missing.to_str().unwrap()],
            missing.to_str().unwrap(),
        ),
        (
            vec!["inspect", text_file.to_str().unwrap()],
            text_file.to_str().unwrap(),
        ),
        (vec!["ls", "--address", &socket], missing.to_str().unwrap()),
    ] {
        let output = sifter(&args);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{args:?} succeeded");
        assert!(
            output.status.code().is_some(),
            "{args:?}: {}",
            output.status
        );
        assert!(said.contains(words), "{args:?}: {said}");
    }
}

/// Ends the agent, of which only its ID is known, even if the test fails.
struct Ending(PathBuf);

impl Drop for Ending {
    fn drop(&mut self) {
        let id = fs::read_to_string(&self.0).unwrap_or_default();
        if let Ok(id) = id.trim().parse() {
            let _ = kill(Pid::from_raw(id), Signal::SIGTERM);
        }
    }
}

/// What a command writes to a terminal; `None` where there is none to be had.
fn on_terminal(command: &str) -> Option<String> {
    let mut script = Command::new("script");
    let output = script.args(["-qec", command, "/dev/null"]).output();
    Some(String::from_utf8_lossy(&output.ok()?.stdout).into_owned())
}

#[test]
fn progress_does_not_come_between_the_lines_of_a_listing() {
    let dir = TempDir::new().unwrap();
    for number in 1..=20 {
        Tiny::numbered(number, "lab/tool:1").write(&dir.path().join(format!("{number}.sif")));
    }
    // Slow enough for a look at it.
    let scan = format!(
        "'{}' scan --operations-per-second 60 '{}'",
        binary("sifter").display(),
        dir.path().display()
    );
    for (how, shown) in [
        ("", true),
        ("--format '{{.Path}}' --sort path", true),
        ("--format '{{.Path}}' > /dev/null", true),
        ("--format '{{.Path}}'", false),
        ("--json", false),
        ("--quiet", false),
    ] {
        let Some(output) = on_terminal(&format!("{scan} {how}")) else {
            return skip("the terminal", "no `script` (util-linux)");
        };
        assert_eq!(output.contains(" images in "), shown, "{how}: {output}");
    }
}

#[test]
fn an_agent_in_the_foreground_of_a_terminal_shows_its_scans_below_its_log() {
    if Command::new("script").arg("--version").output().is_err() {
        return skip("the terminal", "no `script` (util-linux)");
    }
    let dir = TempDir::new().unwrap();
    let root = dir.path().join("images");
    fs::create_dir(&root).unwrap();
    for number in 1..=20 {
        Tiny::numbered(number, "lab/tool:1").write(&root.join(format!("{number}.sif")));
    }
    let file = dir.path().join("agent.toml");
    let text = format!(
        "listen = [\"unix:{}\"]\n[[root]]\npath = \"{}\"\noperations_per_second = 20\n",
        dir.path().join("agent.sock").display(),
        root.display()
    );
    fs::write(&file, text).unwrap();
    let (id, log) = (dir.path().join("id"), dir.path().join("log"));
    // What becomes of the shell's own terminal when it ends would be a hangup for the agent.
    let shell = format!(
        "'{}' agent --foreground --config '{}' & echo $! > '{}'; wait",
        binary("sifter").display(),
        file.display(),
        id.display()
    );
    let ending = Ending(id);
    let mut terminal = Process::start(
        Command::new("script").args(["-qefc", &shell, "/dev/null"]),
        &log,
    );
    let progress = format!("{}: ", root.display());
    wait::until_true("the line of the scan, with counts that grow", || {
        let output = terminal.output();
        let mut shown: Vec<&str> = output
            .split(progress.as_str())
            .skip(1)
            .filter_map(|rest| rest.split(" images in").next())
            .collect();
        shown.dedup();
        shown.len() > 2 && output.contains("listening")
    });
    // It is drawn in place, and gone when the agent has ended; what else is written does not come behind it.
    drop(ending);
    terminal.wait();
    let output = terminal.output();
    let clear = "\u{1b}[2K";
    assert!(output.contains(clear), "{output:?}");
    for (what, before) in [
        ("the addresses", output.split("listening on ").next()),
        ("the end", Some(output.as_str())),
    ] {
        let last = before.and_then(|before| before.rsplit(clear).next());
        let last = last.unwrap_or_default();
        assert!(!last.contains(" images in "), "{what}: {output:?}");
    }
}
