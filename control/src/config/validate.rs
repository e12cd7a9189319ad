//! From the raw file to [`Settings`]: defaults, ranges, and what must hold between keys.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::Path;
use std::time::Duration;

use tracing_subscriber::EnvFilter;

use super::AgentSettings;
use super::AgentTls;
use super::AuthSettings;
use super::ClusterSettings;
use super::DEFAULT_REGION;
use super::Limits;
use super::LogSettings;
use super::NodeAddress;
use super::Rate;
use super::RawConfig;
use super::ServerSettings;
use super::ServerTls;
use super::Settings;
use super::auth;
use super::raw::RawAgentTls;
use super::raw::RawAgents;
use super::raw::RawCluster;
use super::raw::RawLimits;
use super::raw::RawServer;

/// Longest `ClusterId` that can be configured; longer ones in requests are unknown anyway.
const MAX_ID: usize = 128;

/// Clients give up after three seconds, so an answer promised later is no answer.
const MAX_ANSWER_MS: u64 = 60_000;

/// hyper cannot read headers through a smaller buffer.
const MIN_HEADER_BYTES: usize = 8192;

pub(super) fn validate(raw: RawConfig, base: &Path) -> Result<Settings, Vec<String>> {
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
    let mut problems = Vec::new();
    let auth = auth::validate(raw_auth, base, &mut problems);
    let server = validate_server(server, base, &mut problems);
    let admin_listen = admin
        .listen
        .and_then(|text| socket("admin.listen", &text, &mut problems));
    let limits = validate_limits(limits, &mut problems);
    let agents = validate_agents(agents, agent_tls, base, &limits, &mut problems);
    let has_keys = matches!(auth, Some(AuthSettings::Signatures(_)));
    let clusters = validate_clusters(clusters, agents.tls.is_some(), has_keys, &mut problems);
    let filter = log.filter.unwrap_or_else(|| "info".to_owned());
    if let Err(error) = EnvFilter::try_new(&filter) {
        problems.push(format!(
            "log.filter = {filter:?}: {error}; write info, or sifter_control=debug,info"
        ));
    }

    if matches!(auth, Some(AuthSettings::None)) {
        for address in server.listen.iter().chain(&admin_listen) {
            if !address.ip().is_loopback() {
                problems.push(format!(
                    "{address}: with auth = \"none\" anyone who reaches the server may list the \
                     clusters, so it listens on loopback only: write 127.0.0.1:{port} or \
                     [::1]:{port}, or configure `[auth]`",
                    port = address.port()
                ));
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

fn validate_server(raw: RawServer, base: &Path, problems: &mut Vec<String>) -> ServerSettings {
    let listen = raw
        .listen
        .unwrap_or_else(|| vec!["127.0.0.1:8080".to_owned()]);
    if listen.is_empty() {
        problems.push("server.listen is empty: write at least one IP:PORT".to_owned());
    }
    let tls = match (raw.cert, raw.key) {
        (Some(cert), Some(key)) => Some(ServerTls {
            cert: base.join(cert),
            key: base.join(key),
        }),
        (None, None) => None,
        (Some(_), None) => {
            problems.push("server.cert needs server.key beside it".to_owned());
            None
        }
        (None, Some(_)) => {
            problems.push("server.key needs server.cert beside it".to_owned());
            None
        }
    };
    let public_url = raw.public_url.map(|url| {
        if !url.starts_with("http://") && !url.starts_with("https://") {
            problems.push(format!(
                "server.public_url = {url:?} is not a URL: write https://host or http://host"
            ));
        }
        url.trim_end_matches('/').to_owned()
    });
    let mut trusted_proxies = Vec::new();
    for text in &raw.trusted_proxies {
        match super::parse_network(text) {
            Some(network) => trusted_proxies.push(network),
            None => problems.push(format!(
                "server.trusted_proxies: {text:?} is not a network: write 10.0.0.0/8 or an address"
            )),
        }
    }
    if raw.require_tls && tls.is_none() && trusted_proxies.is_empty() {
        problems.push(
            "server.require_tls would refuse every request: write server.cert and server.key, or \
             the server.trusted_proxies that speak HTTPS in front"
                .to_owned(),
        );
    }
    ServerSettings {
        require_tls: raw.require_tls,
        listen: listen
            .iter()
            .filter_map(|text| socket("server.listen", text, problems))
            .collect(),
        public_url,
        tls,
        trusted_proxies,
        drain_delay: Duration::from_secs(raw.drain_delay_seconds.into()),
        drain_timeout: seconds(
            "server.drain_timeout_seconds",
            raw.drain_timeout_seconds,
            10,
            problems,
        ),
    }
}

fn validate_limits(raw: RawLimits, problems: &mut Vec<String>) -> Limits {
    let max_header_bytes = raw.max_header_bytes.unwrap_or(65_536);
    if max_header_bytes < MIN_HEADER_BYTES {
        problems.push(format!(
            "limits.max_header_bytes = {max_header_bytes} is too small: write at least \
             {MIN_HEADER_BYTES}"
        ));
    }
    Limits {
        answer_within: millis(
            "limits.answer_within_ms",
            raw.answer_within_ms,
            2500,
            problems,
        ),
        max_body_bytes: raw.max_body_bytes.unwrap_or(65_536),
        max_header_bytes,
        header_timeout: seconds(
            "limits.header_timeout_seconds",
            raw.header_timeout_seconds,
            15,
            problems,
        ),
        body_timeout: seconds(
            "limits.body_timeout_seconds",
            raw.body_timeout_seconds,
            10,
            problems,
        ),
        write_timeout: seconds(
            "limits.write_timeout_seconds",
            raw.write_timeout_seconds,
            10,
            problems,
        ),
        max_connections: positive(
            "limits.max_connections",
            raw.max_connections,
            4096,
            problems,
        ),
        max_concurrent_requests: positive(
            "limits.max_concurrent_requests",
            raw.max_concurrent_requests,
            512,
            problems,
        ),
        requests_per_second: rate(raw.requests_per_second.unwrap_or(0), None),
        key_requests_per_second: rate(raw.key_requests_per_second.unwrap_or(200), raw.key_burst),
    }
}

fn validate_agents(
    raw: RawAgents,
    tls: Option<RawAgentTls>,
    base: &Path,
    limits: &Limits,
    problems: &mut Vec<String>,
) -> AgentSettings {
    let settings = AgentSettings {
        answer_within: limits.answer_within,
        connect_timeout: millis(
            "agents.connect_timeout_ms",
            raw.connect_timeout_ms,
            1000,
            problems,
        ),
        hedge_after: millis("agents.hedge_after_ms", raw.hedge_after_ms, 600, problems),
        breaker_failures: raw.breaker_failures.unwrap_or(3),
        breaker_open: millis(
            "agents.breaker_open_ms",
            raw.breaker_open_ms,
            1000,
            problems,
        ),
        breaker_open_max: millis(
            "agents.breaker_open_max_ms",
            raw.breaker_open_max_ms,
            15_000,
            problems,
        ),
        partial_listings: raw.partial_listings,
        tls: tls.map(|tls| AgentTls {
            ca: base.join(tls.ca),
            cert: base.join(tls.cert),
            key: base.join(tls.key),
            server_name: tls.server_name,
        }),
    };
    if settings.breaker_failures == 0 {
        problems.push("agents.breaker_failures = 0 would never ask: write at least 1".to_owned());
    }
    if raw.hedge_after_ms.is_some() && settings.hedge_after >= limits.answer_within {
        problems.push(format!(
            "agents.hedge_after_ms = {} leaves no time for a second login node: write less than \
             limits.answer_within_ms = {}",
            settings.hedge_after.as_millis(),
            limits.answer_within.as_millis()
        ));
    }
    settings
}

fn validate_clusters(
    raw: Vec<RawCluster>,
    tls: bool,
    has_keys: bool,
    problems: &mut Vec<String>,
) -> Vec<ClusterSettings> {
    let mut seen = HashSet::new();
    let mut clusters = Vec::with_capacity(raw.len());
    for (index, raw) in raw.into_iter().enumerate() {
        let name = if raw.id.is_empty() {
            problems.push(format!(
                "clusters[{index}].id is missing: write the ClusterId that clients use"
            ));
            format!("clusters[{index}]")
        } else {
            format!("cluster {:?}", raw.id)
        };
        if raw.id.len() > MAX_ID || raw.id.chars().any(char::is_control) {
            problems.push(format!(
                "{name}: an id has at most {MAX_ID} bytes and no control characters"
            ));
        }
        if !raw.id.is_empty() && !seen.insert(raw.id.clone()) {
            problems.push(format!("{name} is configured twice"));
        }
        if has_keys && raw.account.is_empty() {
            problems.push(format!(
                "{name} has no account, so no access key would ever see it: write the account_id of \
                 the keys that may"
            ));
        }
        let region = raw.region.unwrap_or_else(|| DEFAULT_REGION.to_owned());
        // Both are pieces of the resource that policies name, where `:` and `*` mean something.
        for (key, text) in [("account", &raw.account), ("region", &region)] {
            let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
            if !text.chars().all(is_plain) {
                problems.push(format!(
                    "{name}: {key} = {text:?}: write letters, digits, `-`, `_` and `.` only"
                ));
            }
        }
        let mut login_nodes = Vec::with_capacity(raw.login_nodes.len());
        for text in &raw.login_nodes {
            match NodeAddress::parse(text, tls) {
                Ok(NodeAddress::Tls(_)) if !tls => problems.push(format!(
                    "{name}: login node {text:?} needs a table [agent_tls] with ca, cert and key"
                )),
                Ok(address) if login_nodes.contains(&address) => {
                    problems.push(format!("{name}: login node {text:?} is listed twice"));
                }
                Ok(address) => login_nodes.push(address),
                Err(error) => problems.push(format!(
                    "{name}: login node {text:?}: {error}; write host:port, http://host:port, \
                     https://host:port or unix:/path"
                )),
            }
        }
        clusters.push(ClusterSettings {
            id: raw.id,
            account: raw.account,
            region,
            login_nodes,
        });
    }
    clusters
}

fn socket(key: &str, text: &str, problems: &mut Vec<String>) -> Option<SocketAddr> {
    // A name would be resolved at some other time than now, and may then be another address.
    text.parse()
        .inspect_err(|_| {
            problems.push(format!(
                "{key}: {text:?} is not an address: write IP:PORT, as in 127.0.0.1:8080"
            ));
        })
        .ok()
}

fn millis(key: &str, value: Option<u64>, default: u64, problems: &mut Vec<String>) -> Duration {
    let value = value.unwrap_or(default);
    if value == 0 || value > MAX_ANSWER_MS {
        problems.push(format!(
            "{key} = {value} is out of range: write 1 to {MAX_ANSWER_MS}"
        ));
    }
    Duration::from_millis(value)
}

fn seconds(key: &str, value: Option<u64>, default: u64, problems: &mut Vec<String>) -> Duration {
    let value = value.unwrap_or(default);
    if value == 0 || value > 3600 {
        problems.push(format!("{key} = {value} is out of range: write 1 to 3600"));
    }
    Duration::from_secs(value)
}

fn positive(key: &str, value: Option<usize>, default: usize, problems: &mut Vec<String>) -> usize {
    let value = value.unwrap_or(default);
    // The upper end is what a semaphore can count.
    if value == 0 || value > (usize::MAX >> 4) {
        problems.push(format!("{key} = {value} is out of range: write at least 1"));
        return default;
    }
    value
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
                "at least 8192",
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
            ("auth = \"none\"\n[log]\nfilter = \"=[=bad\"", "log.filter"),
            (
                "auth = \"none\"\n[server]\ntrusted_proxies = [\"::/8\"]",
                "is not a network",
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
            let ConfigError::Parse { problem, .. } = error else {
                panic!("{text:?} gave {error}");
            };
            assert!(problem.contains("unknown field"), "{problem}");
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
