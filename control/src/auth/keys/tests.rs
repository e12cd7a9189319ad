use super::*;
use crate::auth::policy::{Context, Request, decide};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use nix::sys::stat::Mode;
use nix::sys::stat::umask;

/// One that only its owner may write, and files in it likewise: whoever runs tests may let a group write.
pub(super) fn directory() -> tempfile::TempDir {
    umask(Mode::S_IWGRP | Mode::S_IWOTH);
    tempfile::tempdir().unwrap()
}

struct Dir(tempfile::TempDir);

impl Dir {
    fn new() -> Self {
        Self(directory())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        chmod(&path, 0o600);
        path
    }

    fn load(&self, name: &str) -> Result<KeyRing, KeyError> {
        self.source(name).load()
    }

    fn source(&self, name: &str) -> KeySource {
        KeySource::with_credentials(self.path(name).to_str().unwrap(), None).unwrap()
    }
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

const ONE: &str = "[[key]]\naccess_key_id = \"one\"\nsecret = \"s3cr3t\"\naccount_id = \"1\"\n";

#[test]
fn every_field() {
    let dir = Dir::new();
    dir.write("alice.secret", "from-file\n");
    dir.write(
        "campus.json",
        r#"{"Version":"1","Statement":[
        {"Effect":"Allow","Action":"ehpc:*","Resource":"*"}]}"#,
    );
    dir.write(
        "keys.toml",
        r#"
        [[key]]
        access_key_id = "LTAI5tExample"
        secret_file = "alice.secret"
        account_id = "1234567890123456"
        user = "alice"
        policies = ["campus", "AliyunEHPCReadOnlyAccess"]

        [[key]]
        access_key_id = "STS.temp"
        secret = "inline"
        account_id = "1234567890123456"
        root = true
        status = "inactive"
        security_token = "token"
        expires = "2026-12-31T00:00:00Z"

        [policies.campus]
        file = "campus.json"
        "#,
    );
    let ring = dir.load("keys.toml").unwrap();
    let alice = ring.get("LTAI5tExample").unwrap();
    assert_eq!(alice.secret.as_ref().unwrap().expose(), "from-file");
    assert_eq!(alice.policies.len(), 2);
    assert!(alice.active && !alice.root);
    let temp = ring.get("STS.temp").unwrap();
    assert_eq!(temp.security_token.as_ref().unwrap().expose(), "token");
    assert!(temp.root && !temp.active && temp.expires.is_some());
    // Nothing that could be logged shows a secret.
    let shown = format!("{ring:?}");
    for secret in ["from-file", "inline", "token\""] {
        assert!(!shown.contains(secret), "{shown}");
    }
}

#[test]
fn built_in_policies_read_and_decide() {
    let dir = Dir::new();
    for (name, listing) in [
        ("AdministratorAccess", true),
        ("AliyunEHPCFullAccess", true),
        ("AliyunEHPCReadOnlyAccess", true),
    ] {
        dir.write("keys.toml", &format!("{ONE}policies = [\"{name}\"]\n"));
        let ring = dir.load("keys.toml").unwrap();
        let context = Context::new([10, 0, 0, 1].into(), false, Timestamp::UNIX_EPOCH);
        let request = |action| Request {
            action,
            resource: "acs:ehpc:r:1:*",
            context: &context,
        };
        let policies = || {
            ring.get("one")
                .unwrap()
                .policies
                .iter()
                .flatten()
                .map(|p| &**p)
        };
        let allowed = decide(policies(), &request("ehpc:ListContainerImages")).is_allowed();
        assert_eq!(allowed, listing, "{name}");
        let deletes = decide(policies(), &request("ehpc:DeleteImage")).is_allowed();
        assert_eq!(deletes, name != "AliyunEHPCReadOnlyAccess", "{name}");
    }
}

#[test]
fn refused_at_load_without_showing_secrets() {
    let dir = Dir::new();
    let policy = |document: &str| format!("{ONE}[policies.p]\ndocument = '{document}'\n");
    for text in [
        "secret = \"s3cr3t\"".to_owned(),
        "[[key]]\naccess_key_id = \"a\"\nsecret = s3cr3t\n".into(),
        "[[key]]\naccess_key_id = \"a\"\nsecret = [\"s3cr3t\"]\naccount_id = \"1\"".into(),
        "[[key]]\naccess_key_id = \"a\"\nsecret = \"s3cr3t\nx\"".into(),
        "[[key]]\naccess_key_id = \"a\"\naccount_id = \"1\"".into(),
        format!("{ONE}{ONE}"),
        format!("{ONE}secret_file = \"x\"\n"),
        format!("{ONE}unknown = 1\n"),
        format!("{ONE}status = \"s3cr3t\"\n"),
        format!("{ONE}root = true\npolicies = [\"AdministratorAccess\"]\n"),
        format!("{ONE}policies = [\"nobody\"]\n"),
        format!("{ONE}expires = \"2026-12-31T00:00:00Z\"\n"),
        format!("{ONE}security_token = \"\"\n"),
        format!("{ONE}security_token = \"t\"\nexpires = \"tomorrow\"\n"),
        format!("{ONE}security_token = \"t\"\nsecurity_token_file = \"keys.toml\"\n"),
        ONE.replace("\"one\"", "\"\""),
        ONE.replace("\"one\"", "\"a b\""),
        ONE.replace("\"1\"", "\"*\""),
        ONE.replace("\"1\"", "\"1:2\""),
        ONE.replace("s3cr3t", ""),
        ONE.replace("secret = \"s3cr3t\"", "secret_file = \"missing\""),
        ONE.replace("secret = \"s3cr3t\"", "secret_file = \"credential:x\""),
        policy("{}"),
        policy(r#"{"Version":"1","Statement":[{"Effect":"Allow"}]}"#),
        format!("{ONE}[policies.p]\n"),
        format!("{ONE}[policies.AdministratorAccess]\ndocument = '{{}}'\n"),
    ] {
        dir.write("keys.toml", &text);
        match dir.load("keys.toml") {
            Ok(_) => panic!("accepted {text}"),
            Err(error) => assert!(!error.to_string().contains("s3cr3t"), "{error}"),
        }
    }
    for (text, says) in [
        (
            ONE.replace("\"1\"", "12345"),
            "line 4, column 14: invalid type: integer, expected a text in quotes",
        ),
        (
            format!("{ONE}status = \"s3cr3t\"\n"),
            "line 5, column 10: unknown variant, expected `active` or `inactive`",
        ),
        (
            format!("{ONE}root = \"s3cr3t\"\n"),
            "line 5, column 8: invalid type: string, expected true or false",
        ),
    ] {
        dir.write("keys.toml", &text);
        let error = dir.load("keys.toml").unwrap_err().to_string();
        assert!(error.ends_with(says), "{error}");
    }
    dir.write("keys.toml", ONE);
    assert!(dir.load("keys.toml").is_ok());
    chmod(&dir.path("keys.toml"), 0o640);
    assert!(matches!(
        dir.load("keys.toml"),
        Err(KeyError::Unsafe {
            problem: sifter_tls::Unsafe::Readable(0o640),
            ..
        })
    ));
}

#[test]
fn directory_of_files_and_service_credentials() {
    let dir = Dir::new();
    fs::create_dir(dir.path("keys.d")).unwrap();
    dir.write("keys.d/10-a.toml", ONE);
    dir.write("keys.d/20-b.toml", &ONE.replace("one", "two"));
    dir.write("keys.d/.hidden.toml", "broken");
    dir.write("keys.d/README", "not keys");
    assert_eq!(dir.load("keys.d").unwrap().len(), 2);
    dir.write("keys.d/30-c.toml", ONE);
    assert!(dir.load("keys.d").is_err(), "the same key in two files");

    let by_credential = |text: &str| {
        KeySource::with_credentials(text, Some(dir.0.path().to_owned()))
            .and_then(|source| source.load())
    };
    dir.write(
        "keys",
        &ONE.replace("secret = \"s3cr3t\"", "secret_file = \"credential:s\""),
    );
    dir.write("s", "from credential");
    chmod(&dir.path("s"), 0o440);
    let ring = by_credential("credential:keys").unwrap();
    assert_eq!(
        ring.get("one").unwrap().secret.as_ref().unwrap().expose(),
        "from credential"
    );
    assert!(matches!(
        KeySource::with_credentials("credential:keys", None),
        Err(KeyError::NoCredentials { .. })
    ));
}

/// Two looks: the first notices a change, the second finds it at rest.
fn settle(store: &KeyStore) -> Option<bool> {
    assert_eq!(store.poll(), None, "acted upon a change at first sight");
    store.poll()
}

fn ring(store: &KeyStore) -> Option<Vec<String>> {
    match &*store.current() {
        Keys::Ready(ring) => {
            let mut ids: Vec<_> = ring.iter().map(|key| key.id.clone()).collect();
            ids.sort();
            Some(ids)
        }
        Keys::Unreadable => None,
    }
}

#[test]
fn changes_are_followed_and_a_broken_file_closes_the_door() {
    let dir = Dir::new();
    let path = dir.write("keys.toml", ONE);
    let store = KeyStore::open(dir.source("keys.toml")).unwrap();
    assert_eq!((store.poll(), store.poll()), (None, None));
    let two = format!("{ONE}{}", ONE.replace("one", "two"));
    type Step<'a> = (&'a str, Box<dyn Fn() + 'a>, Option<Vec<&'a str>>);
    let steps: [Step<'_>; 8] = [
        (
            "grown",
            Box::new(|| drop(dir.write("keys.toml", &two))),
            Some(vec!["one", "two"]),
        ),
        (
            "broken",
            Box::new(|| drop(dir.write("keys.toml", "[[key"))),
            None,
        ),
        (
            "mended",
            Box::new(|| drop(dir.write("keys.toml", ONE))),
            Some(vec!["one"]),
        ),
        ("opened to others", Box::new(|| chmod(&path, 0o644)), None),
        (
            "its directory opened, too",
            Box::new(|| {
                chmod(dir.0.path(), 0o777);
                dir.write("keys.toml", ONE);
            }),
            None,
        ),
        (
            "its directory closed",
            Box::new(|| chmod(dir.0.path(), 0o700)),
            Some(vec!["one"]),
        ),
        (
            "removed",
            Box::new(|| fs::remove_file(&path).unwrap()),
            None,
        ),
        (
            "back",
            Box::new(|| drop(dir.write("keys.toml", ONE))),
            Some(vec!["one"]),
        ),
    ];
    for (step, change, expected) in steps {
        change();
        assert_eq!(settle(&store), Some(expected.is_some()), "{step}");
        let expected = expected.map(|ids| ids.into_iter().map(str::to_owned).collect());
        assert_eq!(ring(&store), expected, "{step}");
    }
}

#[test]
fn what_became_unreadable_concerns_its_own_keys_only() {
    let dir = Dir::new();
    dir.write("s", "secret");
    dir.write("t", "token");
    let policy = dir.write(
        "p.json",
        r#"{"Version":"1","Statement":[
        {"Effect":"Allow","Action":"*","Resource":"*"}]}"#,
    );
    let keys = [
        ONE.replace("one", "plain"),
        ONE.replace("one", "by-file")
            .replace("secret = \"s3cr3t\"", "secret_file = \"s\""),
        ONE.replace("one", "by-policy") + "policies = [\"p\"]\n",
        ONE.replace("one", "temporary") + "security_token_file = \"t\"\n",
        "[policies.p]\nfile = \"p.json\"\n".into(),
    ]
    .concat();
    dir.write("keys.toml", &keys);
    let store = KeyStore::open(dir.source("keys.toml")).unwrap();
    fs::remove_file(dir.path("s")).unwrap();
    fs::remove_file(dir.path("t")).unwrap();
    fs::write(policy, "{").unwrap();
    assert_eq!(settle(&store), Some(false));
    let keys = store.current();
    let Keys::Ready(ring) = &*keys else { panic!() };
    assert_eq!(ring.problems().len(), 3, "{:?}", ring.problems());
    assert!(ring.get("plain").unwrap().secret.is_some());
    assert!(ring.get("by-file").unwrap().secret.is_none());
    assert!(ring.get("by-policy").unwrap().policies[0].is_none());
    // A temporary key without its token does not become a permanent one.
    assert!(ring.get("temporary").unwrap().secret.is_none());
    // And all comes back by itself.
    dir.write("s", "secret");
    assert!(settle(&store).is_some());
    let keys = store.current();
    let Keys::Ready(ring) = &*keys else { panic!() };
    assert!(ring.get("by-file").unwrap().secret.is_some());
}

#[test]
fn the_shipped_example_is_good_and_means_what_it_says() {
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/examples/sifter-control");
    let dir = Dir::new();
    for name in ["keys.toml", "campus.json"] {
        dir.write(name, &fs::read_to_string(shipped.join(name)).unwrap());
    }
    // It brings no secrets: a key of an example would be everybody's.
    assert!(matches!(
        dir.load("keys.toml"),
        Err(KeyError::Invalid { .. })
    ));
    for name in [
        "alice.secret",
        "owner.secret",
        "workshop.secret",
        "workshop.token",
        "lost.secret",
    ] {
        dir.write(name, &format!("{name} made by the site\n"));
    }
    let ring = dir
        .load("keys.toml")
        .unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(ring.len(), 4);
    let key = |id: &str| &**ring.get(id).unwrap();
    assert!(key("LTAI-owner").root);
    assert!(!key("LTAI-lost").active);
    assert!(key("STS.workshop").security_token.is_some());

    let may = |id: &str, region: &str, source: &str, tls: bool| {
        let context = Context::new(source.parse().unwrap(), tls, Timestamp::UNIX_EPOCH);
        let resource = crate::auth::listing_resource(region, "1000000000000001");
        crate::auth::explain(key(id), crate::auth::LIST_ACTION, &resource, &context)
            .unwrap()
            .is_allowed()
    };
    for (id, region, source, tls, expected) in [
        ("LTAI-alice", "local", "10.1.2.3", true, true),
        ("LTAI-alice", "local", "127.0.0.1", false, true),
        ("LTAI-alice", "local", "10.1.2.3", false, false),
        ("LTAI-alice", "local", "192.0.2.1", true, false),
        ("LTAI-alice", "elsewhere", "10.1.2.3", true, false),
        ("LTAI-owner", "elsewhere", "192.0.2.1", false, true),
        ("STS.workshop", "elsewhere", "192.0.2.1", true, true),
        ("LTAI-lost", "local", "10.1.2.3", true, false),
    ] {
        assert_eq!(
            may(id, region, source, tls),
            expected,
            "{id} {region} {source} {tls}"
        );
    }
}
