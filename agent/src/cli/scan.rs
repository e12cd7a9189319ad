//! `sifter scan`: no daemon, no configuration, no privilege.

use std::io::{self, IsTerminal};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use crate::catalog::{ChangeKind, Content, Found};
use crate::config::RootSettings;
use crate::scan::{Progress, Root, ScanError, ScanOptions};
use crate::words;

use super::bar::Bars;
use super::listing::ListingArgs;
use super::printer::Printer;
use super::targets::{self, Apart, Target};
use super::{Exit, complain};

/// Scan directories (or look at files) for images and print them
///
/// Needs no agent, no configuration and no privilege: shows what you may read.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  sifter scan ~ /scratch/$USER --sort -size --totals
  sifter scan ~ /scratch/$USER --duplicates
  sifter scan ~ --filter 'repository=*samtools*'
  sifter scan ~ --filter 'unused>1y' --sort accessed
  sifter scan ~ --filter 'status!=READY' --format path,status_message")]
pub struct Args {
    /// Directories to scan, or files to look at
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,

    #[command(flatten)]
    listing: ListingArgs,

    /// Look into every regular file, whatever its name and size
    #[arg(long)]
    all_files: bool,

    /// Enter other file systems mounted below PATH, as homes of an automounter are
    #[arg(long)]
    cross_file_systems: bool,

    /// Follow symbolic links (slower)
    #[arg(long, short = 'L')]
    follow_symlinks: bool,

    /// Do not enter directories deeper than this
    #[arg(long, value_name = "N")]
    max_depth: Option<u32>,

    /// Operations in flight at most [default: measured; 4 on network file systems]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    width: Option<u32>,

    /// Operations a second at most, 0 for no limit [default: 500 on network file systems]
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = parse_rate)]
    operations_per_second: Option<f64>,

    /// Leave out labels, definition and objects in JSON
    #[arg(long)]
    basic: bool,
}

/// As in the configuration: what is no rate must not pass for no limit.
fn parse_rate(text: &str) -> Result<f64, String> {
    let rate = text.parse().ok().filter(|rate| (0.0..=1e9).contains(rate));
    rate.ok_or_else(|| "must be 0 (no limit) or more".to_owned())
}

/// Runs the command.
///
/// # Errors
///
/// Writing failed, or no path could be scanned.
pub fn run(args: Args) -> anyhow::Result<Exit> {
    let printer = Printer::new(&args.listing, !args.basic)?;
    // Lines of the listing that come in between would be written over, or over the progress.
    let shares_terminal = printer.prints_at_once() && io::stdout().is_terminal();
    let bars = if shares_terminal {
        None
    } else {
        Bars::of_standard_error()
    };
    let mut exit = Exit::Success;
    // A header over nothing would say that there are no images where none were looked for.
    let mut is_listing = false;
    for target in targets::targets(&args.paths) {
        let (scanned, is_listed) = match target {
            Target::File(path) => {
                let scanned = file(&path, &printer)?;
                (scanned, scanned == Exit::Success)
            }
            Target::Directory(path, apart) => {
                let settings = settings(path, &args, &apart);
                let options = ScanOptions {
                    without_details: !printer.needs_details(),
                    chosen_depth: args.max_depth.is_some(),
                    ..ScanOptions::default()
                };
                directory(&settings, &apart, options, &printer, bars.as_ref())?
            }
            Target::Refused(path, error) => {
                complain(&format!("scan {}: {error}", crate::escape::path(&path)));
                (Exit::Failure, false)
            }
        };
        exit = exit.and(scanned);
        is_listing |= is_listed;
    }
    if is_listing {
        printer.finish()?;
    }
    Ok(exit)
}

fn settings(path: PathBuf, args: &Args, apart: &Apart) -> RootSettings {
    let mut settings = RootSettings::new(path);
    settings.background = false;
    settings.cross_file_systems = args.cross_file_systems;
    settings.follow_symlinks = args.follow_symlinks;
    settings.width = args.width;
    settings.operations_per_second = args.operations_per_second;
    settings.exclude = apart.globs();
    if let Some(depth) = args.max_depth {
        settings.max_depth = depth;
    }
    if args.all_files {
        settings.candidates = crate::config::Candidates::All;
    }
    settings
}

fn file(path: &Path, printer: &Printer) -> anyhow::Result<Exit> {
    let probed = super::inspect::probe(path, &sifter_image::Options::default());
    match probed.map(|(facts, probed)| (facts, probed.verdict)) {
        Ok((facts, sifter_image::Verdict::Image(image))) => {
            let root = path.parent().unwrap_or(path);
            let found = Found {
                name: path.file_name().unwrap_or_default().as_bytes().into(),
                facts,
                volatile: false,
                content: Content::Image(image),
            };
            printer.directory(root, b"", vec![found])?;
            Ok(Exit::Success)
        }
        Ok((_, sifter_image::Verdict::NotImage(why))) => {
            complain(&super::inspect::not_an_image(path, why));
            Ok(Exit::Negative)
        }
        Err(error) => {
            complain(&format!("scan {}: {error}", crate::escape::path(path)));
            Ok(Exit::Failure)
        }
    }
}

/// Prints what is in a directory; gives also whether it could be looked into.
fn directory(
    settings: &RootSettings,
    apart: &Apart,
    options: ScanOptions,
    printer: &Printer,
    bars: Option<&Bars>,
) -> anyhow::Result<(Exit, bool)> {
    let progress = Arc::new(Progress::default());
    let bar = bars.map(|bars| bars.show(&settings.path, &progress));
    let unprinted = OnceLock::new();
    let scanned = scan(settings, apart, options, &progress, printer, &unprinted);
    if let Some(bar) = bar {
        bar.finish();
    }
    if let Some(error) = unprinted.into_inner() {
        return Err(error.into());
    }
    let problems = progress.problems();
    for problem in &problems.first {
        complain(&problem.message);
    }
    let rest = problems.count() - problems.first.len() as u64;
    if rest > 0 {
        complain(&format!("… and {rest} more problems"));
    }
    let skipped = progress.counts().mounts_skipped;
    if skipped > 0 {
        // Automounted homes are such: a short listing must not pass for all there is.
        complain(&format!(
            "{}: {} below it {} not entered (see --cross-file-systems)",
            crate::escape::path(&settings.path),
            words::count(skipped, "mount point"),
            if skipped == 1 { "is" } else { "are" }
        ));
    }
    let exit = match &scanned {
        Err(error) => {
            complain(&error.to_string());
            Exit::Failure
        }
        Ok(()) if problems.count() > 0 => Exit::Partial,
        Ok(()) => Exit::Success,
    };
    Ok((exit, !matches!(scanned, Err(ScanError::Root { .. }))))
}

/// Scans and prints; what keeps it from printing ends the scan and goes to `unprinted`.
fn scan(
    settings: &RootSettings,
    apart: &Apart,
    options: ScanOptions,
    progress: &Arc<Progress>,
    printer: &Printer,
    unprinted: &OnceLock<io::Error>,
) -> Result<(), ScanError> {
    let root = Root::open(settings, progress)?;
    // One that may be entered but not listed is as good as unreadable.
    root.is_empty(settings, progress)?;
    root.scan(settings, options, None, progress, &|change| {
        let (ChangeKind::Read { found, .. } | ChangeKind::Part { found }) = change.kind else {
            return;
        };
        let found = apart.leave_out(&change.path, found);
        if !found.is_empty()
            && let Err(error) = printer.directory(&settings.path, &change.path, found)
        {
            // The first error is the one to tell.
            let _ = unprinted.set(error);
            progress.cancel();
        }
    })
}
