//! Sums over images: how many, and how many bytes, in all or by owner, repository, root, status or
//! format.
//!
//! A listing has a line a path, but hard links are one file on disk: their bytes count once. The
//! contract does not tell inodes; what it tells of an inode (size, owner, mode, number of links, …)
//! is the same for all links of one. So `n` paths alike in all of it, of files with `l` links each,
//! are `n / l` files, rounded up: exact where all links of a file are listed, and never too many.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, Write};

use serde_json::json;
use sifter_proto::v1::{Format, Image};

use crate::escape;
use crate::words::{count, size};

use super::table::Table;
use super::{Exit, WithExit};

/// What images are grouped by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum GroupBy {
    /// Owner of the file.
    Owner,
    /// Group of the file.
    Group,
    /// Repository.
    Repository,
    /// Image directory.
    Root,
    /// Status.
    Status,
    /// Image format.
    Format,
}

/// How the groups are ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    Name,
    Images,
    Size,
    Allocated,
}

/// Images and their bytes.
#[derive(Debug, Default)]
pub struct Sum {
    /// Images; every path is one.
    images: u64,
    size: u64,
    allocated: u64,
    /// Paths of files with several links.
    linked: HashMap<Linked, u64>,
}

/// What the paths of one inode have in common.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Linked {
    image_id: String,
    size: u64,
    allocated: u64,
    owner: (u32, u32),
    mode: u32,
    update_time: Option<(i64, i32)>,
    links: u64,
}

impl Linked {
    /// Of an image whose file has several links.
    #[must_use]
    pub fn of(image: &Image) -> Option<Self> {
        // The links of a directory are its subdirectories.
        (image.links > 1 && image.format() != Format::Sandbox).then(|| Self {
            image_id: image.image_id.clone(),
            size: image.size_bytes,
            allocated: image.allocated_bytes,
            owner: (image.uid, image.gid),
            mode: image.mode,
            update_time: image
                .update_time
                .as_ref()
                .map(|time| (time.seconds, time.nanos)),
            links: image.links,
        })
    }

    /// How many files `paths` such paths are.
    #[must_use]
    pub fn files(&self, paths: u64) -> u64 {
        paths.div_ceil(self.links.max(1))
    }
}

impl Sum {
    /// Adds an image.
    pub fn add(&mut self, image: &Image) {
        self.images += 1;
        match Linked::of(image) {
            Some(linked) => *self.linked.entry(linked).or_default() += 1,
            None => {
                self.size = self.size.saturating_add(image.size_bytes);
                self.allocated = self.allocated.saturating_add(image.allocated_bytes);
            }
        }
    }

    /// How many images.
    #[must_use]
    pub fn images(&self) -> u64 {
        self.images
    }

    /// Their apparent size, hard links counted once.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.with_linked(self.size, |linked| linked.size)
    }

    /// What they take on disk, hard links counted once.
    #[must_use]
    pub fn allocated(&self) -> u64 {
        self.with_linked(self.allocated, |linked| linked.allocated)
    }

    fn with_linked(&self, rest: u64, bytes: impl Fn(&Linked) -> u64) -> u64 {
        self.linked
            .iter()
            .map(|(linked, paths)| linked.files(*paths).saturating_mul(bytes(linked)))
            .fold(rest, u64::saturating_add)
    }

    /// The line below a table.
    #[must_use]
    pub fn line(&self) -> String {
        format!(
            "total: {}, {}, on disk {}",
            count(self.images, "image"),
            size(self.size()),
            size(self.allocated())
        )
    }

    /// As JSON, 64-bit numbers as proto3 spells them.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        json!({
            "imageCount": self.images.to_string(),
            "sizeBytes": self.size().to_string(),
            "allocatedBytes": self.allocated().to_string(),
        })
    }
}

impl GroupBy {
    /// Name of the field.
    fn name(self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::Group => "group",
            Self::Repository => "repository",
            Self::Root => "root",
            Self::Status => "status",
            Self::Format => "format",
        }
    }

    fn value(self, image: &Image) -> String {
        let or_number = |name: &str, number: u32| {
            if name.is_empty() {
                number.to_string()
            } else {
                name.to_owned()
            }
        };
        match self {
            Self::Owner => or_number(&image.owner, image.uid),
            Self::Group => or_number(&image.group, image.gid),
            Self::Repository => image.repository.clone(),
            Self::Root => image.root.clone(),
            Self::Status => bare(image.status().as_str_name(), "STATUS_"),
            Self::Format => bare(image.format().as_str_name(), "FORMAT_").to_lowercase(),
        }
    }
}

fn bare(name: &str, prefix: &str) -> String {
    name.strip_prefix(prefix).unwrap_or(name).replace('_', "-")
}

/// Images by group.
#[derive(Debug)]
pub struct Groups {
    by: GroupBy,
    order: (Order, bool),
    sums: BTreeMap<String, Sum>,
}

impl Groups {
    /// No images yet. `sort` is the order of the groups: `size`, `allocated`, `images` or the name
    /// of the field; without, the largest come first.
    ///
    /// # Errors
    ///
    /// Groups cannot be ordered so.
    pub fn new(by: GroupBy, sort: Option<&str>) -> anyhow::Result<Self> {
        Ok(Self {
            by,
            order: order(by, sort)?,
            sums: BTreeMap::new(),
        })
    }

    /// Adds an image.
    pub fn add(&mut self, image: &Image) {
        self.sums
            .entry(self.by.value(image))
            .or_default()
            .add(image);
    }

    fn ordered(&self) -> Vec<(&String, &Sum)> {
        let mut groups: Vec<_> = self.sums.iter().collect();
        let (order, descending) = self.order;
        groups.sort_by(|(a_name, a), (b_name, b)| {
            let by = match order {
                Order::Name => a_name.cmp(b_name),
                Order::Images => a.images().cmp(&b.images()),
                Order::Size => a.size().cmp(&b.size()),
                Order::Allocated => a.allocated().cmp(&b.allocated()),
            };
            if descending { by.reverse() } else { by }
        });
        groups
    }

    /// One JSON object a group.
    ///
    /// # Errors
    ///
    /// What writing says.
    pub fn write_json(&self, out: &mut dyn Write) -> io::Result<()> {
        for (name, sum) in self.ordered() {
            let mut group = sum.json();
            group[self.by.name()] = json!(name);
            writeln!(out, "{group}")?;
        }
        Ok(())
    }

    /// A table, with `total` as its last row.
    ///
    /// # Errors
    ///
    /// What writing says.
    pub fn write_table(
        &self,
        out: &mut dyn Write,
        no_header: bool,
        exact: bool,
        total: Option<&Sum>,
    ) -> io::Result<()> {
        let bytes = |bytes: u64| {
            if exact {
                bytes.to_string()
            } else {
                size(bytes)
            }
        };
        let mut table = Table::new([false, true, true, true]);
        if !no_header {
            table.row([&*self.by.name().to_uppercase(), "IMAGES", "SIZE", "ON DISK"]);
        }
        let total = total.map(|sum| ("total".into(), sum));
        let rows = self
            .ordered()
            .into_iter()
            .map(|(name, sum)| (escape::terminal(name), sum));
        for (name, sum) in rows.chain(total) {
            table.row([
                name,
                sum.images().to_string().into(),
                bytes(sum.size()).into(),
                bytes(sum.allocated()).into(),
            ]);
        }
        table.write(out)
    }
}

fn order(by: GroupBy, sort: Option<&str>) -> anyhow::Result<(Order, bool)> {
    let Some(text) = sort else {
        return Ok((Order::Size, true));
    };
    let wrong = || {
        WithExit::error(
            Exit::Usage,
            format!(
                "order: `{text}`: groups are ordered by size, allocated, images or {}",
                by.name()
            ),
        )
    };
    let mut words = text.split_whitespace();
    let first = words.next().ok_or_else(wrong)?;
    let (name, reversed) = first
        .strip_prefix('-')
        .map_or((first, false), |name| (name, true));
    let descending = match (words.next(), words.next()) {
        (None, _) => reversed,
        (Some(word), None) if word.eq_ignore_ascii_case("desc") => true,
        (Some(word), None) if word.eq_ignore_ascii_case("asc") => false,
        _ => return Err(wrong()),
    };
    let order = match name {
        "size" | "size_bytes" => Order::Size,
        "allocated" | "allocated_bytes" => Order::Allocated,
        "images" | "count" => Order::Images,
        name if name == by.name() => Order::Name,
        _ => return Err(wrong()),
    };
    Ok((order, descending))
}

#[cfg(test)]
mod tests {
    use sifter_proto::v1::{Format, Image};

    use super::{GroupBy, Groups, Sum};

    fn image(owner: &str, size_bytes: u64, links: u64) -> Image {
        Image {
            owner: owner.to_owned(),
            size_bytes,
            allocated_bytes: size_bytes + 1,
            links,
            ..Image::default()
        }
    }

    #[test]
    fn hard_links_count_once() {
        let sandbox = Image {
            format: Format::Sandbox.into(),
            ..image("a", 5, 9)
        };
        for (images, bytes) in [
            (vec![], 0),
            (vec![image("a", 10, 1), image("a", 10, 1)], 20),
            (vec![image("a", 10, 2), image("a", 10, 2)], 10),
            (
                vec![image("a", 10, 2), image("a", 10, 2), image("a", 10, 1)],
                20,
            ),
            // One of three links is elsewhere.
            (vec![image("a", 10, 3), image("a", 10, 3)], 10),
            (vec![image("a", 10, 2); 4], 20),
            // Of different owners: no links of one inode.
            (
                vec![
                    image("a", 10, 2),
                    Image {
                        uid: 7,
                        ..image("a", 10, 2)
                    },
                ],
                20,
            ),
            (vec![sandbox.clone(), sandbox], 10),
        ] {
            let mut sum = Sum::default();
            images.iter().for_each(|image| sum.add(image));
            assert_eq!(sum.size(), bytes, "{images:?}");
            assert_eq!(sum.images(), images.len() as u64);
        }
    }

    #[test]
    fn groups_are_ordered_as_asked() {
        let images = [
            image("b", 10, 1),
            image("a", 3, 1),
            image("c", 2, 1),
            image("c", 2, 1),
        ];
        for (sort, names) in [
            (None, ["b", "c", "a"]),
            (Some("owner"), ["a", "b", "c"]),
            (Some("owner desc"), ["c", "b", "a"]),
            (Some("-images"), ["c", "a", "b"]),
            (Some("size asc"), ["a", "c", "b"]),
        ] {
            let mut groups = Groups::new(GroupBy::Owner, sort).unwrap();
            images.iter().for_each(|image| groups.add(image));
            let ordered: Vec<_> = groups
                .ordered()
                .into_iter()
                .map(|(name, _)| name.as_str())
                .collect();
            assert_eq!(ordered, names, "{sort:?}");
        }
        for sort in ["", "tag", "size sideways", "size desc desc"] {
            assert!(Groups::new(GroupBy::Owner, Some(sort)).is_err(), "{sort}");
        }
    }
}
