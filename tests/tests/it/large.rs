//! A large directory: everything is listed, and nothing else.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;

use sifter_proto::v1::Image;
use sifter_proto::v1::ImageView;
use sifter_proto::v1::ListImagesRequest;
use sifter_proto::v1::StreamImagesRequest;
use sifter_proto::v1::WatchImagesRequest;
use sifter_proto::v1::image_service_client::ImageServiceClient;
use sifter_proto::v1::watch_images_response::Event;
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
    for (call, images) in listed(&agent, ImageView::Basic) {
        assert_eq!(images.len(), expected.len(), "{call}");
        let images = images.into_iter();
        let found: BTreeSet<_> = images.map(|image| (image.path, image.tag)).collect();
        assert_eq!(found, expected, "{call}");
    }
    let status = runtime().block_on(agent.status()).unwrap();
    assert_eq!(status.image_count, u64::from(IMAGES));
    assert_eq!(
        status.image_count_by_status.get("READY"),
        Some(&u64::from(IMAGES))
    );
}

/// Clients accept 4 MiB unless they are told otherwise.
#[test]
fn images_with_long_definitions_fit_into_the_messages_of_every_call() {
    let root = TempDir::new().unwrap();
    let mut expected = BTreeSet::new();
    for number in 0..40 {
        let path = root.path().join(format!("box{number}"));
        fs::create_dir_all(path.join(".singularity.d")).unwrap();
        let line = format!("Bootstrap: scratch\n# {number}\n");
        let definition = line.repeat((200 << 10) / line.len());
        fs::write(path.join(".singularity.d/Singularity"), definition).unwrap();
        expected.insert(path.to_str().unwrap().to_owned());
    }
    let agent = Agent::ready(Options::roots([root.path()]));
    for (call, images) in listed(&agent, ImageView::Full) {
        assert_eq!(images.len(), expected.len(), "{call}");
        assert!(images.iter().all(|image| image.definition.len() > 100_000));
        let paths: BTreeSet<_> = images.into_iter().map(|image| image.path).collect();
        assert_eq!(paths, expected, "{call}");
    }
}

/// A user may give them.
#[test]
fn images_with_long_paths_fit_into_the_messages_of_every_call() {
    let root = TempDir::new().unwrap();
    // Shown as four bytes each.
    let name = OsStr::from_bytes(&[0xff; 250]);
    let directory = (0..15).fold(root.path().to_owned(), |path, _| path.join(name));
    fs::create_dir_all(&directory).unwrap();
    for number in 0..300 {
        Tiny::numbered(number, "quay.io/lab/tool:1")
            .write(&directory.join(format!("{number}.sif")));
    }
    let agent = Agent::ready(Options::roots([root.path()]));
    for (call, images) in listed(&agent, ImageView::Basic) {
        let paths: BTreeSet<_> = images.iter().map(|image| &image.raw_path).collect();
        assert_eq!((images.len(), paths.len()), (300, 300), "{call}");
        assert!(
            images.iter().all(|image| image.path.len() > 14_000),
            "{call}"
        );
    }
}

/// All images as each call gives them to a client with the usual limits.
fn listed(agent: &Agent, view: ImageView) -> [(&'static str, Vec<Image>); 3] {
    let view = view.into();
    let (mut paged, mut streamed, mut watched) = (Vec::new(), Vec::new(), Vec::new());
    runtime().block_on(async {
        let mut client = ImageServiceClient::new(agent.channel().await);
        let mut request = ListImagesRequest {
            view,
            page_size: 1000,
            ..ListImagesRequest::default()
        };
        loop {
            let page = client.list_images(request.clone()).await.unwrap();
            let page = page.into_inner();
            paged.extend(page.images);
            if page.next_page_token.is_empty() {
                break;
            }
            request.page_token = page.next_page_token;
        }
        let request = StreamImagesRequest {
            view,
            ..StreamImagesRequest::default()
        };
        let mut stream = client.stream_images(request).await.unwrap().into_inner();
        while let Some(batch) = stream.message().await.unwrap() {
            streamed.extend(batch.images);
        }
        let request = WatchImagesRequest {
            view,
            ..WatchImagesRequest::default()
        };
        let mut events = client.watch_images(request).await.unwrap().into_inner();
        while let Some(event) = events.message().await.unwrap() {
            if event.event() == Event::SnapshotEnd {
                break;
            }
            // Some messages wait in memory for each client that is slow, and there may be hundreds of them.
            assert!(event.images.len() <= 100);
            watched.extend(event.images);
        }
    });
    [("pages", paged), ("stream", streamed), ("watch", watched)]
}
