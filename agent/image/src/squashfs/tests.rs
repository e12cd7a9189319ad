//! File systems made in code, with what mksquashfs makes of few files: extended inodes, holes, hundreds of
//! fragments; and with what it never makes.

use super::{RawSuperblock, SquashfsTree};
use crate::read_at::ReadTree;

const BLOCK: u32 = 4096;
const STORED: u32 = 1 << 24;
const NO_FRAGMENT: u32 = u32::MAX;
/// Where data begin, behind the superblock.
const DATA: u64 = 96;
/// Bytes of the root directory's inode, behind which is that of the file.
const ROOT: u16 = 32;

/// A file system whose root directory has one file, `f`.
struct Made {
    data: Vec<u8>,
    inode: Vec<u8>,
    /// Where each lies, and its length.
    fragments: Vec<(u64, u32)>,
    fragment_count: u32,
    /// Where the directory says that the inode is.
    inode_offset: u16,
    /// One less than there are names, all the same.
    names: u32,
    /// Before the inodes.
    before: Vec<u8>,
}

impl Made {
    /// With an extended inode, which a file has that is linked twice, has holes or attributes.
    fn new(size: u64, fragment: (u32, u32), lengths: &[u32]) -> Self {
        let mut inode = vec![0; 16];
        inode[0] = 9;
        inode.extend(DATA.to_le_bytes());
        inode.extend(size.to_le_bytes());
        // Holes and links.
        inode.extend(7u64.to_le_bytes());
        inode.extend(2u32.to_le_bytes());
        inode.extend(fragment.0.to_le_bytes());
        inode.extend(fragment.1.to_le_bytes());
        inode.extend(u32::MAX.to_le_bytes());
        inode.extend(lengths.iter().flat_map(|length| length.to_le_bytes()));
        let letters = (0..3 * BLOCK).map(|at| b'a' + (at % 23) as u8);
        Self {
            data: letters.collect(),
            inode,
            fragments: Vec::new(),
            fragment_count: 0,
            inode_offset: ROOT,
            names: 0,
            before: Vec::new(),
        }
    }

    fn with_fragments(mut self, fragments: Vec<(u64, u32)>) -> Self {
        self.fragment_count = fragments.len() as u32;
        self.fragments = fragments;
        self
    }

    fn bytes(&self) -> Vec<u8> {
        let metadata = |bytes: &[u8]| {
            let length = bytes.len() as u16 | 1 << 15;
            [&length.to_le_bytes(), bytes].concat()
        };
        let mut root = vec![0; usize::from(ROOT)];
        root[0] = 1;
        let mut names = vec![0; 12];
        names[..4].copy_from_slice(&self.names.to_le_bytes());
        for _ in 0..=self.names {
            names.extend(self.inode_offset.to_le_bytes());
            names.extend([0, 0, 2, 0, 0, 0, b'f']);
        }
        // Three bytes are for `.` and `..`.
        root[24..26].copy_from_slice(&(names.len() as u16 + 3).to_le_bytes());

        let mut bytes = vec![0; DATA as usize];
        bytes.extend(&self.data);
        let inodes = bytes.len() as u64;
        bytes.extend(&self.before);
        bytes.extend(metadata(&[root, self.inode.clone()].concat()));
        let directories = bytes.len() as u64;
        bytes.extend(metadata(&names));
        let mut pointers = Vec::new();
        for entries in self.fragments.chunks(512) {
            pointers.extend((bytes.len() as u64).to_le_bytes());
            let entries = entries.iter().flat_map(|(start, length)| {
                [start.to_le_bytes(), u64::from(*length).to_le_bytes()].concat()
            });
            bytes.extend(metadata(&entries.collect::<Vec<u8>>()));
        }
        let fragments = bytes.len() as u64;
        bytes.extend(pointers);

        let used = bytes.len() as u64;
        bytes[..4].copy_from_slice(b"hsqs");
        bytes[12..16].copy_from_slice(&BLOCK.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.fragment_count.to_le_bytes());
        bytes[20] = 1;
        bytes[22] = 12;
        bytes[28] = 4;
        for (at, place) in [(40, used), (64, inodes), (72, directories), (80, fragments)] {
            bytes[at..at + 8].copy_from_slice(&place.to_le_bytes());
        }
        bytes
    }

    /// The beginning of the file, or what is wrong.
    fn read(&self, limit: usize) -> Result<Vec<u8>, String> {
        let bytes = self.bytes();
        let file = &bytes[..];
        let superblock = RawSuperblock::read(file).unwrap();
        let tree = SquashfsTree::open(&file, 0, superblock).unwrap();
        match tree.read("f", limit) {
            Ok(found) => Ok(found.unwrap()),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// A whole block as it is.
const WHOLE: u32 = BLOCK | STORED;

#[test]
fn extended_inodes_holes_and_fragments() {
    let block = BLOCK as usize;
    let fragment = (DATA + u64::from(BLOCK), 100 | STORED);
    let letters = Made::new(0, (0, 0), &[]).data;
    let zeros = vec![0; block];
    let tail = &letters[block + 5..block + 15];
    let many = |at: usize| {
        let mut fragments = vec![(0, STORED); 514];
        fragments[at] = fragment;
        fragments
    };
    for (what, made, expected) in [
        (
            "a block and a fragment",
            Made::new(4106, (0, 5), &[WHOLE]).with_fragments(vec![fragment]),
            [&letters[..block], tail].concat(),
        ),
        (
            "a hole first",
            Made::new(8192, (NO_FRAGMENT, 0), &[0, WHOLE]),
            [&zeros, &letters[..block]].concat(),
        ),
        (
            "a hole last",
            Made::new(4100, (NO_FRAGMENT, 0), &[WHOLE, 0]),
            [&letters[..block], &zeros[..4]].concat(),
        ),
        (
            "a block, and a fragment that has nothing of it",
            Made::new(4096, (0, 5), &[WHOLE]).with_fragments(vec![fragment]),
            letters[..block].to_vec(),
        ),
        (
            "the last fragment of the first block of the table",
            Made::new(10, (511, 5), &[]).with_fragments(many(511)),
            tail.to_vec(),
        ),
        (
            "the second of the second",
            Made::new(10, (513, 5), &[]).with_fragments(many(513)),
            tail.to_vec(),
        ),
    ] {
        assert_eq!(made.read(10_000), Ok(expected.clone()), "{what}");
        assert_eq!(made.read(7), Ok(expected[..7].to_vec()), "{what}");
    }
}

#[test]
fn what_makes_no_sense() {
    let sound = || Made::new(4096, (NO_FRAGMENT, 0), &[WHOLE]);
    let of_lengths = |lengths: &[u32]| Made::new(4096, (NO_FRAGMENT, 0), lengths);
    let fragments = |made: Made| made.with_fragments(vec![(DATA, 100 | STORED)]);
    for (what, made, expected) in [
        ("sound", sound(), None),
        (
            "as many names as may be together",
            Made {
                names: 255,
                ..sound()
            },
            None,
        ),
        (
            "a short block",
            of_lengths(&[WHOLE - 1]),
            Some("file at byte 4191"),
        ),
        (
            "a long block",
            of_lengths(&[WHOLE + 1]),
            Some("data block at byte 96"),
        ),
        (
            "more fragments than counted",
            Made {
                fragment_count: 0,
                ..fragments(Made::new(10, (0, 5), &[]))
            },
            Some("fragment index at byte"),
        ),
        (
            "more than the fragment has",
            fragments(Made::new(96, (0, 5), &[])),
            Some("fragment at byte 96"),
        ),
        (
            "an inode beyond its block",
            Made {
                inode_offset: 4000,
                ..sound()
            },
            Some("metadata at byte"),
        ),
        (
            "an inode of no kind",
            Made {
                inode: vec![15; 100],
                ..sound()
            },
            Some("inode at byte"),
        ),
        (
            "too many names",
            Made {
                names: 256,
                ..sound()
            },
            Some("directory at byte"),
        ),
        (
            "an empty metadata block",
            Made {
                before: vec![0, 0x80],
                ..sound()
            },
            Some("metadata block at byte"),
        ),
        (
            "a metadata block that is too long",
            Made {
                before: [&[0x01, 0xA0][..], &[0; 8193]].concat(),
                ..sound()
            },
            Some("metadata block at byte"),
        ),
    ] {
        let said = made.read(10_000).err();
        match expected {
            None => assert_eq!(said, None, "{what}"),
            Some(expected) => {
                let said = said.expect(what);
                assert!(
                    said.starts_with(&format!("squashfs {expected}")),
                    "{what}: {said}"
                );
            }
        }
    }
}
