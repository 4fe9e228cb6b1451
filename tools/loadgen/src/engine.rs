//! Drives many connections on one thread with as few system calls as it can.
//!
//! In: lines, each a connected socket with a [`Dialogue`] that decides what is said. Out: the
//! dialogues when all are done, with whatever they counted. A round is one `ppoll` for all lines,
//! then for each ready line one large read and one write of everything that it has to say. There
//! is no timer wheel: `ppoll` takes nanoseconds, so a paced sender is late by microseconds.
//! Called by every TCP run, and by the measurement of the floor.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use onrush_protocol::limits::{FRAME_BYTES_MAX, FRAME_HEADER_BYTES};
use onrush_protocol::request::{Hello, Token};
use onrush_protocol::response::Welcome;
use onrush_protocol::version::{PROTOCOL_VERSION, PROTOCOL_VERSION_MIN};
use onrush_protocol::{Request, Response, ShortText, frame};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::clock::Clock;
use crate::error::LoadError;

/// Bytes that one read may bring.
const READ_BYTES: usize = 512 * 1024;

/// A dialogue is not asked for more while this much of it is unwritten: the socket is full, and
/// whatever it said next would only wait here instead of there.
const UNWRITTEN_BYTES_MAX: usize = 1024 * 1024;

/// How long connecting and the handshake may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// What is said on one connection.
pub(crate) trait Dialogue {
    /// What all dialogues of one thread share.
    type Shared;

    /// Appends requests to `out`, as many as may be under way now.
    fn speak(&mut self, shared: &mut Self::Shared, now_ns: u64, out: &mut Vec<u8>);

    /// Takes one answer. An error ends the connection.
    fn hear(
        &mut self,
        shared: &mut Self::Shared,
        now_ns: u64,
        answer: &Answer<'_>,
    ) -> Result<(), String>;

    /// When it wants to speak next without having heard anything; `None` for only after that.
    fn speaks_at(&self, shared: &Self::Shared, now_ns: u64) -> Option<u64>;

    /// Whether nothing is left to say or hear.
    fn is_done(&self, shared: &Self::Shared, now_ns: u64) -> bool;

    /// The connection ended while answers were outstanding.
    fn lost(&mut self, shared: &mut Self::Shared, now_ns: u64, reason: &str);
}

/// One answer's frame, borrowed from the read buffer.
pub(crate) struct Answer<'a> {
    pub(crate) opcode: u8,
    pub(crate) request_id: u64,
    pub(crate) body: &'a [u8],
}

/// One connection and what is said on it.
pub(crate) struct Line<D> {
    stream: TcpStream,
    pub(crate) dialogue: D,
    input: Input,
    out: Vec<u8>,
    written: usize,
    is_over: bool,
}

/// Connects and shakes hands; the socket is then ready for [`run`].
pub(crate) fn dial(addr: &str, token: Option<&str>) -> Result<(TcpStream, Welcome), LoadError> {
    let failed = |reason: String| LoadError::Connect { addr: addr.to_owned(), reason };
    let io = |error: std::io::Error| failed(error.to_string());
    let mut stream = TcpStream::connect(addr).map_err(io)?;
    stream.set_nodelay(true).map_err(io)?;
    stream.set_read_timeout(Some(CONNECT_TIMEOUT)).map_err(io)?;
    let token = match token {
        Some(text) => Some(
            Token::parse(Bytes::copy_from_slice(text.as_bytes()))
                .map_err(|error| failed(error.to_string()))?,
        ),
        None => None,
    };
    let hello = Hello {
        version_min: PROTOCOL_VERSION_MIN,
        version_max: PROTOCOL_VERSION,
        client: ShortText::lossy(concat!("onrush-load/", env!("CARGO_PKG_VERSION"))),
        token,
    };
    let mut out = BytesMut::new();
    Request::Hello(hello).encode_frame(0, &mut out);
    stream.write_all(&out).map_err(io)?;
    let mut buffer = BytesMut::new();
    loop {
        if let Some(found) =
            frame::decode(&mut buffer, FRAME_BYTES_MAX).map_err(|e| failed(e.to_string()))?
        {
            stream.set_nonblocking(true).map_err(io)?;
            return match Response::decode(found.opcode, found.body) {
                Ok(Response::Welcome(welcome)) => Ok((stream, welcome)),
                Ok(Response::Failure(failure)) => Err(failed(failure.message.to_string())),
                Ok(other) => Err(failed(format!("{:?} in answer to hello", other.opcode()))),
                Err(error) => Err(failed(error.to_string())),
            };
        }
        let mut piece = [0; 1024];
        let count = stream.read(&mut piece).map_err(io)?;
        if count == 0 {
            return Err(failed("closed during the handshake".to_owned()));
        }
        buffer.extend_from_slice(piece.get(..count).unwrap_or_default());
    }
}

impl<D: Dialogue> Line<D> {
    pub(crate) fn new(stream: TcpStream, dialogue: D) -> Self {
        let out = Vec::with_capacity(64 * 1024);
        Self { stream, dialogue, input: Input::new(), out, written: 0, is_over: false }
    }

    fn unwritten(&self) -> usize {
        self.out.len() - self.written
    }

    fn speak(&mut self, shared: &mut D::Shared, now_ns: u64) {
        if self.unwritten() < UNWRITTEN_BYTES_MAX {
            self.dialogue.speak(shared, now_ns, &mut self.out);
        }
    }

    /// Writes what the socket takes.
    fn write(&mut self) -> Result<(), String> {
        while self.unwritten() > 0 {
            match self.stream.write(self.out.get(self.written..).unwrap_or_default()) {
                Ok(0) => return Err("the socket takes nothing".to_owned()),
                Ok(count) => self.written += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.to_string()),
            }
        }
        if self.unwritten() == 0 {
            self.out.clear();
            self.written = 0;
        } else if self.written > UNWRITTEN_BYTES_MAX {
            self.out.drain(..self.written);
            self.written = 0;
        }
        Ok(())
    }

    /// Reads once and hands out every answer that is whole.
    fn read(&mut self, shared: &mut D::Shared, clock: Clock) -> Result<(), String> {
        match self.stream.read(self.input.room()) {
            Ok(0) => return Err("closed by the server".to_owned()),
            Ok(count) => self.input.filled(count),
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) =>
            {
                return Ok(());
            }
            Err(error) => return Err(error.to_string()),
        }
        // One reading of the clock for all answers of one read: they came together.
        let now_ns = clock.now_ns();
        while let Some(answer) = self.input.next_frame()? {
            self.dialogue.hear(shared, now_ns, &answer)?;
        }
        Ok(())
    }

    fn end(&mut self, shared: &mut D::Shared, now_ns: u64, reason: &str) {
        self.is_over = true;
        self.dialogue.lost(shared, now_ns, reason);
    }
}

/// Runs all lines until each is done, or until `give_up_ns`; whoever still waits then is lost.
pub(crate) fn run<D: Dialogue>(
    lines: &mut [Line<D>],
    shared: &mut D::Shared,
    clock: Clock,
    give_up_ns: u64,
) -> Result<(), LoadError> {
    loop {
        let now_ns = clock.now_ns();
        let mut wake_ns = give_up_ns;
        let mut is_any_left = false;
        for line in lines.iter_mut().filter(|line| !line.is_over) {
            line.speak(shared, now_ns);
            if let Err(reason) = line.write() {
                line.end(shared, now_ns, &reason);
                continue;
            }
            if line.dialogue.is_done(shared, now_ns) && line.unwritten() == 0 {
                line.is_over = true;
                continue;
            }
            is_any_left = true;
            wake_ns = wake_ns.min(line.dialogue.speaks_at(shared, now_ns).unwrap_or(u64::MAX));
        }
        if !is_any_left {
            return Ok(());
        }
        if now_ns >= give_up_ns {
            for line in lines.iter_mut().filter(|line| !line.is_over) {
                line.end(shared, now_ns, "no answer until the end of the run");
            }
            return Ok(());
        }
        // Lines spoke at `now_ns`; whatever became due since then is not slept over.
        let wait_ns = wake_ns.saturating_sub(clock.now_ns());
        for at in ready(lines, wait_ns)? {
            let Some(line) = lines.get_mut(at) else { continue };
            if let Err(reason) = line.read(shared, clock) {
                line.end(shared, clock.now_ns(), &reason);
            }
        }
    }
}

/// Waits until a line can be read, or written if it has something to write; at most `wait_ns`.
fn ready<D>(lines: &[Line<D>], wait_ns: u64) -> Result<Vec<usize>, LoadError> {
    let mut polled = Vec::with_capacity(lines.len());
    let mut places = Vec::with_capacity(lines.len());
    for (at, line) in lines.iter().enumerate().filter(|(_, line)| !line.is_over) {
        let is_blocked = line.out.len() > line.written;
        let wanted = if is_blocked { PollFlags::IN | PollFlags::OUT } else { PollFlags::IN };
        polled.push(PollFd::new(&line.stream, wanted));
        places.push(at);
    }
    wait_for(&mut polled, wait_ns)?;
    Ok(polled
        .iter()
        .zip(places)
        .filter(|(polled, _)| {
            polled.revents().intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR)
        })
        .map(|(_, at)| at)
        .collect())
}

/// `ppoll`, where being interrupted is the same as nothing having happened.
pub(crate) fn wait_for(polled: &mut [PollFd<'_>], wait_ns: u64) -> Result<(), LoadError> {
    let wait = Duration::from_nanos(wait_ns);
    let timeout = Timespec {
        tv_sec: i64::try_from(wait.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(wait.subsec_nanos()),
    };
    match poll(polled, Some(&timeout)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(LoadError::Io { doing: "polling", reason: error.to_string() }),
    }
}

/// A read buffer out of which whole frames are borrowed in place.
pub(crate) struct Input {
    buffer: Vec<u8>,
    from: usize,
    to: usize,
}

impl Input {
    pub(crate) fn new() -> Self {
        Self { buffer: vec![0; READ_BYTES], from: 0, to: 0 }
    }

    /// Where the next read goes: at least half the buffer, and the rest of a frame whose length
    /// is known.
    pub(crate) fn room(&mut self) -> &mut [u8] {
        let held = self.to - self.from;
        let whole = self.whole().unwrap_or(0).min(FRAME_BYTES_MAX + 4);
        if self.from > 0 && (held == 0 || self.to > self.buffer.len() / 2) {
            self.buffer.copy_within(self.from..self.to, 0);
            (self.from, self.to) = (0, held);
        }
        if self.buffer.len() < self.from + whole {
            self.buffer.resize(self.from + whole, 0);
        }
        self.buffer.get_mut(self.to..).unwrap_or_default()
    }

    pub(crate) fn filled(&mut self, count: usize) {
        self.to = (self.to + count).min(self.buffer.len());
    }

    /// How long the first frame is, as far as its length is there.
    fn whole(&self) -> Option<usize> {
        frame::frame_bytes(self.buffer.get(self.from..self.to)?)
    }

    /// The next whole frame, if it is there.
    pub(crate) fn next_frame(&mut self) -> Result<Option<Answer<'_>>, String> {
        let Some(whole) = self.whole() else { return Ok(None) };
        if !(FRAME_HEADER_BYTES..=FRAME_BYTES_MAX + 4).contains(&whole) {
            return Err(format!("a frame of {whole} bytes"));
        }
        if self.to - self.from < whole {
            return Ok(None);
        }
        let found = self.buffer.get(self.from..self.from + whole).unwrap_or_default();
        self.from += whole;
        let Some((head, body)) = found.split_first_chunk::<FRAME_HEADER_BYTES>() else {
            return Ok(None);
        };
        let &[_, _, _, _, opcode, _, _, _, i0, i1, i2, i3, i4, i5, i6, i7] = head;
        let request_id = u64::from_le_bytes([i0, i1, i2, i3, i4, i5, i6, i7]);
        Ok(Some(Answer { opcode, request_id, body }))
    }
}
