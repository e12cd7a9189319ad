//! Paging: each page size gives every image exactly once, in one order, over gRPC by token and by
//! skip, and over HTTP by number; and pages that an agent promises not to change for a moment.

use std::path::Path;
use std::time::Duration;
use std::time::Instant;

use sifter_proto::v1::ImageView;
use sifter_proto::v1::ListImagesRequest;
use sifter_tests::agent::Agent;
use sifter_tests::agent::Options;
use sifter_tests::agent::SYSTEM;
use sifter_tests::agent::runtime;
use sifter_tests::control::Control;
use sifter_tests::sif::Tiny;
use tempfile::TempDir;

const PAGE_SIZES: [u32; 3] = [1, 10, 50];
/// Not a multiple of 10 or 50, so that last pages are short.
const IMAGES: u32 = 63;

/// Images whose order by repository, tag and path is that of their numbers.
fn images() -> TempDir {
    let root = TempDir::new().unwrap();
    for number in 0..IMAGES {
        // Three tags a repository.
        let from = format!("lab/tool{:02}:{}", number / 3, number % 3);
        let tiny = Tiny::numbered(number, &from);
        tiny.write(&root.path().join(format!("{number:03}.sif")));
    }
    root
}

/// The documented order.
fn expected() -> Vec<(String, String)> {
    (0..IMAGES)
        .map(|number| {
            (
                format!("lab/tool{:02}", number / 3),
                (number % 3).to_string(),
            )
        })
        .collect()
}

fn agent(root: &Path) -> Agent {
    Agent::ready(Options::roots([root]))
}

#[test]
fn grpc_pages_by_token_and_by_skip() {
    let root = images();
    let agent = agent(root.path());
    let runtime = runtime();
    for page_size in PAGE_SIZES {
        let (mut by_token, mut by_skip) = (Vec::new(), Vec::new());
        let mut page_token = String::new();
        for page in 0.. {
            let answer = runtime
                .block_on(agent.list(ListImagesRequest {
                    page_size,
                    page_token,
                    ..ListImagesRequest::default()
                }))
                .unwrap();
            assert_eq!(answer.total_size, u64::from(IMAGES));
            assert_eq!(answer.system, SYSTEM);
            let skipped = runtime
                .block_on(agent.list(ListImagesRequest {
                    page_size,
                    skip: u64::from(page * page_size),
                    ..ListImagesRequest::default()
                }))
                .unwrap();
            assert_eq!(
                skipped.generation, answer.generation,
                "the listing changed under the test"
            );
            by_token.extend(answer.images);
            by_skip.extend(skipped.images);
            page_token = answer.next_page_token;
            if page_token.is_empty() {
                break;
            }
        }
        assert_eq!(by_token, by_skip, "page size {page_size}");
        let names: Vec<_> = by_token
            .into_iter()
            .map(|image| (image.repository, image.tag))
            .collect();
        assert_eq!(names, expected(), "page size {page_size}");
    }
    let beyond = runtime
        .block_on(agent.list(ListImagesRequest {
            page_size: 10,
            skip: 1_000,
            ..ListImagesRequest::default()
        }))
        .unwrap();
    assert_eq!(
        (beyond.images.len(), beyond.total_size),
        (0, u64::from(IMAGES))
    );
    assert_eq!(beyond.next_page_token, "");
}

#[test]
fn http_pages_by_number() {
    let root = images();
    let agent = agent(root.path());
    let control = Control::start(&[("ehpc-test", &[agent.unix_address()])]);
    for page_size in PAGE_SIZES {
        let mut names = Vec::new();
        let pages = IMAGES.div_ceil(page_size);
        // Two pages past the end.
        for page in 1..=pages + 2 {
            let answer = control.list(&format!(
                "ClusterId=ehpc-test&PageNumber={page}&PageSize={page_size}"
            ));
            let json = answer.json();
            assert_eq!(answer.status, 200, "{json}");
            let images = json["Images"]["Images"]
                .as_array()
                .expect("a list, even when empty");
            assert_eq!(json["PageNumber"], page);
            assert_eq!(json["PageSize"], images.len());
            assert_eq!(json["TotalCount"], IMAGES);
            let full = if page < pages { page_size } else { 0 };
            let last = if page == pages {
                IMAGES - (pages - 1) * page_size
            } else {
                0
            };
            assert_eq!(
                images.len(),
                usize::try_from(full + last).unwrap(),
                "page {page} of {page_size}"
            );
            for image in images {
                let text = |name: &str| image[name].as_str().expect("text").to_owned();
                names.push((text("Repository"), text("Tag")));
            }
        }
        assert_eq!(names, expected(), "page size {page_size}");
    }
}

/// Milliseconds.
fn lease(milliseconds: i32) -> sifter_proto::Duration {
    sifter_proto::Duration {
        seconds: 0,
        nanos: milliseconds * 1_000_000,
    }
}

#[test]
fn a_lease_is_given_to_who_asks_where_it_can_be_kept() {
    let root = images();
    let agent = agent(root.path());
    let runtime = runtime();
    let plain = ListImagesRequest {
        max_lease: Some(lease(10)),
        ..ListImagesRequest::default()
    };
    let token = runtime
        .block_on(agent.list(ListImagesRequest::default()))
        .unwrap()
        .next_page_token;
    let rows = [
        (plain.clone(), Some(lease(10))),
        (
            ListImagesRequest {
                skip: 50,
                order_by: "path".to_owned(),
                max_lease: Some(lease(3)),
                ..plain.clone()
            },
            Some(lease(3)),
        ),
        // A listing is never held back for longer.
        (
            ListImagesRequest {
                max_lease: Some(lease(999)),
                ..plain.clone()
            },
            Some(lease(10)),
        ),
        (
            ListImagesRequest {
                max_lease: None,
                ..plain.clone()
            },
            None,
        ),
        (
            ListImagesRequest {
                max_lease: Some(lease(-1)),
                ..plain.clone()
            },
            None,
        ),
        (
            ListImagesRequest {
                filter: "tag=1".to_owned(),
                ..plain.clone()
            },
            None,
        ),
        (
            ListImagesRequest {
                view: ImageView::Full.into(),
                ..plain.clone()
            },
            None,
        ),
        (
            ListImagesRequest {
                page_token: token,
                ..plain
            },
            None,
        ),
    ];
    for (request, expected) in rows {
        let text = format!("{request:?}");
        let answer = runtime.block_on(agent.list(request)).unwrap();
        assert_eq!(answer.lease, expected, "{text}");
    }
}

#[test]
fn leases_hold_back_no_listing_for_good_and_are_kept() {
    let root = images();
    let agent = agent(root.path());
    let runtime = runtime();
    let ask = || {
        let request = ListImagesRequest {
            max_lease: Some(lease(10)),
            ..ListImagesRequest::default()
        };
        let asked = Instant::now();
        let answer = runtime.block_on(agent.list(request)).unwrap();
        let lease = answer
            .lease
            .and_then(|lease| Duration::try_from(lease).ok());
        (
            answer.total_size,
            lease.map_or(asked, |lease| asked + lease),
        )
    };
    std::thread::scope(|scope| {
        let rescan = scope.spawn(|| {
            for number in IMAGES..IMAGES + 5 {
                Tiny::numbered(number, "lab/new:1")
                    .write(&root.path().join(format!("{number}.sif")));
                agent.scan();
            }
        });
        let (mut images, mut until) = ask();
        while images < u64::from(IMAGES) + 5 {
            let (now, next) = ask();
            assert!(
                now == images || Instant::now() >= until,
                "another listing before the lease of this one ended"
            );
            (images, until) = (now, next.max(until));
        }
        rescan.join().unwrap();
    });
}
