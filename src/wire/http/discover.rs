//! The pop route without a queue: from any queue of a namespace or task.
//!
//! In: `namespace` and `task` from the query, and everything that a pop knows. Out: what the first
//! of their queues with work hands out, in the shape of any pop; who is asked first, [`Turns`] says.
//! A queue whose next message cannot be handed out is said to be so when no other has any.
//! A consumer that waits is told by the lane of work in any of them, those included that come later, and
//! looks again. Called by `route`.

use std::time::Duration;

use onrush_protocol::name::{GroupName, QueueName};
use tokio::time::sleep;

use crate::base::place::QueueId;
use crate::delivery::{PopError, PopOrder};
use crate::wire::http::Api;
use crate::wire::http::pop::{hand_out, order, refused, sized_here};
use crate::wire::http::status::{Answer, Failure, empty};
use crate::wire::http::url::Query;

/// Pops from any queue that fits, for somebody whose token lasts for `left_ms` more.
pub(super) async fn pop(api: &Api, query: &str, left_ms: u64) -> Result<Answer, Failure> {
    let query = Query::parse(query)?;
    let (namespace, task) = (query.get("namespace"), query.get("task"));
    if namespace.is_none() && task.is_none() {
        return Err(Failure::malformed("namespace or task is required"));
    }
    let strict = api.dialect.is_strict();
    let asked = order(&api.config, strict, QueueName::default(), None, &query)?;
    let sized = sized_here(&query, &asked);
    let wait_us = asked.wait_ms.min(left_ms).saturating_mul(1000);
    let until_us = api.rooms.clock.monotonic_us() + wait_us;
    loop {
        // Before the look, so that what comes after it is heard of.
        let told =
            (asked.wait_ms > 0).then(|| api.rooms.delivery.watch(namespace, task, &asked.group));
        let fit = fitting(api, namespace, task, &asked.group)?;
        let ids: Vec<QueueId> = fit.iter().map(|(id, _)| *id).collect();
        let mut failed = None;
        for (at, (_, queue)) in fit.into_iter().enumerate() {
            let once = PopOrder { queue, wait_ms: 0, ..asked.clone() };
            match hand_out(api, once, sized).await {
                Ok(None) => {}
                Ok(Some(answer)) => {
                    api.turns.note(&asked.group, &ids, at);
                    return Ok(answer);
                }
                // Whatever it is about holds up every queue.
                Err(error @ PopError::Command(_)) => return Err(refused(&error)),
                // It is about one message, and the other queues have others.
                Err(error) => {
                    failed.get_or_insert(error);
                }
            }
        }
        api.turns.note(&asked.group, &ids, ids.len());
        if let Some(error) = failed {
            return Err(refused(&error));
        }
        let left_us = until_us.saturating_sub(api.rooms.clock.monotonic_us());
        let Some(told) = told.filter(|_| left_us > 0) else { return Ok(empty()) };
        tokio::select! {
            told = told => {
                if told.is_err() {
                    // The engine stops.
                    return Ok(empty());
                }
            }
            () = sleep(Duration::from_micros(left_us)) => return Ok(empty()),
            () = api.stopping() => return Ok(empty()),
        }
    }
}

/// The queues that fit, in the order in which they are to be asked.
fn fitting(
    api: &Api,
    namespace: Option<&str>,
    task: Option<&str>,
    group: &GroupName,
) -> Result<Vec<(QueueId, QueueName)>, Failure> {
    let queues = api.rooms.catalogs.list();
    let fit = queues.iter().filter(|queue| {
        namespace.is_none_or(|wanted| *queue.namespace == *wanted)
            && task.is_none_or(|wanted| *queue.task == *wanted)
    });
    let mut fit: Vec<_> = fit.collect();
    api.turns.sort(group, &mut fit, |queue| (queue.id, queue.options.priority));
    let names = fit.iter().map(|queue| Ok((queue.id, queue.name.parse::<QueueName>()?)));
    names.collect()
}
