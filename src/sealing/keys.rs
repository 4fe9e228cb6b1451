//! Where keys come from: one in the settings, or several in a file of their own.
//!
//! In: settings; the file's text. Out: a [`KeySet`], or why there is none, in words that never hold a
//! key. Called by the server at start, and by [`super::watch`] again and again.
//!
//! ```toml
//! active = 2
//!
//! [keys]
//! 1 = "64 hexadecimal digits"
//! 2 = "64 hexadecimal digits"
//! ```

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use zeroize::{Zeroize, Zeroizing};

use super::key::{Key, KeyId};

/// A file of keys is small; more is a wrong path.
const FILE_BYTES_MAX: u64 = 256 * 1024;
/// The number of the one key that stands in the settings.
pub const SINGLE: KeyId = KeyId(0);

/// Why there are no keys. Whatever it says, it holds no secret.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum KeyError {
    /// What should be a key is none.
    #[error("{0} must be 64 hexadecimal digits")]
    NotHex(String),
    /// The file cannot be read.
    #[error("the file of keys {path} cannot be read: {reason}")]
    Unreadable {
        /// Its path.
        path: String,
        /// Why.
        reason: String,
    },
    /// The file holds something else.
    #[error("the file of keys {path}: {problem}")]
    Format {
        /// Its path.
        path: String,
        /// What is wrong.
        problem: String,
    },
}

/// Keys by number, and which of them seals.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct KeySet {
    keys: BTreeMap<KeyId, Key>,
    active: Option<KeyId>,
}

impl KeySet {
    /// A set of one key, number [`SINGLE`], which seals.
    ///
    /// # Errors
    /// [`KeyError::NotHex`].
    pub fn single(hex: &str) -> Result<Self, KeyError> {
        let key = Key::from_hex(hex).ok_or_else(|| KeyError::NotHex("encryption.key".into()))?;
        Ok(Self { keys: BTreeMap::from([(SINGLE, key)]), active: Some(SINGLE) })
    }

    /// The numbers of all keys, ascending.
    pub fn ids(&self) -> impl Iterator<Item = KeyId> {
        self.keys.keys().copied()
    }

    /// The key that seals; `None` without keys.
    #[must_use]
    pub fn active(&self) -> Option<KeyId> {
        self.active
    }

    pub(super) fn get(&self, id: KeyId) -> Option<&Key> {
        self.keys.get(&id)
    }

    /// Lays the keys of a file over these.
    ///
    /// # Errors
    /// What is wrong with the text, without a word of it that could be a key.
    pub fn add_file(&mut self, text: &str) -> Result<(), String> {
        let table: toml::Table = text.parse().map_err(|error| where_not_toml(text, &error))?;
        for (name, value) in table {
            match (name.as_str(), value) {
                ("active", toml::Value::Integer(id)) => {
                    let id = u32::try_from(id).map_err(|_| "active must be a key's number")?;
                    self.active = Some(KeyId(id));
                }
                ("active", _) => return Err("active must be a key's number".into()),
                ("keys", toml::Value::Table(keys)) => self.add_keys(keys)?,
                ("keys", _) => return Err("keys must be a table of numbers and keys".into()),
                // Perhaps a key that lost its place: its name is told, its value never.
                _ => return Err("it may hold `active` and the table `keys`, nothing else".into()),
            }
        }
        match self.active {
            Some(active) if self.keys.contains_key(&active) => Ok(()),
            Some(active) => Err(format!("key {active} is to be active and is not in it")),
            None => Err("active is missing: the number of the key that new messages get".into()),
        }
    }

    fn add_keys(&mut self, keys: toml::Table) -> Result<(), String> {
        for (id, value) in keys {
            let id = id.parse().map_err(|_| "a key's number is from 0 to 4294967295")?;
            let toml::Value::String(mut hex) = value else {
                return Err(format!("key {id} must be 64 hexadecimal digits in quotes"));
            };
            let key = Key::from_hex(&hex);
            hex.zeroize();
            let key = key.ok_or_else(|| format!("key {id} must be 64 hexadecimal digits"))?;
            match self.keys.get(&KeyId(id)) {
                Some(other) if *other != key => {
                    return Err(format!("key {id} stands in the settings too, and is another one"));
                }
                _ => self.keys.insert(KeyId(id), key),
            };
        }
        Ok(())
    }
}

/// A parser's own words may quote the line, and with it a key.
fn where_not_toml(text: &str, error: &toml::de::Error) -> String {
    let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
    format!("line {} is not TOML", before.matches('\n').count() + 1)
}

/// Where a server's keys are.
#[derive(Clone, Debug, Default)]
pub struct KeySource {
    single: KeySet,
    file: Option<PathBuf>,
}

impl KeySource {
    /// Keys of a server: `single` is empty or 64 hexadecimal digits, `file` the file of keys.
    ///
    /// # Errors
    /// [`KeyError::NotHex`].
    pub fn new(single: &str, file: Option<PathBuf>) -> Result<Self, KeyError> {
        let single = if single.is_empty() { KeySet::default() } else { KeySet::single(single)? };
        Ok(Self { single, file })
    }

    /// Whether the keys may change while the server runs.
    #[must_use]
    pub fn has_file(&self) -> bool {
        self.file.is_some()
    }

    /// The keys as they are now. Waits for the file.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn load(&self) -> Result<KeySet, KeyError> {
        let mut keys = self.single.clone();
        let Some(path) = &self.file else { return Ok(keys) };
        let shown = path.display().to_string();
        let text = read(path).map_err(|error| KeyError::Unreadable {
            path: shown.clone(),
            reason: error.to_string(),
        })?;
        match keys.add_file(&text) {
            Ok(()) => Ok(keys),
            Err(problem) => Err(KeyError::Format { path: shown, problem }),
        }
    }
}

fn read(path: &Path) -> std::io::Result<Zeroizing<String>> {
    let mut text = Zeroizing::new(String::new());
    let file = std::fs::File::open(path)?;
    file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(std::io::Error::other(format!("it has more than {FILE_BYTES_MAX} bytes")));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(digit: char) -> String {
        digit.to_string().repeat(64)
    }

    fn file(text: &str) -> Result<KeySet, String> {
        let mut keys = KeySet::default();
        keys.add_file(text).map(|()| keys)
    }

    #[test]
    fn a_file_holds_numbered_keys_and_says_which_one_seals() {
        let text = format!("active = 7\n[keys]\n1 = \"{}\"\n7 = \"{}\"\n", hex('a'), hex('b'));
        let keys = file(&text).unwrap();
        assert_eq!(keys.ids().collect::<Vec<_>>(), [KeyId(1), KeyId(7)]);
        assert_eq!(keys.active(), Some(KeyId(7)));
    }

    #[test]
    fn the_key_of_the_settings_is_number_0_beside_those_of_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys.toml");
        std::fs::write(&path, format!("[keys]\n1 = \"{}\"", hex('a'))).unwrap();
        let keys = KeySource::new(&hex('c'), Some(path.clone())).unwrap().load().unwrap();
        assert_eq!(keys.ids().collect::<Vec<_>>(), [SINGLE, KeyId(1)]);
        assert_eq!(keys.active(), Some(SINGLE), "the file leaves it as it is");
        std::fs::write(&path, format!("[keys]\n0 = \"{}\"", hex('a'))).unwrap();
        let error = KeySource::new(&hex('c'), Some(path)).unwrap().load().unwrap_err();
        assert!(error.to_string().contains("key 0 stands in the settings too"), "{error}");
    }

    #[test]
    fn what_is_no_file_of_keys_is_refused_in_words_without_a_secret() {
        let secret = hex('d');
        let short = secret.get(..60).unwrap();
        for (text, problem) in [
            (format!("active = 1\n[keys]\n1 = \"{short}\""), "key 1 must be 64 hexadecimal digits"),
            (format!("active = 1\n[keys]\n1 = {secret}"), "line 3 is not TOML"),
            (format!("active = 2\n[keys]\n1 = \"{secret}\""), "key 2 is to be active"),
            (format!("[keys]\n1 = \"{secret}\""), "active is missing"),
            (format!("active = 1\n1 = \"{secret}\""), "nothing else"),
            (format!("active = \"{secret}\""), "active must be a key's number"),
            (format!("active = -1\n[keys]\n1 = \"{secret}\""), "active must be a key's number"),
            (format!("active = 1\n[keys]\n{secret} = 1"), "a key's number is from 0"),
            (format!("active = 1\nkeys = \"{secret}\""), "keys must be a table"),
            (String::new(), "active is missing"),
        ] {
            let said = file(&text).unwrap_err();
            assert!(said.contains(problem), "{said}");
            assert!(!said.contains("dddd"), "{said}");
        }
        let missing = KeySource::new("", Some("/nowhere/keys.toml".into())).unwrap().load();
        assert!(matches!(missing, Err(KeyError::Unreadable { .. })));
        assert_eq!(
            KeySource::new("12", None).unwrap_err().to_string(),
            "encryption.key must be 64 hexadecimal digits"
        );
    }
}
