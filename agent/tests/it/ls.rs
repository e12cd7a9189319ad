//! `ls` against an agent: digests in the background, duplicates, candidates for removal.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant, SystemTime};

use serde_json::Value;

use crate::tool::{IMAGES, Ran, copy, set_times, show, sifter};

/// Longest wait for what happens in the background.
const PATIENCE: Duration = Duration::from_secs(60);

/// An agent over a directory; ends with the test.
struct Agent {
    process: Child,
    images: PathBuf,
    directory: tempfile::TempDir,
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Agent {
    fn start(settings: &str, prepare: impl FnOnce(&Path)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().canonicalize().unwrap();
        let images = path.join("images");
        std::fs::create_dir(&images).unwrap();
        prepare(&images);
        let config = path.join("agent.toml");
        let text = format!(
            "listen = [\"unix:{0}/socket\"]\nlog = \"warn\"\n[[root]]\npath = \"{0}/images\"\n{1}\n",
            path.display(),
            settings.replace("DIRECTORY", &path.display().to_string())
        );
        std::fs::write(&config, text).unwrap();
        let mut process = sifter()
            .args(["agent", "--config"])
            .arg(&config)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        assert!(line.starts_with("listening"), "{line}");
        Self {
            process,
            images,
            directory,
        }
    }

    fn arguments<'a>(&self, address: &'a mut String, arguments: &[&'a str]) -> Vec<&'a str> {
        let path = self.directory.path().canonicalize().unwrap();
        *address = format!("unix:{}/socket", path.display());
        let mut all = arguments.to_vec();
        all.extend(["--address", address.as_str()]);
        all
    }

    fn show(&self, arguments: &[&str]) -> String {
        let mut address = String::new();
        let arguments: Vec<&str> = self.arguments(&mut address, arguments);
        show(&self.images, &arguments)
    }

    fn json(&self, arguments: &[&str]) -> Vec<Value> {
        let mut address = String::new();
        let arguments: Vec<&str> = self.arguments(&mut address, arguments);
        let Ran { out, .. } = crate::tool::run(&self.images, &arguments);
        out.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    /// Waits until the listing is as it should be.
    fn until(&self, what: &str, is: impl Fn(&[Value]) -> bool) -> Vec<Value> {
        let end = Instant::now() + PATIENCE;
        loop {
            let images = self.json(&["ls", "--json", "--sort", "path"]);
            if is(&images) {
                return images;
            }
            assert!(Instant::now() < end, "{what}: {images:#?}");
            std::thread::sleep(Duration::from_millis(200));
        }
    }
}

fn image(name: &str) -> PathBuf {
    Path::new(IMAGES).join(name)
}

fn sha256(path: &Path) -> String {
    use sha2::Digest as _;
    let digest = sha2::Sha256::digest(std::fs::read(path).unwrap());
    format!("sha256:{}", hex::encode(digest))
}

#[test]
fn digests_come_by_themselves_and_go_with_the_content() {
    let agent = Agent::start(
        "content_digest = true\ninterval = \"1s\"\nfile_interval = \"1s\"",
        |images| {
            copy(&image("built/tools.sif"), &images.join("a.sif"));
            copy(&image("pulled/ubuntu_22.04.sif"), &images.join("b.sif"));
            std::fs::hard_link(images.join("b.sif"), images.join("c.sif")).unwrap();
        },
    );
    let all = |images: &[Value]| {
        images.len() == 3
            && images
                .iter()
                .all(|image| image.get("contentDigest").is_some())
    };
    let before = agent.until("first digests", all);
    for (image, name) in before.iter().zip(["a.sif", "b.sif", "c.sif"]) {
        assert_eq!(
            image["contentDigest"],
            sha256(&agent.images.join(name)),
            "{name}"
        );
    }
    // Other bytes behind the same header, in place; and a move, which changes no content.
    let path = agent.images.join("a.sif");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[40_000] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    std::fs::rename(agent.images.join("b.sif"), agent.images.join("d.sif")).unwrap();
    let after = agent.until("new digests", |images| {
        all(images) && images[0]["contentDigest"] != before[0]["contentDigest"]
    });
    for (image, name) in after.iter().zip(["a.sif", "c.sif", "d.sif"]) {
        assert_eq!(
            image["contentDigest"],
            sha256(&agent.images.join(name)),
            "{name}"
        );
        assert!(image["path"].as_str().unwrap().ends_with(name));
    }
}

#[test]
fn no_file_is_read_unless_asked_for() {
    // The second root asks for it: once its younger image was read, the first one's was passed over.
    let asking = "[[root]]\npath = \"DIRECTORY/asking\"\ncontent_digest = true\ninterval = \"1s\"";
    let agent = Agent::start(asking, |images| {
        copy(&image("built/tools.sif"), &images.join("a.sif"));
        let asking = images.with_file_name("asking");
        std::fs::create_dir(&asking).unwrap();
        copy(&image("built/tools.sif"), &asking.join("b.sif"));
    });
    let images = agent.until("the digest that was asked for", |images| {
        images.len() == 2
            && images
                .iter()
                .any(|image| image.get("contentDigest").is_some())
    });
    let read: Vec<bool> = images
        .iter()
        .map(|image| image["path"].as_str().unwrap().ends_with("b.sif"))
        .collect();
    for (image, asked) in images.iter().zip(read) {
        assert_eq!(image.get("contentDigest").is_some(), asked, "{image:#}");
    }
}

#[test]
fn duplicates_and_candidates() {
    // What is read afterwards it is not to learn by itself.
    let agent = Agent::start("hints = false", |images| {
        let old = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap()
            .as_secs()
            - 200 * 86_400;
        for (from, to) in [
            ("pulled/ubuntu_22.04.sif", "ubuntu.sif"),
            ("pulled/ubuntu_22.04.sif", "copy.sif"),
            ("pulled/ubuntu_22.04.sif", "third.sif"),
            ("built/tools.sif", "tools.sif"),
            ("signed/pgp.sif", "signed.sif"),
        ] {
            copy(&image(from), &images.join(to));
            set_times(
                &images.join(to),
                old,
                SystemTime::now()
                    .duration_since(SystemTime::UNIX_EPOCH)
                    .unwrap()
                    .as_secs(),
            );
        }
        std::fs::hard_link(images.join("tools.sif"), images.join("link.sif")).unwrap();
        set_times(&images.join("third.sif"), old, old);
        set_times(&images.join("signed.sif"), old, old - 86_400);
    });
    agent.until("listing", |images| images.len() == 6);
    let owner = agent.json(&["ls", "--json"])[0]["owner"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    let fixed = |shown: String| shown.replace(&format!("  {owner}  "), "  OWNER  ");
    let duplicates = agent.show(&["ls", "--duplicates"]);
    let scanned = ["scan", ".", "--duplicates"];
    assert_eq!(show(&agent.images, &scanned), duplicates);
    insta::assert_snapshot!("ls_duplicates", fixed(duplicates));
    let groups = agent.json(&["ls", "--duplicates", "--json"]);
    assert_eq!(groups.len(), 2, "a group and the totals: {groups:#?}");
    assert_eq!(groups[0]["savedBytes"], (2 * 40_960).to_string());
    let names = |arguments: &[&str]| -> Vec<String> {
        let mut all = vec!["ls", "--json", "--candidates-for-removal"];
        all.extend(arguments);
        agent
            .json(&all)
            .iter()
            .filter_map(|image| Some(image["path"].as_str()?.rsplit('/').next()?.to_owned()))
            .collect()
    };
    assert_eq!(names(&[]), ["signed.sif", "third.sif"]);
    assert_eq!(names(&["--unused-for", "28w"]), ["signed.sif", "third.sif"]);
    assert!(names(&["--unused-for", "1y"]).is_empty());
    // Minutes, where months were meant, would make candidates of nearly all.
    let refused = agent.show(&["ls", "--candidates-for-removal", "--unused-for", "6m"]);
    assert!(refused.contains("--- exit code 2"), "{refused}");
    assert!(refused.contains("`m` are minutes"), "{refused}");
    // Read meanwhile, which the agent does not know yet.
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap()
        .as_secs();
    set_times(&agent.images.join("third.sif"), now, now);
    assert_eq!(names(&[]), ["signed.sif"]);
    let shown = agent.show(&[
        "ls",
        "--candidates-for-removal",
        "--format",
        "size,repository,tag,path",
    ]);
    insta::assert_snapshot!("ls_candidates", fixed(shown));
}

#[test]
fn columns_of_the_full_view_are_filled_wherever_they_are_asked_for() {
    let temporary = tempfile::tempdir().unwrap();
    let directory = temporary.path();
    std::fs::create_dir(directory.join("images")).unwrap();
    let image = std::path::Path::new(crate::tool::IMAGES).join("built/tools.sif");
    std::fs::copy(image, directory.join("images/tools.sif")).unwrap();
    let agent = crate::support::Agent::start(directory, "", "");
    for format in [
        "labels",
        "{{.Labels}}",
        "table {{.Tag}} {{.Labels}}",
        "path,definition",
    ] {
        for command in [
            vec!["scan", "images"],
            vec!["ls", "--address", &agent.unix()],
        ] {
            let ran = crate::tool::run(directory, &[&command[..], &["--format", format]].concat());
            let shown = ran.out.contains("Sifter tests") || ran.out.contains("ootstrap");
            assert!(
                ran.code == Some(0) && shown,
                "{command:?} {format}: {} {}",
                ran.out,
                ran.err
            );
        }
    }
    // A scan has read everything, and prints all of it unless told otherwise.
    for format in ["json", "{{json .}}"] {
        for (basic, shown) in [(&[][..], true), (&["--basic"], false)] {
            let scan = [&["scan", "images", "--format", format], basic].concat();
            let ran = crate::tool::run(directory, &scan);
            assert!(ran.out.contains("tools.sif"), "{scan:?}: {}", ran.err);
            for detail in ["Sifter tests", "ootstrap", "objects"] {
                assert_eq!(ran.out.contains(detail), shown, "{scan:?}: {}", ran.out);
            }
        }
    }
}

#[test]
fn an_agent_that_ends_meanwhile_is_unreachable() {
    let temporary = tempfile::tempdir().unwrap();
    crate::support::images(temporary.path(), &["a.sif"]);
    let agent = crate::support::Agent::start(temporary.path(), "", "");
    let mut watch = sifter()
        .args(["watch", "--json", "--address", &agent.unix()])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    assert!(lines.next().unwrap().unwrap().contains("a.sif"));
    agent.signal(nix::sys::signal::Signal::SIGKILL);
    let output = watch.wait_with_output().unwrap();
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(5), "{message}");
    assert!(
        message.contains("the connection to the agent ended"),
        "{message}"
    );
}

#[test]
fn what_the_agent_refuses_is_said_once_and_says_what_would_be_right() {
    let temporary = tempfile::tempdir().unwrap();
    crate::support::images(temporary.path(), &["a.sif"]);
    let agent = crate::support::Agent::start(temporary.path(), "", "");
    for (command, arguments, expected) in [
        (
            "ls",
            ["-f", "status=foo"],
            "sifter: filter: `status=foo`: matches none of the values: READY, TRANSFER, FAILURE, \
             UNAVAILABLE (INVALID_ARGUMENT)",
        ),
        (
            "watch",
            ["-f", "tag<1"],
            "sifter: filter: `tag<1`: is compared with = and != only (INVALID_ARGUMENT)",
        ),
        (
            "ls",
            ["-s", "size sideways"],
            "sifter: order_by: `size sideways`: neither asc nor desc (INVALID_ARGUMENT)",
        ),
        ("ls", ["-f", " "], "an empty term"),
        ("watch", ["-f", ""], "an empty term"),
        ("ls", ["-s", ""], "an empty order"),
    ] {
        let unix = agent.unix();
        let all = [&[command, "--address", &unix][..], &arguments].concat();
        let ran = crate::tool::run(temporary.path(), &all);
        assert_eq!(ran.code, Some(2), "{arguments:?}: {}", ran.err);
        assert!(ran.err.contains(expected), "{arguments:?}: {}", ran.err);
    }
    // The request's default is no filter, and no order.
    let ran = crate::tool::run(temporary.path(), &["ls", "--address", &agent.unix(), "-q"]);
    assert_eq!(
        (ran.code, ran.out.lines().count()),
        (Some(0), 1),
        "{}",
        ran.err
    );
}

#[test]
fn who_names_no_root_is_told_which_there_are() {
    let temporary = tempfile::tempdir().unwrap();
    crate::support::images(temporary.path(), &["a.sif"]);
    let agent = crate::support::Agent::start(temporary.path(), "", "");
    let root = format!("{}/images", temporary.path().display());
    let unix = agent.unix();
    let rescan =
        |root: &str| crate::tool::run(temporary.path(), &["rescan", "--address", &unix, root]);
    for wrong in [format!("{root}/below"), "/nowhere".to_owned()] {
        let ran = rescan(&wrong);
        assert_eq!(ran.code, Some(1), "{}", ran.err);
        assert!(
            ran.err
                .contains("is not a configured root; there are DIR/images "),
            "{}",
            ran.err
        );
    }
    assert_eq!(rescan(&root).code, Some(0));
}

/// Each has somebody who follows its scan.
#[test]
fn a_root_that_is_named_twice_is_followed_once() {
    let temporary = tempfile::tempdir().unwrap();
    crate::support::images(temporary.path(), &["a.sif"]);
    let agent = crate::support::Agent::start(temporary.path(), "", "");
    let root = format!("{}/images", temporary.path().display());
    let unix = agent.unix();
    let rescan = ["rescan", "--address", &unix, &root, &root];
    let ran = crate::tool::run(temporary.path(), &rescan);
    assert_eq!(ran.out.lines().count(), 1, "{}", ran.out);
}

#[test]
fn watch_ends_with_its_reader() {
    let temporary = tempfile::tempdir().unwrap();
    crate::support::images(temporary.path(), &["a.sif"]);
    let agent = crate::support::Agent::start(temporary.path(), "", "");
    let mut watch = sifter()
        .args(["watch", "--address", &agent.unix()])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    // As `head -1` does; nothing changes in the images any more.
    BufReader::new(watch.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    assert!(line.contains("a.sif"), "{line}");
    let end = Instant::now() + PATIENCE;
    let status = loop {
        if let Some(status) = watch.try_wait().unwrap() {
            break status;
        }
        if Instant::now() > end {
            let _ = watch.kill();
            panic!("still watching for nobody");
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    assert_eq!(status.code(), Some(0));
    // To a file there is no reader that could go.
    let file = temporary.path().join("out");
    let mut watch = sifter()
        .args(["watch", "--address", &agent.unix()])
        .stdout(std::fs::File::create(&file).unwrap())
        .spawn()
        .unwrap();
    crate::support::until("the image in the file", || {
        std::fs::read_to_string(&file).unwrap().contains("a.sif")
    });
    assert!(watch.try_wait().unwrap().is_none());
    let _ = watch.kill();
    let _ = watch.wait();
}

#[test]
fn who_watches_does_not_keep_the_agent_from_ending() {
    let temporary = tempfile::tempdir().unwrap();
    crate::support::images(temporary.path(), &["a.sif"]);
    let agent = crate::support::Agent::start(temporary.path(), "", "");
    let mut watch = sifter()
        .args(["watch", "--address", &agent.unix()])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    assert!(lines.next().unwrap().unwrap().contains("a.sif"));
    agent.signal(nix::sys::signal::Signal::SIGTERM);
    let output = watch.wait_with_output().unwrap();
    crate::support::until("the agent's end", || agent.log().contains("stopped"));
    // None took all of the time that calls are given to end by themselves.
    assert!(!agent.log().contains("did not end"), "{}", agent.log());
    assert!(agent.log().contains("Unavailable"), "{}", agent.log());
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(5), "{message}");
    assert!(
        message.contains("the agent is stopping: call again when it is back"),
        "{message}"
    );
}
