//! SIGHUP: roots, addresses and metrics change while the agent runs, and nobody loses a call.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use nix::sys::signal::Signal;
use sifter_proto::reason;
use sifter_proto::v1::Confinement;
use sifter_proto::v1::GetStatusRequest;
use sifter_proto::v1::GetStatusResponse;
use sifter_proto::v1::ListImagesRequest;
use sifter_proto::v1::ScanRequest;
use sifter_proto::v1::WatchImagesRequest;
use sifter_proto::v1::agent_service_client::AgentServiceClient;
use sifter_proto::v1::image_service_client::ImageServiceClient;
use sifter_proto::v1::watch_images_response::Event;
use sifter_tests::agent::addresses;
use sifter_tests::agent::runtime;
use sifter_tests::http;
use sifter_tests::images;
use sifter_tests::process::Process;
use sifter_tests::process::binary;
use sifter_tests::wait;
use tempfile::TempDir;
use tonic::Code;
use tonic::transport::Channel;
use tonic::transport::Endpoint;
use tonic_types::StatusExt;

fn connect(address: &str) -> (tokio::runtime::Runtime, Channel) {
    let runtime = runtime();
    let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
    let channel = runtime
        .block_on(async move { endpoint.connect().await })
        .unwrap();
    (runtime, channel)
}

/// An agent whose configuration is changed.
struct Reloaded {
    process: Process,
    dir: TempDir,
    tcp: String,
}

/// A root of one image, named for its tag.
fn root(dir: &Path, name: &str) {
    let path = dir.join("roots").join(name);
    fs::create_dir_all(&path).unwrap();
    let from = images::dir().join("pulled/ubuntu_22.04.sif");
    fs::copy(from, path.join(format!("{name}.sif"))).unwrap();
}

fn section(dir: &Path, name: &str) -> String {
    format!("[[root]]\npath = '{}/roots/{name}'\n", dir.display())
}

impl Reloaded {
    /// Over the roots a and b.
    fn start(head: &str) -> Self {
        let dir = TempDir::new().unwrap();
        for name in ["a", "b", "c"] {
            root(dir.path(), name);
        }
        let config = dir.path().join("agent.toml");
        fs::write(&config, Self::text(dir.path(), head, &["a", "b"])).unwrap();
        let log = dir.path().join("agent.log");
        let mut command = Command::new(binary("sifter"));
        command.arg("agent").arg("--config").arg(&config);
        // Where SQLite may write: a confined agent, too.
        command.env_remove("TMPDIR").env_remove("SQLITE_TMPDIR");
        let process = Process::start(&mut command, &log);
        let tcp = wait::until("an address", || {
            let addresses = addresses(&process);
            let tcp = addresses
                .into_iter()
                .find(|address| address.starts_with("127."));
            tcp.ok_or("not said yet")
        });
        let mut agent = Self { process, dir, tcp };
        wait::until("a ready agent", || {
            agent.process.expect_running();
            agent.status().ready.then_some(()).ok_or("not yet")
        });
        agent
    }

    fn text(dir: &Path, head: &str, roots: &[&str]) -> String {
        let listen = if head.contains("listen") {
            String::new()
        } else {
            "listen = ['127.0.0.1:0']\n".to_owned()
        };
        let mut text = format!(
            "{head}\n{listen}state_directory = '{}/state'\n",
            dir.display()
        );
        for name in roots {
            text += &section(dir, name);
        }
        text
    }

    /// Takes another configuration, and waits until the log says what came of it.
    fn reload(&self, head: &str, roots: &[&str]) -> String {
        self.reload_text(&Self::text(self.dir.path(), head, roots))
    }

    fn reload_text(&self, text: &str) -> String {
        let before = self.process.output().len();
        fs::write(self.dir.path().join("agent.toml"), text).unwrap();
        self.process.signal(Signal::SIGHUP);
        wait::until("the reload", || {
            let said = self.process.output()[before..].to_owned();
            let is_over = said.contains("configuration in use") || said.contains("not taken");
            if is_over { Ok(said) } else { Err(said) }
        })
    }

    fn status(&self) -> GetStatusResponse {
        let (runtime, channel) = connect(&self.tcp);
        let answer =
            runtime.block_on(AgentServiceClient::new(channel).get_status(GetStatusRequest {}));
        answer.unwrap().into_inner()
    }

    fn listed(&self) -> Vec<String> {
        let (runtime, channel) = connect(&self.tcp);
        let answer = runtime
            .block_on(ImageServiceClient::new(channel).list_images(ListImagesRequest::default()));
        let mut names: Vec<String> = answer
            .unwrap()
            .into_inner()
            .images
            .into_iter()
            .map(|image| image.path.rsplit('/').next().unwrap().to_owned())
            .collect();
        names.sort();
        names
    }

    fn wait_for(&self, expected: &[&str]) {
        wait::until("the listing", || {
            let listed = self.listed();
            if listed == expected {
                Ok(())
            } else {
                Err(listed)
            }
        });
    }
}

#[test]
fn roots_come_and_go_and_no_call_is_lost() {
    // Where the agent is confined to its roots, new ones need a restart.
    let agent = Reloaded::start("landlock = false");
    agent.wait_for(&["a.sif", "b.sif"]);

    // Somebody who asks all the time, and never gets less than what stays.
    let (over, asked) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicUsize::new(0)),
    );
    let asking = std::thread::spawn({
        let (over, asked, address) = (Arc::clone(&over), Arc::clone(&asked), agent.tcp.clone());
        move || {
            let (runtime, channel) = connect(&address);
            let mut client = ImageServiceClient::new(channel);
            runtime.block_on(async move {
                while !over.load(Ordering::Relaxed) {
                    let page = client.list_images(ListImagesRequest::default()).await;
                    let page = page.expect("an answer").into_inner();
                    assert!(
                        page.images
                            .iter()
                            .any(|image| image.path.ends_with("/b.sif"))
                    );
                    asked.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    wait::until_true("questions", || asked.load(Ordering::Relaxed) > 10);

    let said = agent.reload("landlock = false", &["b", "c"]);
    assert!(said.contains("roots in use"), "{said}");
    agent.wait_for(&["b.sif", "c.sif"]);
    let paths: Vec<String> = agent
        .status()
        .roots
        .into_iter()
        .map(|root| root.path)
        .collect();
    assert_eq!(paths.len(), 2, "{paths:?}");
    assert!(
        paths[0].ends_with("/b") && paths[1].ends_with("/c"),
        "{paths:?}"
    );

    // A configuration with a mistake changes nothing.
    let said = agent.reload(
        "landlock = false\n[defaults]\nexclude = ['b.sif']\n[x]",
        &["b", "c"],
    );
    assert!(said.contains("not taken"), "{said}");
    let at = asked.load(Ordering::Relaxed);
    wait::until_true("more questions", || asked.load(Ordering::Relaxed) > at + 10);
    over.store(true, Ordering::Relaxed);
    asking.join().expect("every question was answered");

    let text =
        Reloaded::text(agent.dir.path(), "landlock = false", &["b", "c"]) + "exclude = ['c.sif']\n";
    fs::write(agent.dir.path().join("agent.toml"), text).unwrap();
    agent.process.signal(Signal::SIGHUP);
    agent.wait_for(&["b.sif"]);
}

#[test]
fn a_listing_that_was_begun_can_be_read_to_its_end_and_a_watch_is_told() {
    let agent = Reloaded::start("landlock = false");
    agent.wait_for(&["a.sif", "b.sif"]);
    let (runtime, channel) = connect(&agent.tcp);
    let (mut client, token, mut watch) = runtime.block_on(async {
        let mut client = ImageServiceClient::new(channel);
        let request = ListImagesRequest {
            page_size: 1,
            ..ListImagesRequest::default()
        };
        let page = client.list_images(request).await.unwrap().into_inner();
        let mut watch = client
            .watch_images(WatchImagesRequest::default())
            .await
            .unwrap()
            .into_inner();
        while watch.message().await.unwrap().unwrap().event() != Event::Generation {}
        (client, page.next_page_token, watch)
    });
    agent.reload("landlock = false", &["b", "c"]);
    runtime.block_on(async {
        let request = ListImagesRequest {
            page_size: 1,
            page_token: token,
            ..ListImagesRequest::default()
        };
        let page = client.list_images(request).await.unwrap().into_inner();
        assert_eq!((page.images.len(), page.total_size), (1, 2));
        let ended = loop {
            match watch.message().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("a watch ends with an error only"),
                Err(status) => break status,
            }
        };
        assert_eq!(ended.code(), Code::Aborted);
        let info = ended.get_details_error_info().expect("ErrorInfo");
        assert_eq!(info.reason, reason::GENERATION_EXPIRED);
    });
}

/// Somebody waits for a scan that the reload ends: it is asked for again.
#[test]
fn a_scan_that_is_waited_for_is_done_after_a_reload() {
    let agent = Reloaded::start("landlock = false");
    agent.wait_for(&["a.sif", "b.sif"]);
    // So slow that no scan of all this ends before the next reload.
    for number in 0..200 {
        fs::create_dir(agent.dir.path().join(format!("roots/b/{number}"))).unwrap();
    }
    let text = Reloaded::text(agent.dir.path(), "landlock = false", &["b"]);
    let said = agent.reload_text(&(text + "operations_per_second = 0.05\n"));
    assert!(said.contains("roots in use"), "{said}");
    let root = agent.dir.path().join("roots/b").display().to_string();
    let (runtime, channel) = connect(&agent.tcp);
    let request = ScanRequest {
        roots: vec![root],
        wait: true,
        full: false,
    };
    let mut client = AgentServiceClient::new(channel);
    let mut scan = runtime.block_on(client.scan(request)).unwrap().into_inner();
    let first = runtime.block_on(scan.message()).unwrap().unwrap();
    assert!(first.progress.is_some(), "{first:?}");
    agent.reload("landlock = false", &["b"]);
    let last = runtime.block_on(async {
        let mut last = None;
        while let Some(message) = scan.message().await.unwrap() {
            last = Some(message);
        }
        last.expect("an end")
    });
    let result = last.result.expect("a result");
    assert_eq!(result.counts.unwrap().directories, 201, "{result:?}");
}

#[test]
fn roots_of_a_catalogue_in_memory_need_a_restart() {
    let dir = TempDir::new().unwrap();
    root(dir.path(), "a");
    root(dir.path(), "b");
    let config = dir.path().join("agent.toml");
    let text =
        "landlock = false\nlisten = ['127.0.0.1:0']\n".to_owned() + &section(dir.path(), "a");
    fs::write(&config, &text).unwrap();
    let mut command = Command::new(binary("sifter"));
    command.arg("agent").arg("--config").arg(&config);
    let process = Process::start(&mut command, &dir.path().join("agent.log"));
    wait::until_true("an address", || !addresses(&process).is_empty());
    fs::write(&config, text + &section(dir.path(), "b")).unwrap();
    process.signal(Signal::SIGHUP);
    wait::until_true("the reload", || {
        process.output().contains("configuration in use")
    });
    let said = process.output();
    assert!(
        said.contains("roots changed, and are not taken") && said.contains("in memory"),
        "{said}"
    );
}

#[test]
fn sifter_watch_goes_on_over_a_reload() {
    let agent = Reloaded::start("landlock = false");
    agent.wait_for(&["a.sif", "b.sif"]);
    let mut command = Command::new(binary("sifter"));
    command.args(["watch", "--address", &agent.tcp]);
    let mut watch = Process::start(&mut command, &agent.dir.path().join("watch.log"));
    wait::until_true("the first images", || watch.output().contains("/b.sif"));
    agent.reload("landlock = false", &["b", "c"]);
    wait::until_true("the new root's image", || watch.output().contains("/c.sif"));
    watch.expect_running();
    assert!(
        watch.output().contains("beginning again"),
        "{}",
        watch.output()
    );

    // Also where no root stays, and the new one takes a while: minutes, until it is told to hurry.
    let text = Reloaded::text(agent.dir.path(), "landlock = false", &["d"]);
    root(agent.dir.path(), "d");
    for number in 0..200 {
        let directory = format!("roots/d/{number}");
        fs::create_dir(agent.dir.path().join(directory)).unwrap();
    }
    agent.reload_text(&format!("{text}operations_per_second = 1\n"));
    wait::until_true("another beginning", || {
        watch.output().matches("beginning again").count() == 2
    });
    assert!(!agent.status().ready);
    agent.reload_text(&text);
    wait::until_true("the last root's image", || {
        watch.expect_running();
        watch.output().contains("/d.sif")
    });
}

#[test]
fn a_root_that_landlock_keeps_out_is_named_and_the_others_are_taken() {
    let agent = Reloaded::start("");
    let status = agent.status();
    if status.confinement() == Confinement::Off {
        return sifter_tests::leave_out("Landlock", &status.confinement_message);
    }
    assert_eq!(
        status.confinement(),
        Confinement::Full,
        "{}",
        status.confinement_message
    );
    let said = agent.reload("", &["b", "c"]);
    assert!(
        said.contains("/roots/c") && said.contains("only at a restart: Landlock"),
        "{said}"
    );
    agent.wait_for(&["b.sif"]);
    // Root may read and write everywhere; this process may not.
    let elsewhere = agent.dir.path().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    let inside = agent.dir.path().join("state/agent.sock");
    for (path, may) in [(elsewhere.join("agent.sock"), false), (inside, true)] {
        let head = format!("listen = ['127.0.0.1:0', 'unix:{}']", path.display());
        let said = agent.reload(&head, &["b"]);
        let refused = said.contains("Permission denied") && said.contains("Landlock");
        assert_eq!(!refused, may, "{said}");
        assert_eq!(path.exists(), may);
    }
    let printed = Command::new(binary("sifter"))
        .args(["status", "--address", &agent.tcp])
        .output()
        .unwrap();
    let printed = String::from_utf8_lossy(&printed.stdout).into_owned();
    assert!(printed.contains("confined   yes, by Landlock"), "{printed}");
}

#[test]
fn addresses_and_the_metrics_move() {
    // Sockets in other directories need a restart where the agent is confined.
    let agent = Reloaded::start("landlock = false");
    let free = || {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap()
    };
    let dir = agent.dir.path().display().to_string();
    // A connection through the old address stays.
    let channel = connect(&agent.tcp);
    let (moved, metrics) = (free(), free());
    let head = format!(
        "landlock = false\nlisten = ['{moved}', 'unix:{dir}/s']\nsocket_mode = '0600'\nmetrics = '{metrics}'"
    );
    let said = agent.reload(&head, &["a", "b"]);
    assert!(said.contains("does not listen there any more"), "{said}");
    assert!(
        ask(&channel.0, channel.1.clone()),
        "the old connection is served"
    );
    wait::until_true("the old address to close", || {
        std::net::TcpStream::connect(&agent.tcp).is_err()
    });
    let (runtime, channel) = connect(&moved.to_string());
    assert!(ask(&runtime, channel));
    let mode = fs::metadata(agent.dir.path().join("s"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(http::get(metrics, "/metrics").unwrap().status, 200);

    // The metrics elsewhere; the socket with another mode.
    let elsewhere = free();
    let head = format!(
        "landlock = false\nlisten = ['{moved}', 'unix:{dir}/s']\nsocket_mode = '0660'\nmetrics = '{elsewhere}'"
    );
    agent.reload(&head, &["a", "b"]);
    assert_eq!(http::get(elsewhere, "/metrics").unwrap().status, 200);
    wait::until_true("the old metrics to close", || {
        std::net::TcpStream::connect(metrics).is_err()
    });
    let mode = fs::metadata(agent.dir.path().join("s"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o660);

    // An address that is taken: nothing of it changes.
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let head = format!(
        "landlock = false\nlisten = ['{}']\nmetrics = '{metrics}'",
        taken.local_addr().unwrap()
    );
    let said = agent.reload(&head, &["a"]);
    assert!(
        said.contains("not taken") && said.contains("listen on"),
        "{said}"
    );
    let (runtime, channel) = connect(&moved.to_string());
    assert!(ask(&runtime, channel));
    assert_eq!(http::get(elsewhere, "/metrics").unwrap().status, 200);

    // At a socket, which is gone with them.
    let socket = agent.dir.path().join("m");
    let head = format!("landlock = false\nlisten = ['{moved}']\nmetrics = 'unix:{dir}/m'");
    agent.reload(&head, &["a", "b"]);
    assert!(socket.exists());

    // Without, they are nowhere, and the sockets are gone.
    agent.reload(
        &format!("landlock = false\nlisten = ['{moved}']"),
        &["a", "b"],
    );
    wait::until_true("the metrics to close", || {
        std::net::TcpStream::connect(elsewhere).is_err()
    });
    assert!(!socket.exists());
    wait::until_true("the socket to go", || !agent.dir.path().join("s").exists());
}

fn ask(runtime: &tokio::runtime::Runtime, channel: Channel) -> bool {
    let mut client = AgentServiceClient::new(channel);
    runtime
        .block_on(client.get_status(GetStatusRequest {}))
        .is_ok()
}
