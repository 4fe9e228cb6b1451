//! A server in the test's own process that keeps the protocol's promises in memory, and breaks
//! them on demand.
//!
//! In: frames. Out: the answers that a real server would give, or the fault that a test asked for.
//! It stores, deduplicates, leases and counts attempts; it is small, not fast. Used by the tests
//! of the client and of the load generator.

#![allow(dead_code, unused_imports, reason = "no test uses all of it")]

mod store;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::BytesMut;
use onrush_protocol::frame::{self, Frame};
use onrush_protocol::limits::FRAME_BYTES_MAX;
use onrush_protocol::response::{Failure, Pong, Receipts, Stats, StatsEntry, Welcome};
use onrush_protocol::{Code, Request, Response, ShortText};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc};

pub(crate) use store::{Mischief, Store};

/// What happens to the next request of one kind.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// Answered with a failure; nothing is done.
    Refuse(Code, u32),
    /// The connection ends before anything is done.
    DropBefore,
    /// It is done, and the connection ends instead of an answer.
    DropAfter,
    /// It is done and never answered.
    Silence,
    /// It is done, and answered this much later than those behind it.
    Delay(Duration),
}

/// A running fake. It ends with the test's runtime.
pub(crate) struct FakeServer {
    pub(crate) addr: SocketAddr,
    pub(crate) shared: Arc<Shared>,
}

pub(crate) struct Shared {
    pub(crate) store: Mutex<Store>,
    /// Rung when messages came.
    came: Notify,
    /// Faults for the next requests: opcode and what happens.
    faults: Mutex<VecDeque<(u8, Fault)>>,
    /// Opcodes of all requests, in order.
    seen: Mutex<Vec<u8>>,
    in_flight_max: u32,
    token: Option<String>,
    batch_bytes_max: u32,
}

pub(crate) const PUSH: u8 = 3;
pub(crate) const POP: u8 = 4;
/// What this server does not know, as an older one.
pub(crate) const POP_KNOWN: u8 = 15;
pub(crate) const ACK: u8 = 5;
pub(crate) const EXTEND: u8 = 6;
pub(crate) const PING: u8 = 2;

impl FakeServer {
    pub(crate) async fn start() -> Self {
        Self::with(1024, None, 8 * 1024 * 1024).await
    }

    pub(crate) async fn with(
        in_flight_max: u32,
        token: Option<&str>,
        batch_bytes_max: u32,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let addr = listener.local_addr().expect("an address");
        let shared = Arc::new(Shared {
            store: Mutex::default(),
            came: Notify::new(),
            faults: Mutex::default(),
            seen: Mutex::default(),
            in_flight_max,
            token: token.map(str::to_owned),
            batch_bytes_max,
        });
        let accepting = Arc::clone(&shared);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&accepting)));
            }
        });
        Self { addr, shared }
    }

    pub(crate) fn addr(&self) -> String {
        self.addr.to_string()
    }

    /// Lets the next request with this opcode that no earlier fault takes meet `fault`.
    pub(crate) fn fault(&self, opcode: u8, fault: Fault) {
        self.shared.faults.lock().expect("no panic").push_back((opcode, fault));
    }

    /// How many requests with this opcode came.
    pub(crate) fn seen(&self, opcode: u8) -> usize {
        self.shared.seen.lock().expect("no panic").iter().filter(|&&seen| seen == opcode).count()
    }

    /// Payloads of a partition, in order.
    pub(crate) fn payloads(&self, queue: &str, partition: &str) -> Vec<Vec<u8>> {
        self.shared.store.lock().expect("no panic").payloads(queue, partition)
    }
}

async fn serve(stream: TcpStream, shared: Arc<Shared>) {
    let (mut read, mut write) = stream.into_split();
    let (answers, mut queue) = mpsc::unbounded_channel::<Option<(u64, Response)>>();
    let writer = tokio::spawn(async move {
        let mut out = BytesMut::new();
        while let Some(Some((id, response))) = queue.recv().await {
            response.encode_frame(id, &mut out);
            if write.write_all_buf(&mut out).await.is_err() {
                return;
            }
        }
    });
    let mut buffer = BytesMut::new();
    'reading: loop {
        while let Ok(Some(frame)) = frame::decode(&mut buffer, FRAME_BYTES_MAX) {
            if !take(frame, &shared, &answers) {
                break 'reading;
            }
        }
        if read.read_buf(&mut buffer).await.unwrap_or(0) == 0 {
            break;
        }
    }
    drop(answers.send(None));
    drop(writer.await);
}

type Answers = mpsc::UnboundedSender<Option<(u64, Response)>>;

/// Does one request; `false` when the connection shall end.
fn take(frame: Frame, shared: &Arc<Shared>, answers: &Answers) -> bool {
    shared.seen.lock().expect("no panic").push(frame.opcode);
    let fault = {
        let mut faults = shared.faults.lock().expect("no panic");
        let at = faults.iter().position(|(opcode, _)| *opcode == frame.opcode);
        at.and_then(|at| faults.remove(at)).map(|(_, fault)| fault)
    };
    match &fault {
        Some(Fault::DropBefore) => return false,
        Some(Fault::Refuse(code, after_ms)) => {
            let failure = Failure::new(*code, "as the test asked").retry_after(*after_ms);
            drop(answers.send(Some((frame.request_id, Response::Failure(failure)))));
            return true;
        }
        _ => {}
    }
    let (id, shared, answers) = (frame.request_id, Arc::clone(shared), answers.clone());
    let request = match Request::decode(frame.opcode, frame.body) {
        Ok(request) => request,
        Err(error) => {
            let failure = Failure::new(error.code(), &error.to_string());
            drop(answers.send(Some((id, Response::Failure(failure)))));
            return true;
        }
    };
    // Pops may wait, everything else is done in order.
    if let Request::Pop(pop) = request {
        tokio::spawn(async move {
            let deadline =
                tokio::time::Instant::now() + Duration::from_millis(u64::from(pop.wait_ms));
            loop {
                let came = shared.came.notified();
                let messages = shared.store.lock().expect("no panic").pop(&pop);
                let is_late = tokio::time::Instant::now() >= deadline;
                if !messages.sections.is_empty() || is_late {
                    answer(fault.as_ref(), id, Response::Messages(messages), &answers);
                    return;
                }
                drop(tokio::time::timeout_at(deadline, came).await);
            }
        });
        return true;
    }
    let response = respond(&shared, request);
    answer(fault.as_ref(), id, response, &answers)
}

/// Sends the answer as the fault wants it.
fn answer(fault: Option<&Fault>, id: u64, response: Response, answers: &Answers) -> bool {
    match fault {
        Some(Fault::DropAfter) => return false,
        Some(Fault::Silence) => {}
        Some(Fault::Delay(delay)) => {
            let (delay, answers) = (*delay, answers.clone());
            tokio::spawn(async move {
                tokio::time::sleep(delay).await;
                drop(answers.send(Some((id, response))));
            });
        }
        _ => drop(answers.send(Some((id, response)))),
    }
    true
}

fn respond(shared: &Shared, request: Request) -> Response {
    let mut store = shared.store.lock().expect("no panic");
    match request {
        Request::Hello(hello) => {
            let given = hello.token.map(|token| token.as_bytes().to_vec());
            if given != shared.token.as_ref().map(|token| token.as_bytes().to_vec()) {
                return Response::Failure(Failure::new(Code::Unauthenticated, "wrong token"));
            }
            Response::Welcome(Welcome {
                version: 1,
                server: ShortText::lossy("fake"),
                frame_bytes_max: FRAME_BYTES_MAX as u32,
                batch_bytes_max: shared.batch_bytes_max,
                message_bytes_max: 1024 * 1024,
                in_flight_max: shared.in_flight_max,
                store: ShortText::lossy("memory"),
                durability: ShortText::lossy("none"),
            })
        }
        Request::Ping(_) => Response::Pong(Pong {}),
        Request::Push(push) => {
            let sections =
                push.sections.iter().map(|section| store.push(push.terms.qos, section)).collect();
            shared.came.notify_waiters();
            let buffered = !push.terms.qos.is_durable();
            Response::Receipts(Receipts { buffered, store_healthy: true, sections })
        }
        Request::Ack(ack) => {
            let acked = store.ack(&ack);
            shared.came.notify_waiters();
            Response::Acked(acked)
        }
        Request::Transaction(_) => {
            Response::Failure(Failure::new(Code::UnknownOpcode, "no transactions here"))
        }
        Request::Extend(extend) => store.extend(extend),
        Request::Configure(configure) => store.configure(&configure),
        Request::DeleteQueue(delete) => store.delete(&delete),
        Request::Stats(_) => Response::Stats(Stats {
            entries: vec![StatsEntry { name: ShortText::lossy("messages"), value: store.count() }],
        }),
        Request::Pop(_) => Response::Failure(Failure::new(Code::Internal, "handled before")),
        // What the client asks of a real server only.
        _ => Response::Failure(Failure::new(Code::UnknownOpcode, "not known here")),
    }
}
