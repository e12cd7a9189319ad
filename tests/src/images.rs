//! The real images of `tests/images`, and a larger corpus of real images where there is one beside
//! the work tree.

use std::fs;
use std::path::Path;
use std::path::PathBuf;

use serde_json::Map;
use serde_json::Value;

use crate::workspace;

/// `tests/images`.
pub fn dir() -> PathBuf {
    workspace().join("tests/images")
}

/// What apptainer says of each image of `tests/images`, by path below it.
pub fn truth() -> Map<String, Value> {
    match read_json(&dir().join("truth.json"))["images"].take() {
        Value::Object(images) => images,
        other => panic!("truth.json: images is {other}"),
    }
}

/// The larger corpus: `$SIFTER_SHARED/images`, or `../shared/images` beside the work tree.
pub fn corpus() -> Option<PathBuf> {
    let shared = std::env::var_os("SIFTER_SHARED")
        .map_or_else(|| workspace().join("../shared"), PathBuf::from);
    let images = shared.join("images").canonicalize().ok()?;
    images.join("truth.json").is_file().then_some(images)
}

/// The entries of the larger corpus's `truth.json`.
pub fn corpus_truth(corpus: &Path) -> Vec<Value> {
    match read_json(&corpus.join("truth.json")) {
        Value::Array(entries) => entries,
        other => panic!("truth.json is no list: {other}"),
    }
}

fn read_json(path: &Path) -> Value {
    let text =
        fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
