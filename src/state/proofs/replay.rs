//! Apply is a function of the log: through bytes, through rows, through crashes, the same state.

use proptest::prelude::*;

use crate::state::kv::Kv;
use crate::state::kv::memory::MemoryKv;
use crate::state::proofs::picture::picture;
use crate::state::proofs::steps::{Move, Step, moves};
use crate::state::proofs::world::{Desk, POLICY, World};

/// Carries out one move; `seen` gets every entry.
pub(super) fn carry_out(world: &mut World, desks: &mut [Desk], one: &Move) {
    match one {
        Move::Decide { who, looks, steps } => {
            let desk = &mut desks[*who];
            if *looks {
                desk.follow(&world.tape);
            }
            world.decide(desk, steps, &mut |_, _| {});
        }
        Move::Sleep { ms } => world.now_ms += ms,
        Move::Checkpoint { who } => {
            let (kv, now_ms) = (&desks[*who].kv, world.now_ms - desks[*who].behind_ms());
            kv.drop_generations_before(POLICY.oldest(now_ms)).unwrap();
            desks[*who].checkpoint();
        }
        Move::Restart { who, kept } => {
            let mut kv = std::mem::take(&mut desks[*who].kv);
            crash(&mut kv, *kept);
            desks[*who] = Desk::load(*who as u64, kv);
            desks[*who].follow(&world.tape);
        }
        Move::Delete { who, slot } => {
            let queue = world.replace_queue(*slot);
            world.decide(&mut desks[*who], &[Step::Drop { queue }], &mut |_, _| {});
        }
        Move::Reset { who, slot } => {
            let owner = world.replace_owner(*slot);
            world.decide(&mut desks[*who], &[Step::Forget { owner }], &mut |_, _| {});
        }
    }
    desks.iter_mut().for_each(|desk| desk.wake(world.now_ms));
}

/// The machine keeps some of the batches that were not persisted.
fn crash(kv: &mut MemoryKv, kept: usize) {
    let kept = kept % (kv.unpersisted() + 1);
    kv.crash(kept);
    // What survived is history now; a later crash can take back only what comes after it.
    kv.persist().unwrap();
}

proptest! {
    #![proptest_config(super::cases(96))]

    #[test]
    fn a_state_is_the_same_through_bytes_and_through_rows(moves in moves(1, 60), kept in any::<usize>()) {
        let (mut world, mut desks) = (World::new(), vec![Desk::new(0)]);
        let mut by_bytes = Desk::new(1);
        for one in &moves {
            carry_out(&mut world, &mut desks, one);
            by_bytes.follow(&world.tape);
            let expected = picture(&by_bytes, &world.tape, world.now_ms);
            let found = picture(&desks[0], &world.tape, world.now_ms);
            prop_assert_eq!(&found, &expected);
        }
        let mut kv = desks.remove(0).kv;
        crash(&mut kv, kept);
        let mut by_rows = Desk::load(2, kv);
        by_rows.follow(&world.tape);
        let expected = picture(&by_bytes, &world.tape, world.now_ms);
        prop_assert_eq!(picture(&by_rows, &world.tape, world.now_ms), expected);
    }
}
