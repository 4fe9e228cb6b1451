//! What an error of the database means for an append or a read.
//!
//! In: the client's errors. Out: the seam's. The one question that matters is whether the transaction
//! may stand. An answer of severity `ERROR` says that it does not; a broken connection, a deadline, or
//! a session that the server ended may come after the commit, so their outcome is unknown. Pure.

use tokio_postgres::error::{DbError, Severity, SqlState};

use crate::log::{AppendError, ReadError};

/// Why the log in the database was not opened. Nothing that was stored is changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// It could not be reached, or refused the session.
    #[error("the database is not usable: {0}")]
    Unreachable(String),
    /// A newer version of this program made the schema what it is.
    #[error("the schema was brought to step {found} by a newer version; this one knows {known}")]
    Newer {
        /// The last step applied.
        found: i32,
        /// The last step known.
        known: i32,
    },
    /// The server is too old.
    #[error("PostgreSQL {found} is too old: {needed} is the oldest that serves")]
    Server {
        /// Its major version.
        found: i32,
        /// The oldest that will do.
        needed: i32,
    },
    /// The schema could not be made or read.
    #[error("the schema could not be prepared: {0}")]
    Schema(String),
    /// What the schema holds makes no sense.
    #[error("the store in the schema is damaged: {0}")]
    Damaged(String),
    /// The schema holds another store than the one that was to be met again, or none.
    #[error("the schema does not hold the store that this machine knows")]
    Other,
    /// The system did not give what the log needs.
    #[error("starting the log's thread: {0}")]
    Thread(std::io::Error),
}

/// What a person can be told: the database's own words, without values.
pub(super) fn words(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(told) => format!("{} ({})", told.message(), told.code().code()),
        None => match std::error::Error::source(error) {
            Some(cause) => format!("{error}: {cause}"),
            None => error.to_string(),
        },
    }
}

/// The error of an append that was sent.
pub(super) fn of_append(error: &tokio_postgres::Error) -> AppendError {
    match error.as_db_error() {
        Some(told) if is_rolled_back(told) => match *told.code() {
            SqlState::DISK_FULL => AppendError::DiskFull,
            _ => AppendError::Unavailable(words(error)),
        },
        _ => AppendError::OutcomeUnknown,
    }
}

/// The error of whoever prepares the schema: a session that ended is a database that is away.
pub(super) fn of_schema(error: tokio_postgres::Error) -> OpenError {
    match error.as_db_error() {
        Some(told) if is_rolled_back(told) => OpenError::Schema(words(&error)),
        _ => OpenError::Unreachable(words(&error)),
    }
}

/// The error of a read.
pub(super) fn of_read(error: &tokio_postgres::Error) -> ReadError {
    ReadError::Unavailable(words(error))
}

/// Whether the server says that the transaction is undone. `FATAL` says that the session ends, which
/// may happen while a commit waits for a standby.
fn is_rolled_back(told: &DbError) -> bool {
    told.parsed_severity() == Some(Severity::Error)
}

/// Whether trying again to connect cannot help until somebody changes something.
pub(super) fn is_refusal(error: &tokio_postgres::Error) -> bool {
    let Some(code) = error.code() else { return false };
    [
        SqlState::INVALID_AUTHORIZATION_SPECIFICATION,
        SqlState::INVALID_PASSWORD,
        SqlState::INVALID_CATALOG_NAME,
        SqlState::INSUFFICIENT_PRIVILEGE,
    ]
    .contains(code)
}
