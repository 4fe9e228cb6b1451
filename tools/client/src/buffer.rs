//! Collects messages in this process before they are pushed.
//!
//! In: one message at a time. Out: pushes of many, when enough are there or the oldest has waited
//! long enough. Nothing is dropped in silence: what could not be sent stays and is tried again,
//! what never can be is kept for [`Buffer::flush`] and [`Buffer::close`] to hand back. Called
//! through [`crate::Queue::buffer`].

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use onrush_protocol::request::PushTerms;
use onrush_protocol::{Outcome, Qos};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::client::Client;
use crate::error::Error;
use crate::message::Message;
use crate::push::{self, PushResult};
use crate::queue::Target;

/// How many full flushes a buffer holds before [`Buffer::add`] waits, unless told otherwise.
const CAPACITY_FLUSHES: usize = 10;

/// A client-side buffer for one partition. One flush runs at a time, so order is kept.
///
/// Messages in it are lost when the process dies. Dropping it loses them too, and logs a warning;
/// [`Self::close`] it instead.
#[derive(Debug)]
pub struct Buffer {
    shared: Arc<Shared>,
    task: AbortHandle,
}

pub(crate) struct Shared {
    client: Client,
    target: Target,
    messages_max: usize,
    wait: Duration,
    /// What waits. Never held over a wait.
    state: Mutex<State>,
    /// Whoever holds it flushes.
    flushing: tokio::sync::Mutex<()>,
    /// Something came, or a flush is due.
    wake: Notify,
    /// A flush has made room.
    room: Notify,
}

struct State {
    qos: Qos,
    capacity: usize,
    waiting: VecDeque<Message>,
    /// When the first of those that wait came.
    oldest: Option<Instant>,
    /// What can never be sent, until somebody takes it.
    failed: Vec<(Message, Error)>,
}

/// What a flush did.
#[derive(Debug, Default)]
pub struct FlushReport {
    /// How many messages the server has taken (or had before).
    pub pushed: usize,
    /// How many messages wait still; they are tried again.
    pub waiting: usize,
    /// Messages that no further attempt would help, each with its reason. They are out of the
    /// buffer now.
    pub failed: Vec<(Message, Error)>,
    /// Why messages wait still.
    pub error: Option<Error>,
}

impl FlushReport {
    /// Whether everything that was in the buffer is at the server.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.waiting == 0 && self.failed.is_empty()
    }

    pub(crate) fn absorb(&mut self, other: Self) {
        self.pushed += other.pushed;
        self.waiting += other.waiting;
        self.failed.extend(other.failed);
        self.error = self.error.take().or(other.error);
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = self.state.lock();
        f.debug_struct("Buffer")
            .field("queue", &self.target.queue)
            .field("waiting", &state.waiting.len())
            .field("failed", &state.failed.len())
            .finish_non_exhaustive()
    }
}

impl Buffer {
    pub(crate) fn start(
        client: Client,
        target: Target,
        messages_max: usize,
        wait: Duration,
    ) -> Result<Self, Error> {
        if messages_max == 0 {
            let (field, max) = ("messages_max", u64::MAX);
            return Err(Error::Value { field, value: 0, min: 1, max });
        }
        let state = State {
            qos: Qos::AtLeastOnce,
            capacity: messages_max.saturating_mul(CAPACITY_FLUSHES),
            waiting: VecDeque::new(),
            oldest: None,
            failed: Vec::new(),
        };
        let shared = Arc::new(Shared {
            client,
            target,
            messages_max,
            wait,
            state: Mutex::new(state),
            flushing: tokio::sync::Mutex::default(),
            wake: Notify::new(),
            room: Notify::new(),
        });
        shared.client.remember(&shared);
        let task = tokio::spawn(flush_when_due(Arc::clone(&shared))).abort_handle();
        Ok(Self { shared, task })
    }

    /// The promise under which messages are pushed. Default: at least once. Where it is durable,
    /// every message gets a transaction id, so that a flush can be repeated without duplicates.
    #[must_use]
    pub fn qos(self, qos: Qos) -> Self {
        self.shared.state.lock().qos = qos;
        self
    }

    /// How many messages it holds at most, failed ones included. Default: ten flushes.
    #[must_use]
    pub fn capacity(self, messages: usize) -> Self {
        self.shared.state.lock().capacity = messages.max(self.shared.messages_max);
        self
    }

    /// Adds a message; waits while the buffer is full, as long as it takes. Dropping the future
    /// drops a message that was not added yet, and nothing else.
    ///
    /// # Errors
    /// When the buffer is full of messages that can never be sent: the first one's reason. Take
    /// them out with [`Self::flush`].
    pub async fn add(&self, mut message: Message) -> Result<(), Error> {
        loop {
            let mut room = std::pin::pin!(self.shared.room.notified());
            // Registered before looking, so that no flush in between goes unnoticed.
            room.as_mut().enable();
            match self.shared.try_add(message)? {
                None => return Ok(()),
                Some(back) => message = back,
            }
            self.shared.wake.notify_one();
            room.await;
        }
    }

    /// How many messages wait to be sent.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.shared.state.lock().waiting.len()
    }

    /// Sends what waits now, and hands back what never can be sent. Waits for the answers and for
    /// a flush that is under way. Dropping the future leaves everything in the buffer.
    pub async fn flush(&self) -> FlushReport {
        self.shared.flush().await
    }

    /// Flushes a last time and hands back every message that the server does not have, each with
    /// the reason.
    pub async fn close(self) -> Vec<(Message, Error)> {
        let report = self.shared.flush().await;
        let mut leftovers = report.failed;
        let mut state = self.shared.state.lock();
        let error = report.error.unwrap_or(Error::HeldBack);
        leftovers.extend(state.waiting.drain(..).map(|message| (message, error.clone())));
        leftovers.append(&mut state.failed);
        leftovers
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.task.abort();
        let state = self.shared.state.lock();
        let lost = state.waiting.len() + state.failed.len();
        if lost > 0 {
            let queue = self.shared.target.queue.as_str();
            tracing::warn!(queue, messages = lost, "a buffer was dropped with messages in it");
        }
    }
}

/// When the next flush is due.
enum Due {
    Now,
    At(Instant),
    WhenSomethingComes,
}

impl Shared {
    /// Adds the message or gives it back because there is no room.
    fn try_add(&self, mut message: Message) -> Result<Option<Message>, Error> {
        let mut state = self.state.lock();
        if state.waiting.len() + state.failed.len() >= state.capacity {
            return match state.failed.first() {
                Some((_, error)) if state.waiting.is_empty() => Err(error.clone()),
                _ => Ok(Some(message)),
            };
        }
        if state.qos.is_durable() {
            message.ensure_transaction_id();
        }
        state.waiting.push_back(message);
        state.oldest.get_or_insert_with(Instant::now);
        let count = state.waiting.len();
        drop(state);
        if count == 1 || count == self.messages_max {
            self.wake.notify_one();
        }
        Ok(None)
    }

    fn due(&self) -> Due {
        let state = self.state.lock();
        match state.oldest {
            _ if state.waiting.len() >= self.messages_max => Due::Now,
            Some(oldest) => Due::At(oldest + self.wait),
            None => Due::WhenSomethingComes,
        }
    }

    /// Sends what waits. Messages leave the buffer only once their fate is known, so a flush that
    /// is cut off half-way loses none.
    pub(crate) async fn flush(&self) -> FlushReport {
        let _flushing = self.flushing.lock().await;
        let (messages, qos) = {
            let state = self.state.lock();
            (state.waiting.iter().cloned().collect::<Vec<_>>(), state.qos)
        };
        let mut report = FlushReport::default();
        if !messages.is_empty() {
            let terms = PushTerms { qos, ..PushTerms::default() };
            let result = push::push(&self.client, &self.target, terms, &messages).await;
            self.settle(messages, &result, qos, &mut report);
            self.room.notify_waiters();
        }
        let mut state = self.state.lock();
        report.failed = std::mem::take(&mut state.failed);
        report.waiting = state.waiting.len();
        report
    }

    /// Takes out what was flushed and puts back, in order, what may still be sent.
    fn settle(
        &self,
        messages: Vec<Message>,
        result: &PushResult,
        qos: Qos,
        report: &mut FlushReport,
    ) {
        let mut again = Vec::new();
        let mut state = self.state.lock();
        let sent = messages.len().min(state.waiting.len());
        state.waiting.drain(..sent);
        for (message, receipt) in messages.into_iter().zip(&result.messages) {
            let Some(error) = receipt.error() else {
                report.pushed += 1;
                continue;
            };
            let is_safe = error.outcome() == Outcome::NotApplied
                || (qos.is_durable() && message.has_transaction_id());
            if error.is_retryable() && is_safe {
                report.error.get_or_insert_with(|| error.clone());
                again.push(message);
            } else {
                state.failed.push((message, error.clone()));
            }
        }
        for message in again.into_iter().rev() {
            state.waiting.push_front(message);
        }
        state.oldest = (!state.waiting.is_empty()).then(Instant::now);
    }

    /// A flush whose failed messages stay for the next who asks.
    async fn flush_in_background(&self) -> Option<Error> {
        let mut report = self.flush().await;
        self.state.lock().failed.append(&mut report.failed);
        report.error
    }
}

/// Flushes when it is time, for as long as the buffer lives.
async fn flush_when_due(shared: Arc<Shared>) {
    let mut failures = 0;
    loop {
        match shared.due() {
            Due::Now => {}
            Due::At(time) if time <= Instant::now() => {}
            Due::At(time) => {
                tokio::select! {
                    () = tokio::time::sleep_until(time) => {}
                    () = shared.wake.notified() => {}
                }
                continue;
            }
            Due::WhenSomethingComes => {
                shared.wake.notified().await;
                continue;
            }
        }
        match shared.flush_in_background().await {
            None => failures = 0,
            Some(error) => {
                failures += 1;
                let backoff = shared.client.backoff();
                tokio::time::sleep(backoff.random_wait(failures, error.retry_after())).await;
            }
        }
    }
}
