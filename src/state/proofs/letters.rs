//! Dead letters: made, looked for and given back, at any age and with any reader that fails.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::base::place::{PartitionNumber, ShardId};
use crate::state::Bodies;
use crate::state::care::Care;
use crate::state::codec::Chunk;
use crate::state::draft::ack::{AckItem, AckRefusal, Acked, Verdict};
use crate::state::draft::group::SeekTo;
use crate::state::draft::{Context, DecideError, Draft};
use crate::state::effect::{Effect, GroupStart};
use crate::state::model::Run;
use crate::state::proofs::rows::Watched;
use crate::state::proofs::steps::Step;
use crate::state::proofs::world::{Desk, World, messages};

/// The queue of these tests: none of its messages goes by its age, for its `ttl` is only the default.
const SLOT: usize = 1;

fn push(world: &mut World, desk: &mut Desk, count: usize) -> PartitionNumber {
    let push = Step::Push { slot: SLOT, partition: 0, ids: vec![None; count], bytes: 0 };
    world.decide(desk, &[push], &mut |_, _| {});
    desk.state.partition_numbers().next().unwrap()
}

/// Two messages that are dead, their letters in rows, and a group that gets both again.
fn dead_and_open_again(world: &mut World, desk: &mut Desk) -> PartitionNumber {
    let number = push(world, desk, 2);
    let (slot, group, budget) = (SLOT, 0, messages(2));
    let pop = Step::Pop { slot, partition: None, group, budget, lease_ms: 0, auto_ack: false };
    world.decide(desk, &[pop], &mut |_, _| {});
    let verdict = Verdict::Dead;
    let ack = Step::Ack { pick: 0, verdict, skip: 0, most: 1, with_token: true };
    world.decide(desk, &[ack], &mut |_, _| {});
    let seek = Step::Seek { slot, group, partition: None, to: SeekTo::Beginning };
    world.decide(desk, &[seek], &mut |_, _| {});
    for _ in 0..3 {
        desk.checkpoint();
    }
    number
}

fn all_of(first: u64, last: u64, verdict: Verdict) -> [AckItem; 1] {
    [AckItem { first, last, verdict, error: "said no".into() }]
}

#[test]
fn a_letter_comes_at_its_old_place_however_old_it_is_where_nothing_goes_by_its_age() {
    let (mut world, mut desk) = (World::new(), Desk::new(0));
    dead_and_open_again(&mut world, &mut desk);
    // Longer than half of the default.
    world.now_ms += 40 * 60 * 1000;
    let (mut reopened, mut appended) = (0, 0);
    world.decide(&mut desk, &[Step::Redrive { pick: 0, away: false }], &mut |entry, _| {
        for effect in &entry.effects {
            reopened += usize::from(matches!(effect, Effect::Care(Care::Reopen { .. })));
            appended += usize::from(matches!(effect, Effect::Append { .. }));
        }
    });
    assert_eq!((reopened, appended), (1, 0));
}

#[test]
fn a_verdict_that_cannot_be_decided_leaves_nothing_behind() {
    let (mut world, mut desk) = (World::new(), Desk::new(0));
    let number = dead_and_open_again(&mut world, &mut desk);
    let failing = Watched::new(std::mem::take(&mut desk.kv));
    failing.gets_left.store(1, Ordering::Relaxed);
    let context = Context { kv: &failing, ..world.context(&failing.kv) };
    let mut draft = Draft::new(&desk.state, context);
    // Both have letters of before, which are to go; the second one's cannot be looked for.
    let results = draft.ack(number, "a", None, &all_of(0, 1, Verdict::Dead));
    assert!(matches!(&results[..], [Err(AckRefusal::Decide(DecideError::Kv(_)))]), "{results:?}");
    assert!(draft.is_empty());
    // And once they can be read, both go.
    failing.gets_left.store(usize::MAX, Ordering::Relaxed);
    let results = draft.ack(number, "a", None, &all_of(0, 1, Verdict::Dead));
    assert!(matches!(&results[..], [Ok(Acked { buried: 2, .. })]), "{results:?}");
}

/// Counts how often a run is read.
struct Counting<'a> {
    world: &'a World,
    reads: AtomicUsize,
}

impl Bodies for Counting<'_> {
    fn chunks(&self, shard: ShardId, run: &Run) -> Option<Vec<Chunk>> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.world.tape.chunks(shard, run)
    }
}

#[test]
fn a_verdict_reads_each_run_once_and_is_about_no_more_than_a_lease_holds() {
    let (mut world, mut desk) = (World::new(), Desk::new(0));
    let number = push(&mut world, &mut desk, 6_000);
    push(&mut world, &mut desk, 6_000);
    let bodies = Counting { world: &world, reads: AtomicUsize::new(0) };
    let context = Context { bodies: &bodies, ..world.context(&desk.kv) };
    let mut draft = Draft::new(&desk.state, context);
    for verdict in [Verdict::Failed, Verdict::Dead, Verdict::Retry] {
        let results = draft.ack(number, "a", None, &all_of(0, 10_000, verdict));
        let over = DecideError::OverLimit { of: "messages", limit: 10_000 };
        assert_eq!(results, [Err(AckRefusal::Decide(over))]);
    }
    assert!(draft.is_empty());
    let results = draft.ack(number, "a", None, &all_of(0, 9_999, Verdict::Dead));
    assert!(matches!(&results[..], [Ok(Acked { buried: 10_000, .. })]), "{results:?}");
    assert_eq!(bodies.reads.load(Ordering::Relaxed), 2);
    // Those that are done already are none of them; and what settles is one step, however many.
    let results = draft.ack(number, "a", None, &all_of(0, 11_999, Verdict::Completed));
    assert!(matches!(&results[..], [Ok(Acked { settled: 2_000, .. })]), "{results:?}");
}

/// How many messages an entry appends.
fn appends(world: &mut World, desk: &mut Desk, steps: &[Step]) -> usize {
    let mut appended = 0;
    world.decide(desk, steps, &mut |entry, _| {
        let is_append = |effect: &&Effect| matches!(effect, Effect::Append { .. });
        appended += entry.effects.iter().filter(is_append).count();
    });
    appended
}

#[test]
fn letters_of_a_group_that_was_deleted_go_with_their_message_and_back_to_the_group_of_its_name() {
    let (mut world, mut desk) = (World::new(), Desk::new(0));
    let number = push(&mut world, &mut desk, 3);
    let (slot, group, budget) = (SLOT, 2, messages(3));
    let comes = Step::Register { slot, start: GroupStart::Beginning };
    world.decide(&mut desk, std::slice::from_ref(&comes), &mut |_, _| {});
    let pop = Step::Pop { slot, partition: None, group, budget, lease_ms: 0, auto_ack: false };
    world.decide(&mut desk, &[pop], &mut |_, _| {});
    let verdict = Verdict::Dead;
    let ack = Step::Ack { pick: 0, verdict, skip: 0, most: 2, with_token: true };
    world.decide(&mut desk, &[ack], &mut |_, _| {});
    let left = |desk: &Desk| {
        let letters = desk.state.dead_of(&desk.kv, number).unwrap();
        letters.into_keys().map(|(.., seq)| seq).collect::<Vec<_>>()
    };
    world.decide(&mut desk, &[Step::DropGroup { slot, group }], &mut |_, _| {});
    for _ in 0..3 {
        desk.checkpoint();
    }
    let redrive = [Step::Redrive { pick: 0, away: false }];
    assert_eq!(appends(&mut world, &mut desk, &redrive), 0);
    assert_eq!(left(&desk), [0, 1, 2], "they outlive it, and nobody gets them back");
    // Deleting a message leaves nothing of it to read.
    world.decide(&mut desk, &[Step::Erase { pick: 0 }], &mut |_, _| {});
    assert_eq!(left(&desk), [1, 2]);
    // The group comes again. What it has still to get it does not get twice.
    world.decide(&mut desk, &[comes], &mut |_, _| {});
    assert_eq!(appends(&mut world, &mut desk, &redrive), 0);
    assert_eq!(left(&desk), [2]);
    // What it is done with comes at the end.
    let seek = Step::Seek { slot, group, partition: None, to: SeekTo::End };
    world.decide(&mut desk, &[seek], &mut |_, _| {});
    assert_eq!(appends(&mut world, &mut desk, &redrive), 1);
    assert!(left(&desk).is_empty());
    let open = |name| {
        let index = desk.state.group(world.queues[slot], name).unwrap();
        let progress = desk.state.cursor(number, index).unwrap().progress();
        progress.open_ranges(3, 4).len()
    };
    assert_eq!((open("late"), open("b")), (1, 0), "for its own group only");
}
