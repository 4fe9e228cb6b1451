//! What can be observed of a state, whatever of it is in memory and whatever in rows; and the
//! indexes that must agree with it.

use std::collections::{BTreeMap, BTreeSet};

use onrush_protocol::batch::RecordBatch;

use crate::base::place::PartitionNumber;
use crate::state::care::graves::{IndexKey, scan_index};
use crate::state::effect::{
    DeadLetter, GroupIndex, GroupStart, OwnerId, ProducerSub, Progress, Sequence, SpillId,
};
use crate::state::kv::Scan;
use crate::state::ledger::First;
use crate::state::model::{Lease, Standing};
use crate::state::proofs::world::{COUNTED, Desk, POLICY, SHARD, Tape, key, shards};
use crate::state::states::StateAsk;
use crate::state::undone::undone_of;
use crate::state::{Bodies, ShardState, codec};

/// A message as a consumer would get it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Message {
    pub(super) seq: Sequence,
    pub(super) time_ms: u64,
    pub(super) id: Option<String>,
    pub(super) sub: Option<ProducerSub>,
    pub(super) payload: String,
}

#[derive(Debug, PartialEq)]
struct Cursor {
    progress: Progress,
    lease: Option<Lease>,
    /// Has work: in the ready list, or until its time comes among the sleepers.
    ready: bool,
}

#[derive(Debug, PartialEq)]
struct Partition {
    name: String,
    next_seq: Sequence,
    base_seq: Sequence,
    messages: Vec<Message>,
    cursors: BTreeMap<GroupIndex, Cursor>,
}

/// Everything that two engines must agree on.
#[derive(Debug, PartialEq)]
pub(super) struct Picture {
    head: u64,
    last_ms: u64,
    partitions: BTreeMap<PartitionNumber, Partition>,
    partition_numbers_given: usize,
    groups: Vec<(u32, String, GroupStart, bool)>,
    dead: BTreeMap<(PartitionNumber, GroupIndex, Sequence), DeadLetter>,
    erased: BTreeMap<PartitionNumber, Vec<(Sequence, Sequence)>>,
    ids: BTreeMap<(PartitionNumber, u8), First>,
    next_timer_ms: Option<u64>,
    replayed: BTreeMap<SpillId, u64>,
    pub(super) states: States,
}

/// State keys with their values and times, by partition and owner.
pub(super) type States = BTreeMap<(PartitionNumber, OwnerId, String), (String, u64)>;

/// The state keys of a partition, read page by page.
fn states(desk: &Desk, number: PartitionNumber, out: &mut States) {
    let text = |bytes: &bytes::Bytes| String::from_utf8(bytes.to_vec()).unwrap();
    for owner in 0..40 {
        let mut after = None;
        loop {
            let (rows_max, bytes_max) = (2, 1000);
            let prefix = bytes::Bytes::from_static(b"k");
            let ask = StateAsk { owner, partition: number, prefix, after, rows_max, bytes_max };
            let page = desk.state.states(&desk.kv, &ask).unwrap();
            for row in &page.rows {
                let value = (text(&row.value), row.updated_ms);
                let before = out.insert((number, owner, text(&row.key)), value);
                assert_eq!(before, None, "a key stands twice");
                let keys = std::slice::from_ref(&row.key);
                let alone = desk.state.states_at(&desk.kv, owner, number, keys).unwrap();
                assert_eq!(alone.as_slice(), std::slice::from_ref(row));
            }
            after = page.more_after;
            if after.is_none() {
                break;
            }
        }
    }
}

/// The messages that a partition keeps, read through runs and rows.
pub(super) fn messages(desk: &Desk, tape: &Tape, number: PartitionNumber) -> Vec<Message> {
    let partition = desk.state.partition(number).unwrap();
    let (base, next) = (partition.base_seq, partition.next_seq);
    let runs = desk.state.runs(&desk.kv, number, base, next).unwrap();
    for run in &runs {
        // Every place but the newest may be gone from the log, whatever rows still say.
        let newest = tape.newest_place(number, run.first_seq, desk.state.head());
        assert_eq!(run.position, newest, "partition {number} from {}", run.first_seq);
    }
    let mut messages = Vec::new();
    for chunk in runs.iter().flat_map(|run| tape.chunks(SHARD, run).unwrap()) {
        assert_eq!(chunk.partition, number, "a run leads to another partition");
        let batch = RecordBatch::parse_trusted(chunk.batch.clone()).unwrap();
        for (seq, record) in (chunk.first_seq..).zip(batch.records()) {
            let id = record.transaction_id.map(str::to_owned);
            let payload = String::from_utf8(record.payload.to_vec()).unwrap();
            let (time_ms, sub) = (chunk.time_ms, chunk.sub.clone());
            messages.push(Message { seq, time_ms, id, sub, payload });
        }
    }
    messages.retain(|message| message.seq >= base);
    check_times(desk, number, &messages);
    let seqs: Vec<u64> = messages.iter().map(|message| message.seq).collect();
    assert_eq!(seqs, (base..next).collect::<Vec<u64>>(), "partition {number} is not dense");
    messages
}

/// The first message of a time is found, whether it is the time of a message or lies beside it.
fn check_times(desk: &Desk, number: PartitionNumber, messages: &[Message]) {
    let end = desk.state.partition(number).unwrap().next_seq;
    for time_ms in messages.iter().flat_map(|it| [it.time_ms, it.time_ms + 1]).chain([0]) {
        let expected = messages.iter().find(|it| it.time_ms >= time_ms).map_or(end, |it| it.seq);
        let found = desk.state.first_since(&desk.kv, number, time_ms).unwrap();
        assert_eq!(found, expected, "the first of {time_ms} in partition {number}");
    }
}

/// The picture of a desk; its indexes are checked on the way.
pub(super) fn picture(desk: &Desk, tape: &Tape, now_ms: u64) -> Picture {
    let state = &desk.state;
    check_indexes(state);
    check_letters(desk);
    let (mut partitions, mut dead, mut ids) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    let mut erased = BTreeMap::new();
    let mut keys = States::new();
    for number in state.partition_numbers() {
        let partition = state.partition(number).unwrap();
        let cursors = partition.cursors.iter().map(|it| {
            let lease = it.lease.as_deref().copied();
            (it.group, Cursor { progress: it.progress(), lease, ready: it.ready || it.asleep })
        });
        let (next_seq, base_seq) = (partition.next_seq, partition.base_seq);
        let (name, messages) = (partition.name.to_string(), messages(desk, tape, number));
        let cursors = cursors.collect();
        partitions.insert(number, Partition { name, next_seq, base_seq, messages, cursors });
        for (at, place) in state.dead_of(&desk.kv, number).unwrap() {
            let letter = codec::decode_dead(tape.slice(place.position, place.len)).unwrap();
            assert_eq!((letter.partition, letter.group, letter.seq), at);
            assert_eq!(letter.failed_ms, place.failed_ms);
            let letter = DeadLetter { is_again: false, ..letter };
            assert_eq!(place.position, tape.newest_grave(at, state.head()), "dead letter {at:?}");
            dead.insert(at, letter);
        }
        let ranges = state.erased().of(number);
        if !ranges.is_empty() {
            erased.insert(number, ranges.to_vec());
        }
        states(desk, number, &mut keys);
        for id in 0..12_u8 {
            let fingerprint = key().fingerprint(&format!("id{id}"));
            let now_ms = now_ms.max(state.last_ms());
            let found = state.ledger().find(&desk.kv, POLICY, now_ms, number, fingerprint).unwrap();
            ids.extend(found.map(|first| ((number, id), first)));
        }
    }
    let group =
        |it: &crate::state::model::Group| (it.queue, it.name.to_string(), it.start, it.live);
    Picture {
        head: state.head(),
        last_ms: state.last_ms(),
        partitions,
        partition_numbers_given: state.partitions.len(),
        groups: state.groups.iter().map(group).collect(),
        dead,
        erased,
        ids,
        next_timer_ms: state.next_timer_ms(),
        replayed: state.replayed.clone(),
        states: keys,
    }
}

/// The index by time and the counts have exactly the letters that there are.
fn check_letters(desk: &Desk) {
    let state = &desk.state;
    let (mut all, mut counts) = (BTreeSet::new(), BTreeMap::new());
    for number in state.partition_numbers() {
        for (key, place) in state.dead_of(&desk.kv, number).unwrap() {
            all.insert(IndexKey::new(key, place.failed_ms));
            *counts.entry((key.0, key.1)).or_insert(0) += 1;
            assert_eq!(state.dead_at(&desk.kv, key), Ok(Some(place)));
        }
    }
    assert_eq!(state.dead_counts(), &counts);
    let mut indexed = BTreeSet::new();
    for group in 0..state.groups.len() as u32 {
        let from = IndexKey::new((u32::MAX, group, u64::MAX), u64::MAX);
        scan_index(&desk.kv, SHARD, from, &mut |key, _| {
            let is_overlaid = state.recent_dead().contains_key(&key.letter());
            let lives = state.partition(key.letter().0).is_some();
            if lives && !is_overlaid && !state.stale_dead().contains(&key) {
                indexed.insert(key);
            }
            Scan::Continue
        })
        .unwrap();
    }
    let recent = state.recent_dead().iter();
    let recent = recent.filter_map(|(key, place)| Some(IndexKey::new(*key, (*place)?.failed_ms)));
    indexed.extend(recent);
    assert_eq!(indexed, all);
}

/// Ready lists, timers and holders say what cursors say.
pub(super) fn check_indexes(state: &ShardState) {
    let mut ready: BTreeMap<GroupIndex, BTreeSet<u32>> = BTreeMap::new();
    let (mut timers, mut holders) = (BTreeSet::new(), BTreeSet::new());
    let mut standings: BTreeMap<GroupIndex, Standing> = BTreeMap::new();
    let mut ends: BTreeMap<u32, u64> = BTreeMap::new();
    let mut sleepers = BTreeSet::new();
    for (local, partition) in (0..).zip(&state.partitions) {
        let at_end = partition.cursors.iter().filter(|it| it.next == partition.next_seq).count();
        assert_eq!(partition.at_end as usize, at_end, "local {local}, cursors at the end");
        if partition.live {
            *ends.entry(partition.queue).or_default() += partition.next_seq;
        }
        for cursor in &partition.cursors {
            let has_work = cursor.lease.is_none() && cursor.next < partition.next_seq;
            let standing = standings.entry(cursor.group).or_default();
            let open = cursor.progress().open_ranges(0, partition.next_seq);
            let open: u64 = open.iter().map(|(from, to)| to - from).sum();
            standing.settled += partition.next_seq - open;
            standing.open_partitions += u64::from(open > 0);
            standing.leased += u64::from(cursor.lease.is_some());
            let is_known = cursor.ready || cursor.asleep;
            assert_eq!(is_known, has_work, "local {local}, group {}", cursor.group);
            assert!(!cursor.ready || !cursor.asleep, "local {local} sleeps and is ready");
            if cursor.asleep {
                sleepers.insert((local, cursor.group));
            }
            if cursor.ready {
                ready.entry(cursor.group).or_default().insert(local);
            }
            if let Some(lease) = &cursor.lease {
                timers.insert((lease.until_ms, local, cursor.group));
                holders.insert((lease.token, local, cursor.group));
            }
        }
        if partition.live {
            let hash = key().place(partition.queue, &partition.name);
            let found = state.find(partition.queue, &partition.name, hash);
            assert_eq!(found, shards().number(SHARD, local), "local {local} is not found");
        } else {
            assert!(partition.cursors.is_empty() && partition.runs.is_empty());
        }
    }
    for (index, group) in (0..).zip(&state.groups) {
        let expected = ready.remove(&index).unwrap_or_default();
        assert_eq!(group.ready_count, expected.len(), "count of group {index}");
        let standing = standings.remove(&index).unwrap_or_default();
        assert_eq!(group.standing, standing, "standing of group {index}");
        if group.live {
            let end = ends.get(&group.queue).copied().unwrap_or(0);
            assert_eq!(state.behind(group), end - standing.settled);
        }
        let listed: BTreeSet<u32> = group.ready.iter().copied().collect();
        assert!(expected.is_subset(&listed), "{expected:?} is not in the list {listed:?}");
        let bound = 2 * group.ready_count + 64;
        assert!(group.ready.len() <= bound, "{} stale entries", group.ready.len());
    }
    assert!(ready.is_empty(), "work for groups that are not there: {ready:?}");
    assert_eq!(state.timers, timers);
    assert_eq!(state.sleepers.all().collect::<BTreeSet<_>>(), sleepers);
    for queue in COUNTED {
        let partitions = state.partitions.iter().filter(|it| it.queue == queue);
        assert_eq!(state.undone(queue), partitions.map(undone_of).sum::<u64>(), "queue {queue}");
    }
    let held = state
        .holders
        .iter()
        .flat_map(|(token, holders)| holders.iter().map(|(local, group)| (*token, *local, *group)));
    assert_eq!(held.collect::<BTreeSet<_>>(), holders);
}
