//! One command's talk with one server.
//!
//! In: who the server is and how answers are wanted. Out: requests over HTTP, and a client of the binary
//! protocol where messages are moved; neither connects before it is needed. Called by every command that
//! needs a server.

use std::time::Duration;

use bytes::Bytes;
use hyper::Method;
use onrush_client::{Client, Error};
use serde::Serialize;

use crate::confirm;
use crate::fault::Fault;
use crate::http::Http;
use crate::output::{Output, to_json};
use crate::target::Target;

/// What a command has at hand.
pub(crate) struct Session {
    pub(crate) output: Output,
    pub(crate) target: Target,
    pub(crate) http: Http,
    timeout: Duration,
    /// Whether `--yes` was said.
    is_meant: bool,
    client: Option<Client>,
}

impl Session {
    pub(crate) fn new(output: Output, target: Target, timeout: Duration, is_meant: bool) -> Self {
        let http = Http::new(target.clone(), timeout);
        Self { output, target, http, timeout, is_meant, client: None }
    }

    pub(crate) async fn get(&mut self, path: &str) -> Result<Bytes, Fault> {
        self.http.ask(Method::GET, path, Vec::new()).await
    }

    pub(crate) async fn post(&mut self, path: &str, body: &impl Serialize) -> Result<Bytes, Fault> {
        let body = to_json(body)?;
        self.http.ask(Method::POST, path, body).await
    }

    pub(crate) async fn delete(&mut self, path: &str) -> Result<Bytes, Fault> {
        self.http.ask(Method::DELETE, path, Vec::new()).await
    }

    /// Asks for leave to do something that cannot be taken back.
    pub(crate) fn confirm(&self, what: &str) -> Result<(), Fault> {
        confirm::confirm(self.is_meant, what)
    }

    /// The client of the binary protocol, connected. One attempt is made.
    pub(crate) async fn client(&mut self) -> Result<Client, Fault> {
        if let Some(client) = &self.client {
            return Ok(client.clone());
        }
        let mut builder = Client::builder()
            .addr(&self.target.tcp)
            .client_name(concat!("onrushctl/", env!("CARGO_PKG_VERSION")))
            .request_timeout(self.timeout);
        if let Some(token) = &self.target.token {
            builder = builder.token(token);
        }
        if let Some(roots) = &self.target.roots {
            builder = builder.tls(roots.clone());
        }
        let client = builder.connect().await.map_err(|error| self.fault(&error))?;
        self.client = Some(client.clone());
        Ok(client)
    }

    /// What an error of that client means.
    pub(crate) fn fault(&self, error: &Error) -> Fault {
        Fault::of_client(error, &format!("tcp://{}", self.target.tcp))
    }
}
