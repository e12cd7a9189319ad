//! `--duplicates`: which images are on disk more than once, and what that costs.
//!
//! Images are alike if the SHA-256 of their content is. Where that was not computed, the image ID and
//! the size stand in for it: the ID is over header and metadata, so that two files of one size with
//! one ID are copies unless somebody changed the bytes behind the header. Hard links are no duplicates (see [`super::usage`]), nor
//! is a file that has several names by symbolic links or mounts: to delete such a "copy" would be to lose the image. The
//! contract does not tell; where the files are on this machine, those of a group are asked.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::{self, Write};

use serde_json::json;
use sifter_proto::v1::{self, Image, Status};

use crate::escape;
use crate::words::{count, short_id, size};

use super::render::{Format, Output};
use super::table::Table;
use super::usage::Linked;

/// Images by what they are alike in.
#[derive(Debug, Default)]
pub struct Duplicates {
    /// Whether files are on this machine.
    local: bool,
    /// By size and image ID, or digest where there is no ID; then by digest.
    images: HashMap<(u64, String), BTreeMap<String, Vec<Image>>>,
}

/// Images that are alike.
#[derive(Debug)]
struct Group {
    images: Vec<Image>,
    /// The digest that all have; otherwise they have the image ID in common.
    digest: Option<String>,
    /// Different files on disk.
    files: u64,
    /// Bytes of all files but one.
    saved: u64,
}

impl Duplicates {
    /// None yet; `local` if their files are on this machine.
    #[must_use]
    pub fn new(local: bool) -> Self {
        Self {
            local,
            ..Self::default()
        }
    }

    /// Takes an image into account.
    pub fn add(&mut self, image: Image) {
        // An incomplete file has the header of the whole one; only its content may speak for it.
        let id_counts = image.status() == Status::Ready && !image.image_id.is_empty();
        let key = match (id_counts, image.content_digest.is_empty()) {
            (true, _) => &image.image_id,
            (false, false) => &image.content_digest,
            (false, true) => return,
        };
        self.images
            .entry((image.size_bytes, key.clone()))
            .or_default()
            .entry(image.content_digest.clone())
            .or_default()
            .push(image);
    }

    fn groups(self) -> Vec<Group> {
        let mut groups = Vec::new();
        let local = self.local;
        for mut by_digest in self.images.into_values() {
            let unknown = by_digest.remove("").unwrap_or_default();
            if by_digest.len() <= 1 {
                // Nothing says that they differ.
                let digest = by_digest.keys().next().cloned();
                let known = by_digest.into_values().next().unwrap_or_default();
                let digest = digest.filter(|_| unknown.is_empty());
                groups.extend(Group::new(known.into_iter().chain(unknown), digest, local));
                continue;
            }
            for (digest, images) in by_digest {
                groups.extend(Group::new(images, Some(digest), local));
            }
            groups.extend(Group::new(unknown, None, local));
        }
        groups.sort_by(|a, b| {
            let path = |group: &Group| group.images.first().map(|image| image.path.clone());
            b.saved.cmp(&a.saved).then_with(|| path(a).cmp(&path(b)))
        });
        groups
    }

    /// Prints the groups, the most wasteful first.
    ///
    /// # Errors
    ///
    /// What writing says.
    pub fn write(self, out: &mut dyn Write, output: &Output) -> io::Result<()> {
        let groups = self.groups();
        for group in &groups {
            match output.format {
                Format::Json => writeln!(out, "{}", group.json()?)?,
                Format::Ids if output.no_trunc => writeln!(out, "{}", group.name())?,
                Format::Ids => writeln!(out, "{}", short_id(group.name()))?,
                Format::Columns(_) | Format::Template(_) => group.write(out, output.no_trunc)?,
            }
        }
        if matches!(output.format, Format::Ids) {
            return Ok(());
        }
        let saved = groups
            .iter()
            .map(|group| group.saved)
            .fold(0, u64::saturating_add);
        let files: u64 = groups.iter().map(|group| group.files).sum();
        if matches!(output.format, Format::Json) {
            let totals = json!({
                "groupCount": groups.len().to_string(),
                "fileCount": files.to_string(),
                "savedBytes": saved.to_string(),
            });
            return writeln!(out, "{}", json!({"totals": totals}));
        }
        if groups.is_empty() {
            return writeln!(out, "no duplicates");
        }
        writeln!(
            out,
            "total: {} in {files} files; {} could be saved",
            count(groups.len() as u64, "image"),
            if output.no_trunc {
                format!("{saved} bytes")
            } else {
                size(saved)
            },
        )
    }
}

impl Group {
    /// A group, if there is more than one file in it.
    fn new(
        images: impl IntoIterator<Item = Image>,
        digest: Option<String>,
        local: bool,
    ) -> Option<Self> {
        let mut images: Vec<Image> = images.into_iter().collect();
        images.sort_by(|a, b| a.path.cmp(&b.path));
        let mut inodes = HashSet::new();
        let mut linked: HashMap<Linked, u64> = HashMap::new();
        let mut files = 0_u64;
        images.retain(|image| {
            let link = Linked::of(image);
            // A file that cannot be asked is what the listing says.
            if let Some(inode) = local.then(|| inode(image)).flatten() {
                let is_new = inodes.insert(inode);
                files += u64::from(is_new);
                return is_new || link.is_some();
            }
            match link {
                Some(link) => *linked.entry(link).or_default() += 1,
                None => files += 1,
            }
            true
        });
        files += linked
            .iter()
            .map(|(link, paths)| link.files(*paths))
            .sum::<u64>();
        let size = images.first().map_or(0, |image| image.size_bytes);
        if files < 2 {
            return None;
        }
        Some(Self {
            images,
            digest,
            files,
            saved: size.saturating_mul(files - 1),
        })
    }

    /// The digest or image ID in common.
    fn name(&self) -> &str {
        match (&self.digest, self.images.first()) {
            (Some(digest), _) => digest,
            (None, Some(image)) => &image.image_id,
            (None, None) => "",
        }
    }

    fn json(&self) -> io::Result<serde_json::Value> {
        let images = serde_json::to_value(&self.images)?;
        let (digest, id) = match &self.digest {
            Some(digest) => (digest.as_str(), ""),
            None => ("", self.name()),
        };
        let mut group = json!({
            "fileCount": self.files.to_string(),
            "savedBytes": self.saved.to_string(),
            "images": images,
        });
        if !digest.is_empty() {
            group["contentDigest"] = json!(digest);
        }
        if !id.is_empty() {
            group["imageId"] = json!(id);
        }
        Ok(group)
    }

    fn write(&self, out: &mut dyn Write, exact: bool) -> io::Result<()> {
        let bytes = |bytes: u64| {
            if exact {
                format!("{bytes} bytes")
            } else {
                size(bytes)
            }
        };
        let id = if exact {
            self.name()
        } else {
            short_id(self.name())
        };
        let (what, reference) = match (&self.digest, self.images.first()) {
            (digest, Some(image)) => (
                if digest.is_some() {
                    "content"
                } else {
                    "image ID"
                },
                format!("{}:{}", image.repository, image.tag),
            ),
            (_, None) => return Ok(()),
        };
        let saved = if self
            .images
            .iter()
            .any(|image| image.format() == v1::Format::Sandbox)
        {
            "size not known".to_owned()
        } else {
            format!("{} could be saved", bytes(self.saved))
        };
        writeln!(
            out,
            "{}: {} files, {saved} (same {what} {id})",
            escape::terminal(&reference),
            self.files,
        )?;
        // The first column is what the others are indented by.
        let mut table = Table::new([false, true, false, false]);
        for image in &self.images {
            let size = match image.format() {
                v1::Format::Sandbox => "-".to_owned(),
                _ => bytes(image.size_bytes),
            };
            let owner = match &*image.owner {
                "" => image.uid.to_string(),
                owner => escape::terminal(owner).into_owned(),
            };
            let mut path = escape::terminal(&image.path).into_owned();
            if Linked::of(image).is_some() {
                path += &format!("  ({} hard links)", image.links);
            }
            table.row(["  ".to_owned(), size, owner, path]);
        }
        table.write(out)?;
        writeln!(out)
    }
}

/// The file that an image is now, by device and inode number.
fn inode(image: &Image) -> Option<(u64, u64)> {
    let stat = nix::sys::stat::stat(super::path_of(image)).ok()?;
    Some((stat.st_dev, stat.st_ino))
}

#[cfg(test)]
mod tests {
    use sifter_proto::v1::{Image, Status};

    use super::{Duplicates, Output};

    fn image(path: &str, id: &str, digest: &str) -> Image {
        Image {
            path: path.to_owned(),
            image_id: id.to_owned(),
            content_digest: digest.to_owned(),
            size_bytes: 100,
            links: 1,
            status: Status::Ready.into(),
            ..Image::default()
        }
    }

    #[test]
    fn what_is_alike_is_one_group() {
        let links = |path: &str, links| Image {
            links,
            ..image(path, "i", "")
        };
        let cut_off = Image {
            status: Status::Failure.into(),
            ..image("/c", "i", "")
        };
        let shorter = Image {
            size_bytes: 40,
            ..image("/c", "i", "")
        };
        // Images; paths of each group, whether by content, and what is saved.
        type Expected = Vec<(&'static str, bool, u64)>;
        let table: Vec<(Vec<Image>, Expected)> = vec![
            (vec![image("/a", "i", ""), image("/b", "j", "")], vec![]),
            (
                vec![image("/a", "i", ""), image("/b", "i", "")],
                vec![("/a /b", false, 100)],
            ),
            (
                vec![image("/a", "i", "d"), image("/b", "i", "d")],
                vec![("/a /b", true, 100)],
            ),
            // Same header, other content.
            (vec![image("/a", "i", "d"), image("/b", "i", "e")], vec![]),
            // One digest is not known yet: nothing says that they differ.
            (
                vec![image("/a", "i", "d"), image("/b", "i", "")],
                vec![("/a /b", false, 100)],
            ),
            (
                vec![
                    image("/a", "i", "d"),
                    image("/b", "i", "e"),
                    image("/c", "i", ""),
                    image("/d", "i", "d"),
                ],
                vec![("/a /d", true, 100)],
            ),
            (vec![links("/a", 2), links("/b", 2)], vec![]),
            (
                vec![links("/a", 2), links("/b", 2), image("/c", "i", "")],
                vec![("/a /b /c", false, 100)],
            ),
            (vec![image("/a", "i", ""), cut_off], vec![]),
            (vec![image("/a", "i", ""), shorter], vec![]),
            // Damaged beyond an ID.
            (
                vec![
                    image("/a", "", "d"),
                    image("/b", "", "d"),
                    image("/c", "", ""),
                ],
                vec![("/a /b", true, 100)],
            ),
        ];
        for (images, expected) in table {
            let shown = format!("{images:?}");
            let mut duplicates = Duplicates::default();
            images.into_iter().for_each(|image| duplicates.add(image));
            let groups = duplicates.groups();
            let found: Vec<_> = groups
                .iter()
                .map(|group| {
                    let paths: Vec<_> = group
                        .images
                        .iter()
                        .map(|image| image.path.as_str())
                        .collect();
                    (paths.join(" "), group.digest.is_some(), group.saved)
                })
                .collect();
            let expected: Vec<_> = expected
                .into_iter()
                .map(|(paths, by_content, saved)| (paths.to_owned(), by_content, saved))
                .collect();
            assert_eq!(found, expected, "{shown}");
        }
    }

    /// Who deletes one of two names of a file, believing that it is a copy, may lose it.
    #[test]
    fn another_name_of_a_file_is_no_copy() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
        std::fs::write(path("a"), "image").unwrap();
        std::os::unix::fs::symlink("a", path("by-link")).unwrap();
        std::fs::copy(path("a"), path("copy")).unwrap();
        std::fs::hard_link(path("copy"), path("hard-link")).unwrap();
        for (names, local, shown, saved) in [
            (&["a", "by-link"][..], true, "", 0),
            (&["a", "by-link", "copy"], true, "a copy", 100),
            (
                &["copy", "hard-link", "by-link"],
                true,
                "by-link copy hard-link",
                100,
            ),
            // As the listing has it, where nobody can be asked.
            (&["a", "by-link"], false, "a by-link", 100),
            (&["a", "gone"], true, "a gone", 100),
        ] {
            let mut duplicates = Duplicates::new(local);
            for name in names {
                duplicates.add(Image {
                    links: if name.starts_with(['c', 'h']) { 2 } else { 1 },
                    ..image(&path(name), "i", "")
                });
            }
            let groups = duplicates.groups();
            let found: Vec<_> = groups
                .iter()
                .flat_map(|group| &group.images)
                .filter_map(|image| image.path.rsplit('/').next())
                .collect();
            assert_eq!(found.join(" "), shown, "{names:?}");
            let bytes: u64 = groups.iter().map(|group| group.saved).sum();
            assert_eq!(bytes, saved, "{names:?}");
        }
    }

    #[test]
    fn files_of_a_group_are_aligned_by_what_a_terminal_shows() {
        let mut duplicates = Duplicates::default();
        for (path, owner, links) in [("/a", "管理员", 1), ("/b", "root", 1), ("/c", "", 3)] {
            duplicates.add(Image {
                owner: owner.to_owned(),
                repository: "tool".to_owned(),
                tag: "1".to_owned(),
                links,
                ..image(path, "sha256:0123456789abcdef", "")
            });
        }
        let mut written = Vec::new();
        duplicates.write(&mut written, &Output::default()).unwrap();
        assert_eq!(
            String::from_utf8(written).unwrap(),
            "tool:1: 3 files, 200 B could be saved (same image ID 0123456789ab)\n    \
             100 B  管理员  /a\n    \
             100 B  root    /b\n    \
             100 B  0       /c  (3 hard links)\n\n\
             total: 1 image in 3 files; 200 B could be saved\n"
        );
    }
}
