//! Why a configuration was refused: every problem at once, each with where it came from.
//!
//! In: what the other files of `config` found wrong. Out: a text that a person can act upon without
//! opening the manual: key, value, what is allowed, and the line, variable or flag. A secret's value
//! is never part of it. Shown by the binary, which then ends with code 2.

use std::fmt;
use std::path::PathBuf;

/// Who gave a value.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Origin {
    /// Nobody: the default of the table.
    Default,
    /// A configuration file.
    File {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
    /// A variable of the environment.
    Variable {
        /// Its name.
        name: String,
    },
    /// A file that a variable points at, for secrets.
    SecretFile {
        /// The name of the variable.
        variable: String,
        /// The file that it names.
        path: PathBuf,
    },
    /// A flag of the command line, with its dashes.
    Flag {
        /// The flag.
        name: String,
    },
}

impl fmt::Display for Origin {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => out.write_str("default"),
            Self::File { path, line } => write!(out, "{} line {line}", path.display()),
            Self::Variable { name } => write!(out, "variable {name}"),
            Self::SecretFile { variable, path } => {
                write!(out, "file {} named by variable {variable}", path.display())
            }
            Self::Flag { name } => write!(out, "flag {name}"),
        }
    }
}

/// A setting with its value and origin, as a problem shows it. A secret is redacted by whoever makes
/// one.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Shown {
    /// `section.key`.
    pub key: String,
    /// The value as text.
    pub value: String,
    /// Who gave it.
    pub origin: Origin,
}

impl fmt::Display for Shown {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} = {:?} ({})", self.key, self.value, self.origin)
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Problem {
    /// A key, section or variable that nobody knows.
    Unknown {
        /// What was written.
        name: String,
        /// Where.
        origin: Origin,
        /// A known name that is near.
        suggestion: Option<String>,
    },
    /// A value that its setting does not allow.
    BadValue {
        /// The setting and the value.
        given: Shown,
        /// What is allowed instead.
        allowed: String,
    },
    /// One source gives a setting twice, so nobody can tell which one was meant.
    GivenTwice {
        /// `section.key`.
        key: String,
        /// The first of them.
        first: Origin,
        /// The second of them.
        second: Origin,
    },
    /// Two settings that do not fit together.
    Conflict {
        /// The setting that is out of step.
        given: Shown,
        /// What it must be, to be read before `other`.
        rule: &'static str,
        /// The setting that it must agree with.
        other: Shown,
    },
    /// An address that other machines reach, and no token.
    InsecureBind {
        /// The address.
        given: Shown,
    },
    /// A file that cannot be read.
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Who named it.
        origin: Origin,
        /// Why.
        reason: String,
    },
    /// A file that is not TOML.
    Syntax {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What the parser says.
        reason: String,
    },
}

impl fmt::Display for Problem {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown { name, origin, suggestion } => {
                write!(out, "{name} is not known ({origin})")?;
                match suggestion {
                    Some(near) => write!(out, "; did you mean {near}?"),
                    None => Ok(()),
                }
            }
            Self::BadValue { given, allowed } => write!(out, "{given}: expected {allowed}"),
            Self::GivenTwice { key, first, second } => {
                write!(out, "{key} is given twice ({first}, and {second}); keep one")
            }
            Self::Conflict { given, rule, other } => write!(out, "{given} must be {rule} {other}"),
            Self::InsecureBind { given } => write!(
                out,
                "{given} can be reached from other machines, but nobody is asked for a token; set \
                 auth.tokens or auth.tokens_file (\"onrush token new\" makes tokens), \
                 auth.jwt_enabled, or server.token (variable ONRUSH_TOKEN or ONRUSH_TOKEN_FILE), \
                 or, to serve everyone who can connect, server.allow_insecure_bind = true"
            ),
            Self::Unreadable { path, origin, reason } => {
                write!(out, "cannot read {} ({origin}): {reason}", path.display())
            }
            Self::Syntax { path, line, reason } => {
                write!(out, "{} line {line}: {reason}", path.display())
            }
        }
    }
}

/// A configuration that was refused. Nothing was started. Trying again without a change is useless.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ConfigError {
    /// What is wrong, in the order in which it was found; never empty.
    pub problems: Vec<Problem>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("the configuration is refused")?;
        for problem in &self.problems {
            write!(out, "\n  {problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}
