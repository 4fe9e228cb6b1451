//! Pops of any queue of a namespace or a task: a task finds the queue and claims, the connection brings the
//! messages into memory when there is room for them, as for any pop.
//!
//! In: a request. Out: a claim in the connection's post, or an answer without messages. Called by
//! `connection`.

use bytes::Bytes;
use onrush_protocol::name::QueueName;
use onrush_protocol::request::PopAny;
use onrush_protocol::response::MessagesKind;
use tokio::sync::{oneshot, watch};

use crate::delivery::discover::Somewhere;
use crate::delivery::{Handout, PopError, PopOrder};
use crate::shard::command::{CommandError, Popped, Post, ReplyTo};
use crate::state::effect::LeaseToken;
use crate::wire::Rooms;
use crate::wire::tcp::Config;
use crate::wire::tcp::consumption::{self, response_to_pop};
use crate::wire::tcp::dispatch::Around;

/// What is asked, and of which queues.
pub(super) struct Order {
    namespace: Option<Box<str>>,
    task: Option<Box<str>>,
    terms: PopOrder,
}

/// Reads a request of somebody whose token lasts for `left_ms` more.
pub(super) fn order(config: &Config, asked: PopAny, left_ms: u64) -> Order {
    let PopAny { namespace, task, terms } = asked;
    Order {
        namespace: namespace.map(|text| text.as_str().into()),
        task: task.map(|text| text.as_str().into()),
        terms: consumption::order(config, terms, left_ms),
    }
}

/// Claims messages of the first queue that has some and leaves them in `post`; or returns the answer to a pop
/// that claimed nothing.
pub(super) async fn pop(
    around: Around,
    request_id: u64,
    order: Order,
    post: &Post<Popped>,
) -> Vec<Bytes> {
    let Around { rooms, config, stop, .. } = around;
    let handout = match claim(&rooms, order, stop).await {
        Ok(Some(popped)) => {
            // Where nobody looks any more, what was claimed goes back.
            drop(post.put((request_id, Ok(popped))));
            return Vec::new();
        }
        Ok(None) => Ok(Handout {
            queue: QueueName::default(),
            token: LeaseToken::default(),
            until_ms: 0,
            empty: None,
            packages: Vec::new(),
        }),
        Err(error) => Err(error),
    };
    response_to_pop((request_id, MessagesKind::Any), handout, &config)
}

/// Nothing where no queue has any in time, or the server stops.
async fn claim(
    rooms: &Rooms,
    order: Order,
    mut stop: watch::Receiver<bool>,
) -> Result<Option<Popped>, PopError> {
    let Order { namespace, task, terms } = order;
    let waits = terms.wait_ms > 0;
    let somewhere = Somewhere { namespace: namespace.as_deref(), task: task.as_deref() };
    let attempt = |order: PopOrder| async move {
        let (reply, answer) = oneshot::channel();
        rooms.delivery.begin_pop(order, ReplyTo::Task(reply));
        let popped = answer.await.unwrap_or(Err(CommandError::ShuttingDown))?;
        Ok((!popped.parcels.is_empty()).then_some(popped))
    };
    tokio::select! {
        // In this order, so that messages that are there are not left behind.
        biased;
        popped = rooms.delivery.pop_somewhere(somewhere, terms, attempt) => popped,
        _ = stop.wait_for(|stop| *stop), if waits => Ok(None),
    }
}
