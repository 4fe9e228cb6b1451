//! Two ways to hand messages over: one by one, or a partition's worth at once.
//!
//! In: messages of one partition that came together. Out: how many of them, from the front, were
//! done, and whether the next one failed. Called by the workers.

use std::fmt::Display;
use std::future::Future;

use crate::received::ReceivedMessage;

/// What a handler did with messages of one partition.
#[derive(Debug, Default)]
pub struct Handled {
    /// How many were done, from the first.
    pub(super) done: usize,
    /// How many failed after those, and why. What comes behind them was not handed over.
    pub(super) failed: Option<(usize, String)>,
}

/// Hands messages to a user's function. Only this crate implements it.
pub trait Handler: sealed::Sealed + Send + Sync + 'static {
    /// Hands over messages of one partition, in order.
    fn handle(&self, messages: Vec<ReceivedMessage>) -> impl Future<Output = Handled> + Send;
}

mod sealed {
    /// Keeps [`super::Handler`] to this crate.
    pub trait Sealed {}
}

/// One message at a time.
#[derive(Debug)]
pub struct Each<H> {
    handler: H,
}

impl<H> Each<H> {
    pub(crate) fn new(handler: H) -> Self {
        Self { handler }
    }
}

impl<H> sealed::Sealed for Each<H> {}

impl<H, F, E> Handler for Each<H>
where
    H: Fn(ReceivedMessage) -> F + Send + Sync + 'static,
    F: Future<Output = Result<(), E>> + Send,
    E: Display + Send,
{
    async fn handle(&self, messages: Vec<ReceivedMessage>) -> Handled {
        let mut handled = Handled::default();
        for message in messages {
            if let Err(error) = (self.handler)(message).await {
                handled.failed = Some((1, error.to_string()));
                break;
            }
            handled.done += 1;
        }
        handled
    }
}

/// All messages of one partition that came together; they succeed or fail together.
#[derive(Debug)]
pub struct InBatches<H> {
    handler: H,
}

impl<H> InBatches<H> {
    pub(crate) fn new(handler: H) -> Self {
        Self { handler }
    }
}

impl<H> sealed::Sealed for InBatches<H> {}

impl<H, F, E> Handler for InBatches<H>
where
    H: Fn(Vec<ReceivedMessage>) -> F + Send + Sync + 'static,
    F: Future<Output = Result<(), E>> + Send,
    E: Display + Send,
{
    async fn handle(&self, messages: Vec<ReceivedMessage>) -> Handled {
        let count = messages.len();
        match (self.handler)(messages).await {
            Ok(()) => Handled { done: count, failed: None },
            Err(error) => Handled { done: 0, failed: Some((count, error.to_string())) },
        }
    }
}
