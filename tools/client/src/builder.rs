//! What a client can be told before it starts, with defaults.
//!
//! In: settings. Out: a [`Client`], connected or not yet. Called by users.

use std::time::Duration;

use bytes::Bytes;
use onrush_protocol::NameError;
use onrush_protocol::request::Token;

use crate::backoff::Backoff;
use crate::breaker::Breaker;
use crate::client::Client;
use crate::connection::ConnectOptions;
#[cfg(feature = "tls")]
use crate::connection::tls::Roots;
use crate::error::Error;
use crate::session::Session;

/// Settings of a client. Every default is named at its setter.
#[derive(Clone, Debug)]
pub struct ClientBuilder {
    addr: String,
    token: Result<Option<Token>, NameError>,
    options: ConnectOptions,
    retries: u32,
    backoff: Backoff,
    breaker_threshold: u32,
    breaker_timeout: Duration,
}

impl Default for ClientBuilder {
    fn default() -> Self {
        Self {
            addr: "127.0.0.1:6631".to_owned(),
            token: Ok(None),
            options: ConnectOptions::default(),
            retries: 3,
            backoff: Backoff::default(),
            breaker_threshold: 5,
            breaker_timeout: Duration::from_secs(60),
        }
    }
}

impl ClientBuilder {
    /// Host and port. Default: `127.0.0.1:6631`.
    #[must_use]
    pub fn addr(mut self, addr: &str) -> Self {
        addr.clone_into(&mut self.addr);
        self
    }

    /// The secret that the server wants, 1 to 4096 bytes. Default: none.
    #[must_use]
    pub fn token(mut self, token: &str) -> Self {
        self.token = Token::parse(Bytes::copy_from_slice(token.as_bytes())).map(Some);
        self
    }

    /// Encrypts the connection, to a server whose certificate is signed by one of these for the host
    /// in the address. Default: not encrypted.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn tls(mut self, roots: Roots) -> Self {
        self.options.tls = Some(roots);
        self
    }

    /// Name of this program for the server's logs, cut at 255 bytes. Default: this crate's.
    #[must_use]
    pub fn client_name(mut self, name: &str) -> Self {
        name.clone_into(&mut self.options.client_name);
        self
    }

    /// How long connecting and the handshake may take. Default: 5 s.
    #[must_use]
    pub fn connect_timeout(mut self, limit: Duration) -> Self {
        self.options.connect_timeout = limit;
        self
    }

    /// How long one attempt of a request may take, from the call to its answer. A pop's own
    /// waiting time comes on top. Default: 30 s.
    #[must_use]
    pub fn request_timeout(mut self, limit: Duration) -> Self {
        self.options.request_timeout = limit;
        self
    }

    /// How often a request is tried again when that can help and cannot do it twice. Default: 3.
    #[must_use]
    pub fn retries(mut self, retries: u32) -> Self {
        self.retries = retries;
        self
    }

    /// How long it waits between: a random part of `base`, `2 base`, `4 base` … up to `max`.
    /// Default: 1 s up to 30 s.
    #[must_use]
    pub fn backoff(mut self, base: Duration, max: Duration) -> Self {
        self.backoff = Backoff { base, max };
        self
    }

    /// After how many failures in a row nothing is sent any more, and for how long. 0 failures
    /// turns the breaker off. Default: 5 failures, 60 s.
    #[must_use]
    pub fn circuit_breaker(mut self, failures: u32, timeout: Duration) -> Self {
        self.breaker_threshold = failures;
        self.breaker_timeout = timeout;
        self
    }

    /// A client that connects with its first request.
    ///
    /// # Errors
    /// [`Error::Name`] for a token of a length that none may have.
    pub fn build(self) -> Result<Client, Error> {
        let mut options = self.options;
        options.token = self.token?;
        let breaker = Breaker::new(self.breaker_threshold, self.breaker_timeout);
        let session = Session::new(self.addr, options);
        Ok(Client::assemble(session, self.retries, self.backoff, breaker))
    }

    /// A client that is connected. One attempt is made.
    ///
    /// # Errors
    /// As [`Self::build`], and [`Error::Connect`] when nobody answers in time.
    pub async fn connect(self) -> Result<Client, Error> {
        let client = self.build()?;
        client.connection().await?;
        Ok(client)
    }
}
