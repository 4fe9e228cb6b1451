//! Requests about processes: read here, answered by `process_ask`, whose body goes out as it would over HTTP.
//!
//! In: a request. Out: a status and JSON, or a failure. Called by `dispatch`.

use std::time::Duration;

use onrush_protocol::code::Code;
use onrush_protocol::request::{
    AwaitLevel, ChangeProcess, GetProcess, GetPush, ProcessChange, ProcessLook, PushControls,
    PushProcess, Request,
};
use onrush_protocol::response::{Failure, ProcessAnswer, Response};

use crate::process::ProcessError;
use crate::process::push::{Await, PushOrder};
use crate::state::effect::ProducerSub;
use crate::wire::codes;
use crate::wire::process_ask::{Asked, Desk, Look, RawWish, Reply, Span, Wish};
use crate::wire::tcp::failure;

fn failed(error: &ProcessError) -> Failure {
    failure::plain(codes::of_process_error(error), error)
}

fn told(asked: Asked) -> Result<ProcessAnswer, Failure> {
    let Reply { status, body } = asked.map_err(|error| failed(&error))?;
    Ok(ProcessAnswer { status, json: body.to_string().into() })
}

fn wish(controls: &PushControls) -> Result<Wish, Failure> {
    let raw = RawWish {
        level: match controls.level {
            AwaitLevel::Default => None,
            AwaitLevel::Accepted => Some(Await::Accepted),
            AwaitLevel::Slot => Some(Await::Slot),
            AwaitLevel::Reply => Some(Await::Reply),
            AwaitLevel::Cascade => Some(Await::Cascade),
        },
        timeout_ms: controls.timeout_ms.map(u64::from),
        result_depth: controls.result_depth.map(u64::from),
        max_depth: controls.max_depth.map(u64::from),
        max_hops: controls.max_hops.map(u64::from),
        max_messages: controls.max_messages,
        strict: controls.strict,
    };
    raw.checked().map_err(|error| failed(&error))
}

fn millis(wait_ms: u32) -> Duration {
    Duration::from_millis(u64::from(wait_ms))
}

/// Answers a request about processes.
pub(super) async fn answer(
    desk: &Desk<'_>,
    request: Request,
    sub: Option<ProducerSub>,
) -> Result<Response, Failure> {
    match request {
        Request::PushProcess(asked) => push(desk, asked, sub).await.map(Response::ProcessPushed),
        Request::PushSlot(asked) => {
            let wish = wish(&asked.controls)?;
            let pushed = desk.push_slot(&asked.class, &asked.key, asked.slot, &wish).await;
            told(pushed).map(Response::SlotPushed)
        }
        Request::GetPush(asked) => told(show(desk, &asked).await).map(Response::PushShown),
        Request::CancelPush(asked) => {
            told(desk.cancel(asked.push.as_str()).await).map(Response::PushCancelled)
        }
        Request::GetProcess(asked) => told(look(desk, &asked).await).map(Response::ProcessShown),
        Request::ChangeProcess(asked) => {
            told(change(desk, &asked).await).map(Response::ProcessChanged)
        }
        _ => Err(Failure::new(Code::Internal, "a request came the wrong way")),
    }
}

async fn push(
    desk: &Desk<'_>,
    asked: PushProcess,
    sub: Option<ProducerSub>,
) -> Result<ProcessAnswer, Failure> {
    let wish = wish(&asked.controls)?;
    let id = asked.transaction_id.as_str();
    let order = PushOrder {
        class: asked.class.detach(),
        key: asked.key.detach(),
        message: asked.message,
        transaction_id: (!id.is_empty()).then(|| id.to_owned()),
        trace_id: None,
        terms: wish.terms,
        sub,
        waits: false,
        runs: false,
    };
    told(desk.push(order, wish, None).await)
}

async fn show(desk: &Desk<'_>, asked: &GetPush) -> Asked {
    if asked.as_graph {
        return desk.graph(asked.push.as_str()).await;
    }
    let cursor = asked.cursor.as_str();
    let look = Look {
        patience: millis(asked.wait_ms),
        result_depth: u64::from(asked.result_depth),
        nodes: u64::from(asked.limit),
        cursor: (!cursor.is_empty()).then_some(cursor),
    };
    desk.status(asked.push.as_str(), look).await
}

async fn look(desk: &Desk<'_>, asked: &GetProcess) -> Asked {
    let GetProcess { class, key, look } = asked;
    match look {
        ProcessLook::Standing => desk.instance(class, key).await,
        ProcessLook::Slots { from, last, limit } => {
            let span = Span { from: *from, last: *last, limit: u64::from(*limit) };
            desk.slots(class, key, span).await
        }
        ProcessLook::Slot { slot, wait_ms, path } => {
            desk.slot(class, key, *slot, millis(*wait_ms), path.as_str()).await
        }
        ProcessLook::Newest { wait_ms, path } => {
            desk.newest(class, key, millis(*wait_ms), path.as_str()).await
        }
        ProcessLook::State { prefix, after, limit } => {
            let after = (!after.as_str().is_empty()).then_some(after.as_str());
            desk.state(class, key, (prefix.as_str(), after), u64::from(*limit)).await
        }
        ProcessLook::StateKey { name } => desk.state_key(class, key, name.as_str()).await,
    }
}

async fn change(desk: &Desk<'_>, asked: &ChangeProcess) -> Asked {
    let ChangeProcess { class, key, change } = asked;
    match change {
        ProcessChange::Pause { reason } => {
            let reason = match reason.as_str() {
                "" => "paused",
                reason => reason,
            };
            desk.stop(class, key, Some(reason)).await
        }
        ProcessChange::Resume => desk.stop(class, key, None).await,
    }
}
