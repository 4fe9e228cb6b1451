//! Bad input over the binary protocol: every refusal is typed, nothing half done stays behind, and a
//! well-behaved neighbour on another connection never notices.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test may fail where it stands, and tells its figures"
)]

#[path = "support/look.rs"]
mod look;
#[path = "support/server.rs"]
mod server;

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use onrush_client::{Client, Code, LeaseToken, Message, NO_LEASE, QueueOptions};
use onrush_protocol::frame;
use onrush_protocol::request::{
    Ack, AckItem, AckOutcome, BeginJob, ChangeMessage, Configure, DeleteQueue, Extend, Hello,
    JobAction, ListMessages, MessageChange, MessageKey, Ping, Pop, Push, PushSection, PushSections,
    PushTerms, Stats, SubscriptionStart, Token, Transaction,
};
use onrush_protocol::response::{Failure, MessageStanding, Messages, Receipts, SectionReceipt};
use onrush_protocol::{
    BatchBuilder, LongText, NewRecord, Opcode, Qos, Request, Response, ShortText,
};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use server::TestServer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

/// How long anything may take that is expected to happen; never how long it does take.
const PATIENCE: Duration = Duration::from_secs(20);

/// A peer that speaks bytes and holds back nothing.
struct Raw {
    stream: TcpStream,
    input: BytesMut,
    next_id: u64,
}

impl Raw {
    async fn dial(server: &TestServer) -> Self {
        let stream = TcpStream::connect(server.tcp_addr()).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, input: BytesMut::new(), next_id: 1 }
    }

    async fn greeted(server: &TestServer) -> Self {
        let mut raw = Self::dial(server).await;
        let welcome = raw.ask(&hello(1, 1, b"")).await;
        assert!(matches!(welcome, Response::Welcome(_)), "{welcome:?}");
        raw
    }

    async fn send(&mut self, bytes: &[u8]) {
        timeout(PATIENCE, self.stream.write_all(bytes)).await.expect("the server reads").unwrap();
    }

    /// Sends a frame with any body; returns its id.
    async fn send_body(&mut self, opcode: u8, body: &[u8]) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        self.send(&framed(opcode, id, body)).await;
        id
    }

    async fn ask_body(&mut self, opcode: u8, body: &[u8]) -> Response {
        let id = self.send_body(opcode, body).await;
        let (answered, response) = self.answer().await;
        assert_eq!(answered, id, "{response:?}");
        response
    }

    async fn ask(&mut self, request: &Request) -> Response {
        self.ask_body(request.opcode().number(), &body(request)).await
    }

    async fn push(&mut self, qos: Qos, sections: &[PushSection]) -> Vec<SectionReceipt> {
        match self.ask(&push(qos, sections)).await {
            Response::Receipts(Receipts { sections, .. }) => sections,
            other => panic!("{other:?}"),
        }
    }

    async fn pop(&mut self, pop: Pop) -> Messages {
        match self.ask(&Request::Pop(pop)).await {
            Response::Messages(messages) => messages,
            other => panic!("{other:?}"),
        }
    }

    /// The next answer, if the server does not close first.
    async fn answer_or_end(&mut self) -> Option<(u64, Response)> {
        loop {
            let taken = frame::decode(&mut self.input, usize::MAX >> 8).unwrap();
            if let Some(frame) = taken {
                let response = Response::decode(frame.opcode, frame.body).unwrap();
                return Some((frame.request_id, response));
            }
            let read = timeout(PATIENCE, self.stream.read_buf(&mut self.input));
            match read.await.expect("an answer or an end") {
                // An end in the middle of an answer would be a lie.
                Ok(0) => {
                    assert!(self.input.is_empty(), "{:?}", self.input);
                    return None;
                }
                Ok(_) => {}
                Err(_) => return None,
            }
        }
    }

    async fn answer(&mut self) -> (u64, Response) {
        self.answer_or_end().await.expect("an answer, and the connection is closed")
    }

    async fn assert_closed(&mut self) {
        let more = self.answer_or_end().await;
        assert_eq!(more, None, "expected the connection to be closed");
    }

    async fn assert_goes_on(&mut self) {
        let pong = self.ask(&Request::Ping(Ping {})).await;
        assert!(matches!(pong, Response::Pong(_)), "{pong:?}");
    }
}

/// A client beside the hostile one that wants nothing but ordinary service.
struct Neighbour {
    client: Client,
    sent: u64,
}

impl Neighbour {
    async fn of(server: &TestServer) -> Self {
        Self { client: server.client().await, sent: 0 }
    }

    async fn goes_on(&mut self) {
        let queue = self.client.queue("neighbour");
        queue.push([Message::json(&self.sent)]).await.unwrap();
        let popped = queue.pop().batch(10).send().await.unwrap();
        assert_eq!(popped.len(), 1, "exactly what was pushed");
        assert_eq!(popped.messages[0].json::<u64>().unwrap(), self.sent);
        self.client.ack(&popped).await.unwrap();
        self.sent += 1;
    }

    async fn stat(&self, name: &str) -> u64 {
        look::stat(&self.client, name).await
    }

    /// Waits until a counter has a value that `is_right`.
    async fn await_stat(&self, name: &str, is_right: impl Fn(u64) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let value = self.stat(name).await;
            if is_right(value) {
                return;
            }
            assert!(Instant::now() < deadline, "{name} stays {value}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

fn framed(opcode: u8, id: u64, body: &[u8]) -> BytesMut {
    let mut out = BytesMut::new();
    frame::encode(opcode, id, &mut out, |out| out.put_slice(body));
    out
}

fn body(request: &Request) -> BytesMut {
    let mut out = BytesMut::new();
    request.encode(&mut out);
    out
}

fn hello(version_min: u16, version_max: u16, token: &'static [u8]) -> Request {
    let token = Token::parse(Bytes::from_static(token)).ok();
    Request::Hello(Hello { version_min, version_max, client: ShortText::lossy("hostile"), token })
}

fn push(qos: Qos, sections: &[PushSection]) -> Request {
    let terms = PushTerms { qos, ..PushTerms::default() };
    Request::Push(Push { terms, sections: PushSections::collect(sections).unwrap() })
}

fn section(queue: &str, partition: &str, batch: Bytes) -> PushSection {
    PushSection { queue: queue.parse().unwrap(), partition: partition.parse().unwrap(), batch }
}

fn batch(payloads: &[&[u8]]) -> Bytes {
    let mut builder = BatchBuilder::new();
    for payload in payloads {
        builder.push(&NewRecord { payload, ..NewRecord::default() }).unwrap();
    }
    builder.finish().unwrap().bytes().clone()
}

fn pop(queue: &str) -> Pop {
    Pop {
        queue: queue.parse().unwrap(),
        partition: None,
        group: "g".parse().unwrap(),
        messages_max: 10_000,
        bytes_max: 0,
        partitions_max: 1000,
        wait_ms: 0,
        lease_ms: 0,
        auto_ack: false,
        start: SubscriptionStart::Beginning,
    }
}

fn ack(group: &str, lease: LeaseToken, items: &[AckItem]) -> Request {
    Request::Ack(Ack { group: group.parse().unwrap(), lease, items: items.to_vec() })
}

fn ack_item(first_seq: u64, last_seq: u64) -> AckItem {
    let (outcome, error) = (AckOutcome::Completed, LongText::default());
    AckItem { partition: 0, first_seq, last_seq, outcome, error }
}

fn payloads(messages: &Messages) -> Vec<Bytes> {
    let limits = onrush_protocol::BatchLimits::default();
    let chunks = messages.sections.iter().flat_map(|section| &section.chunks);
    let batches = chunks.map(|chunk| {
        onrush_protocol::RecordBatch::parse(chunk.batch.clone(), &limits).expect("what was stored")
    });
    let owned = batches.flat_map(|batch| {
        let payloads = batch.records().map(|it| Bytes::copy_from_slice(it.payload));
        payloads.collect::<Vec<_>>()
    });
    owned.collect()
}

#[track_caller]
fn assert_failure(failure: &Failure, code: Code, field: &str, limit: u64) {
    let found = (failure.known(), failure.field.as_str(), failure.limit);
    assert_eq!(found, (Some(code), field, limit), "{failure:?}");
    assert!(!failure.message.as_str().is_empty(), "people are told something");
    let has_advice = failure.retry_after_ms > 0;
    assert_eq!(has_advice, code.is_retryable(), "advice where trying again helps: {failure:?}");
}

#[track_caller]
fn assert_refused(response: &Response, code: Code, field: &str, limit: u64) {
    match response {
        Response::Failure(failure) => assert_failure(failure, code, field, limit),
        other => panic!("{other:?} instead of {code:?}"),
    }
}

#[track_caller]
fn assert_section_refused(receipt: &SectionReceipt, code: Code, field: &str, limit: u64) {
    match receipt {
        SectionReceipt::Failed(failure) => assert_failure(failure, code, field, limit),
        other => panic!("{other:?} instead of {code:?}"),
    }
}

// Frames and the handshake.

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_opcode_is_refused_and_the_connection_goes_on() {
    let server = TestServer::start().await;
    let mut neighbour = Neighbour::of(&server).await;
    let mut raw = Raw::greeted(&server).await;
    // Answers are no requests either.
    let is_request = |number| Opcode::from_number(number).is_some_and(Opcode::is_request);
    for opcode in (0..=255).filter(|number| !is_request(*number)) {
        let refused = raw.ask_body(opcode, b"whatever").await;
        assert_refused(&refused, Code::UnknownOpcode, "opcode", 0);
    }
    raw.assert_goes_on().await;
    neighbour.goes_on().await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_done_for_a_connection_that_did_not_say_hello() {
    let server = TestServer::start().await;
    let mut neighbour = Neighbour::of(&server).await;
    for request in every_request().iter().filter(|it| it.opcode() != Opcode::Hello) {
        let mut raw = Raw::dial(&server).await;
        let refused = raw.ask(request).await;
        assert_refused(&refused, Code::HelloRequired, "", 0);
        raw.assert_closed().await;
    }
    let mut raw = Raw::dial(&server).await;
    assert_refused(&raw.ask_body(77, b"").await, Code::UnknownOpcode, "opcode", 0);
    raw.assert_closed().await;
    let mut raw = Raw::dial(&server).await;
    let cut = raw.ask_body(Opcode::Hello.number(), b"\x01\x00\x01").await;
    assert_refused(&cut, Code::MalformedRequest, "version_max", 0);
    raw.assert_closed().await;
    assert_eq!(neighbour.stat("queues").await, 0, "the push and the configure made nothing");
    neighbour.goes_on().await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_that_the_server_does_not_speak_are_refused_with_the_one_that_it_does() {
    let server = TestServer::start().await;
    let mut neighbour = Neighbour::of(&server).await;
    for (min, max) in [(0, 0), (2, 2), (2, u16::MAX), (u16::MAX, u16::MAX), (1, 0), (3, 1)] {
        let mut raw = Raw::dial(&server).await;
        let refused = raw.ask(&hello(min, max, b"")).await;
        assert_refused(&refused, Code::UnsupportedVersion, "version", 1);
        raw.assert_closed().await;
    }
    for (min, max) in [(0, 1), (1, 1), (1, 9), (0, u16::MAX)] {
        let mut raw = Raw::dial(&server).await;
        match raw.ask(&hello(min, max, b"")).await {
            Response::Welcome(welcome) => assert_eq!(welcome.version, 1),
            other => panic!("{other:?} for {min} to {max}"),
        }
        raw.assert_goes_on().await;
    }
    neighbour.goes_on().await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_hello_is_refused_and_changes_nothing() {
    let server = TestServer::start().await;
    let mut neighbour = Neighbour::of(&server).await;
    let mut raw = Raw::greeted(&server).await;
    for again in [hello(1, 1, b""), hello(7, 9, b""), hello(1, 1, b"secret")] {
        assert_refused(&raw.ask(&again).await, Code::HelloRequired, "", 0);
    }
    raw.assert_goes_on().await;
    neighbour.goes_on().await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_right_token_enters() {
    let server = TestServer::start_with(|settings| {
        settings.server.token = onrush::config::Secret::new("secret");
    });
    let server = server.await;
    for wrong in [&b""[..], b"s", b"secre", b"Secret", b"secrets", b"secretsecret", b"\xff\x00"] {
        let mut raw = Raw::dial(&server).await;
        let refused = raw.ask(&hello(1, 1, wrong)).await;
        assert_refused(&refused, Code::Unauthenticated, "token", 0);
        raw.assert_closed().await;
    }
    let mut too_long = body(&hello(1, 1, b""));
    too_long.truncate(too_long.len() - 2);
    too_long.put_u16_le(4097);
    too_long.put_slice(&[b's'; 4097]);
    let mut raw = Raw::dial(&server).await;
    let refused = raw.ask_body(Opcode::Hello.number(), &too_long).await;
    assert_refused(&refused, Code::BadName, "token", 4096);
    raw.assert_closed().await;
    let mut raw = Raw::dial(&server).await;
    assert!(matches!(raw.ask(&hello(1, 1, b"secret")).await, Response::Welcome(_)));
    raw.assert_goes_on().await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frame_of_an_impossible_length_is_refused_when_its_four_bytes_are_there() {
    let server = TestServer::start().await;
    let mut neighbour = Neighbour::of(&server).await;
    // Whoever has not said hello gets no memory for more than that.
    for (is_greeted, max) in [(true, 16 << 20), (false, 8 << 10)] {
        let cases = [
            (max + 1, Code::FrameTooLarge, u64::from(max)),
            (u32::MAX, Code::FrameTooLarge, u64::from(max)),
            (u32::from_le_bytes(*b"GET "), Code::FrameTooLarge, u64::from(max)),
            (11, Code::BadFrame, 12),
            (0, Code::BadFrame, 12),
        ];
        for (length, code, limit) in cases {
            let mut raw = match is_greeted {
                true => Raw::greeted(&server).await,
                false => Raw::dial(&server).await,
            };
            // Not one byte more: whoever waited for the rest would wait for ever.
            raw.send(&length.to_le_bytes()).await;
            let (id, refused) = raw.answer().await;
            assert_eq!(id, 0, "nobody knows which request it was");
            assert_refused(&refused, code, "length", limit);
            raw.assert_closed().await;
        }
    }
    neighbour.goes_on().await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reserved_bits_of_a_frame_end_the_connection_when_its_header_is_there() {
    let server = TestServer::start().await;
    let mut neighbour = Neighbour::of(&server).await;
    for (at, bit, field) in
        [(5, 1, "flags"), (5, 0x80, "flags"), (6, 1, "reserved"), (7, 0x80, "reserved")]
    {
        let mut raw = Raw::greeted(&server).await;
        // The header of a megabyte that never comes.
        let mut header = frame::header(Opcode::Ping.number(), 1, 1 << 20);
        header[at] |= bit;
        raw.send(&header).await;
        let (id, refused) = raw.answer().await;
        assert_eq!(id, 0);
        assert_refused(&refused, Code::BadFrame, field, 0);
        raw.assert_closed().await;
    }
    neighbour.goes_on().await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_stops_in_the_middle_of_a_frame_is_let_go_and_whoever_rests_between_is_not() {
    let server = TestServer::start_with(|settings| {
        settings.wire.frame_timeout_ms = 500;
        settings.wire.hello_timeout_ms = 500;
    });
    let server = server.await;
    let mut neighbour = Neighbour::of(&server).await;
    let mut resting = Raw::greeted(&server).await;
    let ping = framed(Opcode::Ping.number(), 9, b"");
    let greeting = framed(Opcode::Hello.number(), 1, &body(&hello(1, 1, b"")));
    let mut silent = Raw::dial(&server).await;
    let mut half_hello = Raw::dial(&server).await;
    half_hello.send(&greeting[..20]).await;
    let mut halves = Vec::new();
    for cut in [1, 4, 10, 15] {
        let mut raw = Raw::greeted(&server).await;
        // A whole request first: it is answered, and does not count as the end of the next one.
        raw.send(&ping).await;
        assert_eq!(raw.answer().await.0, 9);
        raw.send(&ping[..cut]).await;
        halves.push(raw);
    }
    silent.assert_closed().await;
    half_hello.assert_closed().await;
    for mut raw in halves {
        raw.assert_closed().await;
    }
    resting.assert_goes_on().await;
    neighbour.goes_on().await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_come_byte_by_byte_are_served_like_all_others() {
    let server = TestServer::start().await;
    let mut neighbour = Neighbour::of(&server).await;
    let mut raw = Raw::dial(&server).await;
    let requests = [
        hello(1, 1, b""),
        push(Qos::AtLeastOnce, &[section("slow", "p", batch(&[b"one", b"two"]))]),
        Request::Pop(pop("slow")),
        Request::Ping(Ping {}),
    ];
    let mut answers = Vec::new();
    for (id, request) in (1..).zip(&requests) {
        for byte in framed(request.opcode().number(), id, &body(request)) {
            raw.send(&[byte]).await;
        }
        let (answered, response) = raw.answer().await;
        assert_eq!(answered, id);
        answers.push(response);
    }
    assert!(matches!(answers[0], Response::Welcome(_)));
    assert!(matches!(&answers[1], Response::Receipts(it)
        if matches!(it.sections[..], [SectionReceipt::Pushed { count: 2, .. }])));
    assert!(matches!(&answers[2], Response::Messages(it) if payloads(it) == [&b"one"[..], b"two"]));
    assert!(matches!(answers[3], Response::Pong(_)));
    neighbour.goes_on().await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_is_answered_by_a_failure_or_by_silence_and_hurts_nobody() {
    let server = TestServer::start().await;
    let mut neighbour = Neighbour::of(&server).await;
    let mut random = StdRng::seed_from_u64(0x6f6e_7275_7368);
    for round in 0..60 {
        let mut raw = match round % 2 {
            0 => Raw::greeted(&server).await,
            _ => Raw::dial(&server).await,
        };
        let mut garbage = vec![0; random.random_range(1..2000)];
        random.fill(&mut garbage[..]);
        // The server may have closed already; what is asked of it is only that it lives.
        let _ = raw.stream.write_all(&garbage).await;
        let _ = raw.stream.shutdown().await;
        while let Some((_, response)) = raw.answer_or_end().await {
            assert!(matches!(response, Response::Failure(_)), "{response:?} for {garbage:?}");
        }
    }
    neighbour.goes_on().await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pop_gets_no_more_than_the_settings_allow_whatever_it_asks_for() {
    let server = TestServer::start_with(|settings| {
        (settings.delivery.messages_max, settings.delivery.pop_batch) = (3, 1);
        settings.delivery.pop_bytes_max = 64 << 10;
    });
    let server = server.await;
    let mut raw = Raw::greeted(&server).await;
    let small = batch(&[b"1", b"2", b"3", b"4", b"5"]);
    raw.push(Qos::AtLeastOnce, &[section("small", "p", small)]).await;
    assert_eq!(payloads(&raw.pop(pop("small")).await).len(), 3);
    for _ in 0..3 {
        let large = batch(&[&[7; 40 << 10]]);
        raw.push(Qos::AtLeastOnce, &[section("large", "p", large)]).await;
    }
    let greedy = Pop { bytes_max: 8 << 20, ..pop("large") };
    assert_eq!(payloads(&raw.pop(greedy).await).len(), 1, "two have 80 KiB");
    server.stop().await;
}

/// Names of so many queues.
fn queues(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("q{number}")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_of_many_sections_waits_for_room_once_and_what_is_too_late_is_not_pushed() {
    let server = TestServer::start_with(|settings| settings.buffer.append_timeout_ms = 1000);
    let server = server.await;
    let mut raw = Raw::greeted(&server).await;
    let names = queues(100);
    let all: Vec<PushSection> = names.iter().map(|it| section(it, "p", batch(&[b"x"]))).collect();
    for section in &all {
        raw.push(Qos::AtLeastOnce, std::slice::from_ref(section)).await;
    }
    let budget = server.rooms().engine.buffers().budget();
    let taken = server.rooms().ingest.reserve(budget.limit()).await.unwrap();
    // One wait for each of them would be a hundred seconds.
    let patience = Duration::from_secs(50);
    let refused = timeout(patience, raw.ask(&push(Qos::AtLeastOnce, &all))).await.unwrap();
    assert_refused(&refused, Code::TimedOut, "", 0);
    drop(taken);
    raw.assert_goes_on().await;
    for name in &names {
        assert_eq!(payloads(&raw.pop(pop(name)).await).len(), 1, "{name}: the first push's alone");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_time_of_a_push_runs_out_on_a_connection_that_never_rests() {
    let server = TestServer::start().await;
    let mut raw = Raw::greeted(&server).await;
    raw.push(Qos::AtLeastOnce, &[section("q", "p", batch(&[b"x"]))]).await;
    let (go, held) = std::sync::mpsc::channel::<()>();
    let engine = server.rooms().engine.clone();
    // Nothing is committed while this look lasts.
    let (begun, is_held) = tokio::sync::oneshot::channel();
    let looks = tokio::spawn(async move {
        engine
            .look(move |_| {
                begun.send(()).unwrap();
                held.recv().unwrap();
            })
            .await
    });
    is_held.await.unwrap();
    let terms = PushTerms { qos: Qos::AtLeastOnce, timeout_ms: 300, ..PushTerms::default() };
    let sections = PushSections::collect(&[section("q", "p", batch(&[b"late"]))]).unwrap();
    let late = Request::Push(Push { terms, sections });
    let late = raw.send_body(late.opcode().number(), &body(&late)).await;
    let deadline = Instant::now() + PATIENCE;
    loop {
        raw.send_body(Opcode::Ping.number(), b"").await;
        let (id, response) = raw.answer().await;
        if id == late {
            assert_refused(&response, Code::TimedOut, "", 0);
            break;
        }
        assert!(matches!(response, Response::Pong(_)), "{response:?}");
        assert!(Instant::now() < deadline, "it never ran out");
    }
    go.send(()).unwrap();
    looks.await.unwrap().unwrap();
    server.stop().await;
}

// Bodies.

fn every_request() -> Vec<Request> {
    let queue = || "q".parse().unwrap();
    vec![
        hello(1, 1, b"token"),
        Request::Ping(Ping {}),
        push(
            Qos::AtLeastOnce,
            &[section("q", "p", batch(&[b"x"])), section("r", "p", batch(&[b"y"]))],
        ),
        Request::Pop(Pop { start: SubscriptionStart::Time(5), ..pop("q") }),
        ack("g", [7; 16], &[ack_item(0, 0), ack_item(1, 5)]),
        Request::Extend(Extend { lease: [7; 16], extend_ms: 1000 }),
        Request::Configure(Configure {
            queue: queue(),
            namespace: ShortText::lossy("n"),
            task: ShortText::lossy("t"),
            options: QueueOptions::default(),
            sql_rows: false,
        }),
        Request::DeleteQueue(DeleteQueue { queue: queue() }),
        Request::Stats(Stats {}),
        Request::ListMessages(ListMessages {
            skip: 0,
            limit: 10,
            status: Some(MessageStanding::Pending),
            from_ms: 0,
            to_ms: 0,
            partition: Some("p".parse().unwrap()),
            queue: Some(queue()),
        }),
        Request::ChangeMessage(ChangeMessage {
            partition: 0,
            key: MessageKey::TransactionId(LongText::lossy("t")),
            change: MessageChange::Bury,
            group: Some("g".parse().unwrap()),
            error: LongText::lossy("why"),
        }),
        Request::BeginJob(BeginJob {
            action: JobAction::Requeue { queue: Some(queue()), partition: None },
            queue: queue(),
            group: Some("g".parse().unwrap()),
            partition: None,
            error: LongText::lossy("why"),
            limit: 1,
            rate: 1,
            dry_run: false,
        }),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn every_request_is_refused_where_its_body_is_cut_and_the_connection_goes_on() {
    let server = TestServer::start().await;
    let mut neighbour = Neighbour::of(&server).await;
    let mut raw = Raw::greeted(&server).await;
    for request in every_request() {
        let (opcode, whole) = (request.opcode().number(), body(&request));
        for cut in 0..whole.len() {
            let response = raw.ask_body(opcode, &whole[..cut]).await;
            let Response::Failure(failure) = &response else {
                panic!("{response:?} for {cut} of {} bytes of {request:?}", whole.len())
            };
            assert_eq!(failure.known(), Some(Code::MalformedRequest), "{failure:?}");
            assert!(!failure.field.as_str().is_empty(), "{failure:?} blames nobody");
        }
        let mut longer = whole.clone();
        longer.put_u8(0);
        let refused = raw.ask_body(opcode, &longer).await;
        assert_refused(&refused, Code::MalformedRequest, "body", 0);
    }
    raw.assert_goes_on().await;
    assert_eq!(neighbour.stat("queues").await, 0, "half a request made a queue");
    neighbour.goes_on().await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn random_bodies_get_exactly_one_answer_each() {
    let server = TestServer::start().await;
    let mut neighbour = Neighbour::of(&server).await;
    let mut raw = Raw::greeted(&server).await;
    let mut random = StdRng::seed_from_u64(2026);
    let requests = every_request();
    for _ in 0..1500 {
        let request = &requests[random.random_range(0..requests.len())];
        // A pop that waits would be right to keep us waiting.
        let mut bytes = body(request);
        for _ in 0..random.random_range(1..4) {
            if let Some(most) = bytes.len().checked_sub(1) {
                let at = random.random_range(0..=most);
                bytes[at] = random.random();
            }
        }
        let opcode = request.opcode().number();
        let is_parked = opcode == Opcode::Pop.number()
            && Pop::decode(bytes.clone().freeze()).is_ok_and(|pop| pop.wait_ms > 0);
        if !is_parked {
            raw.ask_body(opcode, &bytes).await;
        }
    }
    raw.assert_goes_on().await;
    neighbour.goes_on().await;
    server.stop().await;
}

/// `bytes` with the first `from` replaced by `to`, which is as long.
fn with(bytes: &[u8], from: &[u8], to: &[u8]) -> BytesMut {
    assert_eq!(from.len(), to.len());
    let at = bytes.windows(from.len()).position(|it| it == from).expect("it is there");
    let mut out = BytesMut::from(bytes);
    out[at..at + to.len()].copy_from_slice(to);
    out
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_may_not_be_are_refused_with_the_field_that_holds_them() {
    let server = TestServer::start().await;
    let mut neighbour = Neighbour::of(&server).await;
    let mut raw = Raw::greeted(&server).await;
    let marked_pop = body(&Request::Pop(Pop {
        partition: Some("PART".parse().unwrap()),
        group: "GRUP".parse().unwrap(),
        ..pop("QUEU")
    }));
    let marked_ack = body(&ack("GRUP", NO_LEASE, &[]));
    let options = QueueOptions::default();
    let marked_configure = body(&Request::Configure(Configure {
        queue: "QUEU".parse().unwrap(),
        namespace: ShortText::lossy("NAME"),
        task: ShortText::lossy("TASK"),
        options,
        sql_rows: false,
    }));
    let marked_delete = body(&Request::DeleteQueue(DeleteQueue { queue: "QUEU".parse().unwrap() }));
    let cases: [(Opcode, &BytesMut, &[u8], &str); 8] = [
        (Opcode::Pop, &marked_pop, b"QUEU", "queue"),
        (Opcode::Pop, &marked_pop, b"PART", "partition"),
        (Opcode::Pop, &marked_pop, b"GRUP", "group"),
        (Opcode::Ack, &marked_ack, b"GRUP", "group"),
        (Opcode::Configure, &marked_configure, b"QUEU", "queue"),
        (Opcode::Configure, &marked_configure, b"NAME", "namespace"),
        (Opcode::Configure, &marked_configure, b"TASK", "task"),
        (Opcode::DeleteQueue, &marked_delete, b"QUEU", "queue"),
    ];
    for (opcode, bytes, marked, field) in cases {
        for bad in [b"a\xffbc", b"\xc3\x28ab", b"ab\x00c", b"ab\nc", b"abc\x7f"] {
            let refused = raw.ask_body(opcode.number(), &with(bytes, marked, bad)).await;
            assert_refused(&refused, Code::BadName, field, 0);
        }
    }
    let no_group = with(&body(&Request::Pop(pop("q"))), b"\x01g", b"\x00g");
    let mut no_group = no_group;
    let at = no_group.iter().position(|byte| *byte == b'g').unwrap();
    let rest = no_group.split_off(at + 1);
    no_group.truncate(at);
    no_group.unsplit(rest);
    let refused = raw.ask_body(Opcode::Pop.number(), &no_group).await;
    assert_refused(&refused, Code::BadName, "group", 1);
    let mut long_error = body(&ack("g", NO_LEASE, &[ack_item(0, 0)]));
    long_error.truncate(long_error.len() - 2);
    long_error.put_u16_le(4097);
    long_error.put_slice(&[b'e'; 4097]);
    let refused = raw.ask_body(Opcode::Ack.number(), &long_error).await;
    assert_refused(&refused, Code::BadName, "error", 4096);
    raw.assert_goes_on().await;
    assert_eq!(neighbour.stat("queues").await, 0);
    neighbour.goes_on().await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn values_outside_their_limits_are_refused_with_the_limit() {
    let server = TestServer::start().await;
    let mut neighbour = Neighbour::of(&server).await;
    let mut raw = Raw::greeted(&server).await;
    let base = pop("q");
    let of = |pop: Pop| body(&Request::Pop(pop));
    let flag_at = body(&Request::Pop(base.clone())).len() - 2;
    let byte_at = |at: usize, value: u8| {
        let mut bytes = of(base.clone());
        bytes[at] = value;
        bytes
    };
    let pops = [
        (of(Pop { messages_max: 0, ..base.clone() }), "messages_max", 1),
        (of(Pop { messages_max: 10_001, ..base.clone() }), "messages_max", 10_000),
        (of(Pop { messages_max: u32::MAX, ..base.clone() }), "messages_max", 10_000),
        (of(Pop { partitions_max: 0, ..base.clone() }), "partitions_max", 1),
        (byte_at(flag_at, 2), "auto_ack", 1),
        (byte_at(flag_at + 1, 4), "start", 3),
    ];
    for (bytes, field, limit) in pops {
        let refused = raw.ask_body(Opcode::Pop.number(), &bytes).await;
        assert_refused(&refused, Code::BadValue, field, limit);
    }
    let mut pushed = body(&push(Qos::AtLeastOnce, &[section("q", "p", batch(&[b"x"]))]));
    pushed[0] = 3;
    let refused = raw.ask_body(Opcode::Push.number(), &pushed).await;
    assert_refused(&refused, Code::BadValue, "qos", 2);
    let refused = raw.ask_body(Opcode::Push.number(), &[[1].as_slice(), &[0; 14]].concat()).await;
    assert_refused(&refused, Code::BadValue, "sections", 1);
    let backwards = ack("g", NO_LEASE, &[ack_item(5, 4)]);
    assert_refused(&raw.ask(&backwards).await, Code::BadValue, "last_seq", 5);
    let mut outcome = body(&ack("g", NO_LEASE, &[ack_item(0, 0)]));
    let at = outcome.len() - 3;
    outcome[at] = 4;
    let refused = raw.ask_body(Opcode::Ack.number(), &outcome).await;
    assert_refused(&refused, Code::BadValue, "outcome", 3);
    let too_many = ack("g", NO_LEASE, &vec![ack_item(0, 0); 100_001]);
    assert_refused(&raw.ask(&too_many).await, Code::MalformedRequest, "items", 100_000);
    // A count of four billion in a body of a few bytes: refused before anything is allocated.
    let mut lie = body(&ack("g", NO_LEASE, &[]));
    let at = lie.len() - 4;
    lie[at..].copy_from_slice(&u32::MAX.to_le_bytes());
    let refused = raw.ask_body(Opcode::Ack.number(), &lie).await;
    assert_refused(&refused, Code::MalformedRequest, "items", 0);
    raw.assert_goes_on().await;
    neighbour.goes_on().await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn options_that_no_queue_can_have_are_refused_and_change_nothing() {
    let server = TestServer::start().await;
    let mut neighbour = Neighbour::of(&server).await;
    let mut raw = Raw::greeted(&server).await;
    let configure = |options: &[(u8, u64)]| {
        let mut bytes = BytesMut::from(&b"\x01q\x00\x00"[..]);
        bytes.put_u16_le(options.len() as u16);
        for (number, value) in options {
            bytes.put_u8(*number);
            bytes.put_u64_le(*value);
        }
        bytes
    };
    const CENTURY_S: u64 = 100 * 366 * 24 * 60 * 60;
    type Case<'a> = (&'a [(u8, u64)], Code, &'a str, u64);
    let cases: [Case<'_>; 6] = [
        (&[(1, u64::from(u32::MAX) + 1)], Code::BadOption, "lease_time_s", u64::from(u32::MAX)),
        (&[(13, 2)], Code::BadOption, "retention_enabled", 1),
        (&[(1, 60), (1, 61)], Code::BadOption, "option", 0),
        (&[(200, 1)], Code::BadOption, "option", 16),
        (&[(1, CENTURY_S + 1)], Code::BadOption, "leaseTime", CENTURY_S),
        (&[(14, 1)], Code::EncryptionKeyMissing, "encryptionEnabled", 0),
    ];
    for (options, code, field, limit) in cases {
        let refused = raw.ask_body(Opcode::Configure.number(), &configure(options)).await;
        assert_refused(&refused, code, field, limit);
    }
    assert_eq!(neighbour.stat("queues").await, 0);
    let made = raw.ask_body(Opcode::Configure.number(), &configure(&[(1, CENTURY_S)])).await;
    assert!(matches!(made, Response::Configured(_)), "{made:?}");
    neighbour.goes_on().await;
    server.stop().await;
}

// Batches.

/// A batch whose records are `records`, with a header that says so truthfully.
fn sealed(flags: u8, count: u32, records: &[u8]) -> Bytes {
    let mut out = BytesMut::new();
    out.put_slice(&[1, flags, 0, 0]);
    out.put_u32_le(count);
    out.put_u32_le(records.len() as u32);
    out.put_u32_le(crc32(records));
    out.put_slice(records);
    out.freeze()
}

/// CRC-32 of IEEE 802.3, bit by bit: the format's own word for it, not the server's crate.
fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _| if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 };
    !bytes.iter().fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), step))
}

fn changed(bytes: &Bytes, at: usize, value: u8) -> Bytes {
    let mut out = BytesMut::from(&bytes[..]);
    out[at] = value;
    out.freeze()
}

/// Batches that are none, with the refusal that each deserves.
fn bad_batches() -> Vec<(Bytes, Code, &'static str, u64)> {
    let good = batch(&[b"bad-a", b"bad-b"]);
    let (invalid, encoding) = (Code::BatchInvalid, Code::UnsupportedEncoding);
    let record = |flags: u8, rest: &[u8]| {
        let mut out = BytesMut::new();
        out.put_u32_le(1 + rest.len() as u32);
        out.put_u8(flags);
        out.put_slice(rest);
        out
    };
    let sealed_one = |flags: u8, record: BytesMut| sealed(flags, 1, &record);
    let large = vec![b'x'; (4 << 20) + 1];
    let huge = sealed(0, 9, &record(0, &vec![b'x'; 1 << 20]).repeat(9));
    vec![
        (Bytes::new(), invalid, "header", 0),
        (good.slice(..15), invalid, "header", 0),
        (good.slice(..16), invalid, "records_bytes", 0),
        (good.slice(..good.len() - 1), invalid, "records_bytes", 0),
        (Bytes::from([&good[..], b"x"].concat()), invalid, "records_bytes", 0),
        (changed(&good, 0, 2), encoding, "version", 0),
        (changed(&good, 0, 0), encoding, "version", 0),
        (changed(&good, 1, 0x10), invalid, "flags", 0),
        (changed(&good, 1, 0x80), invalid, "flags", 0),
        (changed(&good, 1, 1 << 1), encoding, "compression", 0),
        (changed(&good, 1, 2 << 1), encoding, "compression", 0),
        (changed(&good, 1, 3 << 1), encoding, "compression", 0),
        (changed(&good, 1, 1 << 3), encoding, "encryption", 0),
        (changed(&good, 2, 1), invalid, "reserved", 0),
        (changed(&good, 3, 0x80), invalid, "reserved", 0),
        (changed(&good, 4, 0), invalid, "record_count", 1_000_000),
        (changed(&good, 4, 1), invalid, "records_bytes", 0),
        (changed(&good, 4, 3), invalid, "length", 0),
        (changed(&good, 4, 200), invalid, "record_count", 0),
        (changed(&good, 7, 0x80), Code::TooManyRecords, "record_count", 1_000_000),
        (changed(&good, 8, 0), invalid, "records_bytes", 0),
        (changed(&good, 11, 0xff), invalid, "records_bytes", 0),
        (changed(&good, 12, good[12] ^ 1), Code::BadChecksum, "crc32", 0),
        (changed(&good, good.len() - 1, 0), Code::BadChecksum, "crc32", 0),
        (sealed(0, 1, &[0; 5]), invalid, "length", 0),
        (sealed(0, 1, &[0xff, 0xff, 0xff, 0xff, 0]), invalid, "length", 0),
        (sealed(0, 1, &[2, 0, 0, 0, 0]), invalid, "length", 0),
        (sealed_one(0, record(0x10, b"x")), invalid, "flags", 0),
        (sealed_one(1, record(1, b"\x02\xff\xfe")), invalid, "transaction_id", 0),
        (sealed_one(1, record(1, b"\x00")), invalid, "transaction_id", 0),
        (sealed_one(1, record(1, b"\x09short")), invalid, "transaction_id", 0),
        (sealed_one(0, record(2, b"fifteen bytes..")), invalid, "trace_id", 0),
        (sealed_one(0, record(4, b"\xff\xffx")), invalid, "headers", 0),
        (sealed_one(0, record(4, b"\x04\x00\x01\xff\x00\x00")), invalid, "header_key", 0),
        (sealed_one(0, record(4, b"\x04\x00\x01k\x09\x00")), invalid, "header_value", 0),
        (sealed_one(0, record(1, b"\x01t")), invalid, "has_transaction_ids", 0),
        (sealed_one(1, record(0, b"x")), invalid, "has_transaction_ids", 0),
        (sealed_one(0, record(0, &large)), Code::MessageTooLarge, "payload", 4 << 20),
        (huge, Code::BatchTooLarge, "batch", 8 << 20),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_section_fails_alone_and_nothing_of_it_is_stored() {
    let server = TestServer::start().await;
    let mut neighbour = Neighbour::of(&server).await;
    let mut raw = Raw::greeted(&server).await;
    let mut stored = 0;
    for qos in [Qos::Buffered, Qos::AtLeastOnce, Qos::ExactlyOnce] {
        for (at, (bad, code, field, limit)) in bad_batches().into_iter().enumerate() {
            let sections = [
                section("mixed", "p", batch(&[b"good"])),
                section("mixed", "p", bad),
                section("mixed", "other", batch(&[b"good"])),
            ];
            let receipts = raw.push(qos, &sections).await;
            assert_eq!(receipts.len(), 3);
            assert_section_refused(&receipts[1], code, field, limit);
            for good in [&receipts[0], &receipts[2]] {
                let is_taken = match qos {
                    Qos::Buffered => matches!(good, SectionReceipt::Buffered { count: 1 }),
                    _ => matches!(good, SectionReceipt::Pushed { count: 1, .. }),
                };
                assert!(is_taken, "beside bad batch {at}: {good:?}");
                stored += 1;
            }
        }
    }
    neighbour.await_stat("pushed", |pushed| pushed >= stored).await;
    let messages = raw.pop(pop("mixed")).await;
    let found = payloads(&messages);
    assert_eq!(found.len() as u64, stored);
    assert!(found.iter().all(|payload| payload == "good"));
    assert_eq!(neighbour.stat("pushed").await, stored);
    neighbour.goes_on().await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_whose_answer_could_outgrow_a_frame_is_refused_and_not_stored() {
    let server = TestServer::start_with(|settings| {
        settings.wire.frame_bytes_max = 64 * 1024;
        settings.wire.batch_bytes_max = 60 * 1024;
    });
    let server = server.await;
    let mut neighbour = Neighbour::of(&server).await;
    let mut raw = Raw::greeted(&server).await;
    // Seven bytes a record, and seventeen for what became of it where there are duplicates.
    let with_id = |count: u32| {
        section("dup", "p", sealed(1, count, &b"\x03\x00\x00\x00\x01\x01a".repeat(count as usize)))
    };
    let without = section("dup", "p", sealed(0, 8_000, &b"\x02\x00\x00\x00\x00a".repeat(8_000)));
    let receipts = raw.push(Qos::AtLeastOnce, &[with_id(3_000), with_id(3_000)]).await;
    assert!(
        matches!(&receipts[0], SectionReceipt::Mixed { outcomes, .. } if outcomes.len() == 3_000)
    );
    match &receipts[1] {
        SectionReceipt::Failed(failure) => {
            assert_failure(failure, Code::TooManyRecords, "record_count", failure.limit);
            assert!((500..1_000).contains(&failure.limit), "what is left of 64 KiB: {failure:?}");
        }
        other => panic!("{other:?}"),
    }
    let receipts = raw.push(Qos::AtLeastOnce, &[with_id(8_000)]).await;
    assert!(matches!(&receipts[0], SectionReceipt::Failed(failure)
        if failure.known() == Some(Code::TooManyRecords)));
    let receipts = raw.push(Qos::AtLeastOnce, &[without]).await;
    let is_stored =
        matches!(receipts[0], SectionReceipt::Pushed { count: 8_000, first_seq: 1, .. });
    assert!(is_stored, "{receipts:?}");
    // Counted a moment after it was answered.
    neighbour.await_stat("pushed", |pushed| pushed == 8_001).await;
    neighbour.goes_on().await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_whose_answer_could_outgrow_a_frame_is_refused_and_nothing_is_stored() {
    let server = TestServer::start_with(|settings| {
        settings.wire.frame_bytes_max = 64 * 1024;
        settings.wire.batch_bytes_max = 60 * 1024;
    });
    let server = server.await;
    let mut raw = Raw::greeted(&server).await;
    let ids = section("q", "p", sealed(1, 8_000, &b"\x03\x00\x00\x00\x01\x01a".repeat(8_000)));
    let transaction = Request::Transaction(Transaction {
        fail_on_duplicate: false,
        leases: Vec::new(),
        acks: Vec::new(),
        sections: vec![section("q", "p", batch(&[b"x"])), ids],
    });
    let refused = raw.ask(&transaction).await;
    assert_refused(&refused, Code::TooManyRecords, "sections", 1);
    assert!(payloads(&raw.pop(pop("q")).await).is_empty());
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_name_in_a_push_fails_its_section_alone() {
    let server = TestServer::start().await;
    let mut neighbour = Neighbour::of(&server).await;
    let mut raw = Raw::greeted(&server).await;
    let sections = |queue: &str, partition: &str| {
        let good = || section("named", "p", batch(&[b"good"]));
        let marked = section(queue, partition, batch(&[b"bad"]));
        body(&push(Qos::AtLeastOnce, &[good(), marked, good()]))
    };
    let mut cases = Vec::new();
    for bad in [b"a\xffbc", b"ab\x00c", b"abc\x7f"] {
        cases.push((with(&sections("MARK", "p"), b"MARK", bad), "queue"));
        cases.push((with(&sections("q", "MARK"), b"MARK", bad), "partition"));
    }
    for (bytes, field) in cases {
        let response = raw.ask_body(Opcode::Push.number(), &bytes).await;
        let Response::Receipts(Receipts { sections, .. }) = response else {
            panic!("{response:?}")
        };
        assert_section_refused(&sections[1], Code::BadName, field, 0);
        for at in [0, 2] {
            assert!(matches!(sections[at], SectionReceipt::Pushed { count: 1, .. }));
        }
    }
    // An empty partition name: the bytes of a section by hand, since no type would hold it.
    let good = batch(&[b"bad"]);
    let mut empty = BytesMut::from(&[[1].as_slice(), &[0; 12], &[1, 0], b"\x01q\x00"].concat()[..]);
    empty.put_u32_le(good.len() as u32);
    empty.put_slice(&good);
    match raw.ask_body(Opcode::Push.number(), &empty).await {
        Response::Receipts(Receipts { sections, .. }) => {
            assert_section_refused(&sections[0], Code::BadName, "partition", 1);
        }
        other => panic!("{other:?}"),
    }
    // The longest names there are, and the shortest, are as good as any.
    let longest = "é".repeat(127) + "x";
    let receipts = [section(&longest, &longest, batch(&[b"x"])), section("", "p", batch(&[b"x"]))];
    let receipts = raw.push(Qos::AtLeastOnce, &receipts).await;
    assert!(receipts.iter().all(|it| matches!(it, SectionReceipt::Pushed { count: 1, .. })));
    assert_eq!(payloads(&raw.pop(pop(&longest)).await), [&b"x"[..]]);
    assert_eq!(payloads(&raw.pop(pop("")).await), [&b"x"[..]]);
    assert_eq!(payloads(&raw.pop(pop("named")).await).len(), 12);
    neighbour.goes_on().await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_pushes_in_the_same_commits_as_good_ones_harm_none_of_them() {
    const GOOD_CONNECTIONS: u64 = 4;
    const PUSHES: u64 = 100;
    let server = TestServer::start().await;
    let mut neighbour = Neighbour::of(&server).await;
    let bad: Vec<Bytes> = bad_batches().into_iter().map(|(bytes, ..)| bytes).collect();
    let mut tasks = Vec::new();
    for connection in 0..GOOD_CONNECTIONS {
        let mut raw = Raw::greeted(&server).await;
        tasks.push(tokio::spawn(async move {
            let mut bytes = BytesMut::new();
            for id in 0..PUSHES {
                let payload = format!("{connection}/{id}");
                let partition = format!("p{}", id % 3);
                let sections = [section("shared", &partition, batch(&[payload.as_bytes()]))];
                push(Qos::AtLeastOnce, &sections).encode_frame(id, &mut bytes);
            }
            raw.send(&bytes).await;
            for _ in 0..PUSHES {
                let (_, response) = raw.answer().await;
                let Response::Receipts(receipts) = &response else { panic!("{response:?}") };
                let is_taken =
                    matches!(receipts.sections[..], [SectionReceipt::Pushed { count: 1, .. }]);
                assert!(is_taken, "{receipts:?}");
            }
        }));
    }
    let mut raw = Raw::greeted(&server).await;
    tasks.push(tokio::spawn(async move {
        let mut bytes = BytesMut::new();
        let mut expected = 0;
        // Not the two of many megabytes: the others come more often without them.
        for (id, batch) in (0..).zip(bad.iter().filter(|it| it.len() < 1000).cycle().take(400)) {
            push(Qos::AtLeastOnce, &[section("shared", "p0", batch.clone())])
                .encode_frame(id, &mut bytes);
            expected += 1;
        }
        raw.send(&bytes).await;
        for _ in 0..expected {
            let (_, response) = raw.answer().await;
            let Response::Receipts(receipts) = &response else { panic!("{response:?}") };
            assert!(matches!(receipts.sections[..], [SectionReceipt::Failed(_)]), "{receipts:?}");
        }
    }));
    for task in tasks {
        task.await.unwrap();
    }
    neighbour.await_stat("pushed", |pushed| pushed == GOOD_CONNECTIONS * PUSHES).await;
    let mut raw = Raw::greeted(&server).await;
    let mut found: Vec<Bytes> = payloads(&raw.pop(pop("shared")).await);
    found.sort();
    let pushed = (0..GOOD_CONNECTIONS).flat_map(|it| (0..PUSHES).map(move |id| (it, id)));
    let mut pushed: Vec<Bytes> =
        pushed.map(|(connection, id)| Bytes::from(format!("{connection}/{id}"))).collect();
    pushed.sort();
    assert_eq!(found, pushed);
    neighbour.goes_on().await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn acks_and_extensions_of_what_nobody_holds_are_refused_item_by_item() {
    let server = TestServer::start().await;
    let mut neighbour = Neighbour::of(&server).await;
    let mut raw = Raw::greeted(&server).await;
    raw.push(Qos::AtLeastOnce, &[section("q", "p", batch(&[b"a", b"b", b"c"]))]).await;
    let messages = raw.pop(Pop { messages_max: 2, ..pop("q") }).await;
    let partition = messages.sections[0].partition;
    let item = |partition: u32, first_seq: u64, last_seq: u64| AckItem {
        partition,
        ..ack_item(first_seq, last_seq)
    };
    let codes = |response: Response| match response {
        Response::Acked(acked) => {
            acked.items.iter().map(|it| Code::from_number(it.code)).collect::<Vec<_>>()
        }
        other => panic!("{other:?}"),
    };
    let asked = [
        item(u32::MAX, 0, 0),
        item(partition, 2, 2),
        item(partition, 1, 2),
        item(partition, 3, 3),
        item(partition, 0, u64::MAX),
        item(partition, u64::MAX, u64::MAX),
        item(partition, 0, 0),
    ];
    let got = codes(raw.ask(&ack("g", messages.lease, &asked)).await);
    let missing = Some(Code::MessageNotFound);
    let expected =
        [Some(Code::PartitionNotFound), missing, missing, missing, missing, missing, None];
    assert_eq!(got, expected, "only the last item names what is held");
    let got = codes(raw.ask(&ack("g", [9; 16], &[item(partition, 1, 1)])).await);
    assert_eq!(got, [Some(Code::LeaseExpired)]);
    let got = codes(raw.ask(&ack("stranger", messages.lease, &[item(partition, 1, 1)])).await);
    assert_eq!(got, [Some(Code::LeaseNotFound)]);
    let refused = raw.ask(&Request::Extend(Extend { lease: [9; 16], extend_ms: 1 })).await;
    assert_refused(&refused, Code::LeaseNotFound, "", 0);
    let refused = raw.ask(&Request::Extend(Extend { lease: NO_LEASE, extend_ms: 1 })).await;
    assert_refused(&refused, Code::LeaseNotFound, "", 0);
    let got = codes(raw.ask(&ack("g", messages.lease, &[item(partition, 1, 1)])).await);
    assert_eq!(got, [None], "the lease outlived every lie about it");
    neighbour.goes_on().await;
    server.stop().await;
}

// Pressure.

#[tokio::test(flavor = "multi_thread")]
async fn requests_beyond_the_window_wait_and_none_is_lost() {
    let server = TestServer::start_with(|settings| settings.wire.in_flight_max = 4).await;
    let mut neighbour = Neighbour::of(&server).await;
    let mut raw = Raw::greeted(&server).await;
    let mut bytes = BytesMut::new();
    for id in 1..=300 {
        let request = match id % 3 {
            0 => Request::Pop(Pop { wait_ms: 5, ..pop("nothing here") }),
            1 => push(Qos::AtLeastOnce, &[section("window", "p", batch(&[b"x"]))]),
            _ => Request::Ping(Ping {}),
        };
        request.encode_frame(id, &mut bytes);
    }
    raw.send(&bytes).await;
    let mut answered = Vec::new();
    for _ in 1..=300 {
        let (id, response) = raw.answer().await;
        let is_right = match id % 3 {
            0 => matches!(&response, Response::Messages(it) if it.sections.is_empty()),
            1 => matches!(&response, Response::Receipts(it)
                if matches!(it.sections[..], [SectionReceipt::Pushed { count: 1, .. }])),
            _ => matches!(response, Response::Pong(_)),
        };
        assert!(is_right, "{id}: {response:?}");
        answered.push(id);
    }
    answered.sort_unstable();
    assert_eq!(answered, (1..=300).collect::<Vec<_>>());
    assert_eq!(payloads(&raw.pop(pop("window")).await).len(), 100);
    neighbour.goes_on().await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_came_at_once_go_on_as_soon_as_the_ones_before_are_answered() {
    let server = TestServer::start_with(|settings| settings.wire.in_flight_max = 1).await;
    let mut raw = Raw::greeted(&server).await;
    let mut bytes = BytesMut::new();
    for id in 0..100 {
        Request::Pop(pop("nothing here")).encode_frame(id, &mut bytes);
    }
    raw.send(&bytes).await;
    for id in 0..100 {
        let (answered, response) = raw.answer().await;
        assert!(matches!(response, Response::Messages(_)), "{response:?}");
        assert_eq!(answered, id);
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_does_not_read_is_not_read_from_either() {
    const POPS: u64 = 200;
    const MEGABYTE: usize = 1 << 20;
    let server = TestServer::start_with(|settings| settings.wire.in_flight_max = 4).await;
    let mut neighbour = Neighbour::of(&server).await;
    let mut raw = Raw::greeted(&server).await;
    let payload = vec![b'x'; MEGABYTE];
    raw.push(Qos::AtLeastOnce, &[section("large", "p", batch(&[&payload]))]).await;
    let mut bytes = BytesMut::new();
    for id in 0..POPS {
        // Each group gets the same megabyte.
        let request = Pop { group: format!("g{id}").parse().unwrap(), ..pop("large") };
        Request::Pop(request).encode_frame(id, &mut bytes);
    }
    raw.send(&bytes).await;
    // What it may hold: 8 MiB unwritten, four answers under way, and what two socket buffers take.
    neighbour.await_stat("popped", |popped| popped >= 8).await;
    let mut before = 0;
    let deadline = Instant::now() + PATIENCE;
    loop {
        tokio::time::sleep(Duration::from_millis(400)).await;
        let now = neighbour.stat("popped").await;
        if now == before {
            break;
        }
        assert!(Instant::now() < deadline, "it still takes requests: {now}");
        before = now;
    }
    assert!(before < POPS / 2, "{before} answers of a megabyte wait for a peer that does not read");
    neighbour.goes_on().await;
    // It only has to begin to read, and gets everything.
    let mut answered = Vec::new();
    for _ in 0..POPS {
        let (id, response) = raw.answer().await;
        let Response::Messages(messages) = response else { panic!("{response:?}") };
        assert_eq!(messages.sections[0].chunks[0].batch.len(), MEGABYTE + 21);
        answered.push(id);
    }
    answered.sort_unstable();
    assert_eq!(answered, (0..POPS).collect::<Vec<_>>());
    neighbour.goes_on().await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frame_that_the_server_itself_leaves_unread_is_not_the_peers_delay() {
    const POPS: u64 = 40;
    // Long enough for the answers to pile up before it is over, also on a busy machine.
    let server = TestServer::start_with(|settings| settings.wire.frame_timeout_ms = 3_000).await;
    let mut neighbour = Neighbour::of(&server).await;
    let mut raw = Raw::greeted(&server).await;
    raw.push(Qos::AtLeastOnce, &[section("large", "p", batch(&[&vec![b'x'; 1 << 20]]))]).await;
    let mut bytes = BytesMut::new();
    for id in 0..POPS {
        let request = Pop { group: format!("g{id}").parse().unwrap(), ..pop("large") };
        Request::Pop(request).encode_frame(id, &mut bytes);
    }
    let ping = framed(Opcode::Ping.number(), POPS, b"");
    bytes.put_slice(&ping[..10]);
    raw.send(&bytes).await;
    // So much is waiting to be written that the server does not read the rest, which comes now.
    neighbour.await_stat("popped", |popped| popped == POPS).await;
    raw.send(&ping[10..]).await;
    // Whoever is late in truth is let go; by then the other one would have been, too.
    let mut late = Raw::greeted(&server).await;
    late.send(&ping[..10]).await;
    late.assert_closed().await;
    for _ in 0..POPS {
        assert!(matches!(raw.answer().await, (..POPS, Response::Messages(_))));
    }
    assert!(matches!(raw.answer().await, (POPS, Response::Pong(_))));
    neighbour.goes_on().await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_on_their_way_to_a_peer_that_hangs_up_go_to_others_at_once() {
    const POPS: u64 = 60;
    let server = TestServer::start().await;
    let neighbour = Neighbour::of(&server).await;
    let mut raw = Raw::greeted(&server).await;
    let payload = vec![b'x'; 1 << 20];
    for partition in 0..POPS {
        let section = section("large", &format!("p{partition}"), batch(&[&payload]));
        raw.push(Qos::AtLeastOnce, &[section]).await;
    }
    let one = Pop { partitions_max: 1, messages_max: 1, lease_ms: 3_600_000, ..pop("large") };
    let mut bytes = BytesMut::new();
    for id in 0..POPS {
        Request::Pop(one.clone()).encode_frame(id, &mut bytes);
    }
    raw.send(&bytes).await;
    neighbour.await_stat("popped", |popped| popped == POPS).await;
    // What was written to it, some 8 MiB and what the sockets hold, is its own for an hour.
    drop(raw);
    let mut other = Raw::greeted(&server).await;
    for _ in 0..POPS / 2 {
        let messages = other.pop(Pop { wait_ms: 60_000, ..one.clone() }).await;
        assert_eq!(payloads(&messages).len(), 1);
        assert!(messages.sections[0].attempts.is_empty(), "no attempt is counted");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_over_the_limit_are_closed_and_those_that_are_there_go_on() {
    let server = TestServer::start_with(|settings| settings.wire.connections_max = 8).await;
    let mut neighbour = Neighbour::of(&server).await;
    let mut inside = Vec::new();
    for _ in 0..7 {
        inside.push(Raw::greeted(&server).await);
    }
    for _ in 0..50 {
        let mut outside = Raw::dial(&server).await;
        outside.assert_closed().await;
    }
    for raw in &mut inside {
        raw.assert_goes_on().await;
    }
    neighbour.goes_on().await;
    // A place that becomes free is given again.
    inside.pop();
    neighbour.await_stat("connections", |open| open < 8).await;
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut raw = Raw::dial(&server).await;
        // The gauge goes down a moment before the place is free.
        let greeting = framed(Opcode::Hello.number(), 1, &body(&hello(1, 1, b"")));
        let _ = raw.stream.write_all(&greeting).await;
        if let Some((_, Response::Welcome(_))) = raw.answer_or_end().await {
            raw.assert_goes_on().await;
            break;
        }
        assert!(Instant::now() < deadline, "the place stays taken");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_ring_refuses_qos_0_with_its_limit_and_other_partitions_go_on() {
    let server = TestServer::start_with(|settings| {
        settings.buffer.ring_messages_max = 4;
        // Nothing but a full ring makes the server write before a minute has passed.
        settings.buffer.buffer_ms = 60_000;
        settings.buffer.buffer_max = 1_000;
    });
    let server = server.await;
    let mut neighbour = Neighbour::of(&server).await;
    let mut raw = Raw::greeted(&server).await;
    // The queue is made first: making it takes a commit.
    raw.push(Qos::AtLeastOnce, &[section("ring", "other", batch(&[b"first"]))]).await;
    let sections: Vec<PushSection> =
        (0..6).map(|_| section("ring", "full", batch(&[b"x"]))).collect();
    let receipts = raw.push(Qos::Buffered, &sections).await;
    for taken in &receipts[..4] {
        assert!(matches!(taken, SectionReceipt::Buffered { count: 1 }), "{receipts:?}");
    }
    assert_section_refused(&receipts[4], Code::RingFull, "ring", 4);
    let other = raw.push(Qos::Buffered, &[section("ring", "other", batch(&[b"x"]))]).await;
    assert!(matches!(other[..], [SectionReceipt::Buffered { count: 1 }]), "{other:?}");
    neighbour.goes_on().await;
    // Whoever follows the advice and comes again gets in, long before the minute is over.
    let deadline = Instant::now() + PATIENCE;
    loop {
        let again = raw.push(Qos::Buffered, &[section("ring", "full", batch(&[b"x"]))]).await;
        match &again[..] {
            [SectionReceipt::Buffered { count: 1 }] => break,
            [failed] => assert_section_refused(failed, Code::RingFull, "ring", 4),
            other => panic!("{other:?}"),
        }
        assert!(Instant::now() < deadline, "the ring stays full");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_durable_push_does_not_wait_for_the_pace_of_the_buffered_ones_before_it() {
    let server = TestServer::start_with(|settings| {
        settings.buffer.ring_messages_max = 4;
        settings.buffer.buffer_ms = 60_000;
        settings.buffer.buffer_max = 1_000;
    });
    let server = server.await;
    let mut neighbour = Neighbour::of(&server).await;
    let mut raw = Raw::greeted(&server).await;
    raw.push(Qos::AtLeastOnce, &[section("ring", "other", batch(&[b"first"]))]).await;
    let sections: Vec<PushSection> =
        (0..4).map(|_| section("ring", "full", batch(&[b"early"]))).collect();
    let buffered = raw.push(Qos::Buffered, &sections).await;
    assert!(buffered.iter().all(|it| matches!(it, SectionReceipt::Buffered { .. })));
    // Its ring is full of messages that could wait for a minute: it must not.
    let durable = raw.push(Qos::AtLeastOnce, &[section("ring", "full", batch(&[b"late"]))]).await;
    assert!(matches!(durable[..], [SectionReceipt::Pushed { first_seq: 4, .. }]), "{durable:?}");
    neighbour.goes_on().await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tiny_budget_slows_durable_pushes_down_and_fails_none() {
    let server = TestServer::start_with(|settings| {
        settings.buffer.budget_bytes = 16 * 1024;
        settings.buffer.buffer_ms = 60_000;
        settings.buffer.buffer_max = 1_000;
    });
    let server = server.await;
    let mut neighbour = Neighbour::of(&server).await;
    // Half of the budget is taken by messages that may wait for a minute.
    let mut raw = Raw::greeted(&server).await;
    raw.push(Qos::AtLeastOnce, &[section("budget", "idle", batch(&[b"first"]))]).await;
    let idle = section("budget", "idle", batch(&[&[b'i'; 8 * 1024]]));
    let buffered = raw.push(Qos::Buffered, &[idle]).await;
    assert!(matches!(buffered[..], [SectionReceipt::Buffered { .. }]), "{buffered:?}");
    let mut tasks = Vec::new();
    for connection in 0..6 {
        let mut raw = Raw::greeted(&server).await;
        tasks.push(tokio::spawn(async move {
            let mut bytes = BytesMut::new();
            for id in 0..40 {
                // Now and then one that is larger than the whole budget: it passes alone.
                let size = if id % 20 == 19 { 40_000 } else { 5_000 };
                let sections =
                    [section("budget", &format!("p{connection}"), batch(&[&vec![b'x'; size]]))];
                push(Qos::AtLeastOnce, &sections).encode_frame(id, &mut bytes);
            }
            raw.send(&bytes).await;
            for _ in 0..40 {
                let (_, response) = raw.answer().await;
                let Response::Receipts(receipts) = &response else { panic!("{response:?}") };
                let is_taken =
                    matches!(receipts.sections[..], [SectionReceipt::Pushed { count: 1, .. }]);
                assert!(is_taken, "{receipts:?}");
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    neighbour.goes_on().await;
    assert_eq!(neighbour.stat("ring_bytes").await, 0, "every byte was given back");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_that_hangs_up_while_it_waits_takes_no_message_with_it() {
    // With a window of one, the waiting pop is all that the server has to do with its connection.
    for in_flight_max in [1024, 1] {
        let server = TestServer::start_with(|settings| {
            settings.wire.in_flight_max = in_flight_max;
        });
        let server = server.await;
        let mut neighbour = Neighbour::of(&server).await;
        let mut raw = Raw::greeted(&server).await;
        let next = || [section("parked", "p", batch(&[b"next"]))];
        raw.push(Qos::AtLeastOnce, &next()).await;
        let mut messages = raw.pop(pop("parked")).await;
        let open = neighbour.stat("connections").await;
        for round in 0..15 {
            assert_eq!(payloads(&messages), [&b"next"[..]], "round {round}");
            assert!(messages.sections[0].attempts.is_empty(), "nobody had it before");
            let (partition, seq) =
                (messages.sections[0].partition, messages.sections[0].chunks[0].first_seq);
            let item = AckItem { partition, ..ack_item(seq, seq) };
            raw.ask(&ack("g", messages.lease, &[item])).await;
            let mut waiting = Raw::greeted(&server).await;
            let long = Pop { wait_ms: 60_000, lease_ms: 600_000, ..pop("parked") };
            waiting.send_body(Opcode::Pop.number(), &body(&Request::Pop(long))).await;
            if in_flight_max > 1 {
                // The ping behind it is answered, so the pop is at the server.
                waiting.assert_goes_on().await;
            }
            drop(waiting);
            neighbour.await_stat("connections", |now| now == open).await;
            raw.push(Qos::AtLeastOnce, &next()).await;
            messages = raw.pop(pop("parked")).await;
        }
        neighbour.goes_on().await;
        server.stop().await;
    }
}
