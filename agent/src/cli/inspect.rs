//! `sifter inspect`: all that is known of one image, without a runtime.

use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sifter_image::{Options, Subject, Verdict};

use crate::catalog::{FileFacts, Interner, Row};
use crate::escape;
use crate::scan;
use crate::service::{Owners, convert};

use super::{Exit, complain};

/// Show all that is known of an image
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Image file or sandbox directory
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,

    /// One JSON object an image, in the spelling of the gRPC contract
    #[arg(long)]
    json: bool,
}

/// Runs the command.
///
/// # Errors
///
/// Writing failed.
pub fn run(args: Args) -> anyhow::Result<Exit> {
    let owners = Owners::default();
    let mut texts = Interner::default();
    let mut exit = Exit::Success;
    let mut out = io::stdout().lock();
    for (index, path) in args.files.iter().enumerate() {
        let shown = escape::path(path);
        let (facts, image) = match probe_file(path, &Options::default()) {
            Ok((facts, Verdict::Image(image))) => (facts, image),
            Ok((_, Verdict::NotImage(why))) => {
                complain(&format!("{shown}: not an image ({})", why_not(why)));
                exit = Exit::Negative;
                continue;
            }
            Err(error) => {
                complain(&format!("{shown}: {error}"));
                exit = Exit::Failure;
                continue;
            }
        };
        let absolute = std::path::absolute(path)?;
        let root: Arc<str> = absolute
            .parent()
            .map(|root| escape::utf8(root.as_os_str().as_bytes()))
            .unwrap_or_default()
            .into();
        let bytes = absolute.as_os_str().as_bytes();
        let row = Row::new(0, bytes.into(), &root, facts, &image, &mut texts);
        let mut message = convert::basic(&row, &owners);
        convert::add_details(&mut message, crate::catalog::details(&image));
        if args.json {
            serde_json::to_writer(&mut out, &message)?;
            writeln!(out)?;
        } else {
            if index > 0 {
                writeln!(out)?;
            }
            super::render::write_all(&mut out, &message)?;
        }
    }
    out.flush()?;
    Ok(exit)
}

/// Probes one file or directory by its path.
///
/// # Errors
///
/// What the operating system says.
pub fn probe_file(path: &Path, options: &Options) -> io::Result<(FileFacts, Verdict)> {
    let now = scan::now().timestamp();
    let absolute = std::path::absolute(path)?;
    if path.is_dir() {
        return scan::with_directory(path, |tree, facts| {
            let subject = Subject {
                path: &absolute,
                modified: facts.modified.timestamp(),
                now,
            };
            Ok((facts, sifter_image::probe_directory(tree, &subject, options)?))
        });
    }
    let file = scan::open_file(path)?;
    let subject = Subject {
        path: &absolute,
        modified: file.facts.modified.timestamp(),
        now,
    };
    let verdict = sifter_image::probe(&file, &subject, options)?;
    Ok((file.facts, verdict))
}

fn why_not(why: sifter_image::NotImage) -> &'static str {
    match why {
        sifter_image::NotImage::OtherContent => "content of no image format",
        sifter_image::NotImage::Misnamed => "an image name over other content",
        sifter_image::NotImage::PlainFileSystem => "a file system without a container inside",
    }
}
