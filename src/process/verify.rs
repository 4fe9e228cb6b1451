//! Evaluating a process anew from its first message, to see whether it comes to the same.
//!
//! In: the log of an instance, and the records of its slots. Out: the first slot that differs, or the
//! first state key that does, or that nothing differs. Slots whose code never ran, or ran out of time, had
//! no part in the state and are not evaluated. Nothing is committed; the instance goes on meanwhile, and
//! what it does in that time is evaluated too. Called by `wire`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use onrush_protocol::name::{PartitionName, QueueName};
use serde::Serialize;

use crate::process::board::Deadline;
use crate::process::evaluate::{Done, Job};
use crate::process::incoming::Incoming;
use crate::process::instance::{Dirty, Instance};
use crate::process::look::InstanceShown;
use crate::process::record::{SlotRecord, SlotStatus};
use crate::process::{ProcessError, Processes};
use crate::shard::command::CommandError;
use crate::state::effect::Sequence;

/// Slots that are read at a time.
const SLOTS: u64 = 256;
/// State keys that are compared at a time.
const KEYS: usize = 1_000;
/// Bytes of state of a process that can be verified: all of it is in memory twice.
const STATE_BYTES_MAX: usize = 64 << 20;
/// How often state is looked at again where the process went on while it was read.
const ROUNDS: usize = 16;

/// What evaluating a process anew came to.
#[derive(Debug, Default, Serialize)]
pub struct Verified {
    /// The process.
    pub process: String,
    /// Whether all of it was evaluated in time.
    pub complete: bool,
    /// Whether all came to the same; only where it is complete.
    pub equal: Option<bool>,
    /// Slots that were evaluated or passed over again.
    pub slots: u64,
    /// State keys that were compared.
    pub keys: u64,
    /// The first thing that is not the same.
    pub first_difference: Option<Difference>,
}

/// Something that did not come to the same.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Difference {
    /// Its slot; `None` for a state key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slot: Option<Sequence>,
    /// Its state key; `None` for a slot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// What of it: `status`, `output`, `error`, `printed`, `outbox`, `value`.
    pub what: &'static str,
    /// As it is kept.
    pub kept: String,
    /// As it came to now.
    pub now: String,
}

/// A process that is evaluated anew.
struct Replay {
    instance: Instance,
    /// The slot that comes next.
    next: Sequence,
    difference: Option<Difference>,
}

impl Processes {
    /// Evaluates all slots of a process anew from nothing, and compares what they come to, and the state
    /// at the end, with what is kept. Takes as long as that takes, at most until `patience` is over.
    ///
    /// # Errors
    /// [`ProcessError::NoClass`], [`ProcessError::NoProcess`]; [`ProcessError::NotWhole`] where messages,
    /// records or versions of the class are not kept any more, or there is too much state;
    /// [`ProcessError::Command`] where they cannot be read.
    pub async fn verify(
        &self,
        class: &QueueName,
        key: &PartitionName,
        patience: Duration,
    ) -> Result<Verified, ProcessError> {
        let deadline = Deadline::after(&*self.inner.clock, patience);
        let mut shown = self.instance(class, key).await?;
        must_be_whole(&shown)?;
        let missing = || ProcessError::NoClass(class.as_str().into());
        let queue = self.inner.catalogs.find(class).ok_or_else(missing)?;
        let job = self.inner.job(queue.id, shown.partition, key.clone()).ok_or_else(missing)?;
        let job = Arc::new(job);
        let mut told = Verified { process: job.name(), ..Verified::default() };
        let mut replay = Replay { instance: Instance::fresh(), next: 0, difference: None };
        for _ in 0..ROUNDS {
            while replay.next < shown.done && replay.difference.is_none() {
                if deadline.is_over() {
                    told.slots = replay.next;
                    return Ok(told);
                }
                let to = shown.done.min(replay.next + SLOTS);
                replay = self.replay(&job, &shown, replay, to).await?;
            }
            told.slots = replay.next;
            if replay.difference.is_some() {
                break;
            }
            let kept = self.all_state(&shown).await?;
            let now = self.instance(class, key).await?;
            if now.done == shown.done {
                told.keys = kept.len() as u64;
                replay.difference = differing_key(&kept, replay.instance.into_keys());
                told.complete = true;
                told.equal = Some(replay.difference.is_none());
                told.first_difference = replay.difference;
                return Ok(told);
            }
            shown = now;
        }
        // A slot that differs decides; a process that never rests leaves its state open.
        told.complete = replay.difference.is_some();
        told.equal = replay.difference.is_some().then_some(false);
        told.first_difference = replay.difference;
        Ok(told)
    }

    /// Evaluates slots up to and without `to`, or up to the first that differs.
    async fn replay(
        &self,
        job: &Arc<Job>,
        shown: &InstanceShown,
        replay: Replay,
        to: Sequence,
    ) -> Result<Replay, ProcessError> {
        let Replay { mut instance, next: from, mut difference } = replay;
        let key = job.key.as_str().to_owned();
        let messages = self.inner.read(job.queue, key, shown.partition, from, to).await?;
        let mut records = BTreeMap::new();
        let mut at = from;
        while at < to {
            let (page, _) = self.slots_from(shown, at, (to - at) as usize).await?;
            let Some((last, _)) = page.last() else { break };
            at = last + 1;
            records.extend(page);
        }
        let mut incoming = Vec::new();
        let count = messages.len() as u64;
        for mut message in messages {
            let slot = message.address.seq;
            let record = records.get(&slot).ok_or_else(|| not_kept("what became of slot", slot))?;
            let is_known = record.version == 0 || job.versions.numbered(record.version).is_some();
            if !is_known {
                return Err(not_kept("version", record.version.into()));
            }
            if had_a_part(record) {
                // It was not over then.
                message.envelope.until_ms = 0;
                incoming.push(message);
            }
        }
        if count < to - from {
            return Err(not_kept("a message behind slot", from));
        }
        while !incoming.is_empty() && difference.is_none() {
            let gone = || ProcessError::Command(CommandError::ShuttingDown);
            let tried = self.inner.try_out(job, instance, incoming).await.ok_or_else(gone)?;
            let (next, messages, evaluated) = tried;
            (instance, incoming) = (next, messages);
            let done = evaluated.done.len();
            let Some(last) = done.checked_sub(1).and_then(|at| incoming.get(at)) else {
                return Err(gone());
            };
            let behind = last.address.seq + 1;
            difference = evaluated.done.iter().find_map(|it| differing(it, &incoming, &records));
            evaluated.leave(&mut instance, behind);
            if instance.bytes() > STATE_BYTES_MAX {
                let why = format!("it has more than {STATE_BYTES_MAX} bytes of state");
                return Err(ProcessError::NotWhole(why));
            }
            incoming.drain(..done);
        }
        Ok(Replay { instance, next: to, difference })
    }

    /// All state keys of an instance.
    async fn all_state(
        &self,
        shown: &InstanceShown,
    ) -> Result<BTreeMap<Bytes, Bytes>, ProcessError> {
        let (mut all, mut after) = (BTreeMap::new(), None::<String>);
        loop {
            let page = self.state(shown, "", after.as_deref(), KEYS).await?;
            all.extend(page.rows.into_iter().map(|row| (row.key, row.value)));
            match page.more_after {
                Some(key) => after = Some(String::from_utf8_lossy(&key).into_owned()),
                None => return Ok(all),
            }
        }
    }
}

fn must_be_whole(shown: &InstanceShown) -> Result<(), ProcessError> {
    match shown.base.max(shown.kept_from) {
        0 => Ok(()),
        from => Err(not_kept("anything of slots before", from)),
    }
}

fn not_kept(what: &str, number: u64) -> ProcessError {
    ProcessError::NotWhole(format!("{what} {number} is not kept any more"))
}

/// Whether the code of a slot ran to its end, or would again.
fn had_a_part(record: &SlotRecord) -> bool {
    let ran_out = record.error.as_ref().is_some_and(|error| &*error.code == "time_exceeded");
    match record.status {
        SlotStatus::Ok | SlotStatus::Created | SlotStatus::Reset => true,
        SlotStatus::Failed => !ran_out,
        SlotStatus::Cancelled | SlotStatus::Expired | SlotStatus::Refused | SlotStatus::Skipped => {
            false
        }
    }
}

/// What of a slot is not as it was.
fn differing(
    done: &Done,
    incoming: &[Incoming],
    records: &BTreeMap<Sequence, SlotRecord>,
) -> Option<Difference> {
    let slot = incoming.get(done.at)?.address.seq;
    let (kept, now) = (records.get(&slot)?, &done.record);
    let word = |record: &SlotRecord| format!("{:?}", record.status).to_lowercase();
    let output = |record: &SlotRecord| {
        record.output.as_ref().map_or_else(String::new, |output| output.get().to_owned())
    };
    let error = |record: &SlotRecord| {
        record.error.as_ref().map_or_else(String::new, |error| error.code.clone().into())
    };
    let kept_outbox: Vec<&str> =
        kept.outbox.iter().map(|entry| entry.target.as_deref().unwrap_or_default()).collect();
    let outbox: Vec<&str> =
        done.outbox.iter().map(|entry| entry.target.as_deref().unwrap_or_default()).collect();
    let pairs = [
        ("status", word(kept), word(now)),
        ("error", error(kept), error(now)),
        ("output", output(kept), output(now)),
        ("printed", kept.printed.to_string(), now.printed.to_string()),
        ("outbox", kept_outbox.join(" "), outbox.join(" ")),
    ];
    let (what, kept, now) = pairs.into_iter().find(|(_, kept, now)| kept != now)?;
    Some(Difference { slot: Some(slot), key: None, what, kept, now })
}

/// The first state key whose value is not the same.
fn differing_key(kept: &BTreeMap<Bytes, Bytes>, now: Dirty) -> Option<Difference> {
    let now: BTreeMap<Bytes, Bytes> = now
        .into_iter()
        .filter_map(|(key, value)| Some((Bytes::copy_from_slice(key.as_bytes()), value?)))
        .collect();
    let key = kept.keys().chain(now.keys()).filter(|key| kept.get(*key) != now.get(*key)).min()?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let value = |of: &BTreeMap<Bytes, Bytes>| of.get(key).map_or_else(String::new, |it| text(it));
    let (slot, key_text) = (None, Some(text(key)));
    Some(Difference { slot, key: key_text, what: "value", kept: value(kept), now: value(&now) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_key_that_differs_is_named() {
        let bytes = |text: &str| Bytes::copy_from_slice(text.as_bytes());
        let kept = BTreeMap::from([(bytes("a"), bytes("1")), (bytes("c"), bytes("3"))]);
        let now = |keys: &[(&str, Option<&str>)]| -> Dirty {
            keys.iter().map(|(key, value)| ((*key).into(), value.map(bytes))).collect()
        };
        let same = now(&[("a", Some("1")), ("b", None), ("c", Some("3"))]);
        assert_eq!(differing_key(&kept, same), None);
        for (now, key, was, is) in [
            (now(&[("a", Some("1")), ("b", Some("2")), ("c", Some("4"))]), "b", "", "2"),
            (now(&[("a", Some("1"))]), "c", "3", ""),
            (now(&[("a", Some("0")), ("c", Some("3"))]), "a", "1", "0"),
        ] {
            let found = differing_key(&kept, now).unwrap();
            assert_eq!(found.key.as_deref(), Some(key));
            assert_eq!((&*found.kept, &*found.now), (was, is));
        }
    }

    #[test]
    fn slots_whose_code_did_not_run_to_its_end_have_no_part() {
        let record = |status: &str, error: &str| -> SlotRecord {
            let fault = match error {
                "" => String::new(),
                code => format!(r#", "error": {{"code": "{code}", "message": ""}}"#),
            };
            let text = format!(
                r#"{{"status": "{status}", "version": 1, "message_id": "", "from": "", "cascade": "",
                "depth": 0, "pushed_ms": 0, "evaluated_ms": 0, "took_us": 0, "fuel": 0{fault}}}"#
            );
            serde_json::from_str(&text).unwrap()
        };
        for (status, error, expected) in [
            ("ok", "", true),
            ("reset", "", true),
            ("created", "", true),
            ("failed", "guest_error", true),
            ("failed", "time_exceeded", false),
            ("skipped", "skipped", false),
            ("cancelled", "cancelled", false),
            ("expired", "expired", false),
            ("refused", "not_accepted", false),
        ] {
            assert_eq!(had_a_part(&record(status, error)), expected, "{status} {error}");
        }
    }
}
