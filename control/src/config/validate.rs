//! From the raw file to [`Settings`]: defaults, ranges, and what must hold between keys.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use tracing_subscriber::EnvFilter;

use super::AgentSettings;
use super::AgentTls;
use super::AuthSettings;
use super::Limits;
use super::LogSettings;
use super::Rate;
use super::RawConfig;
use super::Settings;
use super::auth;
use super::clusters;
use super::problem::Problems;
use super::raw::RawAgentTls;
use super::raw::RawAgents;
use super::raw::RawLimits;
use super::server;

/// Clients give up after three seconds, so an answer promised later is no answer.
const MAX_ANSWER_MS: u64 = 60_000;

/// hyper cannot read headers through a smaller buffer.
const MIN_HEADER_BYTES: usize = 8192;

/// The parameters of a signed request are half of this.
const MIN_BODY_BYTES: usize = 1024;

/// What each of many clients may make this server hold.
const MAX_BYTES: usize = 16 << 20;

/// More than one machine has descriptors for.
const MAX_AT_A_TIME: usize = 1 << 20;

/// More failures in a row than that would never be counted.
const MAX_FAILURES: u32 = 1 << 20;

pub(super) fn validate(raw: RawConfig, base: &Path) -> Result<Settings, Problems> {
    let RawConfig {
        auth: raw_auth,
        server,
        admin,
        limits,
        agents,
        agent_tls,
        log,
        clusters,
    } = raw;
    let mut problems = Problems::default();
    let auth = auth::validate(raw_auth, base, &mut problems);
    let server = server::validate(server, base, &mut problems);
    let admin_listen = admin
        .listen
        .and_then(|text| server::socket("admin.listen", &text, &mut problems));
    let limits = validate_limits(limits, &mut problems);
    let agents = validate_agents(agents, agent_tls, base, &limits, &mut problems);
    let has_keys = matches!(auth, Some(AuthSettings::Signatures(_)));
    let clusters = clusters::validate(clusters, agents.tls.is_some(), has_keys, &mut problems);
    let filter = log.filter.unwrap_or_else(|| "info".to_owned());
    if let Err(error) = EnvFilter::try_new(&filter) {
        problems.add(
            "log.filter",
            format!("log.filter = {filter:?}: {error}; write info, or sifter_control=debug,info"),
        );
    }

    let of_server = server
        .listen
        .iter()
        .map(|address| ("server.listen", address));
    let of_admin = admin_listen.iter().map(|address| ("admin.listen", address));
    let addresses: Vec<_> = of_server.chain(of_admin).collect();
    for (index, (key, address)) in addresses.iter().enumerate() {
        let is_same = |(_, other): &(&str, &SocketAddr)| other == address;
        if address.port() != 0 && addresses[..index].iter().any(is_same) {
            problems.add(
                key,
                format!("{key}: {address} is listened on already: write another port"),
            );
        }
    }
    if matches!(auth, Some(AuthSettings::None)) {
        for (key, address) in addresses {
            if !address.ip().is_loopback() {
                // Without an `[auth]` that takes its place.
                problems.add_absent(
                    key,
                    format!(
                        "{address}: with auth = \"none\" anyone who reaches the server may list the \
                         clusters, so it listens on loopback only: write 127.0.0.1:{port} or \
                         [::1]:{port}, or configure `[auth]`",
                        port = address.port()
                    ),
                );
            }
        }
    }
    match auth {
        Some(auth) if problems.is_empty() => Ok(Settings {
            auth,
            server,
            admin_listen,
            limits,
            agents,
            clusters,
            log: LogSettings {
                format: log.format,
                filter,
            },
        }),
        _ => Err(problems),
    }
}

fn validate_limits(raw: RawLimits, problems: &mut Problems) -> Limits {
    let max_header_bytes = problems.within(
        "limits.max_header_bytes",
        raw.max_header_bytes,
        65_536,
        MIN_HEADER_BYTES..=MAX_BYTES,
    );
    let max_body_bytes = problems.within(
        "limits.max_body_bytes",
        raw.max_body_bytes,
        65_536,
        MIN_BODY_BYTES..=MAX_BYTES,
    );
    let mut at_a_time =
        |key, value, default| problems.within(key, value, default, 1..=MAX_AT_A_TIME);
    let max_connections = at_a_time("limits.max_connections", raw.max_connections, 4096);
    let max_concurrent_requests = at_a_time(
        "limits.max_concurrent_requests",
        raw.max_concurrent_requests,
        512,
    );
    let answer_within = millis(
        "limits.answer_within_ms",
        raw.answer_within_ms,
        2500,
        problems,
    );
    let limits = Limits {
        answer_within,
        max_body_bytes,
        max_header_bytes,
        header_timeout: problems.seconds(
            "limits.header_timeout_seconds",
            raw.header_timeout_seconds,
            15,
        ),
        body_timeout: problems.seconds("limits.body_timeout_seconds", raw.body_timeout_seconds, 10),
        write_timeout: problems.seconds(
            "limits.write_timeout_seconds",
            raw.write_timeout_seconds,
            10,
        ),
        max_connections,
        max_concurrent_requests,
        requests_per_second: rate(raw.requests_per_second.unwrap_or(0), None),
        key_requests_per_second: rate(raw.key_requests_per_second.unwrap_or(200), raw.key_burst),
    };
    problems.within("limits.key_burst", raw.key_burst, 1, 1..=u32::MAX);
    limits
}

fn validate_agents(
    raw: RawAgents,
    tls: Option<RawAgentTls>,
    base: &Path,
    limits: &Limits,
    problems: &mut Problems,
) -> AgentSettings {
    let tls = tls.map(|tls| {
        let mut file = |key, path: Option<PathBuf>| {
            let path = path.unwrap_or_default();
            if path.as_os_str().is_empty() {
                problems.add_absent(key, format!("{key} is missing or empty: write a PEM file"));
            }
            base.join(path)
        };
        AgentTls {
            ca: file("agent_tls.ca", tls.ca),
            cert: file("agent_tls.cert", tls.cert),
            key: file("agent_tls.key", tls.key),
            server_name: tls.server_name,
        }
    });
    let connect_timeout = ("agents.connect_timeout_ms", raw.connect_timeout_ms, 1000);
    let hedge_after = ("agents.hedge_after_ms", raw.hedge_after_ms, 600);
    let breaker_open = ("agents.breaker_open_ms", raw.breaker_open_ms, 1000);
    let breaker_open_max = (
        "agents.breaker_open_max_ms",
        raw.breaker_open_max_ms,
        15_000,
    );
    let mut millis = |(key, value, default)| millis(key, value, default, problems);
    let settings = AgentSettings {
        answer_within: limits.answer_within,
        connect_timeout: millis(connect_timeout),
        hedge_after: millis(hedge_after),
        breaker_open: millis(breaker_open),
        breaker_open_max: millis(breaker_open_max),
        breaker_failures: problems.within(
            "agents.breaker_failures",
            raw.breaker_failures,
            3,
            1..=MAX_FAILURES,
        ),
        partial_listings: raw.partial_listings,
        tls,
    };
    if raw.hedge_after_ms.is_some() && settings.hedge_after >= limits.answer_within {
        problems.add(
            "agents.hedge_after_ms",
            format!(
                "agents.hedge_after_ms = {} leaves no time for a second login node: write less than \
                 limits.answer_within_ms = {}",
                settings.hedge_after.as_millis(),
                limits.answer_within.as_millis()
            ),
        );
    }
    if settings.breaker_open > settings.breaker_open_max {
        let (key, first, most) = (
            match raw.breaker_open_ms {
                Some(_) => "agents.breaker_open_ms",
                None => "agents.breaker_open_max_ms",
            },
            settings.breaker_open.as_millis(),
            settings.breaker_open_max.as_millis(),
        );
        problems.add(
            key,
            format!(
                "agents.breaker_open_ms = {first} is more than agents.breaker_open_max_ms = {most}, \
                 up to which it doubles: write less for the first one or more for the second"
            ),
        );
    }
    settings
}

fn millis(key: &str, value: Option<u64>, default: u64, problems: &mut Problems) -> Duration {
    Duration::from_millis(problems.within(key, value, default, 1..=MAX_ANSWER_MS))
}

fn rate(per_second: u32, burst: Option<u32>) -> Option<Rate> {
    let per_second = NonZeroU32::new(per_second)?;
    let burst = burst
        .and_then(NonZeroU32::new)
        .unwrap_or_else(|| per_second.saturating_mul(NonZeroU32::MIN.saturating_add(1)));
    Some(Rate { per_second, burst })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ConfigError;

    fn parse(text: &str) -> Result<Settings, ConfigError> {
        Settings::parse(text, Path::new("/etc/sifter-control/config.toml"))
    }

    #[test]
    fn smallest_file() {
        let settings = parse("auth = \"none\"").unwrap();
        assert!(matches!(settings.auth, AuthSettings::None));
        assert_eq!(settings.server.listen, ["127.0.0.1:8080".parse().unwrap()]);
        assert_eq!(settings.limits.answer_within, Duration::from_millis(2500));
        assert!(settings.clusters.is_empty());
    }

    #[test]
    fn paths_start_where_the_file_is() {
        let settings = parse("[auth]\nkeys = \"keys.toml\"").unwrap();
        let AuthSettings::Signatures(signatures) = settings.auth else {
            panic!("not signed");
        };
        assert_eq!(signatures.keys, "/etc/sifter-control/keys.toml");
    }

    #[test]
    fn problems_say_what_to_write() {
        let rows = [
            ("", "auth is not set"),
            (
                "auth = \"maybe\"",
                "write `auth = \"none\"` or a table `[auth]`",
            ),
            (
                "auth = \"none\"\n[server]\nlisten = [\"0.0.0.0:80\"]",
                "loopback only",
            ),
            (
                "auth = \"none\"\n[server]\nlisten = [\"[::]:80\"]",
                "loopback only",
            ),
            (
                "auth = \"none\"\n[admin]\nlisten = \"10.0.0.1:1\"",
                "loopback only",
            ),
            (
                "auth = \"none\"\n[server]\nlisten = [\"localhost:80\"]",
                "write IP:PORT",
            ),
            (
                "auth = \"none\"\n[server]\nlisten = []",
                "server.listen is empty",
            ),
            (
                "auth = \"none\"\n[server]\ncert = \"a\"",
                "needs server.key",
            ),
            (
                "auth = \"none\"\n[limits]\nanswer_within_ms = 0",
                "out of range",
            ),
            (
                "auth = \"none\"\n[limits]\nmax_header_bytes = 1",
                "write 8192 to",
            ),
            (
                "auth = \"none\"\n[limits]\nmax_body_bytes = 0",
                "max_body_bytes = 0 is out of range",
            ),
            (
                "auth = \"none\"\n[limits]\nmax_connections = 9223372036854775807",
                "write 1 to 1048576",
            ),
            (
                "auth = \"none\"\n[limits]\nkey_burst = 0",
                "key_burst = 0 is out of range",
            ),
            (
                "auth = \"none\"\n[agents]\nbreaker_failures = 0",
                "breaker_failures = 0 is out of range",
            ),
            (
                "auth = \"none\"\n[agents]\nbreaker_open_ms = 20000",
                "is more than agents.breaker_open_max_ms = 15000",
            ),
            (
                "auth = \"none\"\n[agents]\nbreaker_open_max_ms = 900",
                "agents.breaker_open_ms = 1000 is more",
            ),
            (
                "auth = \"none\"\n[agents]\nhedge_after_ms = 3000",
                "no time for a second",
            ),
            ("auth = \"none\"\n[[clusters]]", "clusters[0].id is missing"),
            (
                "auth = \"none\"\n[[clusters]]\nid = \"a\"\n[[clusters]]\nid = \"a\"",
                "configured twice",
            ),
            (
                "auth = \"none\"\n[[clusters]]\nid = \"a\"\nlogin_nodes = [\"n\"]",
                "write host:port",
            ),
            (
                "auth = \"none\"\n[[clusters]]\nid = \"a\"\nlogin_nodes = [\"https://n:1\"]",
                "[agent_tls]",
            ),
        ];
        let rows = rows.into_iter().chain([
            (
                "auth = \"none\"\n[server]\nrequire_tls = true",
                "would refuse every request",
            ),
            (
                "[auth]\nkeys = \"k\"\n[[clusters]]\nid = \"a\"",
                "cluster \"a\" has no account",
            ),
            (
                "auth = \"none\"\n[[clusters]]\nid = \"a\"\naccount = \"x*:y\"",
                "account = \"x*:y\"",
            ),
            (
                "auth = \"none\"\n[[clusters]]\nid = \"a\"\nregion = \"a:b\"",
                "region = \"a:b\"",
            ),
            (
                "auth = \"none\"\n[[clusters]]\nid = \"a\"\nregion = \"\"",
                "region is empty",
            ),
            (
                "auth = \"none\"\n[[clusters]]\nid = \"a\"\nlogin_nodes = [\"n:0\"]",
                "no port from 1 to 65535",
            ),
            (
                "auth = \"none\"\n[server]\nlisten = [\"127.0.0.1:8080\", \"127.0.0.1:8080\"]",
                "server.listen: 127.0.0.1:8080 is listened on already",
            ),
            (
                "auth = \"none\"\n[admin]\nlisten = \"127.0.0.1:8080\"",
                "admin.listen: 127.0.0.1:8080 is listened on already",
            ),
            ("[auth]\nkeys = \"\"", "auth.keys is missing or empty"),
            ("auth = \"none\"\n[log]\nfilter = \"=[=bad\"", "log.filter"),
            (
                "auth = \"none\"\n[server]\ntrusted_proxies = [\"::/8\"]",
                "is not a network",
            ),
            (
                "auth = \"none\"\n[server]\npublic_url = \"https://\"",
                "is not a URL",
            ),
            (
                "auth = \"none\"\n[server]\npublic_url = \"ehpc.example.org\"",
                "is not a URL",
            ),
            (
                "auth = \"none\"\n[server]\npublic_url = \"https://a b\"",
                "is not a URL",
            ),
        ]);
        for (text, expected) in rows {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{text:?} gave {error}");
            assert!(error.contains("config.toml"), "{error}");
        }
    }

    #[test]
    fn unknown_keys_are_refused_by_name() {
        for text in [
            "auth = \"none\"\n[limits]\nanswer_in_ms = 1",
            "[auth]\nkeys = \"k\"\nkyes = 1",
            "auth = \"none\"\ncluster = 1",
        ] {
            let error = parse(text).unwrap_err();
            let ConfigError::Invalid { problems, .. } = error else {
                panic!("{text:?} gave {error}");
            };
            assert_eq!(problems.len(), 1, "{problems:?}");
            assert!(problems[0].contains("unknown field"), "{problems:?}");
        }
    }

    #[test]
    fn all_problems_come_at_once() {
        let error = parse("[server]\nlisten = [\"x\"]\n[[clusters]]").unwrap_err();
        let ConfigError::Invalid { problems, .. } = error else {
            panic!("{error}");
        };
        assert_eq!(problems.len(), 3, "{problems:?}");
    }
}
