//! A unix socket and its file: made where nobody answers, and removed by who has made it.

use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tokio::net::{UnixListener, UnixStream};

/// A unix socket that is listened on.
#[derive(Debug)]
pub struct UnixSocket {
    /// Before the listener, and so dropped before it: a file without a listener would refuse whoever connects, and
    /// would be taken for one that was left behind.
    file: Option<OwnFile>,
    listener: UnixListener,
}

impl UnixSocket {
    /// Binds a path. A socket left there by a process that was killed answers nobody and is removed; one that
    /// answers is in use.
    ///
    /// # Errors
    ///
    /// What the operating system says, that another process answers there, or that there is something else than a
    /// socket.
    pub fn bind(path: &Path, mode: u32) -> io::Result<Self> {
        if std::os::unix::net::UnixStream::connect(path).is_ok() {
            return Err(io::Error::new(
                io::ErrorKind::AddrInUse,
                "another process answers on this socket",
            ));
        }
        remove_socket(path)?;
        let socket = Self {
            listener: UnixListener::bind(path)?,
            file: Some(OwnFile::at(path)?),
        };
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
        Ok(socket)
    }

    /// Takes one that another process (systemd) has bound, and whose file that process keeps.
    ///
    /// # Errors
    ///
    /// What the operating system says.
    pub fn adopt(listener: std::os::unix::net::UnixListener) -> io::Result<Self> {
        Ok(Self {
            listener: UnixListener::from_std(listener)?,
            file: None,
        })
    }

    /// The next connection.
    ///
    /// # Errors
    ///
    /// What the operating system says.
    pub async fn accept(&self) -> io::Result<UnixStream> {
        Ok(self.listener.accept().await?.0)
    }

    /// Removes the file, if it is its own: nobody else connects, and those who have can still be accepted.
    pub fn remove_file(&mut self) {
        self.file = None;
    }
}

/// The file of a socket that this process has bound; removed when dropped.
#[derive(Debug)]
struct OwnFile {
    path: PathBuf,
    /// Device and inode. Who removes the file by hand may start another agent there.
    identity: (u64, u64),
}

impl OwnFile {
    fn at(path: &Path) -> io::Result<Self> {
        Ok(Self {
            path: path.to_owned(),
            identity: identity(path)?,
        })
    }
}

impl Drop for OwnFile {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|found| found == self.identity) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let found = std::fs::symlink_metadata(path)?;
    Ok((found.dev(), found.ino()))
}

/// Removes a socket; anything else at its place is somebody's.
fn remove_socket(path: &Path) -> io::Result<()> {
    match std::fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => std::fs::remove_file(path),
        Ok(_) => Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            "there is something else than a socket: move it away, or name another path",
        )),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::{UnixSocket, remove_socket};

    #[test]
    fn only_a_socket_makes_room_for_a_socket() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("agent.sock");
        assert!(remove_socket(&path).is_ok());
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(remove_socket(&path).is_ok());
        assert!(!path.exists());
        std::fs::write(&path, "precious").unwrap();
        let error = remove_socket(&path).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read(&path).unwrap(), b"precious");
    }

    #[tokio::test]
    async fn a_file_that_another_has_put_there_is_not_removed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("agent.sock");
        let former = UnixSocket::bind(&path, 0o600).unwrap();
        // Not removed, or its inode would be free for the next one.
        std::fs::rename(&path, directory.path().join("aside")).unwrap();
        let later = UnixSocket::bind(&path, 0o600).unwrap();
        drop(former);
        assert!(std::os::unix::net::UnixStream::connect(&path).is_ok());
        drop(later);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn who_has_connected_is_accepted_after_the_file_is_gone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("agent.sock");
        let mut socket = UnixSocket::bind(&path, 0o600).unwrap();
        let _client = std::os::unix::net::UnixStream::connect(&path).unwrap();
        socket.remove_file();
        assert!(!path.exists());
        socket.accept().await.unwrap();
    }
}
