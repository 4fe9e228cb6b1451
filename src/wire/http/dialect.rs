//! The two ways of saying the same: our own, and as the clients of Queen expect it.
//!
//! In: nothing. Out: [`Dialect`], which routes hand to whoever renders an answer or judges an input
//! that one dialect takes and the other refuses.

/// How an API answers.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Dialect {
    /// Objects with `pushed` and `messages`; statuses `pushed`, `duplicate`, `buffered`, `failed`.
    /// Input that cannot be meant is refused.
    #[default]
    Onrush,
    /// Arrays from push; status `queued`. Input that those clients' server overlooks is
    /// overlooked.
    Queen,
}

impl Dialect {
    /// Whether an input that cannot be meant is refused instead of overlooked.
    pub(super) fn is_strict(self) -> bool {
        self == Self::Onrush
    }
}
