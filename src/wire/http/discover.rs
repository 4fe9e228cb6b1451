//! The pop route without a queue: from any queue of a namespace or task.
//!
//! In: `namespace` and `task` from the query, and everything that a pop knows. Out: what the first
//! of their queues with work hands out, in the shape of any pop. Called by `route`.

use onrush_protocol::name::QueueName;

use crate::delivery::PopOrder;
use crate::delivery::discover::Somewhere;
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
    let asked = PopOrder { wait_ms: asked.wait_ms.min(left_ms), ..asked };
    let waits = asked.wait_ms > 0;
    let somewhere = Somewhere { namespace, task };
    let attempt = |order| hand_out(api, order, sized);
    let popped = tokio::select! {
        // In this order, so that messages that are there are not left behind.
        biased;
        popped = api.rooms.delivery.pop_somewhere(somewhere, asked, attempt) => popped,
        () = api.stopping(), if waits => return Ok(empty()),
    };
    Ok(popped.map_err(|error| refused(&error))?.unwrap_or_else(empty))
}
