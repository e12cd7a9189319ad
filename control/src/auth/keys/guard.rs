//! Reading a file only if nobody else could have read or written it.

use std::fs::OpenOptions;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::fcntl::OFlag;
use sifter_tls::Care;

use super::KeyError;

/// Largest file that is read; thousands of keys fit.
pub(super) const MAX_FILE: u64 = 1 << 20;

/// Reads a file as text after checking owner, mode and the way to it.
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
    // The service manager grants a service's user by ACL, whose mask shows as the group's bits: such a credential
    // has mode 0440 and is still private.
    let care = match care {
        Care::Secret if credentials.is_some_and(|dir| path.starts_with(dir)) => Care::Shared,
        care => care,
    };
    sifter_tls::check(&file, path, care)
        .map_err(failed)?
        .map_err(|problem| KeyError::Unsafe {
            path: path.to_owned(),
            problem,
        })?;
    let mut text = String::new();
    file.take(MAX_FILE + 1)
        .read_to_string(&mut text)
        .map_err(failed)?;
    if text.len() as u64 > MAX_FILE {
        return Err(KeyError::TooLarge {
            path: path.to_owned(),
        });
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::fs::File;
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    use sifter_tls::Unsafe;

    use super::super::tests::directory;
    use super::*;

    #[test]
    fn a_credential_may_have_the_bits_of_a_group() {
        let dir = directory();
        let path = dir.path().join("keys.toml");
        fs::write(&path, "x").unwrap();
        let elsewhere = Path::new("/nowhere");
        for (mode, care, credentials, good) in [
            (0o400, Care::Secret, elsewhere, true),
            (0o440, Care::Secret, elsewhere, false),
            (0o440, Care::Secret, dir.path(), true),
            (0o444, Care::Secret, dir.path(), false),
            (0o460, Care::Secret, dir.path(), false),
            (0o444, Care::Public, elsewhere, true),
            (0o444, Care::Public, dir.path(), true),
        ] {
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            let result = read(&path, care, Some(credentials));
            assert_eq!(result.is_ok(), good, "{mode:o} {care:?}: {result:?}");
        }
    }

    #[test]
    fn other_kinds_and_sizes() {
        let dir = directory();
        let pipe = dir.path().join("pipe");
        let mode = nix::sys::stat::Mode::S_IRUSR | nix::sys::stat::Mode::S_IWUSR;
        nix::unistd::mkfifo(&pipe, mode).unwrap();
        let problem = Unsafe::NotAFile;
        assert!(
            matches!(read(&pipe, Care::Public, None), Err(KeyError::Unsafe { problem: found, .. }) if found == problem)
        );
        let large = dir.path().join("large");
        for (size, good) in [(MAX_FILE, true), (MAX_FILE + 1, false)] {
            File::create(&large).unwrap().set_len(size).unwrap();
            let result = read(&large, Care::Public, None);
            let is_too_large = matches!(result, Err(KeyError::TooLarge { .. }));
            assert_eq!((result.is_ok(), is_too_large), (good, !good), "{size}");
        }
    }
}
