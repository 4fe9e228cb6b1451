//! The pop route without a queue: from any queue of a namespace or task.
//!
//! In: `namespace` and `task` from the query, and everything that a pop knows. Out: what the first
//! of their queues with work hands out, in the shape of any pop. Queues take turns at being first.
//! A consumer that waits looks again and again, at first often and then every half second: no queue
//! can be parked on that is not there yet. Called by `route`.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use onrush_protocol::name::QueueName;
use tokio::time::sleep;

use crate::delivery::PopOrder;
use crate::wire::http::Api;
use crate::wire::http::pop::{hand_out, order};
use crate::wire::http::status::{Answer, Failure, empty};
use crate::wire::http::url::Query;

/// Between two looks: at first, and at most.
const PAUSE_FIRST: Duration = Duration::from_millis(25);
const PAUSE_MAX: Duration = Duration::from_millis(500);

/// Whose queue was first the last time.
#[derive(Debug, Default)]
pub(super) struct Turn(AtomicUsize);

/// Pops from any queue that fits.
pub(super) async fn pop(api: &Api, query: &str) -> Result<Answer, Failure> {
    let query = Query::parse(query)?;
    let (namespace, task) = (query.get("namespace"), query.get("task"));
    if namespace.is_none() && task.is_none() {
        return Err(Failure::malformed("namespace or task is required"));
    }
    let strict = api.dialect.is_strict();
    let asked = order(&api.config, strict, QueueName::default(), None, &query)?;
    let until_us = api.rooms.clock.monotonic_us() + asked.wait_ms.saturating_mul(1000);
    let mut pause = PAUSE_FIRST;
    loop {
        for queue in fitting(api, namespace, task)? {
            let once = PopOrder { queue, wait_ms: 0, ..asked.clone() };
            if let Some(answer) = hand_out(api, once).await? {
                return Ok(answer);
            }
        }
        let left_us = until_us.saturating_sub(api.rooms.clock.monotonic_us());
        if left_us == 0 {
            return Ok(empty());
        }
        tokio::select! {
            () = sleep(pause.min(Duration::from_micros(left_us))) => {}
            () = api.stopping() => return Ok(empty()),
        }
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// The queues that fit, another one first each time.
fn fitting(
    api: &Api,
    namespace: Option<&str>,
    task: Option<&str>,
) -> Result<Vec<QueueName>, Failure> {
    let queues = api.rooms.catalogs.list();
    let fit = queues.iter().filter(|queue| {
        namespace.is_none_or(|wanted| *queue.namespace == *wanted)
            && task.is_none_or(|wanted| *queue.task == *wanted)
    });
    let names = fit.map(|queue| queue.name.parse::<QueueName>());
    let mut names = names.collect::<Result<Vec<_>, _>>()?;
    let turn = api.turn.0.fetch_add(1, Ordering::Relaxed);
    let first = turn.checked_rem(names.len()).unwrap_or(0);
    names.rotate_left(first);
    Ok(names)
}
