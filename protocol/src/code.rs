//! Error numbers that a peer may see. Stable, apart from any Rust error, never reused.
//!
//! In: a reason decided elsewhere. Out: a number, a name, whether the same request may be sent
//! again, and what the world looks like now. Grouped by hundreds: 1xx the protocol, 2xx the
//! input, 3xx the state it met, 4xx capacity, 5xx the server. The README shows the same table. 308 and
//! 403 were given once.

/// Declares the enum and its lookups from one table, so that they cannot drift apart.
macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident = $number:literal, $name:literal, $retry:ident, $outcome:ident;)*) => {
        /// Why a request, or one part of it, was not done.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u16)]
        pub enum Code {
            $($(#[$doc])* $variant = $number,)*
        }

        impl Code {
            /// Every code there is, by number.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The code with this number, if this version knows it.
            #[must_use]
            pub fn from_number(number: u16) -> Option<Self> {
                match number {
                    $($number => Some(Self::$variant),)*
                    _ => None,
                }
            }

            /// The name, as it stands in HTTP bodies and logs.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }

            /// Whether the same request may be sent again, unchanged, with hope. Where
            /// [`Self::outcome`] is [`Outcome::Unknown`], sending again may do it twice unless
            /// its messages carry transaction ids.
            #[must_use]
            pub fn is_retryable(self) -> bool {
                match self {
                    $(Self::$variant => matches!(Retry::$retry, Retry::Yes),)*
                }
            }

            /// What the world looks like after this error.
            #[must_use]
            pub fn outcome(self) -> Outcome {
                match self {
                    $(Self::$variant => Outcome::$outcome,)*
                }
            }
        }
    };
}

/// What became of a request that was answered with a code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Nothing of it was done and nothing will be.
    NotApplied,
    /// It may have been done, or may still be.
    Unknown,
}

/// Whether sending again can help; words for the table below.
enum Retry {
    No,
    Yes,
}

codes! {
    /// The stream of frames is out of step; the connection ends.
    BadFrame = 101, "bad_frame", No, NotApplied;
    /// A frame announces more bytes than the peer takes; the connection ends.
    FrameTooLarge = 102, "frame_too_large", No, NotApplied;
    /// No request has this opcode.
    UnknownOpcode = 103, "unknown_opcode", No, NotApplied;
    /// No protocol version that both peers speak.
    UnsupportedVersion = 104, "unsupported_version", No, NotApplied;
    /// The body does not follow its opcode's table.
    MalformedRequest = 105, "malformed_request", No, NotApplied;
    /// The first request of a connection must be a hello, and only the first.
    HelloRequired = 106, "hello_required", No, NotApplied;
    /// No token, or one that is not known.
    Unauthenticated = 107, "unauthenticated", No, NotApplied;
    /// The token does not allow this.
    Forbidden = 108, "forbidden", No, NotApplied;

    /// A name is too long, empty where it must not be, or has bytes that names may not have.
    BadName = 201, "bad_name", No, NotApplied;
    /// A record batch does not follow its format.
    BatchInvalid = 202, "batch_invalid", No, NotApplied;
    /// A record batch is larger than allowed.
    BatchTooLarge = 203, "batch_too_large", No, NotApplied;
    /// A message's payload is larger than allowed.
    MessageTooLarge = 204, "message_too_large", No, NotApplied;
    /// More records, items or messages than one request may carry.
    TooManyRecords = 205, "too_many_records", No, NotApplied;
    /// A batch's records are not what its checksum says; damaged on the way, so send it again.
    BadChecksum = 206, "bad_checksum", Yes, NotApplied;
    /// A batch version, compression or encryption that this server does not read.
    UnsupportedEncoding = 207, "unsupported_encoding", No, NotApplied;
    /// A queue option that does not exist, or a value that it cannot have.
    BadOption = 208, "bad_option", No, NotApplied;
    /// A field has a value outside its limits.
    BadValue = 209, "bad_value", No, NotApplied;
    /// A push to a process asks for something that there is not, or says it in the wrong way.
    BadControlValue = 210, "bad_control_value", No, NotApplied;
    /// A message for a process has a field or header that only the server writes.
    ReservedField = 211, "reserved_field", No, NotApplied;
    /// The code of a class does not compile, or there is no such code.
    ModuleInvalid = 212, "module_invalid", No, NotApplied;
    /// The class takes no messages in this form.
    CodecRejected = 213, "codec_rejected", No, NotApplied;

    /// The queue does not exist.
    QueueNotFound = 301, "queue_not_found", No, NotApplied;
    /// The partition does not exist.
    PartitionNotFound = 302, "partition_not_found", No, NotApplied;
    /// The queue was deleted while the request was on its way.
    QueueDeleted = 303, "queue_deleted", No, NotApplied;
    /// Nobody holds this lease: it was released, or never given.
    LeaseNotFound = 304, "lease_not_found", No, NotApplied;
    /// The lease ran out before the request came.
    LeaseExpired = 305, "lease_expired", No, NotApplied;
    /// The message does not exist, or not any more.
    MessageNotFound = 306, "message_not_found", No, NotApplied;
    /// The queue asks for encryption and the server has no key.
    EncryptionKeyMissing = 307, "encryption_key_missing", No, NotApplied;
    /// The queue has no such consumer group.
    GroupNotFound = 310, "group_not_found", No, NotApplied;
    /// The message is not in a state in which that can be done to it: no dead letter, or one for all
    /// groups already.
    MessageSettled = 311, "message_settled", No, NotApplied;
    /// There is no such job.
    JobNotFound = 312, "job_not_found", No, NotApplied;
    /// A transaction names messages that are settled already; perhaps by itself, sent before.
    AlreadySettled = 320, "already_settled", No, NotApplied;
    /// A transaction asked to fail on a message that was pushed before, and there is one.
    DuplicateMessage = 321, "duplicate_message", No, NotApplied;
    /// The query does not exist.
    QueryNotFound = 322, "query_not_found", No, NotApplied;
    /// The query exists with another chain of operators.
    QueryChanged = 323, "query_changed", No, NotApplied;
    /// The next message was sealed with a key that the server does not have now. It stays where it is;
    /// others may be had, and this one once the key is back.
    KeyNotHere = 340, "key_not_here", Yes, NotApplied;
    /// The next message does not open: it was changed, moved, or its key is another one. It stays where
    /// it is; others may be had.
    SealBroken = 341, "seal_broken", Yes, NotApplied;
    /// There is no such class.
    ClassNotFound = 350, "class_not_found", No, NotApplied;
    /// There is no such process.
    ProcessNotFound = 351, "process_not_found", No, NotApplied;
    /// The process has no such slot.
    SlotNotFound = 352, "slot_not_found", No, NotApplied;
    /// There is no such push.
    PushNotFound = 353, "push_not_found", No, NotApplied;
    /// There is nothing at this path of a result or a state.
    PathNotFound = 354, "path_not_found", No, NotApplied;
    /// The class or the process is not at the version that was named.
    VersionConflict = 355, "version_conflict", No, NotApplied;
    /// The process is stopped until somebody resumes it.
    ProcessStopped = 356, "process_stopped", No, NotApplied;
    /// The class takes no messages from this sender.
    NotAccepted = 357, "not_accepted", No, NotApplied;
    /// What the process was given is not all there any more, so it cannot be evaluated anew.
    NotReplayable = 358, "not_replayable", No, NotApplied;
    /// Nothing of the push is pending: there is nothing to call off.
    PushComplete = 360, "push_complete", No, NotApplied;

    /// The partition's ring is full; the message was not taken.
    RingFull = 401, "ring_full", Yes, NotApplied;
    /// The server has more to do than it can; nothing was taken.
    Busy = 402, "busy", Yes, NotApplied;
    /// The disk is full; nothing was written.
    DiskFull = 404, "disk_full", Yes, NotApplied;
    /// The queue or the token has used up what it may.
    QuotaExceeded = 405, "quota_exceeded", Yes, NotApplied;
    /// The queue holds as many messages that are not done as it may; nothing of the batch was taken.
    QueueFull = 410, "queue_full", Yes, NotApplied;
    /// The process has more messages waiting than clients may add to.
    BacklogFull = 411, "backlog_full", Yes, NotApplied;

    /// The store cannot be reached; nothing was done.
    Unavailable = 501, "unavailable", Yes, NotApplied;
    /// The store's answer was lost. Sending again is safe with transaction ids only.
    OutcomeUnknown = 502, "outcome_unknown", Yes, Unknown;
    /// An earlier write or sync failed; nothing is written until the server restarts.
    Poisoned = 503, "poisoned", No, NotApplied;
    /// The server is going away and takes nothing new.
    ShuttingDown = 504, "shutting_down", Yes, NotApplied;
    /// Time ran out while the request was under way. Sending again is safe with transaction ids
    /// only.
    TimedOut = 505, "timed_out", Yes, Unknown;
    /// A fault of the server.
    Internal = 506, "internal", No, Unknown;
}

impl Code {
    /// The number on the wire. 0 is no code: it stands for «done».
    #[must_use]
    pub const fn number(self) -> u16 {
        self as u16
    }
}

impl std::fmt::Display for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_keeps_its_number_and_name() {
        let pinned: &[(u16, &str)] = &[
            (101, "bad_frame"),
            (102, "frame_too_large"),
            (103, "unknown_opcode"),
            (104, "unsupported_version"),
            (105, "malformed_request"),
            (106, "hello_required"),
            (107, "unauthenticated"),
            (108, "forbidden"),
            (201, "bad_name"),
            (202, "batch_invalid"),
            (203, "batch_too_large"),
            (204, "message_too_large"),
            (205, "too_many_records"),
            (206, "bad_checksum"),
            (207, "unsupported_encoding"),
            (208, "bad_option"),
            (209, "bad_value"),
            (210, "bad_control_value"),
            (211, "reserved_field"),
            (212, "module_invalid"),
            (213, "codec_rejected"),
            (301, "queue_not_found"),
            (302, "partition_not_found"),
            (303, "queue_deleted"),
            (304, "lease_not_found"),
            (305, "lease_expired"),
            (306, "message_not_found"),
            (307, "encryption_key_missing"),
            (310, "group_not_found"),
            (311, "message_settled"),
            (312, "job_not_found"),
            (320, "already_settled"),
            (321, "duplicate_message"),
            (322, "query_not_found"),
            (323, "query_changed"),
            (340, "key_not_here"),
            (341, "seal_broken"),
            (350, "class_not_found"),
            (351, "process_not_found"),
            (352, "slot_not_found"),
            (353, "push_not_found"),
            (354, "path_not_found"),
            (355, "version_conflict"),
            (356, "process_stopped"),
            (357, "not_accepted"),
            (358, "not_replayable"),
            (360, "push_complete"),
            (401, "ring_full"),
            (402, "busy"),
            (404, "disk_full"),
            (405, "quota_exceeded"),
            (410, "queue_full"),
            (411, "backlog_full"),
            (501, "unavailable"),
            (502, "outcome_unknown"),
            (503, "poisoned"),
            (504, "shutting_down"),
            (505, "timed_out"),
            (506, "internal"),
        ];
        let found: Vec<(u16, &str)> =
            Code::ALL.iter().map(|code| (code.number(), code.name())).collect();
        assert_eq!(found, pinned);
    }

    #[test]
    fn every_number_finds_its_code_or_none() {
        let known = (0..=u16::MAX).filter_map(Code::from_number);
        assert_eq!(known.collect::<Vec<_>>(), Code::ALL);
        assert_eq!(Code::from_number(0), None, "0 stands for done");
    }

    #[test]
    fn only_capacity_the_server_a_damaged_batch_and_what_does_not_open_may_be_tried_again() {
        for code in Code::ALL {
            let by_hundreds = match code.number() / 100 {
                4 => true,
                5 => !matches!(code, Code::Poisoned | Code::Internal),
                3 => matches!(code, Code::KeyNotHere | Code::SealBroken),
                _ => *code == Code::BadChecksum,
            };
            assert_eq!(code.is_retryable(), by_hundreds, "{code}");
        }
    }

    #[test]
    fn the_outcome_is_unknown_only_where_an_answer_was_lost() {
        let unknown = Code::ALL.iter().filter(|code| code.outcome() == Outcome::Unknown);
        let wanted = [Code::OutcomeUnknown, Code::TimedOut, Code::Internal];
        assert_eq!(unknown.copied().collect::<Vec<_>>(), wanted);
    }
}
