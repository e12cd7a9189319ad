//! `sifter watch`: changes as they happen.

use std::io::{self, Write};
use std::os::fd::AsFd;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use sifter_proto::v1;
use sifter_proto::v1::watch_images_response::Event;
use tonic_types::StatusExt;

use super::connect::{Address, block_on, refused};
use super::{Exit, listing};
use crate::escape;

/// Time between two looks whether an agent that has other roots now can list them.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Show images as they appear, change and go, until interrupted
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    address: Address,

    /// Only images that match, as in `ls`
    #[arg(long, short, value_name = "TERM", value_parser = listing::parse_term)]
    filter: Vec<String>,

    /// One JSON object an event
    #[arg(long)]
    json: bool,

    /// Go on after this generation instead of beginning with all images
    #[arg(long, value_name = "GENERATION")]
    resume: Option<u64>,

    /// Leave out the images that are there already
    #[arg(long)]
    changes_only: bool,
}

/// Runs the command.
///
/// # Errors
///
/// The agent does not answer, refuses, or ends the watch.
pub fn run(args: Args) -> anyhow::Result<Exit> {
    let terms: Vec<String> = args
        .filter
        .iter()
        .map(|term| crate::catalog::quote(term))
        .collect();
    let mut request = v1::WatchImagesRequest {
        filter: terms.join(" "),
        resume_generation: args.resume.unwrap_or(0),
        view: v1::ImageView::Basic.into(),
    };
    let mut silent = args.changes_only && args.resume.is_none();
    let watching = async {
        let mut client = args.address.images().await?;
        let mut out = std::io::stdout().lock();
        let mut begun = false;
        loop {
            let mut stream = match client.watch_images(request.clone()).await {
                Ok(stream) => stream.into_inner(),
                // Of the roots that it has now, none may have been scanned yet.
                Err(status) if begun && is_not_ready(&status) => {
                    tokio::time::sleep(LOOK_EVERY).await;
                    continue;
                }
                Err(status) => return Err(refused(&status)),
            };
            begun = true;
            let ended = loop {
                match stream.message().await {
                    Ok(Some(message)) => {
                        if message.event() == Event::SnapshotEnd {
                            silent = false;
                        } else if silent {
                            continue;
                        }
                        write_event(&mut out, &message, args.json)?;
                    }
                    Ok(None) => return Ok(Exit::Success),
                    Err(status) => break status,
                }
            };
            // The agent has other roots by now, say. To one that begins it tells all there is.
            if ended.code() != tonic::Code::Aborted {
                return Err(refused(&ended));
            }
            super::complain("the listing was replaced: beginning again");
            request.resume_generation = 0;
            silent = args.changes_only;
        }
    };
    block_on(async {
        tokio::select! {
            ended = watching => ended,
            () = nobody_reads() => Err(io::Error::from(io::ErrorKind::BrokenPipe).into()),
        }
    })
}

fn is_not_ready(status: &tonic::Status) -> bool {
    let info = status.get_details_error_info();
    info.is_some_and(|info| info.reason == sifter_proto::reason::NOT_READY)
}

/// Until whoever reads our output has closed the pipe. Writing would say so, too, but not before the
/// next change, which may come in a week.
async fn nobody_reads() {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    // A thread that only waits, and ends with the process: tokio cannot wait for every kind of file.
    std::thread::spawn(move || {
        let out = io::stdout();
        loop {
            // That it is closed is told unasked; a file never is.
            let mut waited = [PollFd::new(out.as_fd(), PollFlags::empty())];
            match poll(&mut waited, PollTimeout::NONE) {
                Err(Errno::EINTR) => {}
                Ok(_)
                    if waited[0].revents().is_some_and(|events| {
                        events.intersects(PollFlags::POLLERR | PollFlags::POLLHUP)
                    }) =>
                {
                    let _ = sender.send(());
                    return;
                }
                _ => return,
            }
        }
    });
    if receiver.await.is_err() {
        std::future::pending().await
    }
}

fn write_event(
    out: &mut dyn Write,
    message: &v1::WatchImagesResponse,
    json: bool,
) -> anyhow::Result<()> {
    if json {
        serde_json::to_writer(&mut *out, message).map_err(io::Error::from)?;
        writeln!(out)?;
        return Ok(out.flush()?);
    }
    let sign = match message.event() {
        Event::Added => "+",
        Event::Changed => "~",
        Event::Removed => "-",
        Event::Unspecified | Event::SnapshotEnd | Event::Generation => return Ok(()),
    };
    for image in &message.images {
        if message.event() == Event::Removed {
            writeln!(out, "{sign} {}", escape::terminal(&image.path))?;
            continue;
        }
        let status = image.status().as_str_name();
        writeln!(
            out,
            "{sign} {} {} {}",
            escape::terminal(&format!("{}:{}", image.repository, image.tag)),
            status.strip_prefix("STATUS_").unwrap_or(status),
            escape::terminal(&image.path)
        )?;
    }
    Ok(out.flush()?)
}
