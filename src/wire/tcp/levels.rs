//! Who may make which request of the binary protocol.
//!
//! In: a caller and the opcode of a request. Out: whether they may. The match names every opcode, so
//! that a new one cannot be served before somebody has decided who may use it. Pure. Called by
//! `connection`.

use onrush_protocol::opcode::Opcode;

use crate::wire::auth::role::{Level, Role};
use crate::wire::auth::{Auth, Caller, Denied};

/// Whether `caller` may make a request of this opcode now. One that is not known is told so by
/// whoever decodes it.
///
/// # Errors
/// [`Denied::Expired`] when the caller's token has ended or was taken back, [`Denied::Role`].
pub(super) fn check(auth: &Auth, caller: &mut Caller, opcode: u8) -> Result<(), Denied> {
    if auth.is_open() {
        return Ok(());
    }
    if !auth.is_current(caller) {
        return Err(Denied::Expired);
    }
    let level = Opcode::from_number(opcode).map_or(Level::Public, level);
    if level.allows(caller.role) { Ok(()) } else { Err(Denied::Role) }
}

fn level(opcode: Opcode) -> Level {
    match opcode {
        Opcode::Ping
        | Opcode::Stats
        | Opcode::ListGroups
        | Opcode::GroupLag
        | Opcode::ListMessages
        | Opcode::GetMessage
        | Opcode::ListLetters
        | Opcode::ListJobs
        | Opcode::ListQueues
        | Opcode::GetPush
        | Opcode::GetProcess => Level::AtLeast(Role::ReadOnly),
        Opcode::Push
        | Opcode::Pop
        | Opcode::Ack
        | Opcode::Extend
        | Opcode::Configure
        | Opcode::Seek
        | Opcode::Subscribe
        | Opcode::Transaction
        | Opcode::ChangeMessage
        | Opcode::BeginJob
        | Opcode::CancelJob
        | Opcode::PopKnown
        | Opcode::PopAny
        | Opcode::PushProcess
        | Opcode::PushSlot
        | Opcode::CancelPush
        | Opcode::ChangeProcess => Level::AtLeast(Role::ReadWrite),
        Opcode::DeleteQueue | Opcode::DeleteGroup | Opcode::ClearQueue => {
            Level::AtLeast(Role::Admin)
        }
        // A second hello and answers are refused for what they are.
        Opcode::Hello
        | Opcode::Welcome
        | Opcode::Pong
        | Opcode::Receipts
        | Opcode::Messages
        | Opcode::Acked
        | Opcode::Extended
        | Opcode::Configured
        | Opcode::Deleted
        | Opcode::StatsAnswer
        | Opcode::Sought
        | Opcode::GroupDeleted
        | Opcode::Groups
        | Opcode::GroupPartitions
        | Opcode::Subscribed
        | Opcode::Committed
        | Opcode::MessagePage
        | Opcode::MessageDetail
        | Opcode::MessageChanged
        | Opcode::LetterPage
        | Opcode::JobBegun
        | Opcode::Jobs
        | Opcode::JobCancelled
        | Opcode::KnownMessages
        | Opcode::Queues
        | Opcode::Cleared
        | Opcode::AnyMessages
        | Opcode::ProcessPushed
        | Opcode::SlotPushed
        | Opcode::PushShown
        | Opcode::PushCancelled
        | Opcode::ProcessShown
        | Opcode::ProcessChanged
        | Opcode::Failure => Level::Public,
    }
}
