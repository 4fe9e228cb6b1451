//! Random commands, weighed so that sequences get somewhere: partitions fill, leases lapse, queues
//! are deleted now and then.

use proptest::prelude::*;

use crate::base::place::QueueId;
use crate::state::draft::ack::Verdict;
use crate::state::draft::group::SeekTo;
use crate::state::draft::pop::PopBudget;
use crate::state::effect::{GroupStart, OwnerId};

/// One command to a shard.
#[derive(Clone, Debug)]
pub(super) enum Step {
    Push {
        slot: usize,
        partition: u8,
        ids: Vec<Option<u8>>,
        bytes: usize,
    },
    Pop {
        slot: usize,
        partition: Option<u8>,
        group: usize,
        budget: PopBudget,
        lease_ms: u64,
        auto_ack: bool,
    },
    /// About one of the messages handed out so far, from its `skip`-th on.
    Ack {
        pick: usize,
        verdict: Verdict,
        skip: u64,
        most: u64,
        with_token: bool,
    },
    Extend {
        pick: usize,
        more_ms: u64,
    },
    /// What one of the messages handed out so far, from its `skip`-th on, was never given to its consumer.
    GiveBack {
        pick: usize,
        skip: u64,
    },
    Lapse {
        most: usize,
    },
    Retain {
        slot: usize,
    },
    Register {
        slot: usize,
        start: GroupStart,
    },
    Seek {
        slot: usize,
        group: usize,
        partition: Option<u8>,
        to: SeekTo,
    },
    DropGroup {
        slot: usize,
        group: usize,
    },
    Relocate {
        pick: usize,
        most: usize,
    },
    Rebury {
        pick: usize,
    },
    /// One letter back to its group, gone, or with its message appended again.
    Redrive {
        pick: usize,
        away: bool,
    },
    Erase {
        pick: usize,
    },
    Entomb {
        pick: usize,
    },
    Clear {
        pick: usize,
    },
    /// Pushes, acks and state keys that stand or fall together.
    Whole {
        parts: Vec<Step>,
        states: Vec<(usize, u8, Option<u16>)>,
        /// About the last ack: everything that its lease holds up to it, and whether it ends then.
        through: Option<bool>,
        /// A group that wants what is pushed at once.
        hands: Option<usize>,
        /// Whether it is refused at its end for a reason of its own.
        fails: bool,
    },
    /// Not made up: follows from [`Move::Delete`].
    Drop {
        queue: QueueId,
    },
    /// Not made up: follows from [`Move::Reset`].
    Forget {
        owner: OwnerId,
    },
}

impl Step {
    /// When a commit decides it, as `shard::round` does.
    pub(super) fn phase(&self) -> u8 {
        match self {
            Self::Lapse { .. } => 0,
            Self::Pop { .. }
            | Self::Ack { .. }
            | Self::Extend { .. }
            | Self::GiveBack { .. }
            | Self::Redrive { .. }
            | Self::Erase { .. }
            | Self::Entomb { .. }
            | Self::Clear { .. }
            | Self::Seek { .. }
            | Self::DropGroup { .. } => 1,
            Self::Register { .. } | Self::Drop { .. } | Self::Forget { .. } => 2,
            Self::Retain { .. } | Self::Relocate { .. } | Self::Rebury { .. } => 3,
            Self::Push { .. } => 4,
            Self::Whole { .. } => 5,
        }
    }
}

/// One move in a world with several deciders.
#[derive(Clone, Debug)]
pub(super) enum Move {
    /// Somebody decides, perhaps without looking first at what others did.
    Decide { who: usize, looks: bool, steps: Vec<Step> },
    /// Time passes.
    Sleep { ms: u64 },
    /// The next part of somebody's checkpoint.
    Checkpoint { who: usize },
    /// Somebody starts again on the rows that its machine kept.
    Restart { who: usize, kept: usize },
    /// A queue is deleted and another takes its place.
    Delete { who: usize, slot: usize },
    /// An owner of state keys loses them and has another number from there on.
    Reset { who: usize, slot: usize },
}

fn push() -> impl Strategy<Value = Step> {
    let id = prop_oneof![1 => Just(None), 1 => (0..12_u8).prop_map(Some)];
    let ids = prop_oneof![
        2 => (1..4_usize).prop_map(|count| vec![None; count]),
        3 => prop::collection::vec(id, 1..5),
    ];
    // Some batches are beyond what is copied into the rope.
    let bytes = prop_oneof![5 => 0..40_usize, 1 => 1_000..1_200_usize];
    (0..2_usize, 0..3_u8, ids, bytes).prop_map(|(slot, partition, ids, bytes)| Step::Push {
        slot,
        partition,
        ids,
        bytes,
    })
}

fn budget() -> impl Strategy<Value = PopBudget> {
    let bytes = prop_oneof![3 => Just(u64::MAX), 1 => 50..1_500_u64];
    (1..6_u32, bytes, 1..4_u32).prop_map(|(messages, bytes, partitions)| PopBudget {
        messages,
        bytes,
        partitions,
    })
}

fn pop() -> impl Strategy<Value = Step> {
    let partition = prop_oneof![2 => Just(None), 1 => (0..4_u8).prop_map(Some)];
    let lease_ms = prop_oneof![2 => Just(0), 1 => 1..20_000_u64];
    (0..2_usize, partition, 0..3_usize, budget(), lease_ms, prop::bool::weighted(0.2)).prop_map(
        |(slot, partition, group, budget, lease_ms, auto_ack)| Step::Pop {
            slot,
            partition,
            group,
            budget,
            lease_ms,
            auto_ack,
        },
    )
}

fn ack() -> impl Strategy<Value = Step> {
    let verdict = prop_oneof![
        4 => Just(Verdict::Completed),
        3 => Just(Verdict::Failed),
        1 => Just(Verdict::Retry),
        1 => Just(Verdict::Dead),
    ];
    (any::<usize>(), verdict, 0..6_u64, 0..5_u64, prop::bool::weighted(0.8)).prop_map(
        |(pick, verdict, skip, most, with_token)| Step::Ack {
            pick,
            verdict,
            skip,
            most,
            with_token,
        },
    )
}

/// From before the world began to some time after most worlds end.
fn time_ms() -> impl Strategy<Value = u64> {
    990_000..1_200_000_u64
}

fn seek() -> impl Strategy<Value = Step> {
    let to =
        prop_oneof![Just(SeekTo::Beginning), Just(SeekTo::End), time_ms().prop_map(SeekTo::Time),];
    let partition = prop_oneof![1 => Just(None), 1 => (0..4_u8).prop_map(Some)];
    (0..2_usize, 0..3_usize, partition, to).prop_map(|(slot, group, partition, to)| Step::Seek {
        slot,
        group,
        partition,
        to,
    })
}

fn whole() -> impl Strategy<Value = Step> {
    let redrive = (any::<usize>(), any::<bool>());
    let part = prop_oneof![
        4 => push(),
        4 => ack(),
        1 => redrive.prop_map(|(pick, away)| Step::Redrive { pick, away }),
        1 => any::<usize>().prop_map(|pick| Step::Entomb { pick }),
    ];
    let parts = prop::collection::vec(part, 1..5);
    let states = prop::collection::vec((0..2_usize, 0..5_u8, any::<Option<u16>>()), 0..4);
    let through = prop_oneof![2 => Just(None), 1 => any::<bool>().prop_map(Some)];
    let hands = prop_oneof![1 => Just(None), 1 => (0..3_usize).prop_map(Some)];
    (parts, states, through, hands, prop::bool::weighted(0.3)).prop_map(
        |(parts, states, through, hands, fails)| Step::Whole {
            parts,
            states,
            through,
            hands,
            fails,
        },
    )
}

pub(super) fn step() -> impl Strategy<Value = Step> {
    let start = prop_oneof![
        Just(GroupStart::Beginning),
        Just(GroupStart::New),
        time_ms().prop_map(GroupStart::Time),
    ];
    prop_oneof![
        8 => push(),
        8 => pop(),
        8 => ack(),
        5 => whole(),
        1 => (any::<usize>(), 0..30_000_u64)
            .prop_map(|(pick, more_ms)| Step::Extend { pick, more_ms }),
        2 => (any::<usize>(), 0..6_u64).prop_map(|(pick, skip)| Step::GiveBack { pick, skip }),
        3 => (0..4_usize).prop_map(|most| Step::Lapse { most }),
        1 => (0..2_usize).prop_map(|slot| Step::Retain { slot }),
        1 => (0..2_usize, start).prop_map(|(slot, start)| Step::Register { slot, start }),
        2 => seek(),
        1 => (0..2_usize, 0..3_usize)
            .prop_map(|(slot, group)| Step::DropGroup { slot, group }),
        1 => (any::<usize>(), 1..4_usize)
            .prop_map(|(pick, most)| Step::Relocate { pick, most }),
        1 => any::<usize>().prop_map(|pick| Step::Rebury { pick }),
        3 => (any::<usize>(), prop::bool::weighted(0.2))
            .prop_map(|(pick, away)| Step::Redrive { pick, away }),
        1 => any::<usize>().prop_map(|pick| Step::Erase { pick }),
        1 => any::<usize>().prop_map(|pick| Step::Entomb { pick }),
        1 => any::<usize>()
            .prop_map(|pick| Step::Clear { pick }),
    ]
}

/// Moves of `desks` deciders.
pub(super) fn moves(desks: usize, most: usize) -> impl Strategy<Value = Vec<Move>> {
    let who = 0..desks;
    let steps = prop::collection::vec(step(), 1..5);
    let sleep = prop_oneof![6 => 0..15_000_u64, 1 => 15_000..90_000_u64];
    let one = prop_oneof![
        14 => (who.clone(), any::<bool>(), steps)
            .prop_map(|(who, looks, steps)| Move::Decide { who, looks, steps }),
        3 => sleep.prop_map(|ms| Move::Sleep { ms }),
        5 => who.clone().prop_map(|who| Move::Checkpoint { who }),
        1 => (who.clone(), any::<usize>()).prop_map(|(who, kept)| Move::Restart { who, kept }),
        1 => (who.clone(), 0..2_usize).prop_map(|(who, slot)| Move::Delete { who, slot }),
        1 => (who, 0..2_usize).prop_map(|(who, slot)| Move::Reset { who, slot }),
    ];
    prop::collection::vec(one, 1..most)
}
