//! Configuration: decides every setting of the server, once, before anything starts.
//!
//! In: a TOML file, the environment and flags, as plain values ([`Inputs`]). Out: [`Loaded`], the typed
//! [`Settings`] with who gave each, or a [`ConfigError`] that lists everything that is wrong.
//! Order of strength: default, file, variable, flag. What is not known is refused, with a suggestion.
//! Called by `main` and by whoever starts the server; it knows no behaviour of any room.
//!
//! | file | decides |
//! |---|---|
//! | `settings` | the table: every setting with its type, default, limits, names and reason |
//! | `table` | what a row is, and how rows become types |
//! | `value` | how one value is read and written: sizes, times, addresses, words |
//! | `choice` | settings that are words, and the secret |
//! | `source` | which source wins; variables and flags |
//! | `file` | the TOML file |
//! | `check` | limits between settings |
//! | `suggest` | did you mean |
//! | `template` | settings as text |
//! | `error` | why a configuration was refused |

mod check;
mod choice;
mod error;
mod file;
mod settings;
mod source;
mod suggest;
mod table;
mod template;
mod value;

pub use choice::{
    Dialect, Durability, JwtAlgorithm, LogFormat, LogLevel, Secret, SubscriptionMode,
};
pub use error::{ConfigError, Origin, Problem, Shown};
pub use settings::{
    Auth, Buffer, Database, Delivery, Encryption, Http, SETTINGS, Server, Settings, Store, Tls,
    Wire,
};
pub use source::{FlagValue, Inputs};
pub use table::Setting;
pub use template::{show, template};
pub use value::{Rule, Value};

use source::Gathered;
use table::{Field, Fields};

/// The default of every setting as a person writes it, in the order of the table.
pub fn defaults() -> impl Iterator<Item = (&'static Setting, String)> {
    let values = Settings::default().values();
    SETTINGS.iter().zip(values).map(|(setting, value)| (setting, setting.rule.show(&value)))
}

impl Settings {
    /// Whether anything in them asks callers for a token. A list or a file that is blank does: whoever set
    /// it did not mean to let everybody in.
    #[must_use]
    pub fn asks_for_tokens(&self) -> bool {
        let Auth { tokens, tokens_file, jwt_enabled, .. } = &self.auth;
        self.server.token.is_set() || *jwt_enabled || !tokens.is_empty() || !tokens_file.is_empty()
    }
}

/// Settings that were accepted, with who gave each.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The settings.
    pub settings: Settings,
    /// Who gave each, in the order of the table.
    origins: Vec<Origin>,
}

/// One setting in effect.
#[derive(Clone, Debug)]
pub struct Entry<'a> {
    /// Its row of the table.
    pub setting: &'static Setting,
    /// Its value. A secret stands here as it is.
    pub value: Value,
    /// Who gave it.
    pub origin: &'a Origin,
}

impl Loaded {
    /// Every setting in effect, in the order of the table.
    pub fn entries(&self) -> impl Iterator<Item = Entry<'_>> {
        let given = self.settings.values().into_iter().zip(&self.origins);
        SETTINGS.iter().zip(given).map(|(setting, (value, origin))| Entry {
            setting,
            value,
            origin,
        })
    }
}

/// Reads all sources and decides every setting. Reads the configuration file and secret files, and
/// nothing else.
///
/// # Errors
/// [`ConfigError`] with every problem that was found; nothing is in effect then.
pub fn load(inputs: &Inputs) -> Result<Loaded, ConfigError> {
    let gathered = Gathered::from_inputs(inputs);
    let mut rows = Rows { table: SETTINGS.iter(), gathered, origins: Vec::new() };
    let settings = Settings::assemble(&mut rows);
    let Rows { gathered: Gathered { mut problems, .. }, origins, .. } = rows;
    let loaded = Loaded { settings, origins };
    // A default in place of a refused value could disagree with what the person wrote elsewhere.
    if problems.is_empty() {
        problems = check::problems(&loaded);
    }
    if problems.is_empty() { Ok(loaded) } else { Err(ConfigError { problems }) }
}

/// Walks the table beside `Settings::assemble`.
struct Rows {
    table: std::slice::Iter<'static, Setting>,
    gathered: Gathered,
    origins: Vec<Origin>,
}

impl Fields for Rows {
    fn next_field<T: Field>(&mut self, default: T) -> T {
        let row = self.table.next();
        let given =
            row.and_then(|setting| Some((setting, self.gathered.given.remove(setting.path)?)));
        let Some((setting, (value, origin))) = given else {
            self.origins.push(Origin::Default);
            return default;
        };
        self.origins.push(origin.clone());
        T::take(&value).unwrap_or_else(|| {
            // Within the limits of the table, but not of this machine's numbers.
            let text = setting.rule.show(&value);
            self.gathered.refuse(setting, &text, origin, "a number this machine can hold".into());
            default
        })
    }
}

#[cfg(test)]
mod tests;
