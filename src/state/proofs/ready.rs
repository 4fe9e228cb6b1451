//! Ready lists: what has work is found, and in turn.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use crate::base::place::PartitionNumber;
use crate::state::codec;
use crate::state::draft::Draft;
use crate::state::draft::ack::Verdict;
use crate::state::draft::pop::{PopAsk, PopBudget};
use crate::state::effect::Origin;
use crate::state::proofs::picture;
use crate::state::proofs::replay::carry_out;
use crate::state::proofs::steps::{Step, moves};
use crate::state::proofs::world::{
    Answer, DELAY_S, Desk, GROUPS, RETENTION_S, WINDOW_S, World, batch, key, messages, pop,
};

/// What a partition has for pops of one message each of a group now: nothing while somebody holds it, or while one of the
/// queue's rules keeps it.
fn open_now(world: &World, desk: &Desk, number: PartitionNumber, group: &str) -> usize {
    let partition = desk.state.partition(number).unwrap();
    let index = desk.state.group(partition.queue, group).unwrap();
    let cursor = partition.cursors.iter().find(|it| it.group == index).unwrap();
    let (now_ms, progress) = (desk.now_ms(world.now_ms), cursor.progress());
    if cursor.lease.is_some() || progress.waits_until_ms() > now_ms {
        return 0;
    }
    let times: Vec<(u64, u64)> = picture::messages(desk, &world.tape, number)
        .iter()
        .map(|it| (it.seq, it.time_ms))
        .collect();
    let newest_ms = times.last().map_or(0, |it| it.1);
    let mut open: Vec<u64> =
        times.iter().filter(|it| !progress.is_settled(it.0)).map(|it| it.1).collect();
    if partition.queue.is_multiple_of(2) {
        let ms = |seconds: u32| u64::from(seconds) * 1000;
        open.retain(|time_ms| time_ms + ms(RETENTION_S) > now_ms);
        // One by one: the window that a message was too old for closes again behind it.
        let is_open = |oldest_ms: &&u64| {
            let closes_ms = (newest_ms + ms(WINDOW_S)).min(*oldest_ms + 10 * ms(WINDOW_S));
            closes_ms <= now_ms && *oldest_ms + ms(DELAY_S) <= now_ms
        };
        return open.iter().take_while(is_open).count();
    }
    open.len()
}

/// Partitions of a queue that have something for a group now.
fn with_work(world: &World, desk: &Desk, queue: u32, group: &str) -> BTreeSet<PartitionNumber> {
    if desk.state.group(queue, group).is_none() {
        return BTreeSet::new();
    }
    let all = desk.state.partitions_of(queue).map(|(number, _)| number);
    all.filter(|number| open_now(world, desk, *number, group) > 0).collect()
}

/// Partitions that pops of one message each find in one draft that is thrown away.
fn found(
    world: &World,
    desk: &Desk,
    queue: u32,
    group: &str,
    auto_ack: bool,
) -> Vec<PartitionNumber> {
    let mut draft = Draft::new(&desk.state, world.context(&desk.kv));
    let mut found = Vec::new();
    for number in 0..200_u8 {
        let token = [number; 16];
        let ask = PopAsk { queue, partition: None, group, token, lease_ms: 0, auto_ack };
        let mut claims = Vec::new();
        pop(&desk.state, &mut draft, &ask, &mut messages(1), &mut claims);
        let Some(claim) = claims.pop() else { break };
        found.push(claim.partition);
    }
    found
}

proptest! {
    #![proptest_config(super::cases(64))]

    #[test]
    fn a_partition_with_work_that_nobody_holds_is_always_found(moves in moves(1, 50)) {
        let (mut world, mut desks) = (World::new(), vec![Desk::new(0)]);
        for one in &moves {
            carry_out(&mut world, &mut desks, one);
            for (queue, group) in world.queues.iter().flat_map(|it| GROUPS.map(|group| (*it, group))) {
                let expected = with_work(&world, &desks[0], queue, group);
                let leased = found(&world, &desks[0], queue, group, false);
                let unique: BTreeSet<_> = leased.iter().copied().collect();
                prop_assert_eq!(leased.len(), unique.len(), "a partition was leased twice");
                prop_assert_eq!(unique, expected, "queue {} group {}", queue, group);
            }
        }
    }

    #[test]
    fn what_a_small_answer_leaves_is_found_by_the_next_pop_of_the_commit(
        moves in moves(1, 40),
        small in prop::collection::vec((1..5_u32, 50..1_500_u64, 1..4_u32), 1..4),
    ) {
        let (mut world, mut desks) = (World::new(), vec![Desk::new(0)]);
        for one in &moves {
            carry_out(&mut world, &mut desks, one);
        }
        for (queue, group) in world.queues.iter().flat_map(|it| GROUPS.map(|group| (*it, group))) {
            let desk = &desks[0];
            let mut draft = Draft::new(&desk.state, world.context(&desk.kv));
            let mut claims = Vec::new();
            for (number, (messages, bytes, partitions)) in (0..).zip(&small) {
                let token = [number; 16];
                let ask = PopAsk { queue, partition: None, group, token, lease_ms: 0, auto_ack: false };
                let mut budget =
                    PopBudget { messages: *messages, bytes: *bytes, partitions: *partitions };
                let mut own = Vec::new();
                pop(&desk.state, &mut draft, &ask, &mut budget, &mut own);
                claims.append(&mut own);
            }
            let token = [99; 16];
            let ask = PopAsk { queue, partition: None, group, token, lease_ms: 0, auto_ack: false };
            let mut budget = PopBudget { messages: 1_000, bytes: u64::MAX, partitions: 1_000 };
            pop(&desk.state, &mut draft, &ask, &mut budget, &mut claims);
            let claimed: BTreeSet<_> = claims.iter().map(|claim| claim.partition).collect();
            prop_assert_eq!(claimed, with_work(&world, desk, queue, group));
        }
    }

    #[test]
    fn pops_that_settle_at_once_find_every_message_in_one_commit(moves in moves(1, 40)) {
        let (mut world, mut desks) = (World::new(), vec![Desk::new(0)]);
        for one in &moves {
            carry_out(&mut world, &mut desks, one);
        }
        for (queue, group) in world.queues.iter().flat_map(|it| GROUPS.map(|group| (*it, group))) {
            let desk = &desks[0];
            let with_work = with_work(&world, desk, queue, group).into_iter();
            let open: usize = with_work.map(|number| open_now(&world, desk, number, group)).sum();
            let claimed = found(&world, desk, queue, group, true);
            prop_assert_eq!(claimed.len(), open.min(200), "queue {} group {}", queue, group);
        }
    }

    #[test]
    fn no_partition_is_served_twice_while_another_waits(
        backlog in prop::collection::vec(1..9_usize, 2..7),
        pops in prop::collection::vec((any::<bool>(), 1..4_u32, 1..3_usize), 10..60),
    ) {
        let (mut world, mut desk) = (World::new(), Desk::new(0));
        for (partition, count) in (0..).zip(&backlog) {
            let push = Step::Push { slot: 1, partition, ids: vec![None; *count], bytes: 0 };
            world.decide(&mut desk, &[push], &mut |_, _| {});
        }
        // How often each waiting partition saw others served since it began to wait.
        let mut passed_over: BTreeMap<PartitionNumber, BTreeMap<PartitionNumber, u32>> = BTreeMap::new();
        for (auto_ack, most, at_once) in pops {
            let waiting = with_work(&world, &desk, 1, GROUPS[0]);
            passed_over.retain(|number, _| waiting.contains(number));
            let budget = PopBudget { messages: most, bytes: u64::MAX, partitions: 1 };
            let step = Step::Pop { slot: 1, partition: None, group: 0, budget, lease_ms: 0, auto_ack };
            let answers = world.decide(&mut desk, &vec![step; at_once], &mut |_, _| {});
            let mut served = Vec::new();
            for answer in answers {
                let Answer::Popped { claims, .. } = answer else { continue };
                served.extend(claims.iter().map(|claim| claim.partition));
            }
            for number in &served {
                for waits in waiting.iter().filter(|waits| !served.contains(waits)) {
                    let others = passed_over.entry(*waits).or_default();
                    let times = others.entry(*number).or_default();
                    *times += 1;
                    prop_assert!(*times < 2, "{} was served twice while {} waited", number, waits);
                }
                passed_over.remove(number);
            }
            // Consumers are quick: what was leased is done with before the next pop.
            let acks = (0..world.held.len()).map(|pick| Step::Ack {
                pick,
                verdict: Verdict::Completed,
                skip: 0,
                most: 100,
                with_token: true,
            });
            let acks: Vec<Step> = acks.collect();
            world.decide(&mut desk, &acks, &mut |_, _| {});
            world.held.clear();
        }
    }
}

#[test]
fn what_one_commit_acknowledges_it_can_hand_out_again() {
    let (mut world, mut desk) = (World::new(), Desk::new(0));
    let push = Step::Push { slot: 1, partition: 0, ids: vec![None; 10], bytes: 0 };
    world.decide(&mut desk, &[push], &mut |_, _| {});
    let budget = messages(4);
    let step =
        Step::Pop { slot: 1, partition: None, group: 0, budget, lease_ms: 0, auto_ack: false };
    let mut handed_out = Vec::new();
    for _ in 0..4 {
        let done = Step::Ack {
            pick: 0,
            verdict: Verdict::Completed,
            skip: 0,
            most: 100,
            with_token: true,
        };
        let steps =
            if world.held.is_empty() { vec![step.clone()] } else { vec![done, step.clone()] };
        let answers = world.decide(&mut desk, &steps, &mut |_, _| {});
        world.held.retain(|held| desk.state.holds(held.token));
        for answer in answers {
            let Answer::Popped { claims, .. } = answer else { continue };
            handed_out.extend(claims.iter().flat_map(|claim| claim.ranges.clone()));
        }
    }
    assert_eq!(handed_out, vec![(0, 4), (4, 8), (8, 10)]);
}

#[test]
fn partitions_before_their_time_leave_the_list_and_come_back_when_it_has_come() {
    const PARTITIONS: usize = 1_500;
    let (mut world, mut desk) = (World::new(), Desk::new(0));
    let queue = world.queues[0];
    let mut draft = Draft::new(&desk.state, world.context(&desk.kv));
    for number in 0..PARTITIONS {
        let name = format!("p{number}");
        let number = draft.place(queue, &name, key().place(queue, &name)).unwrap();
        draft.push(number, &batch(0, &[None], 0).0).unwrap();
    }
    let entry = draft.finish(Origin::default()).unwrap();
    let rope = codec::encode(&entry);
    let position = world.tape.append(desk.state.head(), &rope).unwrap();
    desk.state.apply(&entry, position, rope.iter().map(|part| part.len() as u64).sum());
    let group = desk.state.group(queue, GROUPS[0]).unwrap();
    let ready = |desk: &Desk| desk.state.group_at(group).unwrap().ready_count;
    assert_eq!(ready(&desk), PARTITIONS);
    let budget = messages(1);
    let pop = Step::Pop { slot: 0, partition: None, group: 0, budget, lease_ms: 0, auto_ack: true };
    let claims = |answers: Vec<Answer>| match answers.into_iter().next() {
        Some(Answer::Popped { claims, .. }) => claims.len(),
        _ => 0,
    };
    // One commit looks at some of them, and the next one at the rest; then nobody looks any more.
    for left in [476, 0, 0] {
        assert_eq!(claims(world.decide(&mut desk, std::slice::from_ref(&pop), &mut |_, _| {})), 0);
        assert_eq!(ready(&desk), left);
    }
    assert_eq!(desk.state.group_at(group).unwrap().ready.len(), 0, "not even a stale entry");
    world.now_ms += u64::from(DELAY_S) * 1000;
    for _ in 0..PARTITIONS {
        assert_eq!(claims(world.decide(&mut desk, std::slice::from_ref(&pop), &mut |_, _| {})), 1);
    }
    assert_eq!(claims(world.decide(&mut desk, &[pop], &mut |_, _| {})), 0);
}
