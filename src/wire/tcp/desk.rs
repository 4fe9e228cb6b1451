//! Requests of whoever runs queues: messages, dead letters, jobs, and queues themselves; to their room, and the answer back.
//!
//! In: a request. Out: a response, or a failure that blames the field. What a page of letters may carry is
//! bounded by the frame: it ends where the next letter would not fit. Called by `dispatch`.

use std::sync::Arc;

use bytes::Bytes;
use onrush_protocol::batch::RecordBatch;
use onrush_protocol::request::{
    BeginJob, CancelJob, ChangeMessage, ClearQueue, GetMessage, JobAction, ListLetters,
    ListMessages, ListQueues, MessageChange, MessageKey as WireKey,
};
use onrush_protocol::response::{
    Cleared, Failure, Job as WireJob, JobKind, JobState as WireState, Jobs, Letter, LetterPage,
    LetterReason, MessageChanged, MessageDetail, MessageGroup, MessagePage, MessageShown,
    MessageStanding, QueueShown, Queues, Response,
};
use onrush_protocol::text::{LongText, ShortText};

use crate::base::place::QueueId;
use crate::catalog::CatalogError;
use crate::delivery::desk::{self, DeskError, JobAim, JobOrder, MessageKey};
use crate::sealing::OpenError;
use crate::shard::look::letters::{LetterFilter, ShownLetter};
use crate::shard::look::messages::{Body, FoundMessage, GroupStatus, MessageFilter, Status};
use crate::state::care::job::{Action, Job, JobState};
use crate::state::effect::{DeadReason, ProducerSub};
use crate::wire::tcp::failure;
use crate::wire::{Rooms, codes};

/// Bytes of a frame that a page of letters may need beside its letters.
const PAGE_HEAD_BYTES: usize = 64;

fn failed(error: &DeskError) -> Failure {
    let failure = failure::plain(codes::of_desk_error(error), error);
    match error {
        DeskError::NoMessage | DeskError::NotDead | DeskError::Held | DeskError::AllDone => {
            failure.blaming("message", 0)
        }
        DeskError::NoGroup => failure.blaming("group", 0),
        DeskError::NoJob => failure.blaming("id", 0),
        DeskError::TooManyJobs { limit } => failure.blaming("jobs", *limit as u64),
        DeskError::Queue(error) => failure::catalog(error),
        DeskError::Command(_) => failure,
    }
}

fn key(key: WireKey) -> MessageKey {
    match key {
        WireKey::Seq(seq) => MessageKey::Seq(seq),
        WireKey::TransactionId(id) => MessageKey::Id(id.as_str().into()),
    }
}

fn standing(status: Status) -> MessageStanding {
    match status {
        Status::Pending => MessageStanding::Pending,
        Status::Processing => MessageStanding::Processing,
        Status::Completed => MessageStanding::Completed,
        Status::DeadLetter => MessageStanding::DeadLetter,
    }
}

fn status(standing: MessageStanding) -> Status {
    match standing {
        MessageStanding::Pending => Status::Pending,
        MessageStanding::Processing => Status::Processing,
        MessageStanding::Completed => Status::Completed,
        MessageStanding::DeadLetter => Status::DeadLetter,
    }
}

/// 0 stands for no limit.
fn at_most(time_ms: u64) -> u64 {
    if time_ms == 0 { u64::MAX } else { time_ms }
}

fn producer(sub: Option<&ProducerSub>) -> LongText {
    LongText::lossy(sub.map(ProducerSub::as_str).unwrap_or_default())
}

pub(super) async fn messages(rooms: &Rooms, asked: ListMessages) -> Result<Response, Failure> {
    let queues: Option<Vec<QueueId>> = match &asked.queue {
        None => None,
        Some(name) => {
            let missing = || failed(&CatalogError::NotFound(name.clone()).into());
            Some(vec![rooms.catalogs.find(name).ok_or_else(missing)?.id])
        }
    };
    let filter = MessageFilter {
        queues,
        partition: asked.partition,
        status: asked.status.map(status),
        from_ms: asked.from_ms,
        to_ms: at_most(asked.to_ms),
    };
    let page = rooms.delivery.messages(filter, asked.skip as usize, asked.limit as usize).await;
    let (page, bodies) = page.map_err(|error| failed(&error.into()))?;
    let messages = page.messages.iter().zip(&bodies).map(|(it, body)| shown(it, body.as_ref()));
    let messages = messages.collect::<Result<_, Failure>>()?;
    Ok(Response::MessagePage(MessagePage { has_more: page.has_more, messages }))
}

fn shown(message: &FoundMessage, body: Option<&Body>) -> Result<MessageShown, Failure> {
    let record = body.and_then(|body| body.batch.records().next());
    let is_done =
        |group: &&GroupStatus| matches!(group.status, Status::Completed | Status::DeadLetter);
    let lease = message.groups.iter().filter_map(|group| group.lease_until_ms).max();
    let id = record.as_ref().and_then(|it| it.transaction_id).unwrap_or_default();
    Ok(MessageShown {
        queue: message.queue.name.parse().map_err(|error| failure::name(&error))?,
        partition: message.partition,
        partition_name: message.partition_name.parse().map_err(|error| failure::name(&error))?,
        seq: message.seq,
        time_ms: message.time_ms,
        status: standing(message.status()),
        groups: message.groups.len() as u32,
        groups_done: message.groups.iter().filter(is_done).count() as u32,
        lease_until_ms: lease.unwrap_or(0),
        trace_id: record.as_ref().and_then(|it| it.trace_id).unwrap_or_default(),
        transaction_id: LongText::lossy(id),
        producer: producer(body.and_then(|it| it.sub.as_ref())),
    })
}

/// The bytes of a message that was opened, or why there are none.
fn opened(opened: Option<&Result<RecordBatch, OpenError>>) -> (Bytes, LongText) {
    match opened {
        Some(Ok(batch)) => (batch.bytes().clone(), LongText::default()),
        Some(Err(error)) => (Bytes::new(), LongText::lossy(&error.to_string())),
        None => (Bytes::new(), LongText::lossy("it cannot be read any more")),
    }
}

pub(super) async fn message(rooms: &Rooms, asked: GetMessage) -> Result<Response, Failure> {
    let named = rooms.delivery.named(asked.partition, key(asked.key)).await;
    let named = named.map_err(|error| failed(&error))?;
    let detail = rooms.delivery.detail(named.partition, named.seq).await;
    let detail = detail.map_err(|error| failed(&error))?;
    let (batch, problem) = opened(detail.opened.as_ref());
    let letter_of = |group: &str| detail.letters.iter().find(|it| *it.group_name == *group);
    let groups = detail.found.groups.iter().map(|group| {
        let letter = letter_of(&group.group);
        Ok(MessageGroup {
            group: group.group.parse().map_err(|error| failure::name(&error))?,
            status: standing(group.status),
            attempts: letter.map_or(group.attempts, |letter| letter.letter.attempts),
            lease_until_ms: group.lease_until_ms.unwrap_or(0),
            error: LongText::lossy(letter.map(desk::words).unwrap_or_default()),
        })
    });
    Ok(Response::MessageDetail(MessageDetail {
        groups: groups.collect::<Result<_, Failure>>()?,
        shown: shown(&detail.found, detail.body.as_ref())?,
        is_encrypted: detail.body.as_ref().is_some_and(|body| body.batch.is_sealed()),
        batch,
        problem,
    }))
}

pub(super) async fn change(rooms: &Rooms, asked: ChangeMessage) -> Result<Response, Failure> {
    let ChangeMessage { partition, key: named, change, group, error } = asked;
    let delivery = &rooms.delivery;
    let named = delivery.named(partition, key(named)).await.map_err(|error| failed(&error))?;
    let (partition, seq) = (named.partition, named.seq);
    let changed = match change {
        MessageChange::Delete => delivery.erase(partition, seq).await.map(|()| 0),
        MessageChange::Retry => delivery.retry(partition, seq, group).await,
        MessageChange::Bury => delivery.bury(partition, seq, group, error.as_str().into()).await,
    };
    let groups = changed.map_err(|error| failed(&error))?;
    Ok(Response::MessageChanged(MessageChanged { groups }))
}

pub(super) async fn queues(rooms: &Rooms, asked: ListQueues) -> Result<Response, Failure> {
    let all = rooms.delivery.queues().await.map_err(|error| failed(&error.into()))?;
    let is_wanted = |wanted: &Option<ShortText>, text: &str| {
        wanted.as_ref().is_none_or(|wanted| wanted.as_str() == text)
    };
    let mut fit = all.iter().filter(|(queue, _)| {
        is_wanted(&asked.namespace, &queue.namespace) && is_wanted(&asked.task, &queue.task)
    });
    let wanted = fit.by_ref().skip(asked.skip as usize).take(asked.limit as usize);
    let queues = wanted.map(|(queue, figures)| {
        let counts = figures.counts();
        Ok(QueueShown {
            queue: queue.name.parse().map_err(|error| failure::name(&error))?,
            queue_id: u64::from(queue.id),
            namespace: ShortText::lossy(&queue.namespace),
            task: ShortText::lossy(&queue.task),
            created_ms: queue.created_ms,
            partitions: figures.partitions,
            total: counts.total,
            pending: counts.pending,
            processing: counts.processing,
            completed: counts.completed,
            dead_letters: counts.dead,
        })
    });
    let queues = queues.collect::<Result<_, Failure>>()?;
    Ok(Response::Queues(Queues { has_more: fit.next().is_some(), queues }))
}

pub(super) async fn clear(rooms: &Rooms, asked: ClearQueue) -> Result<Response, Failure> {
    let cleared = rooms.delivery.clear(&asked.queue, asked.partition.as_ref()).await;
    let messages = cleared.map_err(|error| failed(&error))?;
    Ok(Response::Cleared(Cleared { messages }))
}

/// A page of letters that takes no more than `frame_bytes`; the first letter always fits one.
pub(super) async fn letters(
    rooms: &Rooms,
    asked: ListLetters,
    frame_bytes: usize,
) -> Result<Response, Failure> {
    let filter = LetterFilter {
        queue: None,
        group: asked.group,
        partition: asked.partition,
        from_ms: (asked.from_ms > 0).then_some(asked.from_ms),
        to_ms: (asked.to_ms > 0).then_some(asked.to_ms),
    };
    let (skip, limit) = (asked.skip as usize, asked.limit as usize);
    let page = rooms.delivery.dead_letters(asked.queue.as_ref(), filter, skip, limit).await;
    let page = page.map_err(|error| failed(&error.into()))?;
    let (mut letters, mut has_more) = (Vec::new(), page.has_more);
    let mut bytes = PAGE_HEAD_BYTES;
    for found in &page.letters {
        let letter = letter(rooms, found)?;
        bytes += letter.wire_bytes();
        if bytes > frame_bytes && !letters.is_empty() {
            has_more = true;
            break;
        }
        letters.push(letter);
    }
    Ok(Response::LetterPage(LetterPage { has_more, total: page.total, letters }))
}

fn letter(rooms: &Rooms, found: &ShownLetter) -> Result<Letter, Failure> {
    let message = rooms.delivery.letter_message(found);
    let (batch, problem) = opened(Some(&message.opened));
    let letter = &found.letter;
    Ok(Letter {
        queue: found.queue_name.parse().map_err(|error| failure::name(&error))?,
        partition: letter.partition,
        partition_name: found.partition_name.parse().map_err(|error| failure::name(&error))?,
        group: found.group_name.parse().map_err(|error| failure::name(&error))?,
        seq: letter.seq,
        time_ms: letter.pushed_ms,
        failed_ms: letter.failed_ms,
        attempts: letter.attempts,
        reason: match letter.reason {
            DeadReason::RetriesExhausted => LetterReason::RetriesExhausted,
            DeadReason::Asked => LetterReason::Asked,
            DeadReason::LeaseExpired => LetterReason::LeaseExpired,
        },
        error: LongText::lossy(&letter.error),
        producer: producer(letter.sub.as_ref()),
        batch,
        problem,
    })
}

pub(super) async fn begin_job(rooms: &Rooms, asked: BeginJob) -> Result<Response, Failure> {
    let order = JobOrder {
        aim: match asked.action {
            JobAction::Redrive => JobAim::Redrive,
            JobAction::Requeue { queue, partition } => JobAim::Requeue { queue, partition },
            JobAction::Delete => JobAim::Delete,
        },
        queue: asked.queue,
        group: asked.group,
        partition: asked.partition,
        error: (!asked.error.as_str().is_empty()).then(|| asked.error.as_str().into()),
        limit: asked.limit,
        rate: asked.rate,
        dry_run: asked.dry_run,
    };
    let begun = rooms.delivery.begin_job(order).await.map_err(|error| failed(&error))?;
    job(&begun).map(Response::JobBegun)
}

pub(super) fn jobs(rooms: &Rooms) -> Result<Response, Failure> {
    let jobs = rooms.delivery.jobs();
    let jobs = jobs.iter().map(|it: &Arc<Job>| job(it)).collect::<Result<_, Failure>>()?;
    Ok(Response::Jobs(Jobs { jobs }))
}

pub(super) async fn cancel_job(rooms: &Rooms, asked: CancelJob) -> Result<Response, Failure> {
    let cancelled = rooms.delivery.cancel_job(asked.id).await.map_err(|error| failed(&error))?;
    job(&cancelled).map(Response::JobCancelled)
}

fn job(job: &Job) -> Result<WireJob, Failure> {
    let group = job.group.as_ref().map(|name| name.parse()).transpose();
    let partition = job.partition.as_ref().map(|name| name.parse()).transpose();
    Ok(WireJob {
        id: job.id,
        kind: match job.action {
            Action::Redrive => JobKind::Redrive,
            Action::Requeue { .. } => JobKind::Requeue,
            Action::Delete => JobKind::Delete,
        },
        state: match job.state {
            JobState::Running => WireState::Running,
            JobState::Done => WireState::Done,
            JobState::Cancelled => WireState::Cancelled,
            JobState::Failed => WireState::Failed,
        },
        queue: job.queue_name.parse().map_err(|error| failure::name(&error))?,
        group: group.map_err(|error| failure::name(&error))?,
        partition: partition.map_err(|error| failure::name(&error))?,
        error: LongText::lossy(job.error.as_deref().unwrap_or_default()),
        limit: job.limit,
        rate: job.rate,
        dry_run: job.dry_run,
        moved: job.moved,
        skipped: job.skipped,
        deferred: job.deferred,
        created_ms: job.created_ms,
        updated_ms: job.stepped_ms,
        problem: LongText::lossy(&job.problem),
    })
}
