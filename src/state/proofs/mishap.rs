//! One thing that goes wrong stays one thing.

use crate::base::place::ShardId;
use crate::state::Bodies;
use crate::state::codec::{self, Chunk};
use crate::state::draft::ack::Verdict;
use crate::state::draft::{Context, Draft};
use crate::state::effect::{Effect, Entry, Origin};
use crate::state::model::Run;
use crate::state::proofs::steps::Step;
use crate::state::proofs::world::{Answer, Desk, LEASE_MS, World, messages};

/// A log of which some bytes cannot be read.
struct Damaged<'a> {
    world: &'a World,
    unreadable: u64,
}

impl Bodies for Damaged<'_> {
    fn chunks(&self, shard: ShardId, run: &Run) -> Option<Vec<Chunk>> {
        (run.position != self.unreadable).then(|| self.world.tape.chunks(shard, run))?
    }
}

/// Partitions that each hold one message of `bytes`, leased for the last time.
fn leased(world: &mut World, desk: &mut Desk, partitions: u8, bytes: usize) {
    for partition in 0..partitions {
        let push = Step::Push { slot: 1, partition, ids: vec![None], bytes };
        world.decide(desk, &[push], &mut |_, _| {});
    }
    let pop = Step::Pop {
        slot: 1,
        partition: None,
        group: 0,
        budget: messages(1),
        lease_ms: 0,
        auto_ack: false,
    };
    for _ in 0..=crate::state::proofs::world::RETRY_LIMIT {
        world.decide(desk, &[Step::Lapse { most: 100 }], &mut |_, _| {});
        world.decide(desk, &vec![pop.clone(); usize::from(partitions)], &mut |_, _| {});
        world.now_ms += LEASE_MS;
    }
}

fn buried(entry: &Entry) -> usize {
    entry.effects.iter().filter(|effect| matches!(effect, Effect::Bury(_))).count()
}

#[test]
fn a_message_that_cannot_be_read_holds_up_no_other_lease() {
    let (mut world, mut desk) = (World::new(), Desk::new(0));
    leased(&mut world, &mut desk, 3, 10);
    let first = desk.state.timers.first().unwrap().1;
    let unreadable = desk.state.partitions[first as usize].runs[0].position;
    let damaged = Damaged { world: &world, unreadable };
    let context = Context { bodies: &damaged, ..world.context(&desk.kv) };
    let mut draft = Draft::new(&desk.state, context);
    assert_eq!(draft.lapse(10, &mut { usize::MAX }), 3);
    let entry = draft.finish(Origin::default()).unwrap();
    assert_eq!(buried(&entry), 2);
    let rope = codec::encode(&entry);
    let position = world.tape.append(desk.state.head(), &rope).unwrap();
    desk.state.apply(&entry, position, rope.iter().map(|part| part.len() as u64).sum());
    // Still there, with its attempts, for when it can be read.
    let cursor = &desk.state.partitions[first as usize].cursors[0];
    assert_eq!((cursor.next, cursor.progress().attempts_of(0)), (0, 2));
    assert_eq!((cursor.lease.is_some(), cursor.ready), (false, true));
}

#[test]
fn dead_letters_of_many_lapsed_leases_come_in_several_entries() {
    let (mut world, mut desk) = (World::new(), Desk::new(0));
    leased(&mut world, &mut desk, 12, 900_000);
    let (mut entries, mut letters) = (0, 0);
    while desk.state.next_timer_ms().is_some() {
        world.decide(&mut desk, &[Step::Lapse { most: 100 }], &mut |entry, _| {
            entries += 1;
            letters += buried(entry);
            let bytes: usize = entry.effects.iter().map(codec::encoded_len).sum();
            assert!(bytes < 6 << 20, "{bytes} bytes in one entry");
        });
    }
    assert_eq!((entries, letters), (3, 12));
}

#[test]
fn a_delay_does_not_outlive_the_message_that_failed() {
    let (mut world, mut desk) = (World::new(), Desk::new(0));
    let pop = Step::Pop {
        slot: 1,
        partition: None,
        group: 0,
        budget: messages(1),
        lease_ms: 0,
        auto_ack: false,
    };
    let push = Step::Push { slot: 1, partition: 0, ids: vec![None], bytes: 0 };
    let verdict = Verdict::Failed;
    let fail = Step::Ack { pick: 0, verdict, skip: 0, most: 0, with_token: true };
    let clear = Step::Clear { pick: 0 };
    for step in [push.clone(), pop.clone(), fail, clear, push] {
        world.decide(&mut desk, &[step], &mut |_, _| {});
    }
    let answers = world.decide(&mut desk, &[pop], &mut |_, _| {});
    let [Answer::Popped { claims, .. }] = &answers[..] else { panic!("{answers:?}") };
    assert_eq!(claims.first().map(|claim| claim.ranges.clone()), Some(vec![(1, 2)]));
}
