//! Settings of who may connect and who may see what.

use std::net::IpAddr;
use std::path::PathBuf;

use super::{ConfigProblems, DEFAULT_SOCKET, Listen, RawTls};

/// Group whose members see every image, unless another is configured. Where the host has no such
/// group, nobody is in it.
const DEFAULT_ADMIN_GROUP: &str = "sifter-admin";

/// Certificates, for TLS over TCP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsSettings {
    /// PEM file with the agent's certificate chain.
    pub cert: PathBuf,
    /// PEM file with its private key.
    pub key: PathBuf,
    /// PEM file with the authorities that sign clients' certificates.
    pub client_ca: PathBuf,
    /// Names of the clients that may connect.
    pub allow: Vec<String>,
}

/// Who may see what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessSettings {
    /// Group whose members see every image.
    pub admin_group: String,
    /// Whether that group was named by the configuration.
    pub admin_group_configured: bool,
    /// What is shown over TCP without TLS.
    pub plain_tcp: PlainTcp,
}

/// What is shown over TCP without TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PlainTcp {
    /// To a user of this machine what that user could read; to others what everybody could.
    #[default]
    Own,
    /// Everything to everybody.
    All,
}

impl TlsSettings {
    pub(super) fn validate(raw: RawTls, problems: &mut ConfigProblems) -> Self {
        let mut file = |key, path: Option<PathBuf>| {
            let message = "write the absolute path of a PEM file";
            match &path {
                None => problems.add_absent(key, message),
                Some(path) if !path.is_absolute() => problems.add(key, message),
                Some(_) => {}
            }
            path.unwrap_or_default()
        };
        let cert = file("tls.cert", raw.cert);
        let key = file("tls.key", raw.key);
        let client_ca = file("tls.client_ca", raw.client_ca);
        let message = "name the clients that may connect, as in [\"dns:control.example.org\"]; every client \
                       with a certificate of client_ca: [\"*\"]";
        if raw.allow.is_none() {
            problems.add_absent("tls.allow", message);
        }
        let allow = raw.allow.unwrap_or_else(|| vec!["*".to_owned()]);
        if allow.is_empty() || allow.iter().any(|name| name.trim().is_empty()) {
            problems.add("tls.allow", message);
        }
        Self {
            cert,
            key,
            client_ca,
            allow,
        }
    }
}

impl AccessSettings {
    pub(super) fn validate(
        admin_group: Option<String>,
        plain_tcp: Option<&str>,
        problems: &mut ConfigProblems,
    ) -> Self {
        let plain_tcp = match plain_tcp {
            None | Some("own") => Ok(PlainTcp::Own),
            Some("all") => Ok(PlainTcp::All),
            Some(other) => Err(format!("`{other}` is neither own nor all")),
        };
        Self {
            admin_group_configured: admin_group.is_some(),
            admin_group: admin_group.unwrap_or_else(|| DEFAULT_ADMIN_GROUP.to_owned()),
            plain_tcp: problems.take("plain_tcp", plain_tcp).unwrap_or_default(),
        }
    }
}

/// Where the agent listens: those addresses that it may.
pub(super) fn listen_all(
    texts: Option<Vec<String>>,
    has_tls: bool,
    insecure: bool,
    problems: &mut ConfigProblems,
) -> Vec<Listen> {
    let texts = texts.unwrap_or_else(|| vec![DEFAULT_SOCKET.to_owned()]);
    if texts.is_empty() {
        problems.add("listen", "no address: the agent could not be asked");
    }
    let mut listening = Vec::new();
    for text in &texts {
        let Some(address) = problems.take("listen", listen(text, has_tls)) else {
            continue;
        };
        match check_listen(&address, has_tls, insecure) {
            Ok(()) => listening.push(address),
            // What would allow it.
            Err(message) => problems.add_absent("listen", message),
        }
    }
    let is_tls = |address: &Listen| matches!(address, Listen::Tls(_));
    // Where an address is wrong, it may be the one.
    if has_tls && listening.len() == texts.len() && !listening.iter().any(is_tls) {
        problems.add_absent("tls", "no address uses it: add \"0.0.0.0:7430\" to listen");
    }
    listening
}

/// An address as it is written. One that other machines can reach speaks TLS where there are
/// certificates, unless it says `tcp:`.
pub(super) fn listen(text: &str, has_tls: bool) -> Result<Listen, String> {
    Ok(match text.parse()? {
        Listen::Tcp(address)
            if has_tls && !address.ip().is_loopback() && !text.starts_with("tcp:") =>
        {
            Listen::Tls(address)
        }
        address => address,
    })
}

impl super::Settings {
    /// What a TCP socket that somebody else has bound is for: the address of `listen` that it stands
    /// for if there is one, otherwise as if it had been written there. `tls`: it is to speak TLS.
    ///
    /// # Errors
    ///
    /// It may not be listened on: what is wrong, and what would be right.
    pub fn listen_for(&self, bound: std::net::SocketAddr, tls: bool) -> Result<Listen, String> {
        // A socket for all addresses stands for one of them: systemd's `ListenStream=7430` is [::].
        let is_there = |address: &std::net::SocketAddr| {
            address.port() == bound.port()
                && (bound.ip().is_unspecified() || address.ip() == bound.ip())
        };
        let configured = self.listen.iter().find(|listen| match listen {
            Listen::Unix(_) => false,
            Listen::Tcp(address) | Listen::Tls(address) => is_there(address),
        });
        let address = match configured {
            Some(address) => address.clone(),
            None => listen(&bound.to_string(), self.tls.is_some())?,
        };
        let address = match (tls, &address) {
            (true, Listen::Tcp(_)) => Listen::Tls(bound),
            // Who may connect is decided by where the socket really is.
            (false, Listen::Tcp(_)) => Listen::Tcp(bound),
            _ => address,
        };
        check_listen(&address, self.tls.is_some(), self.allow_insecure_remote)?;
        Ok(address)
    }
}

/// Whether an address may be listened on.
fn check_listen(address: &Listen, has_tls: bool, insecure: bool) -> Result<(), String> {
    match address {
        Listen::Tls(_) if !has_tls => Err(format!(
            "{address} needs [tls] with cert, key, client_ca and allow"
        )),
        Listen::Tcp(plain) if !plain.ip().is_loopback() && !insecure => Err(format!(
            "{plain} can be reached by other machines, and without TLS nobody there \
             proves who they are: add [tls], or use a loopback address, unix:/path, \
             or set allow_insecure_remote = true"
        )),
        _ => Ok(()),
    }
}

/// The address of the metrics, where nothing else is served.
pub(super) fn metrics(text: &str, listen: &[Listen]) -> Result<Listen, String> {
    let address: Listen = match text.parse()? {
        Listen::Tls(_) => return Err("are served without TLS: leave out `tls:`".to_owned()),
        address => address,
    };
    match listen.iter().find(|other| collide(&address, other)) {
        Some(other) => Err(format!(
            "{address} is taken by {other} of listen: name another one"
        )),
        None => Ok(address),
    }
}

/// Whether only one of two addresses can be bound.
fn collide(one: &Listen, other: &Listen) -> bool {
    match (one, other) {
        (Listen::Unix(one), Listen::Unix(other)) => one == other,
        (Listen::Tcp(one) | Listen::Tls(one), Listen::Tcp(other) | Listen::Tls(other)) => {
            // [::] takes IPv4, too; 0.0.0.0 is of IPv4 alone.
            let covers = |wide: IpAddr, narrow: IpAddr| {
                wide.is_unspecified() && (wide.is_ipv6() || narrow.is_ipv4())
            };
            one.port() == other.port()
                && one.port() != 0
                && (one.ip() == other.ip()
                    || covers(one.ip(), other.ip())
                    || covers(other.ip(), one.ip()))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Raw, Settings};
    use super::{Listen, PlainTcp};

    fn validate(text: &str) -> Result<Settings, String> {
        let raw: Raw = toml::from_str(&format!("{text}\n[[root]]\npath='/a'"))
            .map_err(|error| error.to_string())?;
        Settings::validate(raw).map_err(|error| error.to_string())
    }

    const TLS: &str = "[tls]\ncert='/c'\nkey='/k'\nclient_ca='/ca'\nallow=['control']";

    #[test]
    fn access_that_makes_no_sense_is_refused_and_named() {
        for (text, expected) in [
            ("listen=['tls:0.0.0.0:1']".to_owned(), "needs [tls]"),
            (TLS.to_owned(), "no address uses it"),
            (
                format!("listen=['tcp:0.0.0.0:1','tls:0.0.0.0:2']\n{TLS}"),
                "add [tls]",
            ),
            (
                "listen=['tls:1']\n".to_owned(),
                "neither unix:/path nor tls:",
            ),
            (
                format!("listen=['tls:0.0.0.0:2']\n{}", TLS.replace("'control'", "")),
                "tls.allow",
            ),
            (
                format!("listen=['tls:0.0.0.0:2']\n{}", TLS.replace("control", " ")),
                "tls.allow",
            ),
            (
                format!("listen=['tls:0.0.0.0:2']\n{}", TLS.replace("'/k'", "'k'")),
                "tls.key",
            ),
            (
                format!("listen=['tls:0.0.0.0:2']\n{TLS}\nx=1"),
                "unknown field",
            ),
            ("plain_tcp='x'".to_owned(), "neither own nor all"),
            ("metrics='x'".to_owned(), "metrics"),
            ("metrics='tls:127.0.0.1:1'".to_owned(), "without TLS"),
            ("metrics='localhost'".to_owned(), "metrics: `localhost`"),
            (
                "metrics='unix:/a//b'\nlisten=['unix:/c','unix:/a/b']".to_owned(),
                "metrics: unix:/a//b is taken by unix:/a/b of listen",
            ),
            (
                "metrics='127.0.0.1:1'\nlisten=['127.0.0.1:1']".to_owned(),
                "is taken by 127.0.0.1:1 of listen",
            ),
            (
                "allow_insecure_remote=true\nmetrics='127.0.0.1:1'\nlisten=['[::]:1']".to_owned(),
                "is taken by [::]:1 of listen",
            ),
            (
                format!("metrics='0.0.0.0:1'\nlisten=['tls:192.0.2.1:1']\n{TLS}"),
                "is taken by tls:192.0.2.1:1 of listen",
            ),
        ] {
            let error = validate(&text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn the_metrics_may_be_beside_the_service() {
        for text in [
            "metrics='unix:/a'\nlisten=['unix:/b']",
            "metrics='127.0.0.1:0'\nlisten=['127.0.0.1:0']",
            "metrics='127.0.0.2:1'\nlisten=['127.0.0.1:1']",
            "metrics='0.0.0.0:1'\nlisten=['[::1]:1']",
        ] {
            validate(text).unwrap();
        }
    }

    #[test]
    fn a_socket_that_was_passed_is_held_to_the_same_rules() {
        let plain = validate("").unwrap();
        let secure = validate(&format!("listen=['0.0.0.0:7430','127.0.0.1:7431']\n{TLS}")).unwrap();
        let insecure = validate("allow_insecure_remote=true").unwrap();
        for (settings, bound, tls, expected) in [
            (&plain, "127.0.0.1:1", false, Ok("127.0.0.1:1")),
            (&plain, "127.0.0.1:1", true, Err("needs [tls]")),
            (&plain, "[::]:1", false, Err("add [tls]")),
            (&insecure, "[::]:1", false, Ok("[::]:1")),
            (&secure, "[::]:7430", false, Ok("tls:0.0.0.0:7430")),
            (&secure, "192.0.2.1:9", false, Ok("tls:192.0.2.1:9")),
            (&secure, "127.0.0.1:7431", false, Ok("127.0.0.1:7431")),
            (&secure, "127.0.0.1:9", true, Ok("tls:127.0.0.1:9")),
            // Wider than the address that it stands for.
            (&secure, "[::]:7431", false, Err("add [tls]")),
        ] {
            let found = settings.listen_for(bound.parse().unwrap(), tls);
            match (found, expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found.to_string(), expected, "{bound}"),
                (Err(found), Err(expected)) => assert!(found.contains(expected), "{found}"),
                (found, expected) => panic!("{bound}: {found:?} instead of {expected:?}"),
            }
        }
    }

    #[test]
    fn other_machines_may_connect_with_tls() {
        let settings = validate(&format!(
            "listen=['0.0.0.0:7430','unix:/s','127.0.0.1:7430','tls:[::1]:1']\nmetrics='127.0.0.1:9464'\nplain_tcp='all'\n{TLS}"
        ))
        .unwrap();
        assert_eq!(settings.listen[0], Listen::Tls(([0, 0, 0, 0], 7430).into()));
        assert_eq!(
            settings.listen[2],
            Listen::Tcp(([127, 0, 0, 1], 7430).into())
        );
        assert!(matches!(settings.listen[3], Listen::Tls(_)));
        assert_eq!(settings.tls.unwrap().allow, ["control"]);
        assert_eq!(settings.access.plain_tcp, PlainTcp::All);
        assert_eq!(settings.access.admin_group, "sifter-admin");
        assert_eq!(
            settings.metrics,
            Some(Listen::Tcp(([127, 0, 0, 1], 9464).into()))
        );
    }
}
