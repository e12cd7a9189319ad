//! Wakes a thread that waits for the kernel, too.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};

/// What is said where the process has no descriptor left.
pub(super) const NO_DESCRIPTOR: &str =
    "no descriptor is left: raise LimitNOFILE= of the service, or `ulimit -n`";

/// Rung by any thread, heard by the one that waits: also if it waits only later, and once for all that rang
/// meanwhile.
#[derive(Debug)]
pub(super) struct Bell(EventFd);

impl Bell {
    /// Not rung yet.
    ///
    /// # Errors
    ///
    /// The process has no descriptor left, mostly.
    pub fn new() -> io::Result<Self> {
        let flags = EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC;
        match EventFd::from_flags(flags) {
            Ok(descriptor) => Ok(Self(descriptor)),
            Err(Errno::EMFILE) => Err(io::Error::other(NO_DESCRIPTOR)),
            Err(error) => Err(error.into()),
        }
    }

    /// Wakes who waits.
    pub fn ring(&self) {
        // That fails only where it was rung some 2^64 times and heard never.
        let _ = self.0.write(1);
    }

    /// Waits until it is rung, `other` can be read, or the time is over; without one, for ever. Tells whether
    /// `other` can be read.
    ///
    /// # Errors
    ///
    /// The kernel refuses to wait.
    pub fn wait(
        &self,
        other: Option<BorrowedFd<'_>>,
        timeout: Option<Duration>,
    ) -> io::Result<bool> {
        // Rounded up: nobody is to look again and again in the last millisecond.
        let timeout = timeout.map_or(PollTimeout::NONE, |left| {
            PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX)
        });
        let wanted = |fd| PollFd::new(fd, PollFlags::POLLIN);
        let mut poll: Vec<_> = [Some(self.0.as_fd()), other]
            .into_iter()
            .flatten()
            .map(wanted)
            .collect();
        match nix::poll::poll(&mut poll, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        let is_ready = |fd: &PollFd<'_>| fd.any().unwrap_or(false);
        let can_be_read = poll.get(1).is_some_and(is_ready);
        // Nothing to take if it was not rung.
        let _ = self.0.read();
        Ok(can_be_read)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::AsFd;
    use std::time::Duration;

    use super::Bell;

    #[test]
    fn it_is_heard_once_for_all_that_rang() {
        let bell = Bell::new().unwrap();
        let (reader, mut writer) = std::io::pipe().unwrap();
        let rung = || {
            bell.wait(None, None).unwrap();
            // Nothing is left to be heard.
            bell.0.read().unwrap_err()
        };
        bell.ring();
        bell.ring();
        rung();
        std::thread::scope(|scope| {
            scope.spawn(|| bell.ring());
            rung();
        });
        let wait = |timeout| bell.wait(Some(reader.as_fd()), timeout).unwrap();
        assert!(!wait(Some(Duration::ZERO)));
        bell.ring();
        assert!(!wait(None));
        writer.write_all(b"x").unwrap();
        assert!(wait(None));
    }
}
