//! One partition and one group against a model that a child could check: a list of messages, each
//! open, done or dead, and perhaps one lease.

use proptest::prelude::*;

use crate::base::place::PartitionNumber;
use crate::state::draft::Draft;
use crate::state::draft::ack::{AckItem, AckRefusal, Acked, Verdict};
use crate::state::draft::pop::PopStep;
use crate::state::effect::LeaseToken;
use crate::state::proofs::steps::Step;
use crate::state::proofs::world::{
    Answer, Desk, GROUPS, LEASE_MS, RETRY_DELAY_MS, RETRY_LIMIT, World, messages,
};

#[derive(Clone, Debug, Default, PartialEq)]
struct Message {
    settled: bool,
    dead: bool,
    attempts: u32,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Lease {
    token: LeaseToken,
    until_ms: u64,
    from: u64,
    to: u64,
}

#[derive(Default)]
struct Model {
    messages: Vec<Message>,
    lease: Option<Lease>,
    /// Until when nothing is handed out because something failed.
    not_before_ms: u64,
}

impl Model {
    fn open(&self, from: u64, to: u64) -> Vec<u64> {
        let in_range = (from..to).take_while(|seq| *seq < self.messages.len() as u64);
        in_range.filter(|seq| !self.messages[*seq as usize].settled).collect()
    }

    fn fail(&mut self, open: &[u64], limit: Option<u32>) -> u32 {
        let mut buried = 0;
        for seq in open {
            let message = &mut self.messages[*seq as usize];
            message.attempts += u32::from(limit.is_some());
            if limit.is_none_or(|limit| message.attempts > limit) {
                (message.settled, message.dead) = (true, true);
                buried += 1;
            }
        }
        buried
    }

    fn lapse(&mut self, now_ms: u64) {
        if let Some(lease) = self.lease.filter(|lease| lease.until_ms <= now_ms) {
            let open = self.open(lease.from, lease.to);
            self.fail(&open, Some(RETRY_LIMIT));
            self.lease = None;
        }
    }

    /// The messages that a consumer gets; `None` when another one holds the partition.
    fn pop(
        &mut self,
        token: LeaseToken,
        now_ms: u64,
        most: u32,
        auto_ack: bool,
    ) -> Option<Vec<u64>> {
        if self.lease.is_some() {
            return None;
        }
        if self.not_before_ms > now_ms {
            return Some(Vec::new());
        }
        let mut open = self.open(0, u64::MAX);
        open.truncate(most as usize);
        let (Some(first), Some(last)) = (open.first(), open.last()) else { return Some(open) };
        if auto_ack {
            open.iter().for_each(|seq| self.messages[*seq as usize].settled = true);
        } else {
            let until_ms = now_ms + LEASE_MS;
            self.lease = Some(Lease { token, until_ms, from: *first, to: last + 1 });
        }
        Some(open)
    }

    fn ack(
        &mut self,
        token: Option<LeaseToken>,
        item: &AckItem,
        now_ms: u64,
    ) -> Result<Acked, AckRefusal> {
        let AckItem { first, last, verdict, .. } = *item;
        let missing = Err(AckRefusal::NoMessage { first, last });
        if first > last || last >= self.messages.len() as u64 {
            return missing;
        }
        let open = self.open(first, last + 1);
        let mut acked = Acked::default();
        let mut release = false;
        if !(open.is_empty() && verdict == Verdict::Completed) {
            if let Some(token) = token {
                let Some(lease) = self.lease.filter(|lease| lease.token == token) else {
                    return Err(AckRefusal::LeaseExpired);
                };
                if first < lease.from || last >= lease.to {
                    return missing;
                }
            }
            match verdict {
                Verdict::Completed => {
                    acked.settled = open.len() as u32;
                    open.iter().for_each(|seq| self.messages[*seq as usize].settled = true);
                }
                Verdict::Retry => release = true,
                Verdict::Failed => {
                    acked.buried = self.fail(&open, Some(RETRY_LIMIT));
                    release = (acked.buried as usize) < open.len();
                    if release {
                        self.not_before_ms = now_ms + RETRY_DELAY_MS;
                    }
                }
                Verdict::Dead => acked.buried = self.fail(&open, None),
            }
        }
        let done = self.lease.is_some_and(|lease| self.open(lease.from, lease.to).is_empty());
        acked.released = (release || done) && self.lease.is_some();
        if acked.released {
            self.lease = None;
        }
        // Nobody waits for a message that is done after all.
        let waits = |message: &Message| !message.settled && message.attempts > 0;
        if !self.messages.iter().any(waits) {
            self.not_before_ms = 0;
        }
        Ok(acked)
    }
}

#[derive(Clone, Debug)]
enum Ask {
    Push(usize),
    Pop { most: u32, auto_ack: bool },
    Ack { whose: Whose, first: u64, count: u64, verdict: Verdict },
    Extend { more_ms: u64 },
    Sleep { ms: u64 },
    Checkpoint,
}

/// The lease that an ack names.
#[derive(Clone, Copy, Debug)]
enum Whose {
    Live,
    Older,
    None,
}

fn asks() -> impl Strategy<Value = Vec<Ask>> {
    let verdict = prop_oneof![
        4 => Just(Verdict::Completed), 3 => Just(Verdict::Failed),
        1 => Just(Verdict::Retry), 1 => Just(Verdict::Dead),
    ];
    let whose =
        prop_oneof![6 => Just(Whose::Live), 1 => Just(Whose::Older), 2 => Just(Whose::None)];
    let one = prop_oneof![
        3 => (1..5_usize).prop_map(Ask::Push),
        4 => (1..6_u32, prop::bool::weighted(0.2))
            .prop_map(|(most, auto_ack)| Ask::Pop { most, auto_ack }),
        6 => (whose, 0..25_u64, 0..4_u64, verdict)
            .prop_map(|(whose, first, count, verdict)| Ask::Ack { whose, first, count, verdict }),
        1 => (0..20_000_u64).prop_map(|more_ms| Ask::Extend { more_ms }),
        2 => (0..8_000_u64).prop_map(|ms| Ask::Sleep { ms }),
        1 => Just(Ask::Checkpoint),
    ];
    prop::collection::vec(one, 1..80)
}

/// The real thing beside its model.
struct Pair {
    world: World,
    desk: Desk,
    model: Model,
    /// Every token that was given out, newest last.
    tokens: Vec<LeaseToken>,
}

const QUEUE: u32 = 1;

impl Pair {
    fn partition(&self) -> Option<PartitionNumber> {
        self.desk.state.partition_numbers().next()
    }

    fn ask(&mut self, ask: &Ask) {
        self.lapse();
        match ask {
            Ask::Push(count) => {
                let ids = vec![None; *count];
                self.step(Step::Push { slot: QUEUE as usize, partition: 0, ids, bytes: 0 });
                self.model.messages.extend(vec![Message::default(); *count]);
            }
            Ask::Pop { most, auto_ack } => self.pop(*most, *auto_ack),
            Ask::Ack { whose, first, count, verdict } => {
                let token = match whose {
                    Whose::Live => self.model.lease.map(|lease| lease.token).or(Some([9; 16])),
                    Whose::Older => Some(self.tokens.first().copied().unwrap_or([8; 16])),
                    Whose::None => None,
                };
                let (first, last) = (*first, first + count);
                let error = "no".into();
                self.ack(token, &AckItem { first, last, verdict: *verdict, error });
            }
            Ask::Extend { more_ms } => self.extend(*more_ms),
            Ask::Sleep { ms } => self.world.now_ms += ms,
            Ask::Checkpoint => self.desk.checkpoint(),
        }
    }

    fn step(&mut self, step: Step) -> Answer {
        self.world.decide(&mut self.desk, &[step], &mut |_, _| {}).pop().unwrap()
    }

    fn lapse(&mut self) {
        self.step(Step::Lapse { most: 10 });
        self.model.lapse(self.world.now_ms);
    }

    fn pop(&mut self, most: u32, auto_ack: bool) {
        let pop = Step::Pop {
            slot: QUEUE as usize,
            partition: Some(0),
            group: 0,
            budget: messages(most),
            lease_ms: 0,
            auto_ack,
        };
        let Answer::Popped { step, token, claims, .. } = self.step(pop) else { unreachable!() };
        if self.partition().is_none() {
            // The group is not known before the first partition is.
            assert!(step == PopStep::NoPartition);
            return;
        }
        let expected = self.model.pop(token, self.world.now_ms, most, auto_ack);
        assert_eq!(step == PopStep::LeaseHeld, expected.is_none());
        let claimed =
            claims.iter().flat_map(|claim| &claim.ranges).flat_map(|(from, to)| *from..*to);
        let expected = expected.unwrap_or_default();
        assert_eq!(claimed.collect::<Vec<u64>>(), expected);
        for (seq, attempts) in claims.iter().flat_map(|claim| &claim.attempts) {
            assert_eq!(self.model.messages[*seq as usize].attempts, *attempts);
        }
        if !auto_ack && !expected.is_empty() {
            self.tokens.push(token);
        }
    }

    fn ack(&mut self, token: Option<LeaseToken>, item: &AckItem) {
        let Some(partition) = self.partition() else { return };
        let expected = self.model.ack(token, item, self.world.now_ms);
        let found = {
            let mut draft = Draft::new(&self.desk.state, self.world.context(&self.desk.kv));
            draft.ack(partition, GROUPS[0], token, std::slice::from_ref(item)).pop().unwrap()
        };
        assert_eq!(found, expected, "{item:?} with {token:?}");
        // Once more, and this time for good.
        self.world.held = vec![crate::state::proofs::world::Held {
            token: token.unwrap_or_default(),
            group: GROUPS[0],
            partition,
            ranges: vec![(item.first, item.last + 1)],
        }];
        let ack = Step::Ack {
            pick: 0,
            verdict: item.verdict,
            skip: 0,
            most: u64::from(u32::MAX),
            with_token: token.is_some(),
        };
        self.step(ack);
        self.world.held.clear();
    }

    fn extend(&mut self, more_ms: u64) {
        let Some(partition) = self.partition() else { return };
        let token = self.tokens.last().copied().unwrap_or([7; 16]);
        self.world.held = vec![crate::state::proofs::world::Held {
            token,
            group: GROUPS[0],
            partition,
            ranges: vec![(0, 1)],
        }];
        let Answer::Extended(found) = self.step(Step::Extend { pick: 0, more_ms }) else {
            unreachable!()
        };
        self.world.held.clear();
        let wish = self.world.now_ms + more_ms;
        let lease = self.model.lease.as_mut().filter(|lease| lease.token == token);
        let expected = lease.map(|lease| {
            lease.until_ms = lease.until_ms.max(wish);
            lease.until_ms
        });
        assert_eq!(found, expected);
    }

    fn compare(&self) {
        let Some(number) = self.partition() else { return };
        let partition = self.desk.state.partition(number).unwrap();
        let group = self.desk.state.group(QUEUE, GROUPS[0]).unwrap();
        let cursor = partition.cursors.iter().find(|it| it.group == group).unwrap();
        let progress = cursor.progress();
        let dead = self.desk.state.dead_of(&self.desk.kv, number).unwrap();
        assert_eq!(partition.next_seq, self.model.messages.len() as u64);
        for (seq, message) in (0..).zip(&self.model.messages) {
            assert_eq!(progress.is_settled(seq), message.settled, "{seq} settled");
            assert_eq!(dead.contains_key(&(number, group, seq)), message.dead, "{seq} dead");
            if !message.settled {
                assert_eq!(progress.attempts_of(seq), message.attempts, "attempts of {seq}");
            }
        }
        let lease = cursor.lease.as_deref().map(|it| Lease {
            token: it.token,
            until_ms: it.until_ms,
            from: it.from,
            to: it.to,
        });
        assert_eq!(lease, self.model.lease);
    }
}

proptest! {
    #![proptest_config(super::cases(128))]

    #[test]
    fn a_partition_behaves_as_its_model(asks in asks()) {
        let (world, desk) = (World::new(), Desk::new(0));
        let mut pair = Pair { world, desk, model: Model::default(), tokens: Vec::new() };
        for ask in &asks {
            pair.ask(ask);
            pair.compare();
        }
    }
}
