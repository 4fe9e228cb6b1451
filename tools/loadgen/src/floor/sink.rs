//! A server that does nothing but what every server must: read, look, answer.
//!
//! In: the frames of a run. Out: a receipt for each. Reads are large, frames are looked at where
//! they lie, all answers to one read go out in one write, and no frame allocates. With a group it
//! also copies the batches into that and answers once it is on disk. Started by `floor`.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Acquire, Ordering::Release};
use std::thread::JoinHandle;

use bytes::BytesMut;
use onrush_protocol::limits::{
    BATCH_BYTES_MAX, BATCH_HEADER_BYTES, FRAME_BYTES_MAX, FRAME_HEADER_BYTES, MESSAGE_BYTES_MAX,
};
use onrush_protocol::response::Welcome;
use onrush_protocol::version::PROTOCOL_VERSION;
use onrush_protocol::{Opcode, Response, ShortText, frame};
use rustix::event::{PollFd, PollFlags};

use super::group::Group;
use crate::engine::{Answer, Input, wait_for};
use crate::error::LoadError;

/// How often a thread that hears nothing looks whether it shall end, in nanoseconds.
const LOOK_NS: u64 = 50_000_000;

/// Bytes of the terms of a push: promise, three numbers, count of sections.
const TERMS_BYTES: usize = 15;

/// Bytes of a receipt frame for one section that was pushed.
const RECEIPT_BYTES: usize = FRAME_HEADER_BYTES + 3 + 25;

/// A thread, and what it ends with.
type Running = JoinHandle<Result<(), LoadError>>;

/// Running threads, each with a door of its own.
pub(super) struct Sink {
    addrs: Vec<String>,
    is_over: Arc<AtomicBool>,
    threads: Vec<Running>,
    writer: Option<(Arc<Group>, Running)>,
}

impl Sink {
    /// Where to connect; connections are to be spread over all.
    pub(super) fn addrs(&self) -> &[String] {
        &self.addrs
    }

    /// Ends all threads.
    pub(super) fn stop(self) -> Result<(), LoadError> {
        self.is_over.store(true, Release);
        let mut results: Vec<_> = self.threads.into_iter().map(JoinHandle::join).collect();
        if let Some((group, writer)) = self.writer {
            group.stop();
            results.push(writer.join());
        }
        for result in results {
            result.map_err(|_| LoadError::Io {
                doing: "running the floor",
                reason: "a thread panicked".to_owned(),
            })??;
        }
        Ok(())
    }
}

/// Starts `threads` threads on the loopback.
pub(super) fn start(threads: usize, group: Option<Arc<Group>>) -> Result<Sink, LoadError> {
    let is_over = Arc::new(AtomicBool::new(false));
    let (mut addrs, mut handles, mut bells) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..threads.max(1) {
        let listener =
            TcpListener::bind(("127.0.0.1", 0)).map_err(LoadError::io("opening the loopback"))?;
        listener.set_nonblocking(true).map_err(LoadError::io("opening the loopback"))?;
        let addr = listener.local_addr().map_err(LoadError::io("opening the loopback"))?;
        addrs.push(addr.to_string());
        let (bell, ear) = UnixStream::pair().map_err(LoadError::io("making a bell"))?;
        for end in [&bell, &ear] {
            end.set_nonblocking(true).map_err(LoadError::io("making a bell"))?;
        }
        bells.push(bell);
        let (is_over, group) = (Arc::clone(&is_over), group.clone());
        let room = Room { listener, ear, group, peers: Vec::new(), copied: Vec::new() };
        handles.push(std::thread::spawn(move || room.serve(&is_over)));
    }
    let writer = group.map(|group| (Arc::clone(&group), group.start(bells)));
    Ok(Sink { addrs, is_over, threads: handles, writer })
}

/// One thread's connections.
struct Room {
    listener: TcpListener,
    /// Hears of every sync.
    ear: UnixStream,
    group: Option<Arc<Group>>,
    peers: Vec<Peer>,
    /// The batches of one read, before they go to the group together.
    copied: Vec<u8>,
}

struct Peer {
    stream: TcpStream,
    input: Input,
    out: Vec<u8>,
    /// Pushes that wait for a group to be on disk, in the order in which they came.
    waiting: VecDeque<Owed>,
    is_over: bool,
}

/// A receipt that is owed.
struct Owed {
    group: u64,
    request_id: u64,
    count: u32,
}

impl Room {
    fn serve(mut self, is_over: &AtomicBool) -> Result<(), LoadError> {
        while !is_over.load(Acquire) {
            let readable = self.wait()?;
            self.accept()?;
            self.hear_bell();
            for at in readable {
                let (group, copied) = (self.group.as_deref(), &mut self.copied);
                if let Some(peer) = self.peers.get_mut(at) {
                    peer.read(group, copied);
                }
            }
            let synced = self.group.as_ref().map(|group| group.synced());
            for peer in &mut self.peers {
                peer.answer(synced);
            }
            self.peers.retain(|peer| !peer.is_over);
        }
        Ok(())
    }

    /// Waits for anything; returns the peers that can be read.
    fn wait(&self) -> Result<Vec<usize>, LoadError> {
        let mut polled = Vec::with_capacity(self.peers.len() + 2);
        polled.push(PollFd::new(&self.listener, PollFlags::IN));
        polled.push(PollFd::new(&self.ear, PollFlags::IN));
        for peer in &self.peers {
            let is_blocked = !peer.out.is_empty();
            let wanted = if is_blocked { PollFlags::IN | PollFlags::OUT } else { PollFlags::IN };
            polled.push(PollFd::new(&peer.stream, wanted));
        }
        wait_for(&mut polled, LOOK_NS)?;
        let peers = polled.iter().skip(2).enumerate();
        let any = PollFlags::IN | PollFlags::HUP | PollFlags::ERR;
        Ok(peers.filter(|(_, peer)| peer.revents().intersects(any)).map(|(at, _)| at).collect())
    }

    fn accept(&mut self) -> Result<(), LoadError> {
        loop {
            match self.listener.accept() {
                Ok((stream, _)) => {
                    stream.set_nonblocking(true).map_err(LoadError::io("accepting"))?;
                    stream.set_nodelay(true).map_err(LoadError::io("accepting"))?;
                    self.peers.push(Peer {
                        stream,
                        input: Input::new(),
                        out: Vec::with_capacity(64 * 1024),
                        waiting: VecDeque::new(),
                        is_over: false,
                    });
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(LoadError::io("accepting")(error)),
            }
        }
    }

    fn hear_bell(&mut self) {
        let mut rings = [0; 64];
        // What the bell says is only that the number of synced groups is worth a look.
        while self.ear.read(&mut rings).is_ok_and(|count| count == rings.len()) {}
    }
}

impl Peer {
    /// Reads once and looks at every frame that is whole.
    fn read(&mut self, group: Option<&Group>, copied: &mut Vec<u8>) {
        match self.stream.read(self.input.room()) {
            Ok(count) if count > 0 => self.input.filled(count),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return,
            Ok(_) | Err(_) => {
                self.is_over = true;
                return;
            }
        }
        copied.clear();
        let owed_before = self.waiting.len();
        loop {
            match self.input.next_frame() {
                Ok(Some(request)) => match look(&request) {
                    Some(Seen::Hello) => welcome(request.request_id, &mut self.out),
                    Some(Seen::Push { batch, count }) => {
                        let request_id = request.request_id;
                        if group.is_some() {
                            copied.extend_from_slice(batch);
                            self.waiting.push_back(Owed { group: 0, request_id, count });
                        } else {
                            self.out.extend_from_slice(&receipt(request_id, count));
                        }
                    }
                    None => {
                        self.is_over = true;
                        return;
                    }
                },
                Ok(None) => break,
                Err(_) => {
                    self.is_over = true;
                    return;
                }
            }
        }
        if let Some(group) = group.filter(|_| !copied.is_empty()) {
            let number = group.append(copied);
            for owed in self.waiting.range_mut(owed_before..) {
                owed.group = number;
            }
        }
    }

    /// Writes what is owed by now.
    fn answer(&mut self, synced: Option<u64>) {
        while let Some(owed) = self.waiting.front()
            && synced.is_some_and(|synced| owed.group <= synced)
        {
            self.out.extend_from_slice(&receipt(owed.request_id, owed.count));
            self.waiting.pop_front();
        }
        if self.out.is_empty() {
            return;
        }
        match self.stream.write(&self.out) {
            Ok(count) => drop(self.out.drain(..count)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) => self.is_over = true,
        }
    }
}

/// What a frame turned out to be.
enum Seen<'a> {
    Hello,
    Push { batch: &'a [u8], count: u32 },
}

/// Looks at a frame's structure: terms, names, the batch's header and lengths. `None` when it is
/// not what it should be.
fn look<'a>(request: &Answer<'a>) -> Option<Seen<'a>> {
    const HELLO: u8 = Opcode::Hello.number();
    const PUSH: u8 = Opcode::Push.number();
    match request.opcode {
        HELLO => Some(Seen::Hello),
        PUSH => {
            let (_, section) = request.body.split_at_checked(TERMS_BYTES)?;
            let section = skip_name(skip_name(section)?)?;
            let (length, batch) = section.split_first_chunk::<4>()?;
            let (header, records) = batch.split_first_chunk::<BATCH_HEADER_BYTES>()?;
            let &[version, _, _, _, c0, c1, c2, c3, b0, b1, b2, b3, ..] = header;
            let is_whole = u32::from_le_bytes(*length) as usize == batch.len()
                && u32::from_le_bytes([b0, b1, b2, b3]) as usize == records.len();
            let count = u32::from_le_bytes([c0, c1, c2, c3]);
            (version == 1 && is_whole).then_some(Seen::Push { batch, count })
        }
        _ => None,
    }
}

fn skip_name(bytes: &[u8]) -> Option<&[u8]> {
    let (&length, rest) = bytes.split_first()?;
    rest.get(usize::from(length)..)
}

fn receipt(request_id: u64, count: u32) -> [u8; RECEIPT_BYTES] {
    let mut frame = [0; RECEIPT_BYTES];
    let head =
        frame::header(Opcode::Receipts.number(), request_id, RECEIPT_BYTES - FRAME_HEADER_BYTES);
    if let Some(place) = frame.first_chunk_mut::<FRAME_HEADER_BYTES>() {
        *place = head;
    }
    if let Some([flags, sections, ..]) = frame.get_mut(FRAME_HEADER_BYTES..) {
        // The store is healthy; one section; its tag (pushed), place and time stay 0.
        (*flags, *sections) = (2, 1);
    }
    if let Some(place) = frame.last_chunk_mut::<4>() {
        *place = count.to_le_bytes();
    }
    frame
}

fn welcome(request_id: u64, out: &mut Vec<u8>) {
    let welcome = Welcome {
        version: PROTOCOL_VERSION,
        server: ShortText::lossy("floor"),
        frame_bytes_max: FRAME_BYTES_MAX as u32,
        batch_bytes_max: BATCH_BYTES_MAX as u32,
        message_bytes_max: MESSAGE_BYTES_MAX as u32,
        in_flight_max: u32::MAX,
        store: ShortText::lossy("none"),
        durability: ShortText::default(),
    };
    let mut frame = BytesMut::new();
    Response::Welcome(welcome).encode_frame(request_id, &mut frame);
    out.extend_from_slice(&frame);
}

#[cfg(test)]
mod tests {
    use super::*;
    use onrush_protocol::response::{Receipts, SectionReceipt};

    #[test]
    fn the_receipt_is_one_that_every_client_reads() {
        let frame = receipt(77, 100);
        let mut buffer = BytesMut::from(&frame[..]);
        let found = frame::decode(&mut buffer, FRAME_BYTES_MAX).unwrap().unwrap();
        assert_eq!(found.request_id, 77);
        let receipts = Receipts::decode(found.body).unwrap();
        assert!(receipts.store_healthy && !receipts.buffered);
        let pushed = SectionReceipt::Pushed { partition: 0, first_seq: 0, time_ms: 0, count: 100 };
        assert_eq!(receipts.sections, [pushed]);
    }
}
