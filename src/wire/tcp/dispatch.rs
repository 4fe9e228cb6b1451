//! Requests that are rare: to their room, and the answer back as a frame.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use onrush_protocol::code::Code;
use onrush_protocol::request::{Configure, DeleteQueue, Extend, Request};
use onrush_protocol::response::{
    Configured, Deleted, Extended, Failure, Response, Stats, StatsEntry,
};
use onrush_protocol::text::ShortText;
use tokio::sync::watch;

use crate::shard::command::Asked;
use crate::state::effect::ProducerSub;
use crate::wire::process_ask::Desk;
use crate::wire::tcp::pushes::Room;
use crate::wire::tcp::transaction::transact;
use crate::wire::tcp::{Config, desk, failure, groups, processes};
use crate::wire::{Rooms, codes};

/// Bytes of the field that a frame begins with, which its length does not count.
const LENGTH_BYTES: usize = 4;

/// What a request is carried out with, besides itself.
pub(super) struct Around {
    /// The rooms that it is taken to.
    pub(super) rooms: Arc<Rooms>,
    /// How connections are treated.
    pub(super) config: Arc<Config>,
    /// Who asks, where that is known.
    pub(super) sub: Option<ProducerSub>,
    /// Says when the server stops.
    pub(super) stop: watch::Receiver<bool>,
}

/// Carries out one request and encodes its answer. One that no frame holds is a failure instead: only
/// what looks can have such an answer, so nothing was done.
pub(super) async fn dispatch(around: Around, request_id: u64, request: Request) -> Bytes {
    let frame_bytes_max = around.config.frame_bytes_max;
    let answer = carry_out(around, request).await.unwrap_or_else(Response::Failure);
    let mut out = BytesMut::new();
    answer.encode_frame(request_id, &mut out);
    if out.len() > frame_bytes_max + LENGTH_BYTES {
        out.clear();
        let limit = frame_bytes_max as u64;
        let failure = Failure::new(Code::TooManyRecords, "the answer is larger than a frame");
        Response::Failure(failure.blaming("limit", limit)).encode_frame(request_id, &mut out);
    }
    out.freeze()
}

async fn carry_out(around: Around, request: Request) -> Result<Response, Failure> {
    let Around { rooms, config, sub, stop } = around;
    match request {
        Request::Ping(_) => Ok(Response::Pong(onrush_protocol::response::Pong {})),
        Request::Extend(extend) => prolong(&rooms, extend).await,
        Request::Configure(configure) => define(&rooms, configure).await,
        Request::DeleteQueue(delete) => remove(&rooms, delete).await,
        Request::Stats(_) => Ok(stats(&rooms)),
        Request::Seek(seek) => groups::seek(&rooms, seek).await,
        Request::DeleteGroup(delete) => groups::delete(&rooms, delete).await,
        Request::Subscribe(subscribe) => groups::subscribe(&rooms, subscribe).await,
        Request::ListGroups(list) => groups::list(&rooms, list).await,
        Request::GroupLag(lag) => groups::lag(&rooms, lag).await,
        Request::Transaction(request) => transact(&rooms, request, sub, Room::of(&config)).await,
        Request::ListMessages(list) => desk::messages(&rooms, list).await,
        Request::GetMessage(get) => desk::message(&rooms, get).await,
        Request::ChangeMessage(change) => desk::change(&rooms, change).await,
        Request::ListLetters(list) => desk::letters(&rooms, list, config.frame_bytes_max).await,
        Request::BeginJob(begin) => desk::begin_job(&rooms, begin).await,
        Request::ListJobs(_) => desk::jobs(&rooms),
        Request::CancelJob(cancel) => desk::cancel_job(&rooms, cancel).await,
        Request::ListQueues(list) => desk::queues(&rooms, list).await,
        Request::ClearQueue(clear) => desk::clear(&rooms, clear).await,
        Request::PushProcess(_)
        | Request::PushSlot(_)
        | Request::GetPush(_)
        | Request::CancelPush(_)
        | Request::GetProcess(_)
        | Request::ChangeProcess(_) => {
            processes::answer(&Desk { rooms: &rooms, stop }, request, sub).await
        }
        Request::Hello(_) => Err(Failure::new(Code::HelloRequired, "hello was said already")),
        Request::Push(_)
        | Request::Pop(_)
        | Request::PopKnown(_)
        | Request::PopAny(_)
        | Request::Ack(_) => Err(Failure::new(Code::Internal, "a request came the wrong way")),
    }
}

async fn prolong(rooms: &Rooms, extend: Extend) -> Result<Response, Failure> {
    let extended = rooms.delivery.extend(extend.lease, u64::from(extend.extend_ms)).await;
    match extended.map_err(|error| failure::plain(codes::of_command_error(&error), &error))? {
        Some(until_ms) => Ok(Response::Extended(Extended { until_ms })),
        None => Err(Failure::new(Code::LeaseNotFound, "nobody holds this lease")),
    }
}

async fn define(rooms: &Rooms, configure: Configure) -> Result<Response, Failure> {
    let Configure { queue, namespace, task, options, sql_rows } = configure;
    // Whether an hour was meant, or is only what every client sends, cannot be seen here.
    let asked = Asked { options, sql_rows, ..Asked::default() };
    let defined = rooms.catalogs.configure(&queue, namespace.as_str(), task.as_str(), asked).await;
    let defined = defined.map_err(|error| failure::catalog(&error))?;
    let (queue_id, options) = (u64::from(defined.id), defined.options);
    Ok(Response::Configured(Configured { queue_id, options, sql_rows }))
}

async fn remove(rooms: &Rooms, delete: DeleteQueue) -> Result<Response, Failure> {
    let existed = rooms.catalogs.delete(&delete.queue).await;
    let existed = existed.map_err(|error| failure::catalog(&error))?;
    Ok(Response::Deleted(Deleted { existed }))
}

fn stats(rooms: &Rooms) -> Response {
    let telemetry = &rooms.telemetry;
    let bounds = rooms.engine.log().bounds();
    let figures = [
        ("pushed", telemetry.pushed.get()),
        ("duplicates", telemetry.duplicates.get()),
        ("push_failed", telemetry.push_failed.get()),
        ("buffered", telemetry.buffered.get()),
        ("buffered_lost", telemetry.buffered_lost.get()),
        ("spilled", telemetry.spilled.get()),
        ("replayed", telemetry.replayed.get()),
        ("spill_waiting", telemetry.spill_waiting.get()),
        ("quarantined", telemetry.quarantined.get()),
        ("outages", telemetry.outages.get()),
        ("store_away", telemetry.store_away.get()),
        ("popped", telemetry.popped.get()),
        ("acked", telemetry.acked.get()),
        ("dead", telemetry.dead.get()),
        ("lapsed", telemetry.lapsed.get()),
        ("expired", telemetry.expired.get()),
        ("retained", telemetry.retained.get()),
        ("completed_gone", telemetry.completed_gone.get()),
        ("undelivered", telemetry.undelivered.get()),
        ("commits", telemetry.commits.get()),
        ("commit_failed", telemetry.commit_failed.get()),
        ("queues", telemetry.queues.get()),
        ("partitions", telemetry.partitions.get()),
        ("connections", telemetry.connections.get()),
        ("ring_bytes", rooms.engine.buffers().budget().used()),
        ("log_start", bounds.start),
        ("log_end", bounds.end),
        ("log_synced", bounds.synced),
    ];
    let entry = |(name, value): (&str, u64)| StatsEntry { name: ShortText::lossy(name), value };
    Response::Stats(Stats { entries: figures.into_iter().map(entry).collect() })
}
