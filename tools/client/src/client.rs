//! The client: one server, reconnecting, retrying, and leaving a server alone that keeps failing.
//!
//! In: what to do and whether it may be done twice. Out: its answer. Every request of the fluent
//! interface goes through [`Client::call`], the only place that retries. Called by the builders
//! in `queue`, `push`, `pop`, `ack` and `consume`.

use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use onrush_protocol::limits::{BATCH_BYTES_MAX, MESSAGE_BYTES_MAX, PAGE_ITEMS_MAX, RECORDS_MAX};
use onrush_protocol::request::{DeleteQueue, Extend, ListQueues, Ping, Stats};
use onrush_protocol::response::{GroupStanding, Job, QueueShown};
use onrush_protocol::{BatchLimits, LeaseToken, MessageId, Outcome, Request, Response, ShortText};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::backoff::Backoff;
use crate::breaker::{Breaker, BreakerState};
use crate::buffer::{self, FlushReport};
use crate::builder::ClientBuilder;
use crate::connection::{Connection, mismatch};
use crate::desk::{ListOfMessages, OneMessage, Scope};
use crate::error::Error;
use crate::group::{self, Group};
use crate::letters::{self, ListOfLetters};
use crate::pop::Pop;
use crate::process::{CascadeHandle, ProcessClass};
use crate::queue::Queue;
use crate::session::Session;

/// A client of one server. Cheap to clone; all clones share one connection.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    session: Session,
    retries: u32,
    backoff: Backoff,
    /// Asked and told around every attempt; never held over a wait.
    breaker: Mutex<Breaker>,
    /// Whether the server may know pops that say who pushed; one that refused the first does not.
    asks_who_pushed: AtomicBool,
    /// Every buffer that was made and still exists.
    buffers: Mutex<Vec<Weak<buffer::Shared>>>,
}

/// Whether a request may be sent again when nobody knows what became of the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// Doing it twice is the same as doing it once.
    Safe,
    /// It could be done twice.
    Unsafe,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("breaker", &self.breaker_state()).finish_non_exhaustive()
    }
}

impl Client {
    /// Connects to `addr` (host and port) with the defaults of [`ClientBuilder`].
    ///
    /// # Errors
    /// [`Error::Connect`] when nobody answers within 5 seconds; nothing is retried here.
    pub async fn connect(addr: &str) -> Result<Self, Error> {
        Self::builder().addr(addr).connect().await
    }

    /// A client with settings of its own.
    #[must_use]
    pub fn builder() -> ClientBuilder {
        ClientBuilder::default()
    }

    pub(crate) fn assemble(
        session: Session,
        retries: u32,
        backoff: Backoff,
        breaker: Breaker,
    ) -> Self {
        let (breaker, buffers) = (Mutex::new(breaker), Mutex::default());
        let asks_who_pushed = AtomicBool::new(true);
        let inner = Inner { session, retries, backoff, breaker, asks_who_pushed, buffers };
        Self { inner: Arc::new(inner) }
    }

    /// A queue by name. Nothing is sent, and a name that no queue may have is reported by
    /// whatever is done with it.
    #[must_use]
    pub fn queue(&self, name: &str) -> Queue {
        Queue::new(self.clone(), name)
    }

    /// A consumer group by name. Nothing is sent, and a name that no group may have is reported by
    /// whatever is done with it.
    #[must_use]
    pub fn group(&self, name: &str) -> Group {
        Group::new(self.clone(), name)
    }

    /// How all consumer groups stand in all queues, by queue and name.
    ///
    /// # Errors
    /// As every request: [`Error`] after the last retry.
    pub async fn groups(&self) -> Result<Vec<GroupStanding>, Error> {
        group::standings(self).await
    }

    /// Takes messages out of whichever queue of a namespace, of a task, or of both has some, under a lease:
    /// the queue with the higher priority first, but none is passed over for ever. One of the two must be
    /// there. Await it.
    pub fn pop_any(&self, namespace: Option<&str>, task: Option<&str>) -> Pop {
        Pop::any(self.clone(), namespace, task)
    }

    /// All queues, newest first, or those of a namespace, of a task, or of both. Read page by page; a queue
    /// that is made meanwhile may make another one show twice. Safe to repeat.
    ///
    /// # Errors
    /// [`Error::Name`] for a text that no queue can have, else [`Error`] after the last retry.
    pub async fn queues(
        &self,
        namespace: Option<&str>,
        task: Option<&str>,
    ) -> Result<Vec<QueueShown>, Error> {
        let text = |text: Option<&str>| text.map(str::parse::<ShortText>).transpose();
        let (namespace, task) = (text(namespace)?, text(task)?);
        let mut found = Vec::new();
        loop {
            let (skip, limit) = (found.len() as u32, PAGE_ITEMS_MAX);
            let (namespace, task) = (namespace.clone(), task.clone());
            let list = ListQueues { skip, limit, namespace, task };
            let page = match self.request(Repeat::Safe, &Request::ListQueues(list)).await? {
                Response::Queues(page) => page,
                other => return Err(mismatch("list queues", &other)),
            };
            found.extend(page.queues);
            if !page.has_more {
                return Ok(found);
            }
        }
    }

    /// A class of processes by name. Nothing is sent, and a name that none may have is reported by whatever
    /// is done with it.
    #[must_use]
    pub fn process(&self, class: &str) -> ProcessClass {
        ProcessClass::new(self.clone(), class)
    }

    /// A push to a process by its id. Nothing is sent.
    #[must_use]
    pub fn process_push(&self, id: &str) -> CascadeHandle {
        CascadeHandle::new(self.clone(), id)
    }

    /// Messages of all queues, newest first: a page that is still to be asked for.
    pub fn messages(&self) -> ListOfMessages {
        ListOfMessages::new(self.clone(), Ok(Scope::default()))
    }

    /// Dead letters of all queues, newest failure first: a page that is still to be asked for.
    pub fn dead_letters(&self) -> ListOfLetters {
        ListOfLetters::new(self.clone(), Ok(Scope::default()))
    }

    /// The message with this id. Nothing is sent.
    #[must_use]
    pub fn message(&self, id: MessageId) -> OneMessage {
        OneMessage::by_id(self.clone(), id)
    }

    /// The message of a partition that its producer called `transaction_id`, or that has this text as its
    /// own id. Nothing is sent. A producer's id is known for as long as duplicates of it are.
    #[must_use]
    pub fn message_in(&self, partition: u32, transaction_id: &str) -> OneMessage {
        OneMessage::by_transaction_id(self.clone(), partition, transaction_id)
    }

    /// Jobs over dead letters that the server remembers, newest first. Safe to repeat.
    ///
    /// # Errors
    /// As every request: [`Error`] after the last retry.
    pub async fn jobs(&self) -> Result<Vec<Job>, Error> {
        letters::jobs(self).await
    }

    /// Stops a job where it is; what it has moved stays moved. Returns it as it is then. Safe to repeat.
    ///
    /// # Errors
    /// [`Error::Refused`] when there is no such job.
    pub async fn cancel_job(&self, id: u32) -> Result<Job, Error> {
        letters::cancel(self, id).await
    }

    /// Asks the server whether it is there, and how long that took.
    ///
    /// # Errors
    /// As every request: [`Error`] after the last retry.
    pub async fn ping(&self) -> Result<Duration, Error> {
        let from = Instant::now();
        match self.request(Repeat::Safe, &Request::Ping(Ping {})).await? {
            Response::Pong(_) => Ok(from.elapsed()),
            other => Err(mismatch("ping", &other)),
        }
    }

    /// The server's counters by name. Names come and go; depend on none.
    ///
    /// # Errors
    /// As every request: [`Error`] after the last retry.
    pub async fn stats(&self) -> Result<Vec<(String, u64)>, Error> {
        match self.request(Repeat::Safe, &Request::Stats(Stats {})).await? {
            Response::Stats(stats) => Ok(stats
                .entries
                .iter()
                .map(|entry| (entry.name.as_str().to_owned(), entry.value))
                .collect()),
            other => Err(mismatch("stats", &other)),
        }
    }

    /// Holds a lease for `extend_ms` milliseconds from now. Returns when it then ends, in
    /// milliseconds since 1970 by the server's clock.
    ///
    /// # Errors
    /// [`Error::Refused`] when the lease is not held any more; its messages are, or will be,
    /// somebody else's.
    pub async fn renew(&self, lease: &LeaseToken, extend_ms: u32) -> Result<u64, Error> {
        let request = Request::Extend(Extend { lease: *lease, extend_ms });
        match self.request(Repeat::Safe, &request).await? {
            Response::Extended(extended) => Ok(extended.until_ms),
            other => Err(mismatch("extend", &other)),
        }
    }

    /// Flushes every [`Buffer`](crate::Buffer) of this client, one after the other, and reports
    /// on all. Messages that could not be sent stay in their buffers.
    pub async fn flush_all(&self) -> FlushReport {
        let buffers: Vec<_> = {
            let mut buffers = self.inner.buffers.lock();
            buffers.retain(|buffer| buffer.strong_count() > 0);
            buffers.iter().filter_map(Weak::upgrade).collect()
        };
        let mut report = FlushReport::default();
        for buffer in buffers {
            report.absorb(buffer.flush().await);
        }
        report
    }

    /// Where the circuit breaker stands.
    #[must_use]
    pub fn breaker_state(&self) -> BreakerState {
        self.inner.breaker.lock().state()
    }

    /// The connection under the client, dialled if need be: for pipelining by hand. It is not
    /// reconnected and nothing on it is retried.
    ///
    /// # Errors
    /// As [`Connection::connect`].
    pub async fn connection(&self) -> Result<Connection, Error> {
        self.inner.session.connection().await
    }

    /// Lets the connection go. Requests under way still get their answers; a new request dials
    /// again.
    pub fn disconnect(&self) {
        self.inner.session.release();
    }

    pub(crate) fn asks_who_pushed(&self) -> bool {
        self.inner.asks_who_pushed.load(Ordering::Relaxed)
    }

    pub(crate) fn ask_who_pushed_no_more(&self) {
        self.inner.asks_who_pushed.store(false, Ordering::Relaxed);
    }

    pub(crate) fn backoff(&self) -> Backoff {
        self.inner.backoff
    }

    pub(crate) fn remember(&self, buffer: &Arc<buffer::Shared>) {
        let mut buffers = self.inner.buffers.lock();
        buffers.retain(|buffer| buffer.strong_count() > 0);
        buffers.push(Arc::downgrade(buffer));
    }

    pub(crate) async fn delete_queue(&self, request: DeleteQueue) -> Result<bool, Error> {
        // Not repeated: somebody may have made the queue anew in between.
        match self.request(Repeat::Unsafe, &Request::DeleteQueue(request)).await? {
            Response::Deleted(deleted) => Ok(deleted.existed),
            other => Err(mismatch("delete", &other)),
        }
    }

    /// One request under the client's request timeout.
    pub(crate) async fn request(
        &self,
        repeat: Repeat,
        request: &Request,
    ) -> Result<Response, Error> {
        self.call(repeat, |connection| async move { connection.request(request).await }).await
    }

    /// As [`Self::request`], for a request that the server may hold for `wait` on purpose.
    pub(crate) async fn request_waiting(
        &self,
        request: &Request,
        wait: Duration,
    ) -> Result<Response, Error> {
        self.request_held(Repeat::Unsafe, request, wait).await
    }

    /// The same for a request that may be done twice.
    pub(crate) async fn request_waiting_safely(
        &self,
        request: &Request,
        wait: Duration,
    ) -> Result<Response, Error> {
        self.request_held(Repeat::Safe, request, wait).await
    }

    async fn request_held(
        &self,
        repeat: Repeat,
        request: &Request,
        wait: Duration,
    ) -> Result<Response, Error> {
        let limit = wait.saturating_add(self.inner.session.options().request_timeout);
        self.call(
            repeat,
            |connection| async move { connection.request_within(request, limit).await },
        )
        .await
    }

    /// What the server takes, from its welcome; dials if nobody has yet.
    pub(crate) async fn limits(&self) -> Result<BatchLimits, Error> {
        if let Some(connection) = self.inner.session.live() {
            return Ok(limits_of(&connection));
        }
        self.call(Repeat::Safe, |connection| async move { Ok(limits_of(&connection)) }).await
    }

    /// Does something with a connection, again and again while that can help: the breaker is
    /// asked before each attempt and told after it; between attempts it sleeps with full jitter.
    /// Waits at most (retries + 1) × (connect + request timeout) plus the sleeps.
    pub(crate) async fn call<T, F>(
        &self,
        repeat: Repeat,
        attempt: impl Fn(Connection) -> F,
    ) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let mut failures = 0;
        loop {
            let error = match self.attempt(&attempt).await {
                Ok(done) => return Ok(done),
                Err(error) => error,
            };
            failures += 1;
            let is_safe = repeat == Repeat::Safe || error.outcome() == Outcome::NotApplied;
            // An open breaker is not waited out: the caller learns at once, as it is meant to.
            let is_hopeless = matches!(error, Error::CircuitOpen { .. });
            if !error.is_retryable() || !is_safe || is_hopeless || failures > self.inner.retries {
                return Err(error);
            }
            let wait = self.inner.backoff.random_wait(failures, error.retry_after());
            tokio::time::sleep(wait).await;
        }
    }

    async fn attempt<T, F>(&self, attempt: &impl Fn(Connection) -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let breaker = &self.inner.breaker;
        breaker.lock().admit(Instant::now()).map_err(|retry_in| Error::CircuitOpen { retry_in })?;
        let verdict = Verdict { breaker, is_given: false };
        let result = match self.inner.session.connection().await {
            Ok(connection) => attempt(connection).await,
            Err(error) => Err(error),
        };
        verdict.give(result.as_ref().is_err_and(Error::is_outage));
        result
    }
}

/// A breaker's permission; whoever drops it without a verdict frees the way for another probe.
struct Verdict<'a> {
    breaker: &'a Mutex<Breaker>,
    is_given: bool,
}

impl Verdict<'_> {
    fn give(mut self, is_outage: bool) {
        self.is_given = true;
        let mut breaker = self.breaker.lock();
        if is_outage { breaker.failed(Instant::now()) } else { breaker.succeeded() }
    }
}

impl Drop for Verdict<'_> {
    fn drop(&mut self) {
        if !self.is_given {
            self.breaker.lock().abandoned(Instant::now());
        }
    }
}

fn limits_of(connection: &Connection) -> BatchLimits {
    let welcome = connection.welcome();
    let at_most = |announced: u32, known: usize| match announced as usize {
        0 => known,
        announced => announced.min(known),
    };
    BatchLimits {
        batch_bytes_max: at_most(welcome.batch_bytes_max, BATCH_BYTES_MAX),
        // A server may allow larger messages than the default, up to what a batch holds.
        message_bytes_max: match welcome.message_bytes_max as usize {
            0 => MESSAGE_BYTES_MAX,
            announced => announced,
        },
        records_max: RECORDS_MAX,
    }
}
