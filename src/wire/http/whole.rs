//! The routes of what stands or falls as a whole: transactions, and the cycles of queries.
//!
//! In: requests. Out: answers of `transaction` and `streams`. Called by `table`.

use std::sync::Arc;

use axum::Extension;
use axum::body::Bytes;
use axum::extract::State;
use hyper::HeaderMap;

use crate::state::effect::ProducerSub;
use crate::wire::auth::Caller;
use crate::wire::http::push::Origin;
use crate::wire::http::status::{Answer, Failure};
use crate::wire::http::table::{READ_ONLY, READ_WRITE, Row, post};
use crate::wire::http::{Api, streams, transaction};

type Door = State<Arc<Api>>;

/// Who sends a request, where that is known.
type Sender = Option<Extension<Caller>>;

fn sub(caller: Sender) -> Option<ProducerSub> {
    caller.and_then(|Extension(caller)| caller.sub)
}

#[rustfmt::skip]
pub(super) fn rows() -> Vec<Row> {
    vec![
        post("/api/v1/transaction", READ_WRITE, "commitTransaction",
            "Acks and pushes that stand or fall as a whole", commit),
        post("/streams/v1/queries", READ_WRITE, "registerQuery",
            "Make a query over a queue known, or begin it anew", register),
        post("/streams/v1/cycle", READ_WRITE, "moveQueryOn",
            "State, pushes and an ack of a query as a whole", cycle),
        post("/streams/v1/state/get", READ_ONLY, "readQueryState",
            "State keys of a query in one partition", read_states),
    ]
}

fn settle(result: Result<Answer, Failure>) -> Answer {
    result.unwrap_or_else(|failure| failure.answer())
}

async fn commit(State(api): Door, caller: Sender, headers: HeaderMap, body: Bytes) -> Answer {
    settle(transaction::transaction(&api, &body, Origin::of(&headers, sub(caller))).await)
}

async fn register(State(api): Door, body: Bytes) -> Answer {
    settle(streams::register(&api, &body).await)
}

async fn cycle(State(api): Door, caller: Sender, headers: HeaderMap, body: Bytes) -> Answer {
    settle(streams::cycle(&api, &body, Origin::of(&headers, sub(caller))).await)
}

async fn read_states(State(api): Door, body: Bytes) -> Answer {
    settle(streams::read_states(&api, &body).await)
}
