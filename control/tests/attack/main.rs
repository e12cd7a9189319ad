//! Random requests against the real server: every answer is JSON with a documented code, and
//! nothing that was changed on the way is believed.
//!
//! The requests are those of the clients (both generations, GET and POST), damaged at random from
//! a fixed seed. `SIFTER_ATTACK_REQUESTS` sets how many; a failure prints the request.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fs;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Read;
use std::io::Write;
use std::net::SocketAddr;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use http::Method;
use jiff::Timestamp;
use sifter_control::auth::Generation;
use sifter_control::auth::keys::Secret;
use sifter_control::auth::sign::Call;
use sifter_control::auth::sign::Credentials;
use sifter_control::auth::sign::sign;
use sifter_control::config::Settings;
use sifter_control::server;

const KEYS: &str = r#"
[[key]]
access_key_id = "LTAI5tAttackedAccessKeyIdOfATest"
secret = "s"
account_id = "1"
root = true
"#;

/// The cluster has no login node, so a request that is believed answers this.
const BELIEVED: &str = "LoginNotFound";

const CONFIG: &str = r#"
[auth]
keys = "keys.toml"
[server]
listen = ["127.0.0.1:0"]
[limits]
key_requests_per_second = 0
[[clusters]]
id = "c"
account = "1"
login_nodes = []
"#;

/// xorshift64*: enough for choosing, and the same everywhere.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % sides
    }

    fn pick<'a, T: ?Sized>(&mut self, from: &[&'a T]) -> &'a T {
        from[self.roll(from.len())]
    }
}

/// A request as lines of text, so that anything can be done to it.
#[derive(Clone)]
struct Raw {
    method: String,
    target: String,
    headers: Vec<(String, Vec<u8>)>,
    body: Vec<u8>,
}

impl Raw {
    fn signed(dice: &mut Dice, number: usize) -> Self {
        let generation = [Generation::V1, Generation::Acs3][dice.roll(2)];
        let method = [Method::GET, Method::POST][dice.roll(2)].clone();
        let credentials = Credentials {
            access_key_id: "LTAI5tAttackedAccessKeyIdOfATest".into(),
            secret: Secret::new("s".into()),
            security_token: None,
        };
        let call = Call {
            method,
            host: "h:1",
            parameters: [
                ("ClusterId", "c"),
                ("ContainerType", "singularity"),
                ("PageSize", "10"),
            ]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into(),
            now: Timestamp::now(),
            nonce: format!("nonce-{number}"),
        };
        let signed = sign(generation, &credentials, call).unwrap();
        Self {
            method: signed.method.to_string(),
            target: signed.target(),
            headers: signed
                .headers
                .iter()
                .map(|(name, value)| (name.to_string(), value.as_bytes().to_vec()))
                .collect(),
            body: signed.body,
        }
    }

    /// A place in the target between two characters, after the slash.
    fn boundary(&self, dice: &mut Dice) -> usize {
        let mut at = 1 + dice.roll(self.target.len());
        while !self.target.is_char_boundary(at) {
            at -= 1;
        }
        at
    }

    /// Changes something that is signed, or that says what is asked.
    fn damage(&mut self, dice: &mut Dice) {
        const BITS: [&str; 14] = [
            "&",
            "=",
            "%",
            "+",
            "%00",
            "%ff",
            "%2B",
            ";",
            "&ClusterId=c",
            "&Signature=x",
            "&Action=X",
            "A",
            "\u{4e2d}",
            "&Format=XML",
        ];
        match dice.roll(12) {
            0 | 1 => {
                let at = self.boundary(dice);
                self.target.insert_str(at, dice.pick(&BITS));
            }
            2 => {
                let at = self.boundary(dice);
                self.target.truncate(at);
            }
            3 => {
                let at = dice.roll(self.headers.len());
                self.headers.remove(at);
            }
            4 => {
                let at = dice.roll(self.headers.len());
                let again = self.headers[at].clone();
                self.headers.push(again);
            }
            5 => {
                let at = dice.roll(self.headers.len());
                let value = &mut self.headers[at].1;
                let to = dice.roll(value.len() + 1);
                value.insert(to, b"xX0;,=\xff "[dice.roll(8)]);
            }
            6 => {
                let at = dice.roll(self.headers.len());
                self.headers[at].1.clear();
            }
            7 => {
                let at = dice.roll(self.body.len() + 1);
                self.body.insert(at, b"&=%+x\xff"[dice.roll(6)]);
            }
            8 => self.body.clear(),
            9 => {
                let other = ["PUT", "DELETE", "OPTIONS", "PATCH", "POST", "GET"];
                self.method = dice.pick(&other).to_owned();
            }
            10 => {
                let other = [
                    "//",
                    "/x?",
                    "/%2e",
                    "/explorer/../?",
                    "/?a=1&",
                    "/#",
                    "/metrics?",
                ];
                self.target.replace_range(..1, dice.pick(&other));
            }
            _ => {
                let kind = [
                    "application/json",
                    "text/xml",
                    "multipart/form-data",
                    "\u{4e2d}",
                ];
                let value = dice.pick(&kind).as_bytes().to_vec();
                self.headers.retain(|(name, _)| name != "content-type");
                self.headers.push(("content-type".into(), value));
            }
        }
        // A target is one word of the request line; everything else about it may be wrong.
        self.target.retain(|c| !c.is_whitespace());
    }

    fn bytes(&self) -> Vec<u8> {
        let mut out = format!("{} {} HTTP/1.1\r\n", self.method, self.target).into_bytes();
        for (name, value) in &self.headers {
            out.extend_from_slice(name.as_bytes());
            out.extend_from_slice(b": ");
            out.extend_from_slice(value);
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(format!("content-length: {}\r\n\r\n", self.body.len()).as_bytes());
        out.extend_from_slice(&self.body);
        out
    }
}

struct Answer {
    status: u16,
    content_type: String,
    body: Vec<u8>,
    closes: bool,
}

/// Sends and reads one answer; `None` if the connection was closed before it.
fn exchange(stream: &mut BufReader<TcpStream>, request: &[u8]) -> Option<Answer> {
    stream.get_mut().write_all(request).ok()?;
    let mut line = String::new();
    stream.read_line(&mut line).ok()?;
    let status = line.split(' ').nth(1)?.parse().ok()?;
    let mut answer = Answer {
        status,
        content_type: String::new(),
        body: Vec::new(),
        closes: false,
    };
    let mut length = 0;
    loop {
        line.clear();
        stream.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(": ") else {
            break;
        };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.parse().ok()?,
            "content-type" => answer.content_type = value.to_owned(),
            "connection" => answer.closes = value.eq_ignore_ascii_case("close"),
            _ => {}
        }
    }
    answer.body = vec![0; length];
    stream.read_exact(&mut answer.body).ok()?;
    Some(answer)
}

fn connect(address: SocketAddr) -> BufReader<TcpStream> {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    BufReader::new(stream)
}

fn documented() -> BTreeSet<&'static str> {
    include_str!("../../../docs/errors.md")
        .lines()
        .filter_map(|line| line.strip_prefix("## "))
        .collect()
}

fn attack(address: SocketAddr, requests: usize) -> BTreeMap<String, usize> {
    let documented = documented();
    let mut dice = Dice(0x5eed_5eed_5eed_5eed);
    let mut seen = BTreeMap::new();
    let mut stream = connect(address);
    for number in 0..requests {
        let plain = Raw::signed(&mut dice, number);
        let mut raw = plain.clone();
        let damage = dice.roll(4);
        for _ in 0..damage {
            raw.damage(&mut dice);
        }
        let bytes = raw.bytes();
        let shown = String::from_utf8_lossy(&bytes);
        let mut answer = exchange(&mut stream, &bytes);
        if answer.is_none() {
            // The server had closed the connection after the answer before.
            stream = connect(address);
            answer = exchange(&mut stream, &bytes);
        }
        let answer = answer.unwrap_or_else(|| panic!("no answer to {shown}"));
        assert_eq!(answer.content_type, "application/json", "{shown}");
        let json: serde_json::Value = serde_json::from_slice(&answer.body)
            .unwrap_or_else(|error| panic!("{error}: answer to {shown}"));
        let code = json["Code"].as_str().unwrap_or_default().to_owned();
        assert!(documented.contains(code.as_str()), "{code:?} for {shown}");
        assert!(
            (400..500).contains(&answer.status),
            "{} for {shown}",
            answer.status
        );
        assert!(
            json["RequestId"].is_string() && json["Message"].is_string(),
            "{shown}"
        );
        if damage == 0 {
            assert_eq!(code, BELIEVED, "{shown}");
        } else if code == BELIEVED {
            // Believed although changed: then nothing that counts was changed. One answer was
            // given, and the nonce is used up.
            let again = exchange(&mut stream, &bytes).or_else(|| {
                stream = connect(address);
                exchange(&mut stream, &bytes)
            });
            let again: serde_json::Value = serde_json::from_slice(&again.unwrap().body).unwrap();
            assert_eq!(again["Code"], "SignatureNonceUsed", "{shown}");
        }
        if answer.closes {
            stream = connect(address);
        }
        *seen.entry(code).or_insert(0) += 1;
    }
    seen
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_has_a_documented_code() {
    let requests = std::env::var("SIFTER_ATTACK_REQUESTS")
        .map_or(3000, |text| text.parse().expect("a number of requests"));
    let dir = tempfile::tempdir().unwrap();
    let keys = dir.path().join("keys.toml");
    fs::write(&keys, KEYS).unwrap();
    // Whoever runs tests may let a group write, and is refused keys that it could replace.
    for (path, mode) in [(dir.path(), 0o700), (&keys, 0o600)] {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }
    let settings = Settings::parse(CONFIG, &dir.path().join("control.toml")).unwrap();
    let running = server::start(settings, None).await.unwrap();
    let address = running.addresses[0];
    let seen = tokio::task::spawn_blocking(move || attack(address, requests))
        .await
        .unwrap();
    // The dice must have reached all over the place for this to mean anything.
    for code in [
        BELIEVED,
        "SignatureDoesNotMatch",
        "MissingParameter",
        "IncompleteSignature",
        "InvalidParams",
        "InvalidSignatureMethod",
        "InvalidAccessKeyId.NotFound",
        "InvalidAction.NotFound",
        "UnsupportedHTTPMethod",
        "BadRequest",
    ] {
        assert!(seen.contains_key(code), "never saw {code}: {seen:?}");
    }
    running.stop().await;
}
