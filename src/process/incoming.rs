//! Messages of an instance on their way to its code, with what is known of where they come from.

use bytes::Bytes;
use onrush_protocol::batch::{Record, RecordBatch};

use crate::base::place::PartitionNumber;
use crate::delivery::parcel::Delivered;
use crate::process::definition::Definition;
use crate::process::envelope::{Envelope, HEADER};
use crate::process::keys::Address;
use crate::state::effect::{ProducerSub, Sequence};

/// No limit, where hops are counted.
pub(super) const ANY_HOPS: u32 = u32::MAX;

/// One message.
#[derive(Debug)]
pub(super) struct Incoming {
    pub(super) address: Address,
    pub(super) root: Address,
    /// Who sent it: `client:…` or `process:class/key`.
    pub(super) from: Box<str>,
    pub(super) transaction_id: Option<Box<str>>,
    /// The trace that it is part of: what it makes a process send is part of that too.
    pub(super) trace_id: Option<[u8; 16]>,
    pub(super) payload: Bytes,
    pub(super) is_json: bool,
    pub(super) envelope: Envelope,
}

impl Incoming {
    /// All messages of a batch.
    pub(super) fn of_batch(
        partition: PartitionNumber,
        delivered: &Delivered,
    ) -> impl Iterator<Item = Self> + '_ {
        let Delivered { first_seq, time_ms, sub, batch } = delivered;
        let records = (*first_seq..).zip(batch.records());
        records.map(move |(seq, record)| {
            Self::new(partition, seq, *time_ms, sub.as_ref(), batch, &record)
        })
    }

    fn new(
        partition: PartitionNumber,
        seq: Sequence,
        time_ms: u64,
        sub: Option<&ProducerSub>,
        batch: &RecordBatch,
        record: &Record<'_>,
    ) -> Self {
        let address = Address { partition, seq, time_ms };
        let envelope = record.headers.get(HEADER).and_then(Envelope::read).unwrap_or_default();
        let (root, from) = match &envelope.origin {
            Some(origin) => (origin.root(), format!("process:{}", origin.from).into()),
            None => {
                let name = sub.map(ProducerSub::as_str).or(envelope.sub.as_deref());
                let name = name.unwrap_or_default();
                match &envelope.timer {
                    Some(timer) => (address, format!("timer:{timer}").into()),
                    None => (address, format!("client:{name}").into()),
                }
            }
        };
        Self {
            address,
            root,
            from,
            transaction_id: record.transaction_id.map(Into::into),
            trace_id: record.trace_id,
            payload: batch.bytes().slice_ref(record.payload),
            is_json: record.is_json,
            envelope,
        }
    }

    /// Whether it is the first message of its cascade.
    pub(super) fn is_root(&self) -> bool {
        self.envelope.origin.is_none()
    }

    /// Whether what it sends to classes in manual mode is to be evaluated with its cascade.
    pub(super) fn lets_run(&self) -> bool {
        self.envelope.terms.max_depth.is_none_or(|most| self.depth() < most)
    }

    pub(super) fn depth(&self) -> u32 {
        self.envelope.origin.as_ref().map_or(0, |origin| origin.depth)
    }

    /// How many messages may still follow one after the other; [`ANY_HOPS`] for any number. Whoever
    /// pushes may ask for less than the class of the first message allows, and not for more.
    pub(super) fn hops_left(&self, definition: &Definition) -> u32 {
        let of_class = match definition.limits.hops {
            0 => ANY_HOPS,
            hops => hops,
        };
        match self.envelope.terms.hops {
            None => of_class,
            Some(asked) if self.is_root() => asked.min(of_class),
            Some(left) => left,
        }
    }

    /// How many messages its cascade may have; of the first message as [`Self::hops_left`].
    pub(super) fn messages_max(&self, definition: &Definition) -> u64 {
        let of_class = definition.limits.messages;
        match self.envelope.terms.messages_max {
            0 => of_class,
            asked if self.is_root() => asked.min(of_class),
            most => most,
        }
    }
}
