//! A large directory: everything is listed, and nothing else.

use std::collections::BTreeSet;
use std::fs;

use sifter_tests::agent::Agent;
use sifter_tests::agent::Options;
use sifter_tests::agent::runtime;
use sifter_tests::sif::Tiny;
use tempfile::TempDir;

const IMAGES: u32 = 1_000;
const OTHERS: u32 = 10_000;
/// Names of files that are no images, some of which look like it.
const OTHER_NAMES: [&str; 5] = ["notes.txt", "result.dat", "photo.jpg", "mesh.sif", "noext"];

#[test]
fn a_thousand_images_among_ten_thousand_files_are_all_listed() {
    let root = TempDir::new().unwrap();
    let mut expected = BTreeSet::new();
    for number in 0..IMAGES {
        // Half of them in one directory, and the name tells of an image in two of three cases.
        let dir = match number % 2 {
            0 => root.path().join("depot"),
            _ => root.path().join(format!("user{}/project", number % 50)),
        };
        fs::create_dir_all(&dir).unwrap();
        let name = match number % 3 {
            0 => format!("tool-{number}.sif"),
            1 => format!("tool:{number}--0"),
            _ => format!("tool-{number}.img"),
        };
        let path = dir.join(name);
        Tiny::numbered(number, &format!("quay.io/lab/tool:{number}")).write(&path);
        expected.insert((path.to_str().unwrap().to_owned(), number.to_string()));
    }
    for number in 0..OTHERS {
        let dir = root
            .path()
            .join(format!("user{}/data{}", number % 50, number % 7));
        fs::create_dir_all(&dir).unwrap();
        let kind = OTHER_NAMES[usize::try_from(number).unwrap() % OTHER_NAMES.len()];
        // Some larger than a SIF's header, so that their size alone rules nothing out.
        let size = if number % 40 == 0 { 40_000 } else { 100 };
        fs::write(dir.join(format!("{number}-{kind}")), vec![b'x'; size]).unwrap();
    }

    let agent = Agent::ready(Options::roots([root.path()]));
    let images = runtime().block_on(agent.all());
    let listed: BTreeSet<_> = images
        .iter()
        .map(|image| (image.path.clone(), image.tag.clone()))
        .collect();
    assert_eq!(images.len(), expected.len());
    assert_eq!(listed, expected);
    let status = runtime().block_on(agent.status()).unwrap();
    assert_eq!(status.image_count, u64::from(IMAGES));
    assert_eq!(
        status.image_count_by_status.get("READY"),
        Some(&u64::from(IMAGES))
    );
}
