//! A small world for one shard: a conditional log, deciders with replicas of their own, a clock, and
//! queues that can be deleted.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use onrush_protocol::batch::{BatchBuilder, NewRecord, RecordBatch};
use onrush_protocol::options::QueueOptions;

use crate::base::place::{PartitionNumber, QueueId, ShardCount, ShardId, StoreKey};
use crate::state::catalog::{Catalog, CatalogShard, QueueDefinition};
use crate::state::checkpoint::Checkpoint;
use crate::state::codec::{self, Chunk, ENTRY_HEADER};
use crate::state::draft::ack::{AckItem, AckRefusal, Acked};
use crate::state::draft::care::{LetterBody, LetterMove};
use crate::state::draft::pop::{Claim, PopAsk, PopBudget, PopStep};
use crate::state::draft::push::{PushBatch, Pushed};
use crate::state::draft::transaction::StateOp;
use crate::state::draft::upkeep::Diligence;
use crate::state::draft::{Context, Draft};
use crate::state::effect::{
    Effect, Entry, GroupIndex, GroupStart, LeaseToken, Origin, OwnerId, ProducerSub, Sequence,
};
use crate::state::kv::Kv;
use crate::state::kv::memory::MemoryKv;
use crate::state::ledger::DedupPolicy;
use crate::state::model::Run;
use crate::state::proofs::steps::Step;
use crate::state::{Bodies, ShardState};

/// The shard that everything happens in; not 0, so that numbers and local indexes differ.
pub(super) const SHARD: ShardId = 1;
/// Bytes between entries, so that a position computed from a neighbour's end is wrong.
const GAP_BYTES: usize = 13;
/// Groups that every queue has from the beginning; a third one may come later.
pub(super) const GROUPS: [&str; 3] = ["a", "b", "late"];
pub(super) const POLICY: DedupPolicy = DedupPolicy { horizon_ms: 60_000, generation_ms: 20_000 };
pub(super) const RETRY_LIMIT: u32 = 1;
pub(super) const LEASE_MS: u64 = 10_000;
/// Bytes of what lapsed leases leave in one entry.
const LAPSED_BYTES: usize = 4 << 20;
pub(super) const RETRY_DELAY_MS: u64 = 3_000;
/// Rules of the queues with even numbers; the others have none of the first three.
pub(super) const DELAY_S: u32 = 2;
pub(super) const WINDOW_S: u32 = 1;
pub(super) const RETENTION_S: u32 = 100;

/// Queues whose messages that are not done are counted.
pub(super) const COUNTED: [QueueId; 2] = [0, 1];

pub(super) fn shards() -> ShardCount {
    ShardCount::new(3).unwrap()
}

pub(super) fn key() -> StoreKey {
    StoreKey([7; 16])
}

/// The log of one shard: whoever appends at the expected head wins.
#[derive(Default)]
pub(super) struct Tape {
    bytes: Vec<u8>,
    entries: Vec<(usize, usize)>,
    /// Where each batch was written, by its first sequence: number of the entry, and position.
    places: BTreeMap<(PartitionNumber, Sequence), Vec<(u64, u64)>>,
    /// The same of each dead letter.
    graves: BTreeMap<(PartitionNumber, GroupIndex, Sequence), Vec<(u64, u64)>>,
}

impl Tape {
    pub(super) fn head(&self) -> u64 {
        self.entries.len() as u64
    }

    /// The position of the entry, or `None` when somebody was first.
    pub(super) fn append(&mut self, expected_head: u64, rope: &[Bytes]) -> Option<u64> {
        if expected_head != self.head() {
            return None;
        }
        self.bytes.extend([0xEE; GAP_BYTES]);
        let position = self.bytes.len();
        for part in rope {
            self.bytes.extend_from_slice(part);
        }
        self.note_places(position as u64);
        self.entries.push((position, self.bytes.len() - position));
        Some(position as u64)
    }

    fn note_places(&mut self, position: u64) {
        let bytes = Bytes::copy_from_slice(&self.bytes[position as usize..]);
        let mut at = position + ENTRY_HEADER as u64;
        for effect in codec::decode(bytes).unwrap().effects {
            if let Effect::Append { partition, first_seq, .. }
            | Effect::Relocate { partition, first_seq, .. } = &effect
            {
                let places = self.places.entry((*partition, *first_seq)).or_default();
                places.push((self.entries.len() as u64, at));
            }
            if let Effect::Bury(letter) = &effect {
                let grave = (letter.partition, letter.group, letter.seq);
                self.graves.entry(grave).or_default().push((self.entries.len() as u64, at));
            }
            at += codec::encoded_len(&effect) as u64;
        }
    }

    /// Where a batch lies for whoever has applied `head` entries: everything before may be gone.
    pub(super) fn newest_place(&self, number: PartitionNumber, first: Sequence, head: u64) -> u64 {
        let places = self.places[&(number, first)].iter();
        places.rev().find(|(index, _)| *index < head).unwrap().1
    }

    /// The same for a dead letter.
    pub(super) fn newest_grave(
        &self,
        key: (PartitionNumber, GroupIndex, Sequence),
        head: u64,
    ) -> u64 {
        self.graves[&key].iter().rev().find(|(index, _)| *index < head).unwrap().1
    }

    pub(super) fn entry(&self, index: u64) -> (u64, Bytes) {
        let (position, len) = self.entries[index as usize];
        (position as u64, Bytes::copy_from_slice(&self.bytes[position..position + len]))
    }

    pub(super) fn slice(&self, position: u64, len: u32) -> Bytes {
        let from = position as usize;
        Bytes::copy_from_slice(&self.bytes[from..from + len as usize])
    }
}

impl Bodies for Tape {
    fn chunks(&self, _: ShardId, run: &Run) -> Option<Vec<Chunk>> {
        Some(codec::decode_chunks(self.slice(run.position, run.len)).unwrap())
    }
}

/// A state that counts what is not done in the first two queues.
fn counting(mut state: ShardState) -> ShardState {
    for queue in COUNTED {
        state.count_undone(queue, true);
    }
    state
}

/// Somebody who decides: a replica with rows of its own.
pub(super) struct Desk {
    pub(super) state: ShardState,
    pub(super) kv: MemoryKv,
    number: u64,
    appends: u64,
    /// A checkpoint under way, and whether its rows are written.
    pub(super) checkpoint: Option<(Checkpoint, bool)>,
}

impl Desk {
    pub(super) fn new(number: u64) -> Self {
        let state = counting(ShardState::new(SHARD, shards(), key()));
        Self { state, kv: MemoryKv::with_crashes(), number, appends: 0, checkpoint: None }
    }

    /// A desk that starts again on rows.
    pub(super) fn load(number: u64, kv: MemoryKv) -> Self {
        let state = counting(ShardState::load(SHARD, shards(), key(), &kv).unwrap());
        Self { state, kv, number, appends: 0, checkpoint: None }
    }

    /// Wakes what is due by its clock.
    pub(super) fn wake(&mut self, now_ms: u64) {
        let now_ms = self.now_ms(now_ms);
        self.state.wake_due(now_ms, usize::MAX, &mut BTreeSet::new());
    }

    /// The time by which it decides.
    pub(super) fn now_ms(&self, now_ms: u64) -> u64 {
        (now_ms - self.behind_ms()).max(self.state.last_ms())
    }

    /// How far its clock is behind that of the first desk. No clock ever goes back: the lane sees
    /// to that.
    pub(super) fn behind_ms(&self) -> u64 {
        self.number * 20_000
    }

    /// Applies what the tape has and the replica has not.
    pub(super) fn follow(&mut self, tape: &Tape) {
        while self.state.head() < tape.head() {
            let (position, bytes) = tape.entry(self.state.head());
            let (entry, len) = (codec::decode(bytes.clone()).unwrap(), bytes.len() as u64);
            // The first desk reads entries whole, the others briefs: they must come to the same.
            match codec::encode_brief(&entry).filter(|_| self.number > 0) {
                Some(brief) => {
                    let (entry, lens) = codec::decode_brief(brief).unwrap();
                    self.state.apply_brief(&entry, &lens, position, len);
                }
                None => self.state.apply(&entry, position, len),
            }
        }
    }

    /// The next part of a checkpoint: begin, write, end.
    pub(super) fn checkpoint(&mut self) {
        match self.checkpoint.take() {
            None => self.checkpoint = Some((self.state.begin_checkpoint(POLICY), false)),
            Some((mut checkpoint, false)) => {
                checkpoint.resolve(&self.kv).unwrap();
                let ids = checkpoint.ids.rows().collect();
                self.kv.write_with_ids(&checkpoint.rows, ids).unwrap();
                self.checkpoint = Some((checkpoint, true));
            }
            Some((_, true)) => self.state.end_checkpoint(),
        }
    }
}

/// Messages that a consumer was handed.
#[derive(Clone, Debug)]
pub(super) struct Held {
    pub(super) token: LeaseToken,
    pub(super) group: &'static str,
    pub(super) partition: PartitionNumber,
    pub(super) ranges: Vec<(Sequence, Sequence)>,
}

/// What one step was answered.
#[derive(Clone, Debug)]
pub(super) enum Answer {
    Pushed {
        partition: PartitionNumber,
        records: Vec<(Option<String>, String)>,
        pushed: Pushed,
    },
    Popped {
        step: PopStep,
        token: LeaseToken,
        group: &'static str,
        auto_ack: bool,
        claims: Vec<Claim>,
    },
    Acked {
        held: Held,
        item: AckItem,
        result: Result<Acked, AckRefusal>,
    },
    Extended(Option<u64>),
    /// A group went elsewhere, or is gone: what it had done it may get again.
    Restarted(&'static str),
    /// Everything of it stands.
    Whole(Vec<Answer>),
    Nothing,
}

/// Tape, time, queues, and what consumers hold.
pub(super) struct World {
    pub(super) tape: Tape,
    pub(super) now_ms: u64,
    catalog: CatalogShard,
    /// The queues in use: a queue that was deleted has a successor with another number.
    pub(super) queues: [QueueId; 2],
    /// The owners of state keys in use.
    pub(super) owners: [OwnerId; 2],
    pub(super) held: Vec<Held>,
    serial: u64,
}

impl World {
    pub(super) fn new() -> Self {
        let mut world = Self {
            tape: Tape::default(),
            now_ms: 1_000_000,
            catalog: CatalogShard::default(),
            queues: [0, 1],
            owners: [0, 1],
            held: Vec::new(),
            serial: 0,
        };
        world.define(0);
        world.define(1);
        world
    }

    pub(super) fn catalog(&self) -> &Catalog {
        self.catalog.catalog()
    }

    pub(super) fn context<'a>(&'a self, kv: &'a MemoryKv) -> Context<'a> {
        let Self { tape, now_ms, .. } = self;
        Context { now_ms: *now_ms, kv, bodies: tape, catalog: self.catalog(), dedup: POLICY }
    }

    fn change_catalog(&mut self, effects: Vec<Effect>) {
        let entry = Entry { time_ms: self.now_ms, origin: Origin::default(), effects };
        self.catalog.apply(&entry, 0, 0);
    }

    fn define(&mut self, id: QueueId) {
        let options = QueueOptions {
            lease_time_s: (LEASE_MS / 1000) as u32,
            retry_limit: RETRY_LIMIT,
            retry_delay_ms: RETRY_DELAY_MS as u32,
            delayed_processing_s: if id.is_multiple_of(2) { DELAY_S } else { 0 },
            window_buffer_s: if id.is_multiple_of(2) { WINDOW_S } else { 0 },
            retention_enabled: true,
            retention_s: if id.is_multiple_of(2) { RETENTION_S } else { 0 },
            completed_retention_s: 30,
            ..QueueOptions::default()
        };
        let (namespace, task) = (Box::default(), Box::default());
        let name = format!("q{id}").into();
        let created_ms = self.now_ms;
        let (sealed, ttl_asked) = (false, false);
        let queue =
            QueueDefinition { id, name, namespace, task, created_ms, options, sealed, ttl_asked };
        let mut effects = vec![Effect::DefineQueue(Box::new(queue))];
        for name in &GROUPS[..2] {
            let (name, start) = (Box::from(*name), GroupStart::Beginning);
            effects.push(Effect::DefineGroup { queue: id, name, start });
        }
        self.change_catalog(effects);
    }

    /// Deletes the queue in a slot; another one takes its place. Returns the one that is gone.
    pub(super) fn replace_queue(&mut self, slot: usize) -> QueueId {
        let gone = self.queues[slot];
        self.change_catalog(vec![Effect::ForgetQueue { queue: gone }]);
        let next = self.catalog().next_id();
        self.define(next);
        self.queues[slot] = next;
        gone
    }

    /// An owner's keys go; another number takes its place. Returns the one that is gone.
    pub(super) fn replace_owner(&mut self, slot: usize) -> OwnerId {
        let next = self.owners.iter().max().unwrap() + 1;
        std::mem::replace(&mut self.owners[slot], next)
    }

    /// Lets a desk decide steps; if it was stale it follows and decides again. `seen` gets the entry.
    pub(super) fn decide(
        &mut self,
        desk: &mut Desk,
        steps: &[Step],
        seen: &mut dyn FnMut(&Entry, u64),
    ) -> Vec<Answer> {
        let serial = self.serial;
        self.serial += steps.len() as u64;
        // In the order in which a commit decides: what time brings, commands, upkeep, pushes.
        let mut steps = steps.to_vec();
        steps.sort_by_key(Step::phase);
        loop {
            desk.appends += 1;
            let origin = Origin { engine: desk.number, append: desk.appends };
            desk.wake(self.now_ms);
            let now_ms = self.now_ms - desk.behind_ms();
            let context = Context { now_ms, ..self.context(&desk.kv) };
            let mut draft = Draft::new(&desk.state, context);
            let decide = |(serial, step)| self.step(desk, &mut draft, serial, step);
            let answers: Vec<Answer> = (serial..).zip(&steps).map(decide).collect();
            let aside = draft.take_aside();
            if let Some(entry) = draft.finish(origin) {
                let rope = codec::encode(&entry);
                let Some(position) = self.tape.append(desk.state.head(), &rope) else {
                    desk.follow(&self.tape);
                    continue;
                };
                let len = rope.iter().map(Bytes::len).sum::<usize>() as u64;
                desk.state.apply(&entry, position, len);
                seen(&entry, position);
            } else if desk.state.head() < self.tape.head() {
                // A real engine in company looks at the heads before it says no.
                desk.follow(&self.tape);
                continue;
            }
            for sleeper in aside.sleepers {
                desk.state.put_to_sleep(sleeper);
            }
            for answer in &answers {
                self.note(answer);
            }
            return answers;
        }
    }

    fn note(&mut self, answer: &Answer) {
        if let Answer::Whole(answers) = answer {
            answers.iter().for_each(|answer| self.note(answer));
        }
        let Answer::Popped { token, group, auto_ack: false, claims, .. } = answer else { return };
        let held = claims.iter().map(|claim| Held {
            token: *token,
            group,
            partition: claim.partition,
            ranges: claim.ranges.clone(),
        });
        self.held.extend(held);
    }

    fn step(&self, desk: &Desk, draft: &mut Draft<'_>, serial: u64, step: &Step) -> Answer {
        match step {
            Step::Push { slot, partition, ids, bytes } => {
                let (name, queue) = (format!("p{partition}"), self.queues[*slot]);
                let hash = key().place(queue, &name);
                let partition = draft.place(queue, &name, hash).unwrap();
                let (push, records) = batch(serial, ids, *bytes);
                Answer::Pushed { partition, records, pushed: draft.push(partition, &push).unwrap() }
            }
            Step::Pop { slot, partition, group, budget, lease_ms, auto_ack } => {
                let (queue, group) = (self.queues[*slot], GROUPS[*group]);
                let name = partition.map(|it| format!("p{it}"));
                let place = name.as_deref().map(|name| (name, key().place(queue, name)));
                let (mut token, mut budget, mut claims) = ([0; 16], *budget, Vec::new());
                token[..8].copy_from_slice(&serial.to_le_bytes());
                let (lease_ms, auto_ack) = (*lease_ms, *auto_ack);
                let ask = PopAsk { queue, partition: place, group, token, lease_ms, auto_ack };
                let step = pop(&desk.state, draft, &ask, &mut budget, &mut claims);
                Answer::Popped { step, token, group, auto_ack, claims }
            }
            Step::Ack { pick, verdict, skip, most, with_token } => {
                let Some(held) = pick_of(&self.held, *pick) else { return Answer::Nothing };
                let (from, to) = held.ranges[*skip as usize % held.ranges.len()];
                let first = from + skip % (to - from);
                let item = AckItem {
                    first,
                    last: (first + most).min(to - 1),
                    verdict: *verdict,
                    error: "said no".into(),
                };
                let token = with_token.then_some(held.token);
                let items = std::slice::from_ref(&item);
                let mut results = draft.ack(held.partition, held.group, token, items);
                Answer::Acked { held: held.clone(), item, result: results.pop().unwrap() }
            }
            Step::Whole { .. } => self.whole(desk, draft, serial, step),
            Step::Extend { pick, more_ms } => {
                let Some(held) = pick_of(&self.held, *pick) else { return Answer::Nothing };
                let until_ms = draft.now_ms() + more_ms;
                Answer::Extended(draft.extend(held.token, until_ms).map(|it| it.until_ms))
            }
            Step::Seek { slot, group, partition, to } => {
                let (queue, group) = (self.queues[*slot], GROUPS[*group]);
                let Some(index) = desk.state.group(queue, group) else { return Answer::Nothing };
                let number = partition.map(|it| {
                    let name = format!("p{it}");
                    desk.state.find(queue, &name, key().place(queue, &name))
                });
                if number == Some(None) {
                    return Answer::Nothing;
                }
                draft.seek(queue, index, number.flatten(), *to).unwrap();
                Answer::Restarted(group)
            }
            Step::DropGroup { slot, group } => {
                draft.drop_group(self.queues[*slot], GROUPS[*group]);
                Answer::Restarted(GROUPS[*group])
            }
            other => {
                self.upkeep(desk, draft, other);
                Answer::Nothing
            }
        }
    }

    /// All of it or nothing; where it is nothing, the draft must not know that it was asked.
    fn whole(&self, desk: &Desk, draft: &mut Draft<'_>, serial: u64, step: &Step) -> Answer {
        let Step::Whole { fails, .. } = step else { return Answer::Nothing };
        let before = draft.in_words();
        draft.mark();
        match self.parts(desk, draft, serial, step).filter(|_| !fails) {
            Some(answers) => {
                draft.keep();
                Answer::Whole(answers)
            }
            None => {
                draft.undo();
                assert_eq!(draft.in_words(), before, "a refused whole left something behind");
                Answer::Nothing
            }
        }
    }

    fn parts(
        &self,
        desk: &Desk,
        draft: &mut Draft<'_>,
        serial: u64,
        step: &Step,
    ) -> Option<Vec<Answer>> {
        let Step::Whole { parts, states, through, hands, .. } = step else { return None };
        let mut answers = Vec::new();
        for (at, part) in parts.iter().enumerate() {
            let Step::Ack { pick, verdict, skip, most, with_token } = part else {
                // No two batches of the world have the same payloads.
                answers.push(self.step(desk, draft, serial + ((at as u64 + 1) << 32), part));
                continue;
            };
            let held = pick_of(&self.held, *pick)?;
            let (from, to) = held.ranges[*skip as usize % held.ranges.len()];
            let first = from + skip % (to - from);
            let (last, error) = ((first + most).min(to - 1), "said no".into());
            let mut item = AckItem { first, last, verdict: *verdict, error };
            let token = with_token.then_some(held.token);
            let (partition, group) = (held.partition, held.group);
            let acked = match through {
                Some(release) => draft.ack_through(partition, group, token, &item, *release).ok(),
                None => {
                    let items = std::slice::from_ref(&item);
                    draft.ack_whole(partition, group, token, items).ok().and_then(|mut it| it.pop())
                }
            };
            item.first = if through.is_some() { last } else { first };
            answers.push(Answer::Acked { held: held.clone(), item, result: Ok(acked?) });
        }
        let number = desk.state.partition_numbers().min();
        if let Some(number) = number.filter(|_| !states.is_empty()) {
            let ops = states.iter().map(|(_, key, value)| {
                let key = Bytes::from(format!("k{key}"));
                match value {
                    Some(value) => StateOp::Put { key, value: Bytes::from(value.to_string()) },
                    None => StateOp::Remove { key },
                }
            });
            let owner = self.owners[states[0].0];
            draft.change_states(owner, number, &ops.collect::<Vec<_>>()).ok()?;
        }
        if let Some(group) = hands {
            let claimed = hand_over(draft, GROUPS[*group], serial, &answers);
            answers.extend(claimed);
        }
        Some(answers)
    }

    fn upkeep(&self, desk: &Desk, draft: &mut Draft<'_>, step: &Step) {
        match step {
            Step::GiveBack { pick, skip } => {
                let Some(held) = pick_of(&self.held, *pick) else { return };
                let (from, to) = (held.ranges[0].0, held.ranges[held.ranges.len() - 1].1);
                draft.give_back(held.partition, held.token, from + skip % (to - from));
            }
            Step::Lapse { most } => drop(draft.lapse(*most, &mut { LAPSED_BYTES })),
            Step::Retain { slot } => {
                let mut left = Diligence { partitions: usize::MAX, runs: 4096 };
                draft.retain(self.queues[*slot], 0, &mut left).unwrap();
            }
            Step::Register { slot, start } => {
                draft.register(self.queues[*slot], GROUPS[2], *start).unwrap();
            }
            Step::Relocate { pick, most } => {
                let (desk, kv) = (&desk.state, &desk.kv);
                let numbers: Vec<_> = desk.partition_numbers().collect();
                let Some(number) = pick_of(&numbers, *pick) else { return };
                let partition = desk.partition(*number).unwrap();
                let runs = desk.runs(kv, *number, partition.base_seq, partition.next_seq).unwrap();
                for run in runs.iter().take(*most) {
                    for chunk in self.tape.chunks(SHARD, run).unwrap() {
                        draft.relocate(&chunk);
                    }
                }
            }
            Step::Rebury { pick } => {
                let (desk, kv) = (&desk.state, &desk.kv);
                for number in desk.partition_numbers() {
                    let dead: Vec<_> = desk.dead_of(kv, number).unwrap().into_values().collect();
                    let Some(place) = pick_of(&dead, *pick) else { continue };
                    let letter = self.tape.slice(place.position, place.len);
                    draft.bury_again(&codec::decode_dead(letter).unwrap());
                }
            }
            Step::Drop { queue } => draft.drop_queue(*queue),
            Step::Redrive { pick, away } => self.redrive(desk, draft, *pick, *away),
            Step::Erase { pick } | Step::Entomb { pick } | Step::Clear { pick } => {
                let numbers: Vec<_> = desk.state.partition_numbers().collect();
                let Some(number) = pick_of(&numbers, *pick) else { return };
                let end = desk.state.partition(*number).unwrap().next_seq;
                let seq = *pick as u64 % (end + 1);
                match step {
                    Step::Erase { .. } => drop(draft.erase(*number, seq).unwrap()),
                    Step::Entomb { .. } => drop(draft.bury(*number, seq, None, "asked").unwrap()),
                    _ => drop(draft.clear(*number)),
                }
            }
            Step::Forget { owner } => draft.note(Effect::DropStates { owner: *owner }),
            _ => {}
        }
    }
}

impl World {
    fn redrive(&self, desk: &Desk, draft: &mut Draft<'_>, pick: usize, away: bool) {
        let mut dead = Vec::new();
        for number in desk.state.partition_numbers() {
            dead.extend(desk.state.dead_of(&desk.kv, number).unwrap());
        }
        let Some(((partition, group, seq), place)) = pick_of(&dead, pick) else { return };
        let letter = codec::decode_dead(self.tape.slice(place.position, place.len)).unwrap();
        let body = LetterBody { batch: letter.batch, sub: letter.sub };
        let letters = [(*seq, Some(body))];
        let moved = match away {
            true => draft.exhume(*partition, *group, &letters).unwrap(),
            false => draft.redrive(*partition, *group, &letters).unwrap(),
        };
        assert_ne!(moved, [LetterMove::NeedsBody]);
    }
}

/// Claims of what a whole pushed, where its group may have it at once.
fn hand_over(
    draft: &mut Draft<'_>,
    group: &'static str,
    serial: u64,
    answers: &[Answer],
) -> Vec<Answer> {
    let mut handed = Vec::new();
    for (at, answer) in (1_u8..).zip(answers) {
        let Answer::Pushed { partition, pushed, .. } = answer else { continue };
        let mut token = [0; 16];
        token[..8].copy_from_slice(&serial.to_le_bytes());
        token[8] = at;
        let until_ms = draft.hand_over(*partition, pushed, group, token, LEASE_MS);
        let (Some(until_ms), Pushed::Stored { first_seq, count, .. }) = (until_ms, pushed) else {
            continue;
        };
        let ranges = vec![(*first_seq, first_seq + u64::from(*count))];
        let (runs, attempts) = (Vec::new(), Vec::new());
        let claims = vec![Claim { partition: *partition, ranges, runs, attempts, until_ms }];
        let (step, auto_ack) = (PopStep::Done, false);
        handed.push(Answer::Popped { step, token, group, auto_ack, claims });
    }
    handed
}

pub(super) fn pick_of<T>(from: &[T], pick: usize) -> Option<&T> {
    (!from.is_empty()).then(|| &from[pick % from.len()])
}

/// A batch whose payloads exist once in the world, with each record's id and payload.
pub(super) fn batch(
    serial: u64,
    ids: &[Option<u8>],
    bytes: usize,
) -> (PushBatch, Vec<(Option<String>, String)>) {
    let mut builder = BatchBuilder::new();
    let (mut records, mut fingerprints) = (Vec::new(), Vec::new());
    for (index, id) in ids.iter().enumerate() {
        let id = id.map(|id| format!("id{id}"));
        let payload = format!("{serial}.{index}.{}", "x".repeat(bytes));
        let transaction_id = id.as_deref();
        let record =
            NewRecord { transaction_id, payload: payload.as_bytes(), ..NewRecord::default() };
        builder.push(&record).unwrap();
        fingerprints.push(transaction_id.map_or(0, |id| key().fingerprint(id)));
        records.push((id, payload));
    }
    let batch: RecordBatch = builder.finish().unwrap();
    if ids.iter().all(Option::is_none) {
        fingerprints.clear();
    }
    // Two of three batches have a known producer, so that none is taken for another's.
    let sub = ["a", "b"].get(serial as usize % 3).and_then(|name| ProducerSub::new(name));
    (PushBatch { batch, fingerprints, sub }, records)
}

/// A budget that only messages bound.
pub(super) fn messages(messages: u32) -> PopBudget {
    PopBudget { messages, bytes: u64::MAX, partitions: 1 }
}

/// Pops for a group that the shard may not know.
pub(super) fn pop(
    state: &ShardState,
    draft: &mut Draft<'_>,
    ask: &PopAsk<'_>,
    budget: &mut PopBudget,
    claims: &mut Vec<Claim>,
) -> PopStep {
    let Some(group) = state.group(ask.queue, ask.group) else { return PopStep::NoPartition };
    draft.pop(ask, group, budget, claims).unwrap()
}
