//! Reading a file only if nobody else could have read or written it.
//!
//! The check is made on the opened file, not on its name, so it cannot be swapped in between. Who may write a
//! directory on the way to it could put another good file in its place: one key's secret in that of another. So
//! all of the way is checked, from the root on: every directory, every link, and the way that a link points.

use std::ffi::OsString;
use std::fs::File;
use std::fs::Metadata;
use std::fs::OpenOptions;
use std::io;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Component;
use std::path::Path;
use std::path::PathBuf;

use nix::errno::Errno;
use nix::fcntl::OFlag;

use super::KeyError;

/// Largest file that is read; thousands of keys fit.
const MAX_FILE: u64 = 1 << 20;

const GROUP_OR_WORLD_READ: u32 = 0o044;
const GROUP_OR_WORLD_WRITE: u32 = 0o022;
const WORLD_ANY: u32 = 0o007;
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
    /// Larger than any file of keys.
    #[error("{0} bytes; at most {MAX_FILE} are read")]
    TooLarge(u64),
}

impl Unsafe {
    /// What on the way to the file is to be mended, if not the file itself.
    pub(super) fn place(&self) -> Option<&Path> {
        match self {
            Self::Replaceable { directory, .. } => Some(directory),
            Self::Replacer { place, .. } => Some(place),
            _ => None,
        }
    }
}

/// How carefully a file must be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Care {
    /// Nobody else may read or write it.
    Secret,
    /// Nobody else may write it.
    Public,
}

/// Reads a file as text after checking its owner and mode.
pub(super) fn read(
    path: &Path,
    care: Care,
    credentials: Option<&Path>,
) -> Result<String, KeyError> {
    let failed = |source| KeyError::Read {
        path: path.to_owned(),
        source,
    };
    // Without O_NONBLOCK a named pipe of that name would hang the service.
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(OFlag::O_NONBLOCK.bits())
        .open(path)
        .map_err(failed)?;
    let is_credential = credentials.is_some_and(|dir| path.starts_with(dir));
    check(&file, care, is_credential)
        .and_then(|checked| Ok(checked.and(check_way(path)?)))
        .map_err(failed)?
        .map_err(|problem| KeyError::Unsafe {
            path: path.to_owned(),
            problem,
        })?;
    let mut text = String::new();
    file.take(MAX_FILE + 1)
        .read_to_string(&mut text)
        .map_err(failed)?;
    Ok(text)
}

/// Checks all that leads to a file.
fn check_way(path: &Path) -> io::Result<Result<(), Unsafe>> {
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
        if is_foreign(&meta) {
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
    Ok(Ok(()))
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

/// Whether it belongs to neither the user of the service nor root.
fn is_foreign(meta: &Metadata) -> bool {
    meta.uid() != 0 && meta.uid() != nix::unistd::geteuid().as_raw()
}

fn check(file: &File, care: Care, is_credential: bool) -> io::Result<Result<(), Unsafe>> {
    let meta = file.metadata()?;
    let mode = meta.mode() & 0o7777;
    Ok(if !meta.is_file() {
        Err(Unsafe::NotAFile)
    } else if is_foreign(&meta) {
        Err(Unsafe::Owner(meta.uid()))
    } else if meta.size() > MAX_FILE {
        Err(Unsafe::TooLarge(meta.size()))
    } else if mode & GROUP_OR_WORLD_WRITE != 0 {
        Err(Unsafe::Writable(mode))
    } else if care == Care::Secret
        && mode
            & if is_credential {
                // The service manager grants a service's user by ACL, whose mask shows as the
                // group's bits: such a credential has mode 0440 and is still private.
                WORLD_ANY
            } else {
                GROUP_OR_WORLD_READ
            }
            != 0
    {
        Err(Unsafe::Readable(mode))
    } else {
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn modes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys.toml");
        fs::write(&path, "x").unwrap();
        let elsewhere = Path::new("/nowhere");
        for (mode, care, credentials, good) in [
            (0o600, Care::Secret, elsewhere, true),
            (0o400, Care::Secret, elsewhere, true),
            (0o640, Care::Secret, elsewhere, false),
            (0o604, Care::Secret, elsewhere, false),
            (0o620, Care::Secret, elsewhere, false),
            (0o602, Care::Secret, elsewhere, false),
            (0o644, Care::Public, elsewhere, true),
            (0o664, Care::Public, elsewhere, false),
            (0o646, Care::Public, elsewhere, false),
            (0o440, Care::Secret, dir.path(), true),
            (0o444, Care::Secret, dir.path(), false),
            (0o460, Care::Secret, dir.path(), false),
        ] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let result = read(&path, care, Some(credentials));
            assert_eq!(result.is_ok(), good, "{mode:o} {care:?}: {result:?}");
        }
    }

    /// What is wrong with a secret, if anything.
    fn problem(path: &Path) -> Option<Unsafe> {
        match read(path, Care::Secret, None) {
            Ok(_) => None,
            Err(KeyError::Unsafe { problem, .. }) => Some(problem),
            Err(error) => panic!("{error}"),
        }
    }

    fn write_secret(path: &Path) {
        fs::write(path, "x").unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    }

    #[test]
    fn who_may_write_a_directory_on_the_way_may_replace_the_file() {
        let dir = tempfile::tempdir().unwrap();
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
        if nix::unistd::geteuid().is_root() {
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
        let dir = tempfile::tempdir().unwrap();
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
        if nix::unistd::geteuid().is_root() {
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
    fn other_kinds_and_sizes() {
        let dir = tempfile::tempdir().unwrap();
        let kind = |name: &str| match read(&dir.path().join(name), Care::Public, None) {
            Err(KeyError::Unsafe { problem, .. }) => Some(problem),
            _ => None,
        };
        fs::create_dir(dir.path().join("dir")).unwrap();
        assert_eq!(kind("dir"), Some(Unsafe::NotAFile));
        nix::unistd::mkfifo(
            &dir.path().join("pipe"),
            nix::sys::stat::Mode::S_IRUSR | nix::sys::stat::Mode::S_IWUSR,
        )
        .unwrap();
        assert_eq!(kind("pipe"), Some(Unsafe::NotAFile));
        let large = File::create(dir.path().join("large")).unwrap();
        large.set_len(MAX_FILE + 1).unwrap();
        assert_eq!(kind("large"), Some(Unsafe::TooLarge(MAX_FILE + 1)));
        // Only root can give a file away.
        if nix::unistd::geteuid().is_root() {
            let given = dir.path().join("given");
            fs::write(&given, "x").unwrap();
            std::os::unix::fs::chown(&given, Some(12345), None).unwrap();
            assert_eq!(kind("given"), Some(Unsafe::Owner(12345)));
        }
    }
}
