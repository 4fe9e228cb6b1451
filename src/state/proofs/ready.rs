//! Ready lists: what has work is found, and in turn.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use crate::base::place::PartitionNumber;
use crate::state::draft::Draft;
use crate::state::draft::ack::Verdict;
use crate::state::draft::pop::{PopAsk, PopBudget};
use crate::state::proofs::replay::carry_out;
use crate::state::proofs::steps::{Step, moves};
use crate::state::proofs::world::{Answer, Desk, GROUPS, World, messages, pop};

/// Partitions of a queue that have something for a group that nobody holds.
fn with_work(desk: &Desk, queue: u32, group: &str) -> BTreeSet<PartitionNumber> {
    let Some(index) = desk.state.group(queue, group) else { return BTreeSet::new() };
    let has_work = |partition: &crate::state::model::Partition| {
        let cursor = partition.cursors.iter().find(|it| it.group == index).unwrap();
        cursor.lease.is_none() && cursor.next < partition.next_seq
    };
    let all = desk.state.partitions_of(queue);
    all.filter(|(_, partition)| has_work(partition)).map(|(number, _)| number).collect()
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
                let expected = with_work(&desks[0], queue, group);
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
            prop_assert_eq!(claimed, with_work(desk, queue, group));
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
            let mut open = 0;
            for number in with_work(desk, queue, group) {
                let partition = desk.state.partition(number).unwrap();
                let index = desk.state.group(queue, group).unwrap();
                let cursor = partition.cursors.iter().find(|it| it.group == index).unwrap();
                let ranges = cursor.progress().open_ranges(0, partition.next_seq);
                open += ranges.iter().map(|(from, to)| to - from).sum::<u64>();
            }
            let claimed = found(&world, desk, queue, group, true);
            prop_assert_eq!(claimed.len() as u64, open.min(200), "queue {} group {}", queue, group);
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
            let waiting = with_work(&desk, 1, GROUPS[0]);
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
