//! A queue as users speak of it: the start of every sentence of the fluent interface.
//!
//! In: a name, perhaps a partition. Out: builders for pushing, popping, consuming, buffering and
//! setting up. Called by users.

use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::time::Duration;

use onrush_protocol::request::{ClearQueue, Configure, DeleteQueue, JobAction};
use onrush_protocol::{
    NameError, PartitionName, QueueName, QueueOptions, Request, Response, ShortText,
};

use crate::buffer::Buffer;
use crate::client::{Client, Repeat};
use crate::connection::mismatch;
use crate::consume::{Consume, Each, InBatches};
use crate::desk::{ListOfMessages, Scope};
use crate::error::Error;
use crate::letters::{LetterJob, ListOfLetters};
use crate::message::Message;
use crate::pop::Pop;
use crate::push::Push;
use crate::received::ReceivedMessage;

/// What every builder of this crate becomes when it is awaited. It borrows nothing.
pub type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// A queue, or one partition of it. Cheap to clone; making one sends nothing.
#[derive(Clone, Debug)]
pub struct Queue {
    client: Client,
    target: Result<Target, NameError>,
}

/// Names that were checked.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) queue: QueueName,
    pub(crate) partition: Option<PartitionName>,
}

impl Target {
    /// Where a push goes.
    pub(crate) fn partition(&self) -> PartitionName {
        self.partition.clone().unwrap_or_default()
    }
}

impl Queue {
    /// Where it is, once its name is known to be one.
    pub(crate) fn target(&self) -> Result<Target, NameError> {
        self.target.clone()
    }

    pub(crate) fn new(client: Client, name: &str) -> Self {
        let target = name.parse().map(|queue| Target { queue, partition: None });
        Self { client, target }
    }

    /// One partition of the queue: strictly ordered, made by its first message. Pushes without
    /// one go to `Default`; pops without one take from any.
    #[must_use]
    pub fn partition(&self, name: &str) -> Self {
        let (client, target) = (self.client.clone(), self.target.clone());
        let target = target.and_then(|target| {
            let partition = Some(name.parse()?);
            Ok(Target { partition, ..target })
        });
        Self { client, target }
    }

    /// Pushes messages, in their order, however many there are. Await it.
    pub fn push(&self, messages: impl IntoIterator<Item = Message>) -> Push {
        Push::new(self.client.clone(), self.target.clone(), messages.into_iter().collect())
    }

    /// Takes messages out under a lease. Await it.
    pub fn pop(&self) -> Pop {
        Pop::new(self.client.clone(), self.target.clone())
    }

    /// Hands messages to `handler` one by one, acknowledges what it did and gives back what it
    /// could not do. Start it.
    pub fn consume<H, F, E>(&self, handler: H) -> Consume<Each<H>>
    where
        H: Fn(ReceivedMessage) -> F + Send + Sync + 'static,
        F: Future<Output = Result<(), E>> + Send,
        E: std::fmt::Display + Send,
    {
        Consume::new(self.pop(), self.client.clone(), Each::new(handler))
    }

    /// As [`Self::consume`], with all messages of one partition that came together as one.
    pub fn consume_batches<H, F, E>(&self, handler: H) -> Consume<InBatches<H>>
    where
        H: Fn(Vec<ReceivedMessage>) -> F + Send + Sync + 'static,
        F: Future<Output = Result<(), E>> + Send,
        E: std::fmt::Display + Send,
    {
        Consume::new(self.pop(), self.client.clone(), InBatches::new(handler))
    }

    /// Collects messages here and pushes them when there are `messages_max` or the oldest has
    /// waited for `wait`. They are in this process's memory only until then.
    ///
    /// # Errors
    /// [`Error::Name`] for a name that no queue or partition may have, [`Error::Value`] for a
    /// `messages_max` of 0.
    pub fn buffer(&self, messages_max: usize, wait: Duration) -> Result<Buffer, Error> {
        let target = self.target.clone()?;
        Buffer::start(self.client.clone(), target, messages_max, wait)
    }

    /// Its messages, or its partition's, newest first: a page that is still to be asked for.
    pub fn messages(&self) -> ListOfMessages {
        ListOfMessages::new(self.client.clone(), self.scope())
    }

    /// Its dead letters, or its partition's, newest failure first: a page that is still to be asked for.
    pub fn dead_letters(&self) -> ListOfLetters {
        ListOfLetters::new(self.client.clone(), self.scope())
    }

    /// Gives its dead letters, or its partition's, back to their groups with no attempt counted. Await it.
    pub fn redrive(&self) -> LetterJob {
        LetterJob::new(self.client.clone(), self.target.clone(), Ok(JobAction::Redrive))
    }

    /// Pushes its dead letters, or its partition's, as new messages to `to`: a queue, or one partition of
    /// it; without a partition, into those of the same names. Await it.
    pub fn requeue(&self, to: &Queue) -> LetterJob {
        let action = to.target.clone().map(|Target { queue, partition }| JobAction::Requeue {
            queue: Some(queue),
            partition,
        });
        LetterJob::new(self.client.clone(), self.target.clone(), action)
    }

    /// Deletes its dead letters, or its partition's. Await it.
    pub fn delete_letters(&self) -> LetterJob {
        LetterJob::new(self.client.clone(), self.target.clone(), Ok(JobAction::Delete))
    }

    fn scope(&self) -> Result<Scope, NameError> {
        let target = self.target.clone()?;
        Ok(Scope { queue: Some(target.queue), partition: target.partition })
    }

    /// Sets the queue's options; options that `options` leaves at their default go back to it.
    pub fn config(&self, options: QueueOptions) -> Config {
        let (client, target) = (self.client.clone(), self.target.clone());
        let (namespace, task) = (ShortText::default(), ShortText::default());
        Config { client, target, options, namespace, task, sql_rows: false }
    }

    /// Makes the queue with default options.
    ///
    /// # Errors
    /// As [`Config::create`].
    pub async fn create(&self) -> Result<QueueOptions, Error> {
        self.config(QueueOptions::default()).create().await
    }

    /// Lets go of all its messages, or its partition's; settings, groups and dead letters stay. Returns how
    /// many went. Not repeated when its outcome is unknown: what came in between would go too.
    ///
    /// # Errors
    /// [`Error::Refused`] when there is no such queue.
    pub async fn clear(&self) -> Result<u64, Error> {
        let Target { queue, partition } = self.target.clone()?;
        let request = Request::ClearQueue(ClearQueue { queue, partition });
        match self.client.request(Repeat::Unsafe, &request).await? {
            Response::Cleared(cleared) => Ok(cleared.messages),
            other => Err(mismatch("clear queue", &other)),
        }
    }

    /// Removes the queue with all its messages, groups and dead letters. Returns whether it
    /// existed.
    ///
    /// # Errors
    /// Any [`Error`]; it is not repeated when its outcome is unknown.
    pub async fn delete(&self) -> Result<bool, Error> {
        let queue = self.target.clone()?.queue;
        self.client.delete_queue(DeleteQueue { queue }).await
    }
}

/// A queue's options on their way to the server. [`Self::create`] it, or await it.
#[derive(Clone, Debug)]
#[must_use = "nothing is sent until it is created or awaited"]
pub struct Config {
    client: Client,
    target: Result<Target, NameError>,
    options: QueueOptions,
    namespace: ShortText,
    task: ShortText,
    sql_rows: bool,
}

impl Config {
    /// Whether the queue's messages are also rows of the database that the store is in, from now on.
    /// A server whose store is in none refuses it.
    pub fn sql_rows(mut self, sql_rows: bool) -> Self {
        self.sql_rows = sql_rows;
        self
    }

    /// What the queue belongs to; cut at 255 bytes.
    pub fn namespace(mut self, namespace: &str) -> Self {
        self.namespace = ShortText::lossy(namespace);
        self
    }

    /// What the queue is for; cut at 255 bytes.
    pub fn task(mut self, task: &str) -> Self {
        self.task = ShortText::lossy(task);
        self
    }

    /// Creates the queue or changes it. Returns the options that now hold. Safe to repeat.
    ///
    /// # Errors
    /// [`Error::Refused`] with the option that the server does not take.
    pub async fn create(self) -> Result<QueueOptions, Error> {
        let queue = self.target?.queue;
        let (options, namespace, task) = (self.options, self.namespace, self.task);
        let sql_rows = self.sql_rows;
        let request = Request::Configure(Configure { queue, namespace, task, options, sql_rows });
        match self.client.request(Repeat::Safe, &request).await? {
            Response::Configured(configured) => Ok(configured.options),
            other => Err(mismatch("configure", &other)),
        }
    }
}

impl IntoFuture for Config {
    type Output = Result<QueueOptions, Error>;
    type IntoFuture = BoxFuture<Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.create())
    }
}
