//! Examples of what whoever runs queues asks: messages, dead letters, jobs. Called by `examples`.

use onrush_protocol::request::{
    BeginJob, CancelJob, ChangeMessage, GetMessage, JobAction, ListJobs, ListLetters, ListMessages,
    MessageChange, MessageKey,
};
use onrush_protocol::response::{
    Job, JobKind, JobState, Jobs, Letter, LetterPage, LetterReason, MessageChanged, MessageDetail,
    MessageGroup, MessagePage, MessageShown, MessageStanding,
};
use onrush_protocol::{LongText, PartitionName, Request, Response};

use crate::examples::{TIME_MS, group, long, queue, small_batch};

pub(crate) fn requests() -> Vec<(&'static str, u64, Request)> {
    let list = ListMessages {
        skip: 0,
        limit: 100,
        status: Some(MessageStanding::DeadLetter),
        from_ms: 0,
        to_ms: 0,
        partition: None,
        queue: Some(queue()),
    };
    let change = ChangeMessage {
        partition: 42,
        key: MessageKey::TransactionId(long("order-1")),
        change: MessageChange::Bury,
        group: Some(group()),
        error: long("no card"),
    };
    let letters = ListLetters {
        skip: 0,
        limit: 100,
        from_ms: 0,
        to_ms: 0,
        partition: None,
        group: Some(group()),
        queue: None,
    };
    let begin = BeginJob {
        action: JobAction::Requeue { queue: Some("again".parse().unwrap()), partition: None },
        queue: queue(),
        group: Some(group()),
        partition: None,
        error: long("no card"),
        limit: 0,
        rate: 100,
        dry_run: false,
    };
    let get = GetMessage { partition: 42, key: MessageKey::Seq(1000) };
    vec![
        ("list_messages", 30, Request::ListMessages(list)),
        ("get_message", 31, Request::GetMessage(get)),
        ("change_message", 32, Request::ChangeMessage(change)),
        ("list_letters", 33, Request::ListLetters(letters)),
        ("begin_job", 34, Request::BeginJob(begin)),
        ("list_jobs", 35, Request::ListJobs(ListJobs {})),
        ("cancel_job", 36, Request::CancelJob(CancelJob { id: 3 })),
    ]
}

fn shown() -> MessageShown {
    MessageShown {
        queue: queue(),
        partition: 42,
        partition_name: PartitionName::default(),
        seq: 1000,
        time_ms: TIME_MS,
        status: MessageStanding::DeadLetter,
        groups: 2,
        groups_done: 1,
        lease_until_ms: 0,
        trace_id: [0; 16],
        transaction_id: long("order-1"),
        producer: long("shop"),
    }
}

fn job(state: JobState, moved: u64) -> Job {
    Job {
        id: 3,
        kind: JobKind::Redrive,
        state,
        queue: queue(),
        group: Some(group()),
        partition: None,
        error: long("no card"),
        limit: 0,
        rate: 100,
        dry_run: false,
        moved,
        skipped: 2,
        deferred: 0,
        created_ms: TIME_MS,
        updated_ms: TIME_MS + 1000,
        problem: LongText::default(),
    }
}

pub(crate) fn responses() -> Vec<(&'static str, u64, Response)> {
    let standing = MessageGroup {
        group: group(),
        status: MessageStanding::DeadLetter,
        attempts: 3,
        lease_until_ms: 0,
        error: long("no card"),
    };
    let detail = MessageDetail {
        shown: shown(),
        is_encrypted: true,
        batch: small_batch().bytes().clone(),
        problem: LongText::default(),
        groups: vec![standing],
    };
    let letter = Letter {
        queue: queue(),
        partition: 42,
        partition_name: PartitionName::default(),
        group: group(),
        seq: 1000,
        time_ms: TIME_MS,
        failed_ms: TIME_MS + 1000,
        attempts: 3,
        reason: LetterReason::RetriesExhausted,
        error: long("no card"),
        producer: LongText::default(),
        batch: small_batch().bytes().clone(),
        problem: LongText::default(),
    };
    let page = MessagePage { has_more: false, messages: vec![shown()] };
    let letters = LetterPage { has_more: false, total: Some(1), letters: vec![letter] };
    let jobs = Jobs { jobs: vec![job(JobState::Done, 70)] };
    vec![
        ("message_page", 30, Response::MessagePage(page)),
        ("message_detail", 31, Response::MessageDetail(detail)),
        ("message_changed", 32, Response::MessageChanged(MessageChanged { groups: 1 })),
        ("letter_page", 33, Response::LetterPage(letters)),
        ("job_begun", 34, Response::JobBegun(job(JobState::Running, 0))),
        ("jobs", 35, Response::Jobs(jobs)),
        ("job_cancelled", 36, Response::JobCancelled(job(JobState::Cancelled, 70))),
    ]
}

#[test]
fn a_letter_takes_the_bytes_that_it_says() {
    for (_, _, response) in responses() {
        let Response::LetterPage(page) = response else { continue };
        let mut body = bytes::BytesMut::new();
        page.encode(&mut body);
        let letters: usize = page.letters.iter().map(Letter::wire_bytes).sum();
        // Two flags, the total and the count; a name's least byte is counted as one of its own.
        assert!((body.len() - 14..=body.len() - 14 + 2).contains(&letters), "{letters}");
    }
}
