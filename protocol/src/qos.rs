//! The three promises that a push may choose from.
//!
//! In: a byte of the wire or a number of an HTTP body. Out: [`Qos`]. It decides only when a
//! receipt is signed; every message walks the same corridor.

/// What the answer to a push means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Qos {
    /// The message is in a ring in memory and will be written soon. Lost when the process dies
    /// before that; duplicates are possible on retry.
    Buffered = 0,
    /// The message is durable. Never lost after the answer; a retry without a transaction id may
    /// store it twice.
    #[default]
    AtLeastOnce = 1,
    /// The message is durable and its transaction id was checked: never lost, never twice within
    /// the dedup horizon.
    ExactlyOnce = 2,
}

impl Qos {
    /// The number on the wire.
    #[must_use]
    pub fn number(self) -> u8 {
        self as u8
    }

    /// The promise with this number, if there is one.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Buffered),
            1 => Some(Self::AtLeastOnce),
            2 => Some(Self::ExactlyOnce),
            _ => None,
        }
    }

    /// Whether the answer may only be given once the message is durable.
    #[must_use]
    pub fn is_durable(self) -> bool {
        self != Self::Buffered
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_the_promises_are_0_1_and_2() {
        for (number, qos) in [Qos::Buffered, Qos::AtLeastOnce, Qos::ExactlyOnce].iter().enumerate()
        {
            assert_eq!(usize::from(qos.number()), number);
            assert_eq!(Qos::from_number(qos.number()), Some(*qos));
            assert_eq!(qos.is_durable(), number > 0);
        }
        assert!((3..=255).all(|number| Qos::from_number(number).is_none()));
    }
}
