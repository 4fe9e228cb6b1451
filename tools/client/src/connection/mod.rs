//! One TCP connection with many requests under way at once.
//!
//! In: requests. Out: their answers, in whatever order the server gives them. A writer task packs
//! what is queued into as few writes as possible, a reader task hands answers out; the window of
//! the server's welcome bounds how many requests may be under way, and whoever comes beyond waits.
//! Called by [`crate::Client`], which reconnects and retries, and by tools that want neither.

mod outbox;
mod pending;
mod tasks;
#[cfg(feature = "tls")]
pub(crate) mod tls;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use onrush_protocol::frame::{self, Frame};
use onrush_protocol::request::{Hello, PushTerms, Token};
use onrush_protocol::response::{Receipts, Welcome};
use onrush_protocol::version::{PROTOCOL_VERSION, PROTOCOL_VERSION_MIN};
use onrush_protocol::{PartitionName, Qos, QueueName, Request, Response, ShortText, limits};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout, timeout_at};

use crate::error::Error;
use pending::Pending;

/// How a connection is opened and how long its requests may take.
#[derive(Clone, Debug)]
pub struct ConnectOptions {
    /// The secret for the server, if it wants one.
    pub token: Option<Token>,
    /// Name and version of this program, for the server's logs; 0 to 255 bytes, more is cut.
    pub client_name: String,
    /// Whether the connection is encrypted, and whom it trusts then.
    #[cfg(feature = "tls")]
    pub tls: Option<tls::Roots>,
    /// How long connecting and the handshake may take together.
    pub connect_timeout: Duration,
    /// How long a request may take from the call to its answer, waiting for a place in the
    /// window included.
    pub request_timeout: Duration,
}

impl Default for ConnectOptions {
    fn default() -> Self {
        Self {
            token: None,
            #[cfg(feature = "tls")]
            tls: None,
            client_name: concat!("onrush-client/", env!("CARGO_PKG_VERSION")).to_owned(),
            connect_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(30),
        }
    }
}

/// A connection. Cheap to clone; it closes when the last clone and the last request are gone.
///
/// Dropping the future of a request that was sent does not take the request back: the server
/// does it, its place in the window stays taken until the answer is there, and the answer is
/// thrown away. A future that was never polled has sent nothing.
#[derive(Clone)]
pub struct Connection {
    inner: Arc<Inner>,
}

struct Inner {
    welcome: Welcome,
    request_timeout: Duration,
    window: Arc<Semaphore>,
    pending: Arc<Pending>,
    outgoing: mpsc::UnboundedSender<Outgoing>,
    reader: AbortHandle,
    writer: AbortHandle,
}

/// Bytes of a push of one section before its batch, names aside: frame header, terms, and the
/// three length fields of the section.
const PUSH_HEAD_BYTES: usize = limits::FRAME_HEADER_BYTES + 15 + 6;

/// A frame for the writer: a head, and perhaps a batch that follows it uncopied.
struct Outgoing {
    head: Bytes,
    batch: Bytes,
}

impl Drop for Inner {
    fn drop(&mut self) {
        // The writer ends by itself once it has written what is queued.
        self.reader.abort();
    }
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection")
            .field("server", &self.inner.welcome.server)
            .field("closed", &self.is_closed())
            .finish_non_exhaustive()
    }
}

impl Connection {
    /// Connects to `addr` (host and port) and shakes hands.
    ///
    /// # Errors
    /// [`Error::Connect`] when nobody answers within `connect_timeout`, [`Error::Refused`] when
    /// the server does not want us.
    pub async fn connect(addr: &str, options: &ConnectOptions) -> Result<Self, Error> {
        let failed = |reason: String| Error::Connect { addr: addr.to_owned(), reason };
        let opened = timeout(options.connect_timeout, async {
            let stream =
                TcpStream::connect(addr).await.map_err(|error| failed(error.to_string()))?;
            // Frames are packed here already; holding them back would only add to their latency.
            stream.set_nodelay(true).map_err(|error| failed(error.to_string()))?;
            #[cfg(feature = "tls")]
            if let Some(roots) = &options.tls {
                let stream = tls::encrypt(stream, addr, roots).await.map_err(failed)?;
                let (read, write) = tokio::io::split(stream);
                return Self::shake_hands(read, write, options).await;
            }
            let (read, write) = stream.into_split();
            Self::shake_hands(read, write, options).await
        });
        match opened.await {
            Ok(Err(Error::Disconnected { reason, .. })) => Err(failed(reason)),
            Ok(result) => result,
            Err(_) => {
                Err(failed(format!("no welcome in {} ms", options.connect_timeout.as_millis())))
            }
        }
    }

    /// Shakes hands over a stream that is already there, for tests and tunnels.
    ///
    /// # Errors
    /// As [`Self::connect`].
    pub async fn over<S>(stream: S, options: &ConnectOptions) -> Result<Self, Error>
    where
        S: AsyncRead + AsyncWrite + Send + 'static,
    {
        let (read, write) = tokio::io::split(stream);
        match timeout(options.connect_timeout, Self::shake_hands(read, write, options)).await {
            Ok(result) => result,
            Err(_) => Err(Error::TimedOut { waited: options.connect_timeout, sent: false }),
        }
    }

    async fn shake_hands<R, W>(
        mut read: R,
        mut write: W,
        options: &ConnectOptions,
    ) -> Result<Self, Error>
    where
        R: AsyncRead + Unpin + Send + 'static,
        W: AsyncWrite + Unpin + Send + 'static,
    {
        let hello = Hello {
            version_min: PROTOCOL_VERSION_MIN,
            version_max: PROTOCOL_VERSION,
            client: ShortText::lossy(&options.client_name),
            token: options.token.clone(),
        };
        let mut buffer = BytesMut::with_capacity(tasks::READ_BYTES);
        Request::Hello(hello).encode_frame(0, &mut buffer);
        tasks::write_all(&mut write, buffer.split().freeze()).await?;
        let frame = tasks::read_frame(&mut read, &mut buffer).await?;
        let welcome = match Response::decode(frame.opcode, frame.body)? {
            Response::Welcome(welcome) => welcome,
            Response::Failure(failure) => return Err(failure.into()),
            other => return Err(mismatch("hello", &other)),
        };
        let window = (welcome.in_flight_max.max(1) as usize).min(Semaphore::MAX_PERMITS);
        let pending = Arc::new(Pending::new());
        let (outgoing, queue) = mpsc::unbounded_channel();
        let reader = tokio::spawn(tasks::read_answers(read, buffer, Arc::clone(&pending)));
        let writer = tokio::spawn(tasks::write_requests(write, queue, Arc::clone(&pending)));
        Ok(Self {
            inner: Arc::new(Inner {
                welcome,
                request_timeout: options.request_timeout,
                window: Arc::new(Semaphore::new(window)),
                pending,
                outgoing,
                reader: reader.abort_handle(),
                writer: writer.abort_handle(),
            }),
        })
    }

    /// What the server said when it took the connection: versions, sizes, the window.
    #[must_use]
    pub fn welcome(&self) -> &Welcome {
        &self.inner.welcome
    }

    /// Whether the connection has ended; every request then fails at once.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.inner.pending.has_ended()
    }

    /// How many more requests may be sent now without waiting for an answer first.
    #[must_use]
    pub fn window_left(&self) -> usize {
        self.inner.window.available_permits()
    }

    /// Ends the connection now: whoever waits gets [`Error::Disconnected`].
    pub fn close(&self) {
        self.inner.pending.end("closed by this side");
        self.inner.reader.abort();
        self.inner.writer.abort();
    }

    /// Sends a request and waits for its answer, at most `request_timeout`.
    ///
    /// # Errors
    /// [`Error::Refused`] when the answer is a failure; [`Error::TimedOut`] and
    /// [`Error::Disconnected`] say whether the request may have reached the server.
    pub async fn request(&self, request: &Request) -> Result<Response, Error> {
        self.request_within(request, self.inner.request_timeout).await
    }

    /// As [`Self::request`] with a limit of its own, as for pops that wait at the server.
    ///
    /// # Errors
    /// As [`Self::request`].
    pub async fn request_within(
        &self,
        request: &Request,
        limit: Duration,
    ) -> Result<Response, Error> {
        let deadline = Deadline::after(limit);
        let mut body = BytesMut::new();
        request.encode(&mut body);
        self.check_size(limits::FRAME_LENGTH_MIN + body.len())?;
        let (id, answer) = self.reserve(deadline).await?;
        let head = frame::header(request.opcode().number(), id, body.len());
        self.send(Outgoing { head: Bytes::copy_from_slice(&head), batch: body.freeze() })?;
        let frame = self.answer(answer, deadline).await?;
        match Response::decode(frame.opcode, frame.body)? {
            Response::Failure(failure) => Err(failure.into()),
            response => Ok(response),
        }
    }

    /// Pushes a ready record batch to one partition: the short way for load generators. The batch
    /// is not looked at and not copied. Pushes that one task polls one after the other enter a
    /// partition in that order, as long as the window has room for them.
    ///
    /// # Errors
    /// As [`Self::request`]. A section that was refused is not an error here: see the receipts.
    pub fn push_raw(
        &self,
        queue: &QueueName,
        partition: &PartitionName,
        qos: Qos,
        batch: Bytes,
    ) -> impl Future<Output = Result<Receipts, Error>> + Send + 'static {
        let terms = PushTerms { qos, ..PushTerms::default() };
        let (connection, queue, partition) = (self.clone(), queue.clone(), partition.clone());
        async move { connection.push_batch(&queue, &partition, terms, batch).await }
    }

    /// As [`Self::push_raw`], with all terms.
    ///
    /// # Errors
    /// As [`Self::push_raw`].
    pub async fn push_batch(
        &self,
        queue: &QueueName,
        partition: &PartitionName,
        terms: PushTerms,
        batch: Bytes,
    ) -> Result<Receipts, Error> {
        let deadline = Deadline::after(self.inner.request_timeout);
        let head_bytes = PUSH_HEAD_BYTES + queue.as_bytes().len() + partition.as_bytes().len();
        self.check_size(head_bytes + batch.len() - 4)?;
        let (id, answer) = self.reserve(deadline).await?;
        let mut head = BytesMut::with_capacity(head_bytes);
        terms.encode_single(id, queue, partition, batch.len(), &mut head);
        self.send(Outgoing { head: head.freeze(), batch })?;
        let frame = self.answer(answer, deadline).await?;
        match Response::decode(frame.opcode, frame.body)? {
            Response::Receipts(receipts) => Ok(receipts),
            Response::Failure(failure) => Err(failure.into()),
            other => Err(mismatch("push", &other)),
        }
    }

    /// Waits for a place in the window and takes a number.
    async fn reserve(&self, deadline: Deadline) -> Result<(u64, Answer), Error> {
        let place = timeout_at(deadline.at, Arc::clone(&self.inner.window).acquire_owned())
            .await
            .map_err(|_| Error::TimedOut { waited: deadline.limit, sent: false })?
            .map_err(|_| Error::Disconnected { reason: "closed".to_owned(), sent: false })?;
        self.inner.pending.register(place)
    }

    /// Refuses a frame that the server would not take, before a place is taken for it.
    fn check_size(&self, length: usize) -> Result<(), Error> {
        let (value, max) = (length as u64, u64::from(self.inner.welcome.frame_bytes_max));
        if value > max {
            return Err(Error::Value { field: "frame", value, min: 0, max });
        }
        Ok(())
    }

    fn send(&self, outgoing: Outgoing) -> Result<(), Error> {
        self.inner.outgoing.send(outgoing).map_err(|_| Error::Disconnected {
            reason: "the writer has ended".to_owned(),
            sent: false,
        })
    }

    async fn answer(&self, answer: Answer, deadline: Deadline) -> Result<Frame, Error> {
        match timeout_at(deadline.at, answer).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => {
                Err(Error::Disconnected { reason: "the reader has ended".to_owned(), sent: true })
            }
            Err(_) => {
                // Not a byte from the server in all that time: the line is dead, and whoever
                // comes next should not wait as long to find out.
                if !self.inner.pending.heard_since(deadline.from) {
                    self.close();
                }
                Err(Error::TimedOut { waited: deadline.limit, sent: true })
            }
        }
    }
}

type Answer = oneshot::Receiver<Result<Frame, Error>>;

/// Later than any request is waited for; what a limit beyond the clock's range comes to.
const FAR: Duration = Duration::from_secs(365 * 24 * 3600);

#[derive(Clone, Copy)]
struct Deadline {
    from: Instant,
    at: Instant,
    limit: Duration,
}

impl Deadline {
    fn after(limit: Duration) -> Self {
        let from = Instant::now();
        let at = from.checked_add(limit).unwrap_or(from + FAR);
        Self { from, at, limit }
    }
}

/// An answer of the wrong kind.
pub(crate) fn mismatch(asked: &str, answer: &Response) -> Error {
    Error::Protocol(format!("{:?} in answer to {asked}", answer.opcode()))
}
