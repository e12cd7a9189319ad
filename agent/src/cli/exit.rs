//! Exit codes, the same for every subcommand.

use std::process::ExitCode;

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Done, and everything could be read.
    Success,
    /// Not done; standard error says why.
    Failure,
    /// The command line or the configuration is wrong.
    Usage,
    /// Done, but some files or directories could not be read; standard error says which.
    Partial,
    /// `inspect`: the file is not an image. `inspect --verify`: a signature is not valid.
    Negative,
    /// The agent does not answer.
    Unreachable,
}

impl Exit {
    /// How a command ended that did one thing after the other: what could not be done at all counts more than
    /// what was done in part, or an answer that is no.
    #[must_use]
    pub fn and(self, next: Self) -> Self {
        match (self, next) {
            (Self::Failure, _) | (_, Self::Success) => self,
            _ => next,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Success => 0,
            Exit::Failure => 1,
            Exit::Usage => 2,
            Exit::Partial => 3,
            Exit::Negative => 4,
            Exit::Unreachable => 5,
        })
    }
}
