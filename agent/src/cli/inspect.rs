//! `sifter inspect`: all that is known of one image, without a runtime.

use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use indicatif::ProgressBar;
use serde_json::{Value, json};
use sifter_image::record::Sha256Text;
use sifter_image::reference::{NamingRule, RuleOutcome};
use sifter_image::signature::Keyring;
use sifter_image::{Image, NotImage, Options, Probed, Subject, Verdict};
use sifter_proto::v1;

use crate::catalog::{FileFacts, FileTime, Row};
use crate::digest;
use crate::escape;
use crate::scan;
use crate::service::{Owners, convert};

use super::bar::Bars;
use super::verify::{self, Verified};
use super::{Exit, WithExit, complain};

/// Show all that is known of an image
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Image file or sandbox directory
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,

    /// One JSON object an image, with every field there is, in the spelling of the gRPC contract
    #[arg(long)]
    json: bool,

    /// Show which rules for repository and tag there are, what each saw, and why it won or lost
    ///
    /// In JSON they are the array `explain`, which is not part of the contract.
    #[arg(long)]
    explain: bool,

    /// A naming rule as in the agent's configuration: regular expression with the groups
    /// `repository` and `tag`; several: repeat
    #[arg(long, value_name = "REGEX")]
    naming: Vec<String>,

    /// Check the signatures with the keys of --keyring; exit code 4 unless all are valid and no
    /// object is without one
    ///
    /// In JSON the outcome is the object `verification`, which is not part of the contract.
    #[arg(long, requires = "keyring")]
    verify: bool,

    /// Public keys and their revocations: OpenPGP, armoured or not, or PEM
    #[arg(long, value_name = "FILE", requires = "verify")]
    keyring: Option<PathBuf>,

    /// Read the whole file and show its SHA-256
    #[arg(long)]
    digest: bool,
}

/// Runs the command.
///
/// # Errors
///
/// Writing failed, or the keyring or a naming rule cannot be used.
pub fn run(args: Args) -> anyhow::Result<Exit> {
    let keyring = match &args.keyring {
        Some(path) if args.verify => Some(verify::keyring(path)?),
        _ => None,
    };
    let naming = args
        .naming
        .iter()
        .map(|text| {
            NamingRule::new(text)
                .map_err(|error| WithExit::error(Exit::Usage, format!("--naming: {error}")))
        })
        .collect::<anyhow::Result<_>>()?;
    let mut inspector = Inspector {
        json: args.json,
        explain: args.explain,
        digest: args.digest,
        bars: args.digest.then(Bars::of_standard_error).flatten(),
        keyring,
        options: Options {
            naming,
            ..Options::default()
        },
        shown: 0,
        owners: Owners::default(),
    };
    let mut exit = Exit::Success;
    let mut out = io::stdout().lock();
    for path in &args.files {
        exit = exit.and(inspector.one(&mut out, path)?);
    }
    out.flush()?;
    Ok(exit)
}

struct Inspector {
    json: bool,
    explain: bool,
    digest: bool,
    /// Where the progress of digests is shown.
    bars: Option<Bars>,
    keyring: Option<Keyring>,
    options: Options,
    /// Images shown so far.
    shown: usize,
    owners: Owners,
}

impl Inspector {
    fn one(&mut self, out: &mut dyn Write, path: &Path) -> anyhow::Result<Exit> {
        let shown = escape::path(path);
        let fail = |error: &io::Error| {
            complain(&format!("{shown}: {error}"));
            Ok(Exit::Failure)
        };
        let (facts, probed) = match probe(path, &self.options) {
            Ok(probed) => probed,
            Err(error) => return fail(&error),
        };
        let image = match probed.verdict {
            Verdict::Image(image) => *image,
            Verdict::NotImage(why) => {
                complain(&not_an_image(path, why));
                return Ok(Exit::Negative);
            }
        };
        let mut message = self.message(&std::path::absolute(path)?, facts, image);
        let mut exit = Exit::Success;
        if self.digest && path.is_dir() {
            complain(&format!("{shown}: a directory has no digest"));
            exit = Exit::Partial;
        } else if self.digest {
            match digest_of(path, self.bars.as_ref()) {
                Ok(digest) => message.content_digest = Sha256Text::of(&digest).as_str().to_owned(),
                Err(error) => return fail(&error),
            }
        }
        let verified = match &self.keyring {
            None => None,
            Some(keyring) => match verify::of(path, keyring) {
                Ok(verified) => Some(verified),
                Err(error) => return fail(&error),
            },
        };
        let rules = self.explain.then_some(probed.rules.as_slice());
        if self.json {
            write_json(out, &message, rules, verified.as_ref())?;
        } else {
            if self.shown > 0 {
                writeln!(out)?;
            }
            super::details::write(out, &message)?;
            if let Some(rules) = rules {
                write_rules(out, rules)?;
            }
            if let Some(verified) = &verified {
                verified.write(out)?;
            }
        }
        self.shown += 1;
        Ok(match verified {
            Some(verified) if !verified.is_valid() => Exit::Negative,
            _ => exit,
        })
    }

    fn message(&mut self, path: &Path, facts: FileFacts, image: Image) -> v1::Image {
        let root = path.parent().map(escape::utf8_path).unwrap_or_default();
        let bytes = path.as_os_str().as_bytes();
        let row = Row::new(bytes, &root, facts, &image);
        self.owners.learn(&[(row.facts.uid, row.facts.gid)]);
        let mut message = convert::basic(&row, &self.owners);
        convert::add_details(&mut message, crate::catalog::details(image));
        message
    }
}

/// The SHA-256 of a whole file.
fn digest_of(path: &Path, bars: Option<&Bars>) -> io::Result<[u8; 32]> {
    let file = scan::open_file(path)?;
    let bar = bars.map_or_else(ProgressBar::hidden, |bars| bars.file(path, file.facts.size));
    let digest = digest::of(&file, |bytes| {
        bar.inc(bytes);
        true
    });
    bar.finish_and_clear();
    digest?.ok_or_else(|| io::ErrorKind::Interrupted.into())
}

fn write_json(
    out: &mut dyn Write,
    message: &v1::Image,
    rules: Option<&[RuleOutcome]>,
    verified: Option<&Verified>,
) -> io::Result<()> {
    let rules: Option<Value> = rules.map(|rules| rules.iter().map(rule_json).collect());
    let mut line = Vec::new();
    super::json::write(&mut line, message)?;
    // After the message, which keeps its order of fields. It has a path at least.
    for (name, value) in [
        ("explain", rules),
        ("verification", verified.map(Verified::json)),
    ] {
        if let Some(value) = value {
            line.pop();
            write!(line, ",\"{name}\":{value}}}")?;
        }
    }
    line.push(b'\n');
    out.write_all(&line)
}

fn rule_json(rule: &RuleOutcome) -> Value {
    let mut value = json!({
        "rule": convert::reference_source(rule.rule).as_str_name(),
        "saw": rule.saw,
        "because": rule.because,
    });
    if let Some((repository, tag)) = &rule.gives {
        value["repository"] = json!(repository);
        value["tag"] = json!(tag);
    }
    value
}

/// The rules in order, the one that won marked.
fn write_rules(out: &mut dyn Write, rules: &[RuleOutcome]) -> io::Result<()> {
    writeln!(out, "rules for repository and tag:")?;
    let won = rules.iter().position(|rule| rule.gives.is_some());
    for (index, rule) in rules.iter().enumerate() {
        let mark = if Some(index) == won { '*' } else { ' ' };
        let name = convert::reference_source(rule.rule).as_str_name();
        let name = name.strip_prefix("REFERENCE_SOURCE_").unwrap_or(name);
        writeln!(
            out,
            "  {mark} {}. {}",
            index + 1,
            name.to_lowercase().replace('_', " ")
        )?;
        writeln!(out, "       saw:   {}", escape::terminal(&rule.saw))?;
        let gives = rule.gives.as_ref().map_or_else(
            || "nothing".to_owned(),
            |(repository, tag)| format!("repository {repository}, tag {tag}"),
        );
        writeln!(out, "       gives: {}", escape::terminal(&gives))?;
        writeln!(out, "       {}", escape::terminal(&rule.because))?;
    }
    Ok(())
}

/// Says that what is at `path` is not an image, and why.
pub fn not_an_image(path: &Path, why: NotImage) -> String {
    let why = match why {
        _ if path.is_dir() => {
            "a directory that is no sandbox: `sifter scan` lists the images in it"
        }
        NotImage::OtherContent => "content of no image format",
        NotImage::Misnamed => "an image name over other content",
        NotImage::PlainFileSystem => "a file system without a container inside",
    };
    format!("{}: not an image ({why})", escape::path(path))
}

/// Probes one file or directory by its path, with the rules' parts and the bootstrap history.
///
/// # Errors
///
/// What the operating system says.
pub fn probe(path: &Path, options: &Options) -> io::Result<(FileFacts, Probed)> {
    let absolute = std::path::absolute(path)?;
    let subject = |facts: &FileFacts| Subject {
        path: &absolute,
        modified: facts.modified.timestamp(),
        now: FileTime::now().timestamp(),
    };
    let kind = std::fs::metadata(path)?.file_type();
    if !kind.is_dir() && !kind.is_file() {
        return Err(no_image(kind));
    }
    if kind.is_dir() {
        return scan::with_directory(path, |tree, facts| {
            let probed = sifter_image::explain_directory(tree, &subject(&facts), options)?;
            Ok((facts, probed))
        });
    }
    let file = scan::open_file(path)?;
    let probed = sifter_image::explain(&file, &subject(&file.facts), options)?;
    Ok((file.facts, probed))
}

/// Why what is neither a file nor a directory cannot be an image.
pub fn no_image(kind: std::fs::FileType) -> io::Error {
    let name = match () {
        () if kind.is_fifo() => "a FIFO (named pipe)",
        () if kind.is_socket() => "a socket",
        () if kind.is_block_device() => "a block device",
        () if kind.is_char_device() => "a character device",
        () => "neither a file nor a directory",
    };
    io::Error::new(
        io::ErrorKind::InvalidInput,
        format!("{name}: only files and directories can be images"),
    )
}
