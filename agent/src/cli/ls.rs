//! `sifter ls`: what a running agent knows.

use std::io::{self, IsTerminal};

use sifter_proto::v1;

use super::candidates;
use super::connect::{Address, block_on, refused};
use super::listing::ListingArgs;
use super::{Exit, complain};

/// List the images that the agent knows
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  sifter ls '*samtools*'
  sifter ls quay.io/biocontainers/samtools --format tag,size,path
  sifter ls --filter 'size>10G' --filter 'age>1y' --sort -size
  sifter ls --filter 'signed=no' --group-by owner --totals
  sifter ls --candidates-for-removal --unused-for 1y")]
pub struct Args {
    #[command(flatten)]
    address: Address,

    #[command(flatten)]
    listing: ListingArgs,

    /// With labels, definition and objects
    #[arg(long, conflicts_with = "duplicates")]
    full: bool,

    /// Images that were not read for long, the longest first; nothing is ever deleted
    ///
    /// By the last access as the file system tells it, which is weak: file systems mounted with
    /// noatime never tell, relatime tells the day.
    #[arg(long, conflicts_with = "duplicates")]
    candidates_for_removal: bool,

    /// How long not read
    #[arg(
        long,
        value_name = "DURATION",
        requires = "candidates_for_removal",
        default_value = candidates::UNUSED_FOR
    )]
    unused_for: String,

    /// Only this repository or repository:tag, in full or with `*` for any characters and `?` for one
    #[arg(value_name = "REFERENCE", value_parser = parse_reference)]
    reference: Option<String>,
}

/// As an empty term of a filter, one is rather a variable that was never set.
fn parse_reference(text: &str) -> Result<String, String> {
    if text
        .strip_prefix("docker://")
        .unwrap_or(text)
        .trim()
        .is_empty()
    {
        return Err("an empty reference: write one, as in `samtools:1.9`, or leave it out".into());
    }
    Ok(text.to_owned())
}

/// Runs the command.
///
/// # Errors
///
/// The agent does not answer, or refuses.
pub fn run(mut args: Args) -> anyhow::Result<Exit> {
    let term = args.reference.as_deref().map(reference_term);
    if let Some(term) = &term {
        args.listing.also(term.clone());
    }
    let mut confirm = None;
    if args.candidates_for_removal {
        confirm = Some(candidates::Confirm::new(
            &args.unused_for,
            args.address.is_local(),
        )?);
        candidates::select(&mut args.listing, &args.unused_for);
    }
    let request = v1::StreamImagesRequest {
        filter: args.listing.filter(),
        order_by: args.listing.order_by().to_owned(),
        view: if args.full || args.listing.output().needs_details() {
            v1::ImageView::Full.into()
        } else {
            v1::ImageView::Basic.into()
        },
    };
    let mut listing = args.listing.start(args.address.is_local())?;
    let mut is_empty = true;
    let exit = stream(&args.address, request, |image| {
        is_empty = false;
        let is_listed = confirm
            .as_mut()
            .is_none_or(|confirm| confirm.is_unused(&image));
        if is_listed {
            listing.image(&image)
        } else {
            Ok(())
        }
    })?;
    listing.finish()?;
    if let Some(confirm) = confirm {
        confirm.note();
    }
    if let Some(hint) = term.filter(|_| is_empty).and_then(|term| hint(&term))
        && io::stderr().is_terminal()
    {
        complain(&hint);
    }
    Ok(exit)
}

/// For who finds nothing by a name without its registry, and is not to believe that there is nothing.
fn hint(term: &str) -> Option<String> {
    let (_, name) = term.split_once('=')?;
    (!name.contains(['*', '?'])).then(|| {
        format!("nothing by the whole name `{name}`; by part of it: `sifter ls '*{name}*'`")
    })
}

/// Gives every image of the listing to `each`.
fn stream(
    address: &Address,
    request: v1::StreamImagesRequest,
    mut each: impl FnMut(v1::Image) -> std::io::Result<()>,
) -> anyhow::Result<Exit> {
    block_on(async {
        let mut client = address.images().await?;
        let mut stream = client
            .stream_images(request)
            .await
            .map_err(|status| refused(&status))?
            .into_inner();
        let mut exit = Exit::Success;
        while let Some(batch) = stream.message().await.map_err(|status| refused(&status))? {
            for root in batch.unlisted_roots {
                complain(&format!(
                    "not listed: {}: {}: nothing is known of it",
                    root.command, root.error
                ));
                exit = Exit::Partial;
            }
            batch.images.into_iter().try_for_each(&mut each)?;
        }
        Ok(exit)
    })
}

/// `samtools` is any tag of that repository; `samtools:1.9` one; `host:5000/tool` has no tag. What is written in
/// full of Docker Hub is listed without its host.
fn reference_term(reference: &str) -> String {
    let of_docker = reference.strip_prefix("docker://");
    let name = of_docker.unwrap_or(reference);
    let on_hub = ["docker.io/", "index.docker.io/"]
        .iter()
        .find_map(|host| name.strip_prefix(host))
        .or(of_docker);
    let reference = on_hub.map_or(name, |path| match path.strip_prefix("library/") {
        // Hub's namespace only directly before a name.
        Some(official) if !official.contains('/') => official,
        _ => path,
    });
    // By digest: that is the tag then.
    if let Some((repository, digest)) = reference.split_once('@') {
        return format!("reference={repository}:{digest}");
    }
    let name = reference.rsplit('/').next().unwrap_or_default();
    let field = if name.contains(':') {
        "reference"
    } else {
        "repository"
    };
    format!("{field}={reference}")
}

#[cfg(test)]
mod tests {
    use super::{hint, parse_reference, reference_term};

    #[test]
    fn an_empty_reference_is_an_error() {
        for (text, is_one) in [
            ("", false),
            (" ", false),
            ("docker://", false),
            ("samtools", true),
            ("*", true),
        ] {
            assert_eq!(parse_reference(text).is_ok(), is_one, "{text:?}");
        }
    }

    #[test]
    fn a_reference_is_a_term() {
        for (reference, term) in [
            ("samtools", "repository=samtools"),
            ("*samtools:1.9", "reference=*samtools:1.9"),
            ("host:5000/tool", "repository=host:5000/tool"),
            (
                "host:5000/tool@sha256:1f",
                "reference=host:5000/tool:sha256:1f",
            ),
            ("host:5000/tool:1", "reference=host:5000/tool:1"),
            ("docker.io/library/alpine:3", "reference=alpine:3"),
            ("index.docker.io/org/tool", "repository=org/tool"),
            ("docker://docker.io/alpine", "repository=alpine"),
            ("docker://quay.io/a/b:1", "reference=quay.io/a/b:1"),
            ("library/alpine", "repository=library/alpine"),
            ("docker://library/alpine:3", "reference=alpine:3"),
            ("docker.io/library/a/b", "repository=library/a/b"),
        ] {
            assert_eq!(reference_term(reference), term);
        }
    }

    #[test]
    fn a_hint_is_a_command_that_looks_for_part_of_the_name() {
        for (term, pattern) in [
            ("repository=samtools", Some("*samtools*")),
            ("reference=samtools:1.9", Some("*samtools:1.9*")),
            ("repository=*samtools", None),
            ("reference=samtools:1.?", None),
        ] {
            let hint = hint(term);
            assert_eq!(hint.is_some(), pattern.is_some(), "{term}");
            if let (Some(hint), Some(pattern)) = (hint, pattern) {
                assert!(
                    hint.ends_with(&format!("`sifter ls '{pattern}'`")),
                    "{hint}"
                );
                let (field, _) = term.split_once('=').unwrap();
                assert_eq!(reference_term(pattern), format!("{field}={pattern}"));
            }
        }
    }
}
