//! TLS: who is let in, who is not, and that those who are not harm nobody.

use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::Signal;
use sifter_proto::v1::image_service_client::ImageServiceClient;
use sifter_proto::v1::{ListImagesRequest, WatchImagesRequest};
use tonic::transport::Channel;

use super::support::{
    Agent, Authority, Identity, connect, images, is_superuser, leave_out, open_directory,
    path_to_unit_of_nobody, skip, until,
};

const NOW: (i32, i32) = (2020, 2120);

/// What a connection is asked for in each test.
pub(super) async fn list(channel: Channel) -> Result<u64, tonic::Status> {
    ImageServiceClient::new(channel)
        .list_images(ListImagesRequest::default())
        .await
        .map(|answer| answer.into_inner().total_size)
}

/// Connects and asks.
async fn ask(agent: &Agent, ca: &Authority, client: Option<&Identity>) -> Result<u64, String> {
    let channel = connect(agent.tls(), &ca.pem, client)
        .await
        .map_err(|error| error.to_string())?;
    list(channel).await.map_err(|status| status.to_string())
}

fn write_files(directory: &Path, server: &Identity, ca: &Authority) {
    for (name, text) in [
        ("agent.pem", &server.cert),
        ("agent.key", &server.key),
        ("ca.pem", &ca.pem),
    ] {
        // As tools that renew certificates do: whole, or not at all.
        fs::write(directory.join("new"), text).unwrap();
        fs::rename(directory.join("new"), directory.join(name)).unwrap();
    }
}

pub(super) fn section(directory: &Path, allow: &str) -> String {
    format!(
        "[tls]\ncert = '{0}/agent.pem'\nkey = '{0}/agent.key'\nclient_ca = '{0}/ca.pem'\nallow = [{allow}]",
        directory.display()
    )
}

fn start(directory: &Path, ca: &Authority) -> Agent {
    start_as(directory, &ca.sign("agent", NOW), ca)
}

fn start_as(directory: &Path, server: &Identity, ca: &Authority) -> Agent {
    images(directory, &["a.sif", "b.sif"]);
    write_files(directory, server, ca);
    Agent::start(
        directory,
        ", 'tls:127.0.0.1:0'",
        &section(directory, "'control'"),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn only_clients_with_a_good_certificate_and_a_name_on_the_list_are_let_in() {
    let directory = tempfile::tempdir().unwrap();
    let ca = Authority::new("site");
    let agent = start(directory.path(), &ca);
    let good = ca.sign("control", NOW);
    assert_eq!(ask(&agent, &ca, Some(&good)).await, Ok(2));
    let stranger = Authority::new("site");
    for (reason, client) in [
        ("unknown_issuer", Some(stranger.sign("control", NOW))),
        ("expired", Some(ca.sign("control", (2020, 2021)))),
        ("not_yet_valid", Some(ca.sign("control", (2110, 2120)))),
        ("not_allowed", Some(ca.sign("other", NOW))),
        ("no_certificate", None),
    ] {
        let refused = ask(&agent, &ca, client.as_ref()).await;
        assert!(refused.is_err(), "{reason}: {refused:?}");
        until(reason, || agent.refused(reason) >= 1.0);
        assert!(
            agent.log().contains(&format!("kind=\"{reason}\"")),
            "{}",
            agent.log()
        );
    }
    // The other way round: the client does not trust this agent.
    assert!(ask(&agent, &stranger, Some(&good)).await.is_err());
    until("refused by client", || {
        agent.refused("refused_by_client") >= 1.0
    });
    // Plain text, as of a client that was configured without TLS.
    let mut plain = TcpStream::connect(agent.tls()).unwrap();
    plain
        .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        .unwrap();
    until("plain text", || agent.refused("plain_text") >= 1.0);
    assert_eq!(ask(&agent, &ca, Some(&good)).await, Ok(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_and_slow_clients_keep_nobody_out() {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    if hard < 4096 {
        return skip(
            "idle_and_slow_clients_keep_nobody_out",
            "4096 descriptors may not be had (ulimit -Hn)",
        );
    }
    setrlimit(Resource::RLIMIT_NOFILE, hard.min(8192), hard).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let ca = Authority::new("site");
    let agent = start(directory.path(), &ca);
    let good = ca.sign("control", NOW);
    let before = connect(agent.tls(), &ca.pem, Some(&good)).await.unwrap();
    assert_eq!(list(before.clone()).await.unwrap(), 2);

    let mut idle = Vec::new();
    let mut unix = Vec::new();
    for number in 0..1000 {
        let mut stream = TcpStream::connect(agent.tls()).unwrap();
        if number % 2 == 0 {
            // The begin of a handshake that never goes on. The agent may have ended it already.
            let _ = stream.write_all(&[0x16, 0x03, 0x01, 0x02, 0x00, 0x01]);
        }
        idle.push(stream);
        unix.push(UnixStream::connect(directory.path().join("agent.sock")).unwrap());
    }
    until("evictions", || agent.refused("evicted") >= 1000.0);
    assert!(agent.metric("sifter_agent_connections") <= 300.0);
    let began = Instant::now();
    assert_eq!(list(before).await.unwrap(), 2, "whoever was there before");
    assert_eq!(
        ask(&agent, &ca, Some(&good)).await,
        Ok(2),
        "whoever comes now"
    );
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "{:?}",
        began.elapsed()
    );
    until("timeouts", || agent.refused("handshake_timeout") >= 1.0);
    until("silence", || agent.refused("silent") >= 1.0);
    until("no idle connection is held", || {
        agent.metric("sifter_agent_connections") <= 2.0
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_and_names_are_read_again_and_no_request_is_lost() {
    let directory = tempfile::tempdir().unwrap();
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let agent = start(directory.path(), &old);
    let control = old.sign("control", NOW);
    let channel = connect(agent.tls(), &old.pem, Some(&control))
        .await
        .unwrap();
    let mut watch = ImageServiceClient::new(channel.clone())
        .watch_images(WatchImagesRequest::default())
        .await
        .unwrap()
        .into_inner();
    assert!(watch.message().await.unwrap().is_some());

    // Files that do not fit together change nothing.
    fs::write(
        directory.path().join("agent.key"),
        &new.sign("agent", NOW).key,
    )
    .unwrap();
    agent.signal(Signal::SIGHUP);
    let reloads = |result: &str| {
        agent.metric(&format!(
            "sifter_agent_reloads_total{{what=\"configuration\",result=\"{result}\"}}"
        ))
    };
    until("a refused reload", || reloads("error") >= 1.0);
    assert_eq!(ask(&agent, &old, Some(&control)).await, Ok(2));

    write_files(directory.path(), &new.sign("agent", NOW), &new);
    agent.signal(Signal::SIGHUP);
    until("a reload", || reloads("ok") >= 1.0);
    assert_eq!(
        ask(&agent, &new, Some(&new.sign("control", NOW))).await,
        Ok(2)
    );
    assert!(
        ask(&agent, &new, Some(&control)).await.is_err(),
        "of the old authority"
    );
    // Whoever was let in goes on, and the stream that was open, too.
    assert_eq!(list(channel.clone()).await.unwrap(), 2);
    images(directory.path(), &["c.sif"]);
    let added = async {
        while let Some(message) = watch.message().await.unwrap() {
            if message
                .images
                .iter()
                .any(|image| image.path.ends_with("c.sif"))
            {
                return;
            }
        }
        panic!("the stream has ended");
    };
    tokio::time::timeout(Duration::from_secs(60), added)
        .await
        .unwrap();

    // A name that is taken off the list counts at once, on open connections, too.
    let config = directory.path().join("agent.toml");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text.replace("'control'", "'somebody'")).unwrap();
    agent.signal(Signal::SIGHUP);
    until("another reload", || reloads("ok") >= 2.0);
    let status = list(channel).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::Unauthenticated);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_certificate_and_authority_is_known_beforehand() {
    let directory = tempfile::tempdir().unwrap();
    let day = Duration::from_secs(86_400);
    let now = SystemTime::now();
    let ca = Authority::between("site", now - 30 * day, now + 5 * day);
    let agent = start_as(
        directory.path(),
        &ca.sign_between("agent", now - 30 * day, now + 9 * day),
        &ca,
    );
    let said = |what: &str, days: u32, setting: &str, file: &str| {
        format!(
            "the {what} expires in less than {days} days: renew it certificate=\"{setting}\" file=\"{}\" until=",
            directory.path().join(file).display()
        )
    };
    for said in [
        said("certificate", 9, "tls.cert", "agent.pem"),
        said("authority", 5, "tls.client_ca", "ca.pem"),
    ] {
        until("the log says so", || agent.log().contains(&said));
    }
    let seconds = |time: SystemTime| {
        let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap();
        since.as_secs_f64().floor()
    };
    let is = |what: &str, certificate: &str, time: SystemTime| {
        let name = format!(
            "sifter_agent_tls_certificate_{what}_timestamp_seconds{{certificate=\"{certificate}\"}}"
        );
        (agent.metric(&name) - seconds(time)).abs() <= 1.0
    };
    for (what, certificate, time) in [
        ("expiry", "tls.cert", now + 9 * day),
        ("renewal", "tls.cert", now + 9 * day - 39 * day / 4),
        ("expiry", "tls.client_ca", now + 5 * day),
        ("renewal", "tls.client_ca", now + 5 * day - 35 * day / 4),
    ] {
        assert!(is(what, certificate, time), "{what} {certificate}");
    }
    let checked = crate::tool::run(directory.path(), &["check-config", "-c", "agent.toml"]).out;
    for said in ["note: tls.cert ", "note: tls.client_ca "] {
        assert!(checked.contains(said), "{checked}");
    }

    let server = ca.sign_between("agent", now, now + 365 * day);
    // The new authority beside the old one.
    let mut both = Authority::between("site", now, now + 3650 * day);
    both.pem = format!("{}{}", ca.pem, both.pem);
    write_files(directory.path(), &server, &both);
    agent.signal(Signal::SIGHUP);
    until("the new files are in use", || {
        is("renewal", "tls.cert", now + 335 * day)
            && is("renewal", "tls.client_ca", now + 3620 * day)
    });
    let log = agent.log();
    assert_eq!(log.matches("renew it").count(), 2, "{log}");
}

/// As docs/security.md says: rustls does not ask an authority that it is told to trust for its end.
#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_an_authority_stops_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let day = Duration::from_secs(86_400);
    let now = SystemTime::now();
    let ca = Authority::between("site", now - 30 * day, now - day);
    let agent = start(directory.path(), &ca);
    let control = ca.sign("control", NOW);
    assert_eq!(ask(&agent, &ca, Some(&control)).await, Ok(2));
    let said = "the authority has expired: renew it certificate=\"tls.client_ca\"";
    until("the log says so", || agent.log().contains(said));
}

#[test]
fn certificates_are_checked_with_the_configuration() {
    let directory = tempfile::tempdir().unwrap();
    let ca = Authority::new("site");
    write_files(directory.path(), &ca.sign("agent", NOW), &ca);
    fs::write(
        directory.path().join("agent.toml"),
        format!(
            "listen = ['tls:127.0.0.1:0']\n[[root]]\npath = '/'\n{}",
            section(directory.path(), "'x'")
        ),
    )
    .unwrap();
    let run = |command| crate::tool::run(directory.path(), &[command, "-c", "agent.toml"]);
    let checked = run("check-config");
    assert_eq!(checked.code, Some(0), "{}", checked.err);
    for file in ["ca.pem", "agent.key", "agent.pem"] {
        fs::remove_file(directory.path().join(file)).unwrap();
        let checked = run("check-config");
        assert_eq!(checked.code, Some(2), "{}", checked.err);
        assert!(checked.err.contains(file), "{}", checked.err);
        // By its code the service manager knows that another start would not help.
        let started = run("agent");
        assert_eq!(started.code, Some(2), "{}", started.err);
        assert!(started.err.ends_with(&checked.err), "{}", started.err);
    }
}

#[test]
fn root_checks_the_units_configuration_as_its_user() {
    if !is_superuser() {
        leave_out("the check as the unit's user", "only root can become it");
        return;
    }
    let directory = open_directory();
    let at = |name: &str| directory.path().join(name);
    let set = |name: &str, owner, mode| {
        std::os::unix::fs::chown(at(name), Some(owner), None).unwrap();
        fs::set_permissions(at(name), fs::Permissions::from_mode(mode)).unwrap();
    };
    let ca = Authority::new("site");
    write_files(directory.path(), &ca.sign("agent", NOW), &ca);
    let config = at("agent.toml");
    let text = format!(
        "listen = ['tls:127.0.0.1:0']\n[[root]]\npath = '/'\n{}",
        section(directory.path(), "'x'")
    );
    fs::write(&config, text).unwrap();
    let path = path_to_unit_of_nobody(directory.path(), &config);
    let check = || {
        let mut command = crate::tool::sifter();
        command
            .args(["check-config", "--config"])
            .arg(&config)
            .env("PATH", &path);
        let output = command.output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(said).unwrap())
    };
    const STRANGER: u32 = 54_321;
    for (config_mode, owner, mode, code, expected) in [
        (
            0o644,
            0,
            0o600,
            2,
            "as the user nobody, who runs sifter-agent.service: configuration: tls.key ",
        ),
        (0o600, 0, 0o600, 2, "agent.toml: Permission denied"),
        (
            0o644,
            STRANGER,
            0o644,
            0,
            "is not safe: owner is user 54321; must be",
        ),
        (0o644, 65_534, 0o600, 0, "configuration is good"),
    ] {
        set("agent.toml", 0, config_mode);
        set("agent.key", owner, mode);
        let (found, said) = check();
        assert_eq!(found, Some(code), "{said}");
        assert!(said.contains(expected), "{expected}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_others_can_read_or_replace_are_told_of_and_used() {
    let directory = tempfile::tempdir().unwrap();
    let set = |name: &str, mode| {
        let path = directory.path().join(name);
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    let ca = Authority::new("site");
    set("", 0o700);
    let agent = start(directory.path(), &ca);
    let run = |command: &str| {
        let ran = crate::tool::run(directory.path(), &[command, "-c", "agent.toml"]);
        (
            ran.code,
            ran.out.replace(directory.path().to_str().unwrap(), "DIR"),
        )
    };
    for (key, ca, of_directory, expected) in [
        (0o600, 0o644, 0o755, None),
        (0o640, 0o644, 0o755, None),
        (0o644, 0o644, 0o750, None),
        (
            0o604,
            0o644,
            0o755,
            Some("tls.key DIR/agent.key is not safe: mode 0604 lets every user read it; chmod o="),
        ),
        (
            0o640,
            0o666,
            0o755,
            Some(
                "tls.client_ca DIR/ca.pem is not safe: mode 0666 lets others write it; chmod go-w",
            ),
        ),
        (
            0o640,
            0o644,
            0o777,
            Some(
                "tls.key DIR/agent.key is not safe: mode 0777 of DIR lets others replace it; chmod go-w the directory",
            ),
        ),
    ] {
        set("agent.key", key);
        set("ca.pem", ca);
        set("", of_directory);
        let (code, checked) = run("check-config");
        assert_eq!(code, Some(0), "{checked}");
        let examined = run("doctor").1;
        match expected {
            None => assert!(
                !checked.contains("not safe") && !examined.contains("not safe"),
                "{key:o} {ca:o} {of_directory:o}: {checked}{examined}"
            ),
            Some(expected) => {
                assert!(
                    checked.contains(&format!("\nnote: {expected}\n")),
                    "{checked}"
                );
                let warning = format!("\nwarning  tls: {expected}\n");
                assert!(examined.contains(&warning), "{examined}");
            }
        }
    }
    let said = "WARN tls.key is not safe: mode 0644 lets every user read it; chmod o= file=";
    assert!(!agent.log().contains(said), "{}", agent.log());
    set("", 0o755);
    set("agent.key", 0o644);
    agent.signal(Signal::SIGHUP);
    until("the log says so", || agent.log().contains(said));
    let control = ca.sign("control", NOW);
    assert_eq!(ask(&agent, &ca, Some(&control)).await, Ok(2));
}
