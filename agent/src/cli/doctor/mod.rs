//! `sifter doctor`: tries everything that the agent needs, and says what to do where it fails.

mod certificates;
mod host;
mod roots;
mod service;

use std::io::Write;
use std::sync::mpsc;
use std::time::Duration;

use super::Exit;
use super::agent::{ConfigArgs, found_as};
use crate::config::Settings;
use crate::escape;

/// How long one examination may take. A hung file system never answers.
const PATIENCE: Duration = Duration::from_secs(10);

/// Try everything the agent needs, and say what to fix
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Permissions must be the agent's. Run it as root, who asks as the user who runs
sifter-agent.service if that has this configuration; elsewhere as the agent's user:
  runuser -u sifter -- sifter doctor
Exit codes: 0 all well; 1 something must be fixed; 2 the configuration is wrong; 3 warnings only.")]
pub struct Args {
    #[command(flatten)]
    config: ConfigArgs,
}

/// How something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Verdict {
    /// As it should be.
    Ok,
    /// Works, and may not for long or not as meant.
    Warning,
    /// Does not work.
    Failed,
}

/// What one examination found.
#[derive(Debug, Clone)]
pub(super) struct Finding {
    verdict: Verdict,
    subject: String,
    message: String,
    /// What to do; empty if nothing.
    advice: String,
}

impl Finding {
    fn ok(subject: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            verdict: Verdict::Ok,
            subject: subject.into(),
            message: message.into(),
            advice: String::new(),
        }
    }

    fn warning(
        subject: impl Into<String>,
        message: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Self {
            verdict: Verdict::Warning,
            advice: advice.into(),
            ..Self::ok(subject, message)
        }
    }

    fn failed(
        subject: impl Into<String>,
        message: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Self {
            verdict: Verdict::Failed,
            advice: advice.into(),
            ..Self::ok(subject, message)
        }
    }
}

/// Runs an examination that may hang.
fn patiently(
    subject: String,
    examine: impl FnOnce() -> Vec<Finding> + Send + 'static,
) -> Vec<Finding> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || sender.send(examine()));
    receiver.recv_timeout(PATIENCE).unwrap_or_else(|_| {
        vec![Finding::failed(
            subject,
            format!("no answer within {} s", PATIENCE.as_secs()),
            "the file system hangs: see `dmesg`, and whether its servers can be reached",
        )]
    })
}

/// Tries everything; `user`: who this is, if root has become the user of the agent's unit.
fn examine(settings: &Settings, user: Option<&str>) -> Vec<Finding> {
    let mut findings = vec![Finding::ok(
        "configuration",
        super::agent::summary(settings),
    )];
    findings.extend(host::user(settings, user));
    for root in &settings.roots {
        let subject = format!("root {}", escape::path(&root.path));
        let root = root.clone();
        findings.extend(patiently(subject.clone(), move || {
            roots::examine(&subject, &root)
        }));
    }
    findings.extend(host::state(settings));
    if let Some(tls) = &settings.tls {
        findings.extend(certificates::examine(tls));
    }
    findings.extend(host::admin_group(settings));
    findings.extend(host::clock());
    findings.extend(service::examine(settings));
    findings
}

/// Runs the command.
///
/// # Errors
///
/// The configuration is wrong.
pub fn run(args: Args) -> anyhow::Result<Exit> {
    let user = args.config.become_its_user();
    let user = user.as_deref();
    let settings = args.config.resolve();
    let settings = settings.map_err(|error| found_as(user, error))?;
    let findings = examine(&settings, user);
    let mut out = std::io::stdout().lock();
    for finding in &findings {
        let verdict = match finding.verdict {
            Verdict::Ok => "ok",
            Verdict::Warning => "warning",
            Verdict::Failed => "FAILED",
        };
        writeln!(
            out,
            "{verdict:<8} {}: {}",
            escape::terminal(&finding.subject),
            escape::terminal(&finding.message)
        )?;
        if !finding.advice.is_empty() {
            writeln!(out, "{:<8} -> {}", "", escape::terminal(&finding.advice))?;
        }
    }
    let count = |verdict| {
        findings
            .iter()
            .filter(|finding| finding.verdict == verdict)
            .count() as u64
    };
    let (failed, warnings) = (count(Verdict::Failed), count(Verdict::Warning));
    writeln!(
        out,
        "{} examined: {failed} failed, {}",
        findings.len(),
        crate::words::count(warnings, "warning")
    )?;
    Ok(match (failed, warnings) {
        (0, 0) => Exit::Success,
        (0, _) => Exit::Partial,
        _ => Exit::Failure,
    })
}
