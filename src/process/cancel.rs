//! Calling a push off: what is not evaluated yet of it never is.
//!
//! Messages that other processes were sent find out when their turn comes, because their steps count on
//! the tally of their cascade. The first message counts on nothing as long as it is alone, which most are;
//! so it is settled here, with its record, by the very transaction that calls its push off. Whoever is
//! evaluating it at that moment settles it in vain, and nothing of that stands. In: a push. Out: how it
//! stands then. Called by `wire`.

use onrush_protocol::name::{PartitionName, QueueName};
use tokio::sync::oneshot;

use crate::base::place::PartitionNumber;
use crate::process::commit::group;
use crate::process::control::changes;
use crate::process::incoming::Incoming;
use crate::process::keys::{RESULTS, slot_key};
use crate::process::lot::Lot;
use crate::process::outgoing::count;
use crate::process::step::Step;
use crate::process::target;
use crate::process::tree::Standing;
use crate::process::{Inner, ProcessError, Processes};
use crate::shard::command::{Command, CommandError};
use crate::shard::transaction::{
    Committed, OnDuplicate, Reach, Refusal, StateChanges, Transaction, TransactionAck,
};
use crate::state::draft::ack::{AckItem, AckRefusal, Verdict};
use crate::state::draft::transaction::StateOp;
use crate::state::effect::Sequence;
use crate::state::tally::TallyChange;

/// How often it is tried while others change how the push stands.
const TRIES: u32 = 8;

impl Processes {
    /// Calls a push off: messages of it that are not evaluated yet never are. What was committed stays.
    /// Answers when that is durable.
    ///
    /// # Errors
    /// [`ProcessError::NoPush`]; [`ProcessError::Complete`] where nothing is left to call off;
    /// [`ProcessError::Command`].
    pub async fn cancel(&self, push: &str) -> Result<Standing, ProcessError> {
        let mut standing = self.standing(push).await?;
        let root = standing.root;
        for _ in 0..TRIES {
            match (standing.is_complete(), standing.status() == "cancelled") {
                (true, true) => return Ok(standing),
                (true, false) => return Err(ProcessError::Complete(root.id())),
                (false, _) => {}
            }
            let is_done = match standing.slot {
                Some(_) => self.inner.call_off_rest(&standing).await.map(|()| true)?,
                None => self.inner.call_off_first(&standing).await?,
            };
            standing = self.inner.standing(root).await?;
            if is_done {
                return Ok(standing);
            }
        }
        Err(CommandError::ShuttingDown.into())
    }
}

impl Inner {
    /// Lets messages that follow the first one not be evaluated.
    async fn call_off_rest(&self, standing: &Standing) -> Result<(), ProcessError> {
        let root = standing.root;
        let change = TallyChange { cancel: true, ..TallyChange::default() };
        let step = Step { states: vec![count(root, change)], roots: vec![root], ..Step::default() };
        self.carry_out(&step).await.map(|_| ())
    }

    /// Settles the first message, which nobody has evaluated; returns whether that is so still.
    async fn call_off_first(&self, standing: &Standing) -> Result<bool, ProcessError> {
        let root = standing.root;
        let gone = || ProcessError::NoPush(root.id());
        let (class, key) = target::split(&standing.process).ok_or_else(gone)?;
        let queue = self.catalogs.find(&class).ok_or_else(gone)?;
        let (name, end) = (key.as_str().to_owned(), root.seq + 1);
        let messages = self.read(queue.id, name, root.partition, root.seq, end).await?;
        let is_push = |it: &&Incoming| it.is_root() && !it.envelope.resets;
        let message = messages.first().filter(is_push).ok_or_else(gone)?;
        let job = self.job(queue.id, root.partition, key.clone()).ok_or_else(gone)?;
        let value = serde_json::to_vec(&job.called_off(message)).unwrap_or_default().into();
        let record = StateOp::Put { key: slot_key(root.seq), value };
        let change = TallyChange { cancel: true, messages: 1, ..TallyChange::default() };
        let states = vec![changes(RESULTS, root.partition, vec![record]), count(root, change)];
        match self.settle(root.partition, (root.seq, root.seq), states).await? {
            Ok(_) => {
                self.board.tell(root);
                Ok(true)
            }
            Err(Refusal::Ack { refusal: AckRefusal::NoGroup(_), .. }) => {
                self.begin_group(&class, key).await;
                Ok(false)
            }
            Err(_) => Ok(false),
        }
    }

    /// Settles messages that nobody has evaluated, all of them, whoever holds them; and changes state keys
    /// with that.
    ///
    /// # Errors
    /// When it was not carried out, or perhaps was.
    pub(super) async fn settle(
        &self,
        partition: PartitionNumber,
        (first, last): (Sequence, Sequence),
        states: Vec<StateChanges>,
    ) -> Result<Result<Committed, Refusal>, CommandError> {
        let (verdict, error) = (Verdict::Completed, Box::default());
        let ack = TransactionAck {
            group: group(),
            token: None,
            partition,
            item: AckItem { first, last, verdict, error },
            reach: Reach::Named,
        };
        let (reply, answer) = oneshot::channel();
        let whole = Transaction {
            leases: Vec::new(),
            acks: vec![ack],
            states,
            appends: Vec::new(),
            notes: Vec::new(),
            on_duplicate: OnDuplicate::Report,
            reply,
        };
        self.engine.submit(Command::Transact(Box::new(whole)));
        answer.await.unwrap_or(Err(CommandError::ShuttingDown))
    }

    /// Makes the room's group known to an instance of which nothing was evaluated yet.
    async fn begin_group(&self, class: &QueueName, key: PartitionName) {
        let Ok(handout) = self.pop(class, Some(key), 1, 0).await else { return };
        let lot = Lot::new(handout.token, handout.until_ms, None);
        handout.packages.iter().for_each(|package| self.give_back(package.partition, &lot));
    }
}
