//! Files that begin as an image does, and end too soon or go on otherwise.

use std::path::Path;

use sifter_image::record::{Format, Status};
use sifter_image::{NotImage, Verdict};

use crate::corpus::{verdict, young_verdict};
use crate::damage::listed;
use crate::made;

/// A file too short for a magic is what its first bytes begin.
#[test]
fn the_beginning_of_an_image_has_its_format() {
    let squashfs = "truncated: the squashfs superblock ends at byte 96 but the file has";
    let sif = "truncated: the SIF header ends at byte 128 but the file has";
    let ext3 = "truncated: the ext superblock ends at byte 2048 but the file has";
    let line = "truncated: expected a SIF, squashfs or ext header behind the run-singularity line, but the file has";
    let behind = |bytes: &[u8]| [b"#!/usr/bin/env run-singularity\n", bytes].concat();
    // Zeros, and the beginning of something.
    let ext = |zeros: usize| [&vec![0; zeros][..], b"x"].concat();
    for (bytes, format, message) in [
        (&b"h"[..], Format::Squashfs, format!("{squashfs} 1")),
        (b"hsq", Format::Squashfs, format!("{squashfs} 3")),
        (b"#!/bin/sh\n", Format::Sif, format!("{sif} 10")),
        (b"#", Format::Sif, format!("{sif} 1")),
        (
            &[0; 32],
            Format::Sif,
            "incomplete: expected a header at byte 0, found 32 zero bytes".to_owned(),
        ),
        (
            b"#!/bin/sh\n\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0SIF_MAGIC",
            Format::Sif,
            format!("{sif} 41"),
        ),
        (
            &behind(b"hsqs"),
            Format::Squashfs,
            "truncated: squashfs ends at byte 127 but the file or partition ends at 35".to_owned(),
        ),
        (
            &behind(b"hsq"),
            Format::Squashfs,
            format!("{line} 34 bytes"),
        ),
        (
            &behind(b"\0SIF_MAGIC"),
            Format::Sif,
            format!("{line} 41 bytes"),
        ),
        (
            &behind(&[0; 2047]),
            Format::Ext3,
            format!("{line} 2078 bytes"),
        ),
        (
            &[0; 4096][..2047],
            Format::Sif,
            "incomplete: expected a header at byte 0, found 2047 zero bytes".to_owned(),
        ),
        (&ext(1024), Format::Ext3, format!("{ext3} 1025")),
        (&ext(2046), Format::Ext3, format!("{ext3} 2047")),
    ] {
        let image = listed(verdict(&bytes, Path::new("/a/x.simg")), &message);
        assert_eq!((image.format, image.status), (format, Status::Failure));
        assert_eq!(image.status_message, message);
        let young = listed(young_verdict(&bytes, Path::new("/a/x.simg")), &message);
        assert_eq!(young.status, Status::Transfer);
    }
}

/// Too long to be the beginning of an image, or not like one.
#[test]
fn what_no_image_begins_with_is_none_whatever_its_name() {
    let behind = |line: &[u8], bytes: &[u8]| [line, bytes].concat();
    let squashfs = made::hollow_squashfs(4096);
    let with = |magic: &[u8; 4]| [magic, &squashfs[4..]].concat();
    for (what, bytes) in [
        (
            "a script that is too long",
            [&b"#!/bin/sh\n"[..], &[b' '; 32]].concat(),
        ),
        (
            "a script with something behind",
            b"#!/bin/sh\necho".to_vec(),
        ),
        ("a line that is not text", b"#!/bin\x01\n".to_vec()),
        ("zeros and something", behind(&[0; 1023], b"x")),
        (
            "zeros, and at the end of a superblock something",
            behind(&[0; 2047], b"x"),
        ),
        ("half a magic and something", b"hsqx".to_vec()),
        (
            "a magic of squashfs and something",
            behind(&[b'x'; 31], b"hsqs and something that is none"),
        ),
        ("two wrong bytes of a squashfs", with(b"xxqs")),
        (
            "one wrong byte, and no squashfs",
            behind(b"hsqx", &[b'x'; 200]),
        ),
    ] {
        let found = verdict(&bytes, Path::new("/a/x.simg"));
        assert_eq!(found, Verdict::NotImage(NotImage::Misnamed), "{what}");
    }
    let line = b"#!/usr/bin/env run-singularity\n";
    for (bytes, format, message) in [
        (
            with(b"hsqx"),
            Format::Squashfs,
            "corrupt: magic damaged at offset 31: expected hsqs, found hsqx",
        ),
        (
            {
                let mut bytes = include_bytes!("data/plain.ext2").to_vec();
                bytes[1080] = 0;
                bytes
            },
            Format::Ext3,
            "corrupt: expected an ext superblock with 0xef53 at byte 1111, found 0xef00",
        ),
        (
            with(b"xxqs"),
            Format::Sif,
            "corrupt: expected a SIF magic at byte 32, or a squashfs or ext",
        ),
        (
            vec![0; 2048],
            Format::Sif,
            "corrupt: expected a SIF magic at byte 32, or a squashfs or ext",
        ),
        (
            b"\0SIF_MAGI\n".to_vec(),
            Format::Sif,
            "corrupt: expected a SIF magic at byte 32, or a squashfs or ext",
        ),
    ] {
        let found = listed(verdict(&behind(line, &bytes), Path::new("/a/x")), &message);
        assert_eq!((found.format, found.status), (format, Status::Failure));
        assert!(
            found.status_message.starts_with(message),
            "{}",
            found.status_message
        );
    }
}
