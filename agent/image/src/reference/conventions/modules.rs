//! Trees of modules, whose directories are the reference.

use super::{Answer, Ending, Name, shape};

/// shpc: `<base>/<uri>/<tag>/<uri with - for />-<tag>-sha256:<hex>.sif`
/// (`shpc/main/container/singularity.py: registry_pull`, `config.py: flatname`).
///
/// The file name repeats the directories, so nothing is guessed: the tag is the directory, and
/// the repository is the directories that the flat name consists of. The tag is preferred to the
/// digest, for people ask for it.
pub(super) fn shpc<'a>(name: &Name<'a>) -> Option<Answer<'a>> {
    if name.ending != Ending::Sif {
        return None;
    }
    let flat = match name.stem.rsplit_once("-sha256:") {
        Some((flat, hex)) if hex.len() == 64 && shape::is_hex(hex) => flat,
        Some(_) => return None,
        None => name.stem,
    };
    let (uri_directory, tag) = name.directory.rsplit_once('/')?;
    let mut rest = flat.strip_suffix(tag)?.strip_suffix('-')?;
    let mut directories = uri_directory;
    loop {
        let (above, last) = directories.rsplit_once('/').unwrap_or(("", directories));
        if last.is_empty() {
            return None;
        }
        if rest == last {
            let uri = &uri_directory[directories.len() - last.len()..];
            return Answer::named(uri, tag);
        }
        rest = rest.strip_suffix(last)?.strip_suffix('-')?;
        directories = above;
    }
}

#[cfg(test)]
mod tests {
    use super::super::check;
    use super::*;

    #[test]
    fn shpc_trees() {
        const D: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        check(
            shpc,
            &[
                (
                    &format!(
                        "/opt/shpc/containers/quay.io/org/my-tool/1.0-2/quay.io-org-my-tool-1.0-2-{D}.sif"
                    ),
                    Some(("quay.io/org/my-tool", "1.0-2")),
                ),
                (
                    &format!("/opt/redis/7/redis-7-{D}.sif"),
                    Some(("redis", "7")),
                ),
                (&format!("redis/7/redis-7-{D}.sif"), Some(("redis", "7"))),
                ("/opt/redis/7/redis-7.sif", Some(("redis", "7"))),
                (&format!("/opt/redis/6/redis-7-{D}.sif"), None),
                (&format!("/opt/valkey/7/redis-7-{D}.sif"), None),
                ("/opt/redis/7/redis-7-sha256:12.sif", None),
                (
                    &format!("/opt/redis/7/redis-7-{}.sif", D.replace('e', "x")),
                    None,
                ),
                (&format!("/redis-7-{D}.sif"), None),
                ("/opt/redis/7/redis-7.img", None),
            ],
        );
    }
}
