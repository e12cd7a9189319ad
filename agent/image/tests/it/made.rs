//! SIF images made in code, as Apptainer lays them out.

/// A SIF in the making.
#[derive(Clone)]
pub(crate) struct Sif {
    pub(crate) launch: &'static [u8],
    pub(crate) version: &'static [u8; 2],
    pub(crate) arch: &'static [u8; 2],
    pub(crate) uuid: [u8; 16],
    pub(crate) created: i64,
    pub(crate) modified: i64,
    pub(crate) slots: usize,
    pub(crate) align: usize,
    pub(crate) objects: Vec<Option<Object>>,
}

/// An object in the making.
#[derive(Clone)]
pub(crate) struct Object {
    pub(crate) data_type: i32,
    pub(crate) name: String,
    pub(crate) group: u32,
    pub(crate) link: u32,
    pub(crate) extra: Vec<u8>,
    pub(crate) data: Vec<u8>,
}

impl Object {
    pub(crate) fn new(data_type: i32, name: &str, data: impl Into<Vec<u8>>) -> Self {
        Self {
            data_type,
            name: name.to_owned(),
            group: 0xF000_0001,
            link: 0,
            extra: Vec::new(),
            data: data.into(),
        }
    }

    /// A partition of this file system, part type and architecture.
    pub(crate) fn partition(fs: i32, part: i32, arch: &[u8; 2], data: impl Into<Vec<u8>>) -> Self {
        let mut object = Self::new(0x4004, "", data);
        object.extra.extend(fs.to_le_bytes());
        object.extra.extend(part.to_le_bytes());
        object.extra.extend(arch);
        object
    }

    /// An OCI blob or root index, with its digest.
    pub(crate) fn blob(data_type: i32, data: impl Into<Vec<u8>>) -> Self {
        let mut object = Self::new(data_type, "", data);
        object.extra = digest(&object.data).into_bytes();
        object
    }
}

/// `sha256:…` of some bytes.
pub(crate) fn digest(bytes: &[u8]) -> String {
    use sha2::{Digest, Sha256};
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

impl Sif {
    /// An empty container with 48 slots.
    pub(crate) fn new() -> Self {
        Self {
            launch: b"#!/usr/bin/env run-singularity\n",
            version: b"01",
            arch: b"00",
            uuid: [7; 16],
            created: 1_700_000_000,
            modified: 1_700_000_001,
            slots: 48,
            align: 1,
            objects: Vec::new(),
        }
    }

    pub(crate) fn with(mut self, object: Object) -> Self {
        self.objects.push(Some(object));
        self
    }

    /// A hole, as `sif del` leaves it.
    pub(crate) fn with_hole(mut self) -> Self {
        self.objects.push(None);
        self
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let table = 4096;
        let data_start = table + self.slots * 585;
        let mut bytes = vec![0; data_start];
        bytes[..self.launch.len()].copy_from_slice(self.launch);
        bytes[32..42].copy_from_slice(b"SIF_MAGIC\0");
        bytes[42..44].copy_from_slice(self.version);
        bytes[45..47].copy_from_slice(self.arch);
        bytes[48..64].copy_from_slice(&self.uuid);
        let mut used = 0;
        for (slot, object) in self.objects.iter().enumerate() {
            let Some(object) = object else { continue };
            used += 1;
            let before = bytes.len();
            let align = if object.data_type == 0x4004 {
                4096.max(self.align)
            } else {
                self.align
            };
            bytes.resize(bytes.len().next_multiple_of(align), 0);
            let offset = bytes.len();
            bytes.extend(&object.data);
            let mut descriptor = Vec::with_capacity(585);
            descriptor.extend(object.data_type.to_le_bytes());
            descriptor.push(1);
            descriptor.extend(u32::try_from(slot + 1).expect("few").to_le_bytes());
            descriptor.extend(object.group.to_le_bytes());
            descriptor.extend(object.link.to_le_bytes());
            for number in [offset, object.data.len(), bytes.len() - before] {
                descriptor.extend((number as u64).to_le_bytes());
            }
            for time in [self.created, self.modified, 0, 0] {
                descriptor.extend(time.to_le_bytes());
            }
            descriptor.extend(object.name.as_bytes());
            descriptor.resize(201, 0);
            descriptor.extend(&object.extra);
            descriptor.resize(585, 0);
            let at = table + slot * 585;
            bytes[at..at + 585].copy_from_slice(&descriptor);
        }
        let numbers = [
            self.created,
            self.modified,
            (self.slots - used) as i64,
            self.slots as i64,
            table as i64,
            (self.slots * 585) as i64,
            data_start as i64,
            (bytes.len() - data_start) as i64,
        ];
        for (index, number) in numbers.into_iter().enumerate() {
            bytes[64 + index * 8..72 + index * 8].copy_from_slice(&number.to_le_bytes());
        }
        bytes
    }
}

/// A squashfs of `length` bytes of which only the superblock is there.
pub(crate) fn hollow_squashfs(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    bytes[..4].copy_from_slice(b"hsqs");
    bytes[4..8].copy_from_slice(&5u32.to_le_bytes());
    bytes[8..12].copy_from_slice(&1_600_000_000u32.to_le_bytes());
    bytes[12..16].copy_from_slice(&131_072u32.to_le_bytes());
    bytes[20..22].copy_from_slice(&1u16.to_le_bytes());
    bytes[22..24].copy_from_slice(&17u16.to_le_bytes());
    bytes[28..30].copy_from_slice(&4u16.to_le_bytes());
    bytes[40..48].copy_from_slice(&(length as u64).to_le_bytes());
    bytes
}

/// `inspect-metadata.json` with one label.
pub(crate) const INSPECT: &str = r#"{"type":"container","data":{"attributes":{"labels":{"k":"v","org.label-schema.usage.singularity.deffile.bootstrap":"docker"},"deffile":"bootstrap: docker\nfrom: alpine:3.19\n"}}}"#;

/// What apptainer makes of a pull.
pub(crate) fn native() -> Sif {
    let mut sif = Sif::new()
        .with(Object::new(
            0x4001,
            "",
            "bootstrap: docker\nfrom: alpine:3.19\n",
        ))
        .with(Object::new(0x4006, "inspect-metadata.json", INSPECT))
        .with(Object::partition(1, 2, b"02", hollow_squashfs(4192)));
    sif.arch = b"02";
    sif
}
