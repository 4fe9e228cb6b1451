//! The routes of queries: they are registered, their state is read, and a cycle moves one on.
//!
//! In: the whole body. Out: in both dialects what the clients of the system that we replace expect: a
//! cycle that is refused is 200 with `success: false`, and nothing of it was done. Called by `whole`.

use hyper::StatusCode;
use onrush_protocol::code::Code;
use onrush_protocol::id::{partition_from_uuid, uuid_parse};
use onrush_protocol::name::GroupName;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::base::place::PartitionNumber;
use crate::shard::command::Registered;
use crate::shard::transaction::{Committed, Reach, Refusal, StateChanges, StateOwner};
use crate::state::draft::ack::Verdict;
use crate::state::effect::{LeaseToken, ProducerSub};
use crate::state::queries::{QueryDefinition, QueryId};
use crate::state::states::StateRow;
use crate::transaction::streams::{Held, QueryOrder, StateQuestion, StreamError, check_ops};
use crate::transaction::{AckOrder, Order, TransactionError, Which};
use crate::wire::codes;
use crate::wire::http::Api;
use crate::wire::http::ack::{NO_LEASE, NOT_FOUND, words};
use crate::wire::http::ack_parse::Lease;
use crate::wire::http::ids::{Uuid, micros_text, query_from_uuid};
use crate::wire::http::push::Origin;
use crate::wire::http::push_answer::{self, Outcome, QueenMessage};
use crate::wire::http::push_pack::{self, Section};
use crate::wire::http::status::{Answer, Failure, json};
use crate::wire::http::streams_parse::{self, CycleRequest, NoCycle};
use crate::wire::http::transaction::{append, placed};

#[derive(Serialize)]
struct RegisteredBody<'a> {
    success: bool,
    query_id: Uuid,
    name: &'a str,
    config_hash: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    fresh: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reset: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'static str>,
}

/// Makes a query known.
pub(super) async fn register(api: &Api, body: &[u8]) -> Result<Answer, Failure> {
    let request = streams_parse::register(body)?;
    let order = QueryOrder {
        name: (*request.name).into(),
        source: (*request.source).into(),
        sink: (*request.sink).into(),
        config_hash: (*request.config_hash).into(),
        reset: request.reset,
    };
    let registered = api.rooms.transactions.register(order).await.map_err(|it| failed(&it))?;
    let (query, fresh, reset) = match &registered {
        Registered::Fresh(query) => (query, true, false),
        Registered::Known(query) => (query, false, false),
        Registered::Reset(query) => (query, false, true),
        Registered::Changed(query) => return Ok(changed(query)),
    };
    let QueryDefinition { id, name, config_hash, .. } = query;
    let body = RegisteredBody {
        success: true,
        query_id: Uuid::of_query(*id),
        name,
        config_hash,
        fresh: Some(fresh),
        reset: Some(reset),
        error: None,
        code: None,
    };
    Ok(json(StatusCode::OK, &body))
}

fn changed(query: &QueryDefinition) -> Answer {
    let QueryDefinition { id, name, config_hash, .. } = query;
    let error = format!(
        "config_hash mismatch: operator chain changed for queryId '{name}'. Pass reset:true to \
         begin anew without its state"
    );
    let body = RegisteredBody {
        success: false,
        query_id: Uuid::of_query(*id),
        name,
        config_hash,
        fresh: None,
        reset: None,
        error: Some(error),
        code: Some(Code::QueryChanged.name()),
    };
    json(StatusCode::CONFLICT, &body)
}

#[derive(Serialize)]
struct StatesBody<'a> {
    success: bool,
    rows: Vec<Row<'a>>,
}

#[derive(Serialize)]
struct Row<'a> {
    key: String,
    value: &'a RawValue,
    updated_at: String,
}

/// What tells whether a window is over.
#[derive(Deserialize)]
struct Window {
    #[serde(rename = "windowEnd")]
    end: f64,
}

/// Reads state keys.
pub(super) async fn read_states(api: &Api, body: &[u8]) -> Result<Answer, Failure> {
    let request = streams_parse::states(body)?;
    let query = query_of(&request.query).ok_or_else(|| failed(&StreamError::NoQuery))?;
    let Some(partition) = partition_of(&request.partition) else {
        return Ok(json(StatusCode::OK, &StatesBody { success: true, rows: Vec::new() }));
    };
    let prefix = bytes::Bytes::copy_from_slice(request.prefix.as_bytes());
    let question = StateQuestion { partition, keys: request.keys, prefix };
    let rows = api.rooms.transactions.states(query, question).await.map_err(|it| failed(&it))?;
    let rows = rows.iter().filter_map(|row| shown(row, request.ripe_ms)).collect();
    Ok(json(StatusCode::OK, &StatesBody { success: true, rows }))
}

fn shown(row: &StateRow, ripe_ms: Option<f64>) -> Option<Row<'_>> {
    if let Some(ripe_ms) = ripe_ms {
        let window: Window = serde_json::from_slice(&row.value).ok()?;
        (window.end <= ripe_ms).then_some(())?;
    }
    Some(Row {
        key: String::from_utf8_lossy(&row.key).into_owned(),
        // Only JSON is ever put here.
        value: serde_json::from_slice(&row.value).ok()?,
        updated_at: micros_text(row.updated_ms),
    })
}

#[derive(Serialize)]
struct CycleBody<'a> {
    success: bool,
    query_id: &'a str,
    partition_id: &'a str,
    #[serde(rename = "queueName")]
    queue_name: &'a str,
    state_ops_applied: usize,
    push_results: Vec<QueenMessage<'a>>,
    ack_result: Option<AckResult>,
}

#[derive(Serialize)]
struct AckResult {
    success: bool,
    count: u64,
    lease_released: bool,
    dlq: bool,
}

#[derive(Serialize)]
struct RefusedCycle<'a> {
    success: bool,
    query_id: &'a str,
    partition_id: &'a str,
    error: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'static str>,
    /// Whether its batch was given back, so that others may have it now.
    lease_released: bool,
}

/// Why a cycle does not stand.
struct Refused {
    error: String,
    code: Option<Code>,
}

impl Refused {
    fn text(error: impl Into<String>) -> Self {
        Self { error: error.into(), code: None }
    }

    /// Whether it says that its consumer was too slow, or that the cycle stands already: what the lease
    /// holds now is not this cycle's to give back.
    fn is_lost(&self) -> bool {
        matches!(self.code, Some(Code::LeaseExpired | Code::AlreadySettled))
    }

    /// What it means for the messages: what passes by itself, as a sink that is full, is no fault of theirs.
    fn verdict(&self) -> Verdict {
        match self.code.is_some_and(Code::is_retryable) {
            true => Verdict::Retry,
            false => Verdict::Failed,
        }
    }
}

/// Moves a query on. A cycle that is refused for good gives its batch back; one that may be sent again keeps
/// its lease.
pub(super) async fn cycle<'a>(
    api: &Api,
    body: &'a [u8],
    origin: Origin<'a>,
) -> Result<Answer, Failure> {
    let mut request = match streams_parse::cycle(body)? {
        Ok(request) => request,
        Err(NoCycle { query, partition, group, lease, reason }) => {
            let held = held(group, lease, &partition, || known_name(api, &query));
            return Ok(refuse(api, &query, &partition, &Refused::text(reason), held).await);
        }
    };
    origin.give_context(&mut request.pushes);
    let known = query_of(&request.query).and_then(|id| api.rooms.transactions.query(id));
    match attempt(api, &request, known.as_ref(), origin.sub).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(refused)) => {
            let held = held_by(api, &request).filter(|_| !refused.is_lost());
            Ok(refuse(api, &request.query, &request.partition, &refused, held).await)
        }
        Err(failure) => {
            if let Some(held) = held_by(api, &request).filter(|_| !failure.is_retryable()) {
                let failed = Verdict::Failed;
                api.rooms.transactions.give_back(held, failed, failure.message()).await;
            }
            Err(failure)
        }
    }
}

async fn attempt(
    api: &Api,
    request: &CycleRequest<'_>,
    known: Option<&QueryDefinition>,
    sub: Option<ProducerSub>,
) -> Result<Result<Answer, Refused>, Failure> {
    let target = api.config.batch_target_bytes;
    let packed = push_pack::pack(&request.pushes, *api.rooms.ingest.limits(), target)?;
    if let Some((index, error)) = packed.refused.first() {
        return Err(Failure::batch(error).at(*index as usize));
    }
    let sections = packed.sections;
    let order = match order(request, &sections, known) {
        Ok(order) => order,
        Err(refused) => return Ok(Err(refused)),
    };
    match api.rooms.transactions.commit(Order { sub, ..order }).await {
        Ok(committed) => {
            let source = known.map_or("", |query| &query.source);
            Ok(Ok(stands(request, &sections, &committed, source)))
        }
        Err(error) => refused(&error).map(Err),
    }
}

/// The group that a query reads with unless it says so.
fn group_of(name: &str) -> Option<GroupName> {
    format!("streams.{name}").parse().ok()
}

fn known_name(api: &Api, query: &str) -> Option<Box<str>> {
    Some(api.rooms.transactions.query(query_of(query)?)?.name)
}

fn held(
    group: Option<GroupName>,
    lease: Option<LeaseToken>,
    partition: &str,
    name: impl FnOnce() -> Option<Box<str>>,
) -> Option<Held> {
    let (token, partition) = (lease?, partition_of(partition)?);
    let group = group.or_else(|| group_of(&name()?))?;
    Some(Held { group, token, partition })
}

/// What a cycle holds while it is decided.
fn held_by(api: &Api, request: &CycleRequest<'_>) -> Option<Held> {
    let lease = match request.ack.as_ref()?.line.lease {
        Lease::Token(token) => Some(token),
        Lease::None | Lease::Foreign => None,
    };
    held(request.group.clone(), lease, &request.partition, || known_name(api, &request.query))
}

fn order(
    request: &CycleRequest<'_>,
    sections: &[Section],
    known: Option<&QueryDefinition>,
) -> Result<Order, Refused> {
    let query = query_of(&request.query).ok_or_else(|| Refused::text("Query not found"))?;
    let partition = partition_of(&request.partition);
    let partition = partition.ok_or_else(|| Refused::text("Partition not found"))?;
    check_ops(&request.ops).map_err(|error| Refused {
        code: Some(codes::of_stream_error(&error)),
        error: error.to_string(),
    })?;
    let mut order = Order {
        states: Some(StateChanges {
            owner: StateOwner::Query(query),
            partition,
            ops: request.ops.clone(),
            may_miss: false,
        }),
        appends: sections.iter().map(append).collect(),
        ..Order::default()
    };
    if let Some(ack) = &request.ack {
        let group = request.group.clone();
        let group = group.or_else(|| group_of(known.map_or("", |query| &query.name)));
        let group = group.ok_or_else(|| Refused::text("consumer_group is required"))?;
        let token = match ack.line.lease {
            Lease::None => None,
            Lease::Token(token) => Some(token),
            Lease::Foreign => return Err(Refused::text(NO_LEASE)),
        };
        let verdict = ack.line.verdict.ok_or_else(|| Refused::text(NOT_FOUND))?;
        order.acks.push(AckOrder {
            group,
            token,
            partition,
            which: Which::Id(Box::from(&*ack.line.transaction_id)),
            verdict,
            error: ack.line.error.clone(),
            reach: Reach::Through { release: request.release_lease },
        });
    }
    Ok(order)
}

/// A refusal in the words of the contract, or a failure where nothing about the cycle is to blame.
fn refused(error: &TransactionError) -> Result<Refused, Failure> {
    let code = codes::of_transaction_error(error);
    let text = match error {
        TransactionError::Refused(Refusal::Ack { refusal, .. }) => words(refusal),
        TransactionError::Refused(Refusal::NoQuery) => "Query not found".to_owned(),
        TransactionError::Refused(Refusal::NoPartition(_)) => "Partition not found".to_owned(),
        TransactionError::Refused(_) => error.to_string(),
        TransactionError::Push { .. }
        | TransactionError::TooLarge { .. }
        | TransactionError::Command(_)
            if code.is_retryable() || !matches!(error, TransactionError::Push { .. }) =>
        {
            return Err(Failure::new(code, error.to_string()));
        }
        _ => error.to_string(),
    };
    Ok(Refused { error: text, code: Some(code) })
}

async fn refuse(
    api: &Api,
    query_id: &str,
    partition_id: &str,
    refused: &Refused,
    held: Option<Held>,
) -> Answer {
    let Refused { error, code } = refused;
    let lease_released = match held {
        Some(held) => api.rooms.transactions.give_back(held, refused.verdict(), error).await,
        None => false,
    };
    let code = code.map(Code::name);
    let success = false;
    let body = RefusedCycle { success, query_id, partition_id, error, code, lease_released };
    json(StatusCode::OK, &body)
}

fn stands(
    request: &CycleRequest<'_>,
    sections: &[Section],
    committed: &Committed,
    source: &str,
) -> Answer {
    let places = placed(request.pushes.len(), sections, committed);
    let outcomes: Vec<Option<Outcome>> = places
        .into_iter()
        .map(|place| {
            let (partition, message, duplicate) = place?;
            Some(Outcome::Stored { partition, message, duplicate })
        })
        .collect();
    let both = request.pushes.iter().zip(&outcomes).enumerate();
    let push_results = both
        .filter_map(|(index, (item, outcome))| {
            Some(push_answer::queen(index, item, outcome.as_ref()?))
        })
        .collect();
    let acked = committed.acks.first();
    let ack_result = request.ack.as_ref().zip(acked).map(|(ack, acked)| AckResult {
        success: true,
        count: ack.count,
        lease_released: acked.released,
        dlq: acked.buried > 0,
    });
    let body = CycleBody {
        success: true,
        query_id: &request.query,
        partition_id: &request.partition,
        queue_name: source,
        state_ops_applied: request.ops.len(),
        push_results,
        ack_result,
    };
    json(StatusCode::OK, &body)
}

fn query_of(text: &str) -> Option<QueryId> {
    uuid_parse(text).and_then(query_from_uuid)
}

fn partition_of(text: &str) -> Option<PartitionNumber> {
    uuid_parse(text).and_then(partition_from_uuid)
}

fn failed(error: &StreamError) -> Failure {
    Failure::new(codes::of_stream_error(error), error.to_string())
}
