//! Reading a file only if nobody else could have read or written it.
//!
//! The check is made on the opened file, not on its name, so it cannot be swapped in between. Who may write its
//! directory could put another good file in its place: one key's secret in that of another.

use std::fs::File;
use std::fs::Metadata;
use std::fs::OpenOptions;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::fcntl::OFlag;

use super::KeyError;

/// Largest file that is read; thousands of keys fit.
const MAX_FILE: u64 = 1 << 20;

const GROUP_OR_WORLD_READ: u32 = 0o044;
const GROUP_OR_WORLD_WRITE: u32 = 0o022;
const WORLD_ANY: u32 = 0o007;
/// Of a directory: only owners rename and remove.
const STICKY: u32 = 0o1000;

/// Why a file is not trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
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
    /// Others may rename what is in its directory.
    #[error("mode {0:04o} of its directory lets others replace it; chmod go-w the directory")]
    Replaceable(u32),
    /// Somebody else has the directory, and may rename what is in it.
    #[error(
        "owner of its directory is user {0}, who can replace it; must be the user of the service or root"
    )]
    DirectoryOwner(u32),
    /// Larger than any file of keys.
    #[error("{0} bytes; at most {MAX_FILE} are read")]
    TooLarge(u64),
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
        .and_then(|checked| Ok(checked.and(check_directory(path)?)))
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

fn check_directory(path: &Path) -> std::io::Result<Result<(), Unsafe>> {
    let directory = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    let meta = std::fs::metadata(directory)?;
    let mode = meta.mode() & 0o7777;
    Ok(if is_foreign(&meta) {
        Err(Unsafe::DirectoryOwner(meta.uid()))
    } else if mode & GROUP_OR_WORLD_WRITE != 0 && mode & STICKY == 0 {
        Err(Unsafe::Replaceable(mode))
    } else {
        Ok(())
    })
}

/// Whether it belongs to neither the user of the service nor root.
fn is_foreign(meta: &Metadata) -> bool {
    meta.uid() != 0 && meta.uid() != nix::unistd::geteuid().as_raw()
}

fn check(file: &File, care: Care, is_credential: bool) -> std::io::Result<Result<(), Unsafe>> {
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

    #[test]
    fn who_may_write_the_directory_may_replace_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys.toml");
        fs::write(&path, "x").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        for (mode, good) in [
            (0o700, true),
            (0o755, true),
            (0o770, false),
            (0o777, false),
            (0o1777, true),
        ] {
            fs::set_permissions(dir.path(), fs::Permissions::from_mode(mode)).unwrap();
            let problem = match read(&path, Care::Secret, None) {
                Ok(_) => None,
                Err(KeyError::Unsafe { problem, .. }) => Some(problem),
                Err(error) => panic!("{error}"),
            };
            let expected = (!good).then_some(Unsafe::Replaceable(mode));
            assert_eq!(problem, expected, "{mode:o}");
        }
        // Only root can give a directory away.
        if nix::unistd::geteuid().is_root() {
            std::os::unix::fs::chown(dir.path(), Some(12345), None).unwrap();
            let problem = match read(&path, Care::Secret, None) {
                Err(KeyError::Unsafe { problem, .. }) => Some(problem),
                _ => None,
            };
            assert_eq!(problem, Some(Unsafe::DirectoryOwner(12345)));
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
