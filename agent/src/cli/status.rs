//! `sifter status`: how the agent is.

use std::io::Write;

use sifter_proto::v1;

use super::Exit;
use super::connect::{Address, block_on, refused};
use crate::escape;
use crate::words;
use crate::words::count;

/// Show the state of the agent and its roots
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    address: Address,

    /// As JSON, in the spelling of the gRPC contract
    #[arg(long)]
    json: bool,
}

/// Runs the command.
///
/// # Errors
///
/// The agent does not answer, or refuses.
pub fn run(args: Args) -> anyhow::Result<Exit> {
    let status = block_on(async {
        let mut client = args.address.agent().await?;
        client
            .get_status(v1::GetStatusRequest {})
            .await
            .map(tonic::Response::into_inner)
            .map_err(|status| refused(&status))
    })?;
    let mut out = std::io::stdout().lock();
    if args.json {
        serde_json::to_writer(&mut out, &status).map_err(std::io::Error::from)?;
        writeln!(out)?;
    } else {
        write_status(&mut out, &status)?;
    }
    let unwell = !status.ready
        || status.catalog_state() == v1::CatalogState::Failed
        || status
            .roots
            .iter()
            .any(|root| root.state() == v1::RootState::Unavailable);
    Ok(if unwell { Exit::Partial } else { Exit::Success })
}

fn write_status(out: &mut dyn Write, status: &v1::GetStatusResponse) -> std::io::Result<()> {
    let line = |out: &mut dyn Write, title: &str, value: &str| {
        writeln!(out, "{title:<10} {}", escape::terminal(value))
    };
    line(
        out,
        "agent",
        &format!(
            "sifter {} on {}, {}",
            status.version,
            status.host,
            if status.ready {
                "ready"
            } else {
                "not ready: the first scan has not finished"
            }
        ),
    )?;
    line(out, "system", &status.system)?;
    let catalog = match status.catalog_state() {
        v1::CatalogState::Failed => format!(
            "{} FAILED, going on in memory: {}",
            status.catalog_uri, status.catalog_message
        ),
        v1::CatalogState::Memory => format!("{} (in memory, as configured)", status.catalog_uri),
        _ => status.catalog_uri.clone(),
    };
    line(out, "catalogue", &catalog)?;
    let confined = match status.confinement() {
        // An agent that is older than the field does not say.
        v1::Confinement::Unspecified => None,
        v1::Confinement::Off => Some("no"),
        v1::Confinement::Partial => Some("in part"),
        v1::Confinement::Full => Some("yes, by Landlock"),
    };
    if let Some(confined) = confined {
        let why = match status.confinement_message.as_str() {
            "" => String::new(),
            message => format!(": {message}"),
        };
        line(out, "confined", &format!("{confined}{why}"))?;
    }
    let mut counts: Vec<_> = status.image_count_by_status.iter().collect();
    counts.sort();
    let counts: Vec<String> = counts
        .iter()
        .map(|(name, count)| format!("{count} {name}"))
        .collect();
    let counts = match &*counts {
        [] => String::new(),
        counts => format!(" ({})", counts.join(", ")),
    };
    line(out, "images", &format!("{}{counts}", status.image_count))?;
    line(
        out,
        "listing",
        &format!(
            "generation {}, confirmed {}",
            status.generation,
            ago(status.as_of.as_ref())
        ),
    )?;
    for root in &status.roots {
        writeln!(out)?;
        write_root(out, root)?;
    }
    Ok(())
}

fn write_root(out: &mut dyn Write, root: &v1::Root) -> std::io::Result<()> {
    let state = root.state().as_str_name();
    let state = state.strip_prefix("ROOT_STATE_").unwrap_or(state);
    writeln!(
        out,
        "root {}  {state}  {}  ({}{}, changes by {})",
        escape::terminal(&root.path),
        count(root.image_count, "image"),
        if root.file_system_type.is_empty() {
            "unknown"
        } else {
            &root.file_system_type
        },
        if root.network { ", network" } else { "" },
        if root.hint_mode() == v1::HintMode::Inotify {
            "inotify and interval"
        } else {
            "interval"
        },
    )?;
    if !root.message.is_empty() {
        writeln!(out, "    {}", escape::terminal(&root.message))?;
    }
    if !root.hint_message.is_empty() {
        writeln!(out, "    {}", escape::terminal(&root.hint_message))?;
    }
    if let Some(progress) = &root.progress {
        // Withheld from callers who do not see everything.
        match &progress.counts {
            None => writeln!(out, "    scanning, {} in flight", progress.width)?,
            Some(counts) => writeln!(
                out,
                "    scanning: {}, {}, {}; {} pending, {} in flight",
                count(counts.directories, "directory"),
                count(counts.files, "file"),
                count(counts.images, "image"),
                progress.directories_pending,
                progress.width
            )?,
        }
    }
    if let Some(scan) = &root.last_scan {
        let duration = scan.duration.unwrap_or_default();
        write!(
            out,
            "    last scan {}, took {}.{:03} s",
            ago(scan.start_time.as_ref()),
            duration.seconds,
            duration.nanos / 1_000_000,
        )?;
        match &scan.counts {
            None => writeln!(out)?,
            Some(counts) => writeln!(
                out,
                ": {}, {} read, {}, {}",
                count(counts.directories, "directory"),
                count(counts.files_read, "file"),
                count(counts.operations, "operation"),
                count(scan.problem_count, "problem")
            )?,
        }
        if let Some(counts) = scan.counts
            && counts.misnamed > 0
        {
            writeln!(
                out,
                "    {} {} an image name and other content",
                count(counts.misnamed, "file"),
                if counts.misnamed == 1 { "has" } else { "have" }
            )?;
        }
        if let Some(counts) = scan.counts
            && counts.mounts_skipped > 0
        {
            writeln!(
                out,
                "    {} {} not entered (see `cross_file_systems`)",
                count(counts.mounts_skipped, "mount point"),
                if counts.mounts_skipped == 1 {
                    "is"
                } else {
                    "are"
                }
            )?;
        }
    }
    for problem in root.problems.iter().take(5) {
        writeln!(
            out,
            "    {}: {}",
            problem.kind,
            escape::terminal(&problem.message)
        )?;
    }
    if root.problems.len() > 5 {
        writeln!(out, "    … (all: --json)")?;
    }
    Ok(())
}

fn ago(time: Option<&sifter_proto::Timestamp>) -> String {
    time.and_then(|time| jiff::Timestamp::try_from(*time).ok())
        .map_or_else(
            || "never".to_owned(),
            |time| words::ago(time, jiff::Timestamp::now()),
        )
}
