//! Finding messages by transaction id, for consumers that acknowledge by id.
//!
//! In: ids with their partitions. Out: sequences. Two places know ids: the ledger, as long as the
//! dedup horizon lasts, and the messages themselves, of which the lease's are read where it is asked
//! for many of them or where the ledger has forgotten. A text that is a message's own id needs
//! neither. A hit that the named lease does not hold is taken only if there is no other. Called by
//! the lane, between commits.

use hashbrown::HashMap;
use hashbrown::hash_map::Entry;
use onrush_protocol::batch::RecordBatch;
use onrush_protocol::id::MessageId;
use onrush_protocol::name::GroupName;

use crate::base::place::PartitionNumber;
use crate::shard::bodies::LogBodies;
use crate::shard::command::{Find, Found, Wanted};
use crate::shard::lane::Lane;
use crate::state::effect::{LeaseToken, Sequence};
use crate::state::kv::KvError;
use crate::state::{Bodies, ShardState};

/// Sequences that a lease holds: first, and behind the last.
type Held = (Sequence, Sequence);

/// Ids in the messages that leases hold, by fingerprint, read once for all that ask.
type HeldIds = HashMap<(PartitionNumber, LeaseToken), HashMap<u128, Sequence>>;

/// Reading one message's id costs about this share of asking the ledger for one.
const READS_PER_QUESTION: u64 = 16;

/// What is worked with while one command is answered.
struct Search<'a> {
    group: &'a GroupName,
    ids: HeldIds,
    questions: u64,
}

impl Lane {
    /// Finds what a [`Find`] asks for.
    pub(super) fn find(&self, find: &Find) -> Result<Vec<Option<Found>>, KvError> {
        let questions = find.wanted.len() as u64;
        let mut search = Search { group: &find.group, ids: HeldIds::default(), questions };
        find.wanted.iter().map(|wanted| self.find_one(wanted, &mut search)).collect()
    }

    fn find_one(&self, wanted: &Wanted, search: &mut Search<'_>) -> Result<Option<Found>, KvError> {
        let number = wanted.partition;
        let at = usize::from(self.replica.count().of_partition(number));
        let Some(shard) = self.replica.shards.get(at) else { return Ok(None) };
        let Some(partition) = shard.partition(number) else { return Ok(None) };
        let queue = self.replica.catalog.catalog().get(partition.queue);
        let Some(queue) = queue.map(|queue| queue.name.clone()) else { return Ok(None) };
        let seq = self.find_seq(shard, wanted, search)?;
        Ok(Some(Found { queue, partition: partition.name.clone(), seq }))
    }

    fn find_seq(
        &self,
        shard: &ShardState,
        wanted: &Wanted,
        search: &mut Search<'_>,
    ) -> Result<Option<Sequence>, KvError> {
        let number = wanted.partition;
        let lease = wanted.token.and_then(|token| {
            held_by(shard, number, search.group, token).map(|held| (token, held))
        });
        let is_held =
            |seq: &Sequence| lease.is_none_or(|(_, (from, to))| from <= *seq && *seq < to);
        let fingerprint = self.replica.key().fingerprint(&wanted.id);
        let end = shard.partition(number).map_or(0, |partition| partition.next_seq);
        let own = MessageId::parse(&wanted.id).ok().map(MessageId::parts);
        let own = own.filter(|(_, partition, seq)| *partition == number && *seq < end);
        let own = own.map(|(_, _, seq)| seq);
        let many = |(from, to): Held| to - from <= search.questions * READS_PER_QUESTION;
        if let Some((token, held)) = lease.filter(|(_, held)| many(*held)) {
            let ids = self.held_ids(shard, number, token, held, search)?;
            if let Some(seq) = ids.get(&fingerprint) {
                return Ok(Some(*seq));
            }
        }
        let (dedup, now_ms) = (self.config.dedup, self.now_ms());
        let known = |fingerprint| {
            let first = shard.ledger().find(&*self.kv, dedup, now_ms, number, fingerprint)?;
            Ok::<_, KvError>(first.map(|first| first.seq))
        };
        let mut named = known(fingerprint)?;
        if named.is_none() && may_be_ours(&wanted.id) {
            named = known(self.replica.key().own_fingerprint(&wanted.id))?;
        }
        if let Some(seq) = named.filter(is_held).or(own.filter(is_held)) {
            return Ok(Some(seq));
        }
        let read = match lease {
            Some((token, held)) => {
                self.held_ids(shard, number, token, held, search)?.get(&fingerprint).copied()
            }
            None => None,
        };
        // Outside of its lease a message is still what the id names: the decision tells so.
        Ok(read.or(named).or(own))
    }

    fn held_ids<'a>(
        &self,
        shard: &ShardState,
        number: PartitionNumber,
        token: LeaseToken,
        held: Held,
        search: &'a mut Search<'_>,
    ) -> Result<&'a HashMap<u128, Sequence>, KvError> {
        Ok(match search.ids.entry((number, token)) {
            Entry::Occupied(there) => there.into_mut(),
            Entry::Vacant(place) => place.insert(self.read_held(shard, number, held)?),
        })
    }

    /// The ids of the messages of a lease: the ledger has forgotten those beyond its horizon.
    fn read_held(
        &self,
        shard: &ShardState,
        number: PartitionNumber,
        (from, to): Held,
    ) -> Result<HashMap<u128, Sequence>, KvError> {
        let bodies = LogBodies { hot: &self.hot, log: &*self.log };
        let key = self.replica.key();
        let mut ids = HashMap::new();
        for run in shard.runs(&*self.kv, number, from, to)? {
            // A body that cannot be read hides its ids; what is readable is still found.
            for chunk in bodies.chunks(shard.shard(), &run).unwrap_or_default() {
                let Ok(batch) = RecordBatch::parse_trusted(chunk.batch) else { continue };
                for (seq, record) in (chunk.first_seq..).zip(batch.records()) {
                    if let Some(id) = record.transaction_id.filter(|_| (from..to).contains(&seq)) {
                        ids.insert(key.fingerprint(id), seq);
                    }
                }
            }
        }
        Ok(ids)
    }
}

/// Whether an id may be one that this server made up: all of those have a colon.
fn may_be_ours(id: &str) -> bool {
    id.contains(':')
}

/// What a live lease of the group holds in a partition.
fn held_by(
    shard: &ShardState,
    number: PartitionNumber,
    group: &GroupName,
    token: LeaseToken,
) -> Option<Held> {
    let partition = shard.partition(number)?;
    let group = shard.group(partition.queue, group.as_str())?;
    let cursor = partition.cursors.iter().find(|cursor| cursor.group == group)?;
    let lease = cursor.lease.as_deref().filter(|lease| lease.token == token)?;
    Some((lease.from, lease.to))
}
