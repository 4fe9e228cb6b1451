//! Finds server binaries: where the environment says, where Debian puts them, where
//! `tools/fetch-postgres` puts them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::HarnessError;

/// Server binaries of one release.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Installation {
    bin: PathBuf,
    major: u32,
    minor: u32,
}

impl Installation {
    /// Its major version, 15 say.
    #[must_use]
    pub fn major(&self) -> u32 {
        self.major
    }

    /// Its version, `15.4` say.
    #[must_use]
    pub fn version(&self) -> String {
        format!("{}.{}", self.major, self.minor)
    }

    /// A command of one of its programs, which finds its libraries.
    pub(crate) fn program(&self, name: &str) -> Command {
        let mut command = Command::new(self.bin.join(name));
        let libraries = self.bin.join("../lib");
        // Programs that were moved do not find their libraries by themselves.
        if !self.bin.starts_with("/usr") {
            command.env("LD_LIBRARY_PATH", libraries);
        }
        command.env_remove("PGHOST").env_remove("PGPORT").env_remove("PGDATA");
        command
    }

    fn at(bin: &Path) -> Option<Self> {
        if !bin.join("initdb").exists() {
            return None;
        }
        let output = Command::new(bin.join("postgres")).arg("--version").output().ok()?;
        let (major, minor) = parse_version(std::str::from_utf8(&output.stdout).ok()?)?;
        Some(Self { bin: bin.canonicalize().ok()?, major, minor })
    }
}

/// The server binaries that there are, the newest release of each major, the lowest major first.
/// `PG_BIN`, a folder or several with colons between, stands for all others where it is set.
///
/// # Errors
/// [`HarnessError::NotFound`] without any.
pub fn installations() -> Result<Vec<Installation>, HarnessError> {
    let folders = match std::env::var_os("PG_BIN").filter(|it| !it.is_empty()) {
        Some(named) => std::env::split_paths(&named).collect(),
        None => {
            let fetched = target().join("pg");
            [bins("/usr/lib/postgresql".as_ref()), bins(&fetched)].concat()
        }
    };
    let mut newest: BTreeMap<u32, Installation> = BTreeMap::new();
    for found in folders.iter().filter_map(|folder| Installation::at(folder)) {
        let known = newest.entry(found.major).or_insert_with(|| found.clone());
        if found.minor > known.minor {
            *known = found;
        }
    }
    if newest.is_empty() {
        let looked: Vec<String> = folders.iter().map(|it| it.display().to_string()).collect();
        let looked =
            if looked.is_empty() { "/usr/lib/postgresql".into() } else { looked.join(", ") };
        return Err(HarnessError::NotFound { looked });
    }
    Ok(newest.into_values().collect())
}

/// The folder that cargo builds into; the harness keeps what it made there too.
pub(crate) fn target() -> PathBuf {
    let built = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    built.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target"))
}

/// `<folder>/*/bin`.
fn bins(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let bins = entries.map(|entry| entry.path().join("bin"));
    bins.filter(|bin| bin.join("postgres").exists()).collect()
}

/// The numbers in `postgres (PostgreSQL) 15.4 (Debian 15.4-1)`.
fn parse_version(text: &str) -> Option<(u32, u32)> {
    let number = text.split_whitespace().nth(2)?;
    let mut parts = number.split('.');
    let major = parts.next()?.parse().ok()?;
    // A release before the first one is called 19beta1, and is no release.
    Some((major, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_and_what_is_none_is_not() {
        assert_eq!(parse_version("postgres (PostgreSQL) 18.6\n"), Some((18, 6)));
        assert_eq!(parse_version("postgres (PostgreSQL) 15.20 (Debian 15.20-0)"), Some((15, 20)));
        assert_eq!(parse_version("postgres (PostgreSQL) 19beta1"), None);
        assert_eq!(parse_version("sh: postgres: not found"), None);
    }

    #[test]
    fn at_least_one_server_is_here_and_majors_are_in_order() {
        let found = installations().unwrap();
        assert!(found.is_sorted_by_key(Installation::major), "{found:?}");
        assert!(found.iter().all(|it| it.version().starts_with(&it.major().to_string())));
    }
}
