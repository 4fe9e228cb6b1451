//! The routes of pushes to processes: a message goes in, its cascade is waited for, asked for, watched,
//! called off.
//!
//! In: a body whose control values are checked before anything is taken. Out: how the cascade stands
//! by then, as a tree: 200 when it is as far as was asked, 202 when time ran out before; the cascade
//! goes on either way, also when the client is gone. Called by `table`.

use std::borrow::Cow;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Extension;
use axum::body::{Body, Bytes};
use axum::extract::{RawQuery, State};
use hyper::body::Frame;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};
use onrush_protocol::limits::TRANSACTION_ID_BYTES_MAX;
use onrush_protocol::name::{PartitionName, QueueName};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::process::ProcessError;
use crate::process::definition::{HOPS_MAX, MESSAGES_MAX};
use crate::process::keys::Address;
use crate::process::push::{Await, PushOrder, Taken, Terms};
use crate::process::tree::{LEVELS_MAX, NODES_MAX, Reach, Standing};
use crate::state::effect::ProducerSub;
use crate::wire::http::Api;
use crate::wire::http::admin::{Door, of_path, settle};
use crate::wire::http::process_answer::{Told, graph, read_cursor};
use crate::wire::http::processes::{Raw, Sender, WAIT_MS, WAIT_MS_MAX, failed, found, process_of};
use crate::wire::http::shape;
use crate::wire::http::status::{Answer, Failure, json};
use crate::wire::http::table::{READ_ONLY, READ_WRITE, Row, delete, get};
use crate::wire::http::url::Query;

/// Deepest result that can be asked for; more means all.
const DEPTH_MAX: u64 = u32::MAX as u64;

/// Routes of pushes that are under way.
#[rustfmt::skip]
pub(super) fn rows() -> Vec<Row> {
    const PUSH: &str = "/api/v1/pushes/{id}";
    vec![
        get(PUSH, READ_ONLY, "getPush", "How a push stands, as a tree", show),
        delete(PUSH, READ_WRITE, "cancelPush",
            "Let nothing of a push be evaluated any more", cancel),
        get("/api/v1/pushes/{id}/graph", READ_ONLY, "getPushGraph",
            "The messages of a push as nodes and edges", show_graph),
        get("/api/v1/pushes/{id}/events", READ_ONLY, "watchPush",
            "How a push stands whenever that changes, as server-sent events", watch),
    ]
}

/// A push as it comes.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RawPush<'a> {
    #[serde(borrow)]
    message: Option<&'a RawValue>,
    #[serde(alias = "transaction_id")]
    transaction_id: Option<&'a RawValue>,
    #[serde(rename = "await")]
    level: Option<&'a RawValue>,
    #[serde(alias = "push-mode", alias = "push_mode")]
    push_mode: Option<&'a RawValue>,
    #[serde(alias = "timeout_ms")]
    timeout_ms: Option<&'a RawValue>,
    #[serde(alias = "result_depth", alias = "result-depth")]
    result_depth: Option<&'a RawValue>,
    #[serde(alias = "max_depth", alias = "max-depth")]
    max_depth: Option<&'a RawValue>,
    #[serde(alias = "max_messages")]
    max_messages: Option<&'a RawValue>,
    #[serde(alias = "max_hops")]
    max_hops: Option<&'a RawValue>,
    strict: Option<bool>,
}

/// What a push asks besides its message.
#[derive(Clone, Copy, Debug)]
struct Wish {
    level: Await,
    patience: Duration,
    result_depth: u64,
    max_depth: Option<u64>,
    strict: bool,
    terms: Terms,
}

fn control(message: impl Into<String>) -> Failure {
    failed(&ProcessError::Control(message.into()))
}

/// A whole number, or a text that is one.
fn number(raw: Option<&RawValue>, name: &str, min: u64, max: u64) -> Result<Option<u64>, Failure> {
    let Some(raw) = raw.filter(|raw| raw.get() != "null") else { return Ok(None) };
    let text = shape::text(raw).unwrap_or(Cow::Borrowed(raw.get()));
    let number = text.parse::<u64>().ok().filter(|number| (min..=max).contains(number));
    let refused = || control(format!("{name} must be a whole number from {min} to {max}"));
    number.map(Some).ok_or_else(refused)
}

fn level(raw: &RawPush<'_>) -> Result<Await, Failure> {
    let word = |raw: &RawValue| shape::text(raw).map(Cow::into_owned).unwrap_or_default();
    let mode = match raw.push_mode.map(word).as_deref() {
        None => None,
        Some("sync") => Some(Await::Cascade),
        Some("async") => Some(Await::Accepted),
        Some(_) => return Err(control("pushMode must be sync or async")),
    };
    Ok(match raw.level.map(word).as_deref() {
        None => mode.unwrap_or_default(),
        Some("accepted") => Await::Accepted,
        Some("slot") => Await::Slot,
        Some("reply") => Await::Reply,
        Some("cascade") => Await::Cascade,
        Some(_) => return Err(control("await must be accepted, slot, reply or cascade")),
    })
}

fn wish(raw: &RawPush<'_>) -> Result<Wish, Failure> {
    let max_depth = number(raw.max_depth, "maxDepth", 0, u64::from(u32::MAX) - 1)?;
    let hops = number(raw.max_hops, "maxHops", 0, u64::from(HOPS_MAX))?;
    // 0 asks for no limit at all, and says so.
    let hops = hops.map(|hops| if hops == 0 { u32::MAX } else { hops as u32 });
    let messages_max = number(raw.max_messages, "maxMessages", 1, MESSAGES_MAX)?.unwrap_or(0);
    let timeout_ms = number(raw.timeout_ms, "timeoutMs", 0, WAIT_MS_MAX)?.unwrap_or(WAIT_MS);
    Ok(Wish {
        level: level(raw)?,
        patience: Duration::from_millis(timeout_ms),
        result_depth: number(raw.result_depth, "resultDepth", 0, DEPTH_MAX)?.unwrap_or(1),
        max_depth,
        strict: raw.strict.unwrap_or(false),
        terms: Terms { hops, messages_max, max_depth: max_depth.map(|depth| depth as u32) },
    })
}

fn sub(caller: Sender) -> Option<ProducerSub> {
    caller.and_then(|Extension(caller)| caller.sub)
}

fn transaction_id(raw: Option<&RawValue>) -> Result<Option<String>, Failure> {
    let Some(raw) = raw.filter(|raw| raw.get() != "null") else { return Ok(None) };
    let text = shape::text(raw);
    let text = text.filter(|text| (1..=TRANSACTION_ID_BYTES_MAX).contains(&text.len()));
    let limit = TRANSACTION_ID_BYTES_MAX;
    let refused = || control(format!("transactionId must be a text of 1 to {limit} bytes"));
    text.map(|text| Some(text.into_owned())).ok_or_else(refused)
}

/// Pushes a message and waits.
pub(super) async fn push(
    State(api): Door,
    path: Raw<(String, String)>,
    caller: Sender,
    RawQuery(query): RawQuery,
    body: Bytes,
) -> Answer {
    let push = async {
        let (class, key) = of_path(path)?;
        let (class, key) = process_of(&class, &key)?;
        let how = How { only: None, strict: is_strict(query)? };
        push_and_wait(&api, class, key, sub(caller), &body, how).await
    };
    settle(push.await)
}

/// As [`push`], waiting only until the message is durable.
pub(super) async fn schedule(
    State(api): Door,
    path: Raw<(String, String)>,
    caller: Sender,
    body: Bytes,
) -> Answer {
    let schedule = async {
        let (class, key) = of_path(path)?;
        let (class, key) = process_of(&class, &key)?;
        let how = How { only: Some(Await::Accepted), strict: false };
        push_and_wait(&api, class, key, sub(caller), &body, how).await
    };
    settle(schedule.await)
}

/// What the route and the query say of a push.
struct How {
    /// What is waited for, whatever the body says.
    only: Option<Await>,
    strict: bool,
}

fn is_strict(query: Option<String>) -> Result<bool, Failure> {
    let raw = query.unwrap_or_default();
    Ok(Query::parse(&raw)?.is_on("strict"))
}

async fn push_and_wait(
    api: &Api,
    class: QueueName,
    key: PartitionName,
    sub: Option<ProducerSub>,
    body: &[u8],
    how: How,
) -> Result<Answer, Failure> {
    let raw: RawPush<'_> = shape::read(body)?;
    let mut wish = wish(&raw)?;
    wish.strict |= how.strict;
    wish.level = how.only.unwrap_or(wish.level);
    let message = raw.message.ok_or_else(|| Failure::malformed("message is required"))?;
    let message = Bytes::copy_from_slice(message.get().as_bytes());
    let transaction_id = transaction_id(raw.transaction_id)?;
    let (name, instance) = (class.clone(), key.clone());
    let given = transaction_id.clone();
    let (terms, waits) = (wish.terms, wish.level != Await::Accepted);
    let order = PushOrder { class, key, message, transaction_id, terms, sub, waits };
    let processes = &api.rooms.processes;
    let taken = processes.push(order).await.map_err(|error| failed(&error))?;
    let Taken::Stored { address, duplicate, defines } = taken else {
        let body = json!({ "status": "buffered", "complete": false, "dbHealthy": false,
            "process": format!("{name}/{instance}"), "transaction_id": given });
        return Ok(json(StatusCode::ACCEPTED, &body));
    };
    if how.only.is_none() {
        if defines {
            wish.level = Await::Slot;
        }
        let run = processes.run_to(&name, &instance, address.seq).await;
        run.map_err(|error| failed(&error))?;
    }
    let extra = json!({ "transaction_id": given.unwrap_or_else(|| address.id()),
        "duplicate": duplicate });
    answer(api, address, address, &wish, extra).await
}

/// Waits for what comes of a message that is there already.
pub(super) async fn push_slot(
    State(api): Door,
    path: Raw<(String, String, String)>,
    RawQuery(query): RawQuery,
    body: Bytes,
) -> Answer {
    let push = async {
        let (class, key, slot) = of_path(path)?;
        let slot: u64 = slot.parse().map_err(|_| control("slot must be a whole number"))?;
        let text: &[u8] = if body.is_empty() { b"{}" } else { &body };
        let raw: RawPush<'_> = shape::read(text)?;
        let mut wish = wish(&raw)?;
        wish.strict |= is_strict(query)?;
        let (class, key, shown) = found(&api, &class, &key).await?;
        if slot >= shown.next {
            return Err(failed(&ProcessError::NoSlot(slot)));
        }
        let processes = &api.rooms.processes;
        let recorded = slot < shown.done;
        if let Some(why) = shown.stopped.as_deref().filter(|_| !recorded) {
            return Err(failed(&ProcessError::Stopped(why.into())));
        }
        let run = processes.run_to(&class, &key, slot).await;
        run.map_err(|error| failed(&error))?;
        let messages = processes.schedule(&class, &key, &shown, slot, slot + 1).await;
        let messages = messages.map_err(|error| failed(&error))?;
        let message = messages.first().ok_or_else(|| failed(&ProcessError::NoSlot(slot)))?;
        let extra = json!({ "recorded": recorded, "transaction_id":
            message.transaction_id.as_deref().map_or_else(|| message.address.id(), Into::into) });
        answer(&api, message.root, message.address, &wish, extra).await
    };
    settle(push.await)
}

/// Waits as far as is wished, and tells how it stands.
async fn answer(
    api: &Api,
    root: Address,
    from: Address,
    wish: &Wish,
    extra: Value,
) -> Result<Answer, Failure> {
    let processes = &api.rooms.processes;
    let max_depth = wish.max_depth.map(|depth| depth as u32);
    let waiting = processes.wait(root, wish.level, max_depth, wish.patience);
    let (standing, reached) = tokio::select! {
        waited = waiting => waited.map_err(|error| failed(&error))?,
        () = api.stopping() => {
            let standing = processes.standing(&root.id()).await;
            (standing.map_err(|error| failed(&error))?, false)
        }
    };
    let status = match () {
        () if !reached => StatusCode::ACCEPTED,
        () if wish.strict && standing.status() == "failed" => StatusCode::FAILED_DEPENDENCY,
        () if wish.strict && standing.status() == "cancelled" => StatusCode::CONFLICT,
        () => StatusCode::OK,
    };
    let levels = max_depth.map_or(LEVELS_MAX, |depth| (depth as usize + 1).min(LEVELS_MAX));
    let reach = Reach { levels, ..Reach::default() };
    let mut body = told(api, &standing, from, reach, wish).await?;
    if let (Value::Object(body), Value::Object(extra)) = (&mut body, extra) {
        body.extend(extra);
        if !reached {
            body.insert("timed_out".into(), true.into());
        }
    }
    Ok(json(status, &body))
}

async fn told(
    api: &Api,
    standing: &Standing,
    from: Address,
    reach: Reach,
    wish: &Wish,
) -> Result<Value, Failure> {
    let results = usize::try_from(wish.result_depth).unwrap_or(usize::MAX);
    let reach = Reach { results, ..reach };
    let tree = api.rooms.processes.tree(standing.root, from, reach).await;
    let tree = tree.map_err(|error| failed(&error))?;
    let now_ms = api.rooms.clock.now_ms();
    let (result_depth, max_depth) = (wish.result_depth, wish.max_depth);
    let told = Told { standing, tree: Some(tree), result_depth, max_depth, now_ms };
    Ok(Value::Object(told.body()))
}

async fn show(State(api): Door, path: Raw<String>, RawQuery(query): RawQuery) -> Answer {
    let show = async {
        let id = of_path(path)?;
        let raw = query.unwrap_or_default();
        let query = Query::parse(&raw)?;
        let wait_ms = query.number("wait", 0, WAIT_MS_MAX)?.unwrap_or(0);
        let result_depth = query.number("depth", 0, DEPTH_MAX)?.unwrap_or(1);
        let nodes = query.number("limit", 1, NODES_MAX as u64)?.unwrap_or(NODES_MAX as u64);
        let processes = &api.rooms.processes;
        let mut standing = processes.standing(&id).await.map_err(|error| failed(&error))?;
        if wait_ms > 0 && !standing.is_complete() {
            let patience = Duration::from_millis(wait_ms);
            let waited = processes.wait(standing.root, Await::Cascade, None, patience).await;
            standing = waited.map_err(|error| failed(&error))?.0;
        }
        let from = query
            .get("cursor")
            .map(|text| read_cursor(text).ok_or_else(|| control("cursor is not one of this push")));
        let (from, from_index) = from.transpose()?.unwrap_or((standing.root, 1));
        let reach = Reach { nodes: nodes as usize, from_index, ..Reach::default() };
        let wish = Wish {
            level: Await::Cascade,
            patience: Duration::ZERO,
            result_depth,
            max_depth: None,
            strict: false,
            terms: Terms::default(),
        };
        let body = told(&api, &standing, from, reach, &wish).await?;
        Ok(json(StatusCode::OK, &body))
    };
    settle(show.await)
}

async fn cancel(State(api): Door, path: Raw<String>) -> Answer {
    let cancel = async {
        let id = of_path(path)?;
        let cancelled = api.rooms.processes.cancel(&id).await;
        let standing = cancelled.map_err(|error| failed(&error))?;
        let now_ms = api.rooms.clock.now_ms();
        let told =
            Told { standing: &standing, tree: None, result_depth: 0, max_depth: None, now_ms };
        Ok(json(StatusCode::OK, &Value::Object(told.body())))
    };
    settle(cancel.await)
}

async fn show_graph(State(api): Door, path: Raw<String>) -> Answer {
    let show = async {
        let id = of_path(path)?;
        let processes = &api.rooms.processes;
        let standing = processes.standing(&id).await.map_err(|error| failed(&error))?;
        let reach = Reach { results: 0, ..Reach::default() };
        let tree = processes.tree(standing.root, standing.root, reach).await;
        let tree = tree.map_err(|error| failed(&error))?;
        Ok(json(StatusCode::OK, &graph(&standing, tree)))
    };
    settle(show.await)
}

/// Tells how a push stands, at once and whenever that changes, until nothing is pending.
async fn watch(State(api): Door, path: Raw<String>) -> Answer {
    let standing = async {
        let id = of_path(path)?;
        api.rooms.processes.standing(&id).await.map_err(|error| failed(&error))
    };
    let standing = match standing.await {
        Ok(standing) => standing,
        Err(failure) => return failure.answer(),
    };
    let (events, body) = mpsc::channel(1);
    tokio::spawn(tell(api, standing, events));
    let mut answer = Response::new(Body::new(Events(body)));
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

/// Writes events until nothing is pending, the client is gone, or the server stops.
async fn tell(api: Arc<Api>, mut standing: Standing, events: mpsc::Sender<Bytes>) {
    /// How often a client is told that the connection lives.
    const BEAT: Duration = Duration::from_secs(15);
    let mut seen = String::new();
    loop {
        let (mark, is_over) = (standing.mark(), standing.is_complete());
        let text = match mark == seen {
            true => ": still pending\n\n".to_owned(),
            false => event(&standing, api.rooms.clock.now_ms()),
        };
        if events.send(text.into()).await.is_err() || is_over {
            return;
        }
        seen = mark;
        let changed = api.rooms.processes.changed(standing.root, &seen, BEAT);
        tokio::select! {
            next = changed => match next {
                Ok(next) => standing = next,
                Err(_) => return,
            },
            () = events.closed() => return,
            () = api.stopping() => return,
        }
    }
}

fn event(standing: &Standing, now_ms: u64) -> String {
    let name = if standing.is_complete() { "complete" } else { "progress" };
    let told = Told { standing, tree: None, result_depth: 0, max_depth: None, now_ms };
    format!("event: {name}\ndata: {}\n\n", Value::Object(told.body()))
}

/// A body that is written while it is read.
struct Events(mpsc::Receiver<Bytes>);

impl hyper::body::Body for Events {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(context).map(|next| next.map(|bytes| Ok(Frame::data(bytes))))
    }
}
