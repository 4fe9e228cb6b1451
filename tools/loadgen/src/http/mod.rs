//! The same runs over HTTP/1.1.
use crate::error::LoadError;
use crate::report::Findings;
use crate::run::Run;
pub(crate) fn push(_: &Run<'_>) -> Result<Findings, LoadError> {
    Err(LoadError::Io { doing: "http", reason: "to come".into() })
}
pub(crate) fn pop(_: &Run<'_>) -> Result<Findings, LoadError> {
    Err(LoadError::Io { doing: "http", reason: "to come".into() })
}
pub(crate) fn set_up(_: &Run<'_>) -> Result<(), LoadError> {
    Ok(())
}
pub(crate) fn tear_down(_: &Run<'_>) -> Result<(), LoadError> {
    Ok(())
}
