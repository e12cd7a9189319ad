//! `sifter-control check-config`: would `serve` start with this configuration?

use std::process::ExitCode;

use jiff::Timestamp;
use sifter_tls::Held;

use crate::config::AuthSettings;
use crate::config::Settings;
use crate::server;
use crate::words::count;

/// Check the configuration, and the keys and certificates that it names, and print what is wrong
///
/// Ends with 0 if `serve` would start with it, 78 if not.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    pub(super) config: super::ConfigFile,
}

pub(super) fn run(args: Args) -> ExitCode {
    let settings = match Settings::load(&args.config.path) {
        Ok(settings) => settings,
        Err(error) => return super::fail(&error, super::EXIT_CONFIG),
    };
    match server::check(&settings) {
        Ok(held) => super::answer(summary(&args, &settings, &held), ExitCode::SUCCESS),
        Err(error) => super::fail(&error, super::EXIT_CONFIG),
    }
}

fn summary(args: &Args, settings: &Settings, held: &[Held]) -> String {
    let auth = match &settings.auth {
        AuthSettings::None => "none (loopback only)",
        AuthSettings::Signatures(_) => "signatures",
    };
    let nodes: usize = settings
        .clusters
        .iter()
        .map(|cluster| cluster.login_nodes.len())
        .sum();
    let mut summary = format!(
        "{}: good: {}, {}, auth {auth}\n",
        args.config.path.display(),
        count(settings.clusters.len(), "cluster"),
        count(nodes, "login node"),
    );
    for cluster in &settings.clusters {
        if cluster.login_nodes.is_empty() {
            summary.push_str(&format!(
                "note: cluster {:?} has no login node: requests for it are answered LoginNotFound\n",
                cluster.id
            ));
        }
    }
    for held in held {
        for note in held.notes(Timestamp::now()) {
            summary.push_str(&format!("note: {note}\n"));
        }
    }
    summary
}
