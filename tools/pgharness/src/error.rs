//! Why a test has no database, in words for whoever reads the failed test.

use std::path::PathBuf;

/// Why there is no cluster.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HarnessError {
    /// No server binaries were found.
    #[error(
        "no PostgreSQL server was found; set PG_BIN to a folder with `postgres` and `initdb`, \
         install a package (on Debian: postgresql-15), or run tools/fetch-postgres. Looked in: {looked}"
    )]
    NotFound {
        /// Where.
        looked: String,
    },
    /// We are root and there is nobody else to run the server as.
    #[error("PostgreSQL does not run as root, and neither `postgres` nor `nobody` is a user here")]
    NoOwner,
    /// A program of PostgreSQL failed.
    #[error("{program} failed: {output}")]
    Program {
        /// Its name.
        program: String,
        /// What it said.
        output: String,
    },
    /// The server did not become ready.
    #[error("the server did not become ready: {reason}; the end of its log:\n{log}")]
    NotReady {
        /// What was seen.
        reason: String,
        /// The last lines of its log.
        log: String,
    },
    /// The system failed.
    #[error("{action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

impl HarnessError {
    /// Adds what was tried to an error of the system.
    pub(crate) fn io(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }
}
