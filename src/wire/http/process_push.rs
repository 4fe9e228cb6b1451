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
use hyper::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::{HeaderMap, Response, StatusCode};
use onrush_protocol::id::uuid_parse;
use onrush_protocol::limits::TRANSACTION_ID_BYTES_MAX;
use onrush_protocol::name::{PartitionName, QueueName};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use tokio::sync::mpsc;

use crate::process::push::{Await, PushOrder};
use crate::process::tree::{NODES_MAX, Standing};
use crate::state::effect::ProducerSub;
use crate::wire::http::Api;
use crate::wire::http::admin::{Door, of_path, settle};
use crate::wire::http::process_hb;
use crate::wire::http::processes::{Raw, Sender, failed, process_of, replied};
use crate::wire::http::shape;
use crate::wire::http::status::{Answer, Failure, json};
use crate::wire::http::table::{READ_ONLY, READ_WRITE, Row, delete, get};
use crate::wire::http::url::Query;
use crate::wire::process_ask::{self, Asked, DEPTH_MAX, Look, RawWish, Reply, WAIT_MS_MAX, Wish};
use crate::wire::process_told::Told;

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
    #[serde(alias = "trace_id")]
    trace_id: Option<&'a RawValue>,
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

/// In which shape a push is answered.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Form {
    /// Ours.
    Own,
    /// HyperBEAM's.
    Theirs,
}

impl Form {
    /// What a client asks for.
    fn asked(headers: &HeaderMap) -> Self {
        let accepts = headers.get(ACCEPT).and_then(|value| value.to_str().ok());
        let is_theirs = |kind: &str| {
            let kind = kind.split(';').next().unwrap_or_default().trim();
            kind.eq_ignore_ascii_case(process_hb::KIND)
        };
        match accepts.is_some_and(|kinds| kinds.split(',').any(is_theirs)) {
            true => Self::Theirs,
            false => Self::Own,
        }
    }

    /// An answer in this shape.
    pub(super) fn replied(self, asked: Asked) -> Result<Answer, Failure> {
        match (self, asked) {
            (Self::Theirs, Ok(Reply { status, body })) => {
                let status = StatusCode::from_u16(status).unwrap_or(StatusCode::OK);
                let mut answer = json(status, &process_hb::told(&body));
                let kind = HeaderValue::from_static(process_hb::KIND);
                answer.headers_mut().insert(CONTENT_TYPE, kind);
                Ok(answer)
            }
            (_, asked) => replied(asked),
        }
    }

    /// Whether a push that failed is told so by the status without being asked.
    fn is_strict(self) -> bool {
        self == Self::Theirs
    }
}

pub(super) fn control(message: impl Into<String>) -> Failure {
    failed(&process_ask::control(message))
}

/// A whole number, or a text that is one. What is none is beyond every limit, and refused with it.
fn number(raw: Option<&RawValue>) -> Option<u64> {
    let raw = raw.filter(|raw| raw.get() != "null")?;
    let text = shape::text(raw).unwrap_or(Cow::Borrowed(raw.get()));
    Some(text.parse().unwrap_or(u64::MAX))
}

fn level(raw: &RawPush<'_>) -> Result<Option<Await>, Failure> {
    let word = |raw: &RawValue| shape::text(raw).map(Cow::into_owned).unwrap_or_default();
    let mode = match raw.push_mode.map(word).as_deref() {
        None => None,
        Some("sync") => Some(Await::Cascade),
        Some("async") => Some(Await::Accepted),
        Some(_) => return Err(control("pushMode must be sync or async")),
    };
    Ok(match raw.level.map(word).as_deref() {
        None => mode,
        Some("accepted") => Some(Await::Accepted),
        Some("slot") => Some(Await::Slot),
        Some("reply") => Some(Await::Reply),
        Some("cascade") => Some(Await::Cascade),
        Some(_) => return Err(control("await must be accepted, slot, reply or cascade")),
    })
}

fn wish(raw: &RawPush<'_>) -> Result<Wish, Failure> {
    let asked = RawWish {
        level: level(raw)?,
        timeout_ms: number(raw.timeout_ms),
        result_depth: number(raw.result_depth),
        max_depth: number(raw.max_depth),
        max_hops: number(raw.max_hops),
        max_messages: number(raw.max_messages),
        strict: raw.strict.unwrap_or(false),
    };
    asked.checked().map_err(|error| failed(&error))
}

/// What controls by the names of a push ask, and the transaction id among them.
pub(super) fn wish_of(controls: &Map<String, Value>) -> Result<(Wish, Option<String>), Failure> {
    let text = serde_json::to_vec(controls).unwrap_or_default();
    let raw: RawPush<'_> = shape::read(&text)?;
    let wish = Wish { strict: true, ..wish(&raw)? };
    Ok((wish, transaction_id(raw.transaction_id)?))
}

pub(super) fn sub(caller: Sender) -> Option<ProducerSub> {
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

fn trace_id(raw: Option<&RawValue>) -> Result<Option<[u8; 16]>, Failure> {
    let Some(raw) = raw.filter(|raw| raw.get() != "null") else { return Ok(None) };
    let id = shape::text(raw).and_then(|text| uuid_parse(&text));
    id.map(Some).ok_or_else(|| control("traceId must be a UUID"))
}

/// Pushes a message and waits.
pub(super) async fn push(
    State(api): Door,
    path: Raw<(String, String)>,
    caller: Sender,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Bytes,
) -> Answer {
    let push = async {
        let (class, key) = of_path(path)?;
        let (class, key) = process_of(&class, &key)?;
        let form = Form::asked(&headers);
        let how = How { only: None, strict: is_strict(query)? || form.is_strict(), form };
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
        let how = How { only: Some(Await::Accepted), strict: false, form: Form::Own };
        push_and_wait(&api, class, key, sub(caller), &body, how).await
    };
    settle(schedule.await)
}

/// What the route and the query say of a push.
struct How {
    /// What is waited for, whatever the body says.
    only: Option<Await>,
    strict: bool,
    form: Form,
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
    let message = raw.message.ok_or_else(|| Failure::malformed("message is required"))?;
    let message = Bytes::copy_from_slice(message.get().as_bytes());
    let transaction_id = transaction_id(raw.transaction_id)?;
    let terms = wish.terms;
    let trace_id = trace_id(raw.trace_id)?;
    let (waits, runs) = (false, false);
    let order =
        PushOrder { class, key, message, transaction_id, trace_id, terms, sub, waits, runs };
    how.form.replied(api.processes().push(order, wish, how.only).await)
}

/// Waits for what comes of a message that is there already.
pub(super) async fn push_slot(
    State(api): Door,
    path: Raw<(String, String, String)>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Bytes,
) -> Answer {
    let push = async {
        let (class, key, slot) = of_path(path)?;
        let slot: u64 = slot.parse().map_err(|_| control("slot must be a whole number"))?;
        let text: &[u8] = if body.is_empty() { b"{}" } else { &body };
        let raw: RawPush<'_> = shape::read(text)?;
        let mut wish = wish(&raw)?;
        let form = Form::asked(&headers);
        wish.strict |= is_strict(query)? || form.is_strict();
        let (class, key) = process_of(&class, &key)?;
        push_of_slot(&api, (&class, &key), slot, &wish, form).await
    };
    settle(push.await)
}

/// As [`push_slot`].
pub(super) async fn push_of_slot(
    api: &Api,
    (class, key): (&QueueName, &PartitionName),
    slot: u64,
    wish: &Wish,
    form: Form,
) -> Result<Answer, Failure> {
    let mut asked = api.processes().push_slot(class, key, slot, wish).await;
    // Theirs tells of the slot that was asked for, whichever process its cascade began at.
    if let (Form::Theirs, Ok(Reply { body: Value::Object(body), .. })) = (form, &mut asked) {
        body.insert("process".into(), format!("{class}/{key}").into());
        body.insert("slot".into(), slot.into());
    }
    form.replied(asked)
}

async fn show(
    State(api): Door,
    path: Raw<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Answer {
    let show = async {
        let id = of_path(path)?;
        let raw = query.unwrap_or_default();
        let query = Query::parse(&raw)?;
        let wait_ms = query.number("wait", 0, WAIT_MS_MAX)?.unwrap_or(0);
        let result_depth = query.number("depth", 0, DEPTH_MAX)?.unwrap_or(1);
        let nodes = query.number("limit", 1, NODES_MAX as u64)?.unwrap_or(NODES_MAX as u64);
        let patience = Duration::from_millis(wait_ms);
        let look = Look { patience, result_depth, nodes, cursor: query.get("cursor") };
        Form::asked(&headers).replied(api.processes().status(&id, look).await)
    };
    settle(show.await)
}

async fn cancel(State(api): Door, path: Raw<String>) -> Answer {
    settle(match of_path(path) {
        Ok(id) => replied(api.processes().cancel(&id).await),
        Err(refused) => Err(refused),
    })
}

async fn show_graph(State(api): Door, path: Raw<String>) -> Answer {
    settle(match of_path(path) {
        Ok(id) => replied(api.processes().graph(&id).await),
        Err(refused) => Err(refused),
    })
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
