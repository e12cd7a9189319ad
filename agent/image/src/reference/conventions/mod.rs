//! Rule 4: how tools name files and folders.
//!
//! | unit | tools | names |
//! |---|---|---|
//! | [`hashed`] | runtime caches, Snakemake, DUCC `.flat`, unfinished pulls | no name at all |
//! | [`modules`] | shpc | `<uri>/<tag>/<flat uri>-<tag>-sha256:<hex>.sif` |
//! | [`colon`] | Galaxy depot, CVMFS trees, cwltool | `<name>:<tag>` |
//! | [`singularity2`] | shub pulls, docker2singularity | `<user>-<repo>-<branch>-<tag>.simg` |
//! | [`flattened`] | Nextflow, nf-core, cwltool | `<host>-<namespace>-<name>-<tag>.img` |
//! | [`pull`] | Apptainer, SingularityCE, Singularity 3 | `<name>_<tag>.sif` |
//! | [`dashed`] | Singularity 2, nf-core download, people | `<name>-<tag>.simg` |
//!
//! They are tried in this order, the more telling first. Each either gives a name, or says that
//! its tool gives none (then no later one may make one up), or does not apply. All work on form
//! alone. Where a form has lost what it was made from (a hyphen that was a slash), a split is made
//! only where the tag is recognisable; else the stem is the more honest name.
//!
//! No convention knows another. [`split`] finds tags and [`registry`] hosts and namespaces for all.

mod colon;
mod dashed;
mod flattened;
mod hashed;
mod modules;
mod pull;
mod registry;
mod singularity2;
mod split;

use std::borrow::Cow;
use std::path::Path;

use super::{Found, Outcome, shape};

/// A longer file name is none that a file system holds.
const MAX_NAME: usize = 512;

/// Endings that image files have, longest first where one ends with another.
const ENDINGS: [(&str, Ending); 7] = [
    (".oci.sif", Ending::Sif),
    (".sif", Ending::Sif),
    (".simg", Ending::Simg),
    (".img", Ending::Img),
    (".squashfs", Ending::Img),
    (".sqfs", Ending::Img),
    (".sqsh", Ending::Img),
];

/// The ending of a file name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    /// `.sif`, `.oci.sif`.
    Sif,
    /// `.simg`: Singularity 2.4 to 2.6.
    Simg,
    /// `.img` and the endings of file systems.
    Img,
    /// None of an image: depots, caches, directories.
    None,
}

/// A path, taken apart.
#[derive(Debug, Clone, Copy)]
struct Name<'a> {
    /// The directories in front, without the last `/`.
    directory: &'a str,
    /// The file name.
    file: &'a str,
    /// The file name without its ending.
    stem: &'a str,
    ending: Ending,
}

impl<'a> Name<'a> {
    fn of(path: &'a str) -> Self {
        let path = path.trim_end_matches('/');
        let (directory, file) = path.rsplit_once('/').unwrap_or(("", path));
        let (length, ending) = ending(file);
        Self {
            directory,
            file,
            stem: &file[..file.len() - length],
            ending,
        }
    }
}

/// What a convention says of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Answer<'a> {
    /// Repository and tag.
    Named(Cow<'a, str>, Cow<'a, str>),
    /// The tool keeps no name.
    Nameless,
}

impl<'a> Answer<'a> {
    /// A name, if it is such as repositories and tags have.
    fn named(repository: impl Into<Cow<'a, str>>, tag: impl Into<Cow<'a, str>>) -> Option<Self> {
        let (repository, tag) = (repository.into(), tag.into());
        let good_tag = shape::is_tag(&tag)
            || tag
                .strip_prefix("sha256:")
                .is_some_and(|hex| hex.len() >= 32 && shape::is_hex(hex));
        // A host may have a port.
        let good_repository = match repository.split_once('/') {
            Some((host, rest)) => {
                let name = host.split_once(':').map_or(host, |(name, _)| name);
                shape::is_component(name) && shape::is_repository(rest)
            }
            None => shape::is_component(&repository),
        };
        (good_tag && good_repository).then_some(Self::Named(repository, tag))
    }
}

/// One convention.
struct Convention {
    apply: for<'a> fn(&Name<'a>) -> Option<Answer<'a>>,
    /// Why it wins or, where it keeps no name, why there is none.
    how: &'static str,
}

const CONVENTIONS: [Convention; 12] = [
    Convention {
        apply: hashed::unfinished,
        how: "the name is of an unfinished download",
    },
    Convention {
        apply: hashed::hash,
        how: "the name is a hash, as caches, Snakemake and CVMFS give it",
    },
    Convention {
        apply: modules::shpc,
        how: "shpc: directories of repository and tag, repeated in the file name",
    },
    Convention {
        apply: pull::by_digest,
        how: "pull by digest: <name>@sha256_<hex>",
    },
    Convention {
        apply: colon::open_science_grid,
        how: "CVMFS of the Open Science Grid: <namespace>/<image>:<tag>",
    },
    Convention {
        apply: colon::unpacked,
        how: "CVMFS unpacked: <registry>/<repository>:<tag>",
    },
    Convention {
        apply: colon::depot,
        how: "Galaxy depot and the like: <name>:<tag>",
    },
    Convention {
        apply: singularity2::docker2singularity,
        how: "docker2singularity: <image>-<date>-<container>",
    },
    Convention {
        apply: singularity2::shub,
        how: "Singularity 2 pull from Singularity Hub: <user>-<repository>-<branch>-<tag>",
    },
    Convention {
        apply: flattened::workflow,
        how: "Nextflow: a reference with its separators made hyphens",
    },
    Convention {
        apply: pull::tagged,
        how: "pull: <name>_<tag>",
    },
    Convention {
        apply: dashed::tagged,
        how: "<name>-<tag>, as Singularity 2 pulls and nf-core downloads",
    },
];

/// Applies the conventions.
pub(super) fn apply(path: &Path) -> Outcome {
    let path = path.to_string_lossy();
    let name = Name::of(&path);
    if name.file.len() > MAX_NAME {
        return Err("the name is longer than any file system's");
    }
    let answer = CONVENTIONS
        .iter()
        .find_map(|convention| Some(((convention.apply)(&name)?, convention.how)));
    match answer {
        Some((Answer::Named(repository, tag), how)) => {
            Found::new(repository.into_owned(), tag.into_owned(), how)
        }
        Some((Answer::Nameless, how)) => Err(how),
        None => Err("the name follows no known convention"),
    }
}

/// How much of a file name its stem is. What stands behind the last dot of `tool_2.6.1` is no
/// ending: one is of letters.
pub(super) fn stem_len(file: &str) -> usize {
    let (length, kind) = ending(file);
    if kind != Ending::None {
        return file.len() - length;
    }
    match file.rfind('.') {
        Some(at) if at > 0 => {
            let ending = &file[at + 1..];
            let letters =
                (1..=8).contains(&ending.len()) && ending.bytes().all(|b| b.is_ascii_alphabetic());
            if letters || hashed::is_unfinished(file) {
                at
            } else {
                file.len()
            }
        }
        _ => file.len(),
    }
}

/// Length and kind of a file name's ending; a name is never its ending alone.
fn ending(file: &str) -> (usize, Ending) {
    let bytes = file.as_bytes();
    for (ending, kind) in ENDINGS {
        let at = bytes.len().saturating_sub(ending.len());
        if at > 0 && bytes[at..].eq_ignore_ascii_case(ending.as_bytes()) {
            return (ending.len(), kind);
        }
    }
    (0, Ending::None)
}

/// A table test of one convention: path, then repository and tag, or `None` where it does not
/// apply, or `("-", "-")` where its tool keeps no name.
#[cfg(test)]
fn check(
    convention: for<'a> fn(&Name<'a>) -> Option<Answer<'a>>,
    cases: &[(&str, Option<(&str, &str)>)],
) {
    for (path, expected) in cases {
        let given = convention(&Name::of(path));
        let given = given.as_ref().map(|answer| match answer {
            Answer::Named(repository, tag) => (repository.as_ref(), tag.as_ref()),
            Answer::Nameless => ("-", "-"),
        });
        assert_eq!(given, *expected, "{path}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endings_and_stems() {
        for (file, stem) in [
            ("tool.sif", "tool"),
            ("tool.oci.sif", "tool"),
            ("TOOL.SIF", "TOOL"),
            ("tool_2.6.1", "tool_2.6.1"),
            ("tool.v2", "tool.v2"),
            ("tool.bak", "tool"),
            ("tool.original", "tool"),
            ("tool.originals", "tool.originals"),
            ("tool", "tool"),
            (".sif", ".sif"),
            (".hidden", ".hidden"),
            ("a.img.pulling.123", "a.img.pulling"),
            ("a.123", "a.123"),
            ("é.sif", "é"),
            ("", ""),
        ] {
            assert_eq!(&file[..stem_len(file)], stem, "{file}");
        }
    }

    /// Names that tell nothing, which no convention may make a repository and tag of.
    #[test]
    fn nothing_is_made_up() {
        for path in [
            "/i/rnaseq_tools.sif",
            "/i/my-pipeline.sif",
            "/i/covid-19.sif",
            "/i/model_3d.sif",
            "/i/image.img",
            "/i/tool-x86_64.sif",
            "/i/d41d8cd98f00b204e9800998ecf8427e.sif",
            "/i/a b_1.0.sif",
            "/i/sandbox_2.6.1",
            "/i/_1.0.sif",
            "/i/-1.0.simg",
            "/i/:1.0",
            "/i/a:",
            "/i/.sif",
            "/",
            "",
        ] {
            assert_eq!(apply(Path::new(path)).ok(), None, "{path}");
        }
    }

    #[test]
    fn a_monstrous_name_is_none() {
        let path = format!("/i/{}_1.0.sif", "a".repeat(MAX_NAME));
        assert!(apply(Path::new(&path)).is_err());
    }
}
