//! Damaged copies of real images: each is listed with an honest status, and none hides another.

use std::collections::BTreeMap;
use std::fs;
use std::fs::File;
use std::path::Path;
use std::time::Duration;
use std::time::SystemTime;

use serde_json::Value;
use sifter_proto::v1::Status;
use sifter_tests::agent::Agent;
use sifter_tests::agent::Options;
use sifter_tests::agent::runtime;
use sifter_tests::images;
use tempfile::TempDir;

const SOURCES: [&str; 3] = [
    "pulled/ubuntu_22.04.sif",
    "built/tools.sif",
    "signed/twice.sif",
];
/// From here on the global header is whole: the file says what it is and how long it should be.
const HEADER: usize = 128;
/// Cuts and flips of each source.
const PLACES: usize = 60;
/// Long enough for no copy to be still under way.
const OLD: Duration = Duration::from_secs(30 * 24 * 3600);

/// Where the last object of an image ends, by what apptainer says.
fn end_of_objects(entry: &Value) -> usize {
    let number =
        |object: &Value, name: &str| object[name].as_str().unwrap().parse::<usize>().unwrap();
    entry["objects"]
        .as_array()
        .unwrap()
        .iter()
        .map(|object| number(object, "offset") + number(object, "size"))
        .max()
        .unwrap()
}

/// Places spread over a range: dense at its start, where the headers are.
fn places(from: usize, to: usize) -> impl Iterator<Item = usize> {
    (0..PLACES).map(move |step| from + (to - from) * step * step / (PLACES * PLACES))
}

fn write(path: &Path, bytes: &[u8], age: Duration) {
    fs::write(path, bytes).unwrap();
    File::options()
        .write(true)
        .open(path)
        .unwrap()
        .set_modified(SystemTime::now() - age)
        .unwrap();
}

/// Status and message of everything listed under a root, by file name.
fn statuses(root: &Path) -> BTreeMap<String, (Status, String)> {
    let agent = Agent::ready(Options::roots([root]));
    runtime()
        .block_on(agent.all())
        .into_iter()
        .map(|image| {
            let name = image.path.rsplit('/').next().unwrap().to_owned();
            (name, (image.status(), image.status_message))
        })
        .collect()
}

#[test]
fn an_image_cut_anywhere_is_listed_as_incomplete() {
    let truth = images::truth();
    let root = TempDir::new().unwrap();
    let mut expected = BTreeMap::new();
    for (number, source) in SOURCES.into_iter().enumerate() {
        let bytes = fs::read(images::dir().join(source)).unwrap();
        for cut in places(HEADER, end_of_objects(&truth[source])) {
            for (age, status) in [(Duration::ZERO, Status::Transfer), (OLD, Status::Failure)] {
                let name = format!("{number}-{cut}-{}.sif", age.as_secs());
                write(&root.path().join(&name), &bytes[..cut], age);
                expected.insert(name, status);
            }
        }
        let name = format!("{number}-whole.sif");
        write(&root.path().join(&name), &bytes, OLD);
        expected.insert(name, Status::Ready);
    }
    let listed = statuses(root.path());
    for (name, status) in &expected {
        let (found, message) = listed
            .get(name)
            .unwrap_or_else(|| panic!("{name} is not listed"));
        assert_eq!(found, status, "{name}: {message}");
        assert_eq!(
            message.is_empty(),
            *status == Status::Ready,
            "{name}: {message:?}"
        );
    }
    assert_eq!(listed.len(), expected.len());
}

#[test]
fn an_image_with_a_wrong_byte_is_listed_and_hides_no_neighbour() {
    let root = TempDir::new().unwrap();
    let mut names = Vec::new();
    for (number, source) in SOURCES.into_iter().enumerate() {
        let bytes = fs::read(images::dir().join(source)).unwrap();
        // Behind the magic: before it, the file is another one.
        for place in places(42, bytes.len()) {
            let mut damaged = bytes.clone();
            damaged[place] ^= 0xff;
            let name = format!("{number}-{place}.sif");
            write(&root.path().join(&name), &damaged, OLD);
            names.push(name);
            write(
                &root.path().join(format!("{number}-{place}-neighbour.sif")),
                &bytes,
                OLD,
            );
        }
    }
    names.sort();
    names.dedup();
    let listed = statuses(root.path());
    for name in &names {
        let (status, message) = listed
            .get(name)
            .unwrap_or_else(|| panic!("{name} is not listed"));
        assert!(
            matches!(status, Status::Ready | Status::Failure),
            "{name}: {status:?}"
        );
        // What is whole may still be what the runtimes refuse.
        let refused = message.starts_with("apptainer and singularity refuse the image: ");
        let is_said = match status {
            Status::Ready => message.is_empty() || refused,
            _ => !message.is_empty(),
        };
        assert!(is_said, "{name}: {status:?}: {message:?}");
        let neighbour = name.replace(".sif", "-neighbour.sif");
        assert_eq!(
            listed.get(&neighbour).map(|found| found.0),
            Some(Status::Ready),
            "{neighbour}"
        );
    }
    assert_eq!(listed.len(), 2 * names.len());
}
