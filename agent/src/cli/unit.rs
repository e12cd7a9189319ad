//! As whom the service manager runs the agent: what root may do says little of somebody who may do less.

use std::ffi::CString;
use std::path::Path;
use std::process::Command;

use nix::unistd::{Gid, Group, Uid, User, geteuid, getgrouplist, setgid, setgroups, setuid};

/// The agent's unit.
pub(super) const UNIT: &str = "sifter-agent.service";

/// What is asked of it.
const PROPERTIES: &str = "--property=User,Group,SupplementaryGroups,AmbientCapabilities,ExecStart";

/// The capability with which permissions do not matter for reading.
const READS_EVERYTHING: &str = "cap_dac_read_search";

/// Somebody with groups.
#[derive(Debug, PartialEq, Eq)]
struct Account<'a> {
    user: &'a str,
    group: &'a str,
    more_groups: Vec<&'a str>,
}

/// Goes on as the user whom the agent's unit runs with this configuration, and gives the name. `None`, and nothing is
/// changed, where that is not known, or this is not root.
pub(super) fn become_its_user(file: &Path) -> Option<String> {
    if !geteuid().is_root() {
        return None;
    }
    let shown = Command::new("systemctl")
        .args(["show", PROPERTIES, UNIT])
        .output()
        .ok()
        .filter(|output| output.status.success())?;
    let shown = String::from_utf8(shown.stdout).ok()?;
    let account = account(&shown, file)?;
    let (uid, gid, groups) = numbers(&account)?;
    // In this order: each takes away the right to the one before.
    setgroups(&groups)
        .and_then(|()| setgid(gid))
        .and_then(|()| setuid(uid))
        .ok()?;
    Some(account.user.to_owned())
}

/// Who the unit's user is, if it runs with this configuration and may not read whatever there is.
fn account<'a>(shown: &'a str, file: &Path) -> Option<Account<'a>> {
    let value = |key: &str| {
        shown
            .lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
            .unwrap_or_default()
    };
    let is_its_own = file
        .to_str()
        .is_some_and(|file| names(value("ExecStart"), file));
    let reads_everything = value("AmbientCapabilities").contains(READS_EVERYTHING);
    let user = value("User");
    (is_its_own && !reads_everything && !user.is_empty()).then(|| Account {
        user,
        group: value("Group"),
        more_groups: value("SupplementaryGroups").split_whitespace().collect(),
    })
}

/// Whether a file is named by a command, of which `systemctl` shows the arguments with blanks between them, and quotes
/// none: there may be blanks in the file's path as well.
fn names(command: &str, file: &str) -> bool {
    command.match_indices(file).any(|(at, _)| {
        let (before, after) = (&command[..at], &command[at + file.len()..]);
        before.ends_with([' ', '=']) && after.starts_with(' ')
    })
}

fn numbers(account: &Account<'_>) -> Option<(Uid, Gid, Vec<Gid>)> {
    let user = User::from_name(account.user).ok().flatten()?;
    let gid_of = |name: &str| Some(Group::from_name(name).ok().flatten()?.gid);
    let gid = match account.group {
        "" => user.gid,
        name => gid_of(name)?,
    };
    let name = CString::new(account.user).ok()?;
    let mut groups = getgrouplist(&name, gid).ok()?;
    groups.extend(account.more_groups.iter().filter_map(|name| gid_of(name)));
    Some((user.uid, gid, groups))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::account;

    #[test]
    fn only_the_units_own_configuration_is_judged_for_its_user() {
        let shown = |user: &str, capabilities: &str, arguments: &str| {
            format!(
                "ExecStart={{ path=/usr/bin/sifter ; argv[]=/usr/bin/sifter agent {arguments} ; pid=0 }}\n\
                 User={user}\nGroup=g\nSupplementaryGroups=a b\nAmbientCapabilities={capabilities}\n"
            )
        };
        for (user, capabilities, arguments, expected) in [
            ("sifter", "", "--config /etc/a b.toml", true),
            ("sifter", "", "--config=/etc/a b.toml", true),
            ("sifter", "", "--config=/etc/a b.toml --system s", true),
            ("sifter", "", "--config /etc/a b.toml.d", false),
            ("sifter", "", "--config /b/etc/a b.toml", false),
            ("sifter", "", "--config /etc/b.toml", false),
            (
                "sifter",
                "cap_dac_read_search",
                "--config /etc/a b.toml",
                false,
            ),
            ("", "", "--config /etc/a b.toml", false),
        ] {
            let shown = shown(user, capabilities, arguments);
            let found = account(&shown, Path::new("/etc/a b.toml"));
            assert_eq!(found.is_some(), expected, "{shown}");
            if let Some(found) = found {
                assert_eq!((found.user, found.group), ("sifter", "g"));
                assert_eq!(found.more_groups, ["a", "b"]);
            }
        }
    }
}
