//! Singularity 2 and the tool that made images of Docker's at its time.

use super::split::{self, Vocabulary};
use super::{Answer, Ending, Name, shape};

/// Branches that recipes on Singularity Hub were built from.
const BRANCHES: [&str; 5] = ["master", "main", "develop", "devel", "dev"];

/// A pull from Singularity Hub: `<user>-<repository>-<branch>-<tag>.simg` (2.6.1
/// `libexec/python/shub/api.py: get_image_name`).
///
/// User and repository are GitHub's, and either may hold hyphens. The user is one part, but for
/// two signs: a part that begins with `singularity` begins a repository, and capitalised parts in
/// front (`ISU-HPC-…`) are an organisation's name.
pub(super) fn shub<'a>(name: &Name<'a>) -> Option<Answer<'a>> {
    if name.ending != Ending::Simg {
        return None;
    }
    let stem = name.stem;
    let (at, branch, tag) = stem
        .match_indices('-')
        .filter_map(|(at, _)| {
            let (branch, tag) = stem[at + 1..].split_once('-')?;
            (BRANCHES.contains(&branch) && shape::is_tag(tag)).then_some((at, branch, tag))
        })
        .next_back()?;
    let whole = &stem[..at];
    // `cuda-12.1-cudnn8-devel-ubuntu22.04` has a version in front of what looks like a branch.
    let version = || split::at_hyphen(whole, Vocabulary::Tool).is_some();
    if !matches!(branch, "master" | "main") && version() {
        return None;
    }
    let user = user_len(whole)?;
    Answer::named([&whole[..user], &whole[user + 1..]].join("/"), tag)
}

/// Length of the user's name in `<user>-<repository>`.
fn user_len(whole: &str) -> Option<usize> {
    let first = whole.find('-')?;
    let capitalised = |text: &str| text.starts_with(|c: char| c.is_ascii_uppercase());
    let mut end = first;
    for (at, _) in whole.match_indices('-') {
        let part = whole[at + 1..].split('-').next().unwrap_or_default();
        if part
            .get(.."singularity".len())
            .is_some_and(|start| start.eq_ignore_ascii_case("singularity"))
        {
            return Some(at);
        }
        let more = whole[at + 1..].contains('-');
        if at == end && more && capitalised(whole) && capitalised(part) {
            end = at + 1 + part.len();
        }
    }
    Some(end)
}

/// docker2singularity: `<image>-<YYYY-MM-DD>-<container ID>`, the image with its `/` and first `:`
/// made underscores (`docker2singularity.sh`). An image given by its ID has no name.
pub(super) fn docker2singularity<'a>(name: &Name<'a>) -> Option<Answer<'a>> {
    if name.ending == Ending::None {
        return None;
    }
    let (rest, container) = name.stem.rsplit_once('-')?;
    let date_start = rest.len().checked_sub("YYYY-MM-DD".len())?;
    let image = rest.get(..date_start)?.strip_suffix('-')?;
    if container.len() != 12 || !shape::is_hex(container) || !is_date(&rest[date_start..]) {
        return None;
    }
    if image.len() == 12 && shape::is_hex(image) {
        return Some(Answer::Nameless);
    }
    match split::at_underscore(image) {
        Some((image, tag)) => Answer::named(image, tag),
        // One underscore may have been a slash or a colon.
        None if image.contains('_') => Some(Answer::Nameless),
        None => Answer::named(image, "latest"),
    }
}

fn is_date(text: &str) -> bool {
    text.bytes().enumerate().all(|(at, b)| match at {
        4 | 7 => b == b'-',
        _ => b.is_ascii_digit(),
    })
}

#[cfg(test)]
mod tests {
    use super::super::check;
    use super::*;

    #[test]
    fn singularity_hub() {
        check(
            shub,
            &[
                (
                    "/i/jane-tool-master-latest.simg",
                    Some(("jane/tool", "latest")),
                ),
                (
                    "/i/jane-my-tool-master-v1.0.simg",
                    Some(("jane/my-tool", "v1.0")),
                ),
                (
                    "/i/jane-tool-develop-test-2.simg",
                    Some(("jane/tool", "test-2")),
                ),
                (
                    "/i/jane-doe-singularity-r-master-latest.simg",
                    Some(("jane-doe/singularity-r", "latest")),
                ),
                (
                    "/i/ISU-HPC-mysql-master-latest.simg",
                    Some(("ISU-HPC/mysql", "latest")),
                ),
                ("/i/ISU-HPC-master-latest.simg", Some(("ISU/HPC", "latest"))),
                (
                    "/i/NIH-HPC-Singularity-Tutorial-master-latest.simg",
                    Some(("NIH-HPC/Singularity-Tutorial", "latest")),
                ),
                (
                    "/i/GodloveD-lolcow-master-latest.simg",
                    Some(("GodloveD/lolcow", "latest")),
                ),
                (
                    "/i/jane-tool-3.5-master-latest.simg",
                    Some(("jane/tool-3.5", "latest")),
                ),
                ("/i/tool-1.0-x-devel-y.simg", None),
                ("/i/tool-master-latest.simg", None),
                ("/i/jane-tool-master.simg", None),
                ("/i/jane-tool-master-latest.sif", None),
                ("/i/jane-tool-other-latest.simg", None),
            ],
        );
    }

    #[test]
    fn images_of_docker() {
        check(
            docker2singularity,
            &[
                (
                    "/i/debian_12-2024-01-31-0123456789ab.sif",
                    Some(("debian", "12")),
                ),
                (
                    "/i/org_tool_1.0-2024-01-31-0123456789ab.simg",
                    Some(("org_tool", "1.0")),
                ),
                (
                    "/i/debian-2024-01-31-0123456789ab.img",
                    Some(("debian", "latest")),
                ),
                (
                    "/i/fedcba987654-2024-01-31-0123456789ab.img",
                    Some(("-", "-")),
                ),
                ("/i/org_tool-2024-01-31-0123456789ab.img", Some(("-", "-"))),
                ("/i/debian-2024-01-31.img", None),
                ("/i/debian-2024x01-31-0123456789ab.img", None),
                ("/i/-2024-01-31-0123456789ab.img", None),
                ("/i/2024-01-31-0123456789ab.img", None),
                ("/i/é-01-31-0123456789ab.img", None),
            ],
        );
    }
}
