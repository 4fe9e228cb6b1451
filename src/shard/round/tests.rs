//! Rounds over several shards, on a log that is a piece of memory.

mod bench;

use onrush_protocol::options::QueueOptions;

use crate::base::place::ShardId;
use crate::shard::round::tests::bench::{Bench, LEASE_MS, body};
use crate::shard::round::{Outcome, Replayed, Work};
use crate::shard::tend::{Ask, JobStep, LetterBatch};
use crate::state::care::job::{Action, Job, JobState};
use crate::state::draft::DecideError;
use crate::state::effect::Effect;

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
