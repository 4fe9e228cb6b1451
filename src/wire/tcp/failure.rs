//! Room errors as failures of the binary protocol: code, blamed field, limit, and when to retry.

use onrush_protocol::DecodeError;
use onrush_protocol::batch::BatchError;
use onrush_protocol::code::Code;
use onrush_protocol::frame::FrameError;
use onrush_protocol::name::NameError;
use onrush_protocol::qos::Qos;
use onrush_protocol::response::Failure;

use crate::buffer::Full;
use crate::buffer::receipt::PushRefusal;
use crate::catalog::CatalogError;
use crate::ingest::PushError;
use crate::sealing::SealError;
use crate::wire::codes;

/// When a client should come back to a server that had no room.
const RETRY_AFTER_MS: u32 = 50;

fn failure(code: Code, error: &dyn std::fmt::Display) -> Failure {
    let failure = Failure::new(code, &error.to_string());
    if code.is_retryable() { failure.retry_after(RETRY_AFTER_MS) } else { failure }
}

/// Any room error that blames no field.
pub(super) fn plain(code: Code, error: &dyn std::fmt::Display) -> Failure {
    failure(code, error)
}

pub(super) fn frame(error: &FrameError) -> Failure {
    failure(error.code(), error).blaming(error.field(), error.limit())
}

pub(super) fn decode(error: &DecodeError) -> Failure {
    failure(error.code(), error).blaming(error.field(), error.limit())
}

pub(super) fn name(error: &NameError) -> Failure {
    failure(error.code(), error).blaming(error.field(), error.limit())
}

fn batch(error: &BatchError) -> Failure {
    failure(error.code(), error).blaming(error.field(), error.limit())
}

pub(super) fn push(error: &PushError, qos: Qos) -> Failure {
    let code = codes::of_push_error_at(error, qos);
    match error {
        PushError::Batch(error) => batch(error),
        PushError::Queue(error) => catalog(error),
        PushError::Seal(SealError::NoKey) => failure(code, error).blaming("encryptionEnabled", 0),
        PushError::Seal(SealError::TooLarge { limit, .. }) => {
            failure(code, error).blaming("batch", *limit as u64)
        }
        PushError::Seal(SealError::Failed) => failure(code, error),
        PushError::Full(Full::Ring { messages_max, .. }) => {
            failure(code, error).blaming("ring", u64::from(*messages_max))
        }
        PushError::OwnHeader { .. } => failure(code, error).blaming("headers", 0),
        PushError::OwnId { .. } => failure(code, error).blaming("transaction_id", 0),
        PushError::QueueFull { limit } => failure(code, error).blaming("max_size", *limit),
        PushError::Full(Full::Budget { limit }) => failure(code, error).blaming("budget", *limit),
    }
}

pub(super) fn refusal(refusal: &PushRefusal) -> Failure {
    failure(codes::of_push_refusal(refusal), refusal)
}

pub(super) fn catalog(error: &CatalogError) -> Failure {
    let failure = failure(codes::of_catalog_error(error), error);
    match error {
        CatalogError::NotFound(_) => failure.blaming("queue", 0),
        CatalogError::Option { field, limit, .. } => failure.blaming(field, *limit),
        CatalogError::NoEncryptionKey => failure.blaming("encryptionEnabled", 0),
        CatalogError::OfClass(setting) => failure.blaming(setting, 0),
        CatalogError::ClearClass => failure.blaming("encryptionEnabled", 0),
        CatalogError::SealedRows => failure.blaming("sqlRows", 0),
        CatalogError::NoDatabase => failure.blaming("sqlRows", 0),
        CatalogError::Command(_) => failure,
    }
}
