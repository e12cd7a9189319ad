//! Filters and orders over snapshots.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Labels, Query};
use crate::catalog::testing::{full_row, kept, row};
use crate::catalog::{Commons, FileTime, KeptRow, Snapshot, StoreError};

struct Fixed;

impl Labels for Fixed {
    fn label(&self, image: i64, key: &str) -> Result<Option<String>, StoreError> {
        Ok((image == 1 && key == "maintainer").then(|| "me".to_owned()))
    }
}

fn snapshot() -> Snapshot {
    let mut rows = [
        row(
            1,
            "/data/u/samtools_1.9.sif",
            "quay.io/biocontainers/samtools",
            "1.9",
        ),
        row(2, "/data/v/ubuntu.sif", "ubuntu", "22.04"),
        row(3, "/data/v/with space.sif", "with space", "[1]"),
    ];
    rows[0].facts.size = 2_000_000_000;
    rows[1].facts.size = 10;
    rows[0].update_time = "2020-01-01T00:00:00Z"
        .parse::<jiff::Timestamp>()
        .unwrap()
        .into();
    rows[1].update_time = "2025-12-31T00:00:00Z"
        .parse::<jiff::Timestamp>()
        .unwrap()
        .into();
    rows[2].update_time = "2025-12-31T00:00:00Z"
        .parse::<jiff::Timestamp>()
        .unwrap()
        .into();
    rows[1].facts.uid = 4711;
    let mut commons = Commons::default();
    let rows = rows
        .iter()
        .map(|row| Arc::new(KeptRow::new(row, &mut commons)))
        .collect();
    Snapshot::default().next(rows, &[], BTreeMap::new(), None).0
}

#[test]
fn filters_select() {
    let now: FileTime = "2026-01-01T00:00:00Z"
        .parse::<jiff::Timestamp>()
        .unwrap()
        .into();
    let snapshot = snapshot();
    for (filter, order, expected) in [
        ("", "", &[1, 2, 3][..]),
        ("repository=ubuntu", "", &[2]),
        ("repository!=ubuntu", "", &[1, 3]),
        ("repository=*samtools", "", &[1]),
        ("reference=ubuntu:22.*", "", &[2]),
        ("path=/data/v/*", "", &[2, 3]),
        ("repository=\"with space\"", "", &[3]),
        ("tag=[1]", "", &[3]),
        ("size>1G", "", &[1]),
        ("size<1GiB size_bytes>=10", "", &[2]),
        ("age>1y", "", &[1]),
        ("update_time>=2025-01-01", "", &[2, 3]),
        ("owner=4711", "", &[2]),
        ("status=ready", "", &[1, 2, 3]),
        ("status=STATUS_FAILURE", "", &[]),
        ("format=sif signed=false encrypted=no", "", &[1, 2, 3]),
        ("arch=x86_64", "", &[1, 2, 3]),
        ("arch!=x86_64", "", &[]),
        ("arch=aarch64", "", &[]),
        ("label=maintainer", "", &[1]),
        ("label=maintainer=you", "", &[]),
        ("label.maintainer=m*", "", &[1]),
        ("", "size_bytes desc", &[1, 2, 3]),
        ("", "-update_time,path", &[2, 3, 1]),
        ("", "tag", &[1, 2, 3]),
        ("", "status,update_time desc,-tag", &[3, 2, 1]),
        ("", "-update_time,-size_bytes", &[2, 3, 1]),
    ] {
        let query = Query::parse(filter, order, now).unwrap();
        let mut ids: Vec<i64> = query
            .select(&snapshot, &Fixed)
            .unwrap()
            .iter()
            .map(|row| row.id())
            .collect();
        if order.is_empty() {
            ids.sort_unstable();
        }
        assert_eq!(ids, expected, "{filter} {order}");
    }
}

/// Many may read what they have selected of a large listing, slowly.
#[test]
fn what_is_in_the_order_of_the_listing_shares_with_it() {
    let rows = (0..5000).map(|id| kept(id, &format!("/r/{id:04}"), "a", "1"));
    let (snapshot, _) = Snapshot::default().next(rows.collect(), &[], BTreeMap::new(), None);
    for (filter, order, selected, is_shared) in [
        ("", "", 5000, true),
        ("size>=0", "", 5000, true),
        ("path!=/r/2500", "", 4999, true),
        ("path=/r/2500", "", 1, false),
        ("", "path", 5000, false),
    ] {
        let query = Query::parse(filter, order, FileTime(0)).unwrap();
        let rows = query.select(&snapshot, &Fixed).unwrap();
        let own = rows.not_shared_with(&snapshot.rows);
        assert_eq!(rows.len(), selected, "{filter} {order}");
        assert_eq!(own < selected / 2, is_shared, "{filter} {order}: {own}");
    }
}

/// A request cannot have all images put in order by the same field a thousand times.
#[test]
fn a_field_orders_once() {
    let order = "size,-tag,size_bytes desc,tag,".repeat(100) + "size";
    let query = Query::parse("", &order, FileTime(0)).unwrap();
    let descending: Vec<_> = query
        .order
        .iter()
        .map(|(_, descending)| descending)
        .collect();
    assert_eq!(descending, [&false, &true]);
}

/// An image without the field must not be equal to all others: that is no order.
#[test]
fn images_without_a_time_of_creation_are_ordered_before_the_others() {
    let mut commons = Commons::default();
    let rows = (0..200).map(|id| {
        let mut row = row(id, "/r/a", "a", "1");
        row.create_time = (id % 3 != 0).then_some(FileTime(id * 7919 % 200));
        Arc::new(KeptRow::new(&row, &mut commons))
    });
    let (snapshot, _) = Snapshot::default().next(rows.collect(), &[], BTreeMap::new(), None);
    let times = |order| {
        let selected = Query::parse("", order, FileTime(0))
            .unwrap()
            .select(&snapshot, &Fixed)
            .unwrap();
        let times = selected.iter().map(|row| row.view().create_time);
        times.collect::<Vec<_>>()
    };
    assert!(times("create_time").is_sorted());
    assert!(times("size_bytes,create_time").is_sorted());
    assert!(times("-create_time").iter().rev().is_sorted());
}

/// One that leaves them as they are is taken for an answer.
#[test]
fn every_field_orders_images_that_differ() {
    let mut plain = row(1, "/r/a", "a", "1");
    plain.format_version = "02";
    let mut commons = Commons::default();
    let rows = [full_row(), plain].map(|row| Arc::new(KeptRow::new(&row, &mut commons)));
    let (snapshot, _) = Snapshot::default().next(rows.into(), &[], BTreeMap::new(), None);
    for field in super::Field::names().split([',', '(', ')', ' ']) {
        if field.is_empty() {
            continue;
        }
        let first = |order: &str| {
            let query = Query::parse("", order, FileTime(0)).unwrap();
            query.select(&snapshot, &Fixed).unwrap()[0].id()
        };
        assert_ne!(first(field), first(&format!("{field} desc")), "{field}");
    }
}

#[test]
fn texts_that_few_images_have_select_too() {
    let rows = vec![
        Arc::new(KeptRow::new(&full_row(), &mut Commons::default())),
        kept(1, "/r/a", "a", "1"),
    ];
    let (snapshot, _) = Snapshot::default().next(rows, &[], BTreeMap::new(), None);
    let digest = format!("content_digest=sha256:{}", "cd".repeat(32));
    let id = format!("image_id=sha256:{}", "ab".repeat(32));
    for filter in [
        digest.as_str(),
        id.as_str(),
        r"path=/data/\xff?image.sif",
        "uuid=12345678-9abc-def0-1122-334455667788",
        "sbom=spdx-json",
        "base=docker://ubuntu:22.04",
        "fingerprint=0123",
        "encryption=gocryptfs",
    ] {
        let query = Query::parse(filter, "", FileTime(0)).unwrap();
        let selected = query.select(&snapshot, &Fixed).unwrap();
        let ids: Vec<i64> = selected.iter().map(|row| row.id()).collect();
        assert_eq!(ids, [full_row().id], "{filter}");
    }
}

#[test]
fn the_host_is_asked_for_names_of_users_and_groups_alone() {
    for (filter, asks) in [
        ("owner=alice", true),
        ("tag=1 group!=staff", true),
        ("\"owner=alice\"", true),
        ("owner=0 group!=100", false),
        ("owner=0 owner=alice", true),
        ("owner>=0 owner==0", true),
        ("owner<=0 owner!0", false),
        ("path=/groups/*", false),
        ("path=/x?group=staff", false),
        ("label.owner=alice", false),
        ("label=group", false),
        ("owner", false),
        ("\"owner=alice", false),
        ("", false),
    ] {
        assert_eq!(Query::asks_host(filter), asks, "{filter}");
    }
}

#[test]
fn what_cannot_be_understood_is_refused_with_the_term() {
    for (filter, order, expected) in [
        ("repository", "", "`repository` has no operator"),
        (
            "nosuch=1",
            "",
            "`nosuch=1`: no such field; there are path, root, image_id (id), ",
        ),
        ("size>big", "", "`size>big`: not a size"),
        ("age=3d", "", "ages are compared with < and >"),
        ("age>-5d", "", "not a duration"),
        ("update_time>2026-01-31T12:00:00", "", "not a time"),
        ("update_time>2026-01-31T12:00", "", "not a time"),
        ("update_time>2026-01-31 12:00", "", "has no operator"),
        ("repository<a", "", "with = and != only"),
        ("owner=no-such-user-here", "", "no such user"),
        ("signed=perhaps", "", "neither true nor false"),
        ("tag=\"open", "", "a quote is not closed"),
        ("\"\"", "", "an empty term"),
        ("tag=1 \" \"", "", "an empty term"),
        (
            "",
            "nosuch",
            "`nosuch`: no field to order by; there are path, ",
        ),
        ("", "tag sideways", "neither asc nor desc"),
        ("", "label.x", "no field to order by"),
        ("", " ", "an empty key"),
        ("", "size,", "an empty key"),
    ] {
        let error = Query::parse(filter, order, FileTime(0)).unwrap_err();
        let part = if order.is_empty() {
            "filter: "
        } else {
            "order: "
        };
        let message = error.to_string();
        assert!(
            message.starts_with(part) && message.contains(expected),
            "{message}"
        );
    }
}

#[test]
fn a_value_that_no_image_can_have_is_refused_with_those_that_there_are() {
    for (filter, values) in [
        ("status=foo", Some("READY, TRANSFER, FAILURE, UNAVAILABLE")),
        ("status!=foo", Some("READY, TRANSFER, FAILURE, UNAVAILABLE")),
        ("status=fo*", Some("READY")),
        ("status=", Some("READY")),
        ("status=FORMAT_READY", Some("READY")),
        (
            "format=squash",
            Some("SIF, OCI_SIF, SQUASHFS, EXT3, SANDBOX"),
        ),
        ("encryption=luks", Some("NONE, LUKS2, GOCRYPTFS")),
        ("reference_source=label", Some("NAMING_RULE")),
        ("status=re*", None),
        ("status!=un*", None),
        ("status=STATUS_T*", None),
        ("format=squash*", None),
        ("format=*sif", None),
        ("format=ext?", None),
        ("encryption=luks2", None),
        ("reference_source=naming-rule", None),
    ] {
        let parsed = Query::parse(filter, "", FileTime(0)).map_err(|error| error.to_string());
        match (parsed, values) {
            (Ok(_), None) => {}
            (Err(error), Some(values)) => assert!(
                error.starts_with(&format!("filter: `{filter}`: matches none"))
                    && error.contains(values),
                "{error}"
            ),
            (parsed, _) => panic!("{filter}: {parsed:?}"),
        }
    }
}

/// What is refused must be what no image has.
#[test]
fn every_value_that_an_image_can_have_is_taken() {
    use sifter_image::record::{Format, Status};
    let status = [
        Status::Ready,
        Status::Transfer,
        Status::Failure,
        Status::Unavailable,
    ]
    .map(super::status_name);
    let format = [
        Format::Sif,
        Format::OciSif,
        Format::Squashfs,
        Format::Ext3,
        Format::Sandbox,
    ]
    .map(super::format_name);
    let status = status.iter().map(|name| format!("status={name}"));
    for filter in status.chain(format.iter().map(|name| format!("format={name}"))) {
        Query::parse(&filter, "", FileTime(0)).unwrap();
    }
}
