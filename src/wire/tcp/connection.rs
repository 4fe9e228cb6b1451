//! One connection: frames in, answers out, in one task.
//!
//! Pushes go straight into the rings while the buffer is parsed, pops and acks to the commit loop;
//! their answers come back by post. Other requests run as tasks of their own and leave their answers
//! in the outbox. One bell rings for all of it. The task stops reading when too much is unanswered or
//! unread, which is how back-pressure reaches the producer's socket. Dropping it aborts what it began: a
//! parked pop leases nothing.

use std::collections::VecDeque;
use std::future::Future;
use std::io::ErrorKind;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use onrush_protocol::code::Code;
use onrush_protocol::frame::{self, Frame};
use onrush_protocol::opcode::Opcode;
use onrush_protocol::qos::Qos;
use onrush_protocol::request::{Pop, Push, PushSection, Request};
use onrush_protocol::response::{Failure, Response, SectionReceipt};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

use crate::base::post::Mailbox;
use crate::buffer::receipt::{Delivery, Signer};
use crate::ingest::{PushError, PushTerms};
use crate::state::effect::ProducerSub;
use crate::wire::Rooms;
use crate::wire::auth::{Caller, Denied};
use crate::wire::tcp::blocks::Input;
use crate::wire::tcp::consumption::{Consumption, Far, Outgoing, response_to_pop};
use crate::wire::tcp::dispatch::{Around, dispatch};
use crate::wire::tcp::greeting::{self, Greeting};
use crate::wire::tcp::outbox::Outbox;
use crate::wire::tcp::output::Output;
use crate::wire::tcp::pushes::{Answered, Pushes, Room};
use crate::wire::tcp::stream::Stream;
use crate::wire::tcp::{Config, discover, failure, levels};

/// Largest frame of somebody who has not said hello; a hello needs less.
const HELLO_FRAME_BYTES_MAX: usize = 8 * 1024;
/// A connection without traffic for so long gives its memory back.
const QUIET: Duration = Duration::from_secs(1);
/// Bytes read ahead of what may be carried out now: by reading, a hang-up is noticed.
const AHEAD_BYTES: usize = 16 * 1024;
/// Bytes waiting to be written at which reading stops, and bringing messages into memory.
const UNREAD_BYTES_MAX: usize = 8 << 20;
/// Pops whose messages are brought from a disk at a time.
const FAR_MAX: usize = 8;

/// A push that waits for its queue or for room; nothing behind it is read meanwhile.
type Stalled = Pin<Box<dyn Future<Output = (u64, u32, Qos, Result<u32, PushError>)> + Send>>;

/// A section of a push on its way into its ring.
struct Section {
    request: u64,
    at: u32,
    terms: PushTerms,
    /// Until when the push may wait for room, in the clock's microseconds.
    deadline_us: u64,
    section: PushSection,
}

/// How a connection goes on.
enum Step {
    Continue,
    /// The stream is out of step or was refused: write what waits, then close.
    Close,
}

/// One connection.
pub(super) struct Connection {
    stream: Stream,
    rooms: Arc<Rooms>,
    config: Arc<Config>,
    /// Says when the server stops.
    stop: watch::Receiver<bool>,
    input: Input,
    output: Output,
    answers: BytesMut,
    /// Rings when there is an answer, wherever.
    bell: Arc<Notify>,
    mailbox: Arc<Mailbox<Delivery>>,
    deliveries: Vec<Delivery>,
    consumption: Consumption,
    /// Claimed messages that are to be brought from a disk, and the tasks that do so.
    far: VecDeque<Far>,
    far_tasks: JoinSet<()>,
    outbox: Arc<Outbox>,
    pushes: Pushes,
    tasks: JoinSet<()>,
    stalled: Option<Stalled>,
    rest: VecDeque<Section>,
    /// Who the other side is, being found out.
    greeting: Option<Greeting>,
    /// Who the other side is, once it has said hello.
    caller: Option<Caller>,
    /// It is nobody who may come in.
    is_refused: bool,
    /// Since when an incomplete frame waits for its rest, or the hello is missing.
    waiting_since_us: Option<u64>,
    /// Nothing was read for a while although there may be something: no time counts meanwhile.
    is_paused: bool,
    /// There may be whole frames in the input that were not taken for want of room.
    is_held_up: bool,
    now_us: u64,
}

impl Connection {
    pub(super) fn new(
        stream: Stream,
        rooms: Arc<Rooms>,
        config: Arc<Config>,
        stop: watch::Receiver<bool>,
    ) -> Self {
        let now_us = rooms.clock.monotonic_us();
        let bell = Arc::new(Notify::new());
        Self {
            stream,
            rooms,
            config,
            stop,
            input: Input::default(),
            output: Output::new(),
            answers: BytesMut::new(),
            mailbox: Arc::new(Mailbox::new(Arc::clone(&bell))),
            deliveries: Vec::new(),
            consumption: Consumption::new(&bell),
            far: VecDeque::new(),
            far_tasks: JoinSet::new(),
            outbox: Arc::new(Outbox::new(Arc::clone(&bell))),
            bell,
            pushes: Pushes::default(),
            tasks: JoinSet::new(),
            stalled: None,
            rest: VecDeque::new(),
            greeting: None,
            caller: None,
            is_refused: false,
            waiting_since_us: Some(now_us),
            is_paused: false,
            is_held_up: false,
            now_us,
        }
    }

    /// Serves the connection until the client is gone, the stream cannot be trusted, or the server
    /// stops and everything under way is answered.
    pub(super) async fn run(mut self) {
        let stop = self.stop.clone();
        self.serve(stop).await;
        self.stream.close();
        // When this returns nobody waits for messages on its behalf: none would be read by anybody.
        self.tasks.shutdown().await;
        self.far_tasks.shutdown().await;
    }

    async fn serve(&mut self, mut stop: watch::Receiver<bool>) {
        let mut closing = false;
        loop {
            self.now_us = self.rooms.clock.monotonic_us();
            if !closing && (self.is_refused || matches!(self.parse(), Step::Close)) {
                closing = true;
                // Whoever does not take the reason in time is let go without it.
                self.waiting_since_us = Some(self.now_us);
            }
            self.collect();
            if self.output.write(&mut self.stream).is_err() {
                return;
            }
            let is_written = self.output.is_written();
            if closing && is_written || *stop.borrow() && is_written && self.in_flight() == 0 {
                return;
            }
            if self.has_room_for_messages() || self.is_held_up && !closing && self.may_read() {
                continue;
            }
            if self.wait(&mut stop, closing).await.is_err() {
                return;
            }
        }
    }

    fn in_flight(&self) -> usize {
        let stalled = usize::from(self.stalled.is_some() || self.greeting.is_some());
        let far = self.far.len() + self.far_tasks.len();
        self.pushes.len() + self.consumption.len() + far + self.tasks.len() + stalled
    }

    /// Whether messages that waited for room may be brought into memory now.
    fn has_room_for_messages(&self) -> bool {
        let may_fetch = !self.far.is_empty() && self.far_tasks.len() < FAR_MAX;
        self.output.bytes() < UNREAD_BYTES_MAX && (self.consumption.is_held_up() || may_fetch)
    }

    fn may_read(&self) -> bool {
        self.stalled.is_none()
            && self.greeting.is_none()
            && self.in_flight() < self.config.in_flight_max as usize
            && self.output.bytes() < UNREAD_BYTES_MAX
            && !self.consumption.is_held_up()
    }

    /// Waits for something to do, and reads if there is something to read.
    async fn wait(&mut self, stop: &mut watch::Receiver<bool>, closing: bool) -> Result<(), ()> {
        let is_open = !closing && !*stop.borrow();
        let may_parse = is_open && self.may_read();
        let may_read =
            may_parse || is_open && self.caller.is_some() && self.input.bytes.len() < AHEAD_BYTES;
        let holds_memory = self.holds_memory();
        let has_output = !self.output.is_empty();
        let deadline = self.deadline(may_parse || closing);
        let ready = self.stream.ready(may_read, has_output);
        let stalled = async {
            match &mut self.stalled {
                Some(stalled) => stalled.await,
                None => std::future::pending().await,
            }
        };
        let greeting = async {
            match &mut self.greeting {
                Some(greeting) => greeting.await,
                None => std::future::pending().await,
            }
        };
        let next_expiry = self.pushes.next_expiry_us();
        let next_expiry =
            next_expiry.map(|at_us| Duration::from_micros(at_us - self.now_us.min(at_us)));
        tokio::select! {
            biased;
            ready = ready => {
                if ready.map_err(|_| ())? {
                    self.read()?;
                }
            }
            () = self.bell.notified() => {}
            done = stalled => {
                self.stalled = None;
                self.settle_stalled(done);
            }
            known = greeting => self.greet(known),
            Some(_) = self.tasks.join_next(), if !self.tasks.is_empty() => {}
            Some(_) = self.far_tasks.join_next(), if !self.far_tasks.is_empty() => {}
            () = sleep(deadline) => self.late()?,
            () = tokio::time::sleep(QUIET), if holds_memory => self.input.let_go(),
            () = sleep(next_expiry) => {}
            _ = stop.changed() => {}
        }
        Ok(())
    }

    fn holds_memory(&self) -> bool {
        self.in_flight() == 0 && self.input.is_large()
    }

    /// How long the client may still take for what it owes: its hello, the rest of a frame. While
    /// nothing is read it owes nothing, as the rest may have come.
    fn deadline(&mut self, is_its_turn: bool) -> Option<Duration> {
        let mut since_us = self.waiting_since_us?;
        if !is_its_turn {
            self.is_paused = true;
            return None;
        }
        if std::mem::take(&mut self.is_paused) {
            since_us = self.now_us;
            self.waiting_since_us = Some(since_us);
        }
        let Config { frame_timeout, hello_timeout, .. } = &*self.config;
        let most = if self.caller.is_some() { *frame_timeout } else { *hello_timeout };
        Some(most.saturating_sub(Duration::from_micros(self.now_us.saturating_sub(since_us))))
    }

    /// The hello or the rest of a frame did not come in time.
    fn late(&mut self) -> Result<(), ()> {
        tracing::debug!(
            greeted = self.caller.is_some(),
            "a client was too slow to finish what it began"
        );
        Err(())
    }

    fn read(&mut self) -> Result<(), ()> {
        self.input.make_room(self.caller.is_some());
        match self.stream.try_read(&mut self.input.bytes) {
            Ok(0) => Err(()),
            Ok(_) => Ok(()),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(()),
            Err(_) => Err(()),
        }
    }

    /// Takes whole frames off the input while there is room for what they ask.
    fn parse(&mut self) -> Step {
        self.is_held_up = false;
        while self.may_read() {
            let bytes_max = match self.caller {
                Some(_) => self.config.frame_bytes_max,
                None => self.config.frame_bytes_max.min(HELLO_FRAME_BYTES_MAX),
            };
            match frame::decode(&mut self.input.bytes, bytes_max) {
                Ok(Some(frame)) => {
                    if self.caller.is_some() {
                        self.waiting_since_us = None;
                    }
                    if matches!(self.accept(frame), Step::Close) {
                        return Step::Close;
                    }
                }
                Ok(None) => {
                    if self.input.bytes.is_empty() && self.caller.is_some() {
                        self.waiting_since_us = None;
                    } else if self.waiting_since_us.is_none() {
                        self.waiting_since_us = Some(self.now_us);
                    }
                    self.input.make_room_for_frame(self.caller.is_some());
                    return Step::Continue;
                }
                Err(error) => {
                    self.fail(0, failure::frame(&error));
                    return Step::Close;
                }
            }
        }
        self.is_held_up = true;
        Step::Continue
    }

    fn accept(&mut self, frame: Frame) -> Step {
        let Frame { opcode, request_id, body, .. } = frame;
        if let Some(caller) = &mut self.caller
            && let Err(denied) = levels::check(&self.rooms.auth, caller, opcode)
        {
            self.fail(request_id, failure::plain(denied.code(), &denied));
            return Step::Continue;
        }
        if opcode == Opcode::Push.number() && self.caller.is_some() {
            match Push::decode(body) {
                Ok(push) => self.push(request_id, &push),
                Err(error) => self.fail(request_id, failure::decode(&error)),
            }
            return Step::Continue;
        }
        let request = match Request::decode(opcode, body) {
            Ok(request) => request,
            Err(error) => {
                self.fail(request_id, failure::decode(&error));
                return if self.caller.is_some() { Step::Continue } else { Step::Close };
            }
        };
        match request {
            Request::Hello(hello) if self.caller.is_none() => {
                match greeting::hear(&self.rooms.auth, request_id, hello) {
                    Ok(greeting) => self.greeting = Some(greeting),
                    Err(failure) => {
                        self.fail(request_id, failure);
                        return Step::Close;
                    }
                }
                Step::Continue
            }
            _ if self.caller.is_none() => {
                let failure =
                    Failure::new(Code::HelloRequired, "the first request must be a hello");
                self.fail(request_id, failure);
                Step::Close
            }
            Request::Pop(pop) => self.pop(request_id, pop, false),
            Request::PopKnown(known) => self.pop(request_id, known.pop, true),
            Request::PopAny(asked) => {
                let order = discover::order(&self.config, asked, self.left_ms());
                let (around, post) = (self.around(), self.consumption.any());
                let outbox = Arc::clone(&self.outbox);
                self.tasks.spawn(async move {
                    outbox.put(discover::pop(around, request_id, order, &post).await);
                });
                Step::Continue
            }
            Request::Ack(ack) => {
                self.consumption.ack(&self.rooms.delivery, request_id, ack);
                Step::Continue
            }
            request => {
                let (around, outbox) = (self.around(), Arc::clone(&self.outbox));
                self.tasks.spawn(async move {
                    outbox.put([dispatch(around, request_id, request).await]);
                });
                Step::Continue
            }
        }
    }

    /// What a request is carried out with that has a task of its own.
    fn around(&self) -> Around {
        let (rooms, config) = (Arc::clone(&self.rooms), Arc::clone(&self.config));
        Around { rooms, config, sub: self.sub(), stop: self.stop.clone() }
    }

    fn sub(&self) -> Option<ProducerSub> {
        self.caller.as_ref().and_then(|caller| caller.sub.clone())
    }

    fn left_ms(&self) -> u64 {
        self.caller.as_ref().map_or(0, |caller| self.rooms.auth.left_ms(caller))
    }

    fn pop(&mut self, request_id: u64, pop: Pop, is_known: bool) -> Step {
        let left_ms = self.left_ms();
        let (delivery, config) = (&self.rooms.delivery, &self.config);
        self.consumption.pop(delivery, config, request_id, (pop, is_known), left_ms);
        Step::Continue
    }

    /// Says welcome to somebody known. Whoever is not is told so, and the connection ends.
    fn greet(&mut self, known: greeting::Known) {
        self.greeting = None;
        match known.who {
            Ok(caller) => {
                let welcome = greeting::welcome(&self.rooms, &self.config, known.version);
                (self.caller, self.waiting_since_us) = (Some(caller), None);
                Response::Welcome(welcome).encode_frame(known.request_id, &mut self.answers);
            }
            Err(denied) => {
                let failure = failure::plain(denied.code(), &denied);
                self.fail(known.request_id, failure.blaming("token", 0));
                self.is_refused = true;
            }
        }
    }

    fn push(&mut self, request_id: u64, push: &Push) {
        let timeout_us = match push.terms.timeout_ms {
            0 => self.config.push_timeout.as_micros() as u64,
            ms => u64::from(ms) * 1000,
        };
        let deadline_us = self.now_us.saturating_add(timeout_us);
        let request = self.pushes.open(request_id, push.sections.count(), self.now_us, deadline_us);
        let terms = PushTerms {
            qos: push.terms.qos,
            buffer_ms: push.terms.buffer_ms,
            buffer_max: push.terms.buffer_max,
            sub: self.sub(),
        };
        let mut room = Room::of(&self.config);
        for (at, section) in (0..).zip(push.sections.iter()) {
            match section {
                Ok(section) => match room.take(&section.batch) {
                    Ok(()) => {
                        let terms = terms.clone();
                        let section = Section { request, at, terms, deadline_us, section };
                        self.push_section(section);
                    }
                    Err(error) => self.pushed(request, at, terms.qos, Err(error.into())),
                },
                Err(error) => {
                    let failed = SectionReceipt::Failed(failure::name(&error));
                    self.fill(request, at, failed);
                }
            }
        }
    }

    fn push_section(&mut self, section: Section) {
        if self.stalled.is_some() {
            return self.rest.push_back(section);
        }
        let Section { request, at, terms, deadline_us, section } = section;
        let PushSection { queue, partition, batch } = section;
        let signer = terms.qos.is_durable().then(|| Signer {
            mailbox: Arc::clone(&self.mailbox),
            request,
            section: at,
        });
        let qos = terms.qos;
        match self.rooms.ingest.try_push(&queue, partition, batch, terms, signer) {
            Ok(Ok(count)) => self.pushed(request, at, qos, Ok(count)),
            Ok(Err(later)) => {
                let ingest = self.rooms.ingest.clone();
                self.stalled = Some(Box::pin(async move {
                    (request, at, qos, ingest.push_later(&queue, later, deadline_us).await)
                }));
            }
            Err(error) => self.pushed(request, at, qos, Err(error)),
        }
    }

    fn settle_stalled(&mut self, done: (u64, u32, Qos, Result<u32, PushError>)) {
        let (request, at, qos, result) = done;
        self.pushed(request, at, qos, result);
        self.now_us = self.rooms.clock.monotonic_us();
        self.pushes.expire(self.now_us, &mut self.answers);
        while self.stalled.is_none() {
            let Some(section) = self.rest.pop_front() else { break };
            // What belongs to a push whose time ran out is not pushed any more.
            if self.pushes.is_open(section.request) {
                self.push_section(section);
            }
        }
    }

    /// A section is in its ring, or not: QoS 0 and refusals are answered now.
    fn pushed(&mut self, request: u64, at: u32, qos: Qos, result: Result<u32, PushError>) {
        match result {
            Ok(count) if !qos.is_durable() => {
                self.fill(request, at, SectionReceipt::Buffered { count });
            }
            Ok(_) => {}
            Err(error) => {
                self.rooms.telemetry.push_failed.add(1);
                self.fill(request, at, SectionReceipt::Failed(failure::push(&error, qos)));
            }
        }
    }

    fn fill(&mut self, request: u64, at: u32, receipt: SectionReceipt) {
        let answered = self.pushes.fill(request, at, receipt, &mut self.answers);
        self.note(answered);
    }

    fn note(&self, answered: Option<Answered>) {
        if let Some(answered) = answered {
            let took_us = self.now_us.saturating_sub(answered.started_us);
            self.rooms.telemetry.push_latency.record(took_us, 1);
        }
    }

    fn fail(&mut self, request_id: u64, failure: Failure) {
        Response::Failure(failure).encode_frame(request_id, &mut self.answers);
    }

    /// Gathers answers from everywhere.
    fn collect(&mut self) {
        let mut deliveries = std::mem::take(&mut self.deliveries);
        self.mailbox.take(&mut deliveries);
        for delivery in deliveries.drain(..) {
            let answered = self.pushes.deliver(delivery, &mut self.answers);
            self.note(answered);
        }
        self.deliveries = deliveries;
        self.pushes.expire(self.now_us, &mut self.answers);
        self.output.take(|parts| self.outbox.take(parts));
        let messages = self.collect_consumed();
        while self.tasks.try_join_next().is_some() {}
        while self.far_tasks.try_join_next().is_some() {}
        self.output.push(self.answers.split().freeze());
        messages.into_iter().for_each(|part| self.output.push(part));
    }

    fn collect_consumed(&mut self) -> Vec<Bytes> {
        // A pop may have waited for longer than its caller may.
        let auth = &self.rooms.auth;
        if self.caller.as_mut().is_some_and(|caller| !auth.is_current(caller)) {
            self.consumption.refuse(Denied::Expired, &mut self.answers);
        }
        let room = UNREAD_BYTES_MAX.saturating_sub(self.output.bytes());
        let (parts, far) = (Vec::new(), std::mem::take(&mut self.far));
        let mut out = Outgoing { answers: &mut self.answers, parts, far, room };
        let delivery = &self.rooms.delivery;
        self.consumption.collect(|popped| delivery.unpack_near(popped), &self.config, &mut out);
        let Outgoing { parts, far, room, .. } = out;
        self.far = far;
        while room > 0
            && self.far_tasks.len() < FAR_MAX
            && let Some(Far { request_id, kind, popped }) = self.far.pop_front()
        {
            let (rooms, config) = (Arc::clone(&self.rooms), Arc::clone(&self.config));
            let outbox = Arc::clone(&self.outbox);
            self.far_tasks.spawn(async move {
                let handout = rooms.delivery.unpack(popped).await;
                outbox.put(response_to_pop((request_id, kind), handout, &config));
            });
        }
        parts
    }
}

async fn sleep(time: Option<Duration>) {
    match time {
        Some(time) => tokio::time::sleep(time).await,
        None => std::future::pending().await,
    }
}
