//! The binary, and a tree of real images whose times and modes are fixed.

use std::fs::{File, FileTimes};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, SystemTime};

/// The images of the repository.
pub const IMAGES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/images");

/// Modification and access time of every copy: 2026-01-01.
const TIME: u64 = 1_767_225_600;

/// `sifter` without anything that the environment may say.
pub fn sifter() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sifter"));
    command.env_clear();
    command.envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
    command
}

/// What a command printed, and how it ended.
pub struct Ran {
    pub out: String,
    pub err: String,
    pub code: Option<i32>,
}

/// Runs `sifter` with arguments in a directory, which is called `DIR` in what it prints.
pub fn run(directory: &Path, arguments: &[&str]) -> Ran {
    let Output {
        status,
        stdout,
        stderr,
    } = sifter()
        .args(arguments)
        .current_dir(directory)
        .output()
        .unwrap();
    let text = |bytes: Vec<u8>| {
        String::from_utf8(bytes)
            .unwrap()
            .replace(directory.to_str().unwrap(), "DIR")
    };
    Ran {
        out: text(stdout),
        err: text(stderr),
        code: status.code(),
    }
}

/// Runs it and shows all of it, for a golden file. What files take on disk depends on the file
/// system.
pub fn show(directory: &Path, arguments: &[&str]) -> String {
    let ran = run(directory, arguments);
    let mut shown = String::new();
    for line in ran.out.lines() {
        shown.push_str(match line.split_once(", on disk ") {
            Some((before, _)) if line.starts_with("total: ") => before,
            _ => line,
        });
        shown.push('\n');
    }
    if !ran.err.is_empty() {
        shown.push_str("--- standard error\n");
        shown.push_str(&ran.err);
    }
    if ran.code != Some(0) {
        shown.push_str(&format!("--- exit code {:?}\n", ran.code.unwrap_or(-1)));
    }
    shown
}

/// A directory with a copy of all images. Its path has no links in it, since paths are printed.
pub fn images() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().canonicalize().unwrap();
    copy_tree(Path::new(IMAGES), &path);
    (directory, path)
}

fn copy_tree(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            std::fs::create_dir(&to).unwrap();
            copy_tree(&entry.path(), &to);
            std::fs::set_permissions(&to, std::fs::Permissions::from_mode(0o755)).unwrap();
            set_times(&to, TIME, TIME);
        } else if kind.is_file() {
            copy(&entry.path(), &to);
        }
    }
}

/// Copies a file, and gives it times and mode.
pub fn copy(from: &Path, to: &Path) {
    std::fs::copy(from, to).unwrap();
    std::fs::set_permissions(to, std::fs::Permissions::from_mode(0o644)).unwrap();
    set_times(to, TIME, TIME);
}

/// Sets the times of a file or directory, in seconds since 1970.
pub fn set_times(path: &Path, modified: u64, accessed: u64) {
    let time = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    let times = FileTimes::new()
        .set_modified(time(modified))
        .set_accessed(time(accessed));
    File::open(path).unwrap().set_times(times).unwrap();
}
