//! What stands whole or not at all within a round: a transaction, an operator's order.
//!
//! In: how it is decided. Out: the same answer, with everything as it was where that is a refusal.
//! Called by `transactions` and `tend`.

use std::collections::BTreeSet;

use crate::shard::round::Round;

impl Round<'_> {
    /// Decides something; where it is refused, the round is as it was before. Drafts are taken back only
    /// where `may_be_undone`: whoever says no changes none before it is refused.
    pub(super) fn whole<T, E>(
        &mut self,
        may_be_undone: bool,
        decide: impl FnOnce(&mut Self) -> Result<T, E>,
    ) -> Result<T, E> {
        let (catalog, durability) = (self.catalog.len(), self.durability);
        let rooms = self.rooms.clone();
        self.marked = may_be_undone.then(BTreeSet::new);
        let decided = decide(self);
        for shard in self.marked.take().into_iter().flatten() {
            let Some(Some(draft)) = self.drafts.get_mut(usize::from(shard)) else { continue };
            match &decided {
                Ok(_) => draft.keep(),
                Err(_) => draft.undo(),
            }
        }
        if decided.is_err() {
            self.catalog.truncate(catalog);
            self.durability = durability;
            self.rooms = rooms;
        }
        decided
    }
}
