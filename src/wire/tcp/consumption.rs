//! Pops and acks of one connection: asked without a task of their own, answered by post.
//!
//! In: requests. Out: frames. The commit loop answers all that a commit decided at once, so a
//! connection is woken once for many answers and writes them together. Messages are brought into memory
//! only while the client takes what it was sent: however many pops it asks for, no more than what waits
//! to be written is held for it. Called by the connection.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use onrush_protocol::code::Code;
use onrush_protocol::request::{Ack, Pop, SubscriptionStart};
use onrush_protocol::response::{
    Acked, AckedItem, Attempts, Failure, MessagesKind, MessagesWriter, Response,
};
use onrush_protocol::{LeaseToken, NO_LEASE};
use tokio::sync::Notify;

use crate::delivery::{Delivery, Handout, PopError, PopOrder, WAIT_MS_MAX};
use crate::shard::command::{CommandError, Popped, Post, ReplyTo, Verdicts};
use crate::state::draft::ack::AckItem;
use crate::state::draft::pop::PopBudget;
use crate::state::effect::{GroupStart, ProducerSub};
use crate::wire::auth::Denied;
use crate::wire::codes;
use crate::wire::tcp::transaction::verdict;
use crate::wire::tcp::{Config, failure};

/// What waits for an answer on behalf of one connection.
#[derive(Debug)]
pub(super) struct Consumption {
    popped: Arc<Post<Popped>>,
    /// The same for pops that want to be told who pushed, and for those of any queue, once this connection
    /// has asked for such: before that nobody looks into them.
    known: Option<Arc<Post<Popped>>>,
    any: Option<Arc<Post<Popped>>>,
    bell: Arc<Notify>,
    acked: Arc<Post<Verdicts>>,
    /// Requests without an answer.
    asked: usize,
    /// Answers to pops that wait for room: their messages are claimed, and nothing of them is in memory on
    /// our behalf.
    packed: VecDeque<(u64, MessagesKind, Result<Popped, CommandError>)>,
}

/// Messages that are to be read from a disk first: something for a task of its own.
pub(super) struct Far {
    pub(super) request_id: u64,
    pub(super) kind: MessagesKind,
    pub(super) popped: Popped,
}

/// Where answers go: small ones are encoded into `answers`, messages share their batches' memory.
pub(super) struct Outgoing<'a> {
    pub(super) answers: &'a mut BytesMut,
    pub(super) parts: Vec<Bytes>,
    pub(super) far: VecDeque<Far>,
    /// Bytes of messages that there is room for; the last messages may exceed it.
    pub(super) room: usize,
}

impl Consumption {
    pub(super) fn new(bell: &Arc<Notify>) -> Self {
        let popped = Arc::new(Post::new(Arc::clone(bell)));
        let acked = Arc::new(Post::new(Arc::clone(bell)));
        let (bell, packed) = (Arc::clone(bell), VecDeque::new());
        Self { popped, known: None, any: None, bell, acked, asked: 0, packed }
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.asked
    }

    /// Asks for messages, and for who pushed them where `is_known`, on behalf of somebody whose token lasts
    /// for `left_ms` more.
    pub(super) fn pop(
        &mut self,
        delivery: &Delivery,
        config: &Config,
        request_id: u64,
        (pop, is_known): (Pop, bool),
        left_ms: u64,
    ) {
        let order = order(config, pop, left_ms);
        self.asked += 1;
        let post = match is_known {
            false => &self.popped,
            true => self.known.get_or_insert_with(|| post(&self.bell)),
        };
        delivery.begin_pop(order, ReplyTo::post(post, request_id));
    }

    /// Where a task leaves what it claimed in any queue; it waits for room there like any other.
    pub(super) fn any(&mut self) -> Arc<Post<Popped>> {
        Arc::clone(self.any.get_or_insert_with(|| post(&self.bell)))
    }

    pub(super) fn ack(&mut self, delivery: &Delivery, request_id: u64, ack: Ack) {
        let token = (ack.lease != NO_LEASE).then_some(ack.lease);
        let items = ack.items.into_iter().map(|item| {
            let verdict = verdict(item.outcome);
            let error = item.error.as_str().into();
            (item.partition, AckItem { first: item.first_seq, last: item.last_seq, verdict, error })
        });
        self.asked += 1;
        let reply = ReplyTo::post(&self.acked, request_id);
        delivery.begin_ack(ack.group, token, items.collect(), reply);
    }

    /// Takes what came of pops of all kinds.
    fn take_popped(&mut self) {
        let mut popped = Vec::new();
        self.popped.take(&mut popped);
        let plain = popped.drain(..).map(|(id, answer)| (id, MessagesKind::Plain, answer));
        self.packed.extend(plain);
        if let Some(known) = &self.known {
            known.take(&mut popped);
            let known = popped.drain(..).map(|(id, answer)| (id, MessagesKind::Known, answer));
            self.packed.extend(known);
        }
        if let Some(any) = &self.any {
            any.take(&mut popped);
            // A task has asked until now.
            self.asked += popped.len();
            let any = popped.drain(..).map(|(id, answer)| (id, MessagesKind::Any, answer));
            self.packed.extend(any);
        }
    }

    /// Whether answers that came wait for room.
    pub(super) fn is_held_up(&self) -> bool {
        !self.packed.is_empty()
    }

    /// Answers pops whose caller may nothing more; what they were to get goes back to the others.
    pub(super) fn refuse(&mut self, denied: Denied, out: &mut BytesMut) {
        self.take_popped();
        self.asked -= self.packed.len();
        for (request_id, ..) in self.packed.drain(..) {
            let failure = failure::plain(denied.code(), &denied);
            Response::Failure(failure).encode_frame(request_id, out);
        }
    }

    /// Encodes the answers that came, messages as far as there is room. `unpack` is what
    /// [`Delivery::unpack_near`] does.
    pub(super) fn collect(
        &mut self,
        unpack: impl Fn(Popped) -> Result<Result<Handout, PopError>, Popped>,
        config: &Config,
        out: &mut Outgoing<'_>,
    ) {
        let mut acked = Vec::new();
        self.acked.take(&mut acked);
        self.take_popped();
        self.asked -= acked.len();
        for (request_id, answer) in acked {
            response_to_ack(answer).encode_frame(request_id, out.answers);
        }
        while out.room > 0
            && let Some((request_id, kind, answer)) = self.packed.pop_front()
        {
            self.asked -= 1;
            let handout = match answer.map(&unpack) {
                Ok(Ok(handout)) => handout,
                Ok(Err(popped)) => {
                    out.far.push_back(Far { request_id, kind, popped });
                    continue;
                }
                Err(error) => Err(PopError::from(error)),
            };
            for part in response_to_pop((request_id, kind), handout, config) {
                out.room = out.room.saturating_sub(part.len());
                out.parts.push(part);
            }
        }
    }
}

fn post(bell: &Arc<Notify>) -> Arc<Post<Popped>> {
    Arc::new(Post::new(Arc::clone(bell)))
}

impl Drop for Consumption {
    fn drop(&mut self) {
        // From here on nothing is leased on behalf of this connection.
        self.popped.close();
        self.known.iter().chain(&self.any).for_each(|post| post.close());
        self.acked.close();
    }
}

/// What a pop asks for, on behalf of somebody whose token lasts for `left_ms` more.
pub(super) fn order(config: &Config, pop: Pop, left_ms: u64) -> PopOrder {
    let start = match pop.start {
        // Consumers that share a queue always share all of it.
        _ if pop.group.is_queue_mode() => GroupStart::Beginning,
        SubscriptionStart::Default if config.start_new => GroupStart::New,
        SubscriptionStart::Default | SubscriptionStart::Beginning => GroupStart::Beginning,
        SubscriptionStart::New => GroupStart::New,
        SubscriptionStart::Time(time_ms) => GroupStart::Time(u64::try_from(time_ms).unwrap_or(0)),
    };
    let asked = if pop.bytes_max == 0 { u64::MAX } else { u64::from(pop.bytes_max) };
    PopOrder {
        queue: pop.queue,
        partition: pop.partition,
        group: pop.group,
        start,
        budget: PopBudget {
            messages: pop.messages_max.min(config.messages_max),
            // An answer must fit a frame; one message always does.
            bytes: asked.min(config.pop_bytes_max).min(config.frame_bytes_max as u64 / 2),
            partitions: u32::from(pop.partitions_max),
        },
        // Nobody is handed anything after their time.
        wait_ms: u64::from(pop.wait_ms).min(WAIT_MS_MAX).min(left_ms),
        lease_ms: u64::from(pop.lease_ms),
        auto_ack: pop.auto_ack,
    }
}

/// The frame that answers a pop, in parts that share the batches' memory.
pub(super) fn response_to_pop(
    (request_id, kind): (u64, MessagesKind),
    handout: Result<Handout, PopError>,
    config: &Config,
) -> Vec<Bytes> {
    let handout = match handout {
        Ok(handout) => handout,
        Err(error) => {
            return failed(request_id, failure::plain(codes::of_pop_error(&error), &error));
        }
    };
    let has_lease = handout.until_ms > 0;
    let token: &LeaseToken = if has_lease { &handout.token } else { &NO_LEASE };
    let mut writer = MessagesWriter::new(kind, token, handout.until_ms);
    for package in handout.packages {
        let mut section = writer.section(&handout.queue, package.partition, &package.name);
        for delivered in &package.batches {
            let producer = delivered.sub.as_ref().map_or("", ProducerSub::as_str);
            let batch = delivered.batch.bytes().clone();
            section.chunk(delivered.first_seq, delivered.time_ms, producer, batch);
        }
        let attempts = package.attempts.into_iter();
        let attempts: Vec<Attempts> =
            attempts.map(|(seq, attempts)| Attempts { seq, attempts }).collect();
        section.end(&attempts);
    }
    if writer.frame_bytes() > config.frame_bytes_max + 4 {
        let failure = Failure::new(Code::FrameTooLarge, "the messages do not fit a frame");
        return failed(request_id, failure.blaming("frame", config.frame_bytes_max as u64));
    }
    writer.finish(request_id)
}

fn failed(request_id: u64, failure: Failure) -> Vec<Bytes> {
    let mut out = BytesMut::new();
    Response::Failure(failure).encode_frame(request_id, &mut out);
    vec![out.freeze()]
}

fn response_to_ack(answer: Result<Verdicts, CommandError>) -> Response {
    let results = match answer {
        Ok(results) => results,
        Err(error) => {
            return Response::Failure(failure::plain(codes::of_command_error(&error), &error));
        }
    };
    let items = results.iter().map(|result| match result {
        Ok(acked) => AckedItem {
            code: 0,
            acked: acked.settled,
            dead_lettered: acked.buried,
            lease_released: acked.released,
        },
        Err(refusal) => AckedItem {
            code: codes::of_ack_refusal(refusal).number(),
            acked: 0,
            dead_lettered: 0,
            lease_released: false,
        },
    });
    Response::Acked(Acked { items: items.collect() })
}

#[cfg(test)]
mod tests {
    use onrush_protocol::batch::{BatchBuilder, NewRecord};

    use super::*;
    use crate::delivery::parcel::{Delivered, Package};
    use crate::shard::command::Held;

    const MESSAGE_BYTES: usize = 1000;

    fn config() -> Config {
        let second = std::time::Duration::from_secs(1);
        Config {
            frame_bytes_max: 16 << 20,
            in_flight_max: 100,
            connections_max: 1,
            hello_timeout: second,
            frame_timeout: second,
            push_timeout: second,
            pop_bytes_max: 4 << 20,
            messages_max: 10_000,
            start_new: false,
            tls: None,
            store: "",
            durability: "",
        }
    }

    /// A claim; one whose lease ends at 0 is far.
    fn popped(until_ms: u64) -> Popped {
        Popped {
            queue: "q".parse().unwrap(),
            token: [1; 16],
            empty: None,
            until_ms,
            to_settle: None,
            parcels: Vec::new(),
            held: Held::default(),
        }
    }

    fn unpack(popped: Popped) -> Result<Result<Handout, PopError>, Popped> {
        if popped.until_ms == 0 {
            return Err(popped);
        }
        let mut builder = BatchBuilder::new();
        let record = NewRecord { payload: &[7; MESSAGE_BYTES], ..NewRecord::default() };
        builder.push(&record).unwrap();
        let batch = builder.finish().unwrap();
        let delivered = Delivered { first_seq: 0, time_ms: 0, sub: None, batch };
        let package = Package {
            partition: 0,
            name: "p".parse().unwrap(),
            attempts: Vec::new(),
            batches: vec![delivered],
        };
        let Popped { queue, token, empty, until_ms, .. } = popped;
        Ok(Ok(Handout { queue, token, until_ms, empty, packages: vec![package] }))
    }

    #[test]
    fn messages_are_unpacked_only_as_far_as_there_is_room_for_them() {
        let mut consumption = Consumption::new(&Arc::default());
        let claims = [5, 5, 0, 5, 5, 5];
        for (id, until_ms) in (0..).zip(claims) {
            consumption.asked += 1;
            consumption.popped.put((id, Ok(popped(until_ms)))).unwrap();
        }
        let (mut frames, mut far) = (0, Vec::new());
        for (room, so_far) in [(0, 0), (2 * MESSAGE_BYTES, 2), (1, 3), (1, 4), (1, 5)] {
            let mut answers = BytesMut::new();
            let (parts, none) = (Vec::new(), VecDeque::new());
            let mut out = Outgoing { answers: &mut answers, parts, far: none, room };
            consumption.collect(unpack, &config(), &mut out);
            frames += out.parts.iter().map(Bytes::len).sum::<usize>() / MESSAGE_BYTES;
            far.extend(out.far.iter().map(|it| it.request_id));
            assert_eq!((frames, consumption.is_held_up()), (so_far, so_far < 5));
        }
        assert_eq!((far, consumption.len()), (vec![2], 0), "what is far needs no room yet");
    }
}
