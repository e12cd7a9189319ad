//! What Apptainer and Singularity refuse in a SIF that is whole.
//!
//! Source: apptainer and sylabs/singularity `pkg/image/sif.go: initializer, checkPartitionType`.

use super::descriptor::fs_name;
use super::{Sif, data_type, fs_type, part_type};
use crate::ext::{self, RawExtSuperblock};
use crate::window::Windows;

/// Why the runtimes do not run the container in a SIF, if there is one to run, and what to do. Architecture
/// and encryption are left to the host and to the user.
pub(super) fn of(windows: &Windows<'_>, sif: &Sif) -> Option<String> {
    // apptainer/sif `pkg/sif/load.go: isValidSif`; version 1 of the library took it.
    if sif.header.version_text() == b"00" {
        return Some(
            "SIF version 00 is that of the alphas of Singularity 3.0: build it again".to_owned(),
        );
    }
    let mut primaries = sif
        .of_type(data_type::PARTITION)
        .filter(|partition| partition.is_primary());
    let Some(primary) = primaries.next() else {
        return without_primary(sif);
    };
    let id = primary.id.get();
    // apptainer/sif `pkg/sif/select.go: getDescriptor` gives none of them.
    if let Some(second) = primaries.next() {
        return Some(format!(
            "objects {id} and {} are both primary system partitions: delete one with apptainer sif del",
            second.id.get()
        ));
    }
    let (file_system, _) = primary.partition()?;
    match file_system {
        fs_type::SQUASHFS | fs_type::ENCRYPTED_SQUASHFS | fs_type::GOCRYPTFS_SQUASHFS => None,
        fs_type::EXT3 => {
            let (offset, _) = primary.range()?;
            let head = windows.get(offset, ext::SUPERBLOCK_END as u64)?;
            RawExtSuperblock::read(head)?.refusal()
        }
        // A raw one passes that check and is not mounted.
        other => Some(format!(
            "object {id} (primary system partition) has a file system of type {} ({other}): build it again",
            fs_name(other)
        )),
    }
}

/// A file of data and overlay partitions alone is meant to be one; any other partition is there to be run.
fn without_primary(sif: &Sif) -> Option<String> {
    const NONE: &str = "no partition is marked as the primary system partition";
    let partitions = || {
        sif.of_type(data_type::PARTITION)
            .filter_map(|partition| Some((partition.id.get(), partition.partition()?.1)))
    };
    if let Some((id, _)) = partitions().find(|(_, part)| *part == part_type::SYSTEM) {
        return Some(format!(
            "{NONE}: mark object {id} with apptainer sif setprim"
        ));
    }
    partitions()
        .any(|(_, part)| !matches!(part, part_type::DATA | part_type::OVERLAY))
        .then(|| format!("{NONE}: build it again"))
}
