//! What became of a cascade: how it stands, and the tree of its messages.
//!
//! The tree is read level by level from the slots' records and the places of what they sent; how wide
//! and deep it is read is bounded, and where it goes on it says from where. No level is read in one
//! piece with another, so the lane is never held up for long, and nothing here recurses.

use bytes::Bytes;

use crate::process::instance::{page, values};
use crate::process::keys::{Address, CASCADES, child_key, replies_prefix, tally_key};
use crate::process::look::{kept_from, read_record, record_of};
use crate::process::push::Await;
use crate::process::record::{EntryRecord, EntryStatus, SlotRecord, SlotStatus};
use crate::process::{Inner, ProcessError, Processes};
use crate::shard::look::View;
use crate::shard::transaction::read_place;
use crate::state::kv::KvError;
use crate::state::states::StateAsk;
use crate::state::tally::Tally;

/// Nodes of one answer, by default and at most.
pub const NODES_MAX: usize = 1_000;
/// Levels of one answer: readers of JSON do not like it deep.
pub const LEVELS_MAX: usize = 48;
/// Bytes of outputs, and of what was printed, in one answer; those behind are cut.
const RESULT_BYTES: usize = 8 << 20;
/// Nodes that are read in one turn of the lane.
const CHUNK: usize = 64;

/// How a cascade stands.
#[derive(Debug)]
pub struct Standing {
    /// Its first message.
    pub root: Address,
    /// The process of that, `class/key`.
    pub process: String,
    /// The record of that, once it is evaluated.
    pub slot: Option<SlotRecord>,
    /// What it counts; `None` where nothing but the first message is part of it.
    pub tally: Option<Tally>,
    /// The first answer to whoever pushed, a JSON text.
    pub reply: Option<Bytes>,
}

impl Standing {
    /// Whether nothing of it is pending.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.slot.is_some() && self.tally.is_none_or(|tally| tally.pending <= 0)
    }

    pub(super) fn is_at(&self, level: Await) -> bool {
        match level {
            Await::Accepted => true,
            Await::Slot => self.slot.is_some(),
            Await::Reply => self.reply.is_some() || self.is_complete(),
            Await::Cascade => self.is_complete(),
        }
    }

    /// A text that is another one whenever it stands otherwise.
    #[must_use]
    pub fn mark(&self) -> String {
        let Self { slot, tally, reply, .. } = self;
        format!("{} {} {tally:?}", slot.is_some(), reply.is_some())
    }

    /// How it ended, or stands, in a word.
    #[must_use]
    pub fn status(&self) -> &'static str {
        let tally = self.tally.unwrap_or_default();
        let first = self.slot.as_ref().map(|slot| slot.status);
        match () {
            () if tally.cancelled || first == Some(SlotStatus::Cancelled) => "cancelled",
            () if tally.truncated > 0 => "truncated",
            () if first.is_some_and(SlotStatus::is_error) => "failed",
            () if tally.errors + tally.refused + tally.lost > 0 => "partial",
            () if !self.is_complete() => "pending",
            () => "ok",
        }
    }
}

/// One message of a cascade.
#[derive(Debug)]
pub struct Node {
    /// Where it stands; `None` where it stands nowhere yet, or never will.
    pub address: Option<Address>,
    /// The entry of its sender's outbox, but for the first message.
    pub entry: Option<EntryRecord>,
    /// Its record, once it is evaluated.
    pub record: Option<SlotRecord>,
    /// Whether that is not kept any more.
    pub is_trimmed: bool,
    /// How deep below the node that was asked for.
    pub depth: usize,
    /// What it sent, as far as this answer goes.
    pub children: Vec<Node>,
    /// Where the rest of it begins: the index of an entry.
    pub rest_from: Option<u32>,
}

impl Node {
    /// Lets go of what its slot returned and printed, where that is not asked for or there is no room.
    fn cut_results(&mut self, levels: usize, room: &mut usize) {
        let Some(record) = &mut self.record else { return };
        let bytes = record.output.as_ref().map_or(0, |it| it.get().len()) + record.printed.len();
        if self.depth < levels && bytes <= *room {
            *room -= bytes;
            return;
        }
        record.output_truncated |= record.output.take().is_some();
        record.printed_truncated |= !std::mem::take(&mut record.printed).is_empty();
    }
}

/// How much of a tree is read.
#[derive(Clone, Copy, Debug)]
pub struct Reach {
    /// Nodes.
    pub nodes: usize,
    /// Levels.
    pub levels: usize,
    /// Levels with what their slots returned and printed.
    pub results: usize,
    /// The first entry of the node that was asked for.
    pub from_index: u32,
}

impl Default for Reach {
    fn default() -> Self {
        Self { nodes: NODES_MAX, levels: LEVELS_MAX, results: usize::MAX, from_index: 1 }
    }
}

/// A node while the tree is read, with its parent's place among them.
struct Flat {
    parent: Option<usize>,
    node: Node,
}

impl Inner {
    /// How a cascade stands. Waits for a turn of the lane.
    pub(super) async fn standing(&self, root: Address) -> Result<Standing, ProcessError> {
        let read = self.engine.look(move |look| {
            let kept_from = kept_from(look, root.partition)?;
            let tally = values(look, CASCADES, root.partition, &[tally_key(root)])?;
            let tally = tally.first().and_then(|(_, value)| Tally::from_value(value));
            let slot = record_of(look, root.partition, root.seq)?;
            let ask = StateAsk {
                owner: CASCADES,
                partition: root.partition,
                prefix: replies_prefix(root),
                after: None,
                rows_max: 1,
                bytes_max: usize::MAX,
            };
            let reply = page(look, &ask)?.rows.into_iter().next().map(|row| row.value);
            let process = process_name(look, root);
            let is_kept = root.seq >= kept_from || slot.is_some() || tally.is_some();
            Ok::<_, KvError>((tally, slot, reply, process.filter(|_| is_kept)))
        });
        let (tally, slot, reply, process) = read.await??;
        let process = process.ok_or_else(|| ProcessError::NoPush(root.id()))?;
        let slot = slot.and_then(|slot| read_record(&slot));
        Ok(Standing { root, process, slot, tally, reply })
    }

    /// Whether all messages down to a depth are evaluated, as far as an answer goes.
    pub(super) async fn is_done_to(&self, root: Address, depth: u32) -> Result<bool, ProcessError> {
        let levels = usize::try_from(depth).unwrap_or(LEVELS_MAX).min(LEVELS_MAX);
        let reach = Reach { levels, results: 0, ..Reach::default() };
        let flat = self.flat(root, root, reach).await?;
        let is_open = |flat: &Flat| {
            let node = &flat.node;
            if node.rest_from.is_some() && node.depth < levels {
                // Of what is beyond the answer nobody knows.
                return true;
            }
            let is_sent = node.entry.as_ref().is_none_or(|it| it.status == EntryStatus::Sent);
            node.depth <= levels && is_sent && node.record.is_none() && !node.is_trimmed
        };
        Ok(!flat.iter().any(is_open))
    }

    async fn flat(
        &self,
        root: Address,
        from: Address,
        reach: Reach,
    ) -> Result<Vec<Flat>, ProcessError> {
        let first = Node {
            address: Some(from),
            entry: None,
            record: None,
            is_trimmed: false,
            depth: 0,
            children: Vec::new(),
            rest_from: None,
        };
        let mut all = vec![Flat { parent: None, node: first }];
        let (mut begun, mut room) = (0, RESULT_BYTES);
        while begun < all.len() {
            let end = all.len().min(begun + CHUNK);
            self.read_records(&mut all, begun..end).await?;
            for flat in all.get_mut(begun..end).into_iter().flatten() {
                flat.node.cut_results(reach.results, &mut room);
            }
            let children = self.children(root, &mut all, begun..end, reach).await?;
            all.extend(children);
            begun = end;
        }
        Ok(all)
    }

    async fn read_records(
        &self,
        all: &mut [Flat],
        range: std::ops::Range<usize>,
    ) -> Result<(), ProcessError> {
        let wanted: Vec<(usize, Address)> = range
            .filter_map(|at| {
                let node = &all.get(at)?.node;
                let is_process =
                    node.entry.as_ref().is_none_or(|it| it.status != EntryStatus::Queued);
                Some((at, node.address.filter(|_| is_process)?))
            })
            .collect();
        let read = self.engine.look(move |look| {
            let read = |(at, address): (usize, Address)| {
                let value = record_of(look, address.partition, address.seq)?;
                let is_trimmed =
                    value.is_none() && address.seq < kept_from(look, address.partition)?;
                Ok::<_, KvError>((at, value, is_trimmed))
            };
            wanted.into_iter().map(read).collect::<Result<Vec<_>, _>>()
        });
        for (at, value, is_trimmed) in read.await?? {
            if let Some(flat) = all.get_mut(at) {
                flat.node.record = value.and_then(|value| read_record(&value));
                flat.node.is_trimmed = is_trimmed;
            }
        }
        Ok(())
    }

    /// What some nodes sent, with where it stands.
    async fn children(
        &self,
        root: Address,
        all: &mut [Flat],
        range: std::ops::Range<usize>,
        reach: Reach,
    ) -> Result<Vec<Flat>, ProcessError> {
        let mut left = reach.nodes.saturating_sub(all.len());
        let mut wanted: Vec<(usize, usize, Address, EntryRecord)> = Vec::new();
        for at in range {
            let Some(Flat { node, .. }) = all.get_mut(at) else { continue };
            let (Some(address), Some(record)) = (node.address, &mut node.record) else { continue };
            let first = if at == 0 { reach.from_index } else { 1 };
            for entry in std::mem::take(&mut record.outbox) {
                if entry.index < first {
                    continue;
                }
                if left == 0 || node.depth >= reach.levels {
                    node.rest_from.get_or_insert(entry.index);
                    continue;
                }
                left -= 1;
                wanted.push((at, node.depth + 1, address, entry));
            }
        }
        let keys: Vec<Bytes> = wanted
            .iter()
            .map(|(_, _, of, entry)| child_key(root, of.partition, of.seq, entry.index))
            .collect();
        let read = self.engine.look(move |look| {
            let read = |key: &Bytes| {
                let found = values(look, CASCADES, root.partition, std::slice::from_ref(key))?;
                Ok::<_, KvError>(found.first().and_then(|(_, value)| read_place(value)))
            };
            keys.iter().map(read).collect::<Result<Vec<_>, _>>()
        });
        let places = read.await??;
        let children = wanted.into_iter().zip(places).map(|((parent, depth, _, entry), place)| {
            let address =
                place.map(|(partition, seq, time_ms)| Address { partition, seq, time_ms });
            let node = Node {
                address,
                entry: Some(entry),
                record: None,
                is_trimmed: false,
                depth,
                children: Vec::new(),
                rest_from: None,
            };
            Flat { parent: Some(parent), node }
        });
        Ok(children.collect())
    }
}

/// The process that a message is of, `class/key`; `None` where it is not of a process.
pub(super) fn process_name(look: &View<'_>, address: Address) -> Option<String> {
    let at = usize::from(look.replica.count().of_partition(address.partition));
    let partition = look.replica.shards.get(at)?.partition(address.partition)?;
    let catalog = look.replica.catalog.catalog();
    catalog.class(partition.queue)?;
    let queue = catalog.get(partition.queue)?;
    (address.seq < partition.next_seq).then(|| format!("{}/{}", queue.name, partition.name))
}

impl Processes {
    /// The process that a message is of, `class/key`, by the message's id.
    ///
    /// # Errors
    /// [`ProcessError::NoProcess`].
    pub async fn named(&self, id: &str) -> Result<String, ProcessError> {
        let missing = || ProcessError::NoProcess(id.into());
        let address = Address::parse(id).ok_or_else(missing)?;
        let named = self.inner.engine.look(move |look| process_name(look, address)).await?;
        named.ok_or_else(missing)
    }

    /// How a cascade stands, by the id of its first message.
    ///
    /// # Errors
    /// [`ProcessError::NoPush`].
    pub async fn standing(&self, push: &str) -> Result<Standing, ProcessError> {
        let root = Address::parse(push).ok_or_else(|| ProcessError::NoPush(push.into()))?;
        self.inner.standing(root).await
    }

    /// The tree of a cascade below one of its messages, read as it stands now.
    ///
    /// # Errors
    /// [`ProcessError::Command`].
    pub async fn tree(
        &self,
        root: Address,
        from: Address,
        reach: Reach,
    ) -> Result<Node, ProcessError> {
        let mut all: Vec<Option<Flat>> =
            self.inner.flat(root, from, reach).await?.into_iter().map(Some).collect();
        // From the leaves up: a node's children all stand behind it.
        for at in (1..all.len()).rev() {
            let Some(Flat { parent, mut node }) = all.get_mut(at).and_then(Option::take) else {
                continue;
            };
            node.children.reverse();
            let parent = parent.and_then(|parent| all.get_mut(parent)?.as_mut());
            if let Some(parent) = parent {
                parent.node.children.push(node);
            }
        }
        let first = all.into_iter().next().flatten();
        let mut node = first.ok_or_else(|| ProcessError::NoPush(root.id()))?.node;
        node.children.reverse();
        Ok(node)
    }
}
