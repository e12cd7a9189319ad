//! Comparing a listing with what is known to be true.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::path::Path;

use sifter_proto::v1::Image;
use sifter_tests::agent::Agent;
use sifter_tests::agent::Options;
use sifter_tests::agent::runtime;

/// Differences between truth and listing, collected so that one run shows all of them.
#[derive(Default)]
pub(crate) struct Differences(pub(crate) Vec<String>);

impl Differences {
    pub(crate) fn check<T: PartialEq + Debug>(
        &mut self,
        path: &str,
        field: &str,
        ours: T,
        theirs: T,
    ) {
        if ours != theirs {
            self.0
                .push(format!("{path}: {field}: {ours:?}, should be {theirs:?}"));
        }
    }

    pub(crate) fn assert_none(self) {
        assert!(
            self.0.is_empty(),
            "{} differences:\n{}",
            self.0.len(),
            self.0.join("\n")
        );
    }
}

/// The images an agent lists under a root, by path below it.
pub(crate) fn listing(root: &Path) -> BTreeMap<String, Image> {
    let agent = Agent::ready(Options::roots([root]));
    let prefix = format!("{}/", root.display());
    let images = runtime().block_on(agent.all());
    let count = images.len();
    let by_path: BTreeMap<_, _> = images
        .into_iter()
        .map(|image| (image.path.replacen(&prefix, "", 1), image))
        .collect();
    assert_eq!(by_path.len(), count, "a path is listed twice");
    by_path
}

/// Seconds since the epoch; zero where there is no time.
pub(crate) fn epoch(time: Option<&sifter_proto::Timestamp>) -> i64 {
    time.map_or(0, |time| time.seconds)
}
