//! Shards, a catalog and a clock; commits that always stand.

use bytes::Bytes;
use onrush_protocol::batch::{BatchBuilder, NewRecord};
use onrush_protocol::options::QueueOptions;
use onrush_protocol::qos::Qos;

use crate::base::place::{QueueId, ShardCount, ShardId, StoreKey};
use crate::failover::record::Spilled;
use crate::shard::command::{Asked, Command, Define, Pop, ReplyTo};
use crate::shard::replica::Replica;
use crate::shard::round::{Outcome, Plan, Replay, ReplayItem, Work, decide};
use crate::shard::tend::{Ask, Tend};
use crate::shard::transaction::{OnDuplicate, Transaction, TransactionAppend};
use crate::state::Bodies;
use crate::state::codec::{self, Chunk};
use crate::state::draft::Context;
use crate::state::draft::care::LetterBody;
use crate::state::draft::pop::PopBudget;
use crate::state::draft::push::PushBatch;
use crate::state::effect::{GroupStart, Origin};
use crate::state::kv::memory::MemoryKv;
use crate::state::ledger::DedupPolicy;
use crate::state::model::Run;

pub(super) const LEASE_MS: u64 = 10_000;
const POLICY: DedupPolicy = DedupPolicy { horizon_ms: 60_000, generation_ms: 20_000 };

/// All bytes that were appended, of all shards.
#[derive(Default)]
struct Tape(Vec<u8>);

impl Bodies for Tape {
    fn chunks(&self, _: ShardId, run: &Run) -> Option<Vec<Chunk>> {
        let from = run.position as usize;
        let place = Bytes::copy_from_slice(&self.0[from..from + run.len as usize]);
        codec::decode_chunks(place).ok()
    }
}

/// Shards and their log.
pub(super) struct Bench {
    pub(super) replica: Replica,
    pub(super) now_ms: u64,
    kv: MemoryKv,
    tape: Tape,
    appends: u64,
}

impl Bench {
    pub(super) fn new(shards: u16) -> Self {
        let replica = Replica::new(ShardCount::new(shards).unwrap(), StoreKey([7; 16]));
        let (kv, tape) = (MemoryKv::new(), Tape::default());
        Self { replica, now_ms: 1_000_000, kv, tape, appends: 0 }
    }

    /// Decides work, and what the catalog asks of the shards; all of it stands.
    pub(super) fn commit(&mut self, mut work: Work) -> Plan {
        work.chores = std::mem::take(&mut self.replica.chores);
        self.appends += 1;
        let origin = Origin { engine: 1, append: self.appends };
        let context = Context {
            now_ms: self.now_ms,
            kv: &self.kv,
            bodies: &self.tape,
            catalog: self.replica.catalog.catalog(),
            dedup: POLICY,
        };
        let plan = decide(&self.replica, context, origin, 0, &work);
        for ((shard, entry), proposal) in plan.entries.iter().zip(&plan.proposals) {
            let position = self.tape.0.len() as u64;
            proposal.parts.iter().for_each(|part| self.tape.0.extend_from_slice(part));
            self.replica.apply(*shard, entry, position, proposal.len() as u64);
        }
        self.replica.chores.extend(plan.unfinished.iter().cloned());
        plan
    }

    pub(super) fn command(&mut self, command: Command) -> Plan {
        self.commit(Work { commands: vec![command], ..Work::default() })
    }

    pub(super) fn define(&mut self, name: &str, options: QueueOptions) -> QueueId {
        let (reply, _nobody) = tokio::sync::oneshot::channel();
        let (namespace, task) = (Box::default(), Box::default());
        let asked = Some(Asked { options, ..Asked::default() });
        let define = Define { name: name.parse().unwrap(), namespace, task, asked, reply };
        let mut plan = self.command(Command::Define(Box::new(define)));
        match plan.outcomes.pop() {
            Some(Outcome::Defined(queue)) => queue.id,
            other => panic!("{other:?}"),
        }
    }

    /// The name of a partition that belongs to a shard.
    pub(super) fn name_in(&self, shard: ShardId, queue: QueueId) -> String {
        let place = |name: &String| {
            let hash = self.replica.key().place(queue, name);
            self.replica.count().of_hash(hash) == shard
        };
        (0..).map(|it| format!("p{it}")).find(place).unwrap()
    }

    pub(super) fn push(&mut self, queue: QueueId, partition: &str, payload: &[u8]) {
        let (hash, push) = (self.replica.key().place(queue, partition), push_of(payload));
        let (partition, backlog_max, claim) = (partition.parse().unwrap(), 0, None);
        let append = TransactionAppend { queue, partition, hash, push, backlog_max, claim };
        let (reply, _nobody) = tokio::sync::oneshot::channel();
        let transaction = Transaction {
            leases: Vec::new(),
            acks: Vec::new(),
            states: Vec::new(),
            appends: vec![append],
            notes: Vec::new(),
            on_duplicate: OnDuplicate::Report,
            reply,
        };
        let plan = self.command(Command::Transact(Box::new(transaction)));
        assert!(matches!(plan.outcomes[0], Outcome::Transacted(Ok(_))), "{:?}", plan.outcomes);
    }

    /// Leases everything that a group may have.
    pub(super) fn pop_all(&mut self, queue: &str, group: &str) {
        loop {
            let (reply, _nobody) = tokio::sync::oneshot::channel();
            let pop = Pop {
                queue: queue.parse().unwrap(),
                partition: None,
                group: group.parse().unwrap(),
                start: GroupStart::Beginning,
                budget: PopBudget { messages: 1_000, bytes: u64::MAX, partitions: 1_000 },
                token: [9; 16],
                lease_ms: 0,
                auto_ack: false,
                asked_us: 0,
                wait_until_us: None,
                ticket: None,
                reply: ReplyTo::Task(reply),
            };
            let plan = self.command(Command::Pop(Box::new(pop)));
            match &plan.outcomes[0] {
                Outcome::Again => {}
                Outcome::Popped(claims, _) => return assert!(!claims.is_empty()),
                other => panic!("{other:?}"),
            }
        }
    }

    pub(super) fn tend(&mut self, ask: Ask) -> Plan {
        let (reply, _nobody) = tokio::sync::oneshot::channel();
        self.command(Command::Tend(Box::new(Tend { ask, reply })))
    }

    /// Batches of one message that waited in the failover log, at 0, 1, …
    pub(super) fn replay(&self, items: &[(QueueId, &str)]) -> Replay {
        let item = |(position, (queue, text)): (u64, &(QueueId, &str))| {
            let (partition, push) = ("p".parse().unwrap(), push_of(text.as_bytes()));
            let hash = self.replica.key().place(*queue, "p");
            let shard = self.replica.count().of_hash(hash);
            let (qos, time_ms, doubt) = (Qos::AtLeastOnce, self.now_ms, None);
            let spilled = Spilled { queue: *queue, partition, qos, time_ms, doubt, push };
            ReplayItem { position, end: position + 1, shard, hash, spilled, bytes: Bytes::new() }
        };
        let items = (0..).zip(items).map(item).collect();
        Replay { items, is_last: true, ..Replay::default() }
    }
}

/// A batch of one message.
pub(super) fn push_of(payload: &[u8]) -> PushBatch {
    let mut builder = BatchBuilder::new();
    builder.push(&NewRecord { payload, ..NewRecord::default() }).unwrap();
    PushBatch { batch: builder.finish().unwrap(), fingerprints: Vec::new(), sub: None }
}

/// A dead letter's message, sealed for its new place or not.
pub(super) fn body(payload: &[u8], is_sealed: bool) -> LetterBody {
    let batch = push_of(payload).batch;
    let write = |record: &onrush_protocol::batch::Record<'_>, out: &mut bytes::BytesMut| {
        out.extend_from_slice(record.payload);
        Ok::<(), ()>(())
    };
    let batch = batch.rewrite(is_sealed, 0, write).unwrap().bytes().clone();
    LetterBody { batch, sub: None }
}
