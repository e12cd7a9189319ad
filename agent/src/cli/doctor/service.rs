//! Whether the agent answers, and what it says of itself.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use nix::errno::Errno;
use rustix::fs::{Access, access};
use sifter_proto::v1;

use super::Finding;
use crate::cli::connect::{Address, block_on};
use crate::config::{Listen, Settings};
use crate::escape;
use crate::words::count;

/// How long a port may take.
const CONNECT: Duration = Duration::from_secs(3);

/// Most bytes of a page that are looked at.
const PAGE_MAX: u64 = 64 << 20;

/// What to do where nobody answers.
const START: &str = "start the agent: systemctl start sifter-agent";

pub(super) fn examine(settings: &Settings) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut asked = false;
    for listen in &settings.listen {
        let subject = format!("address {listen}");
        if has_changing_port(listen) {
            findings.push(Finding::ok(subject, "the port is chosen at every start"));
            continue;
        }
        match reach(listen, "socket_mode") {
            Err((error, advice)) => findings.push(Finding::failed(
                subject,
                format!("nobody answers: {error}"),
                advice,
            )),
            Ok(_) if asked || matches!(listen, Listen::Tls(_)) => {
                findings.push(Finding::ok(subject, "answers"));
            }
            Ok(_) => {
                asked = true;
                findings.push(Finding::ok(subject, "answers"));
                findings.extend(status(listen));
            }
        }
    }
    findings.extend(settings.metrics.as_ref().map(metrics));
    findings
}

/// Whether only the running agent knows its port.
fn has_changing_port(listen: &Listen) -> bool {
    matches!(listen, Listen::Tcp(address) | Listen::Tls(address) if address.port() == 0)
}

/// A connection.
trait Wire: Read + Write {}

impl<T: Read + Write> Wire for T {}

/// Connects, or says why that does not work and what to do. `mode`: what is to be looked at where
/// this user may not.
fn reach(listen: &Listen, mode: &str) -> Result<Box<dyn Wire>, (std::io::Error, String)> {
    match listen {
        Listen::Unix(path) => {
            let connected = UnixStream::connect(path).and_then(|stream| {
                stream.set_read_timeout(Some(CONNECT))?;
                stream.set_write_timeout(Some(CONNECT))?;
                Ok(Box::new(stream) as Box<dyn Wire>)
            });
            connected.map_err(|error| {
                let advice = match (error.kind(), path.parent()) {
                    (std::io::ErrorKind::PermissionDenied, _) => {
                        format!("this user may not use the socket: see {mode}")
                    }
                    (_, Some(directory))
                        if access(directory, Access::WRITE_OK | Access::EXEC_OK).is_err() =>
                    {
                        format!(
                            "{START}. Without systemd, this user cannot make the socket in {}",
                            escape::path(directory)
                        )
                    }
                    _ => START.to_owned(),
                };
                (error, advice)
            })
        }
        Listen::Tcp(address) | Listen::Tls(address) => {
            let connected =
                TcpStream::connect_timeout(&reachable(*address), CONNECT).and_then(|stream| {
                    stream.set_read_timeout(Some(CONNECT))?;
                    stream.set_write_timeout(Some(CONNECT))?;
                    Ok(Box::new(stream) as Box<dyn Wire>)
                });
            connected.map_err(|error| {
                let advice = advice_for_port(&error).to_owned();
                (error, advice)
            })
        }
    }
}

fn advice_for_port(error: &std::io::Error) -> &'static str {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EAFNOSUPPORT) => "this host has no IPv6: name an IPv4 address in `listen`",
        _ => START,
    }
}

/// Asks for the page as Prometheus does.
fn metrics(address: &Listen) -> Finding {
    let subject = format!("metrics {address}");
    if has_changing_port(address) {
        return Finding::ok(subject, "the port is chosen at every start");
    }
    let mut wire = match reach(address, "its user and group, which alone may read them") {
        Ok(wire) => wire,
        Err((error, advice)) => {
            return Finding::failed(subject, format!("nobody answers: {error}"), advice);
        }
    };
    let mut page = Vec::new();
    let read = wire
        .write_all(b"GET /metrics HTTP/1.1\r\nHost: sifter\r\nConnection: close\r\n\r\n")
        .and_then(|()| (&mut wire).take(PAGE_MAX).read_to_end(&mut page));
    let page = String::from_utf8_lossy(&page);
    let first = page.lines().next().unwrap_or_default();
    let advice = "see whether another program listens there, and the agent's log: journalctl -u \
                  sifter-agent";
    match read {
        Err(error) => Finding::failed(subject, format!("no page: {error}"), advice),
        Ok(_) if !first.starts_with("HTTP/1.1 200 ") || !page.contains("sifter_agent_") => {
            let message = match first {
                "" => "answers nothing".to_owned(),
                first => format!("answers, but not with the agent's metrics: {first}"),
            };
            Finding::failed(subject, message, advice)
        }
        Ok(_) => Finding::ok(subject, "are served"),
    }
}

/// Where an address that is listened on can be reached from here.
fn reachable(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V4(v4) if v4.ip().is_unspecified() => ([127, 0, 0, 1], v4.port()).into(),
        SocketAddr::V6(v6) if v6.ip().is_unspecified() => {
            (std::net::Ipv6Addr::LOCALHOST, v6.port()).into()
        }
        other => other,
    }
}

fn status(listen: &Listen) -> Vec<Finding> {
    let address = Address::new(listen.to_string());
    let answer = block_on(async {
        let mut client = address.agent().await?;
        let mut request = tonic::Request::new(v1::GetStatusRequest {});
        request.set_timeout(CONNECT);
        Ok(client.get_status(request).await?.into_inner())
    });
    match answer {
        Ok(status) => judge(&status),
        Err(error) => vec![Finding::failed(
            "agent",
            format!("{error:#}"),
            "see its log: journalctl -u sifter-agent",
        )],
    }
}

fn judge(status: &v1::GetStatusResponse) -> Vec<Finding> {
    let own = env!("CARGO_PKG_VERSION");
    let mut findings = vec![if status.version == own {
        Finding::ok(
            "agent",
            format!(
                "sifter {own}, {} visible here",
                count(status.image_count, "image")
            ),
        )
    } else {
        Finding::warning(
            "agent",
            format!("runs {}, and this is {own}", status.version),
            "systemctl restart sifter-agent",
        )
    }];
    let confined = match status.confinement() {
        v1::Confinement::Full => Some("by Landlock"),
        v1::Confinement::Partial => Some("by Landlock in part"),
        v1::Confinement::Off => Some("not by Landlock"),
        v1::Confinement::Unspecified => None,
    };
    if let Some(confined) = confined {
        let message = match status.confinement_message.as_str() {
            "" => confined.to_owned(),
            why => format!("{confined}: {why}"),
        };
        findings.push(Finding::ok("agent, confined", message));
    }
    if !status.ready {
        findings.push(Finding::warning(
            "agent",
            "the first scan has not ended: listings are not answered yet",
            "wait; `sifter status` shows its progress",
        ));
    }
    if status.catalog_state() == v1::CatalogState::Failed {
        findings.push(Finding::failed(
            "agent",
            format!("works without its catalogue: {}", status.catalog_message),
            "once that is mended, the agent takes it up again by itself at the next scan; if it says no more, look \
             at the space and the state of the disk",
        ));
    }
    for root in &status.roots {
        let subject = format!("agent, root {}", root.path);
        if root.state() == v1::RootState::Unavailable {
            findings.push(Finding::failed(
                subject,
                root.message.clone(),
                "mount it, let the agent's user read it, or keep one of two that overlap; the next scan finds it",
            ));
            continue;
        }
        let problems = root.last_scan.as_ref().map_or(0, |scan| scan.problem_count);
        if problems > 0 {
            findings.push(Finding::warning(
                subject,
                format!("{} in the last scan", count(problems, "problem")),
                "`sifter status` lists them",
            ));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use nix::errno::Errno;

    use super::{START, advice_for_port};

    #[test]
    fn a_host_without_ipv6_is_not_told_to_start_the_agent() {
        let advice = |error: Errno| advice_for_port(&error.into());
        assert!(advice(Errno::EAFNOSUPPORT).contains("no IPv6"));
        assert_eq!(advice(Errno::ECONNREFUSED), START);
    }
}
