//! The sources of settings, laid over each other: file, then environment, then flags.
//!
//! In: [`Inputs`], everything outside the process that has a say, as plain values, so that tests need
//! neither a process nor a global environment. Out: per setting the value that wins and its origin,
//! and every problem on the way. A value that a later source replaces is still checked, except among
//! the several names of one variable, where only the most specific one is read. Called by
//! `config::load`.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use super::error::{Origin, Problem, Shown};
use super::file;
use super::settings::{SETTINGS, Settings};
use super::suggest::nearest;
use super::table::{PREFIX, Setting};
use super::value::{Rule, Value};

/// The variable that names the configuration file when the flag does not.
const CONFIG_VARIABLE: &str = "ONRUSH_CONFIG";
/// The setting that HOST and PORT each hold a half of.
const HTTP_ADDR: &str = "server.http_addr";
/// What a variable's name ends in when it holds the path of a secret.
const FILE_SUFFIX: &str = "_FILE";
/// A configuration of ours has some kilobytes; more is a wrong path.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// Everything outside the process that has a say in its settings.
#[derive(Clone, Debug, Default)]
pub struct Inputs {
    /// The file that the flag `--config` names.
    pub config_file: Option<PathBuf>,
    /// The environment.
    pub environment: Vec<(OsString, OsString)>,
    /// Settings given by flags, in the order of the command line.
    pub flags: Vec<FlagValue>,
}

/// A setting given by a flag.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct FlagValue {
    /// The flag with its dashes.
    pub flag: String,
    /// `section.key`.
    pub key: String,
    /// The value.
    pub value: String,
}

/// What the sources said, one laid over the other.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    /// The winning value of each setting that somebody gave, by its path.
    pub(super) given: BTreeMap<&'static str, (Value, Origin)>,
    /// What was wrong on the way.
    pub(super) problems: Vec<Problem>,
}

impl Gathered {
    /// Reads all sources, the weakest first.
    pub(super) fn from_inputs(inputs: &Inputs) -> Self {
        let mut gathered = Self::default();
        let environment: BTreeMap<String, &OsStr> = inputs
            .environment
            .iter()
            .map(|(name, value)| (name.to_string_lossy().into_owned(), value.as_os_str()))
            .collect();
        gathered.read_file(inputs.config_file.as_deref(), &environment);
        gathered.read_environment(&environment);
        gathered.read_flags(&inputs.flags);
        gathered
    }

    /// Lays a value over what the setting had, or notes why not.
    pub(super) fn offer(&mut self, setting: &'static Setting, text: &str, origin: Origin) {
        match setting.rule.read(text) {
            Some(value) => {
                self.given.insert(setting.path, (value, origin));
            }
            None => self.refuse(setting, text, origin, setting.rule.allowed()),
        }
    }

    /// Notes that a value is not allowed.
    pub(super) fn refuse(
        &mut self,
        setting: &Setting,
        text: &str,
        origin: Origin,
        allowed: String,
    ) {
        let given = Shown { key: setting.path.to_owned(), value: setting.redact(text), origin };
        self.problems.push(Problem::BadValue { given, allowed });
    }

    fn read_file(&mut self, flag: Option<&Path>, environment: &BTreeMap<String, &OsStr>) {
        let (path, origin) = match (flag, environment.get(CONFIG_VARIABLE)) {
            (Some(path), _) => (path.to_owned(), Origin::Flag { name: "--config".to_owned() }),
            (None, Some(path)) => {
                (PathBuf::from(path), Origin::Variable { name: CONFIG_VARIABLE.to_owned() })
            }
            (None, None) => return,
        };
        match read_text(&path, FILE_BYTES_MAX) {
            Ok(text) => file::read(&path, &text, self),
            Err(reason) => self.problems.push(Problem::Unreadable { path, origin, reason }),
        }
    }

    fn read_environment(&mut self, environment: &BTreeMap<String, &OsStr>) {
        let mut known = BTreeSet::from([CONFIG_VARIABLE.to_owned()]);
        for setting in SETTINGS {
            let names = setting.variables();
            // What other programs call it may be set and empty without a meaning for us.
            let first = names.iter().find(|name| {
                environment.get(*name).is_some_and(|value| is_ours(name) || !value.is_empty())
            });
            if setting.is_secret() {
                let file_names = names.iter().map(|name| format!("{name}{FILE_SUFFIX}"));
                let file = file_names.clone().find(|name| environment.contains_key(name));
                self.read_secret(setting, first, file.as_ref(), environment);
                known.extend(file_names);
            } else if let Some(name) = first {
                self.read_variable(setting, name, environment);
            }
            let named_by_us = first.is_some_and(|name| is_ours(name));
            if setting.path == HTTP_ADDR && !named_by_us {
                self.read_host_and_port(setting, environment);
            }
            known.extend(names);
        }
        let unknown = environment.keys().filter(|name| is_ours(name) && !known.contains(*name));
        self.problems.extend(unknown.map(|name| Problem::Unknown {
            name: name.clone(),
            origin: Origin::Variable { name: name.clone() },
            suggestion: nearest(name, known.iter().map(String::as_str)),
        }));
    }

    fn read_variable(
        &mut self,
        setting: &'static Setting,
        name: &str,
        environment: &BTreeMap<String, &OsStr>,
    ) {
        let origin = Origin::Variable { name: name.to_owned() };
        let Some(raw) = environment.get(name) else { return };
        match raw.to_str() {
            Some(text) => self.offer(setting, text, origin),
            None => self.refuse(setting, &raw.to_string_lossy(), origin, "UTF-8".to_owned()),
        }
    }

    /// A secret may stand in a variable, or in a file that a variable names, but not in both.
    fn read_secret(
        &mut self,
        setting: &'static Setting,
        plain: Option<&String>,
        file: Option<&String>,
        environment: &BTreeMap<String, &OsStr>,
    ) {
        match (plain, file) {
            (None, None) => {}
            (Some(name), None) => self.read_variable(setting, name, environment),
            (Some(name), Some(file_name)) => self.problems.push(Problem::GivenTwice {
                key: setting.path.to_owned(),
                first: Origin::Variable { name: name.clone() },
                second: Origin::Variable { name: file_name.clone() },
            }),
            (None, Some(variable)) => {
                let path = PathBuf::from(environment.get(variable).copied().unwrap_or_default());
                self.read_secret_file(setting, variable, path);
            }
        }
    }

    fn read_secret_file(&mut self, setting: &'static Setting, variable: &str, path: PathBuf) {
        let Rule::Secret { bytes_max } = setting.rule else { return };
        // Two bytes more for the end of the line that editors and `echo` leave behind.
        let read = read_text(&path, bytes_max.saturating_add(2) as u64);
        let origin = Origin::SecretFile { variable: variable.to_owned(), path: path.clone() };
        match read.as_deref().map(|text| text.trim_end_matches(['\r', '\n'])) {
            // An empty file is a secret that did not arrive: to take it would open the server.
            Ok("") => self.refuse(setting, "", origin, "a file that is not empty".to_owned()),
            Ok(text) => self.offer(setting, text, origin),
            Err(reason) => {
                let (origin, reason) =
                    (Origin::Variable { name: variable.to_owned() }, reason.clone());
                self.problems.push(Problem::Unreadable { path, origin, reason });
            }
        }
    }

    /// Each of the two variables replaces its half of the address that was there before.
    fn read_host_and_port(
        &mut self,
        setting: &'static Setting,
        environment: &BTreeMap<String, &OsStr>,
    ) {
        let mut address = match self.given.get(setting.path) {
            Some((Value::Address(address), _)) => *address,
            _ => Settings::default().server.http_addr,
        };
        let mut named = Vec::new();
        for name in ["HOST", "PORT"] {
            let Some(raw) = environment.get(name).filter(|value| !value.is_empty()) else {
                continue;
            };
            let text = raw.to_string_lossy();
            if replace_half(&mut address, name, &text) {
                named.push(name);
            } else {
                let allowed = match name {
                    "HOST" => "an IP address or localhost",
                    _ => "a port from 0 to 65535",
                };
                let origin = Origin::Variable { name: name.to_owned() };
                self.refuse(setting, &text, origin, allowed.to_owned());
            }
        }
        if !named.is_empty() {
            let origin = Origin::Variable { name: named.join(" and ") };
            self.given.insert(setting.path, (Value::Address(address), origin));
        }
    }

    fn read_flags(&mut self, flags: &[FlagValue]) {
        let mut seen: BTreeMap<&str, &str> = BTreeMap::new();
        for FlagValue { flag, key, value } in flags {
            let origin = Origin::Flag { name: flag.clone() };
            let Some(setting) = SETTINGS.iter().find(|setting| setting.path == key) else {
                let suggestion = nearest(key, SETTINGS.iter().map(|setting| setting.path));
                self.problems.push(Problem::Unknown { name: key.clone(), origin, suggestion });
                continue;
            };
            if let Some(first) = seen.insert(key, flag) {
                let first = Origin::Flag { name: first.to_owned() };
                self.problems.push(Problem::GivenTwice { key: key.clone(), first, second: origin });
                continue;
            }
            self.offer(setting, value, origin);
        }
    }
}

fn is_ours(variable: &str) -> bool {
    variable.starts_with(PREFIX)
}

/// Whether `text` is a host or port that now stands in `address`.
fn replace_half(address: &mut SocketAddr, name: &str, text: &str) -> bool {
    if name == "PORT" {
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        return text.parse().ok().filter(|_| digits).map(|port| address.set_port(port)).is_some();
    }
    let ip = match text {
        "localhost" => Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        _ => text.parse().ok(),
    };
    ip.map(|ip| address.set_ip(ip)).is_some()
}

/// Reads a text file of limited size; the error says why not.
fn read_text(path: &Path, bytes_max: u64) -> Result<String, String> {
    let file = std::fs::File::open(path).map_err(|error| error.to_string())?;
    let mut text = String::new();
    let read = file.take(bytes_max.saturating_add(1)).read_to_string(&mut text);
    match read {
        Ok(bytes) if bytes as u64 > bytes_max => Err(format!("larger than {bytes_max} bytes")),
        Ok(_) => Ok(text),
        Err(error) => Err(error.to_string()),
    }
}
