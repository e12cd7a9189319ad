//! Who sees what: three users, each of whom must be shown what `find -readable` finds for them.
//! Needs the superuser, to become others.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::fs::{XattrFlags, setxattr};
use sifter_proto::Duration;
use sifter_proto::reason;
use sifter_proto::v1::GetImageRequest;
use sifter_proto::v1::ListImagesRequest;
use sifter_proto::v1::StreamImagesRequest;
use sifter_proto::v1::WatchImagesRequest;
use sifter_proto::v1::image_service_client::ImageServiceClient;
use sifter_proto::v1::watch_images_response::Event;
use tonic::transport::Endpoint;
use tonic_types::StatusExt;

use super::support::{Agent, images, install, is_superuser, open_directory, skip};

/// Users and a group that no host has.
const ALICE: u32 = 61_001;
const BOB: u32 = 61_002;
const CAROL: u32 = 61_003;
const GROUP: u32 = 61_100;

fn set(directory: &Path, name: &str, uid: u32, gid: u32, mode: u32) {
    let path = directory.join("images").join(name);
    chown(&path, Some(uid), Some(gid)).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
}

/// `setfacl`, without needing it: tag, bits, ID.
fn set_acl(directory: &Path, name: &str, entries: &[(u16, u16, u32)]) {
    let mut value = 2u32.to_le_bytes().to_vec();
    for (tag, bits, id) in entries {
        value.extend([tag.to_le_bytes(), bits.to_le_bytes()].concat());
        value.extend(id.to_le_bytes());
    }
    let path = directory.join("images").join(name);
    setxattr(
        &path,
        "system.posix_acl_access",
        &value,
        XattrFlags::empty(),
    )
    .unwrap();
}

/// A command as another user, whose only group is `gid`.
fn as_user(uid: u32, gid: u32, program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command
        .args([format!("--reuid={uid}"), format!("--regid={gid}")])
        .arg("--clear-groups")
        .arg(program);
    command
}

fn lines(command: &mut Command) -> Vec<String> {
    let output = command.output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

#[test]
fn each_user_is_shown_what_find_finds() {
    if !is_superuser() {
        return skip(
            "each_user_is_shown_what_find_finds",
            "only the superuser can become other users",
        );
    }
    let temporary = open_directory();
    let directory = temporary.path();
    let names = [
        ("public.sif", ALICE, GROUP, 0o644),
        ("private.sif", ALICE, GROUP, 0o600),
        ("group.sif", ALICE, GROUP, 0o640),
        ("not-the-group.sif", ALICE, GROUP, 0o604),
        ("not-the-owner.sif", BOB, BOB, 0o044),
        ("nobody.sif", BOB, BOB, 0o000),
        ("closed/open.sif", ALICE, ALICE, 0o644),
        ("closed/deep/open.sif", CAROL, CAROL, 0o644),
        ("no-list/open.sif", ALICE, ALICE, 0o644),
        ("group-only/open.sif", ALICE, ALICE, 0o644),
        ("bob/own.sif", BOB, BOB, 0o400),
        ("bob/all.sif", BOB, BOB, 0o444),
        ("granted.sif", ALICE, ALICE, 0o600),
        ("denied.sif", ALICE, ALICE, 0o644),
        ("masked.sif", ALICE, ALICE, 0o600),
        ("listed/granted.sif", ALICE, ALICE, 0o644),
        ("group-granted.sif", ALICE, ALICE, 0o600),
        ("no-enter/open.sif", ALICE, ALICE, 0o644),
        ("no-enter/deep/open.sif", ALICE, ALICE, 0o644),
        ("set-gid/group.sif", ALICE, GROUP, 0o640),
    ];
    images(directory, &names.map(|(name, ..)| name));
    for (name, uid, gid, mode) in names {
        set(directory, name, uid, gid, mode);
    }
    for (name, uid, gid, mode) in [
        ("closed", ALICE, ALICE, 0o700),
        ("closed/deep", CAROL, CAROL, 0o755),
        ("no-list", ALICE, ALICE, 0o711),
        ("group-only", ALICE, GROUP, 0o750),
        ("bob", BOB, BOB, 0o755),
        ("listed", ALICE, ALICE, 0o700),
        ("no-enter", ALICE, ALICE, 0o744),
        ("no-enter/deep", ALICE, ALICE, 0o755),
        ("set-gid", ALICE, GROUP, 0o2750),
    ] {
        set(directory, name, uid, gid, mode);
    }
    let none = u32::MAX;
    // user::rw- user:X:… group::--- mask:… other:…
    let acl = |bits: u16, mask: u16, other: u16| {
        [
            (1, 6, none),
            (2, bits, CAROL),
            (4, 0, none),
            (16, mask, none),
            (32, other, none),
        ]
    };
    set_acl(directory, "granted.sif", &acl(4, 4, 0));
    set_acl(directory, "denied.sif", &acl(0, 4, 4));
    set_acl(directory, "masked.sif", &acl(4, 0, 0));
    set_acl(
        directory,
        "group-granted.sif",
        &[
            (1, 6, none),
            (4, 0, none),
            (8, 4, GROUP),
            (16, 4, none),
            (32, 0, none),
        ],
    );
    set_acl(
        directory,
        "listed",
        &[
            (1, 7, none),
            (2, 5, CAROL),
            (4, 0, none),
            (16, 5, none),
            (32, 0, none),
        ],
    );

    let agent = Agent::start(directory, ", '127.0.0.1:0'", "");
    // The binaries may lie where others have no access.
    let sifter = directory.join("sifter");
    install(env!("CARGO_BIN_EXE_sifter"), &sifter);
    let tests = directory.join("tests");
    install(std::env::current_exe().unwrap(), &tests);
    let root = directory.join("images");
    let list = |command: &mut Command, address: &str| {
        let json = lines(command.args(["ls", "--json", "--address", address]));
        let mut paths: Vec<String> = json
            .iter()
            .map(|line| {
                let image: serde_json::Value = serde_json::from_str(line).unwrap();
                image["path"].as_str().unwrap().to_owned()
            })
            .collect();
        paths.sort();
        paths
    };
    let all = list(&mut Command::new(&sifter), &agent.unix());
    assert_eq!(all.len(), names.len(), "the superuser sees all");

    let mut numbers = Vec::new();
    for (uid, gid) in [(ALICE, ALICE), (BOB, GROUP), (BOB, BOB), (CAROL, CAROL)] {
        let mut find = as_user(uid, gid, Path::new("find"));
        find.arg(&root)
            .args(["-type", "f", "-name", "*.sif", "-readable"]);
        let found = lines(&mut find);
        let listed = list(&mut as_user(uid, gid, &sifter), &agent.unix());
        assert_eq!(listed, found, "{uid}:{gid}");
        // Over loopback TCP the kernel says whose the connection is, but not with which group.
        if uid == gid {
            let over_tcp = list(&mut as_user(uid, gid, &sifter), &agent.addresses[1]);
            assert_eq!(over_tcp, found, "{uid} over TCP");
        }
        let mut status = as_user(uid, gid, &sifter);
        let text = lines(status.args(["status", "--json", "--address", &agent.unix()])).join("");
        let status: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(status["imageCount"], found.len().to_string(), "{status}");
        assert!(status["roots"][0].get("problems").is_none(), "{status}");
        // What only a client of the contract can ask.
        let mut inner = as_user(uid, gid, &tests);
        let passed = inner
            .args([
                "--exact",
                "access::as_another_user",
                "--ignored",
                "--nocapture",
            ])
            .env("SIFTER_TEST_SOCKET", directory.join("agent.sock"))
            .env("SIFTER_TEST_VISIBLE", found.join("\n"))
            .env("SIFTER_TEST_ALL", all.join("\n"))
            .output()
            .unwrap();
        assert!(
            passed.status.success(),
            "{}",
            String::from_utf8_lossy(&passed.stdout)
        );
        assert!(String::from_utf8_lossy(&passed.stdout).contains("1 passed"));
        numbers.push(found.len());
    }
    assert!(
        numbers
            .iter()
            .all(|number| (3..names.len()).contains(number)),
        "{numbers:?}"
    );
    assert!(!agent.log().contains("private.sif"));

    // A directory that is closed afterwards counts without a scan.
    set(directory, "bob", BOB, BOB, 0o700);
    super::support::until("the closed directory is hidden", || {
        list(&mut as_user(CAROL, CAROL, &sifter), &agent.unix())
            .iter()
            .all(|path| !path.contains("/bob/"))
    });
}

/// Runs as another user, from the test above.
#[test]
#[ignore = "run by each_user_is_shown_what_find_finds"]
fn as_another_user() {
    let variable = |name: &str| std::env::var(name).unwrap();
    let visible = variable("SIFTER_TEST_VISIBLE");
    let visible: Vec<&str> = visible.lines().collect();
    let all = variable("SIFTER_TEST_ALL");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let channel = Endpoint::from_shared(format!("unix://{}", variable("SIFTER_TEST_SOCKET")))
            .unwrap()
            .connect()
            .await
            .unwrap();
        let mut client = ImageServiceClient::new(channel);
        for path in all.lines() {
            let got = client
                .get_image(GetImageRequest {
                    path: path.to_owned(),
                    ..GetImageRequest::default()
                })
                .await;
            match got {
                Ok(image) => {
                    assert!(visible.contains(&path), "{path} is shown");
                    assert_eq!(image.into_inner().path, path);
                }
                Err(status) => {
                    assert!(!visible.contains(&path), "{path} is not shown: {status}");
                    assert_eq!(status.code(), tonic::Code::NotFound);
                }
            }
        }
        let (mut token, mut paths) = (String::new(), Vec::new());
        let generation = loop {
            let page = client
                .list_images(ListImagesRequest {
                    page_size: 2,
                    page_token: token,
                    order_by: "path".to_owned(),
                    max_lease: Some(Duration {
                        seconds: 60,
                        nanos: 0,
                    }),
                    ..ListImagesRequest::default()
                })
                .await
                .unwrap()
                .into_inner();
            assert_eq!(page.total_size, visible.len() as u64);
            assert!(page.restricted);
            assert_eq!(page.lease, None, "permissions change with no new listing");
            paths.extend(page.images.into_iter().map(|image| image.path));
            token = page.next_page_token;
            if token.is_empty() {
                break page.generation;
            }
        };
        assert_eq!(paths, visible);

        // A filter that names what is hidden finds no more of it than one that names nothing.
        for path in all.lines() {
            let page = client
                .list_images(ListImagesRequest {
                    filter: format!("path=\"{path}\""),
                    ..ListImagesRequest::default()
                })
                .await
                .unwrap()
                .into_inner();
            assert_eq!(page.total_size > 0, visible.contains(&path), "{path}");
        }

        let mut stream = client
            .stream_images(StreamImagesRequest {
                order_by: "path".to_owned(),
                ..StreamImagesRequest::default()
            })
            .await
            .unwrap()
            .into_inner();
        let mut paths = Vec::new();
        while let Some(message) = stream.message().await.unwrap() {
            assert_eq!(message.total_size, visible.len() as u64);
            paths.extend(message.images.into_iter().map(|image| image.path));
        }
        assert_eq!(paths, visible);

        // The history is of all images: nobody goes on in it who does not see them all.
        for resume_generation in [generation - 1, generation, generation + 1] {
            let resumed = client
                .watch_images(WatchImagesRequest {
                    resume_generation,
                    ..WatchImagesRequest::default()
                })
                .await;
            let refused = resumed.map(drop).unwrap_err();
            let info = refused.get_details_error_info().unwrap();
            assert_eq!(info.reason, reason::GENERATION_EXPIRED, "{refused}");
        }

        let mut watch = client
            .watch_images(WatchImagesRequest::default())
            .await
            .unwrap()
            .into_inner();
        let mut paths = Vec::new();
        loop {
            let message = watch.message().await.unwrap().unwrap();
            if message.event() == Event::SnapshotEnd {
                break;
            }
            paths.extend(message.images.into_iter().map(|image| image.path));
        }
        paths.sort();
        assert_eq!(paths, visible);
    });
}

/// Not even that it came, changed or went.
#[test]
fn a_user_who_watches_is_not_told_of_what_is_hidden() {
    if !is_superuser() {
        return skip(
            "a_user_who_watches_is_not_told_of_what_is_hidden",
            "only the superuser can become other users",
        );
    }
    let temporary = open_directory();
    let directory = temporary.path();
    let hidden = |name| {
        images(directory, &[name]);
        set(directory, name, BOB, BOB, 0o600);
    };
    images(directory, &["public.sif"]);
    hidden("hidden-gone.sif");
    hidden("hidden-changed.sif");
    let program = directory.join("sifter");
    install(env!("CARGO_BIN_EXE_sifter"), &program);
    let more = "[defaults]\nhints = false\nrescan_interval = '1h'";
    let agent = Agent::start(directory, "", more);
    let mut watch = as_user(ALICE, ALICE, &program)
        .args(["watch", "--json", "--address", &agent.unix()])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut told = BufReader::new(watch.stdout.take().unwrap()).lines();
    let mut told_until = |what: &str| {
        let mut told_now = String::new();
        while !told_now.contains(what) {
            told_now += &told.next().expect("the watch goes on").unwrap();
        }
        told_now
    };
    let mut all = told_until("EVENT_GENERATION");
    let root = directory.join("images");
    let change = |what: &dyn Fn()| {
        what();
        let mut rescan = Command::new(&program);
        let rescan = rescan.args(["rescan", "--full", "--address", &agent.unix()]);
        assert!(rescan.output().unwrap().status.success());
    };
    change(&|| {
        fs::remove_file(root.join("hidden-gone.sif")).unwrap();
        set(directory, "hidden-changed.sif", BOB, BOB, 0o400);
        hidden("hidden-new.sif");
    });
    change(&|| set(directory, "public.sif", ALICE, ALICE, 0o600));
    all += &told_until("EVENT_CHANGED");
    change(&|| fs::remove_file(root.join("public.sif")).unwrap());
    all += &told_until("EVENT_REMOVED");
    watch.kill().unwrap();
    watch.wait().unwrap();
    assert!(!all.contains("hidden"), "{all}");
    assert_eq!(
        all.matches("/public.sif").count(),
        3,
        "come, changed and gone: {all}"
    );
}

#[test]
fn users_have_no_more_scans_than_they_may() {
    if !is_superuser() {
        return skip(
            "users_have_no_more_scans_than_they_may",
            "only the superuser can become other users",
        );
    }
    let temporary = open_directory();
    let directory = temporary.path();
    images(directory, &["public.sif"]);
    let program = directory.join("sifter");
    install(env!("CARGO_BIN_EXE_sifter"), &program);
    let more = "[defaults]\nhints = false\nrescan_interval = '1h'";
    let agent = Agent::start(directory, "", more);
    let rescan = |uid, options: &[&str]| {
        let mut command = as_user(uid, uid, &program);
        command.args(["rescan", "--address", &agent.unix()]);
        assert!(command.args(options).status().unwrap().success());
    };
    // A scan is counted a little after those who wait for it are told.
    let scanned = |times| {
        let root = directory.join("images");
        let series = format!(
            "sifter_agent_scan_duration_seconds_count{{root=\"{}\"}}",
            root.display()
        );
        super::support::until(&format!("{times} scans"), || agent.metric(&series) >= times);
        assert_eq!(agent.metric(&series), times);
    };
    scanned(1.0);
    rescan(ALICE, &[]);
    scanned(2.0);
    // They wait for the same one; the superuser waits for nobody.
    for user in [ALICE, BOB] {
        rescan(user, &["--no-wait"]);
        rescan(0, &[]);
    }
    scanned(4.0);
}
