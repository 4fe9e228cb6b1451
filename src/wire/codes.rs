//! Which number a peer sees for each error of the rooms: the one place where errors become codes.
//!
//! In: an error of a room. Out: a [`Code`], which knows its name, whether sending again can help,
//! and what the world looks like now. Every match is exhaustive, so that a new error cannot reach a
//! peer before somebody has decided what it means to one. Called by both doors, TCP and HTTP; the
//! text beside the code is the error's own.

use onrush_protocol::batch::BatchError;
use onrush_protocol::code::Code;
use onrush_protocol::name::NameError;
use onrush_protocol::qos::Qos;

use crate::buffer::Full;
use crate::buffer::receipt::PushRefusal;
use crate::catalog::CatalogError;
use crate::delivery::PopError;
use crate::delivery::desk::DeskError;
use crate::delivery::groups::GroupError;
use crate::ingest::PushError;
use crate::log::{AppendError, ReadError};
use crate::process::ProcessError;
use crate::process::definition::DefinitionError;
use crate::sealing::{OpenError, SealError};
use crate::shard::command::CommandError;
use crate::shard::transaction::Refusal;
use crate::state::draft::DecideError;
use crate::state::draft::ack::AckRefusal;
use crate::transaction::TransactionError;
use crate::transaction::streams::StreamError;

/// A push that was not admitted.
#[must_use]
pub fn of_push_error(error: &PushError) -> Code {
    match error {
        PushError::Batch(error) => of_batch_error(error),
        PushError::Queue(error) => of_catalog_error(error),
        PushError::Seal(error) => of_seal_error(error),
        PushError::OwnHeader { .. } | PushError::OwnId { .. } => Code::ReservedField,
        PushError::QueueFull { .. } => Code::QueueFull,
        PushError::Full(full) => of_full(*full),
    }
}

/// A batch that could not be sealed.
#[must_use]
pub fn of_seal_error(error: &SealError) -> Code {
    match error {
        SealError::NoKey => Code::EncryptionKeyMissing,
        SealError::TooLarge { .. } => Code::BatchTooLarge,
        SealError::Failed => Code::Internal,
    }
}

/// A message that does not open.
#[must_use]
pub fn of_open_error(error: &OpenError) -> Code {
    match error {
        OpenError::NoKey(_) => Code::KeyNotHere,
        OpenError::Broken(_) | OpenError::Malformed(_) => Code::SealBroken,
    }
}

/// A push at `qos` that was not admitted. At a durable QoS the producer has waited for room in
/// vain, and then it is the server that is busy, whichever of its rings is full.
#[must_use]
pub fn of_push_error_at(error: &PushError, qos: Qos) -> Code {
    match error {
        PushError::Full(_) if qos.is_durable() => Code::Busy,
        PushError::Full(_)
        | PushError::QueueFull { .. }
        | PushError::Batch(_)
        | PushError::Queue(_)
        | PushError::OwnHeader { .. }
        | PushError::OwnId { .. }
        | PushError::Seal(_) => of_push_error(error),
    }
}

/// A push that was admitted and then not stored.
#[must_use]
pub fn of_push_refusal(refusal: &PushRefusal) -> Code {
    match refusal {
        PushRefusal::Decide(error) => of_decide_error(error),
        PushRefusal::Append(error) => of_append_error(error),
        PushRefusal::ShuttingDown => Code::ShuttingDown,
    }
}

/// No room.
#[must_use]
pub fn of_full(full: Full) -> Code {
    match full {
        Full::Ring { .. } => Code::RingFull,
        Full::Budget { .. } => Code::Busy,
    }
}

/// A batch that is no batch, or too large. The protocol knows its own codes.
#[must_use]
pub fn of_batch_error(error: &BatchError) -> Code {
    error.code()
}

/// A name that may not be one.
#[must_use]
pub fn of_name_error(error: &NameError) -> Code {
    error.code()
}

/// A command that was not carried out.
#[must_use]
pub fn of_command_error(error: &CommandError) -> Code {
    match error {
        CommandError::Decide(error) => of_decide_error(error),
        CommandError::Append(error) => of_append_error(error),
        CommandError::ShuttingDown => Code::ShuttingDown,
    }
}

/// A queue that could not be found, made, changed or deleted.
#[must_use]
pub fn of_catalog_error(error: &CatalogError) -> Code {
    match error {
        CatalogError::NotFound(_) => Code::QueueNotFound,
        CatalogError::Option { .. }
        | CatalogError::OfClass(_)
        | CatalogError::ClearClass
        | CatalogError::NoDatabase
        | CatalogError::SealedRows => Code::BadOption,
        CatalogError::NoEncryptionKey => Code::EncryptionKeyMissing,
        CatalogError::Command(error) => of_command_error(error),
    }
}

/// A consumer group that was not changed or not told of.
#[must_use]
pub fn of_group_error(error: &GroupError) -> Code {
    match error {
        GroupError::NoQueue(_) => Code::QueueNotFound,
        GroupError::NoGroup(_) => Code::GroupNotFound,
        GroupError::NoPartition => Code::PartitionNotFound,
        GroupError::Command(error) => of_command_error(error),
    }
}

/// Something about messages, dead letters or jobs that was not done.
#[must_use]
pub fn of_desk_error(error: &DeskError) -> Code {
    match error {
        DeskError::NoMessage => Code::MessageNotFound,
        DeskError::NotDead | DeskError::AllDone => Code::MessageSettled,
        DeskError::NoGroup => Code::GroupNotFound,
        DeskError::Held => Code::Busy,
        DeskError::NoJob => Code::JobNotFound,
        DeskError::TooManyJobs { .. } => Code::QuotaExceeded,
        DeskError::Queue(error) => of_catalog_error(error),
        DeskError::Command(error) => of_command_error(error),
    }
}

/// A pop that failed.
#[must_use]
pub fn of_pop_error(error: &PopError) -> Code {
    match error {
        PopError::Command(error) => of_command_error(error),
        PopError::Read(error) => of_read_error(error),
        PopError::Open { error, .. } => of_open_error(error),
        PopError::Settle(refusal) => of_ack_refusal(refusal),
    }
}

/// An acknowledgement that was refused.
#[must_use]
pub fn of_ack_refusal(refusal: &AckRefusal) -> Code {
    match refusal {
        AckRefusal::NoPartition(_) => Code::PartitionNotFound,
        AckRefusal::NoGroup(_) => Code::LeaseNotFound,
        AckRefusal::LeaseExpired => Code::LeaseExpired,
        AckRefusal::NoMessage { .. } => Code::MessageNotFound,
        AckRefusal::Settled { .. } => Code::AlreadySettled,
        AckRefusal::Decide(error) => of_decide_error(error),
    }
}

/// A transaction that does not stand.
#[must_use]
pub fn of_transaction_error(error: &TransactionError) -> Code {
    match error {
        TransactionError::Refused(refusal) => match refusal {
            Refusal::Lease(_) => Code::LeaseExpired,
            Refusal::Ack { refusal, .. } => of_ack_refusal(refusal),
            Refusal::NoPartition(_) => Code::PartitionNotFound,
            Refusal::NoQuery => Code::QueryNotFound,
            // Only processes count on tallies and take keys, and they decide again.
            Refusal::Tally { .. } | Refusal::NoKey(_) => Code::Internal,
            Refusal::States(error) => of_decide_error(error),
            Refusal::Append { error, .. } => of_decide_error(error),
            Refusal::Duplicate { .. } => Code::DuplicateMessage,
        },
        TransactionError::Push { error, .. } => of_push_error_at(error, Qos::ExactlyOnce),
        TransactionError::TooLarge { .. } => Code::TooManyRecords,
        TransactionError::Command(error) => of_command_error(error),
    }
}

/// Something about processes that was not done.
#[must_use]
pub fn of_process_error(error: &ProcessError) -> Code {
    match error {
        ProcessError::NoClass(_) => Code::ClassNotFound,
        ProcessError::NoProcess(_) => Code::ProcessNotFound,
        ProcessError::NoSlot(_) => Code::SlotNotFound,
        ProcessError::Evaluated(_) => Code::AlreadySettled,
        ProcessError::NotWhole(_) => Code::NotReplayable,
        ProcessError::NoPush(_) => Code::PushNotFound,
        ProcessError::NoPath(_) => Code::PathNotFound,
        ProcessError::Version(_) => Code::VersionConflict,
        ProcessError::Definition(error) => match error {
            DefinitionError::Malformed(_) => Code::MalformedRequest,
            DefinitionError::TooLarge { .. } => Code::MessageTooLarge,
            DefinitionError::Limit { .. } => Code::BadValue,
            DefinitionError::Module(_) => Code::ModuleInvalid,
        },
        ProcessError::Reserved(_) => Code::ReservedField,
        ProcessError::Control(_) => Code::BadControlValue,
        ProcessError::Malformed(_) => Code::MalformedRequest,
        ProcessError::NotAccepted(_) => Code::NotAccepted,
        ProcessError::Codec => Code::CodecRejected,
        ProcessError::Stopped(_) => Code::ProcessStopped,
        ProcessError::Complete(_) => Code::PushComplete,
        ProcessError::Backlog(_) => Code::BacklogFull,
        ProcessError::Push(error) => of_push_error_at(error, Qos::ExactlyOnce),
        ProcessError::Refused(refusal) => of_push_refusal(refusal),
        ProcessError::Catalog(error) => of_catalog_error(error),
        ProcessError::Command(error) => of_command_error(error),
    }
}

/// A query that was not registered, moved on or read.
#[must_use]
pub fn of_stream_error(error: &StreamError) -> Code {
    match error {
        StreamError::Length { .. } => Code::BadValue,
        StreamError::NoQuery => Code::QueryNotFound,
        StreamError::TooMuch => Code::BatchTooLarge,
        StreamError::Command(error) => of_command_error(error),
    }
}

/// Something that could not be decided; nothing changed.
#[must_use]
pub fn of_decide_error(error: &DecideError) -> Code {
    match error {
        // Rows can be rebuilt from the log and nothing was changed: to a peer this is a store
        // that cannot be reached now.
        DecideError::Kv(_) => Code::Unavailable,
        DecideError::BodyMissing { .. } => Code::Internal,
        DecideError::QueueGone => Code::QueueDeleted,
        DecideError::NotSealed => Code::EncryptionKeyMissing,
        DecideError::OwnName => Code::ReservedField,
        DecideError::NumbersExhausted => Code::QuotaExceeded,
        DecideError::QueueFull { .. } => Code::QueueFull,
        DecideError::Backlog { .. } => Code::BacklogFull,
        DecideError::OverLimit { .. } => Code::TooManyRecords,
    }
}

/// The log did not take an entry, or perhaps did.
#[must_use]
pub fn of_append_error(error: &AppendError) -> Code {
    match error {
        AppendError::DiskFull => Code::DiskFull,
        AppendError::Unavailable(_) => Code::Unavailable,
        AppendError::OutcomeUnknown => Code::OutcomeUnknown,
        AppendError::Poisoned(_) => Code::Poisoned,
        AppendError::TooLarge { .. } => Code::BatchTooLarge,
    }
}

/// Bytes that could not be read from the log.
#[must_use]
pub fn of_read_error(error: &ReadError) -> Code {
    match error {
        ReadError::TooOld(_) => Code::MessageNotFound,
        ReadError::PastEnd(_) | ReadError::Corrupt { .. } => Code::Internal,
        ReadError::Unavailable(_) => Code::Unavailable,
    }
}

#[cfg(test)]
mod tests {
    use onrush_protocol::code::Outcome;

    use super::*;
    use crate::state::kv::KvError;

    #[test]
    fn a_full_ring_is_ring_full_to_who_does_not_wait_and_busy_to_who_has_waited() {
        let full = PushError::Full(Full::Ring { messages_max: 1, bytes_max: 1 });
        assert_eq!(of_push_error(&full), Code::RingFull);
        assert_eq!(of_push_error_at(&full, Qos::Buffered), Code::RingFull);
        assert_eq!(of_push_error_at(&full, Qos::ExactlyOnce), Code::Busy);
        let missing = CatalogError::NotFound("q".parse().unwrap());
        let missing = PushError::Queue(missing);
        assert_eq!(of_push_error_at(&missing, Qos::ExactlyOnce), Code::QueueNotFound);
    }

    #[test]
    fn an_append_error_says_the_same_through_every_room() {
        for (error, code) in [
            (AppendError::DiskFull, Code::DiskFull),
            (AppendError::Unavailable("gone".into()), Code::Unavailable),
            (AppendError::OutcomeUnknown, Code::OutcomeUnknown),
            (AppendError::Poisoned("sync".into()), Code::Poisoned),
            (AppendError::TooLarge { bytes: 2, limit: 1 }, Code::BatchTooLarge),
        ] {
            let command = CommandError::Append(error.clone());
            assert_eq!(of_append_error(&error), code);
            assert_eq!(of_push_refusal(&PushRefusal::Append(error)), code);
            assert_eq!(of_command_error(&command), code);
            assert_eq!(of_pop_error(&PopError::Command(command.clone())), code);
            assert_eq!(of_catalog_error(&CatalogError::Command(command)), code);
        }
    }

    #[test]
    fn only_a_lost_answer_leaves_the_outcome_open_among_log_errors() {
        let sure = of_append_error(&AppendError::Unavailable(String::new()));
        assert_eq!(sure.outcome(), Outcome::NotApplied);
        let open = of_append_error(&AppendError::OutcomeUnknown);
        assert_eq!((open.outcome(), open.is_retryable()), (Outcome::Unknown, true));
        let kv = of_decide_error(&DecideError::Kv(KvError("io".into())));
        assert_eq!((kv.outcome(), kv.is_retryable()), (Outcome::NotApplied, true));
    }
}
