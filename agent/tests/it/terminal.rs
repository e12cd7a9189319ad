//! What a terminal shows, and what is left on it.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};

use nix::pty::{Winsize, openpty};
use nix::sys::signal::Signal;

use crate::support::{Agent, images};
use crate::tool::sifter;

/// All that is written to a terminal until `enough`, or until nobody has it open any more.
fn shown(terminal: &mut File, enough: impl Fn(&str) -> bool) -> String {
    let (mut bytes, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        let text = String::from_utf8_lossy(&bytes);
        if enough(&text) {
            return text.into_owned();
        }
        match terminal.read(&mut buffer) {
            // The kernel's way to say that the other end is closed.
            Ok(0) | Err(_) => return text.into_owned(),
            Ok(read) => bytes.extend(&buffer[..read]),
        }
    }
}

/// A terminal, and the end of it that programs have.
fn terminal() -> (File, OwnedFd) {
    let size = Winsize {
        ws_row: 24,
        ws_col: 200,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    let pty = openpty(&size, None).unwrap();
    (pty.master.into(), pty.slave)
}

#[test]
fn what_is_interrupted_leaves_no_line_and_ends_by_the_signal() {
    let tree = tempfile::tempdir().unwrap();
    for number in 0..1000 {
        fs::create_dir(tree.path().join(number.to_string())).unwrap();
    }
    let large = tempfile::tempdir().unwrap();
    images(large.path(), &["a.sif"]);
    let image = large.path().join("images/a.sif");
    File::options()
        .write(true)
        .open(&image)
        .unwrap()
        .set_len(1 << 40)
        .unwrap();
    for (arguments, directory, progress) in [
        // A quarter of an hour.
        (
            &["scan", "--operations-per-second", "1", "."][..],
            tree.path(),
            " pending, ",
        ),
        // A terabyte of zeros, of which nothing lies on the disk.
        (
            &["inspect", "--digest", "a.sif"],
            image.parent().unwrap(),
            " of 1.10 TB",
        ),
    ] {
        let (mut terminal, programs) = terminal();
        // `setsid --ctty`: what is typed there is for this process. Who runs tests in the background has them ignore
        // the key, and no shell undoes that.
        let heeding = "import os, signal, sys\n\
            signal.signal(signal.SIGINT, signal.SIG_DFL)\n\
            os.execv(sys.argv[1], sys.argv[1:])";
        let mut command = Command::new("setsid")
            .args(["--ctty", "python3", "-c", heeding])
            .arg(env!("CARGO_BIN_EXE_sifter"))
            .args(arguments)
            .current_dir(directory)
            .env("TERM", "xterm")
            .stdin(programs.try_clone().unwrap())
            .stdout(Stdio::null())
            .stderr(programs)
            .spawn()
            .unwrap();
        let before = shown(&mut terminal, |text| text.contains(progress));
        terminal.write_all(b"\x03").unwrap();
        let all = before + &shown(&mut terminal, |_| false);
        // What the terminal says of the key is in the line, which is erased and not written again.
        assert!(all.contains("\r^C"), "{all:?}");
        let left = all.rsplit_once(progress).unwrap().1;
        assert!(left.contains("\r\u{1b}[2K"), "{all:?}");
        assert_eq!(
            command.wait().unwrap().signal(),
            Some(Signal::SIGINT as i32)
        );
    }
}

#[test]
fn who_waits_for_a_scan_is_told_and_keeps_the_result_alone() {
    let directory = tempfile::tempdir().unwrap();
    images(directory.path(), &["a.sif"]);
    let agent = Agent::start(directory.path(), "", "");
    let (mut terminal, programs) = terminal();
    let mut rescan = sifter()
        .args(["rescan", "--address", &agent.unix()])
        .env("TERM", "xterm")
        .stdout(programs.try_clone().unwrap())
        .stderr(programs)
        .spawn()
        .unwrap();
    let all = shown(&mut terminal, |_| false);
    assert!(rescan.wait().unwrap().success(), "{all:?}");
    assert!(all.contains("waiting for the scan to begin"), "{all:?}");
    let result = format!("{}/images: 1 image, ", directory.path().display());
    assert!(
        all.contains(&["\r\u{1b}[2K\r", &result].concat()),
        "{all:?}"
    );
    assert!(all.ends_with("\r\u{1b}[2K\r"), "{all:?}");
}

#[test]
fn who_finds_nothing_by_a_name_is_told_of_its_parts() {
    let directory = tempfile::tempdir().unwrap();
    images(directory.path(), &["a.sif"]);
    let agent = Agent::start(directory.path(), "", "");
    for (reference, hint) in [
        ("nothing", Some("sifter ls '*nothing*'")),
        ("*nothing*", None),
        ("a", None),
    ] {
        let (mut terminal, programs) = terminal();
        let mut listed = sifter()
            .args(["ls", "--address", &agent.unix(), reference])
            .stdout(Stdio::null())
            .stderr(programs)
            .spawn()
            .unwrap();
        let all = shown(&mut terminal, |_| false);
        assert!(listed.wait().unwrap().success(), "{all:?}");
        match hint {
            Some(hint) => assert!(all.contains(hint), "{reference}: {all:?}"),
            None => assert_eq!(all, "", "{reference}"),
        }
    }
}

#[test]
fn the_log_is_coloured_where_that_is_wanted() {
    for (name, value, is_coloured) in [
        ("TERM", "xterm", true),
        ("TERM", "dumb", false),
        ("NO_COLOR", "1", false),
        ("NO_COLOR", "", true),
    ] {
        let (mut terminal, programs) = terminal();
        let mut agent = sifter()
            // Where it cannot listen, which ends it.
            .args(["agent", "--root", "/", "--listen", "unix:/proc/nowhere"])
            .env("TERM", "xterm")
            .env_remove("NO_COLOR")
            .env(name, value)
            .stderr(programs)
            .spawn()
            .unwrap();
        let log = shown(&mut terminal, |_| false);
        assert_eq!(agent.wait().unwrap().code(), Some(1), "{log:?}");
        assert!(log.contains("Landlock"), "{log:?}");
        assert_eq!(
            log.contains('\u{1b}'),
            is_coloured,
            "{name}={value}: {log:?}"
        );
    }
}

/// `sifter inspect *` where somebody left such a name.
#[test]
fn a_name_that_is_taken_for_an_option_reaches_no_terminal() {
    for words in [
        &["inspect", "--\u{1b}]0;title\u{7}\u{1b}[2J\u{202e}x"][..],
        &["scan", "--group-by", "\u{1b}]0;title\u{7}\u{202e}", "."],
        &["\u{1b}[2J"],
    ] {
        let (mut terminal, programs) = terminal();
        let mut refused = sifter()
            .args(words)
            .env("TERM", "xterm")
            .stderr(programs)
            .spawn()
            .unwrap();
        let all = shown(&mut terminal, |_| false);
        assert_eq!(refused.wait().unwrap().code(), Some(2), "{all:?}");
        assert!(all.starts_with("error: "), "{all:?}");
        assert!(!all.contains(['\u{1b}', '\u{7}', '\u{202e}']), "{all:?}");
    }
}
