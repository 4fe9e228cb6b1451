//! Any of what whoever runs queues asks, and any answer to it. Called by `properties`.

use onrush_protocol::request::{
    BeginJob, CancelJob, ChangeMessage, GetMessage, JobAction, ListJobs, ListLetters, ListMessages,
    MessageChange, MessageKey,
};
use onrush_protocol::response::{
    Job, JobKind, JobState, Jobs, Letter, LetterPage, LetterReason, MessageChanged, MessageDetail,
    MessageGroup, MessagePage, MessageShown, MessageStanding,
};
use onrush_protocol::{LongText, Request, Response};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use crate::properties::{blob, group, long, partition, queue};

fn standing() -> impl Strategy<Value = MessageStanding> {
    select(MessageStanding::ALL)
}

fn key() -> impl Strategy<Value = MessageKey> {
    prop_oneof![any::<u64>().prop_map(MessageKey::Seq), long().prop_map(MessageKey::TransactionId),]
}

fn list_messages() -> impl Strategy<Value = Request> {
    let page = (0..=100_000u32, 1..=1_000u32, option::of(standing()), any::<[u64; 2]>());
    (page, option::of(partition()), option::of(queue())).prop_map(|(page, partition, queue)| {
        let (skip, limit, status, [from_ms, to_ms]) = page;
        let asked = ListMessages { skip, limit, status, from_ms, to_ms, partition, queue };
        Request::ListMessages(asked)
    })
}

fn list_letters() -> impl Strategy<Value = Request> {
    let page = (0..=1_000_000u32, 1..=1_000u32, any::<[u64; 2]>());
    let names = (option::of(partition()), option::of(group()), option::of(queue()));
    (page, names).prop_map(|((skip, limit, [from_ms, to_ms]), (partition, group, queue))| {
        let asked = ListLetters { skip, limit, from_ms, to_ms, partition, group, queue };
        Request::ListLetters(asked)
    })
}

fn begin_job() -> impl Strategy<Value = Request> {
    let action = prop_oneof![
        Just(JobAction::Redrive),
        Just(JobAction::Delete),
        (option::of(queue()), option::of(partition()))
            .prop_map(|(queue, partition)| JobAction::Requeue { queue, partition }),
    ];
    let names = (queue(), option::of(group()), option::of(partition()));
    let error = "\\PC{0,200}".prop_map(|text| LongText::lossy(&text));
    (action, names, error, any::<(u64, bool)>(), 0..=1_000_000u32).prop_map(
        |(action, (queue, group, partition), error, (limit, dry_run), rate)| {
            let job = BeginJob { action, queue, group, partition, error, limit, rate, dry_run };
            Request::BeginJob(job)
        },
    )
}

pub(crate) fn request() -> impl Strategy<Value = Request> {
    let change = (any::<u32>(), key(), select(MessageChange::ALL), option::of(group()), long());
    prop_oneof![
        list_messages(),
        (any::<u32>(), key())
            .prop_map(|(partition, key)| Request::GetMessage(GetMessage { partition, key })),
        change.prop_map(|(partition, key, change, group, error)| {
            Request::ChangeMessage(ChangeMessage { partition, key, change, group, error })
        }),
        list_letters(),
        begin_job(),
        Just(Request::ListJobs(ListJobs {})),
        any::<u32>().prop_map(|id| Request::CancelJob(CancelJob { id })),
    ]
}

fn shown() -> impl Strategy<Value = MessageShown> {
    let place = (queue(), any::<u32>(), partition(), any::<[u64; 3]>(), standing());
    let rest = (any::<[u32; 2]>(), any::<[u8; 16]>(), long(), long());
    (place, rest).prop_map(|(place, rest)| {
        let (queue, partition, partition_name, [seq, time_ms, lease_until_ms], status) = place;
        let ([groups, groups_done], trace_id, transaction_id, producer) = rest;
        MessageShown {
            queue,
            partition,
            partition_name,
            seq,
            time_ms,
            status,
            groups,
            groups_done,
            lease_until_ms,
            trace_id,
            transaction_id,
            producer,
        }
    })
}

fn detail() -> impl Strategy<Value = Response> {
    let groups = (group(), standing(), any::<u32>(), any::<u64>(), long()).prop_map(
        |(group, status, attempts, lease_until_ms, error)| MessageGroup {
            group,
            status,
            attempts,
            lease_until_ms,
            error,
        },
    );
    (shown(), any::<bool>(), blob(), long(), vec(groups, 0..4)).prop_map(
        |(shown, is_encrypted, batch, problem, groups)| {
            let detail = MessageDetail { shown, is_encrypted, batch, problem, groups };
            Response::MessageDetail(detail)
        },
    )
}

fn letter() -> impl Strategy<Value = Letter> {
    let place = (queue(), any::<u32>(), partition(), group(), any::<[u64; 3]>());
    let words = (any::<u32>(), select(LetterReason::ALL), long(), long(), blob(), long());
    (place, words).prop_map(|(place, words)| {
        let (queue, partition, partition_name, group, [seq, time_ms, failed_ms]) = place;
        let (attempts, reason, error, producer, batch, problem) = words;
        Letter {
            queue,
            partition,
            partition_name,
            group,
            seq,
            time_ms,
            failed_ms,
            attempts,
            reason,
            error,
            producer,
            batch,
            problem,
        }
    })
}

fn job() -> impl Strategy<Value = Job> {
    let what = (any::<u32>(), select(JobKind::ALL), select(JobState::ALL), any::<[u64; 6]>());
    let names = (queue(), option::of(group()), option::of(partition()));
    let rest = (long(), any::<u32>(), any::<bool>(), long());
    (what, names, rest).prop_map(|(what, (queue, group, partition), rest)| {
        let (id, kind, state, [limit, moved, skipped, deferred, created_ms, updated_ms]) = what;
        let (error, rate, dry_run, problem) = rest;
        Job {
            id,
            kind,
            state,
            queue,
            group,
            partition,
            error,
            limit,
            rate,
            dry_run,
            moved,
            skipped,
            deferred,
            created_ms,
            updated_ms,
            problem,
        }
    })
}

pub(crate) fn response() -> impl Strategy<Value = Response> {
    prop_oneof![
        (any::<bool>(), vec(shown(), 0..4)).prop_map(|(has_more, messages)| {
            Response::MessagePage(MessagePage { has_more, messages })
        }),
        detail(),
        any::<u64>().prop_map(|groups| Response::MessageChanged(MessageChanged { groups })),
        (any::<bool>(), any::<Option<u64>>(), vec(letter(), 0..4)).prop_map(
            |(has_more, total, letters)| {
                Response::LetterPage(LetterPage { has_more, total, letters })
            }
        ),
        job().prop_map(Response::JobBegun),
        vec(job(), 0..4).prop_map(|jobs| Response::Jobs(Jobs { jobs })),
        job().prop_map(Response::JobCancelled),
    ]
}
