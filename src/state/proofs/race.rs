//! Two deciders, one log: whoever is stale loses the race, looks, and decides again. Whatever the
//! order, the log keeps its invariants and everybody who was answered was told the truth.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use crate::state::draft::ack::Verdict;
use crate::state::draft::push::Pushed;
use crate::state::proofs::audit::Audit;
use crate::state::proofs::picture::picture;
use crate::state::proofs::replay::carry_out;
use crate::state::proofs::steps::{Move, moves};
use crate::state::proofs::world::{Answer, Desk, World};

/// What consumers did to messages of one group, by (partition, group).
#[derive(Default)]
struct Consumed {
    /// Messages whose completion was confirmed.
    done: BTreeSet<u64>,
}

#[derive(Default)]
struct Promises {
    consumed: BTreeMap<(u32, &'static str), Consumed>,
}

impl Promises {
    /// Holds an answer against the log as it is now.
    fn check(&mut self, answer: &Answer, audit: &Audit) {
        match answer {
            Answer::Pushed { partition, records, pushed } => {
                let stored = &audit.partitions[partition].messages;
                for (index, (id, payload)) in records.iter().enumerate() {
                    let (seq, time_ms, duplicate) = match pushed {
                        Pushed::Stored { first_seq, time_ms, count } => {
                            assert_eq!(*count as usize, records.len());
                            (first_seq + index as u64, *time_ms, false)
                        }
                        Pushed::Mixed(outcomes) => {
                            let outcome = outcomes[index];
                            (outcome.message.seq, outcome.message.time_ms, outcome.duplicate)
                        }
                    };
                    let message = &stored[seq as usize];
                    assert_eq!((&message.id, message.time_ms), (id, time_ms));
                    assert!(duplicate || message.payload == *payload, "another message is there");
                    assert!(!duplicate || id.is_some(), "a duplicate without an id");
                }
            }
            Answer::Popped { group, auto_ack, claims, .. } => {
                for claim in claims {
                    let consumed = self.consumed.entry((claim.partition, group)).or_default();
                    for seq in claim.ranges.iter().flat_map(|(from, to)| *from..*to) {
                        // What a consumer calls done after it was buried may still be given back.
                        let is_back = audit.reopened.contains(&(claim.partition, seq));
                        let is_done = consumed.done.contains(&seq) && !is_back;
                        assert!(!is_done, "{seq} was done and came again");
                        if *auto_ack {
                            consumed.done.insert(seq);
                        }
                    }
                }
            }
            Answer::Acked { held, item, result: Ok(_) } if item.verdict == Verdict::Completed => {
                let consumed = self.consumed.entry((held.partition, held.group)).or_default();
                consumed.done.extend(item.first..=item.last);
            }
            Answer::Restarted(group) => self.consumed.retain(|(_, its), _| its != group),
            Answer::Whole(answers) => answers.iter().for_each(|answer| self.check(answer, audit)),
            _ => {}
        }
    }
}

proptest! {
    #![proptest_config(super::cases(96))]

    #[test]
    fn deciders_that_race_keep_every_invariant(moves in moves(2, 80)) {
        let mut world = World::new();
        let mut desks = vec![Desk::new(0), Desk::new(1)];
        let (mut audit, mut promises) = (Audit::default(), Promises::default());
        for one in &moves {
            let Move::Decide { who, looks, steps } = one else {
                let before = world.tape.head();
                carry_out(&mut world, &mut desks, one);
                for index in before..world.tape.head() {
                    audit.take(&crate::state::codec::decode(world.tape.entry(index).1).unwrap());
                }
                continue;
            };
            let desk = &mut desks[*who];
            if *looks {
                desk.follow(&world.tape);
            }
            let answers = world.decide(desk, steps, &mut |entry, _| audit.take(entry));
            for answer in &answers {
                promises.check(answer, &audit);
            }
        }
        for desk in &mut desks {
            desk.follow(&world.tape);
        }
        let pictures = desks.iter().map(|desk| picture(desk, &world.tape, world.now_ms));
        let pictures: Vec<_> = pictures.collect();
        prop_assert_eq!(&pictures[0], &pictures[1]);
        prop_assert_eq!(&pictures[0].states, &audit.states);
    }
}
