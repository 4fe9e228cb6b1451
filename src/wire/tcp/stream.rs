//! A connection's bytes, encrypted or not, for a task that asks what is ready and never waits for
//! one direction alone.
//!
//! In: a socket, perhaps with a TLS session over it. Out: reads and writes that say `WouldBlock`
//! instead of waiting, and one wait for whatever is wanted. Without a session every call is the
//! socket's own. Called by `connection`.

use std::io::{self, BufRead, ErrorKind, IoSlice, Read, Write};

use bytes::BytesMut;
use rustls::ServerConnection;
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

/// Bytes that wait to be encrypted or written, at most; more is asked for again.
const WAITING_BYTES_MAX: usize = 256 * 1024;

/// One connection's bytes.
pub(super) enum Stream {
    /// As they come.
    Plain(TcpStream),
    /// Encrypted.
    Encrypted(Box<Encrypted>),
}

/// A socket with a session over it.
pub(super) struct Encrypted {
    socket: TcpStream,
    session: ServerConnection,
    /// Bytes that are decrypted and not yet read.
    unread: usize,
}

impl Stream {
    /// The stream of a session that has agreed on keys.
    pub(super) fn encrypted(stream: TlsStream<TcpStream>) -> io::Result<Self> {
        let (socket, mut session) = stream.into_inner();
        session.set_buffer_limit(Some(WAITING_BYTES_MAX));
        let unread = advance(&mut session)?;
        Ok(Self::Encrypted(Box::new(Encrypted { socket, session, unread })))
    }

    /// Waits until something that is wanted may go on; returns whether reading may. Waits for ever
    /// when nothing is wanted. Dropping the future is harmless.
    pub(super) async fn ready(&self, reads: bool, writes: bool) -> io::Result<bool> {
        let (socket, holds, owes) = match self {
            Self::Plain(socket) => (socket, false, false),
            Self::Encrypted(it) => (&it.socket, it.unread > 0, it.session.wants_write()),
        };
        if reads && holds {
            return Ok(true);
        }
        let interest = match (reads, writes || owes) {
            (true, true) => Interest::READABLE | Interest::WRITABLE,
            (true, false) => Interest::READABLE,
            (false, true) => Interest::WRITABLE,
            (false, false) => return std::future::pending().await,
        };
        Ok(socket.ready(interest).await?.is_readable() && reads)
    }

    /// Reads what is there into `input`; 0 at the stream's end.
    pub(super) fn try_read(&mut self, input: &mut BytesMut) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.try_read_buf(input),
            Self::Encrypted(it) => it.try_read(input),
        }
    }

    /// Writes what is taken now; more than 0 bytes or an error.
    pub(super) fn try_write(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.try_write_vectored(parts),
            Self::Encrypted(it) => it.try_write(parts),
        }
    }

    /// Writes what was taken and waits to leave; whether all of it has left.
    pub(super) fn try_flush(&mut self) -> io::Result<bool> {
        match self {
            Self::Plain(_) => Ok(true),
            Self::Encrypted(it) => it.try_flush(),
        }
    }

    /// Tells the other side that nothing more comes, as far as that can be done at once.
    pub(super) fn close(&mut self) {
        if let Self::Encrypted(it) = self {
            it.session.send_close_notify();
            // Whoever is gone need not be told.
            let _ = it.try_flush();
        }
    }
}

impl Encrypted {
    fn try_read(&mut self, input: &mut BytesMut) -> io::Result<usize> {
        while self.unread == 0 {
            if self.session.read_tls(&mut Socket(&self.socket))? == 0 {
                return Ok(0);
            }
            self.unread = advance(&mut self.session)?;
        }
        let mut read = 0;
        while self.unread > 0 {
            let mut reader = self.session.reader();
            let bytes = match reader.fill_buf() {
                Ok(bytes) => bytes.len().min(self.unread),
                Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
                Err(error) => return Err(error),
            };
            if bytes == 0 {
                self.unread = 0;
                break;
            }
            input.extend_from_slice(reader.fill_buf()?.get(..bytes).unwrap_or_default());
            reader.consume(bytes);
            self.unread -= bytes;
            read += bytes;
        }
        if read == 0 { Err(ErrorKind::WouldBlock.into()) } else { Ok(read) }
    }

    fn try_write(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        self.try_flush()?;
        let taken = self.session.writer().write_vectored(parts)?;
        self.try_flush()?;
        if taken == 0 { Err(ErrorKind::WouldBlock.into()) } else { Ok(taken) }
    }

    fn try_flush(&mut self) -> io::Result<bool> {
        while self.session.wants_write() {
            match self.session.write_tls(&mut Socket(&self.socket)) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }
}

/// Decrypts what came; returns how much of it can be read.
fn advance(session: &mut ServerConnection) -> io::Result<usize> {
    let state = session.process_new_packets();
    let state = state.map_err(|error| io::Error::new(ErrorKind::InvalidData, error))?;
    Ok(state.plaintext_bytes_to_read())
}

/// A socket as the session knows one: it does what can be done at once.
struct Socket<'a>(&'a TcpStream);

impl Read for Socket<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.try_read(buffer)
    }
}

impl Write for Socket<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(parts)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
