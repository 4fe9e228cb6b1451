//! Popping: messages out, under a lease.
//!
//! In: which group, how many, how long to wait. Out: [`Popped`]. Called through
//! [`crate::Queue::pop`] and by the consumer.

use std::future::IntoFuture;
use std::time::Duration;

use onrush_protocol::limits::POP_MESSAGES_MAX;
use onrush_protocol::request::{Pop as PopRequest, PopAny, PopKnown, SubscriptionStart};
use onrush_protocol::response::KnownMessages;
use onrush_protocol::{
    Code, GroupName, NO_LEASE, NameError, QueueName, Request, Response, ShortText,
};

use crate::client::Client;
use crate::connection::mismatch;
use crate::error::Error;
use crate::queue::{BoxFuture, Target};
use crate::received::Popped;

/// A pop that was not sent yet. Await it.
///
/// Waits at the server for the first message, as long as [`Self::wait`] says, and holds one place
/// of the connection's window meanwhile. It is not repeated when its outcome is unknown. Dropping
/// the future does not cancel the pop at the server: messages that were handed out to nobody stay
/// under their lease until it ends (with [`Self::auto_ack`] they are lost).
#[derive(Clone, Debug)]
#[must_use = "nothing is sent until it is awaited"]
pub struct Pop {
    client: Client,
    place: Result<Place, NameError>,
    group: Result<GroupName, NameError>,
    batch: u32,
    bytes_max: u32,
    partitions: u16,
    wait: Duration,
    lease: Duration,
    auto_ack: bool,
    start: SubscriptionStart,
}

/// Where messages are wanted from.
#[derive(Clone, Debug)]
enum Place {
    /// A queue, or one partition of it.
    Queue(Target),
    /// Any queue of a namespace, of a task, or of both.
    Any { namespace: Option<ShortText>, task: Option<ShortText> },
}

impl Pop {
    pub(crate) fn new(client: Client, target: Result<Target, NameError>) -> Self {
        Self::of(client, target.map(Place::Queue))
    }

    pub(crate) fn any(client: Client, namespace: Option<&str>, task: Option<&str>) -> Self {
        let text = |text: Option<&str>| text.map(str::parse).transpose();
        let place = || Ok(Place::Any { namespace: text(namespace)?, task: text(task)? });
        Self::of(client, place())
    }

    fn of(client: Client, place: Result<Place, NameError>) -> Self {
        Self {
            client,
            place,
            group: Ok(GroupName::queue_mode()),
            batch: 1,
            bytes_max: 0,
            partitions: 1,
            wait: Duration::ZERO,
            lease: Duration::ZERO,
            auto_ack: false,
            start: SubscriptionStart::Default,
        }
    }

    /// On whose behalf. Default: queue mode, where all consumers share one cursor.
    pub fn group(mut self, group: &str) -> Self {
        self.group = group.parse();
        self
    }

    /// Most messages wanted: 1 to 10 000. Default: 1.
    pub fn batch(mut self, messages_max: u32) -> Self {
        self.batch = messages_max;
        self
    }

    /// Most payload bytes wanted; one message may exceed it. Default: the server's.
    pub fn bytes(mut self, bytes_max: u32) -> Self {
        self.bytes_max = bytes_max;
        self
    }

    /// Most partitions that the answer may mix, at least 1. Default: 1.
    pub fn partitions(mut self, partitions_max: u16) -> Self {
        self.partitions = partitions_max;
        self
    }

    /// How long the server waits for the first message. Default: not at all.
    pub fn wait(mut self, wait: Duration) -> Self {
        self.wait = wait;
        self
    }

    /// How long the messages are held for us. Default: what the queue says.
    pub fn lease(mut self, lease: Duration) -> Self {
        self.lease = lease;
        self
    }

    /// Whether messages count as completed as soon as they are handed out. They are lost when the
    /// answer is. Default: no.
    pub fn auto_ack(mut self, auto_ack: bool) -> Self {
        self.auto_ack = auto_ack;
        self
    }

    /// Where the group begins if it is seen for the first time. Default: the server's.
    pub fn start(mut self, start: SubscriptionStart) -> Self {
        self.start = start;
        self
    }

    /// How long a group's poll waits at the server.
    pub(crate) fn waiting(&self) -> Duration {
        self.wait
    }

    /// Sends the pop and waits for its answer.
    ///
    /// # Errors
    /// [`Error::Value`] and [`Error::Name`] before anything is sent, else any [`Error`].
    pub async fn send(&self) -> Result<Popped, Error> {
        let place = self.place.clone()?;
        let group = self.group.clone()?;
        let in_range = |field, value: u64, max: u64| match value {
            value if value < 1 || value > max => Err(Error::Value { field, value, min: 1, max }),
            _ => Ok(()),
        };
        in_range("batch", u64::from(self.batch), u64::from(POP_MESSAGES_MAX))?;
        in_range("partitions", u64::from(self.partitions), u64::from(u16::MAX))?;
        let (queue, partition) = match &place {
            Place::Queue(target) => (target.queue.clone(), target.partition.clone()),
            Place::Any { .. } => (QueueName::default(), None),
        };
        let pop = PopRequest {
            queue,
            partition,
            group: group.clone(),
            messages_max: self.batch,
            bytes_max: self.bytes_max,
            partitions_max: self.partitions,
            wait_ms: whole_ms(self.wait),
            lease_ms: whole_ms(self.lease),
            auto_ack: self.auto_ack,
            start: self.start,
        };
        let mut known = match place {
            Place::Queue(_) => self.take(pop).await?,
            Place::Any { namespace: None, task: None } => {
                let field = "namespace or task";
                return Err(Error::Value { field, value: 0, min: 1, max: 2 });
            }
            Place::Any { namespace, task } => {
                let request = Request::PopAny(PopAny { namespace, task, terms: pop });
                match self.client.request_waiting(&request, self.wait).await? {
                    Response::AnyMessages(known) => known,
                    other => return Err(mismatch("pop any", &other)),
                }
            }
        };
        if self.auto_ack {
            // Nothing is held, whatever the answer says: acks would be refused.
            known.messages.lease = NO_LEASE;
        }
        Popped::read(known, group)
    }

    /// Asks for who pushed as well, of a server that can say it.
    async fn take(&self, pop: PopRequest) -> Result<KnownMessages, Error> {
        if self.client.asks_who_pushed() {
            let request = Request::PopKnown(PopKnown { pop: pop.clone() });
            match self.client.request_waiting(&request, self.wait).await {
                Ok(Response::KnownMessages(known)) => return Ok(known),
                Ok(other) => return Err(mismatch("pop", &other)),
                Err(error) if error.code() == Some(Code::UnknownOpcode) => {
                    self.client.ask_who_pushed_no_more();
                }
                Err(error) => return Err(error),
            }
        }
        match self.client.request_waiting(&Request::Pop(pop), self.wait).await? {
            Response::Messages(messages) => Ok(KnownMessages { messages, producers: Vec::new() }),
            other => Err(mismatch("pop", &other)),
        }
    }
}

impl IntoFuture for Pop {
    type Output = Result<Popped, Error>;
    type IntoFuture = BoxFuture<Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move { self.send().await })
    }
}

/// Whole milliseconds; what is not zero stays so, because zero has a meaning of its own.
fn whole_ms(duration: Duration) -> u32 {
    let ms = duration.as_nanos().div_ceil(1_000_000);
    u32::try_from(ms).unwrap_or(u32::MAX)
}
