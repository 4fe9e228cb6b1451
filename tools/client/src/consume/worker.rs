//! One worker of a consumer: one pop under way, one handler running.
//!
//! In: a pop and a handler, shared with the other workers: the quota, the time of the last
//! message, the wish to stop. Out: counts, or the error that ended it. Spawned by
//! [`super::Consume::start`].

use std::sync::Arc;
use std::time::Duration;

use onrush_protocol::request::AckOutcome;
use onrush_protocol::{LeaseToken, LongText};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::{ConsumeReport, Handler};
use crate::ack::AckPlan;
use crate::client::Client;
use crate::error::Error;
use crate::pop::Pop;
use crate::received::{Popped, ReceivedMessage};

/// What was done is acknowledged at least this often while more of the same pop is handled, so
/// that a crash repeats little.
const ACK_EVERY: Duration = Duration::from_secs(1);

/// What holds for all workers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms {
    pub(super) batch: u32,
    pub(super) auto_ack: bool,
    pub(super) idle_timeout: Option<Duration>,
    /// How often a lease is renewed, and for how long from then.
    pub(super) renewal: Option<(Duration, Duration)>,
}

/// How many messages may still be popped.
pub(super) struct Quota {
    left: Mutex<Option<u64>>,
}

impl Quota {
    pub(super) fn new(limit: Option<u64>) -> Self {
        Self { left: Mutex::new(limit) }
    }

    /// Takes up to `wanted`; 0 when none are left.
    fn take(&self, wanted: u32) -> u32 {
        let mut left = self.left.lock();
        let Some(left) = left.as_mut() else { return wanted };
        let taken = u64::from(wanted).min(*left);
        *left -= taken;
        // At most `wanted`, so it fits.
        taken as u32
    }

    fn give_back(&self, unused: u64) {
        if let Some(left) = self.left.lock().as_mut() {
            *left += unused;
        }
    }

    /// Whether the last of them has been handed over.
    fn is_used_up(&self) -> bool {
        *self.left.lock() == Some(0)
    }
}

/// When the last message came, to any worker.
pub(super) struct Activity {
    last: Mutex<Instant>,
}

impl Activity {
    pub(super) fn new() -> Self {
        Self { last: Mutex::new(Instant::now()) }
    }

    fn note(&self) {
        *self.last.lock() = Instant::now();
    }

    fn idle(&self) -> Duration {
        self.last.lock().elapsed()
    }
}

pub(super) struct Worker<M> {
    pub(super) client: Client,
    pub(super) pop: Pop,
    pub(super) handler: Arc<M>,
    pub(super) terms: Terms,
    pub(super) quota: Arc<Quota>,
    pub(super) activity: Arc<Activity>,
    pub(super) stop: watch::Sender<bool>,
    pub(super) stopped: watch::Receiver<bool>,
}

impl<M: Handler> Worker<M> {
    pub(super) async fn run(mut self) -> Result<ConsumeReport, Error> {
        let mut report = ConsumeReport::default();
        let mut failures = 0;
        while !*self.stopped.borrow() {
            let wanted = self.quota.take(self.terms.batch);
            if wanted == 0 && self.terms.batch > 0 {
                break;
            }
            let popped = self.pop.clone().batch(wanted).send().await;
            let came = popped.as_ref().map_or(0, Popped::len) as u64;
            self.quota.give_back(u64::from(wanted).saturating_sub(came));
            match popped {
                Ok(popped) if popped.is_empty() => {
                    failures = 0;
                    if self.terms.idle_timeout.is_some_and(|idle| self.activity.idle() >= idle) {
                        break;
                    }
                }
                Ok(popped) => {
                    failures = 0;
                    self.activity.note();
                    self.handle(popped, &mut report).await;
                    self.activity.note();
                }
                Err(error) if error.is_retryable() => {
                    failures += 1;
                    let backoff = self.client.backoff();
                    self.pause(backoff.random_wait(failures, error.retry_after())).await;
                }
                Err(error) => {
                    // The others would meet the same.
                    self.stop.send_replace(true);
                    return Err(error);
                }
            }
            if self.quota.is_used_up() {
                break;
            }
        }
        Ok(report)
    }

    /// Sleeps, or less when it shall stop.
    async fn pause(&mut self, wait: Duration) {
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            // The sender lives in this worker, so this ends only with the wish to stop.
            _ = self.stopped.wait_for(|is_stopped| *is_stopped) => {}
        }
    }

    async fn handle(&self, popped: Popped, report: &mut ConsumeReport) {
        let _renewal = self.terms.renewal.filter(|_| !self.terms.auto_ack).map(|terms| {
            Renewal(tokio::spawn(keep_renewing(self.client.clone(), popped.lease, terms)))
        });
        let mut plan = AckPlan::default();
        let mut planned = 0;
        let mut acked_at = Instant::now();
        for messages in by_partition(popped.messages) {
            let handled = self.handler.handle(messages.clone()).await;
            report.handled += handled.done as u64;
            let (done, rest) = messages.split_at(handled.done.min(messages.len()));
            for message in done {
                plan.add(message, AckOutcome::Completed, &LongText::default());
            }
            planned += done.len() as u64;
            if let Some((count, reason)) = handled.failed {
                report.failed += count as u64;
                let reason = LongText::lossy(&reason);
                for message in rest.iter().take(count) {
                    plan.add(message, AckOutcome::Failed, &reason);
                    planned += 1;
                }
            }
            if acked_at.elapsed() >= ACK_EVERY {
                self.settle(std::mem::take(&mut plan), std::mem::take(&mut planned), report).await;
                acked_at = Instant::now();
            }
        }
        self.settle(plan, planned, report).await;
    }

    async fn settle(&self, plan: AckPlan, planned: u64, report: &mut ConsumeReport) {
        if planned == 0 || self.terms.auto_ack {
            return;
        }
        match self.client.send_acks(plan).await {
            Ok(_) => {}
            Err(Error::Ack(refused)) => {
                report.unsettled += planned.saturating_sub(refused.acked);
            }
            Err(_) => report.unsettled += planned,
        }
    }
}

/// Cuts where the partition changes; an answer holds each partition in one piece.
fn by_partition(messages: Vec<ReceivedMessage>) -> Vec<Vec<ReceivedMessage>> {
    let mut sections: Vec<Vec<ReceivedMessage>> = Vec::new();
    for message in messages {
        match sections.last_mut() {
            Some(section)
                if section.last().map(ReceivedMessage::partition) == Some(message.partition()) =>
            {
                section.push(message);
            }
            _ => sections.push(vec![message]),
        }
    }
    sections
}

/// A renewal that ends with what it renews for.
struct Renewal(JoinHandle<()>);

impl Drop for Renewal {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn keep_renewing(client: Client, lease: LeaseToken, (every, hold): (Duration, Duration)) {
    let extend_ms = u32::try_from(hold.as_millis()).unwrap_or(u32::MAX);
    loop {
        tokio::time::sleep(every).await;
        // A lease that is lost shows when its messages are acknowledged.
        if client.renew(&lease, extend_ms).await.is_err_and(|error| !error.is_retryable()) {
            return;
        }
    }
}
