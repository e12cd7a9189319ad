//! What a container's root says of it: `.singularity.d`, or the few files of Singularity 2.0 to 2.2.
//!
//! Sources: singularity 2.x `libexec/bootstrap-scripts/post.sh`, 3.x `internal/pkg/build/build.go:
//! insertLabelsJSON, insertDefinition`, 2.2 `libexec/bootstrap/functions`.

use std::io;

use crate::definition::{Definition, bounded};
use crate::error::{ExtError, InsideError, SquashfsError};
use crate::labels::Labels;
use crate::limits;
use crate::metadata;
use crate::read_at::ReadTree;
use crate::record::Image;

const META: &str = ".singularity.d";
const LABELS: &str = ".singularity.d/labels.json";
const HISTORY: &str = ".singularity.d/bootstrap_history";

/// What is known from a container's root.
#[derive(Debug, Default)]
pub(crate) struct Container {
    pub(crate) labels: Labels,
    pub(crate) definition: Option<String>,
    /// `From` of the definitions it was rebuilt from, oldest first.
    pub(crate) history: Vec<String>,
    /// Whether the labels are more than are read.
    too_many_labels: bool,
}

impl Container {
    /// Gives `image` what it does not know from its header.
    pub(crate) fn fill(self, image: &mut Image) {
        if image.labels.is_empty() {
            image.labels = self.labels;
        }
        if image.definition.is_none() {
            image.definition = self.definition;
        }
        image.bootstrap_history = self.history;
        if self.too_many_labels {
            image.note(&format!(
                "{LABELS} has more bytes than the limit of {}: not read",
                limits::LABELS_FILE_MAX
            ));
        }
    }
}

/// As [`read`] from the root of a file system inside an image: what is wrong with the file system
/// is a result, only failing reads are errors.
pub(crate) fn look(
    tree: &dyn ReadTree,
    image: &Image,
    wants_labels: bool,
) -> io::Result<Result<Option<Container>, InsideError>> {
    match read(tree, image, wants_labels) {
        Ok(container) => Ok(Ok(container)),
        Err(error) => match error.downcast::<SquashfsError>() {
            Ok(inside) => Ok(Err(inside.into())),
            Err(error) => error
                .downcast::<ExtError>()
                .map(|inside| Err(inside.into())),
        },
    }
}

/// Reads from a container's root what `image` does not know from its header; `None` where there is no
/// container in it. Labels are not wanted where the header says that there are none.
pub(crate) fn read(
    tree: &dyn ReadTree,
    image: &Image,
    wants_labels: bool,
) -> io::Result<Option<Container>> {
    let Some(entries) = tree.list(META, limits::DIRECTORY_ENTRIES_MAX)? else {
        return Ok(is_ancient(tree)?.then(Container::default));
    };
    let mut container = Container::default();
    let has = |name: &str| entries.iter().any(|entry| entry == name);
    if wants_labels
        && image.labels.is_empty()
        && has("labels.json")
        && let Some(bytes) = tree.read(LABELS, limits::LABELS_FILE_MAX + 1)?
    {
        container.too_many_labels = bytes.len() > limits::LABELS_FILE_MAX;
        if !container.too_many_labels {
            container.labels = metadata::labels(&bytes);
        }
    }
    if image.definition.is_none()
        && has("Singularity")
        && let Some(bytes) = tree.read(".singularity.d/Singularity", limits::DEFINITION_MAX + 1)?
    {
        container.definition = Some(metadata::definition(&bytes));
    }
    if has("bootstrap_history") {
        container.history = history(tree)?;
    }
    Ok(Some(container))
}

/// Singularity 2.0 to 2.2: no `.singularity.d`, but these files in the root (later they are links).
fn is_ancient(tree: &dyn ReadTree) -> io::Result<bool> {
    for name in [".run", ".exec", ".shell"] {
        if tree.read(name, 1)?.is_none() {
            return Ok(false);
        }
    }
    Ok(tree.read("environment", 1)?.is_some() || tree.read("singularity", 1)?.is_some())
}

/// Definitions kept by rebuilds: `Apptainer<N>` (apptainer), `Singularity<N>` (CE, 3.x), oldest
/// first.
fn history(tree: &dyn ReadTree) -> io::Result<Vec<String>> {
    let names = tree
        .list(HISTORY, limits::DIRECTORY_ENTRIES_MAX)?
        .unwrap_or_default();
    let mut numbered: Vec<(u32, String)> = names
        .into_iter()
        .filter_map(|name| {
            let number = name
                .strip_prefix("Apptainer")
                .or_else(|| name.strip_prefix("Singularity"))?;
            Some((number.parse().ok()?, name))
        })
        .collect();
    numbered.sort();
    numbered.truncate(limits::HISTORY_MAX);
    let mut history = Vec::with_capacity(numbered.len());
    for (_, name) in numbered {
        if let Some(bytes) = tree.read(&format!("{HISTORY}/{name}"), limits::DEFINITION_MAX + 1)? {
            let text = metadata::definition(&bytes);
            let definition = Definition::parse(&text);
            let from = definition.get("from").map(str::trim).unwrap_or_default();
            if !from.is_empty() {
                history.push(bounded(from, limits::HISTORY_TEXT_MAX).to_owned());
            }
        }
    }
    Ok(history)
}
