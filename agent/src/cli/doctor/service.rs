//! Whether the agent answers, and what it says of itself.

use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use rustix::fs::{Access, access};
use sifter_proto::v1;

use super::Finding;
use crate::cli::connect::{Address, block_on};
use crate::config::{Listen, Settings};
use crate::escape;

/// How long a port may take.
const CONNECT: Duration = Duration::from_secs(3);

pub(super) fn examine(settings: &Settings) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut asked = false;
    for listen in &settings.listen {
        let subject = format!("address {listen}");
        if let Listen::Tcp(address) | Listen::Tls(address) = listen
            && address.port() == 0
        {
            findings.push(Finding::ok(subject, "the port is chosen at every start"));
            continue;
        }
        let reached = match listen {
            Listen::Unix(path) => std::os::unix::net::UnixStream::connect(path)
                .map_err(|error| {
                    let advice = match (error.kind(), path.parent()) {
                        (std::io::ErrorKind::PermissionDenied, _) => {
                            "this user may not use the socket: see socket_mode".to_owned()
                        }
                        (_, Some(directory))
                            if access(directory, Access::WRITE_OK | Access::EXEC_OK).is_err() =>
                        {
                            format!(
                                "start the agent: systemctl start sifter-agent. Without systemd, \
                                 this user cannot make the socket in {}",
                                escape::path(directory)
                            )
                        }
                        _ => "start the agent: systemctl start sifter-agent".to_owned(),
                    };
                    (error, advice)
                })
                .map(drop),
            Listen::Tcp(address) | Listen::Tls(address) => {
                TcpStream::connect_timeout(&reachable(*address), CONNECT)
                    .map_err(|error| {
                        (
                            error,
                            "start the agent: systemctl start sifter-agent".to_owned(),
                        )
                    })
                    .map(drop)
            }
        };
        match reached {
            Err((error, advice)) => findings.push(Finding::failed(
                subject,
                format!("nobody answers: {error}"),
                advice,
            )),
            Ok(()) if asked || matches!(listen, Listen::Tls(_)) => {
                findings.push(Finding::ok(subject, "answers"));
            }
            Ok(()) => {
                asked = true;
                findings.push(Finding::ok(subject, "answers"));
                findings.extend(status(listen));
            }
        }
    }
    findings
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
            format!("sifter {own}, {} images visible here", status.image_count),
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
            "free space or repair the disk; the agent takes it up again by itself",
        ));
    }
    for root in &status.roots {
        let subject = format!("agent, root {}", root.path);
        if root.state() == v1::RootState::Unavailable {
            findings.push(Finding::failed(
                subject,
                root.message.clone(),
                "mount it, or let the agent's user read it; the next scan finds it",
            ));
            continue;
        }
        let problems = root.last_scan.as_ref().map_or(0, |scan| scan.problem_count);
        if problems > 0 {
            findings.push(Finding::warning(
                subject,
                format!("{problems} problems in the last scan"),
                "`sifter status` lists them",
            ));
        }
    }
    findings
}
