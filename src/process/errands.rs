//! Instances in manual mode are evaluated when somebody asks, up to the slot that he asks for.
//!
//! One task an instance, however many ask: whoever asks for a later slot moves its goal. What was asked
//! with a push, or by a cascade, stands in the message itself; so an engine that begins finds in the log
//! what an earlier one left behind, and so does one of several when another is gone. In: asked slots.
//! Out: evaluated ones. Called by `runner`.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use onrush_protocol::name::{PartitionName, QueueName};
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use tokio::time::sleep;

use crate::base::place::{PartitionNumber, QueueId};
use crate::delivery::PopError;
use crate::process::commit::group;
use crate::process::definition::Mode;
use crate::process::incoming::Incoming;
use crate::process::look::InstanceShown;
use crate::process::{Inner, ProcessError};
use crate::shard::command::{Command, CommandError};
use crate::shard::groups::{PartitionStanding, Survey, SurveyPage, SurveyPlace};
use crate::state::effect::Sequence;

/// How often the log is looked at for what other engines left behind.
const LOOK: Duration = Duration::from_secs(5);
/// Pause while somebody else holds an instance, at first and at most.
const PAUSE: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_millis(500);
/// Instances of one page, and messages of one read.
const PARTITIONS: usize = 256;
const MESSAGES: u64 = 256;

/// An instance in manual mode that is to be evaluated up to a slot.
#[derive(Debug)]
pub(super) struct Errand {
    pub(super) queue: QueueId,
    pub(super) class: QueueName,
    pub(super) key: PartitionName,
    pub(super) slot: Sequence,
}

/// Which slot each instance that is under way is evaluated up to.
type Goals = Arc<Mutex<HashMap<(QueueId, PartitionName), Sequence>>>;

/// Evaluates instances in manual mode as they are asked to.
pub(super) async fn run(inner: Arc<Inner>, errands: Option<mpsc::UnboundedReceiver<Errand>>) {
    let Some(mut errands) = errands else { return };
    let goals = Goals::default();
    while let Some(Errand { queue, class, key, slot }) = errands.recv().await {
        {
            let mut known = goals.lock();
            if let Some(goal) = known.get_mut(&(queue, key.clone())) {
                *goal = slot.max(*goal);
                continue;
            }
            known.insert((queue, key.clone()), slot);
        }
        let running = Arc::clone(&inner).run_manually(queue, class, key, Arc::clone(&goals));
        let busy = Arc::clone(&inner.busy);
        tokio::spawn(async move {
            running.await;
            drop(busy);
        });
    }
}

/// Asks anew for what was asked for in earlier lives; and now and then, unless this engine is alone with
/// its store, for what other engines left behind.
pub(super) async fn recall(inner: Arc<Inner>, is_alone: bool) {
    let mut seen = HashMap::new();
    loop {
        match inner.recall_all(&mut seen).await {
            Ok(()) if is_alone => return,
            Ok(()) => {}
            Err(error) => tracing::debug!(%error, "what was asked for is looked for again"),
        }
        sleep(LOOK).await;
    }
}

/// How many slots are left of an instance up to its goal, and are evaluated now; `None` where it has no
/// goal any more.
fn left_to(
    shown: Option<InstanceShown>,
    goals: &mut HashMap<(QueueId, PartitionName), Sequence>,
    place: &(QueueId, PartitionName),
) -> Option<u32> {
    let goal = goals.get(place).copied()?;
    let open = shown.filter(|it| it.done <= goal && it.stopped.is_none());
    let left = open.map(|it| u32::try_from(goal - it.done + 1).unwrap_or(u32::MAX));
    if left.is_none() {
        goals.remove(place);
    }
    left
}

impl Inner {
    /// Evaluates an instance up to its goal, whoever else does so too.
    async fn run_manually(
        self: Arc<Self>,
        queue: QueueId,
        class: QueueName,
        key: PartitionName,
        goals: Goals,
    ) {
        let place = (queue, key.clone());
        let mut pause = PAUSE;
        while !self.is_stopping() {
            let shown = self.instance(class.as_str(), &key).await;
            let Ok(shown) = shown else {
                sleep(PAUSE_MAX).await;
                continue;
            };
            let Some(most) = left_to(shown, &mut goals.lock(), &place) else { return };
            match self.pop(&class, Some(key.clone()), most, 0).await {
                Ok(handout) if !handout.packages.is_empty() => {
                    self.work_off_all(queue, handout).await;
                    pause = PAUSE;
                    continue;
                }
                // It never opens, however often it is asked for.
                Err(PopError::Open { .. }) => {
                    goals.lock().remove(&place);
                    return;
                }
                Ok(_) | Err(_) => {}
            }
            sleep(pause).await;
            pause = PAUSE_MAX.min(2 * pause);
        }
    }

    /// Asks for all that is to be evaluated, as far as it was not `seen` before.
    async fn recall_all(
        &self,
        seen: &mut HashMap<PartitionNumber, Sequence>,
    ) -> Result<(), ProcessError> {
        for (queue, class) in self.classes_of(Mode::Manual) {
            // Makes the room's group known, as far as it is not.
            let _ = self.pop(&class, None, 0, 0).await;
            let mut from = SurveyPlace::default();
            loop {
                let page = self.lagging(queue, from).await?;
                for instance in page.partitions {
                    self.recall_one(queue, &class, instance, seen).await?;
                }
                match page.next {
                    Some(next) => from = next,
                    None => break,
                }
            }
        }
        Ok(())
    }

    /// Asks for what is to be evaluated of an instance that nobody holds.
    async fn recall_one(
        &self,
        queue: QueueId,
        class: &QueueName,
        instance: PartitionStanding,
        seen: &mut HashMap<PartitionNumber, Sequence>,
    ) -> Result<(), ProcessError> {
        let PartitionStanding { partition, name, next, end, lease, .. } = instance;
        let Ok(key) = name.parse::<PartitionName>() else { return Ok(()) };
        let mut from = seen.get(&partition).map_or(next, |seen| next.max(*seen));
        if lease.is_some() {
            return Ok(());
        }
        let mut last = None;
        while from < end {
            let to = end.min(from + MESSAGES);
            let messages = match self.read(queue, name.to_string(), partition, from, to).await {
                Ok(messages) => messages,
                Err(ProcessError::Command(error)) => return Err(error.into()),
                // One that does not open keeps what is before it.
                Err(_) => break,
            };
            let asked = messages.iter().rev().find(|message| message.envelope.runs);
            last = asked.map(|message: &Incoming| message.address.seq).or(last);
            from = to;
        }
        seen.insert(partition, end);
        if let Some(slot) = last {
            let class = class.clone();
            // Whoever runs errands has stopped: then the server stops.
            let _ = self.errands.send(Errand { queue, class, key, slot });
        }
        Ok(())
    }

    /// Instances with messages that are not evaluated, a page of them.
    pub(super) async fn lagging(
        &self,
        queue: QueueId,
        from: SurveyPlace,
    ) -> Result<SurveyPage, ProcessError> {
        let (reply, answer) = oneshot::channel();
        let survey = Survey {
            queue,
            group: Some(group()),
            only_lagging: true,
            from,
            limit: PARTITIONS,
            reply,
        };
        self.engine.submit(Command::Survey(Box::new(survey)));
        Ok(answer.await.unwrap_or(Err(CommandError::ShuttingDown))?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_is_worked_off_up_to_its_goal_which_may_move() {
        let shown = |done| {
            let (partition, next, base, kept_from, version) = (1, 100, 0, 0, 1);
            let stopped = None;
            Some(InstanceShown { partition, next, done, base, kept_from, version, stopped })
        };
        let place = (7, PartitionName::default());
        let mut goals = HashMap::from([(place.clone(), 9)]);
        assert_eq!(left_to(shown(5), &mut goals, &place), Some(5));
        goals.insert(place.clone(), 20);
        assert_eq!(left_to(shown(10), &mut goals, &place), Some(11));
        let halted = shown(12).map(|it| InstanceShown { stopped: Some("a break".into()), ..it });
        assert_eq!(left_to(halted, &mut goals, &place), None, "nothing until it is resumed");
        assert_eq!(left_to(shown(12), &mut goals, &place), None, "and it was forgotten");
        for gone in [shown(10), None] {
            goals.insert(place.clone(), 9);
            assert_eq!(left_to(gone, &mut goals, &place), None);
            assert!(goals.is_empty());
        }
    }
}
