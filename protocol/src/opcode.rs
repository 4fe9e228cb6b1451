//! The number of each request and answer. Numbers are forever: none is reused.
//!
//! In: the opcode byte of a frame. Out: [`Opcode`]. Requests are below 128; an answer has its
//! request's number with the highest bit set; [`Opcode::Failure`] answers any request.

/// Declares the enum and the list of all of it from one table.
macro_rules! opcodes {
    ($($variant:ident = $number:literal,)*) => {
        /// What a frame's body is.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        #[expect(
            missing_docs,
            reason = "each variant is the struct of the same name in request or response"
        )]
        pub enum Opcode {
            $($variant = $number,)*
        }

        impl Opcode {
            /// Every opcode there is, by number.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];
        }
    };
}

opcodes! {
    Hello = 1,
    Ping = 2,
    Push = 3,
    Pop = 4,
    Ack = 5,
    Extend = 6,
    Configure = 7,
    DeleteQueue = 8,
    Stats = 9,
    Seek = 10,
    DeleteGroup = 11,
    ListGroups = 12,
    GroupLag = 13,
    Subscribe = 14,
    PopKnown = 15,
    Transaction = 20,
    ListMessages = 30,
    GetMessage = 31,
    ChangeMessage = 32,
    ListLetters = 33,
    BeginJob = 34,
    ListJobs = 35,
    CancelJob = 36,
    ListQueues = 37,
    ClearQueue = 38,
    PopAny = 39,
    PushProcess = 40,
    PushSlot = 41,
    GetPush = 42,
    CancelPush = 43,
    GetProcess = 44,
    ChangeProcess = 45,
    Welcome = 129,
    Pong = 130,
    Receipts = 131,
    Messages = 132,
    Acked = 133,
    Extended = 134,
    Configured = 135,
    Deleted = 136,
    StatsAnswer = 137,
    Sought = 138,
    GroupDeleted = 139,
    Groups = 140,
    GroupPartitions = 141,
    Subscribed = 142,
    KnownMessages = 143,
    Committed = 148,
    MessagePage = 158,
    MessageDetail = 159,
    MessageChanged = 160,
    LetterPage = 161,
    JobBegun = 162,
    Jobs = 163,
    JobCancelled = 164,
    Queues = 165,
    Cleared = 166,
    AnyMessages = 167,
    ProcessPushed = 168,
    SlotPushed = 169,
    PushShown = 170,
    PushCancelled = 171,
    ProcessShown = 172,
    ProcessChanged = 173,
    Failure = 255,
}

impl Opcode {
    /// The number on the wire.
    #[must_use]
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// The opcode with this number, if there is one.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.iter().copied().find(|opcode| opcode.number() == number)
    }

    /// Whether a client sends it.
    #[must_use]
    pub const fn is_request(self) -> bool {
        self.number() < 128
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_opcode_keeps_its_number() {
        let numbers: Vec<u8> = Opcode::ALL.iter().map(|opcode| opcode.number()).collect();
        let requests = (1..=15).chain([20]).chain(30..=45);
        let answers = requests.clone().map(|request| request | 128);
        assert_eq!(numbers, requests.chain(answers).chain([255]).collect::<Vec<u8>>());
        let of = |opcode: Opcode| opcode.number();
        assert_eq!((of(Opcode::Push), of(Opcode::Receipts)), (3, 131));
        assert_eq!((of(Opcode::Pop), of(Opcode::Messages)), (4, 132));
        assert_eq!((of(Opcode::Ack), of(Opcode::Acked)), (5, 133));
    }

    #[test]
    fn every_number_finds_its_opcode_or_none() {
        let known = (0..=255).filter_map(Opcode::from_number);
        assert_eq!(known.collect::<Vec<_>>(), Opcode::ALL);
        assert!(Opcode::ALL.iter().all(|opcode| opcode.is_request() == (opcode.number() < 128)));
    }
}
