//! As whom the server runs: as whoever runs the test, unless that is root.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use crate::HarnessError;

/// Users to run as in the place of root, the best first.
const STAND_INS: [&str; 2] = ["postgres", "nobody"];

/// Who owns clusters and runs their servers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Owner {
    /// User and group, where they are not our own.
    ids: Option<(u32, u32)>,
}

impl Owner {
    /// Ourselves, or somebody else if we are root.
    pub(crate) fn choose() -> Result<Self, HarnessError> {
        if !rustix::process::geteuid().is_root() {
            return Ok(Self { ids: None });
        }
        let path = Path::new("/etc/passwd");
        let users = std::fs::read_to_string(path).map_err(HarnessError::io("reading", path))?;
        let found = STAND_INS.iter().find_map(|name| find(&users, name));
        found.map(|ids| Self { ids: Some(ids) }).ok_or(HarnessError::NoOwner)
    }

    /// A command that runs as the owner.
    pub(crate) fn run(self, mut command: Command) -> Command {
        if let Some((user, group)) = self.ids {
            // Groups of root are given up with its user.
            command.gid(group).uid(user);
        }
        command
    }

    /// Gives a file or folder to the owner.
    pub(crate) fn give(self, path: &Path) -> Result<(), HarnessError> {
        let Some((user, group)) = self.ids else { return Ok(()) };
        std::os::unix::fs::chown(path, Some(user), Some(group))
            .map_err(HarnessError::io("giving away", path))
    }

    /// Tells one owner's template from another's.
    pub(crate) fn tag(self) -> String {
        self.ids.map_or_else(|| "own".to_owned(), |(user, _)| user.to_string())
    }
}

/// User and group of a name in the words of `/etc/passwd`.
fn find(users: &str, name: &str) -> Option<(u32, u32)> {
    let line = users.lines().find(|line| line.split(':').next() == Some(name))?;
    let mut numbers = line.split(':').skip(2);
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_found_by_the_whole_name() {
        let users = "root:x:0:0:root:/root:/bin/sh\npostgres2:x:7:8::/:\npostgres:x:101:104::/:\n";
        assert_eq!(find(users, "postgres"), Some((101, 104)));
        assert_eq!(find(users, "nobody"), None);
    }

    #[test]
    fn the_server_never_runs_as_root() {
        let owner = Owner::choose().unwrap();
        let user = owner.run(Command::new("id")).arg("-u").output().unwrap();
        assert_ne!(String::from_utf8(user.stdout).unwrap().trim(), "0");
    }
}
