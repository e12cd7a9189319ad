//! Sandbox metadata: labels, definition, history, and one file of the root, separated by NULs.
#![no_main]

use std::io;
use std::path::Path;

use jiff::Timestamp;
use libfuzzer_sys::fuzz_target;
use sifter_image::{Options, ReadTree, Subject, Verdict, probe_directory};

const NAMES: [&str; 6] = [
    ".singularity.d/labels.json",
    ".singularity.d/Singularity",
    ".singularity.d/bootstrap_history/Apptainer0",
    ".singularity.d/runscript",
    ".singularity.d/bootstrap_history/Singularity1",
    "etc/os-release",
];

struct Tree<'a>(Vec<&'a [u8]>);

impl ReadTree for Tree<'_> {
    fn read(&self, path: &str, limit: usize) -> io::Result<Option<Vec<u8>>> {
        let at = NAMES.iter().position(|name| *name == path);
        let found = at.and_then(|at| self.0.get(at));
        Ok(found.map(|bytes| bytes[..bytes.len().min(limit)].to_vec()))
    }

    fn list(&self, path: &str, limit: usize) -> io::Result<Option<Vec<String>>> {
        let names = NAMES
            .iter()
            .zip(&self.0)
            .filter_map(|(name, _)| name.strip_prefix(path)?.strip_prefix('/'))
            .map(|rest| rest.split('/').next().unwrap_or_default().to_owned());
        Ok(Some(names.take(limit).collect()))
    }
}

fuzz_target!(|bytes: &[u8]| {
    let tree = Tree(bytes.split(|byte| *byte == 0).take(NAMES.len()).collect());
    let now = Timestamp::from_second(1_800_000_000).expect("in range");
    let subject = Subject {
        path: Path::new("/images/box"),
        modified: now,
        now,
    };
    let verdict = probe_directory(&tree, &subject, &Options::default());
    match verdict.expect("memory does not fail") {
        Verdict::Image(image) => sifter_image_fuzz::check(&image),
        Verdict::NotImage(not) => panic!("a sandbox is a sandbox: {not:?}"),
    }
});
