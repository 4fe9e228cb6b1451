//! How the database is reached and used: the URL, the schema's name, and every deadline.
//!
//! In: text from whoever configures. Out: checked values whose `Debug` and `Display` show no password.
//! Called by the server's composition and by every file that waits for the database.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::base::place::ShardCount;

/// How the log in a database is kept.
#[derive(Clone, Debug)]
pub struct PostgresConfig {
    /// Where the database is.
    pub database: Database,
    /// The schema that holds the store; made where it is missing. Several stores may share a database.
    pub schema: SchemaName,
    /// Shards of a new store; one that exists keeps its own.
    pub shards: ShardCount,
    /// Bytes of all entries of one append at most, up to 64 MiB. Default 64 MiB.
    pub append_bytes_max: u64,
    /// Bytes after which a piece of the log is closed; space comes back in pieces. Default 128 MiB.
    pub piece_bytes: u64,
    /// Memory for entries read lately, bytes. Default 16 MiB.
    pub cache_bytes: usize,
    /// How long making a connection may take. Default 1 s.
    pub connect_timeout: Duration,
    /// How long an append may take until its outcome is called unknown. Default 5 s; the server
    /// itself gives a statement up a little earlier, so that the outcome is mostly known.
    pub append_timeout: Duration,
    /// How long reading may take. Default 5 s.
    pub read_timeout: Duration,
    /// How long a statement waits for another engine's lock. Default 2 s.
    pub lock_timeout: Duration,
    /// How long opening waits for a database that does not answer yet. Default 10 s.
    pub open_patience: Duration,
    /// How long of that it tries again where connections are refused. Default 10 s.
    pub refused_patience: Duration,
    /// How often upkeep looks around. Default 1 s.
    pub upkeep_interval: Duration,
    /// How long a connection that may hold the lock of whoever sees to the log's space, or to rows, says
    /// nothing until the database ends it: more than any pause of upkeep. Default 10 s.
    pub idle_timeout: Duration,
}

impl PostgresConfig {
    /// The defaults, for a new store of that many shards.
    #[must_use]
    pub fn new(database: Database, shards: ShardCount) -> Self {
        Self {
            database,
            schema: SchemaName::default(),
            shards,
            append_bytes_max: 64 << 20,
            piece_bytes: 128 << 20,
            cache_bytes: 16 << 20,
            connect_timeout: Duration::from_secs(1),
            append_timeout: Duration::from_secs(5),
            read_timeout: Duration::from_secs(5),
            lock_timeout: Duration::from_secs(2),
            open_patience: Duration::from_secs(10),
            refused_patience: Duration::from_secs(10),
            upkeep_interval: Duration::from_secs(1),
            idle_timeout: Duration::from_secs(10),
        }
    }
}

/// How a connection is encrypted, in libpq's words.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum Encryption {
    /// `sslmode=disable`: never.
    Disable,
    /// `sslmode=prefer`: where the server offers it, whoever it is. The default, as everywhere.
    #[default]
    Prefer,
    /// `sslmode=require`: always, whoever the server is. Keeps listeners out, not impostors.
    Require,
    /// `sslmode=verify-ca`: always, with a certificate that an authority signed.
    VerifyCa(Roots),
    /// `sslmode=verify-full`: always, with a certificate of the very host.
    VerifyFull(Roots),
}

/// Which authorities are believed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Roots {
    /// Those of the system.
    System,
    /// Those in a PEM file: `sslrootcert=<path>`.
    File(PathBuf),
}

/// Where a database is and as whom it is used. Neither `Debug` nor `Display` shows the password.
#[derive(Clone)]
pub struct Database {
    settings: tokio_postgres::Config,
    encryption: Encryption,
}

/// Why a database URL was refused. The text never repeats the URL: it may hold a password.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum UrlError {
    /// It is no such URL.
    #[error("a database URL begins with postgresql:// or postgres://")]
    Scheme,
    /// It cannot be read.
    #[error("the database URL cannot be read: {0}")]
    Malformed(String),
    /// Nobody is named whom to ask.
    #[error("the database URL names no host")]
    NoHost,
    /// A second `@` stands before the parameters: most likely in a password, the rest of which would be
    /// taken for a host.
    #[error(
        "the database URL has more than one @: write %40 where it is part of a name or password"
    )]
    Ambiguous,
    /// A parameter is not known.
    #[error(
        "the database URL has a parameter that is not known, behind a ? (%3F where that is part of a \
         name); known are sslmode, sslrootcert, {known}"
    )]
    Unknown {
        /// Those that are.
        known: &'static str,
    },
    /// A parameter has a value that means nothing.
    #[error("{parameter} of the database URL is not one of: {allowed}")]
    Parameter {
        /// Its name.
        parameter: &'static str,
        /// What it may be.
        allowed: &'static str,
    },
}

/// Parameters that the client of the database takes.
const KNOWN: &str = "application_name, channel_binding, connect_timeout, dbname, host, hostaddr, keepalives, \
                     keepalives_idle, keepalives_interval, keepalives_retries, load_balance_hosts, options, \
                     password, port, sslnegotiation, target_session_attrs, tcp_user_timeout, user";

impl Database {
    /// Reads `postgresql://user:password@host:port/database?parameters`. Several hosts may stand
    /// with commas between; the one that takes writes is used. A socket's folder stands for a host
    /// with its slashes as `%2F`.
    ///
    /// # Errors
    /// [`UrlError`], which does not repeat the URL.
    pub fn parse(url: &str) -> Result<Self, UrlError> {
        if !url.starts_with("postgresql://") && !url.starts_with("postgres://") {
            return Err(UrlError::Scheme);
        }
        // A password may have a `?`; what comes behind the host has none that is not the parameters'.
        let host = url.find('@').map_or(0, |at| at + 1);
        let behind = url.get(host..).and_then(|rest| rest.find('?')).map(|at| host + at);
        let (place, query) = behind.map_or((url, ""), |at| url.split_at(at));
        let query = query.trim_start_matches('?');
        if place.matches('@').count() > 1 {
            return Err(UrlError::Ambiguous);
        }
        let (mut mode, mut root, mut rest) = (None, None, Vec::new());
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            match pair.split_once('=').unwrap_or((pair, "")) {
                ("sslmode", value) => mode = Some(value),
                ("sslrootcert", value) => root = Some(unescape(value)),
                (name, _) if KNOWN.split(", ").any(|known| known == name) => rest.push(pair),
                // Its name may be the rest of a password.
                _ => return Err(UrlError::Unknown { known: KNOWN }),
            }
        }
        let place =
            if rest.is_empty() { place.to_owned() } else { format!("{place}?{}", rest.join("&")) };
        let settings: tokio_postgres::Config =
            place.parse().map_err(|error| UrlError::Malformed(describe(&error)))?;
        Self::from_settings(settings, encryption(mode, root)?)
    }

    /// From the parts of a URL, each as it is; a host that is a path is a socket's folder.
    ///
    /// # Errors
    /// [`UrlError::NoHost`] without a host.
    pub fn from_parts(
        (host, port): (&str, u16),
        name: &str,
        (user, password): (&str, &str),
        encryption: Encryption,
    ) -> Result<Self, UrlError> {
        let mut settings = tokio_postgres::Config::new();
        if host.is_empty() {
            return Err(UrlError::NoHost);
        }
        settings.host(host).port(port).dbname(name).user(user);
        if !password.is_empty() {
            settings.password(password);
        }
        Self::from_settings(settings, encryption)
    }

    fn from_settings(
        mut settings: tokio_postgres::Config,
        encryption: Encryption,
    ) -> Result<Self, UrlError> {
        use tokio_postgres::config::{SslMode, TargetSessionAttrs};
        if settings.get_hosts().is_empty() && settings.get_hostaddrs().is_empty() {
            return Err(UrlError::NoHost);
        }
        if settings.get_user().is_none() {
            // Not whoever happens to run the server: the same URL means the same everywhere.
            settings.user("postgres");
        }
        if settings.get_application_name().is_none() {
            settings.application_name("onrush");
        }
        settings.ssl_mode(match encryption {
            Encryption::Disable => SslMode::Disable,
            Encryption::Prefer => SslMode::Prefer,
            _ => SslMode::Require,
        });
        // A standby takes no appends; of several hosts the one that does is meant.
        settings.target_session_attrs(TargetSessionAttrs::ReadWrite);
        settings.keepalives(true).keepalives_idle(Duration::from_secs(2));
        settings.keepalives_interval(Duration::from_secs(1)).keepalives_retries(3);
        settings.tcp_user_timeout(Duration::from_secs(5));
        Ok(Self { settings, encryption })
    }

    pub(super) fn settings(&self) -> &tokio_postgres::Config {
        &self.settings
    }

    /// How connections are encrypted.
    #[must_use]
    pub fn encryption(&self) -> &Encryption {
        &self.encryption
    }
}

impl fmt::Display for Database {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        use tokio_postgres::config::Host;
        let ports = self.settings.get_ports();
        for (index, host) in self.settings.get_hosts().iter().enumerate() {
            let port = ports.get(index).or(ports.first()).copied().unwrap_or(5432);
            let comma = if index > 0 { "," } else { "" };
            match host {
                Host::Tcp(name) => write!(out, "{comma}{name}:{port}")?,
                Host::Unix(folder) => write!(out, "{comma}{}:{port}", folder.display())?,
            }
        }
        let user = self.settings.get_user().unwrap_or_default();
        write!(out, "/{}", self.settings.get_dbname().unwrap_or(user))
    }
}

impl fmt::Debug for Database {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Database({self})")
    }
}

fn encryption(mode: Option<&str>, root: Option<String>) -> Result<Encryption, UrlError> {
    let roots = match root.as_deref() {
        None | Some("system") => Roots::System,
        Some(path) => Roots::File(PathBuf::from(path)),
    };
    Ok(match mode {
        None => Encryption::default(),
        Some("disable") => Encryption::Disable,
        Some("allow" | "prefer") => Encryption::Prefer,
        Some("require") => Encryption::Require,
        Some("verify-ca") => Encryption::VerifyCa(roots),
        Some("verify-full") => Encryption::VerifyFull(roots),
        Some(_) => {
            let allowed = "disable, prefer, require, verify-ca, verify-full";
            return Err(UrlError::Parameter { parameter: "sslmode", allowed });
        }
    })
}

/// The client's words with their cause, which never repeats values.
fn describe(error: &tokio_postgres::Error) -> String {
    match std::error::Error::source(error) {
        Some(cause) => cause.to_string(),
        None => error.to_string(),
    }
}

/// `%2F` and its like.
fn unescape(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let hex = after.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        match (first, hex.and_then(|digits| u8::from_str_radix(digits, 16).ok())) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = after.get(2..).unwrap_or_default();
            }
            _ => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Name of a schema: 1 to 48 bytes of `a-z 0-9 _`, no digit first. Holding one is proof that it was
/// checked: it stands in SQL where no parameter can.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SchemaName(String);

/// Why a schema's name was refused.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error(
    "a schema's name has 1 to 48 characters of a-z, 0-9 and _, and does not begin with a digit"
)]
pub struct SchemaNameError;

impl SchemaName {
    /// Checks a name.
    ///
    /// # Errors
    /// [`SchemaNameError`] says what a name looks like.
    pub fn parse(name: &str) -> Result<Self, SchemaNameError> {
        let is_ours = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
        let begins = name.bytes().next().is_some_and(|byte| !byte.is_ascii_digit());
        let is_system = name.starts_with("pg_") || name == "information_schema";
        if !begins || is_system || name.len() > 48 || !name.bytes().all(is_ours) {
            return Err(SchemaNameError);
        }
        Ok(Self(name.to_owned()))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for SchemaName {
    fn default() -> Self {
        Self("onrush".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str) -> Database {
        Database::parse(url).unwrap_or_else(|error| panic!("{url}: {error}"))
    }

    #[test]
    fn a_password_shows_nowhere() {
        let database = parse("postgresql://me:s3cr3t@db.example.org:6543/app?sslmode=require");
        assert_eq!(database.to_string(), "db.example.org:6543/app");
        let config = PostgresConfig::new(database, ShardCount::new(4).unwrap());
        assert!(!format!("{config:?}").contains("s3cr3t"));
        for url in [
            "mysql://me:s3cr3t@h/d",
            "postgresql://me:s3cr3t@h:port/d",
            "postgresql://me:s3cr3t@h/d?sslmode=maybe",
            "postgresql://me:s3cr3t@h/d?wrong=1",
            "postgresql://me:s3cr3t@/d",
            "postgresql://me:pa@s3cr3t@h/d",
            "postgresql://me:pa/x@s3cr3t@h/d",
            "postgresql://me:pa@h?s3cr3t=1@h/d",
            "postgresql://me:pa@h/d?s3cr3t",
            "postgresql://me@h/d?password=s3cr3t&port=s3cr3t",
        ] {
            let refused = Database::parse(url).unwrap_err();
            assert!(!format!("{refused} {refused:?}").contains("s3cr3t"), "{refused:?}");
        }
    }

    #[test]
    fn a_password_with_letters_of_a_url_is_taken_whole_or_refused() {
        for (url, password) in [
            ("postgresql://me:p?s/s@h/d?sslmode=disable", "p?s/s"),
            ("postgresql://me:p%40s%3Fx=1@h/d", "p@s?x=1"),
        ] {
            let database = parse(url);
            assert_eq!(database.settings().get_password(), Some(password.as_bytes()), "{url}");
            assert_eq!(database.to_string(), "h:5432/d", "{url}");
        }
        let refused = |url| Database::parse(url).unwrap_err();
        assert_eq!(refused("postgresql://me:p@ss@h/d"), UrlError::Ambiguous);
        assert!(matches!(refused("postgresql://me:p@h/d?ssl_mode=on"), UrlError::Unknown { .. }));
    }

    #[test]
    fn the_words_of_libpq_choose_the_encryption() {
        assert_eq!(*parse("postgres://h/d").encryption(), Encryption::Prefer);
        assert_eq!(*parse("postgres://h/d?sslmode=disable").encryption(), Encryption::Disable);
        let full = parse("postgres://h/d?sslmode=verify-full&connect_timeout=3");
        assert_eq!(*full.encryption(), Encryption::VerifyFull(Roots::System));
        let ca = parse("postgres://h/d?sslrootcert=%2Fetc%2Fca.pem&sslmode=verify-ca");
        let file = Roots::File(PathBuf::from("/etc/ca.pem"));
        assert_eq!(*ca.encryption(), Encryption::VerifyCa(file));
    }

    #[test]
    fn sockets_and_several_hosts_are_shown_as_they_are_meant() {
        assert_eq!(parse("postgres://%2Frun%2Fpg:5433/d").to_string(), "/run/pg:5433/d");
        assert_eq!(parse("postgres://a,b:6000/d").to_string(), "a:5432,b:6000/d");
    }

    #[test]
    fn parts_mean_what_a_url_means() {
        let system = Encryption::VerifyFull(Roots::System);
        let parts = Database::from_parts(("h", 6000), "d", ("u", "s3cr3t"), system.clone());
        let parts = parts.unwrap();
        let url = parse("postgres://u:s3cr3t@h:6000/d?sslmode=verify-full");
        assert_eq!(parts.settings(), url.settings());
        assert_eq!(parts.encryption(), &system);
        let socket = Database::from_parts(("/run/pg", 1), "d", ("u", ""), Encryption::Disable);
        assert_eq!(socket.unwrap().to_string(), "/run/pg:1/d");
        let nowhere = Database::from_parts(("", 1), "d", ("u", ""), Encryption::Disable);
        assert_eq!(nowhere.unwrap_err(), UrlError::NoHost);
    }

    #[test]
    fn a_schema_name_can_stand_in_sql() {
        assert!(SchemaName::parse("onrush_2").is_ok());
        let long = "a".repeat(49);
        for wrong in ["", "2a", "a-b", "A", "a\"b", "pg_x", "information_schema", &long] {
            assert_eq!(SchemaName::parse(wrong), Err(SchemaNameError), "{wrong}");
        }
    }
}
