//! `sifter ls`: what a running agent knows.

use std::io::{BufWriter, Write};

use sifter_proto::v1;

use super::connect::{Address, block_on, refused};
use super::scan::OutputArgs;
use super::{Exit, complain};

/// List the images that the agent knows
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    address: Address,

    #[command(flatten)]
    output: OutputArgs,

    /// Only images that match: `repository=samtools*`, `size>1G`, `status=FAILURE`, `age>90d`;
    /// several: all must match
    #[arg(long, short, value_name = "TERM")]
    filter: Vec<String>,

    /// Order by fields: `size_bytes desc,path`
    #[arg(long, short, value_name = "FIELDS")]
    sort: Option<String>,

    /// With labels, definition and objects
    #[arg(long)]
    full: bool,

    /// Only this repository or repository:tag (`*` and `?` match)
    #[arg(value_name = "REFERENCE")]
    reference: Option<String>,
}

/// Runs the command.
///
/// # Errors
///
/// The agent does not answer, or refuses.
pub fn run(args: Args) -> anyhow::Result<Exit> {
    let mut filter = args.filter;
    if let Some(reference) = args.reference {
        let field = if reference.contains(':') {
            "reference"
        } else {
            "repository"
        };
        filter.push(format!("{field}={reference}"));
    }
    let request = v1::StreamImagesRequest {
        filter: filter.iter().map(|term| quote(term)).collect::<Vec<_>>().join(" "),
        order_by: args.sort.unwrap_or_default(),
        view: if args.full {
            v1::ImageView::Full.into()
        } else {
            v1::ImageView::Basic.into()
        },
    };
    let output = args.output.resolve();
    let mut out = BufWriter::new(std::io::stdout().lock());
    block_on(async {
        let mut client = args.address.images().await?;
        let mut stream = client
            .stream_images(request)
            .await
            .map_err(|status| refused(&status))?
            .into_inner();
        let mut exit = Exit::Success;
        let mut kept = Vec::new();
        while let Some(batch) = stream.message().await.map_err(|status| refused(&status))? {
            for root in batch.unlisted_roots {
                complain(&format!(
                    "not listed: {}: {}: nothing is known of it",
                    root.command, root.error
                ));
                exit = Exit::Partial;
            }
            for image in batch.images {
                if output.streams() {
                    output.write_one(&mut out, &image)?;
                } else {
                    kept.push(image);
                }
            }
        }
        if !output.streams() {
            output.write_table(&mut out, &kept)?;
        }
        out.flush()?;
        Ok(exit)
    })
}

/// A term as one word of the filter: blanks in it are kept together.
fn quote(term: &str) -> String {
    if term.contains(char::is_whitespace) && !term.contains('"') {
        format!("\"{term}\"")
    } else {
        term.to_owned()
    }
}
