//! The root file system inside a SIF, where header and objects do not say everything.

use std::io;

use super::{Sif, fs_type};
use crate::definition::Definition;
use crate::record::Image;
use crate::window::Windows;
use crate::{container, ext, squashfs};

/// The label that repeats what the definition's header says of the kind of source.
const BOOTSTRAP_LABEL: &str = "org.label-schema.usage.singularity.deffile.bootstrap";

/// Whether the image was made of another one of Singularity's, whose definition is then in the root of
/// this one and nowhere else (apptainer `internal/pkg/build/metadata.go: insertDefinition`). Of others
/// the root is not worth the reads.
pub(super) fn has_history(image: &Image) -> bool {
    let label = image.labels.get(BOOTSTRAP_LABEL);
    let definition = image.definition.as_deref().filter(|_| label.is_none());
    let definition = definition.map(Definition::parse);
    let agent = label.or_else(|| definition.as_ref()?.get("bootstrap"));
    agent.is_some_and(|agent| {
        ["localimage", "library", "shub", "oras"]
            .iter()
            .any(|known| agent.eq_ignore_ascii_case(known))
    })
}

/// Looks for labels, if they are wanted, and for a definition if there is none yet, in the primary partition.
/// What cannot be read inside leaves the image as it is: the runtimes mount the partition and may be
/// better off.
pub(super) fn look(
    windows: &Windows<'_>,
    sif: &Sif,
    wants_labels: bool,
    image: &mut Image,
) -> io::Result<()> {
    let Some(primary) = sif.primary() else {
        return Ok(());
    };
    let (Some((file_system, _)), Some((offset, size))) = (primary.partition(), primary.range())
    else {
        return Ok(());
    };
    let looked = match file_system {
        fs_type::SQUASHFS => {
            let Some(tree) = squashfs::tree_at(windows, offset, size)? else {
                return Ok(());
            };
            container::look(&tree, image, wants_labels)?
        }
        fs_type::EXT3 => {
            let Some(tree) = ext::tree_at(windows, offset, size)? else {
                return Ok(());
            };
            container::look(&tree, image, wants_labels)?
        }
        _ => return Ok(()),
    };
    if let Ok(Some(container)) = looked {
        container.fill(image);
    }
    Ok(())
}
