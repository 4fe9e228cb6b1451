//! Requests other than pushes: to their room, and the answer back as a frame.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use onrush_protocol::LeaseToken;
use onrush_protocol::NO_LEASE;
use onrush_protocol::code::Code;
use onrush_protocol::request::{
    Ack, AckOutcome, Configure, DeleteQueue, Extend, Pop, Request, SubscriptionStart,
};
use onrush_protocol::response::{
    Acked, AckedItem, Attempts, Configured, Deleted, Extended, Failure, MessagesWriter, Response,
    Stats, StatsEntry,
};
use onrush_protocol::text::ShortText;

use crate::delivery::{Handout, PopOrder};
use crate::state::draft::ack::{AckItem, Verdict};
use crate::state::draft::pop::PopBudget;
use crate::state::effect::GroupStart;
use crate::wire::tcp::{Config, failure};
use crate::wire::{Rooms, codes};

/// Carries out one request and encodes its answer, in parts that share the batches' memory.
pub(super) async fn dispatch(
    rooms: Arc<Rooms>,
    config: Arc<Config>,
    request_id: u64,
    request: Request,
) -> Vec<Bytes> {
    let answer = match request {
        Request::Ping(_) => Ok(Response::Pong(onrush_protocol::response::Pong {})),
        Request::Pop(pop) => match take(&rooms, &config, pop).await {
            Ok((queue, handout)) => return messages(request_id, &queue, handout, &config),
            Err(failure) => Err(failure),
        },
        Request::Ack(ack) => settle(&rooms, ack).await,
        Request::Extend(extend) => prolong(&rooms, extend).await,
        Request::Configure(configure) => define(&rooms, configure).await,
        Request::DeleteQueue(delete) => remove(&rooms, delete).await,
        Request::Stats(_) => Ok(stats(&rooms)),
        Request::Hello(_) => Err(Failure::new(Code::HelloRequired, "hello was said already")),
        Request::Push(_) => Err(Failure::new(Code::Internal, "a push came the wrong way")),
    };
    let mut out = BytesMut::new();
    answer.unwrap_or_else(Response::Failure).encode_frame(request_id, &mut out);
    vec![out.freeze()]
}

async fn take(
    rooms: &Rooms,
    config: &Config,
    pop: Pop,
) -> Result<(onrush_protocol::name::QueueName, Handout), Failure> {
    let start = match pop.start {
        SubscriptionStart::Default if config.start_new => GroupStart::New,
        SubscriptionStart::Default | SubscriptionStart::Beginning => GroupStart::Beginning,
        SubscriptionStart::New => GroupStart::New,
        SubscriptionStart::Time(_) => {
            let failure = Failure::new(Code::BadValue, "starting at a time is not supported");
            return Err(failure.blaming("start", 0));
        }
    };
    let bytes = if pop.bytes_max == 0 { config.pop_bytes_max } else { u64::from(pop.bytes_max) };
    let order = PopOrder {
        queue: pop.queue.clone(),
        partition: pop.partition,
        group: pop.group,
        start,
        budget: PopBudget {
            messages: pop.messages_max,
            // An answer must fit a frame; one message always does.
            bytes: bytes.min(config.frame_bytes_max as u64 / 2),
            partitions: u32::from(pop.partitions_max),
        },
        wait_ms: u64::from(pop.wait_ms),
        lease_ms: u64::from(pop.lease_ms),
        auto_ack: pop.auto_ack,
    };
    let handout = rooms
        .delivery
        .pop(order)
        .await
        .map_err(|error| failure::plain(codes::of_pop_error(&error), &error))?;
    Ok((pop.queue, handout))
}

fn messages(
    request_id: u64,
    queue: &onrush_protocol::name::QueueName,
    handout: Handout,
    config: &Config,
) -> Vec<Bytes> {
    let has_lease = handout.until_ms > 0;
    let token: &LeaseToken = if has_lease { &handout.token } else { &NO_LEASE };
    let mut writer = MessagesWriter::new(token, handout.until_ms);
    for package in handout.packages {
        let mut section = writer.section(queue, package.partition, &package.name);
        for delivered in &package.batches {
            let batch = delivered.batch.bytes().clone();
            section.chunk(delivered.first_seq, delivered.time_ms, batch);
        }
        let attempts = package.attempts.into_iter();
        let attempts: Vec<Attempts> =
            attempts.map(|(seq, attempts)| Attempts { seq, attempts }).collect();
        section.end(&attempts);
    }
    if writer.frame_bytes() > config.frame_bytes_max + 4 {
        let failure = Failure::new(Code::FrameTooLarge, "the messages do not fit a frame");
        let mut out = BytesMut::new();
        let limit = config.frame_bytes_max as u64;
        Response::Failure(failure.blaming("frame", limit)).encode_frame(request_id, &mut out);
        return vec![out.freeze()];
    }
    writer.finish(request_id)
}

async fn settle(rooms: &Rooms, ack: Ack) -> Result<Response, Failure> {
    let token = (ack.lease != NO_LEASE).then_some(ack.lease);
    let items = ack.items.into_iter().map(|item| {
        let verdict = match item.outcome {
            AckOutcome::Completed => Verdict::Completed,
            AckOutcome::Failed => Verdict::Failed,
            AckOutcome::Retry => Verdict::Retry,
            AckOutcome::DeadLetter => Verdict::Dead,
        };
        let error = item.error.as_str().into();
        (item.partition, AckItem { first: item.first_seq, last: item.last_seq, verdict, error })
    });
    let items = items.collect();
    let results = rooms.delivery.ack(ack.group, token, items).await;
    let results =
        results.map_err(|error| failure::plain(codes::of_command_error(&error), &error))?;
    let items = results.iter().map(|result| match result {
        Ok(acked) => AckedItem {
            code: 0,
            acked: acked.settled,
            dead_lettered: acked.buried,
            lease_released: acked.released,
        },
        Err(refusal) => AckedItem {
            code: codes::of_ack_refusal(refusal).number(),
            acked: 0,
            dead_lettered: 0,
            lease_released: false,
        },
    });
    Ok(Response::Acked(Acked { items: items.collect() }))
}

async fn prolong(rooms: &Rooms, extend: Extend) -> Result<Response, Failure> {
    let extended = rooms.delivery.extend(extend.lease, u64::from(extend.extend_ms)).await;
    match extended.map_err(|error| failure::plain(codes::of_command_error(&error), &error))? {
        Some(until_ms) => Ok(Response::Extended(Extended { until_ms })),
        None => Err(Failure::new(Code::LeaseNotFound, "nobody holds this lease")),
    }
}

async fn define(rooms: &Rooms, configure: Configure) -> Result<Response, Failure> {
    let Configure { queue, namespace, task, options } = configure;
    let defined =
        rooms.catalogs.configure(&queue, namespace.as_str(), task.as_str(), options).await;
    let defined = defined.map_err(|error| failure::catalog(&error))?;
    let (queue_id, options) = (u64::from(defined.id), defined.options);
    Ok(Response::Configured(Configured { queue_id, options }))
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
        ("popped", telemetry.popped.get()),
        ("acked", telemetry.acked.get()),
        ("dead", telemetry.dead.get()),
        ("lapsed", telemetry.lapsed.get()),
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
