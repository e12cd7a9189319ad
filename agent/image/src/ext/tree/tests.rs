//! Trees of made file systems, and of those that `mke2fs` made.

use super::*;

#[test]
fn links_are_not_followed_and_what_is_not_there_is_none() {
    for file in [
        &include_bytes!("../../../tests/it/data/box.ext2")[..],
        include_bytes!("../../../tests/it/data/box.ext3"),
        include_bytes!("../../../tests/it/data/box.ext4"),
    ] {
        let superblock = RawExtSuperblock::read(file).unwrap();
        let tree = ExtTree::open(&file, 0, file.len() as u64, &superblock).unwrap();
        let definition = tree.read(".singularity.d/Singularity", 9).unwrap();
        assert_eq!(definition.as_deref(), Some(&b"Bootstrap"[..]));
        for path in [".singularity.d/alias", "link", "many", "none", "large/none"] {
            assert_eq!(tree.read(path, 9).unwrap(), None, "{path}");
        }
        for path in ["link", "large", "none"] {
            assert_eq!(tree.list(path, 9).unwrap(), None, "{path}");
        }
        assert_eq!(
            tree.list("many", 7).unwrap().map(|names| names.len()),
            Some(7)
        );
        let names = tree.list("many", 1000).unwrap().unwrap();
        assert_eq!(names.len(), 400);
        let last = "a-file-with-a-rather-long-name-so-that-blocks-fill-400";
        assert!(names.iter().any(|name| name == last));
        assert_eq!(
            tree.read(&format!("many/{last}"), 9).unwrap(),
            Some(Vec::new())
        );
        let large = tree.read("large", 1 << 20).unwrap().unwrap();
        assert_eq!(large, b"a line of a large file\n".repeat(1781)[..40_960]);
    }
}

/// Inodes of 256 bytes in groups of eight, whose tables lie at blocks 40 and 44.
#[test]
fn inodes_of_every_group() {
    let mut file = include_bytes!("../../../tests/it/data/plain.ext2").to_vec();
    let put = |file: &mut [u8], at: usize, number: u32| {
        file[at..at + 4].copy_from_slice(&number.to_le_bytes());
    };
    put(&mut file, 1024 + 40, 8);
    for (group, table) in [(0, 40), (1, 44)] {
        put(&mut file, 2048 + group * 32 + 8, table);
    }
    // The second inode of the second group.
    let at = 44 * 1024 + 256;
    put(&mut file, at + 4, 9);
    put(&mut file, at + 108, 1);
    let inode = |file: &[u8]| {
        let superblock = RawExtSuperblock::read(file).unwrap();
        let tree = ExtTree::open(&file, 0, file.len() as u64, &superblock).unwrap();
        let found = tree.inode(10).map_err(|error| error.to_string());
        found.map(|inode| (inode.at, inode.size))
    };
    // Of a directory the upper half is something else.
    for (kind, size) in [(REGULAR, 1 << 32 | 9), (DIRECTORY, 9)] {
        file[at..at + 2].copy_from_slice(&kind.to_le_bytes());
        assert_eq!(inode(&file), Ok((at as u64, size)));
    }
    // Descriptors of 64 bytes have an upper half of each number.
    let mut large = file.clone();
    large[1024 + 96] |= 0x80;
    large[1024 + 254] = 64;
    put(&mut large, 2048 + 64 + 8, 44);
    assert_eq!(inode(&large), Ok((at as u64, 9)));
    put(&mut large, 2048 + 64 + 40, 1);
    let said = inode(&large).unwrap_err();
    assert!(
        said.contains(&format!("inode at byte {}", (1u64 << 42) + at as u64)),
        "{said}"
    );
    put(&mut file, 2048 + 32 + 8, 0);
    let said = inode(&file).unwrap_err();
    assert!(said.contains("inode table at byte 0 "), "{said}");
}

/// There the length of an entry that takes all of it has no number of its own.
#[test]
fn directories_in_blocks_of_64_kib() {
    const BLOCK: usize = 64 << 10;
    let mut file = include_bytes!("../../../tests/it/data/plain.ext2").to_vec();
    file[1024 + 24] = 6;
    for (length, expected) in [(0u16, true), (0xFFFF, true), (0xFFFC, false)] {
        file.resize(BLOCK, 0);
        file.extend(11u32.to_le_bytes());
        file.extend(length.to_le_bytes());
        file.extend(b"\x01\x01a");
        file.resize(2 * BLOCK, 0);
        let superblock = RawExtSuperblock::read(&file).unwrap();
        let tree = ExtTree::open(&file, 0, file.len() as u64, &superblock).unwrap();
        let mut blocks = vec![0; BLOCKS.len()];
        blocks[0] = 1;
        let inode = Inode {
            at: 0,
            kind: DIRECTORY,
            flags: 0,
            size: BLOCK as u64,
            blocks,
        };
        let mut names = Vec::new();
        let walked = tree.walk(&inode, |name, number| {
            names.push((name.to_vec(), number));
            true
        });
        assert_eq!(walked.is_ok(), expected, "{length:#x}");
        assert_eq!(names, [(b"a".to_vec(), 11)], "{length:#x}");
    }
}

#[test]
fn a_root_that_is_no_directory_is_damage() {
    const ROOT_MODE: usize = 5 * 1024 + 256;
    let mut file = include_bytes!("../../../tests/it/data/plain.ext2").to_vec();
    for (kind, is_damage) in [(DIRECTORY, false), (REGULAR, true)] {
        file[ROOT_MODE..][..2].copy_from_slice(&kind.to_le_bytes());
        let superblock = RawExtSuperblock::read(&file).unwrap();
        let tree = ExtTree::open(&file, 0, file.len() as u64, &superblock).unwrap();
        assert_eq!(tree.list("none", 9).is_err(), is_damage, "{kind:#x}");
    }
}

#[test]
fn what_cannot_be_read_is_said_and_not_guessed() {
    for (flag, reason) in [
        (0x800, "encrypted content"),
        (0x1000_0000, "content in the inode"),
    ] {
        let (file, mut inode) = made(&[], &[20], flag);
        inode.size = 9;
        let superblock = RawExtSuperblock::read(&file).unwrap();
        let tree = ExtTree::open(&file, 0, file.len() as u64, &superblock).unwrap();
        let error = tree.contents(&inode, 9).unwrap_err().to_string();
        assert!(error.ends_with(reason), "{error}");
        let error = tree.walk(&inode, |_, _| true).unwrap_err().to_string();
        assert!(error.ends_with(reason), "{error}");
    }
}

const BLOCK: usize = 1024;

/// A file system of blocks that hold these numbers, and an inode of these.
fn made(blocks: &[(usize, &[u32])], inode: &[u32], flags: u32) -> (Vec<u8>, Inode) {
    let bytes = |numbers: &[u32]| -> Vec<u8> {
        numbers
            .iter()
            .flat_map(|number| number.to_le_bytes())
            .collect()
    };
    let mut file = include_bytes!("../../../tests/it/data/plain.ext2").to_vec();
    for (number, numbers) in blocks {
        let numbers = bytes(numbers);
        file[number * BLOCK..][..numbers.len()].copy_from_slice(&numbers);
    }
    let mut blocks = bytes(inode);
    blocks.resize(BLOCKS.len(), 0);
    let inode = Inode {
        at: 0,
        kind: REGULAR,
        flags,
        size: u64::MAX,
        blocks,
    };
    (file, inode)
}

fn check(file: &[u8], inode: &Inode, cases: &[(u64, Option<u64>)]) {
    let superblock = RawExtSuperblock::read(file).unwrap();
    let tree = ExtTree::open(&file, 0, file.len() as u64, &superblock).unwrap();
    for (index, block) in cases {
        assert_eq!(tree.block_of(inode, *index).unwrap(), *block, "{index}");
    }
}

#[test]
fn blocks_by_pointers() {
    const ONE: u64 = 12;
    const TWO: u64 = ONE + 256;
    const THREE: u64 = TWO + 256 * 256;
    let mut inode = [0; 15];
    inode[0] = 20;
    inode[11] = 21;
    inode[12..].copy_from_slice(&[30, 31, 32]);
    let last = |number: u32| {
        let mut numbers = [0; 256];
        (numbers[0], numbers[255]) = (0, number);
        numbers
    };
    let (file, inode) = made(&[(30, &last(40)), (31, &[0, 30]), (32, &[31])], &inode, 0);
    check(
        &file,
        &inode,
        &[
            (0, Some(20)),
            (1, None),
            (11, Some(21)),
            (ONE, None),
            (ONE + 255, Some(40)),
            (TWO, None),
            (TWO + 255, None),
            (TWO + 511, Some(40)),
            (TWO + 512, None),
            (THREE, None),
            (THREE + 511, Some(40)),
            (THREE + 65_536, None),
        ],
    );
}

#[test]
fn blocks_by_extents() {
    let node = |depth: u32, entries: &[[u32; 3]]| {
        let magic = u32::from(EXTENT_MAGIC);
        let head = [magic | (entries.len() as u32) << 16, 84 | depth << 16, 0];
        [&head, entries.as_flattened()].concat()
    };
    let inner = node(1, &[[0, 31, 0], [100, 32, 0]]);
    // First block, length, where they lie.
    let leaf = node(0, &[[0, 2, 40], [5, 3 | 1 << 15, 50], [9, 1 << 15, 60]]);
    let last = node(0, &[[100, 1 | 7 << 16, 70]]);
    let (file, inode) = made(
        &[(30, &inner), (31, &leaf), (32, &last)],
        &node(2, &[[0, 30, 0], [200, 30, 0]]),
        FLAG_EXTENTS,
    );
    check(
        &file,
        &inode,
        &[
            (0, Some(40)),
            (1, Some(41)),
            (2, None),
            (5, None),
            (9, Some(60)),
            (99, Some(150)),
            (100, Some(7 << 32 | 70)),
            (101, None),
            (200, None),
        ],
    );
    let chain: Vec<_> = (0..5)
        .map(|depth| node(depth, &[[0, 29 + depth, 0]]))
        .collect();
    let blocks: Vec<_> = (30..).zip(chain.iter().map(Vec::as_slice)).collect();
    let leaf = node(0, &[[0, 1, 40]]);
    let blocks = [&blocks[1..], &[(30, &leaf[..])]].concat();
    for (what, root, is_read) in [
        ("the deepest", node(5, &[[0, 34, 0]]), true),
        ("deeper", node(6, &[[0, 34, 0]]), false),
        ("its own child", node(2, &[[0, 32, 0]]), false),
        ("without the magic", vec![0; 15], false),
        (
            "with more entries than room",
            node(0, &[[0, 1, 40]; 5]),
            false,
        ),
        ("with a child beyond the end", node(1, &[[0, 30, 1]]), false),
        ("with a child at block 0", node(1, &[[0, 0, 0]]), false),
    ] {
        let (file, inode) = made(&blocks, &root, FLAG_EXTENTS);
        let superblock = RawExtSuperblock::read(&file).unwrap();
        let tree = ExtTree::open(&file, 0, file.len() as u64, &superblock).unwrap();
        assert_eq!(tree.block_of(&inode, 0).is_ok(), is_read, "{what}");
    }
}
