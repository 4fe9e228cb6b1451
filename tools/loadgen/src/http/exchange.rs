//! One HTTP/1.1 connection that is kept alive: a request, then its answer.
//!
//! In: method, path, body. Out: status and body. A connection that ends is an error; it is not
//! made again, because a run that goes on with less is not the run that was asked for. Called by
//! producers, consumers and the setting up.

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::error::LoadError;

/// A connection to the server's HTTP door.
pub(super) struct Exchange {
    sender: SendRequest<Full<Bytes>>,
    addr: String,
    bearer: Option<String>,
}

/// What the server said.
pub(super) struct Reply {
    pub(super) status: StatusCode,
    pub(super) body: Bytes,
}

impl Reply {
    /// A status that says no, in a few words.
    pub(super) fn refusal(&self) -> Option<String> {
        #[derive(serde::Deserialize)]
        struct Refusal {
            code: Option<String>,
            error: Option<String>,
        }
        if self.status.is_success() {
            return None;
        }
        let said: Option<Refusal> = serde_json::from_slice(&self.body).ok();
        let said = said.and_then(|said| said.code.or(said.error)).unwrap_or_default();
        Some(format!("{} {said}", self.status.as_u16()))
    }
}

impl Exchange {
    /// Connects; must be called within a local set, where the connection's task lives.
    pub(super) async fn connect(addr: &str, token: Option<&str>) -> Result<Self, LoadError> {
        let failed = |reason: String| LoadError::Connect { addr: addr.to_owned(), reason };
        let stream = TcpStream::connect(addr).await.map_err(|error| failed(error.to_string()))?;
        stream.set_nodelay(true).map_err(|error| failed(error.to_string()))?;
        let (sender, connection) =
            handshake(TokioIo::new(stream)).await.map_err(|error| failed(error.to_string()))?;
        // Its errors show at the sender.
        tokio::task::spawn_local(async move { drop(connection.await) });
        let bearer = token.map(|token| format!("Bearer {token}"));
        Ok(Self { sender, addr: addr.to_owned(), bearer })
    }

    /// One request; waits for the whole answer.
    pub(super) async fn ask(
        &mut self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<Reply, String> {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, &self.addr)
            .header(CONTENT_TYPE, "application/json");
        if let Some(bearer) = &self.bearer {
            request = request.header(AUTHORIZATION, bearer);
        }
        let request = request.body(Full::new(body)).map_err(|error| error.to_string())?;
        self.sender.ready().await.map_err(|error| error.to_string())?;
        let answer = self.sender.send_request(request).await.map_err(|error| error.to_string())?;
        let status = answer.status();
        let body = answer.into_body().collect().await.map_err(|error| error.to_string())?;
        Ok(Reply { status, body: body.to_bytes() })
    }
}
