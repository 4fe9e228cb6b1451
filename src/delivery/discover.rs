//! Pops without a queue: from any queue of a namespace or a task.
//!
//! In: which queues, and everything that a pop knows. Out: what the first of them with work hands out; who is
//! asked first, `turns` says. A queue whose next message cannot be handed out is
//! said to be so when no other has any. A consumer that waits is told by the lane of work in any of them,
//! those included that come later, and looks again. Called by both doors.

use std::future::Future;
use std::time::Duration;

use onrush_protocol::name::{GroupName, QueueName};
use tokio::time::sleep;

use crate::base::place::QueueId;
use crate::delivery::{Delivery, PopError, PopOrder};

/// Which queues.
#[derive(Clone, Copy, Debug)]
pub struct Somewhere<'a> {
    /// Those that belong to this.
    pub namespace: Option<&'a str>,
    /// Those that are for this.
    pub task: Option<&'a str>,
}

impl Delivery {
    /// Carries an order out at the first queue that has something for it: `attempt` is one pop that does not
    /// wait, and says nothing where there is nothing. Waits as long as the order says for work in any of
    /// them. Dropping the future is dropping the attempt that is under way.
    ///
    /// # Errors
    /// [`PopError::Command`] at once; what is about one message only where no other queue has any.
    pub async fn pop_somewhere<T, F>(
        &self,
        somewhere: Somewhere<'_>,
        order: PopOrder,
        attempt: impl Fn(PopOrder) -> F,
    ) -> Result<Option<T>, PopError>
    where
        F: Future<Output = Result<Option<T>, PopError>>,
    {
        let Somewhere { namespace, task } = somewhere;
        let clock = self.engine.clock();
        let until_us = clock.monotonic_us() + order.wait_ms.saturating_mul(1000);
        loop {
            // Before the look, so that what comes after it is heard of.
            let told = (order.wait_ms > 0).then(|| self.watch(namespace, task, &order.group));
            let fit = self.fitting(somewhere, &order.group);
            let ids: Vec<QueueId> = fit.iter().map(|(id, _)| *id).collect();
            let mut failed = None;
            for (at, (_, queue)) in fit.into_iter().enumerate() {
                let once = PopOrder { queue, wait_ms: 0, ..order.clone() };
                match attempt(once).await {
                    Ok(None) => {}
                    Ok(Some(found)) => {
                        self.turns.note(&order.group, &ids, at);
                        return Ok(Some(found));
                    }
                    // Whatever it is about holds up every queue.
                    Err(error @ PopError::Command(_)) => return Err(error),
                    // It is about one message, and the other queues have others.
                    Err(error) => {
                        failed.get_or_insert(error);
                    }
                }
            }
            self.turns.note(&order.group, &ids, ids.len());
            if let Some(error) = failed {
                return Err(error);
            }
            let left_us = until_us.saturating_sub(clock.monotonic_us());
            let Some(told) = told.filter(|_| left_us > 0) else { return Ok(None) };
            tokio::select! {
                told = told => {
                    if told.is_err() {
                        // The engine stops.
                        return Ok(None);
                    }
                }
                () = sleep(Duration::from_micros(left_us)) => return Ok(None),
            }
        }
    }

    /// The queues that fit, in the order in which they are to be asked.
    fn fitting(&self, somewhere: Somewhere<'_>, group: &GroupName) -> Vec<(QueueId, QueueName)> {
        let queues = self.catalogs.list();
        let fit = queues.iter().filter(|queue| {
            somewhere.namespace.is_none_or(|wanted| *queue.namespace == *wanted)
                && somewhere.task.is_none_or(|wanted| *queue.task == *wanted)
        });
        let mut fit: Vec<_> = fit.collect();
        self.turns.sort(group, &mut fit, |queue| (queue.id, queue.options.priority));
        // Names of queues that exist are names.
        fit.iter().filter_map(|queue| Some((queue.id, queue.name.parse().ok()?))).collect()
    }
}
