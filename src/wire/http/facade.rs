//! Processes as clients of HyperBEAM ask for them: other paths and another shape of the answer, and the same
//! processes behind it.
//!
//! A process's id is `class/key`, percent-encoded, or the id of any of its messages. In: what `facade_path`
//! read. Out: what the own routes do, said in the shape of `process_hb`. Called by `route`.

use std::time::Duration;

use bytes::Bytes;
use hyper::StatusCode;
use hyper::header::HeaderValue;
use hyper::http::request::Parts;
use onrush_protocol::name::{PartitionName, QueueName};
use serde_json::{Map, Value, json};

use crate::base::random::Random;
use crate::process::ProcessError;
use crate::process::keys::Address;
use crate::process::look::InstanceShown;
use crate::process::push::{Await, PushOrder};
use crate::process::record::{EntryRecord, SlotRecord};
use crate::process::sent::Sent;
use crate::wire::auth::Caller;
use crate::wire::http::Api;
use crate::wire::http::facade_path::{Ask, Parameters, Verb, unwrapped};
use crate::wire::http::process_hb::{assignment, computed, schedule};
use crate::wire::http::process_push::{Form, control, push_of_slot, wish_of};
use crate::wire::http::process_trial::tried;
use crate::wire::http::processes::{failed, process_of, replied};
use crate::wire::http::shape;
use crate::wire::http::status::{Answer, Failure, bytes, json};
use crate::wire::http::table::{Label, READ_ONLY, READ_WRITE, Row, Verb as Method, hot};
use crate::wire::http::url;
use crate::wire::process_ask::{PAGE, PAGE_MAX, Reply, WAIT_MS};
use crate::wire::process_told::part;

/// Entries of an outbox that are read with what they say, where none is asked for by its index.
const ENTRIES_MAX: usize = 100;

/// The paths, for the description; requests are matched by `facade_path`.
#[rustfmt::skip]
pub(super) fn rows() -> Vec<Row> {
    let label = |verb, path, level, id, summary| hot(Label { verb, path, level, id, summary });
    vec![
        label(Method::Post, "/push", READ_WRITE, "facadeSpawn", "Make a process from its definition"),
        label(Method::Post, "/~process@1.0/push", READ_WRITE, "facadeSpawnProcess",
            "Make a process from its definition"),
        label(Method::Post, "/{process}/push", READ_WRITE, "facadePush",
            "Push a message, or a slot, and wait for what comes of it"),
        label(Method::Get, "/{process}/push", READ_WRITE, "facadePushSlot",
            "Push a slot and wait for what comes of it"),
        label(Method::Post, "/{process}/schedule", READ_WRITE, "facadeSchedule",
            "Put a message into the log of a process"),
        label(Method::Get, "/{process}/schedule", READ_ONLY, "facadeReadSchedule",
            "The log of a process"),
        label(Method::Get, "/{process}/slot/current", READ_ONLY, "facadeCurrentSlot",
            "The number of the newest slot"),
        label(Method::Get, "/{process}/compute", READ_ONLY, "facadeCompute", "What became of a slot"),
        label(Method::Post, "/{process}/compute", READ_ONLY, "facadePostCompute",
            "What became of a slot"),
        label(Method::Get, "/{process}/now", READ_ONLY, "facadeNow",
            "What becomes of the newest message"),
        label(Method::Post, "/{process}/now", READ_ONLY, "facadePostNow",
            "What becomes of the newest message"),
        label(Method::Get, "/{process}/as=execution/compute", READ_WRITE, "facadeTry",
            "What a message would come to"),
        label(Method::Post, "/{process}/as=execution/compute", READ_WRITE, "facadePostTry",
            "What a message would come to"),
    ]
}

/// A process that is asked for.
#[derive(Clone)]
struct Named {
    class: QueueName,
    key: PartitionName,
    /// As others call it.
    name: String,
}

/// Answers a request.
pub(super) async fn answer(
    api: &Api,
    ask: Ask<'_>,
    head: &Parts,
    body: &[u8],
    caller: Option<Caller>,
) -> Result<Answer, Failure> {
    let query = head.uri.query().unwrap_or_default();
    let mut parameters = Parameters::read(ask.parameters, query)?;
    if ask.verb == Verb::Spawn {
        let body = read(body, &mut parameters)?;
        return spawn(api, unwrapped(body), &parameters, caller).await;
    }
    let process = named(api, &ask.process).await?;
    match ask.verb {
        Verb::Spawn | Verb::Push => push(api, process, body, parameters, caller).await,
        Verb::Schedule => put(api, &process, body, parameters, caller).await,
        Verb::ReadSchedule => read_schedule(api, &process, &parameters).await,
        Verb::Current => {
            let (.., shown) = found_by_name(api, &process).await?;
            let last = newest(&shown)?;
            Ok(bytes(StatusCode::OK, "text/plain", last.to_string().into()))
        }
        Verb::Compute => compute(api, &process, ask.below, &parameters).await,
        Verb::Now => {
            let (.., shown) = found_by_name(api, &process).await?;
            let last = newest(&shown)?;
            slot_at(api, &process, &shown, last, &decoded(ask.below)?).await
        }
        Verb::Try => try_message(api, &process, body, parameters, caller).await,
    }
}

/// The process with an id.
async fn named(api: &Api, id: &str) -> Result<Named, Failure> {
    let name = match id.contains('/') {
        true => id.to_owned(),
        false => api.rooms.processes.named(id).await.map_err(|error| failed(&error))?,
    };
    let (class, key) = name.split_once('/').unwrap_or((&name, ""));
    let (class, key) = process_of(class, key)?;
    Ok(Named { class, key, name })
}

async fn found_by_name(
    api: &Api,
    process: &Named,
) -> Result<(QueueName, PartitionName, InstanceShown), Failure> {
    let Named { class, key, .. } = process;
    let shown = api.rooms.processes.instance(class, key).await;
    Ok((class.clone(), key.clone(), shown.map_err(|error| failed(&error))?))
}

fn newest(shown: &InstanceShown) -> Result<u64, Failure> {
    shown.next.checked_sub(1).ok_or_else(|| failed(&ProcessError::NoSlot(0)))
}

/// A body that is an object, or none; controls in it are taken out.
fn read(body: &[u8], parameters: &mut Parameters) -> Result<Map<String, Value>, Failure> {
    if body.is_empty() {
        return Ok(Map::new());
    }
    let mut fields: Map<String, Value> = shape::read(body)?;
    parameters.take_controls(&mut fields);
    Ok(fields)
}

/// Whether a body is a JSON object; anything else is a message as it stands.
fn is_object(body: &[u8]) -> bool {
    body.trim_ascii_start().first().is_none_or(|first| *first == b'{')
}

/// Makes a process of the class that its definition names.
async fn spawn(
    api: &Api,
    definition: Map<String, Value>,
    parameters: &Parameters,
    caller: Option<Caller>,
) -> Result<Answer, Failure> {
    if definition.get("type").and_then(Value::as_str) != Some("Process") {
        let why = "what is pushed to no process must be the definition of one: its type is Process";
        return Err(control(why));
    }
    let text = |name: &str| definition.get(name).and_then(Value::as_str);
    let class = text("module").or_else(|| text("class"));
    let class =
        class.ok_or_else(|| Failure::malformed("module is required: the process's class"))?;
    let key = match text("key").or_else(|| text("name")) {
        Some(key) => key.to_owned(),
        None => format!("{:016x}{:016x}", api.rooms.random.next_u64(), api.rooms.random.next_u64()),
    };
    let name = format!("{class}/{key}");
    let (class, key) = process_of(class, &key)?;
    let message = message_of(&definition);
    define(api, Named { class, key, name }, message, parameters, caller).await
}

fn message_of(fields: &Map<String, Value>) -> Bytes {
    serde_json::to_vec(fields).unwrap_or_default().into()
}

/// Pushes the definition of a process; nothing is evaluated.
async fn define(
    api: &Api,
    process: Named,
    message: Bytes,
    parameters: &Parameters,
    caller: Option<Caller>,
) -> Result<Answer, Failure> {
    let name = process.name.clone();
    let reply = pushed(api, process, message, (parameters, caller), None).await?;
    let status = StatusCode::from_u16(reply.status).unwrap_or(StatusCode::OK);
    let Some(id) = reply.body.get("message_id").and_then(Value::as_str) else {
        return Ok(json(status, &reply.body));
    };
    let body = json!({ "type": "Process", "process": name, "id": id,
        "slot": reply.body.get("slot") });
    let mut answer = json(status, &body);
    if let Ok(id) = HeaderValue::from_str(id) {
        answer.headers_mut().insert("process", id);
    }
    Ok(answer)
}

/// Pushes a message and waits as far as the parameters say; or only as far as `only` does.
async fn pushed(
    api: &Api,
    process: Named,
    message: Bytes,
    (parameters, caller): (&Parameters, Option<Caller>),
    only: Option<Await>,
) -> Result<Reply, Failure> {
    let (wish, transaction_id) = wish_of(&parameters.controls())?;
    let Named { class, key, .. } = process;
    let sub = caller.and_then(|caller| caller.sub);
    let terms = wish.terms;
    let (trace_id, waits, runs) = (None, false, false);
    let order =
        PushOrder { class, key, message, transaction_id, trace_id, terms, sub, waits, runs };
    let asked = api.processes().push(order, wish, only).await;
    asked.map_err(|error| failed(&error))
}

/// Pushes a message, a definition, or a slot.
async fn push(
    api: &Api,
    process: Named,
    body: &[u8],
    mut parameters: Parameters,
    caller: Option<Caller>,
) -> Result<Answer, Failure> {
    if !is_object(body) {
        let message = Bytes::copy_from_slice(body);
        let reply = pushed(api, process, message, (&parameters, caller), None).await?;
        return Form::Theirs.replied(Ok(reply));
    }
    let fields = read(body, &mut parameters)?;
    if let Some(slot) = parameters.number("slot")? {
        let (wish, _) = wish_of(&parameters.controls())?;
        let names = (&process.class, &process.key);
        return push_of_slot(api, names, slot, &wish, Form::Theirs).await;
    }
    if body.is_empty() {
        return Err(Failure::malformed("a message or a slot is required"));
    }
    let message = unwrapped(fields);
    let text = message_of(&message);
    if message.get("type").and_then(Value::as_str) == Some("Process") {
        return define(api, process, text, &parameters, caller).await;
    }
    Form::Theirs.replied(Ok(pushed(api, process, text, (&parameters, caller), None).await?))
}

/// Puts a message into the log of a process.
async fn put(
    api: &Api,
    process: &Named,
    body: &[u8],
    mut parameters: Parameters,
    caller: Option<Caller>,
) -> Result<Answer, Failure> {
    let message = match is_object(body) {
        true => {
            let fields = read(body, &mut parameters)?;
            if fields.is_empty() {
                return Err(Failure::malformed("a message is required"));
            }
            message_of(&unwrapped(fields))
        }
        false => Bytes::copy_from_slice(body),
    };
    let asked = (&parameters, caller);
    let reply = pushed(api, process.clone(), message, asked, Some(Await::Accepted)).await?;
    let Some(from) = reply.body.get("slot").and_then(Value::as_u64) else {
        return replied(Ok(reply));
    };
    let (class, key, shown) = found_by_name(api, process).await?;
    let to = from + 1;
    let messages = api.rooms.processes.schedule(&class, &key, &shown, from, to).await;
    let messages = messages.map_err(|error| failed(&error))?;
    let message = messages.first().ok_or_else(|| failed(&ProcessError::NoSlot(from)))?;
    Ok(json(StatusCode::OK, &assignment(&process.name, message)))
}

async fn read_schedule(
    api: &Api,
    process: &Named,
    parameters: &Parameters,
) -> Result<Answer, Failure> {
    let (class, key, shown) = found_by_name(api, process).await?;
    let from = parameters.number("from")?.unwrap_or(0).max(shown.base);
    let last = parameters.number("to")?.unwrap_or(u64::MAX);
    let limit = parameters.number("limit")?.unwrap_or(PAGE).min(PAGE_MAX);
    let end = last.saturating_add(1).min(shown.next).max(from);
    let to = end.min(from.saturating_add(limit));
    let messages = api.rooms.processes.schedule(&class, &key, &shown, from, to).await;
    let messages = messages.map_err(|error| failed(&error))?;
    Ok(json(StatusCode::OK, &schedule(&process.name, &messages, to < end)))
}

/// What became of a slot: the one that is named, or the last one that is evaluated.
async fn compute(
    api: &Api,
    process: &Named,
    below: &str,
    parameters: &Parameters,
) -> Result<Answer, Failure> {
    let (.., shown) = found_by_name(api, process).await?;
    // One client says `compute/results=5` for the results of slot 5.
    let (first, rest) = below.split_once('/').unwrap_or((below, ""));
    let (name, said) = match first.split_once('=') {
        Some((name, slot)) => {
            let slot = slot.parse().map_err(|_| Failure::value("slot must be a whole number"))?;
            (name, Some(slot))
        }
        None => (first, None),
    };
    let slot = match said.or(parameters.number("slot")?) {
        Some(slot) => slot,
        None => shown.done.checked_sub(1).ok_or_else(|| failed(&ProcessError::NoSlot(0)))?,
    };
    slot_at(api, process, &shown, slot, &decoded(&format!("{name}/{rest}"))?).await
}

/// A path below an answer, decoded step by step.
fn decoded(path: &str) -> Result<String, Failure> {
    let steps: Result<Vec<_>, Failure> = path.split('/').map(url::segment).collect();
    Ok(steps?.join("/"))
}

/// What became of a slot, evaluated if it is not yet; or a part of that.
async fn slot_at(
    api: &Api,
    process: &Named,
    shown: &InstanceShown,
    slot: u64,
    path: &str,
) -> Result<Answer, Failure> {
    let Named { class, key, name } = process;
    let processes = &api.rooms.processes;
    // Refuses a slot that is not there, or not kept.
    let kept = processes.slot(class, key, slot).await.map_err(|error| failed(&error))?;
    let record = match kept {
        Some(record) => Some(record),
        None => {
            let run = processes.run_to(class, key, slot).await;
            run.map_err(|error| failed(&error))?;
            let patience = Duration::from_millis(WAIT_MS);
            tokio::select! {
                waited = processes.wait_slot(shown.partition, slot, patience) => {
                    waited.map_err(|error| failed(&error))?
                }
                () = api.stopping() => None,
            }
        }
    };
    let Some(record) = record else {
        let body = json!({ "process": name, "slot": slot, "status": 202 });
        return Ok(json(StatusCode::ACCEPTED, &body));
    };
    let sent = outbox(api, shown, slot, &record, path).await?;
    let body = part(&computed(name, slot, &record, &sent), path);
    let mut answer = replied(body.map(|body| Reply { status: 200, body }))?;
    let is_whole = path.split('/').all(str::is_empty);
    if is_whole && record.status.is_error() {
        *answer.status_mut() = StatusCode::FAILED_DEPENDENCY;
    }
    Ok(answer)
}

/// Entries of a slot's outbox with what they said, as far as a path asks for them.
async fn outbox(
    api: &Api,
    shown: &InstanceShown,
    slot: u64,
    record: &SlotRecord,
    path: &str,
) -> Result<Vec<(EntryRecord, Option<Sent>)>, Failure> {
    let mut steps = path.split('/').filter(|step| !step.is_empty());
    let is_asked = match (steps.next(), steps.next()) {
        (None, _) | (Some("results"), None | Some("outbox")) => true,
        (Some(_), _) => false,
    };
    let only: Option<u32> = steps.next().and_then(|index| index.parse().ok());
    let wanted = record.outbox.iter().filter(|entry| only.is_none_or(|only| entry.index == only));
    let (root, time_ms) = (Address::parse(&record.cascade), record.pushed_ms);
    let of = Address { partition: shown.partition, seq: slot, time_ms };
    let mut sent = Vec::new();
    for entry in wanted.take(if is_asked { ENTRIES_MAX } else { 0 }) {
        let message = match root {
            Some(root) => {
                let found = api.rooms.processes.sent(root, of, entry.index).await;
                found.map_err(|error| failed(&error))?
            }
            None => None,
        };
        sent.push((entry.clone(), message));
    }
    Ok(sent)
}

/// What a message would come to: one in the body, or the parameters themselves.
async fn try_message(
    api: &Api,
    process: &Named,
    body: &[u8],
    mut parameters: Parameters,
    caller: Option<Caller>,
) -> Result<Answer, Failure> {
    let message = match is_object(body) {
        true => {
            let mut fields = unwrapped(read(body, &mut parameters)?);
            fields.extend(parameters.into_fields());
            message_of(&fields)
        }
        false => Bytes::copy_from_slice(body),
    };
    let (class, key) = (process.class.as_str(), process.key.as_str());
    let trial = tried(api, (class, key), &message, caller.and_then(|caller| caller.sub)).await?;
    let entries: Map<String, Value> = trial
        .outbox
        .iter()
        .map(|entry| {
            let mut fields = match entry.message.as_ref().map(|it| serde_json::from_str(it.get())) {
                Some(Ok(Value::Object(fields))) => fields,
                _ => Map::new(),
            };
            fields.insert("target".into(), json!(entry.target));
            (entry.index.to_string(), Value::Object(fields))
        })
        .collect();
    let output = json!(trial.output);
    let mut results = json!({ "data": output.get("data").unwrap_or(&output), "output": output,
        "outbox": entries });
    if let (Some(error), Value::Object(results)) = (&trial.error, &mut results) {
        results.insert("error".into(), json!(error));
    }
    Ok(json(StatusCode::OK, &json!({ "process": trial.process, "results": results })))
}
