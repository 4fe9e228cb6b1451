//! Why a run could not be done at all. What goes wrong within a run is counted instead.
//!
//! In: arguments, the system, the server. Out: [`LoadError`], shown once by `main`.

/// A run that did not happen, or ended early.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadError {
    /// Nobody there, or nobody who wants us.
    #[error("cannot connect to {addr}: {reason}")]
    Connect {
        /// Where to.
        addr: String,
        /// What was said.
        reason: String,
    },
    /// An argument outside its limits.
    #[error("--{name} is {value}; {allowed}")]
    Argument {
        /// Which.
        name: &'static str,
        /// What it was.
        value: String,
        /// What it may be.
        allowed: String,
    },
    /// The system refused something that every run needs.
    #[error("{doing} failed: {reason}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// What the system said.
        reason: String,
    },
    /// The server refused something that every run needs.
    #[error(transparent)]
    Server(#[from] onrush_client::Error),
}

impl LoadError {
    /// For mapping errors of the system.
    pub(crate) fn io(doing: &'static str) -> impl Fn(std::io::Error) -> Self {
        move |error| Self::Io { doing, reason: error.to_string() }
    }
}
