//! Mounts, for tests that need file systems of their own.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Something that is mounted, while it lives.
pub struct Mounted<'a>(&'a Path);

impl<'a> Mounted<'a> {
    /// A file system in memory; `None`, and a word of it, where this user may not mount.
    pub fn new(path: &'a Path, size: &str) -> Option<Self> {
        Self::mount(
            path,
            &["-t", "tmpfs", "-o", &format!("size={size}"), "none"],
        )
    }

    /// A directory, at a second place.
    pub fn bind(path: &'a Path, directory: &str) -> Option<Self> {
        Self::mount(path, &["--bind", directory])
    }

    /// Two directories in one, each of whose files keeps its own device number.
    pub fn overlay(path: &'a Path, lower: &Path, upper: &Path, work: &Path) -> Option<Self> {
        let options = format!(
            "xino=off,lowerdir={},upperdir={},workdir={}",
            lower.display(),
            upper.display(),
            work.display()
        );
        Self::mount(path, &["-t", "overlay", "-o", &options, "none"])
    }

    fn mount(path: &'a Path, arguments: &[&str]) -> Option<Self> {
        is_mounted(&mut Command::new("mount"), path, arguments).then_some(Self(path))
    }
}

/// Mounts something, or says that this user may not.
fn is_mounted(mount: &mut Command, path: &Path, arguments: &[&str]) -> bool {
    fs::create_dir_all(path).unwrap();
    let status = mount.args(arguments).arg(path).status();
    let is_mounted = status.is_ok_and(|status| status.success());
    if !is_mounted {
        super::skip(
            &format!("mount {}", arguments.join(" ")),
            "this user may not mount",
        );
    }
    is_mounted
}

/// A file system of an automounter that answers nothing: what is to be mounted on demand is not. What the
/// automounter itself does there is told by its process group.
pub struct Automounter<'a> {
    leader: Child,
    mounted: Mounted<'a>,
}

impl<'a> Automounter<'a> {
    /// One at `path`; `None`, and a word of it, where this user may not mount.
    pub fn new(path: &'a Path) -> Option<Self> {
        let leader = Command::new("cat")
            .stdin(Stdio::piped())
            .process_group(0)
            .spawn()
            .unwrap();
        let group = leader.id();
        let automounter = Self {
            leader,
            mounted: Mounted(path),
        };
        let (requests, pipe) = std::io::pipe().unwrap();
        drop(requests);
        let options = format!("fd=1,pgrp={group},minproto=5,maxproto=5,indirect");
        let arguments = ["-t", "autofs", "-o", &options, "none"];
        is_mounted(Command::new("mount").stdout(pipe), path, &arguments).then_some(automounter)
    }

    /// Does what a real one does when it is asked for a name.
    pub fn mount(&self, name: &str, source: &Path) {
        let path = self.mounted.0.join(name);
        self.run(Command::new("mkdir").arg("-p").arg(&path));
        self.run(Command::new("mount").arg("--bind").arg(source).arg(&path));
    }

    /// Does what a real one does when nobody uses it any more; without `browse` the name is not there afterwards.
    pub fn expire(&self, name: &str, browse: bool) {
        let path = self.mounted.0.join(name);
        self.run(Command::new("umount").arg(&path));
        if !browse {
            self.run(Command::new("rmdir").arg(&path));
        }
    }

    fn run(&self, command: &mut Command) {
        let group = i32::try_from(self.leader.id()).unwrap();
        assert!(command.process_group(group).status().unwrap().success());
    }
}

impl Drop for Automounter<'_> {
    fn drop(&mut self) {
        let _ = self.leader.kill();
        let _ = self.leader.wait();
    }
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        // Also while something in it is still open.
        let _ = Command::new("umount").arg("-l").arg(self.0).status();
    }
}
