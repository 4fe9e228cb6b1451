//! What is asked of processes, whichever door it comes in by: pushes and how far they are waited for, how
//! they stand, what became of slots, what states hold.
//!
//! In: names, numbers within their limits, a message. Out: a status as HTTP numbers it, and a body. A door
//! reads its own way of asking and hands the answer on; it decides nothing. Called by both doors.

use std::collections::BTreeMap;
use std::time::Duration;

use onrush_protocol::name::{PartitionName, QueueName};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::process::ProcessError;
use crate::process::definition::{HOPS_MAX, MESSAGES_MAX};
use crate::process::keys::Address;
use crate::process::look::InstanceShown;
use crate::process::push::{Await, PushOrder, Taken, Terms};
use crate::process::record::SlotRecord;
use crate::process::tree::{LEVELS_MAX, NODES_MAX, Reach, Standing};
use crate::wire::Rooms;
use crate::wire::process_told::{Told, graph, part, read_cursor, record, scheduled};

/// Rows of one page, by default and at most.
pub(super) const PAGE: u64 = 100;
pub(super) const PAGE_MAX: u64 = 1_000;
/// Longest wait, milliseconds.
pub(super) const WAIT_MS_MAX: u64 = 600_000;
/// Wait where nothing is said, milliseconds.
pub(super) const WAIT_MS: u64 = 30_000;
/// Deepest result that can be asked for; more means all.
pub(super) const DEPTH_MAX: u64 = u32::MAX as u64;

/// It is as was asked.
const DONE: u16 = 200;
/// It goes on, and is not yet as was asked.
const GOES_ON: u16 = 202;
/// It failed, and the sender wanted to be told so by the status.
const FAILED: u16 = 424;

/// It was called off, and the sender wanted to be told so by the status.
const CALLED_OFF: u16 = 409;

/// What is answered.
pub(super) struct Reply {
    /// As HTTP numbers it.
    pub(super) status: u16,
    /// What it says.
    pub(super) body: Value,
}

/// An answer, or why there is none.
pub(super) type Asked = Result<Reply, ProcessError>;

fn done(body: Value) -> Asked {
    Ok(Reply { status: DONE, body })
}

/// The refusal of a control value.
pub(super) fn control(message: impl Into<String>) -> ProcessError {
    ProcessError::Control(message.into())
}

/// A control value within its limits.
pub(super) fn within(
    name: &str,
    value: Option<u64>,
    min: u64,
    max: u64,
) -> Result<u64, ProcessError> {
    let refused = || control(format!("{name} must be a whole number from {min} to {max}"));
    value.filter(|value| (min..=max).contains(value)).ok_or_else(refused)
}

/// What a push asks besides its message.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wish {
    pub(super) level: Await,
    pub(super) patience: Duration,
    pub(super) result_depth: u64,
    pub(super) max_depth: Option<u64>,
    pub(super) strict: bool,
    pub(super) terms: Terms,
}

/// Control values of a push as they come; what is not there was not said.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct RawWish {
    pub(super) level: Option<Await>,
    pub(super) timeout_ms: Option<u64>,
    pub(super) result_depth: Option<u64>,
    pub(super) max_depth: Option<u64>,
    pub(super) max_hops: Option<u64>,
    pub(super) max_messages: Option<u64>,
    pub(super) strict: bool,
}

impl RawWish {
    /// The same held against limits, with defaults for what was not said.
    ///
    /// # Errors
    /// [`ProcessError::Control`] naming the value and its limits.
    pub(super) fn checked(self) -> Result<Wish, ProcessError> {
        let limited = |value: Option<u64>, name: &str, min: u64, max: u64| {
            value.map(|value| within(name, Some(value), min, max)).transpose()
        };
        let max_depth = limited(self.max_depth, "maxDepth", 0, u64::from(u32::MAX) - 1)?;
        let hops = limited(self.max_hops, "maxHops", 0, u64::from(HOPS_MAX))?;
        // 0 asks for no limit at all, and says so.
        let hops = hops.map(|hops| if hops == 0 { u32::MAX } else { hops as u32 });
        let messages_max = limited(self.max_messages, "maxMessages", 1, MESSAGES_MAX)?.unwrap_or(0);
        let timeout_ms = limited(self.timeout_ms, "timeoutMs", 0, WAIT_MS_MAX)?.unwrap_or(WAIT_MS);
        let result_depth = limited(self.result_depth, "resultDepth", 0, DEPTH_MAX)?.unwrap_or(1);
        let terms = Terms { hops, messages_max, max_depth: max_depth.map(|depth| depth as u32) };
        Ok(Wish {
            level: self.level.unwrap_or_default(),
            patience: Duration::from_millis(timeout_ms),
            result_depth,
            max_depth,
            strict: self.strict,
            terms,
        })
    }
}

/// Which part of a tree is wanted, and how long it may be waited for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Look<'a> {
    pub(super) patience: Duration,
    pub(super) result_depth: u64,
    pub(super) nodes: u64,
    pub(super) cursor: Option<&'a str>,
}

/// Which slots of an instance are wanted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    pub(super) from: u64,
    pub(super) last: u64,
    pub(super) limit: u64,
}

/// Where questions about processes are answered.
pub(super) struct Desk<'a> {
    pub(super) rooms: &'a Rooms,
    /// Says when the server stops: then nobody waits any more.
    pub(super) stop: watch::Receiver<bool>,
}

impl Desk<'_> {
    async fn stopping(&self) {
        // An error means that nobody is left who could stop it: then it has.
        let _ = self.stop.clone().wait_for(|stop| *stop).await;
    }

    /// Pushes a message and waits as far as is wished, or only as far as `only` says.
    pub(super) async fn push(
        &self,
        mut order: PushOrder,
        mut wish: Wish,
        only: Option<Await>,
    ) -> Asked {
        wish.level = only.unwrap_or(wish.level);
        order.waits = wish.level != Await::Accepted;
        order.runs = only.is_none();
        let (class, key) = (order.class.clone(), order.key.clone());
        let given = order.transaction_id.clone();
        let processes = &self.rooms.processes;
        let Taken::Stored { address, duplicate, defines } = processes.push(order).await? else {
            let body = json!({ "status": "buffered", "complete": false, "dbHealthy": false,
                "process": format!("{class}/{key}"), "transaction_id": given });
            return Ok(Reply { status: GOES_ON, body });
        };
        if only.is_none() {
            if defines {
                wish.level = Await::Slot;
            }
            processes.run_to(&class, &key, address.seq).await?;
        }
        let extra = json!({ "transaction_id": given.unwrap_or_else(|| address.id()),
            "duplicate": duplicate });
        self.answer(address, address, &wish, extra).await
    }

    /// Waits for what comes of a message that is there already.
    pub(super) async fn push_slot(
        &self,
        class: &QueueName,
        key: &PartitionName,
        slot: u64,
        wish: &Wish,
    ) -> Asked {
        let processes = &self.rooms.processes;
        let shown = processes.instance(class, key).await?;
        if slot >= shown.next {
            return Err(ProcessError::NoSlot(slot));
        }
        let recorded = slot < shown.done;
        if let Some(why) = shown.stopped.as_deref().filter(|_| !recorded) {
            return Err(ProcessError::Stopped(why.into()));
        }
        processes.run_to(class, key, slot).await?;
        let messages = processes.schedule(class, key, &shown, slot, slot + 1).await?;
        let message = messages.first().ok_or(ProcessError::NoSlot(slot))?;
        let id = message.transaction_id.as_deref();
        let extra = json!({ "recorded": recorded,
            "transaction_id": id.map_or_else(|| message.address.id(), Into::into) });
        self.answer(message.root, message.address, wish, extra).await
    }

    /// Waits as far as is wished, and tells how it stands.
    pub(super) async fn answer(
        &self,
        root: Address,
        from: Address,
        wish: &Wish,
        extra: Value,
    ) -> Asked {
        let processes = &self.rooms.processes;
        let max_depth = wish.max_depth.map(|depth| depth as u32);
        let waiting = processes.wait(root, wish.level, max_depth, wish.patience);
        let (standing, reached) = tokio::select! {
            waited = waiting => waited?,
            () = self.stopping() => (processes.standing(&root.id()).await?, false),
        };
        let status = match () {
            () if !reached => GOES_ON,
            () if wish.strict && standing.status() == "failed" => FAILED,
            () if wish.strict && standing.status() == "cancelled" => CALLED_OFF,
            () => DONE,
        };
        let levels = max_depth.map_or(LEVELS_MAX, |depth| (depth as usize + 1).min(LEVELS_MAX));
        let reach = Reach { levels, ..Reach::default() };
        let mut body = self.told(&standing, from, reach, wish.result_depth, wish.max_depth).await?;
        if let (Value::Object(body), Value::Object(extra)) = (&mut body, extra) {
            body.extend(extra);
            if !reached {
                body.insert("timed_out".into(), true.into());
            }
        }
        Ok(Reply { status, body })
    }

    async fn told(
        &self,
        standing: &Standing,
        from: Address,
        reach: Reach,
        result_depth: u64,
        max_depth: Option<u64>,
    ) -> Result<Value, ProcessError> {
        let results = usize::try_from(result_depth).unwrap_or(usize::MAX);
        let reach = Reach { results, ..reach };
        let tree = Some(self.rooms.processes.tree(standing.root, from, reach).await?);
        let now_ms = self.rooms.clock.now_ms();
        let told = Told { standing, tree, result_depth, max_depth, now_ms };
        Ok(Value::Object(told.body()))
    }

    /// How a push stands, as a tree.
    pub(super) async fn status(&self, push: &str, look: Look<'_>) -> Asked {
        let processes = &self.rooms.processes;
        let mut standing = processes.standing(push).await?;
        if !look.patience.is_zero() && !standing.is_complete() {
            let waiting = processes.wait(standing.root, Await::Cascade, None, look.patience);
            tokio::select! {
                waited = waiting => standing = waited?.0,
                () = self.stopping() => {}
            }
        }
        let foreign = || control("cursor is not one of this push");
        let from = look.cursor.map(|text| read_cursor(text).ok_or_else(foreign)).transpose()?;
        let (from, from_index) = from.unwrap_or((standing.root, 1));
        let nodes = within("limit", Some(look.nodes), 1, NODES_MAX as u64)? as usize;
        let reach = Reach { nodes, from_index, ..Reach::default() };
        done(self.told(&standing, from, reach, look.result_depth, None).await?)
    }

    /// Lets nothing of a push be evaluated any more.
    pub(super) async fn cancel(&self, push: &str) -> Asked {
        let standing = &self.rooms.processes.cancel(push).await?;
        let now_ms = self.rooms.clock.now_ms();
        let told = Told { standing, tree: None, result_depth: 0, max_depth: None, now_ms };
        done(Value::Object(told.body()))
    }

    /// The messages of a push as nodes and edges.
    pub(super) async fn graph(&self, push: &str) -> Asked {
        let processes = &self.rooms.processes;
        let standing = processes.standing(push).await?;
        let reach = Reach { results: 0, ..Reach::default() };
        let tree = processes.tree(standing.root, standing.root, reach).await?;
        done(graph(&standing, tree))
    }

    /// How an instance stands.
    pub(super) async fn instance(&self, class: &QueueName, key: &PartitionName) -> Asked {
        let shown = self.rooms.processes.instance(class, key).await?;
        done(json!({
            "process": format!("{class}/{key}"),
            "slots": shown.next,
            "evaluated": shown.done,
            "pending": shown.next.saturating_sub(shown.done),
            "oldest": shown.base,
            "kept_from": shown.kept_from,
            "version": shown.version,
            "stopped": shown.stopped,
        }))
    }

    /// Messages of an instance with what became of them.
    pub(super) async fn slots(&self, class: &QueueName, key: &PartitionName, span: Span) -> Asked {
        let processes = &self.rooms.processes;
        let shown = processes.instance(class, key).await?;
        let from = span.from.max(shown.base);
        let end = span.last.saturating_add(1).min(shown.next).max(from);
        let to = end.min(from.saturating_add(span.limit));
        let (records, more_after) = processes.slots_from(&shown, from, span.limit as usize).await?;
        let mut records: BTreeMap<_, _> = records.into_iter().collect();
        // No further than it is known what became of them.
        let to = more_after.map_or(to, |slot| to.min(slot + 1));
        let messages = processes.schedule(class, key, &shown, from, to).await?;
        let slots: Vec<Value> = messages
            .iter()
            .map(|message| {
                let slot = message.address.seq;
                scheduled(message, records.remove(&slot), slot < shown.kept_from)
            })
            .collect();
        done(json!({ "slots": slots, "has_more": to < end, "next": to, "tail": shown.next }))
    }

    /// What became of a message, or a part of it.
    pub(super) async fn slot(
        &self,
        class: &QueueName,
        key: &PartitionName,
        slot: u64,
        patience: Duration,
        path: &str,
    ) -> Asked {
        let shown = self.rooms.processes.instance(class, key).await?;
        if slot < shown.kept_from {
            // There is nothing to wait for.
            self.rooms.processes.slot(class, key, slot).await?;
        }
        self.slot_of(&format!("{class}/{key}"), &shown, slot, patience, path).await
    }

    async fn slot_of(
        &self,
        process: &str,
        shown: &InstanceShown,
        slot: u64,
        patience: Duration,
        path: &str,
    ) -> Asked {
        if slot >= shown.next {
            return Err(ProcessError::NoSlot(slot));
        }
        let processes = &self.rooms.processes;
        let waited = tokio::select! {
            waited = processes.wait_slot(shown.partition, slot, patience) => waited?,
            () = self.stopping() => None,
        };
        match waited {
            Some(found) => match path.strip_prefix("outbox/") {
                Some(rest) => self.entry(&found, rest).await,
                None => done(part(&record(process, slot, &found), path)?),
            },
            None => {
                let body = json!({ "process": process, "slot": slot, "status": "pending" });
                Ok(Reply { status: GOES_ON, body })
            }
        }
    }

    /// An entry of a slot's outbox by its index, with what it said under `message`.
    async fn entry(&self, found: &SlotRecord, path: &str) -> Asked {
        let missing = || ProcessError::NoPath(format!("outbox/{path}"));
        let (index, rest) = path.split_once('/').unwrap_or((path, ""));
        let entry = found.outbox.iter().find(|it| it.index.to_string() == index);
        let entry = entry.ok_or_else(missing)?;
        let address = |id: &str| Address::parse(id).ok_or_else(missing);
        let (root, slot) = (address(&found.cascade)?, address(&found.message_id)?);
        let sent = self.rooms.processes.sent(root, slot, entry.index).await?;
        let mut body = json!(entry);
        if let (Some(sent), Value::Object(fields)) = (sent, &mut body) {
            if let Some(address) = sent.address {
                fields.insert("message_id".into(), address.id().into());
            }
            if sent.is_json {
                let message: Value = serde_json::from_slice(&sent.payload).unwrap_or_default();
                fields.insert("message".into(), message);
            }
        }
        done(part(&body, rest)?)
    }

    /// What became of the newest message, once all before it are done.
    pub(super) async fn newest(
        &self,
        class: &QueueName,
        key: &PartitionName,
        patience: Duration,
        path: &str,
    ) -> Asked {
        let processes = &self.rooms.processes;
        let shown = processes.instance(class, key).await?;
        let last = shown.next.checked_sub(1).ok_or(ProcessError::NoSlot(0))?;
        processes.run_to(class, key, last).await?;
        self.slot_of(&format!("{class}/{key}"), &shown, last, patience, path).await
    }

    /// State keys of an instance in key order.
    pub(super) async fn state(
        &self,
        class: &QueueName,
        key: &PartitionName,
        (prefix, after): (&str, Option<&str>),
        limit: u64,
    ) -> Asked {
        let processes = &self.rooms.processes;
        let shown = processes.instance(class, key).await?;
        let page = processes.state(&shown, prefix, after, limit as usize).await?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let keys = page.rows.iter().map(|row| {
            let value: Value = serde_json::from_slice(&row.value).unwrap_or_default();
            json!({ "key": text(&row.key), "value": value })
        });
        let keys: Vec<Value> = keys.collect();
        let after = page.more_after.as_deref().map(text);
        done(json!({ "keys": keys, "evaluated": shown.done, "after": after }))
    }

    /// One state key of an instance.
    pub(super) async fn state_key(
        &self,
        class: &QueueName,
        key: &PartitionName,
        name: &str,
    ) -> Asked {
        let processes = &self.rooms.processes;
        let shown = processes.instance(class, key).await?;
        let row = processes.state_key(&shown, name).await?;
        done(serde_json::from_slice(&row.value).unwrap_or_default())
    }

    /// Stops an instance, for a reason, or lets it go on.
    pub(super) async fn stop(
        &self,
        class: &QueueName,
        key: &PartitionName,
        reason: Option<&str>,
    ) -> Asked {
        let processes = &self.rooms.processes;
        processes.set_stopped(class, key, reason).await?;
        let shown = processes.instance(class, key).await?;
        done(json!({ "process": format!("{class}/{key}"), "stopped": shown.stopped }))
    }
}
