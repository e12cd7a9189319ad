//! A writer of tiny, valid SIFs: a definition, labels and a primary partition of one block.
//!
//! Independent of the parser under test, written from the layout of the format: 128 bytes of global
//! header, descriptors of 585 bytes at 4096, little endian throughout.

use std::fs;
use std::path::Path;

use serde_json::json;

const DESCRIPTORS_OFFSET: usize = 4096;
const DESCRIPTOR_SIZE: usize = 585;
const DESCRIPTORS_TOTAL: usize = 4;
const PARTITION_OFFSET: usize = 8192;
const PARTITION_SIZE: usize = 4096;
const DEFAULT_GROUP: u32 = 0xf000_0001;

const DEFFILE: i32 = 0x4001;
const PARTITION: i32 = 0x4004;
const GENERIC_JSON: i32 = 0x4006;

/// What distinguishes one tiny image from another.
#[derive(Debug, Clone)]
pub struct Tiny {
    /// Raw UUID.
    pub uuid: [u8; 16],
    /// Created and modified, seconds since the epoch.
    pub time: i64,
    /// `From` of a generated definition, as after `apptainer pull docker://…`.
    pub from: String,
}

impl Tiny {
    /// A distinct image for each number, as pulled from `repository:tag`.
    pub fn numbered(number: u32, from: &str) -> Self {
        let mut uuid = *b"sifter-test-0000";
        uuid[12..].copy_from_slice(&number.to_be_bytes());
        Self {
            uuid,
            time: 1_700_000_000 + i64::from(number),
            from: from.to_owned(),
        }
    }

    /// The bytes of the file.
    pub fn bytes(&self) -> Vec<u8> {
        let definition = format!("bootstrap: docker\nfrom: {}\n\n", self.from);
        let labels = json!({
            "org.label-schema.usage.singularity.deffile.bootstrap": "docker",
            "org.label-schema.usage.singularity.deffile.from": self.from,
        });
        let metadata = json!({
            "type": "container",
            "data": {"attributes": {"labels": labels, "deffile": definition.trim_end()}},
        })
        .to_string();

        let mut file = vec![0; PARTITION_OFFSET + PARTITION_SIZE];
        let objects_at = DESCRIPTORS_OFFSET + DESCRIPTORS_TOTAL * DESCRIPTOR_SIZE;
        let metadata_at = objects_at + definition.len();
        put(&mut file, objects_at, definition.as_bytes());
        put(&mut file, metadata_at, metadata.as_bytes());
        put(&mut file, PARTITION_OFFSET, &squashfs(self.time));

        let mut partition = [0; 11];
        put(&mut partition, 0, &1_i32.to_le_bytes()); // squashfs
        put(&mut partition, 4, &2_i32.to_le_bytes()); // primary system
        put(&mut partition, 8, b"02\0"); // amd64
        let objects: [(i32, &str, usize, usize, &[u8]); 3] = [
            (DEFFILE, "", objects_at, definition.len(), &[]),
            (
                GENERIC_JSON,
                "inspect-metadata.json",
                metadata_at,
                metadata.len(),
                &[],
            ),
            (PARTITION, "", PARTITION_OFFSET, PARTITION_SIZE, &partition),
        ];
        for (slot, (kind, name, offset, size, extra)) in objects.into_iter().enumerate() {
            let mut raw = [0; DESCRIPTOR_SIZE];
            put(&mut raw, 0, &kind.to_le_bytes());
            raw[4] = 1;
            put(
                &mut raw,
                5,
                &u32::try_from(slot + 1).expect("fits").to_le_bytes(),
            );
            put(&mut raw, 9, &DEFAULT_GROUP.to_le_bytes());
            for (at, value) in [(17, offset), (25, size), (33, size)] {
                put(&mut raw, at, &number(value).to_le_bytes());
            }
            put(&mut raw, 41, &self.time.to_le_bytes());
            put(&mut raw, 49, &self.time.to_le_bytes());
            put(&mut raw, 73, name.as_bytes());
            put(&mut raw, 201, extra);
            put(&mut file, DESCRIPTORS_OFFSET + slot * DESCRIPTOR_SIZE, &raw);
        }

        put(&mut file, 0, b"#!/usr/bin/env run-singularity\n");
        put(&mut file, 32, b"SIF_MAGIC\0");
        put(&mut file, 42, b"01\0");
        put(&mut file, 45, b"02\0");
        put(&mut file, 48, &self.uuid);
        put(&mut file, 64, &self.time.to_le_bytes());
        put(&mut file, 72, &self.time.to_le_bytes());
        let data_size = file.len() - objects_at;
        for (at, value) in [
            (80, DESCRIPTORS_TOTAL - objects.len()),
            (88, DESCRIPTORS_TOTAL),
            (96, DESCRIPTORS_OFFSET),
            (104, DESCRIPTORS_TOTAL * DESCRIPTOR_SIZE),
            (112, objects_at),
            (120, data_size),
        ] {
            put(&mut file, at, &number(value).to_le_bytes());
        }
        file
    }

    /// Writes the file.
    pub fn write(&self, path: &Path) {
        fs::write(path, self.bytes()).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }
}

/// A squashfs superblock for a file system of one block, gzip.
fn squashfs(time: i64) -> [u8; 96] {
    let mut raw = [0xff; 96];
    put(&mut raw, 0, b"hsqs");
    put(&mut raw, 4, &1_u32.to_le_bytes()); // inodes
    put(&mut raw, 8, &u32::try_from(time).unwrap_or(0).to_le_bytes());
    put(&mut raw, 12, &131_072_u32.to_le_bytes()); // block size
    put(&mut raw, 16, &0_u32.to_le_bytes()); // fragments
    put(&mut raw, 20, &1_u16.to_le_bytes()); // gzip
    put(&mut raw, 22, &17_u16.to_le_bytes()); // log2 of the block size
    put(&mut raw, 24, &0_u16.to_le_bytes()); // flags
    put(&mut raw, 26, &1_u16.to_le_bytes()); // IDs
    put(&mut raw, 28, &4_u16.to_le_bytes()); // version 4.0
    put(&mut raw, 30, &0_u16.to_le_bytes());
    put(&mut raw, 32, &0_u64.to_le_bytes()); // root inode
    put(&mut raw, 40, &number(PARTITION_SIZE).to_le_bytes()); // bytes used
    for table in [48, 64, 72] {
        // IDs, inodes, directories; others there are none of.
        put(&mut raw, table, &96_u64.to_le_bytes());
    }
    raw
}

fn put(buffer: &mut [u8], at: usize, bytes: &[u8]) {
    buffer[at..at + bytes.len()].copy_from_slice(bytes);
}

fn number(value: usize) -> u64 {
    u64::try_from(value).expect("fits")
}
