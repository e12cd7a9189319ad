//! What is in use, and when to speak of it.

use std::path::PathBuf;

use jiff::{SignedDuration, Timestamp};

use crate::guard::Unsafe;
use crate::validity::Validity;

const DAY: SignedDuration = SignedDuration::from_hours(24);

/// What a file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The certificate that the other side is shown, with its chain.
    Certificate,
    /// Its key.
    Key,
    /// Authorities that vouch for the other side.
    Authorities,
}

/// A file that is in use: what was last read of it, whatever has become of it since.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// The key of the configuration that names it.
    pub setting: &'static str,
    /// The file.
    pub file: PathBuf,
    /// What it holds.
    pub kind: Kind,
    /// From when until when that is good; a key is for as long as its certificate. Of several authorities the last
    /// to end counts: a file that holds an old one and a new one is the remedy.
    pub validity: Option<Validity>,
    /// What others can do with it.
    pub problem: Option<Unsafe>,
}

impl Held {
    /// What is to be said of its end, if anything, and when that is.
    #[must_use]
    pub fn ending(&self, now: Timestamp) -> Option<(String, Timestamp)> {
        let validity = self.validity?;
        let warning = validity.warning(now)?;
        let what = match self.kind {
            Kind::Certificate | Kind::Key => "the certificate",
            Kind::Authorities => "the authority",
        };
        Some((format!("{what} {warning}: renew it"), validity.not_after))
    }

    /// All that is to be said of it, for people who check a configuration.
    #[must_use]
    pub fn notes(&self, now: Timestamp) -> Vec<String> {
        let place = format!("{} {}", self.setting, self.file.display());
        let ending = self.ending(now);
        let ending = ending.map(|(warning, until)| format!("{place}: {warning} (until {until})"));
        let problem = self.problem.as_ref();
        let problem = problem.map(|problem| format!("{place} is not safe: {problem}"));
        ending.into_iter().chain(problem).collect()
    }
}

/// The files in use, and when to speak of them next: when one has been read, and then once a day.
#[derive(Debug, Default)]
pub struct Reminder {
    held: Vec<Held>,
    next: Timestamp,
}

impl Reminder {
    /// Files were read: they take the place of those that the same keys of the configuration named.
    pub fn replace(&mut self, new: impl IntoIterator<Item = Held>) {
        for new in new {
            self.held.retain(|held| held.setting != new.setting);
            self.held.push(new);
        }
        self.next = Timestamp::MIN;
    }

    /// The files in use.
    #[must_use]
    pub fn held(&self) -> &[Held] {
        &self.held
    }

    /// Those to be spoken of now: all of them, or none yet.
    pub fn due(&mut self, now: Timestamp) -> &[Held] {
        if now < self.next {
            return &[];
        }
        self.next = now.saturating_add(DAY).unwrap_or(Timestamp::MAX);
        &self.held
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn held(setting: &'static str, not_after: &str) -> Held {
        let validity = Validity {
            not_before: time("2025-07-01T00:00:00Z"),
            not_after: time(not_after),
        };
        Held {
            setting,
            file: "x.pem".into(),
            kind: Kind::Certificate,
            validity: Some(validity),
            problem: None,
        }
    }

    #[test]
    fn it_is_spoken_of_once_a_day() {
        let mut reminder = Reminder::default();
        reminder.replace([held("cert", "2026-07-01T00:00:00Z")]);
        for (now, count) in [
            ("2026-06-10T12:00:00Z", 1),
            ("2026-06-10T12:00:01Z", 0),
            ("2026-06-11T11:59:59Z", 0),
            ("2026-06-11T12:00:00Z", 1),
            ("2026-07-11T12:00:00Z", 1),
        ] {
            assert_eq!(reminder.due(time(now)).len(), count, "{now}");
        }
    }

    #[test]
    fn what_was_read_again_is_spoken_of_at_once() {
        let mut reminder = Reminder::default();
        let now = time("2026-12-30T12:00:00Z");
        reminder.replace([
            held("cert", "2029-07-01T00:00:00Z"),
            held("ca", "2029-07-01T00:00:00Z"),
        ]);
        assert_eq!(reminder.due(now).len(), 2);
        for (year, expected) in [
            ("2026", Some("the certificate has expired: renew it")),
            ("2029", None),
        ] {
            assert!(reminder.due(now).is_empty());
            reminder.replace([held("cert", &format!("{year}-07-01T00:00:00Z"))]);
            let due = reminder.due(now);
            assert_eq!(due.len(), 2);
            let cert = due.iter().find(|held| held.setting == "cert").unwrap();
            let ending = cert.ending(now).map(|(warning, _)| warning);
            assert_eq!(ending.as_deref(), expected);
        }
    }
}
