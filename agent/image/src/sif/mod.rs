//! The Singularity Image Format: global header, descriptor table, objects.
//!
//! Source: apptainer/sif `pkg/sif/load.go: loadContainer` and the files named beside each struct.
//! What is refused here is what no writer of the format makes: everything is read from the numbers
//! of header and descriptors, nothing is computed from alignment, and the order of objects means
//! nothing.

mod descriptor;
mod header;
mod image;
mod inside;
mod refusal;

use std::io;

use sha2::{Digest, Sha256};
use zerocopy::FromBytes;

#[cfg(feature = "verify")]
pub(crate) use descriptor::hash_name;
pub(crate) use descriptor::{DESCRIPTOR_LEN, RawDescriptor};
pub(crate) use descriptor::{data_type, fs_type, part_type, type_name};
pub(crate) use header::until_nul;
pub(crate) use header::{HEADER_LEN, MAGIC, MAGIC_OFFSET, RawHeader, arch_name};
pub(crate) use image::probe;
#[cfg(feature = "verify")]
pub(crate) use image::signature_form;

use crate::error::SifError;
use crate::limits;
use crate::window::Windows;

/// Header and used descriptors.
#[derive(Debug, Clone)]
pub(crate) struct Sif {
    /// The global header.
    pub(crate) header: RawHeader,
    /// Used descriptors with their slots, in table order.
    pub(crate) descriptors: Vec<(u32, RawDescriptor)>,
    /// The first thing that is wrong.
    pub(crate) error: Option<SifError>,
    /// Whether the whole of the table was there to be read.
    pub(crate) complete_table: bool,
}

impl Sif {
    /// Used descriptors of a data type, in table order.
    pub(crate) fn of_type(&self, data_type: i32) -> impl Iterator<Item = &RawDescriptor> {
        self.descriptors
            .iter()
            .map(|(_, descriptor)| descriptor)
            .filter(move |descriptor| descriptor.data_type.get() == data_type)
    }

    /// The first generic JSON object of this name.
    pub(crate) fn json_named(&self, name: &[u8]) -> Option<&RawDescriptor> {
        self.of_type(data_type::GENERIC_JSON)
            .find(|descriptor| descriptor.name() == name)
    }

    /// The primary system partition.
    pub(crate) fn primary(&self) -> Option<&RawDescriptor> {
        self.descriptors
            .iter()
            .map(|(_, descriptor)| descriptor)
            .find(|descriptor| descriptor.is_primary())
    }

    /// SHA-256 begun with the bytes of header and used descriptors.
    pub(crate) fn identity(&self) -> Sha256 {
        let mut hash = Sha256::new();
        hash.update(zerocopy::IntoBytes::as_bytes(&self.header));
        for (_, descriptor) in &self.descriptors {
            hash.update(zerocopy::IntoBytes::as_bytes(descriptor));
        }
        hash
    }
}

/// Reads header and descriptors. `None` where the file is too short for a header.
pub(crate) fn parse(windows: &mut Windows<'_>) -> io::Result<Option<Sif>> {
    let Ok((header, _)) = RawHeader::read_from_prefix(windows.head()) else {
        return Ok(None);
    };
    let mut sif = Sif {
        header,
        descriptors: Vec::new(),
        error: None,
        complete_table: false,
    };
    if !matches!(header.version_text(), b"00" | b"01") {
        sif.error = Some(SifError::Version {
            found: header.version_text().escape_ascii().to_string(),
        });
        return Ok(Some(sif));
    }
    let Some(table) = Table::of(&header) else {
        sif.error = Some(SifError::Table {
            total: header.descriptors_total.get(),
            size: header.descriptors_size.get(),
            offset: header.descriptors_offset.get(),
            limit: limits::DESCRIPTORS_MAX,
        });
        return Ok(Some(sif));
    };
    let lost = table.read(windows, &mut sif)?;
    sif.error = if table.end > windows.size() {
        Some(SifError::TableTruncated {
            end: table.end,
            size: windows.size(),
        })
    } else {
        sif.complete_table = true;
        check(&sif, &table, lost, windows.size())
    };
    Ok(Some(sif))
}

/// Where the descriptor table lies.
struct Table {
    total: u32,
    /// Objects by the header's counts of all slots and of free ones, whatever these say.
    used: i64,
    data_offset: i64,
    data_size: i64,
    offset: u64,
    end: u64,
}

impl Table {
    /// The table, where the header's numbers make sense. `load.go` reads `total` descriptors from
    /// `size` bytes: more bytes than needed do no harm, fewer do.
    fn of(header: &RawHeader) -> Option<Self> {
        let total = header.descriptors_total.get();
        let offset = u64::try_from(header.descriptors_offset.get()).ok()?;
        if !(0..=limits::DESCRIPTORS_MAX).contains(&total) || offset < HEADER_LEN as u64 {
            return None;
        }
        let needed = total.checked_mul(i64::try_from(DESCRIPTOR_LEN).ok()?)?;
        if header.descriptors_size.get() < needed {
            return None;
        }
        Some(Self {
            total: u32::try_from(total).ok()?,
            used: total.saturating_sub(header.descriptors_free.get()),
            data_offset: header.data_offset.get(),
            data_size: header.data_size.get(),
            offset,
            end: offset.checked_add(u64::try_from(needed).ok()?)?,
        })
    }

    fn slot_offset(&self, slot: u32) -> u64 {
        // Cannot overflow: `end` did not.
        self.offset + u64::from(slot) * DESCRIPTOR_LEN as u64
    }

    /// Reads the used descriptors into `sif`: those in the head first, and the rest of the table
    /// only if objects are missing there. That is so if the header counts more, or if the objects
    /// seen do not reach the end of the data area (one damaged number alone must not hide an
    /// object). Where objects are missing, returns the first slot that is marked unused but not empty.
    fn read(&self, windows: &mut Windows<'_>, sif: &mut Sif) -> io::Result<Option<u32>> {
        let next = self.walk(windows, 0, sif);
        let furthest = sif
            .descriptors
            .iter()
            .filter_map(|(_, descriptor)| {
                descriptor.offset.get().checked_add(descriptor.size.get())
            })
            .max()
            .unwrap_or(self.data_offset);
        let all = i64::try_from(sif.descriptors.len()) == Ok(self.used)
            && Some(furthest) == self.data_offset.checked_add(self.data_size);
        if next < self.total && !all {
            let start = self.slot_offset(next);
            let rest = self.end.saturating_sub(start);
            windows.fetch(start, rest + limits::TABLE_READ_AHEAD as u64)?;
            self.walk(windows, next, sif);
        }
        let found = i64::try_from(sif.descriptors.len());
        let is_lost = found.is_ok_and(|found| found < self.used);
        Ok(is_lost.then(|| self.lost(windows)).flatten())
    }

    /// Where an object's data lie, begin and end, unless that cannot be.
    fn data_range(&self, descriptor: &RawDescriptor) -> Option<(u64, u64)> {
        let (offset, size) = descriptor.range()?;
        let end = offset.checked_add(size)?;
        (offset >= self.end || offset == end).then_some((offset, end))
    }

    /// Where all objects' data lie, with their IDs, but for empty ones.
    fn data_ranges(&self, sif: &Sif) -> Vec<(u64, u64, u32)> {
        sif.descriptors
            .iter()
            .filter_map(|(_, descriptor)| {
                let (offset, end) = self.data_range(descriptor)?;
                (end > offset).then(|| (offset, end, descriptor.id.get()))
            })
            .collect()
    }

    /// A slot, as far as it has been read.
    fn slot<'w>(&self, windows: &'w Windows<'_>, slot: u32) -> Option<&'w RawDescriptor> {
        let bytes = windows.get(self.slot_offset(slot), DESCRIPTOR_LEN as u64)?;
        RawDescriptor::ref_from_bytes(bytes).ok()
    }

    /// Takes used descriptors from `slot` on as far as they have been read; returns where it
    /// stopped.
    fn walk(&self, windows: &Windows<'_>, mut slot: u32, sif: &mut Sif) -> u32 {
        while slot < self.total
            && let Some(descriptor) = self.slot(windows, slot)
        {
            if descriptor.is_used() {
                sif.descriptors.push((slot, *descriptor));
            }
            slot += 1;
        }
        slot
    }

    /// The first slot that is marked unused but not empty.
    fn lost(&self, windows: &Windows<'_>) -> Option<u32> {
        let is_lost = |descriptor: &RawDescriptor| {
            !descriptor.is_used()
                && zerocopy::IntoBytes::as_bytes(descriptor) != [0; DESCRIPTOR_LEN]
        };
        (0..self.total)
            .map_while(|slot| Some((slot, self.slot(windows, slot)?)))
            .find(|(_, descriptor)| is_lost(descriptor))
            .map(|(slot, _)| slot)
    }
}

/// The first thing that is wrong with the objects; truncation last, for a damaged file does not
/// become whole by waiting.
fn check(sif: &Sif, table: &Table, lost: Option<u32>, size: u64) -> Option<SifError> {
    let found = sif.descriptors.len();
    if let Some(slot) = lost {
        let offset = table.slot_offset(slot);
        return Some(SifError::LostObject {
            expected: table.used,
            found,
            slot,
            offset,
        });
    }
    let mut truncated = None;
    let mut ranges = Vec::new();
    let mut last = 0;
    for (slot, descriptor) in &sif.descriptors {
        let kind = descriptor.data_type.get();
        if !data_type::RANGE.contains(&kind) {
            let offset = table.slot_offset(*slot);
            return Some(SifError::DataType {
                slot: *slot,
                offset,
                found: kind,
            });
        }
        let id = descriptor.id.get();
        let Some((offset, end)) = table.data_range(descriptor) else {
            return Some(SifError::ObjectRange {
                id,
                kind: type_name(kind),
                offset: descriptor.offset.get(),
                size: descriptor.size.get(),
                data: table.end,
            });
        };
        if end > size && truncated.is_none() {
            truncated = Some(SifError::ObjectTruncated {
                id,
                kind: type_name(kind),
                end,
                size,
            });
        }
        if end > offset {
            // Writers mostly put one behind the other: then there is nothing to sort.
            if offset < last && ranges.is_empty() {
                ranges = table.data_ranges(sif);
            }
            last = end;
        }
    }
    ranges.sort_unstable();
    for pair in ranges.windows(2) {
        if let [(_, end, first), (offset, _, second)] = *pair
            && offset < end
        {
            return Some(SifError::Overlap {
                first,
                second,
                offset,
                end,
            });
        }
    }
    // To the tools such a file is empty (`pkg/sif/select.go: GetDescriptor`), as it is between the two last
    // writes of `pkg/sif/add.go: AddObject`.
    truncated.or_else(|| (found > 0 && table.used == 0).then_some(SifError::Uncounted { found }))
}
