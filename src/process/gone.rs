//! A class goes, and with it messages that its processes have not evaluated: their cascades count them as
//! lost, or they would wait for them for ever.
//!
//! Messages are settled a page at a time, each with what its cascade counts, by one transaction: whoever is
//! evaluating them does so in vain, and none is counted twice. What comes in between the last look and the
//! end of the class is not counted. In: a class that is about to be deleted. Called by `class`.

use std::collections::HashMap;

use onrush_protocol::name::QueueName;

use crate::base::place::{PartitionNumber, QueueId};
use crate::process::incoming::Incoming;
use crate::process::keys::Address;
use crate::process::outgoing::count;
use crate::process::{Inner, ProcessError};
use crate::shard::groups::{PartitionStanding, SurveyPlace};
use crate::shard::transaction::StateChanges;
use crate::state::effect::Sequence;
use crate::state::tally::TallyChange;

/// Messages that are settled in one transaction.
const MESSAGES: u64 = 256;

impl Inner {
    /// Counts all that waits in processes of a class as lost.
    ///
    /// # Errors
    /// [`ProcessError::Command`]: what was counted by then stays counted.
    pub(super) async fn lose_all(
        &self,
        queue: QueueId,
        class: &QueueName,
    ) -> Result<(), ProcessError> {
        // Makes the room's group known, as far as it is not.
        let _ = self.pop(class, None, 0, 0).await;
        let mut from = SurveyPlace::default();
        loop {
            let page = self.lagging(queue, from).await?;
            for instance in page.partitions {
                self.lose_of(queue, instance).await?;
            }
            match page.next {
                Some(next) => from = next,
                None => return Ok(()),
            }
        }
    }

    async fn lose_of(
        &self,
        queue: QueueId,
        instance: PartitionStanding,
    ) -> Result<(), ProcessError> {
        let PartitionStanding { partition, name, next, end, .. } = instance;
        let mut from = next;
        while from < end {
            let to = end.min(from + MESSAGES);
            let messages = match self.read(queue, name.to_string(), partition, from, to).await {
                Ok(messages) => messages,
                Err(ProcessError::Command(error)) => return Err(error.into()),
                // What does not open does not say whose it is.
                Err(_) => Vec::new(),
            };
            let of_others = messages.iter().any(|message| !message.is_root());
            if of_others && !self.lose(partition, (from, to - 1), &messages).await? {
                // Some of them are settled by now.
                for message in &messages {
                    let seq = message.address.seq;
                    let one = std::slice::from_ref(message);
                    self.lose(partition, (seq, seq), one).await?;
                }
            }
            from = to;
        }
        Ok(())
    }

    /// Counts some messages as lost, if nobody has settled any of them.
    async fn lose(
        &self,
        partition: PartitionNumber,
        range: (Sequence, Sequence),
        messages: &[Incoming],
    ) -> Result<bool, ProcessError> {
        let mut lost: HashMap<Address, TallyChange> = HashMap::new();
        for message in messages.iter().filter(|message| !message.is_root()) {
            let change = lost.entry(message.root).or_default();
            (change.pending, change.lost) = (change.pending - 1, change.lost + 1);
        }
        let roots: Vec<Address> = lost.keys().copied().collect();
        let states: Vec<StateChanges> =
            lost.into_iter().map(|(root, change)| count(root, change)).collect();
        let is_settled = self.settle(partition, range, states).await?.is_ok();
        if is_settled {
            roots.iter().for_each(|root| self.board.tell(*root));
        }
        Ok(is_settled)
    }
}
