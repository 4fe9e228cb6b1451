//! Rounds over several shards, on a log that is a piece of memory.

mod bench;

use onrush_protocol::options::QueueOptions;

use crate::base::place::{QueueId, ShardId};
use crate::shard::command::{Asked, Command, DefineClass, Maintain};
use crate::shard::round::tests::bench::{Bench, LEASE_MS, body, push_of};
use crate::shard::round::{Outcome, Plan, Replayed, Work};
use crate::shard::tend::{Ask, JobStep, LetterBatch};
use crate::shard::transaction::{
    HandOver, OnDuplicate, Reach, Transaction, TransactionAck, TransactionAppend,
};
use crate::state::care::job::{Action, Job, JobState};
use crate::state::draft::DecideError;
use crate::state::draft::ack::{AckItem, Verdict};
use crate::state::effect::{Effect, LeaseToken};

/// Options of queues whose messages die with their first lease.
fn mortal() -> QueueOptions {
    QueueOptions {
        lease_time_s: (LEASE_MS / 1000) as u32,
        retry_limit: 0,
        ..QueueOptions::default()
    }
}

fn sealed() -> QueueOptions {
    QueueOptions { encryption_enabled: true, ..QueueOptions::default() }
}

#[test]
fn a_class_is_there_with_its_queue_or_not_at_all() {
    let mut bench = Bench::new(2);
    let define = |expected| {
        let (reply, _) = tokio::sync::oneshot::channel();
        let (queue, asked, text) = ("c".parse().unwrap(), Asked::default(), "{}".into());
        Command::DefineClass(Box::new(DefineClass { queue, asked, expected, text, reply }))
    };
    let refused = bench.command(define(Some(1)));
    assert!(refused.entries.is_empty(), "{:?}", refused.entries);
    let made = bench.command(define(Some(0)));
    let [(_, entry)] = &made.entries[..] else { panic!("{:?}", made.entries) };
    let [Effect::DefineQueue(queue), Effect::DefineClass { queue: of, version: 1, .. }] =
        &entry.effects[..]
    else {
        panic!("{entry:?}")
    };
    assert_eq!(queue.id, *of);
    let next = bench.command(define(None));
    let effects = next.entries.iter().flat_map(|(_, entry)| &entry.effects);
    let effects: Vec<&Effect> = effects.collect();
    assert!(matches!(effects[..], [Effect::DefineClass { version: 2, .. }]), "{effects:?}");
}

#[test]
fn leases_of_all_shards_that_lapse_together_come_in_commits_of_a_bounded_size() {
    let mut bench = Bench::new(16);
    let queue = bench.define("q", mortal());
    let payload = vec![b'x'; 900_000];
    for shard in 0..16 {
        bench.push(queue, &bench.name_in(shard, queue), &payload);
    }
    bench.pop_all("q", "g");
    bench.now_ms += LEASE_MS;
    let (mut commits, mut letters) = (Vec::new(), 0);
    while bench.replica.shards.iter().any(|shard| shard.next_timer_ms().is_some()) {
        let plan = bench.commit(Work::default());
        let effects = plan.entries.iter().flat_map(|(_, entry)| &entry.effects);
        letters += effects.filter(|it| matches!(it, Effect::Bury(_))).count();
        commits.push(plan.proposals.iter().map(|it| it.len()).sum::<usize>());
    }
    assert_eq!(letters, 16);
    assert!(commits.iter().all(|bytes| *bytes < 6 << 20), "{commits:?}");
    // As many as fit go together.
    assert_eq!(commits.len(), 4, "{commits:?}");
}

#[test]
fn the_shard_whose_leases_have_been_over_for_longest_lapses_first() {
    let mut bench = Bench::new(16);
    let queue = bench.define("q", mortal());
    let payload = vec![b'x'; 900_000];
    for shard in (0..16).rev() {
        bench.push(queue, &bench.name_in(shard, queue), &payload);
        bench.pop_all("q", "g");
        bench.now_ms += 1;
    }
    bench.now_ms += LEASE_MS;
    let plan = bench.commit(Work::default());
    let shards: Vec<ShardId> = plan.entries.iter().map(|(shard, _)| *shard).collect();
    assert_eq!(shards, [11, 12, 13, 14, 15]);
}

#[test]
fn what_waited_in_clear_for_a_queue_that_is_sealed_by_now_holds_up_nothing_behind_it() {
    let mut bench = Bench::new(2);
    let (clear, sealed) = (bench.define("q", mortal()), bench.define("s", sealed()));
    let items = [(clear, "1"), (sealed, "2"), (clear, "3")];
    let work = Work { replay: bench.replay(&items), ..Work::default() };
    let plan = bench.commit(work);
    let is_done = |replayed: &Replayed| matches!(replayed, Replayed::Done(_));
    assert_eq!(plan.replayed.iter().map(is_done).collect::<Vec<_>>(), [true, false, true]);
    assert!(matches!(plan.replayed[1], Replayed::Refused(DecideError::NotSealed)));
    let marks = plan.entries.iter().flat_map(|(_, entry)| &entry.effects);
    let marks = marks.filter_map(|effect| match effect {
        Effect::Replayed { position, .. } => Some(*position),
        _ => None,
    });
    assert_eq!(marks.max(), Some(3), "the one that was refused is passed by");
}

#[test]
fn a_letter_whose_new_place_does_not_take_it_stays() {
    let mut bench = Bench::new(2);
    let (queue, sealed) = (bench.define("q", mortal()), bench.define("s", sealed()));
    for text in ["1", "2"] {
        bench.push(queue, "p", text.as_bytes());
    }
    bench.pop_all("q", "g");
    bench.now_ms += LEASE_MS;
    bench.commit(Work::default());
    let keys: Vec<_> = bench.replica.shards.iter().flat_map(|it| it.recent_dead().keys()).collect();
    let &[&(partition, group, _), _] = keys.as_slice() else { panic!("{keys:?}") };
    let job = Job {
        id: 0,
        action: Action::Requeue { queue: sealed, partition: None },
        queue,
        queue_name: "q".into(),
        group: None,
        partition: None,
        error: None,
        limit: 0,
        rate: 0,
        dry_run: false,
        created_ms: 0,
        state: JobState::Running,
        moved: 0,
        skipped: 0,
        deferred: 0,
        cursor: None,
        engine: 0,
        stepped_ms: 0,
        problem: "".into(),
    };
    bench.tend(Ask::Begin(Box::new(job)));
    let job = bench.replica.catalog.catalog().jobs().running().next().unwrap().id;
    // The first one was sealed for its new place, the second one was not.
    let letters = [(0, Some(body(b"1", true))), (1, Some(body(b"2", false)))];
    let step = JobStep {
        job,
        batches: vec![LetterBatch { partition, group, letters: letters.to_vec() }],
        skipped: 0,
        from: None,
        cursor: None,
        is_end: true,
        problem: None,
    };
    let plan = bench.tend(Ask::Step(Box::new(step)));
    assert!(matches!(plan.outcomes[0], Outcome::Failed(DecideError::NotSealed)));
    assert!(plan.entries.is_empty(), "{:?}", plan.entries);
}

/// A transaction that appends a message for a group that wants it at once.
fn handing(bench: &Bench, queue: QueueId, partition: &str, acks: Vec<TransactionAck>) -> Command {
    let (reply, _nobody) = tokio::sync::oneshot::channel();
    let hash = bench.replica.key().place(queue, partition);
    let (token, lease_ms) = ([7; 16], LEASE_MS);
    let claim = Some(HandOver { group: "g".parse().unwrap(), token, lease_ms });
    let (partition, push) = (partition.parse().unwrap(), push_of(b"handed over"));
    let appends = vec![TransactionAppend { queue, partition, hash, push, backlog_max: 0, claim }];
    let (leases, states, notes) = (Vec::new(), Vec::new(), Vec::new());
    let on_duplicate = OnDuplicate::Report;
    let whole = Transaction { leases, acks, states, appends, notes, on_duplicate, reply };
    Command::Transact(Box::new(whole))
}

/// When the lease on what it appended ends, where it was handed over.
fn handed(plan: &Plan) -> Option<u64> {
    match &plan.outcomes[0] {
        Outcome::Transacted(Ok(committed)) => committed.claims.first().copied().flatten(),
        other => panic!("{other:?}"),
    }
}

fn settle(bench: &Bench, queue: QueueId, token: LeaseToken, seq: u64) -> TransactionAck {
    let hash = bench.replica.key().place(queue, "p");
    let shard = &bench.replica.shards[usize::from(bench.replica.count().of_hash(hash))];
    let item =
        AckItem { first: seq, last: seq, verdict: Verdict::Completed, error: Box::default() };
    let partition = shard.find(queue, "p", hash).unwrap();
    let group = "g".parse().unwrap();
    TransactionAck { group, token: Some(token), partition, item, reach: Reach::Named }
}

#[test]
fn what_a_group_would_pop_next_goes_to_whoever_appends_it_with_the_same_entry() {
    let mut bench = Bench::new(4);
    let queue = bench.define("q", QueueOptions::default());
    bench.push(queue, "p", b"first");
    bench.pop_all("q", "g");
    let busy = bench.command(handing(&bench, queue, "p", Vec::new()));
    assert_eq!(handed(&busy), None, "somebody holds what comes before");
    let acks = vec![settle(&bench, queue, [9; 16], 0)];
    let behind = bench.command(handing(&bench, queue, "p", acks));
    assert_eq!(handed(&behind), None, "one waits in between");
    bench.pop_all("q", "g");
    let acks = vec![settle(&bench, queue, [9; 16], 1), settle(&bench, queue, [9; 16], 2)];
    let plan = bench.command(handing(&bench, queue, "p", acks));
    assert_eq!(handed(&plan), Some(bench.now_ms + LEASE_MS));
    let effects = plan.entries.iter().flat_map(|(_, entry)| &entry.effects);
    let last = effects.last();
    assert!(matches!(last, Some(Effect::Lease { from: 3, to: 4, .. })), "{last:?}");
    let acks = vec![settle(&bench, queue, [9; 16], 3)];
    let stranger = bench.command(handing(&bench, queue, "p", acks));
    assert!(matches!(&stranger.outcomes[0], Outcome::Transacted(Err(_))), "{stranger:?}");
    let acks = vec![settle(&bench, queue, [7; 16], 3)];
    assert!(handed(&bench.command(handing(&bench, queue, "p", acks))).is_some(), "and so on");
}

#[test]
fn nothing_is_handed_over_that_a_pop_would_not_get() {
    let mut bench = Bench::new(4);
    let queue = bench.define("q", QueueOptions::default());
    let new = bench.command(handing(&bench, queue, "new", Vec::new()));
    assert_eq!(handed(&new), None, "the partition is made by it, and nobody knows the group");
    bench.pop_all("q", "g");
    let fresh = bench.command(handing(&bench, queue, "fresh", Vec::new()));
    assert_eq!(handed(&fresh), None, "the partition is made by it");

    let delayed = QueueOptions { delayed_processing_s: 60, ..QueueOptions::default() };
    let queue = bench.define("later", QueueOptions::default());
    bench.push(queue, "p", b"first");
    bench.pop_all("later", "g");
    let acks = vec![settle(&bench, queue, [9; 16], 0)];
    bench.define("later", delayed);
    let plan = bench.command(handing(&bench, queue, "p", acks));
    assert_eq!(handed(&plan), None, "its time has not come");
}

#[test]
fn nothing_is_handed_over_while_pops_are_held_back() {
    let mut bench = Bench::new(4);
    let queue = bench.define("q", QueueOptions::default());
    bench.push(queue, "p", b"first");
    bench.pop_all("q", "g");
    let acks = vec![settle(&bench, queue, [9; 16], 0)];
    let (reply, _nobody) = tokio::sync::oneshot::channel();
    bench.command(Command::Maintain(Maintain { push: None, pop: Some(true), reply }));
    let plan = bench.command(handing(&bench, queue, "p", acks));
    assert_eq!(handed(&plan), None);
}
