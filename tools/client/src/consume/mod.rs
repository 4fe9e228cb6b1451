//! The consuming loop: pop, hand over, acknowledge, again.
//!
//! In: a pop, a handler, how many at once. Out: a running [`Consumer`] and, at its end, a
//! [`ConsumeReport`]. What is popped is handed over partition by partition and in order; after a
//! failure nothing more of that partition is, because it comes again behind the failed message.
//! Called through [`crate::Queue::consume`].

mod handler;
mod worker;

use std::sync::Arc;
use std::time::Duration;

use onrush_protocol::request::SubscriptionStart;
use tokio::sync::watch;
use tokio::task::JoinSet;

pub use handler::{Each, Handler, InBatches};

use crate::client::Client;
use crate::error::Error;
use crate::pop::Pop;
use worker::{Terms, Worker};

/// How long a poll waits at the server unless told otherwise; also about how long stopping may
/// take. Pushes wake polls at once, so a longer one would save nothing but an empty answer.
const WAIT: Duration = Duration::from_secs(1);

/// A consumer that was not started yet. [`Self::start`] it.
#[derive(Debug)]
#[must_use = "nothing is consumed until it is started"]
pub struct Consume<M> {
    client: Client,
    pop: Pop,
    handler: M,
    terms: Terms,
    concurrency: usize,
    limit: Option<u64>,
}

impl<M: Handler> Consume<M> {
    pub(crate) fn new(pop: Pop, client: Client, handler: M) -> Self {
        let terms = Terms { batch: 1, auto_ack: false, idle_timeout: None, renewal: None };
        Self { client, pop: pop.wait(WAIT), handler, terms, concurrency: 1, limit: None }
    }

    /// On whose behalf. Default: queue mode, where all consumers share one cursor.
    pub fn group(mut self, group: &str) -> Self {
        self.pop = self.pop.group(group);
        self
    }

    /// How many pops are under way and how many handlers run at once. Each takes partitions of
    /// its own, so order within a partition holds. Default: 1.
    pub fn concurrency(mut self, workers: usize) -> Self {
        self.concurrency = workers.max(1);
        self
    }

    /// Most messages that one pop takes: 1 to 10 000. Default: 1.
    pub fn batch(mut self, messages_max: u32) -> Self {
        self.terms.batch = messages_max;
        self
    }

    /// Most partitions that one pop mixes. Default: 1.
    pub fn partitions(mut self, partitions_max: u16) -> Self {
        self.pop = self.pop.partitions(partitions_max);
        self
    }

    /// How long a poll waits at the server; stopping may take as long. Default: 1 s.
    pub fn wait(mut self, wait: Duration) -> Self {
        self.pop = self.pop.wait(wait);
        self
    }

    /// How long messages are held for the handler. Default: what the queue says.
    pub fn lease(mut self, lease: Duration) -> Self {
        self.pop = self.pop.lease(lease);
        self
    }

    /// Renews the lease while handlers run: `every` so often, to `hold` from then.
    pub fn renew(mut self, every: Duration, hold: Duration) -> Self {
        self.terms.renewal = Some((every, hold));
        self
    }

    /// Whether messages count as completed as soon as they are handed out: at most once.
    pub fn auto_ack(mut self, auto_ack: bool) -> Self {
        self.pop = self.pop.auto_ack(auto_ack);
        self.terms.auto_ack = auto_ack;
        self
    }

    /// Where the group begins if it is seen for the first time.
    pub fn start_at(mut self, start: SubscriptionStart) -> Self {
        self.pop = self.pop.start(start);
        self
    }

    /// Ends after this many messages were handed over.
    pub fn limit(mut self, messages: u64) -> Self {
        self.limit = Some(messages);
        self
    }

    /// Ends when no message has come for this long.
    pub fn idle_timeout(mut self, idle: Duration) -> Self {
        self.terms.idle_timeout = Some(idle);
        self
    }

    /// Starts the workers on tokio's current runtime.
    ///
    /// # Panics
    /// Outside a runtime.
    #[must_use]
    pub fn start(mut self) -> Consumer {
        if let Some(idle) = self.terms.idle_timeout {
            // A poll must not sleep through the end.
            let wait = self.pop.waiting().min(idle);
            self.pop = self.pop.wait(wait);
        }
        let (stop, stopped) = watch::channel(false);
        let quota = Arc::new(worker::Quota::new(self.limit));
        let activity = Arc::new(worker::Activity::new());
        let handler = Arc::new(self.handler);
        let mut workers = JoinSet::new();
        for _ in 0..self.concurrency {
            let worker = Worker {
                client: self.client.clone(),
                pop: self.pop.clone(),
                handler: Arc::clone(&handler),
                terms: self.terms,
                quota: Arc::clone(&quota),
                activity: Arc::clone(&activity),
                stop: stop.clone(),
                stopped: stopped.clone(),
            };
            workers.spawn(worker.run());
        }
        Consumer { stop, workers }
    }
}

/// A running consumer.
///
/// Dropping it drops its handlers where they stand; what they held comes again when its lease
/// ends. [`Self::stop`] and [`Self::join`] it instead.
#[derive(Debug)]
pub struct Consumer {
    stop: watch::Sender<bool>,
    workers: JoinSet<Result<ConsumeReport, Error>>,
}

/// What a consumer did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConsumeReport {
    /// Messages that the handler did.
    pub handled: u64,
    /// Messages that the handler could not do.
    pub failed: u64,
    /// Messages whose ack was refused or lost: they may come again although they were handled.
    pub unsettled: u64,
}

/// Stops a consumer from elsewhere. Cheap to clone.
#[derive(Clone, Debug)]
pub struct StopHandle {
    stop: watch::Sender<bool>,
}

impl StopHandle {
    /// As [`Consumer::stop`].
    pub fn stop(&self) {
        self.stop.send_replace(true);
    }
}

impl Consumer {
    /// Asks the workers to stop: what was popped is still handled and acknowledged, polls that
    /// wait at the server are waited out. Returns at once.
    pub fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// A handle that stops it from elsewhere, as from a signal.
    #[must_use]
    pub fn stop_handle(&self) -> StopHandle {
        StopHandle { stop: self.stop.clone() }
    }

    /// Waits until all workers have ended: by [`Self::stop`], their limit, their idle timeout, or
    /// an error that no retry would help.
    ///
    /// # Errors
    /// The first such error, after all workers have ended.
    ///
    /// # Panics
    /// When a handler did.
    pub async fn join(mut self) -> Result<ConsumeReport, Error> {
        let mut report = ConsumeReport::default();
        let mut failure = None;
        while let Some(ended) = self.workers.join_next().await {
            match ended {
                Ok(Ok(part)) => {
                    report.handled += part.handled;
                    report.failed += part.failed;
                    report.unsettled += part.unsettled;
                }
                Ok(Err(error)) => failure = failure.or(Some(error)),
                Err(ended) => match ended.try_into_panic() {
                    Ok(panic) => std::panic::resume_unwind(panic),
                    Err(_) => {
                        let reason = "the runtime is shutting down".to_owned();
                        failure = failure.or(Some(Error::Disconnected { reason, sent: false }));
                    }
                },
            }
        }
        failure.map_or(Ok(report), Err)
    }
}
