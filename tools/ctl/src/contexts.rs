//! Named servers, kept in a file.
//!
//! In: the file `onrush/ctl.toml` in the user's folder for settings. Out: contexts by name, and which one is
//! in use. The file holds tokens: it is written for its owner alone (mode 0600), as a whole or not at all, and
//! whoever let others read it is told. Called by `target` and by the commands about contexts.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::fault::Fault;

/// All contexts.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Contexts {
    /// The one that is used where nothing else is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) current: Option<String>,
    #[serde(default)]
    pub(crate) contexts: BTreeMap<String, Context>,
}

/// A server, and how it is spoken to.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Context {
    /// Where its HTTP port is, as a URL.
    pub(crate) server: String,
    /// Where its binary port is: host and port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) tcp: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) token: Option<String>,
    /// Certificates that are trusted, in PEM; the system's where nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ca_file: Option<PathBuf>,
}

/// Where the file is: below `XDG_CONFIG_HOME`, or `.config` in the home folder.
pub(crate) fn path() -> Result<PathBuf, Fault> {
    let of = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|it| it.is_absolute());
    let folder = of("XDG_CONFIG_HOME").or_else(|| of("HOME").map(|home| home.join(".config")));
    let folder = folder.ok_or_else(|| {
        Fault::usage("neither XDG_CONFIG_HOME nor HOME says where contexts are kept")
    })?;
    Ok(folder.join("onrush").join("ctl.toml"))
}

impl Contexts {
    /// The contexts in the user's file; none where there is no file, or no place for one.
    pub(crate) fn load() -> Result<Self, Fault> {
        let Ok(path) = path() else { return Ok(Self::default()) };
        Self::read(&path)
    }

    fn read(path: &Path) -> Result<Self, Fault> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Self::default());
            }
            Err(error) => return Err(Fault::file(path, error)),
        };
        let contexts: Self = toml::from_str(&text).map_err(|error| Fault::file(path, error))?;
        if contexts.contexts.values().any(|it| it.token.is_some()) && is_open_to_others(path) {
            eprintln!(
                "onrushctl: warning: others may read the tokens in {0}; close it with `chmod 600 {0}`",
                path.display()
            );
        }
        Ok(contexts)
    }

    /// Writes them to the user's file.
    pub(crate) fn save(&self) -> Result<(), Fault> {
        self.write(&path()?)
    }

    fn write(&self, path: &Path) -> Result<(), Fault> {
        let text = toml::to_string(self).map_err(|error| Fault::file(path, error))?;
        let folder = path.parent().unwrap_or(Path::new("."));
        let failed = |error: std::io::Error| Fault::file(path, error);
        std::fs::create_dir_all(folder).map_err(failed)?;
        let beside = path.with_extension(format!("toml.{}", std::process::id()));
        let written = private(&beside).and_then(|mut file| {
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            std::fs::rename(&beside, path)
        });
        if written.is_err() {
            // What is half written must not stay, and it may not even be there.
            drop(std::fs::remove_file(&beside));
        }
        written.map_err(failed)
    }

    /// The context of that name.
    pub(crate) fn find(&self, name: &str) -> Result<&Context, Fault> {
        self.contexts.get(name).ok_or_else(|| {
            let known: Vec<&str> = self.contexts.keys().map(String::as_str).collect();
            let hint = match known.as_slice() {
                [] => {
                    "there are none; `onrushctl context add NAME --server URL` makes one".to_owned()
                }
                known => format!("there are {}", known.join(", ")),
            };
            Fault::usage_with(format!("there is no context {name:?}"), hint)
        })
    }
}

/// A new file that only its owner may read, from its first byte on.
fn private(path: &Path) -> std::io::Result<std::fs::File> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

fn is_open_to_others(path: &Path) -> bool {
    let mode = std::fs::metadata(path)
        .map(|it| std::os::unix::fs::PermissionsExt::mode(&it.permissions()));
    mode.is_ok_and(|mode| mode & 0o077 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_and_is_its_owners_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep").join("ctl.toml");
        let context = Context {
            server: "https://a:1".to_owned(),
            token: Some("t".to_owned()),
            ..Context::default()
        };
        let contexts = Contexts {
            current: Some("a".to_owned()),
            contexts: [("a".to_owned(), context)].into(),
        };
        for _ in 0..2 {
            contexts.write(&path).unwrap();
            assert_eq!(Contexts::read(&path).unwrap(), contexts);
            assert!(!is_open_to_others(&path));
        }
        assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn a_file_that_is_not_there_holds_nothing_and_one_that_is_wrong_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ctl.toml");
        assert_eq!(Contexts::read(&path).unwrap(), Contexts::default());
        std::fs::write(&path, "[contexts.a]\nservr = \"x\"\n").unwrap();
        let told = Contexts::read(&path).unwrap_err().to_string();
        assert!(told.contains("ctl.toml") && told.contains("servr"), "{told}");
        assert_eq!(Contexts::default().find("b").unwrap_err().exit_code(), 2);
    }
}
