//! Retention: how much of a queue one commit looks at, and that the rest is not forgotten.

use std::sync::atomic::Ordering;

use crate::state::draft::upkeep::Diligence;
use crate::state::draft::{Context, Draft};
use crate::state::effect::Effect;
use crate::state::proofs::rows::Watched;
use crate::state::proofs::steps::Step;
use crate::state::proofs::world::{Desk, RETENTION_S, World};

/// Partitions of a queue with retention, each with so many runs that are rows.
fn stored(partitions: u8, runs: usize) -> (World, Desk) {
    let (mut world, mut desk) = (World::new(), Desk::new(0));
    for _ in 0..runs {
        let push = |partition| Step::Push { slot: 0, partition, ids: vec![None], bytes: 0 };
        let pushes: Vec<Step> = (0..partitions).map(push).collect();
        world.decide(&mut desk, &pushes, &mut |_, _| {});
    }
    for _ in 0..3 {
        desk.checkpoint();
    }
    (world, desk)
}

#[test]
fn where_nothing_is_old_enough_one_run_of_a_partition_is_looked_at() {
    let (world, mut desk) = stored(3, 50);
    let rows = Watched::new(std::mem::take(&mut desk.kv));
    let context = Context { kv: &rows, ..world.context(&rows.kv) };
    let mut draft = Draft::new(&desk.state, context);
    let mut left = Diligence { partitions: 100, runs: 1_000 };
    assert_eq!(draft.retain(0, 0, &mut left).unwrap(), None);
    assert!(draft.is_empty());
    assert_eq!(rows.scanned.load(Ordering::Relaxed), 3);
    assert_eq!(left, Diligence { partitions: 97, runs: 1_000 });
}

#[test]
fn a_queue_is_looked_through_a_part_at_a_time() {
    let (mut world, mut desk) = stored(5, 10);
    world.now_ms += u64::from(RETENTION_S) * 1000;
    let (mut from, mut parts, mut gone) = (Some(0), Vec::new(), 0);
    while let Some(at) = from {
        let mut draft = Draft::new(&desk.state, world.context(&desk.kv));
        // Two partitions and a part of the third.
        from = draft.retain(0, at, &mut Diligence { partitions: 3, runs: 26 }).unwrap();
        gone += draft.take_aside().let_go.retained;
        let entry = draft.finish(crate::state::effect::Origin::default()).unwrap();
        let trims = entry.effects.iter().filter(|it| matches!(it, Effect::Trim { .. })).count();
        parts.push((trims, from));
        desk.state.apply(&entry, 0, 0);
    }
    assert_eq!(parts, [(3, Some(2)), (3, None)]);
    assert_eq!(gone, 50);
}
