//! From which mounts a path is reached, by `/proc/self/mountinfo`.

use std::path::{Path, PathBuf};

use super::Confined;
use crate::mounts::{MOUNTINFO, Mount, all, leading_to};

/// Whether nothing at a path and below it can be written: it and all that is mounted below it is mounted
/// read-only, as a unit with `ProtectSystem=strict` has it.
pub(super) fn is_read_only(mountinfo: &[u8], path: &Path) -> bool {
    let leading = leading_to(mountinfo, path);
    // Of several at one place the last is seen; whoever cannot tell them apart needs all of them.
    let nearest = leading.iter().map(|mount| mount.point.as_os_str().len());
    let nearest = nearest.max();
    let at = leading
        .iter()
        .filter(|mount| Some(mount.point.as_os_str().len()) == nearest);
    let below = all(mountinfo).filter(|mount| mount.point.starts_with(path));
    nearest.is_some() && at.cloned().chain(below).all(|mount| mount.is_read_only)
}

/// What the roots were mounted from when the agent confined itself.
#[derive(Debug)]
pub struct Mounts(Vec<(PathBuf, PathBuf, Vec<Mount>)>);

impl Mounts {
    /// As they are now; nothing to watch where reading is not confined.
    #[must_use]
    pub fn now(confined: &Confined) -> Self {
        let mountinfo = std::fs::read(MOUNTINFO).unwrap_or_default();
        let roots = confined.roots.iter().flatten();
        Self(
            roots
                .map(|(root, real)| {
                    let mounts = leading_to(&mountinfo, real);
                    (root.clone(), real.clone(), mounts)
                })
                .collect(),
        )
    }

    /// Whether none can become another one.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A root to which other mounts lead than at first.
    #[must_use]
    pub fn changed(&self) -> Option<&Path> {
        let mountinfo = std::fs::read(MOUNTINFO).ok()?;
        self.0
            .iter()
            .find(|(_, real, mounts)| leading_to(&mountinfo, real) != *mounts)
            .map(|(root, ..)| root.as_path())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::is_read_only;

    #[test]
    fn read_only_is_what_is_so_with_all_below() {
        let mounts = b"22 1 254:0 / / ro,relatime shared:1 - ext4 /dev/root rw\n\
            30 22 0:40 / /home ro shared:2 - nfs4 server:/home rw\n\
            31 30 0:41 / /home/alice rw shared:3 - nfs4 server:/alice rw\n\
            32 22 0:42 / /scratch rw,nosuid - lustre mds:/scratch ro\n\
            33 32 0:42 / /scratch ro,nosuid - lustre mds:/scratch rw\n\
            34 22 0:43 / /data ro - xfs /dev/sdb rw,roomy\n";
        for (path, expected) in [
            ("/opt/images", true),
            ("/", false),
            ("/home", false),
            ("/home/bob", true),
            ("/home/alice/images", false),
            ("/scratch/images", false),
            ("/data/images", true),
            ("/database", true),
        ] {
            assert_eq!(is_read_only(mounts, Path::new(path)), expected, "{path}");
        }
        let root = b"22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/root rw\n";
        assert!(!is_read_only(root, Path::new("/opt/images")));
        assert!(!is_read_only(b"", Path::new("/opt/images")));
    }
}
