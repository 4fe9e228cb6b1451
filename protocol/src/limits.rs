//! Limits that both ends of a connection must agree on, each with its unit and its reason.
//!
//! In: nothing. Out: constants. Read by every decoder of this crate and by the server's
//! admission. A server may announce smaller sizes in its welcome, and larger frames never.

/// Bytes of a frame's header: length, opcode, flags, reserved, request id.
pub const FRAME_HEADER_BYTES: usize = 16;

/// What a frame's length field counts besides the body: the header after the field itself.
pub const FRAME_LENGTH_MIN: usize = FRAME_HEADER_BYTES - 4;

/// Largest value of a frame's length field, in bytes. Two full batches fit, so that a push may
/// always carry a batch of the largest size beside others.
pub const FRAME_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Bytes of a record batch's header.
pub const BATCH_HEADER_BYTES: usize = 16;

/// Largest record batch in bytes, header included; no record can be larger than its batch.
/// Pushes aim at half of it.
pub const BATCH_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Default for the largest payload of one message, in bytes. A server may allow up to what a
/// batch holds.
pub const MESSAGE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Most records in one batch.
pub const RECORDS_MAX: u32 = 1_000_000;

/// Fewest bytes that a record takes: its length field and its flags, around an empty payload.
pub const RECORD_BYTES_MIN: usize = 5;

/// Longest transaction id in bytes; its length field is one byte.
pub const TRANSACTION_ID_BYTES_MAX: usize = 255;

/// Largest header section of one record, in bytes; its length field is two bytes.
pub const RECORD_HEADERS_BYTES_MAX: usize = u16::MAX as usize;

/// Longest queue, partition or group name in bytes; the length field is one byte.
pub const NAME_BYTES_MAX: usize = 255;

/// Longest text behind a two-byte length, in bytes: error texts that a person will read.
pub const LONG_TEXT_BYTES_MAX: usize = 4096;

/// Longest token of a hello, in bytes.
pub const TOKEN_BYTES_MAX: usize = 4096;

/// Most messages that one pop may ask for.
pub const POP_MESSAGES_MAX: u32 = 10_000;

/// Most items in one ack. An item takes 23 bytes on the wire and about three times that in
/// memory, so this bounds what one frame can make a server allocate.
pub const ACK_ITEMS_MAX: u32 = 100_000;

/// Most groups in one answer about groups.
pub const GROUPS_PER_ANSWER_MAX: u32 = 1_000;

/// Most partitions in one answer about a group's partitions.
pub const PARTITIONS_PER_ANSWER_MAX: u32 = 10_000;

/// Most messages, and most dead letters, that one page may ask for.
pub const PAGE_ITEMS_MAX: u32 = 1_000;

/// Most messages that a page may leave out before it begins; older ones are found by their time.
pub const MESSAGES_SKIP_MAX: u32 = 100_000;

/// Most dead letters that a page may leave out before it begins; older ones are found by their time.
pub const LETTERS_SKIP_MAX: u32 = 1_000_000;

/// Longest text that a job looks for in the errors of dead letters, in bytes.
pub const JOB_ERROR_BYTES_MAX: usize = 1_024;

/// Most dead letters a second that a job can be told to move.
pub const JOB_RATE_MAX: u32 = 1_000_000;

/// Most jobs in one answer about jobs; a server remembers fewer.
pub const JOBS_PER_ANSWER_MAX: u32 = 10_000;

/// Longest that a request about processes may wait, in milliseconds: ten minutes.
pub const PROCESS_WAIT_MS_MAX: u32 = 600_000;

/// Most leases, most acks and most sections of one transaction.
pub const TRANSACTION_PARTS_MAX: u32 = 10_000;

/// Largest sequence number: 42 bits, because the message id has room for no more.
pub const SEQUENCE_MAX: u64 = (1 << 42) - 1;

/// Latest time that a message id can hold: 48 bits of milliseconds since 1970, the year 10889.
pub const TIME_MS_MAX: u64 = (1 << 48) - 1;

// A batch of the largest size must fit a frame with room for names and fields.
const _: () = assert!(2 * BATCH_BYTES_MAX <= FRAME_BYTES_MAX);
const _: () = assert!(MESSAGE_BYTES_MAX + 64 * 1024 + BATCH_HEADER_BYTES <= BATCH_BYTES_MAX);
// The smallest records must be able to reach the count limit, or one of the two never matters.
const _: () = assert!(RECORDS_MAX as usize * RECORD_BYTES_MIN < BATCH_BYTES_MAX);
const _: () = assert!(FRAME_BYTES_MAX <= u32::MAX as usize);
const _: () = assert!(NAME_BYTES_MAX <= u8::MAX as usize);
const _: () = assert!(TRANSACTION_ID_BYTES_MAX <= u8::MAX as usize);
const _: () = assert!(LONG_TEXT_BYTES_MAX <= u16::MAX as usize);
const _: () = assert!(TOKEN_BYTES_MAX <= u16::MAX as usize);
