use super::keys::{KeyRing, Secret};
use super::nonce::MemoryNonces;
use super::sign::{Call, Credentials, Signed, sign};
use super::*;
use http::HeaderValue;
use std::borrow::Cow;
use std::thread;

mod tampering;

const NOW: &str = "2026-01-02T03:04:05Z";
const HOST: &str = "control.example:8443";

fn now() -> Timestamp {
    NOW.parse().unwrap()
}

fn key(id: &str) -> AccessKey {
    AccessKey {
        id: id.into(),
        secret: Some(Secret::new("testsecret".into())),
        account_id: "1".into(),
        root: false,
        active: true,
        security_token: None,
        expires: None,
        policies: Vec::new(),
    }
}

fn authenticator() -> Authenticator {
    let temporary = |id: &str, expires: &str| AccessKey {
        security_token: Some(Secret::new("good-token".into())),
        expires: Some(expires.parse().unwrap()),
        ..key(id)
    };
    let ring = KeyRing::new([
        key("testid"),
        key("other"),
        AccessKey {
            active: false,
            ..key("inactive")
        },
        AccessKey {
            secret: None,
            ..key("unreadable")
        },
        temporary("STS.good", "2027-01-01T00:00:00Z"),
        temporary("STS.now", NOW),
        temporary("STS.old", "2026-01-01T00:00:00Z"),
    ]);
    Authenticator::new(
        Arc::new(KeyStore::fixed(ring)),
        Arc::new(MemoryNonces::new(10_000)),
    )
}

#[derive(Clone)]
struct Attempt {
    generation: Generation,
    method: Method,
    key: &'static str,
    secret: &'static str,
    token: Option<&'static str>,
    time: Timestamp,
}

impl Attempt {
    fn new(generation: Generation, method: Method) -> Self {
        Self {
            generation,
            method,
            key: "testid",
            secret: "testsecret",
            token: None,
            time: now(),
        }
    }

    fn sign(&self) -> Signed {
        let credentials = Credentials {
            access_key_id: self.key.into(),
            secret: Secret::new(self.secret.into()),
            security_token: self.token.map(str::to_owned),
        };
        let call = Call {
            method: self.method.clone(),
            host: HOST,
            parameters: [
                ("ClusterId", "a b+c/d~e*f'(中)"),
                ("PageSize", "10"),
                ("Empty", ""),
            ]
            .map(|(n, v)| (n.to_owned(), v.to_owned()))
            .into(),
            now: self.time,
            nonce: "nonce-0123456789".into(),
        };
        sign(self.generation, &credentials, call).unwrap()
    }
}

fn present(server: &Authenticator, signed: &Signed) -> Result<Principal, ApiError> {
    present_if(server, signed, |_| Ok(()))
}

fn present_if(
    server: &Authenticator,
    signed: &Signed,
    admit: impl FnOnce(&str) -> Result<(), ApiError>,
) -> Result<Principal, ApiError> {
    let borrowed = |pairs: &'_ [(String, String)]| -> Vec<(Cow<'static, str>, Cow<'static, str>)> {
        let owned = pairs.iter().cloned();
        owned
            .map(|(name, value)| (name.into(), value.into()))
            .collect()
    };
    let parameters = RpcRequest {
        query: borrowed(&signed.query),
        form: borrowed(&signed.form),
    };
    server.authenticate(
        &SignedRequest {
            method: &signed.method,
            headers: &signed.headers,
            parameters: &parameters,
            body: &signed.body,
            source_ip: [192, 0, 2, 1].into(),
            secure_transport: false,
            now: now(),
        },
        admit,
    )
}

fn code(result: Result<Principal, ApiError>) -> &'static str {
    match result {
        Ok(_) => "OK",
        Err(error) => error.code(),
    }
}

const BOTH: [Generation; 2] = [Generation::V1, Generation::Acs3];
const METHODS: [Method; 2] = [Method::GET, Method::POST];

fn kinds() -> impl Iterator<Item = Attempt> {
    BOTH.into_iter()
        .flat_map(|g| METHODS.into_iter().map(move |m| Attempt::new(g, m)))
}

fn header(signed: &mut Signed, name: &'static str, value: &str) {
    signed
        .headers
        .insert(name, HeaderValue::from_str(value).unwrap());
}

fn append(signed: &mut Signed, name: &'static str, value: &str) {
    signed
        .headers
        .append(name, HeaderValue::from_str(value).unwrap());
}

fn authorization(signed: &mut Signed, change: impl Fn(&str) -> String) {
    let old = signed.headers["authorization"].to_str().unwrap().to_owned();
    header(signed, "authorization", &change(&old));
}

#[test]
fn keys_clocks_and_tokens() {
    type Change = fn(&mut Attempt);
    #[rustfmt::skip] // A table.
    let rows: [(&str, Change, &str); 20] = [
        ("right", |_| {}, "OK"),
        ("wrong secret", |a| a.secret = "wrong", "SignatureDoesNotMatch"),
        ("unknown key", |a| a.key = "nobody", "InvalidAccessKeyId.NotFound"),
        ("key of other case", |a| a.key = "TESTID", "InvalidAccessKeyId.NotFound"),
        ("disabled", |a| a.key = "inactive", "InvalidAccessKeyId.Inactive"),
        ("unreadable", |a| a.key = "unreadable", "AliyunError"),
        // That a key is disabled or temporary is told only to who has its secret.
        ("disabled, wrong secret", |a| (a.key, a.secret) = ("inactive", "x"), "SignatureDoesNotMatch"),
        ("temporary, wrong secret", |a| (a.key, a.secret) = ("STS.good", "x"), "SignatureDoesNotMatch"),
        ("14 minutes behind", |a| a.time -= jiff::SignedDuration::from_mins(14), "OK"),
        ("16 minutes behind", |a| a.time -= jiff::SignedDuration::from_mins(16), "InvalidTimeStamp.Expired"),
        ("16 minutes ahead", |a| a.time += jiff::SignedDuration::from_mins(16), "InvalidTimeStamp.Expired"),
        ("temporary", |a| (a.key, a.token) = ("STS.good", Some("good-token")), "OK"),
        ("temporary, no token", |a| a.key = "STS.good", "MissingSecurityToken"),
        ("temporary, other token", |a| (a.key, a.token) = ("STS.good", Some("bad-token")), "InvalidSecurityToken.MismatchWithAccessKey"),
        ("temporary, no token at all", |a| (a.key, a.token) = ("STS.good", Some("good token")), "InvalidSecurityToken.Malformed"),
        ("temporary, over", |a| (a.key, a.token) = ("STS.old", Some("good-token")), "InvalidSecurityToken.Expired"),
        ("temporary, over this very moment", |a| (a.key, a.token) = ("STS.now", Some("good-token")), "InvalidSecurityToken.Expired"),
        ("temporary, empty token", |a| (a.key, a.token) = ("STS.good", Some("")), "MissingSecurityToken"),
        ("permanent with an empty token", |a| a.token = Some(""), "OK"),
        ("permanent with a token", |a| a.token = Some("good-token"), "InvalidSecurityToken.MismatchWithAccessKey"),
    ];
    for (name, change, expected) in rows {
        for mut attempt in kinds() {
            change(&mut attempt);
            let result = present(&authenticator(), &attempt.sign());
            assert_eq!(
                code(result),
                expected,
                "{name} {:?} {}",
                attempt.generation,
                attempt.method
            );
        }
    }
}

#[test]
fn what_clients_send_unsigned_is_accepted() {
    // A type of body without a body, as one client sends by GET.
    let mut signed = Attempt::new(Generation::Acs3, Method::GET).sign();
    header(&mut signed, "content-type", "application/octet-stream");
    header(&mut signed, "accept-encoding", "gzip, deflate");
    header(&mut signed, "connection", "keep-alive");
    assert_eq!(code(present(&authenticator(), &signed)), "OK");
    // With a body its type decides how it is read, so it must be signed.
    let mut signed = Attempt::new(Generation::Acs3, Method::POST).sign();
    authorization(&mut signed, |a| a.replace("content-type;", ""));
    assert_eq!(
        code(present(&authenticator(), &signed)),
        "IncompleteSignature"
    );
    // The host as one client writes it when the endpoint was given with a scheme.
    let credentials = Credentials {
        access_key_id: "testid".into(),
        secret: Secret::new("testsecret".into()),
        security_token: None,
    };
    let call = Call {
        method: Method::GET,
        host: "http://127.0.0.1:18081/",
        parameters: Vec::new(),
        now: now(),
        nonce: "n".into(),
    };
    let signed = sign(Generation::Acs3, &credentials, call).unwrap();
    assert_eq!(code(present(&authenticator(), &signed)), "OK");
}

#[test]
fn the_message_repeats_what_was_signed() {
    let attempt = Attempt {
        secret: "wrong",
        ..Attempt::new(Generation::V1, Method::GET)
    };
    let signed = attempt.sign();
    let text = canonical::v1_string_to_sign("GET", signed.query.iter());
    let message = present(&authenticator(), &signed).unwrap_err().message();
    assert_eq!(message.split(':').nth(1), Some(text.as_str()));
    // But not for as long as somebody likes.
    let mut long = signed;
    long.query.push(("x".into(), "y".repeat(2 * MAX_ECHO)));
    let error = present(&authenticator(), &long).unwrap_err();
    let ApiError::SignatureDoesNotMatch { string_to_sign } = error else {
        panic!("{error}");
    };
    assert_eq!(string_to_sign.len(), MAX_ECHO);
}

#[test]
fn replays() {
    for attempt in kinds() {
        let server = authenticator();
        // A wrong signature does not burn the nonce of the right one.
        let forged = Attempt {
            secret: "wrong",
            ..attempt.clone()
        };
        assert_eq!(
            code(present(&server, &forged.sign())),
            "SignatureDoesNotMatch"
        );
        assert_eq!(code(present(&server, &attempt.sign())), "OK");
        assert_eq!(
            code(present(&server, &attempt.sign())),
            "SignatureNonceUsed"
        );
        // Signed anew a second later it is still the same nonce; another key may use it.
        let later = Attempt {
            time: now() + jiff::SignedDuration::from_secs(1),
            ..attempt.clone()
        };
        assert_eq!(code(present(&server, &later.sign())), "SignatureNonceUsed");
        let other = Attempt {
            key: "other",
            ..attempt
        };
        assert_eq!(code(present(&server, &other.sign())), "OK");
    }
}

#[test]
fn of_parallel_replays_one_wins() {
    for attempt in kinds() {
        let server = authenticator();
        let signed = attempt.sign();
        let wins: usize = thread::scope(|scope| {
            let workers: Vec<_> = (0..16)
                .map(|_| scope.spawn(|| usize::from(present(&server, &signed).is_ok())))
                .collect();
            workers.into_iter().map(|w| w.join().unwrap()).sum()
        });
        assert_eq!(wins, 1);
    }
}

#[test]
fn listing_does_not_tell_what_exists() {
    let policy = |region: &str| {
        let document = format!(
            r#"{{"Version":"1","Statement":[{{"Effect":"Allow","Action":"ehpc:List*",
                "Resource":"acs:ehpc:{region}:1:*"}}]}}"#
        );
        Some(Arc::new(policy::Policy::parse("p", &document).unwrap()))
    };
    let east = ["east"];
    let both = ["east", "west"];
    // Rights, the cluster's region if it is the account's, the account's regions, the answer.
    type Row<'a> = (
        Vec<Option<Arc<policy::Policy>>>,
        bool,
        Option<&'a str>,
        &'a [&'a str],
        &'a str,
    );
    #[rustfmt::skip] // A table.
    let rows: [Row<'_>; 15] = [
        (vec![], true, Some("east"), &both, "OK"),
        (vec![], true, None, &both, "OK"),
        (vec![], false, Some("east"), &both, "NotAuthorized"),
        (vec![], false, None, &both, "NotAuthorized"),
        (vec![policy("*")], false, Some("west"), &both, "OK"),
        (vec![policy("*")], false, None, &both, "OK"),
        (vec![policy("east")], false, Some("east"), &both, "OK"),
        // Shut out of the west: what is there and what is not look the same.
        (vec![policy("east")], false, Some("west"), &both, "NotAuthorized"),
        (vec![policy("east")], false, None, &both, "NotAuthorized"),
        (vec![policy("east")], false, None, &east, "OK"),
        // An account without clusters: still nothing for who has no right.
        (vec![policy("*")], false, None, &[], "OK"),
        (vec![policy("east")], false, None, &[], "NotAuthorized"),
        (vec![], false, None, &[], "NotAuthorized"),
        // A policy that cannot be read is never an Allow, beside whatever allows.
        (vec![policy("*"), None], false, Some("east"), &both, "AliyunError"),
        (vec![policy("*"), None], false, None, &both, "AliyunError"),
    ];
    for (policies, root, found, regions, expected) in rows {
        let ring = KeyRing::new([AccessKey {
            policies: policies.clone(),
            root,
            ..key("testid")
        }]);
        let server = Authenticator::new(
            Arc::new(KeyStore::fixed(ring)),
            Arc::new(MemoryNonces::new(10)),
        );
        let signed = Attempt::new(Generation::Acs3, Method::GET).sign();
        let principal = present(&server, &signed).unwrap();
        let context = policy::Context::new([192, 0, 2, 1].into(), false, now());
        let result = server.authorize_listing(&principal, found, regions.iter().copied(), &context);
        let result = result.map_or_else(|e| e.code(), |()| "OK");
        assert_eq!(result, expected, "{policies:?} {found:?} {regions:?}");
    }
}

#[test]
fn what_is_not_let_in_uses_no_nonce_and_what_is_repeated_is_not_counted() {
    let server = authenticator();
    let signed = Attempt::new(Generation::Acs3, Method::GET).sign();
    let throttled = ApiError::ThrottlingUser {
        retry_after: std::time::Duration::from_secs(1),
    };
    let refused = present_if(&server, &signed, |key| {
        assert_eq!(key, "testid");
        Err(throttled.clone())
    });
    assert_eq!(refused.unwrap_err(), throttled);
    assert_eq!(code(present(&server, &signed)), "OK");
    let again = present_if(&server, &signed, |_| panic!("counted"));
    assert_eq!(code(again), "SignatureNonceUsed");
    let mut wrong = Attempt::new(Generation::Acs3, Method::GET);
    wrong.secret = "wrong";
    let wrong = present_if(&server, &wrong.sign(), |_| panic!("counted"));
    assert_eq!(code(wrong), "SignatureDoesNotMatch");
}
