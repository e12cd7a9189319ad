//! `sifter rescan`: asks a running agent to look now.

use std::io::Write;
use std::path::Path;

use sifter_proto::{reason, v1};
use tonic_types::StatusExt;

use super::bar::Bars;
use super::connect::{Address, block_on, refused};
use super::{Exit, WithExit};
use crate::escape;
use crate::words::count;

/// Ask the agent to scan now, and wait for it
///
/// Who does not see all images may wait longer: the agent scans a root for such users once in its
/// `rescan_interval` (a minute) at most, for all of them together.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    address: Address,

    /// Roots to scan, as configured [default: all]
    #[arg(value_name = "ROOT", value_hint = clap::ValueHint::DirPath)]
    roots: Vec<String>,

    /// Read everything again, whatever is known
    #[arg(long)]
    full: bool,

    /// Do not wait for the end
    #[arg(long)]
    no_wait: bool,
}

/// A root as it is configured: absolute, without `.`, `..` and the slash with which a shell completes the
/// name of a directory. What is no path here is sent as it is, for the agent to say so.
fn normal(root: &str) -> String {
    let absolute = super::targets::absolute(Path::new(root)).ok();
    let text = absolute.and_then(|path| path.into_os_string().into_string().ok());
    text.unwrap_or_else(|| root.to_owned())
}

/// The roots that can be scanned.
fn there_are(roots: &[String]) -> String {
    format!(
        "there are {} (a root is scanned as a whole)",
        roots.join(", ")
    )
}

/// Runs the command.
///
/// # Errors
///
/// The agent does not answer, or refuses.
pub fn run(args: Args) -> anyhow::Result<Exit> {
    let request = v1::ScanRequest {
        roots: args.roots.iter().map(|root| normal(root)).collect(),
        wait: !args.no_wait,
        full: args.full,
    };
    let bars = Bars::of_standard_error().filter(|_| request.wait);
    block_on(async {
        let mut client = args.address.agent().await?;
        let mut stream = match client.scan(request).await {
            Ok(stream) => stream.into_inner(),
            Err(status) => {
                let reason = status.get_details_error_info().map(|info| info.reason);
                if reason.as_deref() != Some(reason::ROOT_NOT_FOUND) {
                    return Err(refused(&status));
                }
                // Which there are is for whoever may ask for them.
                let known = client.get_status(v1::GetStatusRequest {}).await;
                let roots = known.map_err(|_| refused(&status))?.into_inner().roots;
                let roots: Vec<String> = roots.into_iter().map(|root| root.path).collect();
                let message = format!("{}; {}", status.message(), there_are(&roots));
                return Err(WithExit::error(Exit::Failure, message));
            }
        };
        let mut exit = Exit::Success;
        let bar = bars.map(|bars| bars.line("waiting for the scan to begin".to_owned()));
        while let Some(message) = stream.message().await.map_err(|status| refused(&status))? {
            let root = escape::terminal(&message.root);
            let Some(result) = message.result else {
                if let Some(bar) = &bar {
                    bar.set_message(format!("{root}: {}", so_far(message.progress)));
                }
                continue;
            };
            if !result.error.is_empty() || result.problem_count > 0 {
                exit = Exit::Partial;
            }
            let line = format!("{root}: {}\n", outcome(&result));
            let print = || std::io::stdout().write_all(line.as_bytes());
            match &bar {
                Some(bar) => bar.suspend(print)?,
                None => print()?,
            }
        }
        if let Some(bar) = bar {
            bar.finish_and_clear();
        }
        Ok(exit)
    })
}

/// How far a scan is. Counts are withheld from callers who do not see everything.
fn so_far(progress: Option<v1::ScanProgress>) -> String {
    let counts = progress.and_then(|progress| progress.counts);
    counts.map_or_else(
        || "being scanned".to_owned(),
        |counts| {
            format!(
                "{} in {}, {}",
                count(counts.images, "image"),
                count(counts.files, "file"),
                count(counts.directories, "directory")
            )
        },
    )
}

/// What became of a scan.
fn outcome(result: &v1::ScanResult) -> String {
    if !result.error.is_empty() {
        return escape::terminal(&result.error).into_owned();
    }
    let Some(counts) = &result.counts else {
        return "scanned".to_owned();
    };
    format!(
        "{}, {}, {} read, {}, {}",
        count(counts.images, "image"),
        count(counts.directories, "directory"),
        count(counts.files_read, "file"),
        count(counts.operations, "operation"),
        count(result.problem_count, "problem")
    )
}

#[cfg(test)]
mod tests {
    use super::normal;

    #[test]
    fn a_root_is_the_same_however_it_is_written() {
        let here = std::env::current_dir().unwrap();
        let here = here.to_str().unwrap();
        let below = format!("{here}/b");
        for (typed, root) in [
            ("/a/b", "/a/b"),
            ("/a/b//", "/a/b"),
            ("/a/./b/c/..", "/a/b"),
            ("/", "/"),
            ("", ""),
            (".", here),
            ("b/", &below),
        ] {
            assert_eq!(normal(typed), root);
        }
    }
}
