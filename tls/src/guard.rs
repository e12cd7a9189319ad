//! Whether others can read a file, or put another in its place.
//!
//! The check is made on the opened file, not on its name, so it cannot be swapped in between. Who may write a
//! directory on the way to it could put another good file in its place: one key's secret in that of another, or
//! an authority of his own. So all of the way is checked, from the root on: every directory, every link, and the
//! way that a link points.

use std::ffi::OsString;
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;

const GROUP_OR_WORLD_READ: u32 = 0o044;
const GROUP_OR_WORLD_WRITE: u32 = 0o022;
const WORLD_READ: u32 = 0o004;
const WORLD_SEARCH: u32 = 0o001;
/// Of a directory: who does not own an entry can neither rename nor remove it.
const STICKY: u32 = 0o1000;

/// So many links are followed on the way to a file, as by the kernel.
const MAX_LINKS: usize = 40;

/// Why a file is not trusted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unsafe {
    /// Not a regular file.
    #[error("not a regular file")]
    NotAFile,
    /// It belongs to somebody else.
    #[error("owner is user {0}; must be the user of the service or root")]
    Owner(u32),
    /// Others may read it.
    #[error("mode {0:04o} lets others read it; chmod 600")]
    Readable(u32),
    /// Whoever has an account may read it.
    #[error("mode {0:04o} lets every user read it; chmod o=")]
    Open(u32),
    /// Others may write it.
    #[error("mode {0:04o} lets others write it; chmod go-w")]
    Writable(u32),
    /// Others may rename what is in a directory on the way to it.
    #[error(
        "mode {mode:04o} of {} lets others replace it; chmod go-w the directory", directory.display()
    )]
    Replaceable {
        /// The directory.
        directory: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// Somebody else has a directory or a link on the way to it.
    #[error(
        "owner of {} is user {owner}, who can replace it; must be the user of the service or root",
        place.display()
    )]
    Replacer {
        /// The directory or the link.
        place: PathBuf,
        /// Whose it is.
        owner: u32,
    },
}

impl Unsafe {
    /// What on the way to the file is to be mended, if not the file itself.
    #[must_use]
    pub fn place(&self) -> Option<&Path> {
        match self {
            Self::Replaceable { directory, .. } => Some(directory),
            Self::Replacer { place, .. } => Some(place),
            _ => None,
        }
    }
}

/// How carefully a file must be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Care {
    /// Nobody else may read or write it.
    Secret,
    /// A group may read it, and nobody else may write it.
    Shared,
    /// Nobody else may write it.
    Public,
}

/// Checks owner and mode of an opened file and all that leads to it, for a file that is not to be used
/// otherwise: what is the service's or root's is trusted, and nothing else.
///
/// # Errors
///
/// Something on the way cannot be looked at.
pub fn check(file: &File, path: &Path, care: Care) -> io::Result<Result<(), Unsafe>> {
    let meta = file.metadata()?;
    if !meta.is_file() {
        return Ok(Err(Unsafe::NotAFile));
    }
    let own = nix::unistd::geteuid().as_raw();
    Ok(match check_file(&meta, care, own) {
        Ok(()) => walk(path, own)?.map(drop),
        Err(problem) => Err(problem),
    })
}

/// What is to be said of a file that is used all the same: others put it there (an administrator, a tool that
/// renews certificates, a container's runtime), by rules that cannot all be known here.
///
/// Of what is no regular file there is nothing to say; nor that all may read what lies in a directory that lets
/// only some in. Root asks for a service whose user it does not know: there the user that has the file
/// is trusted.
#[must_use]
pub fn concern(file: &File, path: &Path, care: Care) -> Option<Unsafe> {
    let meta = file.metadata().ok().filter(Metadata::is_file)?;
    let own = match nix::unistd::geteuid().as_raw() {
        0 => meta.uid(),
        user => user,
    };
    match (check_file(&meta, care, own), walk(path, own)) {
        // Where it was opened, the way to it could be walked a moment ago.
        (Ok(()), Err(_)) => None,
        (Ok(()), Ok(way)) => way.err(),
        (Err(Unsafe::Open(_)), Ok(Ok(place))) if is_of_some(&place) => None,
        (Err(problem), _) => Some(problem),
    }
}

/// Whether a directory above a place, which has no links in it, lets only some users in.
fn is_of_some(place: &Path) -> bool {
    place.ancestors().skip(1).any(|directory| {
        std::fs::symlink_metadata(directory).is_ok_and(|meta| meta.mode() & WORLD_SEARCH == 0)
    })
}

/// Checks all that leads to a file. Returns where it is, without links.
fn walk(path: &Path, own: u32) -> io::Result<Result<PathBuf, Unsafe>> {
    // What is still to be walked, the next last.
    let mut ahead = Vec::new();
    push_components(&mut ahead, &std::path::absolute(path)?);
    // Where the walk is: without links, so that `..` is what is before its last component.
    let mut place = PathBuf::new();
    let mut links = 0;
    while let Some(name) = ahead.pop() {
        if name == ".." {
            place.pop();
            continue;
        }
        let next = place.join(&name);
        let meta = std::fs::symlink_metadata(&next)?;
        let mode = meta.mode() & 0o7777;
        if is_foreign(&meta, own) {
            let owner = meta.uid();
            return Ok(Err(Unsafe::Replacer { place: next, owner }));
        }
        if meta.is_symlink() {
            links += 1;
            if links > MAX_LINKS {
                return Err(Errno::ELOOP.into());
            }
            push_components(&mut ahead, &std::fs::read_link(&next)?);
            continue;
        }
        if meta.is_dir() && mode & GROUP_OR_WORLD_WRITE != 0 && mode & STICKY == 0 {
            let directory = next;
            return Ok(Err(Unsafe::Replaceable { directory, mode }));
        }
        place = next;
    }
    Ok(Ok(place))
}

/// Puts the components of a path on the stack of those to be walked; joined to where the walk is, a root
/// begins anew.
fn push_components(ahead: &mut Vec<OsString>, path: &Path) {
    let components = path.components().rev();
    ahead.extend(
        components
            .filter(|component| *component != Component::CurDir)
            .map(|component| component.as_os_str().to_owned()),
    );
}

/// Whether it belongs to neither that user nor root.
fn is_foreign(meta: &Metadata, own: u32) -> bool {
    meta.uid() != 0 && meta.uid() != own
}

fn check_file(meta: &Metadata, care: Care, own: u32) -> Result<(), Unsafe> {
    let mode = meta.mode() & 0o7777;
    if is_foreign(meta, own) {
        return Err(Unsafe::Owner(meta.uid()));
    }
    if mode & GROUP_OR_WORLD_WRITE != 0 {
        return Err(Unsafe::Writable(mode));
    }
    match care {
        Care::Secret if mode & GROUP_OR_WORLD_READ != 0 => Err(Unsafe::Readable(mode)),
        Care::Shared if mode & WORLD_READ != 0 => Err(Unsafe::Open(mode)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use nix::sys::stat::{Mode, umask};

    /// One that only its owner may write, and files in it likewise: whoever runs tests may let a group write.
    fn directory() -> tempfile::TempDir {
        umask(Mode::S_IWGRP | Mode::S_IWOTH);
        tempfile::tempdir().unwrap()
    }

    /// Whether a file may be given away: by root, unless its capabilities were taken.
    fn may_give_away(directory: &Path) -> bool {
        let file = directory.join("given");
        File::create(&file).unwrap();
        std::os::unix::fs::chown(&file, Some(12345), None).is_ok()
    }

    /// What is wrong with a secret, if anything.
    fn problem(path: &Path) -> Option<Unsafe> {
        check(&File::open(path).unwrap(), path, Care::Secret)
            .unwrap()
            .err()
    }

    #[test]
    fn modes() {
        let dir = directory();
        let path = dir.path().join("keys.toml");
        fs::write(&path, "x").unwrap();
        for (mode, care, expected) in [
            (0o600, Care::Secret, None),
            (0o400, Care::Secret, None),
            (0o640, Care::Secret, Some(Unsafe::Readable(0o640))),
            (0o604, Care::Secret, Some(Unsafe::Readable(0o604))),
            (0o620, Care::Secret, Some(Unsafe::Writable(0o620))),
            (0o602, Care::Secret, Some(Unsafe::Writable(0o602))),
            (0o644, Care::Public, None),
            (0o664, Care::Public, Some(Unsafe::Writable(0o664))),
            (0o646, Care::Public, Some(Unsafe::Writable(0o646))),
            // As the service manager leaves credentials: the user is let in by an access-control list, whose
            // mask shows as the group's bits.
            (0o440, Care::Shared, None),
            (0o444, Care::Shared, Some(Unsafe::Open(0o444))),
            (0o460, Care::Shared, Some(Unsafe::Writable(0o460))),
        ] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let problem = check(&File::open(&path).unwrap(), &path, care).unwrap();
            assert_eq!(problem.err(), expected, "{mode:o} {care:?}");
        }
    }

    #[test]
    fn what_is_used_all_the_same_is_spoken_of_where_others_get_to_it() {
        let dir = directory();
        let top = fs::canonicalize(dir.path()).unwrap();
        let path = top.join("agent.key");
        fs::write(&path, "x").unwrap();
        let set = |path: &Path, mode| {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        };
        let concern = |path: &Path, care| super::concern(&File::open(path).unwrap(), path, care);
        let replaceable = |mode| {
            let directory = top.clone();
            Some(Unsafe::Replaceable { directory, mode })
        };
        for (directory, mode, care, expected) in [
            (0o755, 0o600, Care::Shared, None),
            // root:ssl-cert, or a service's group.
            (0o755, 0o640, Care::Shared, None),
            (0o755, 0o440, Care::Shared, None),
            (0o755, 0o644, Care::Shared, Some(Unsafe::Open(0o644))),
            (0o755, 0o444, Care::Shared, Some(Unsafe::Open(0o444))),
            (0o755, 0o660, Care::Shared, Some(Unsafe::Writable(0o660))),
            // Only the group gets to it.
            (0o750, 0o644, Care::Shared, None),
            (0o700, 0o444, Care::Shared, None),
            (0o777, 0o640, Care::Shared, replaceable(0o777)),
            (0o775, 0o640, Care::Shared, replaceable(0o775)),
            // As the directory of a container's secrets is.
            (0o1777, 0o640, Care::Shared, None),
            (0o755, 0o644, Care::Public, None),
            (0o755, 0o664, Care::Public, Some(Unsafe::Writable(0o664))),
            (0o777, 0o644, Care::Public, replaceable(0o777)),
        ] {
            set(&top, directory);
            set(&path, mode);
            assert_eq!(
                concern(&path, care),
                expected,
                "{directory:o} {mode:o} {care:?}"
            );
        }
        assert_eq!(concern(Path::new("/dev/null"), Care::Shared), None);
        // Where the file is decides who gets to it, not the way that the configuration takes.
        set(&top, 0o755);
        let (kept, open) = (top.join("kept"), top.join("open"));
        for directory in [&kept, &open] {
            fs::create_dir(directory).unwrap();
        }
        std::os::unix::fs::symlink("../open/agent.key", kept.join("to-open")).unwrap();
        std::os::unix::fs::symlink("kept/agent.key", top.join("to-kept")).unwrap();
        for path in [kept.join("agent.key"), open.join("agent.key")] {
            fs::write(&path, "x").unwrap();
            set(&path, 0o644);
        }
        set(&kept, 0o750);
        for (name, expected) in [
            ("kept/agent.key", None),
            ("to-kept", None),
            ("open/../kept/agent.key", None),
            ("open/agent.key", Some(Unsafe::Open(0o644))),
            ("kept/to-open", Some(Unsafe::Open(0o644))),
            ("kept/../open/agent.key", Some(Unsafe::Open(0o644))),
        ] {
            assert_eq!(concern(&top.join(name), Care::Shared), expected, "{name}");
        }
        // Only root can give a file away; of whom it asks for, it does not know.
        if may_give_away(&top) {
            set(&top, 0o755);
            set(&path, 0o600);
            std::os::unix::fs::chown(&path, Some(12345), None).unwrap();
            assert_eq!(concern(&path, Care::Shared), None);
            assert_eq!(problem(&path), Some(Unsafe::Owner(12345)));
            std::os::unix::fs::chown(&top, Some(12345), None).unwrap();
            assert_eq!(concern(&path, Care::Shared), None);
            std::os::unix::fs::chown(&top, Some(54321), None).unwrap();
            let owner = 54321;
            let place = top.clone();
            let expected = Some(Unsafe::Replacer { place, owner });
            assert_eq!(concern(&path, Care::Shared), expected);
        }
    }

    fn write_secret(path: &Path) {
        fs::write(path, "x").unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    }

    #[test]
    fn who_may_write_a_directory_on_the_way_may_replace_the_file() {
        let dir = directory();
        let top = fs::canonicalize(dir.path()).unwrap();
        let beside = top.join("far").join("near");
        fs::create_dir_all(&beside).unwrap();
        let path = beside.join("keys.toml");
        write_secret(&path);
        for directory in [&beside, &top.join("far"), &top] {
            for (mode, good) in [
                (0o700, true),
                (0o755, true),
                (0o770, false),
                (0o777, false),
                (0o1777, true),
            ] {
                fs::set_permissions(directory, fs::Permissions::from_mode(mode)).unwrap();
                let directory = directory.clone();
                let expected = (!good).then_some(Unsafe::Replaceable { directory, mode });
                assert_eq!(problem(&path), expected);
            }
            fs::set_permissions(directory, fs::Permissions::from_mode(0o755)).unwrap();
        }
        // Only root can give a directory away.
        if may_give_away(&top) {
            std::os::unix::fs::chown(&top, Some(12345), None).unwrap();
            let expected = Unsafe::Replacer {
                place: top.clone(),
                owner: 12345,
            };
            assert_eq!(problem(&path), Some(expected));
        }
    }

    #[test]
    fn links_are_followed_and_both_of_their_ends_checked() {
        let dir = directory();
        let top = fs::canonicalize(dir.path()).unwrap();
        for name in ["safe", "open", "from"] {
            fs::create_dir(top.join(name)).unwrap();
            write_secret(&top.join(name).join("keys.toml"));
        }
        let link = |target: &str, name: &str| {
            std::os::unix::fs::symlink(target, top.join(name)).unwrap();
        };
        link("../safe/keys.toml", "from/file");
        link("../open/keys.toml", "from/to-open");
        link("safe", "directory");
        link(top.join("open").to_str().unwrap(), "absolute");
        link("../safe/keys.toml", "open/back");
        link("directory/../open/./keys.toml", "winding");
        fs::set_permissions(top.join("open"), fs::Permissions::from_mode(0o777)).unwrap();
        for (name, good) in [
            ("from/file", true),
            ("directory/keys.toml", true),
            ("safe/../from/keys.toml", true),
            ("from/to-open", false),
            ("absolute/keys.toml", false),
            ("winding", false),
            // The file is where nobody could put another; the link is not.
            ("open/back", false),
            ("safe/../open/../safe/keys.toml", false),
        ] {
            let expected = (!good).then_some(Unsafe::Replaceable {
                directory: top.join("open"),
                mode: 0o777,
            });
            assert_eq!(problem(&top.join(name)), expected, "{name}");
        }
        // In a sticky directory a link is as safe as its owner; only root can give one away.
        if may_give_away(&top) {
            fs::set_permissions(top.join("open"), fs::Permissions::from_mode(0o1777)).unwrap();
            let place = top.join("open/back");
            assert_eq!(problem(&place), None);
            std::os::unix::fs::lchown(&place, Some(12345), None).unwrap();
            let owner = 12345;
            assert_eq!(
                problem(&place.clone()),
                Some(Unsafe::Replacer { place, owner })
            );
        }
    }

    #[test]
    fn what_is_no_file_is_no_secret() {
        let dir = directory();
        for path in [dir.path(), Path::new("/dev/null")] {
            assert_eq!(problem(path), Some(Unsafe::NotAFile));
        }
    }
}
