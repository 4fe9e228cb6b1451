//! HTTP to one server: a request, then its answer, over one connection that is kept while it lasts.
//!
//! In: method, path, perhaps a body. Out: the body of the answer, or a fault: nobody there, no answer, or a
//! refusal in the server's words. Nothing is tried twice. Called through `session`.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::fault::{Fault, Refusal};
use crate::target::Target;

/// How long connecting may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Largest answer that is read, bytes.
const ANSWER_BYTES_MAX: usize = 256 * 1024 * 1024;
/// What stands for itself in paths and queries.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// A path below `/api/v1`, each segment encoded.
pub(crate) fn path(segments: &[&str]) -> String {
    let mut path = String::from("/api/v1");
    for segment in segments {
        path.push('/');
        path.extend(utf8_percent_encode(segment, ENCODED));
    }
    path
}

/// A path and parameters behind it; those without a value are left out.
pub(crate) fn query<const N: usize>(path: &str, parameters: [(&str, Option<String>); N]) -> String {
    let mut out = path.to_owned();
    let mut mark = '?';
    for (name, value) in parameters {
        let Some(value) = value else { continue };
        out.push(mark);
        out.push_str(name);
        out.push('=');
        out.extend(utf8_percent_encode(&value, ENCODED));
        mark = '&';
    }
    out
}

/// The way to one server.
pub(crate) struct Http {
    target: Target,
    /// Longest that an answer may take.
    limit: Duration,
    sender: Option<SendRequest<Full<Bytes>>>,
}

impl Http {
    pub(crate) fn new(target: Target, limit: Duration) -> Self {
        Self { target, limit, sender: None }
    }

    /// One request; the body of its answer.
    pub(crate) async fn ask(
        &mut self,
        method: Method,
        path: &str,
        body: Vec<u8>,
    ) -> Result<Bytes, Fault> {
        let (status, body) = self.ask_any(method, path, body).await?;
        if status.is_success() { Ok(body) } else { Err(self.refused(status, &body)) }
    }

    /// One request; its answer, whatever it says.
    pub(crate) async fn ask_any(
        &mut self,
        method: Method,
        path: &str,
        body: Vec<u8>,
    ) -> Result<(StatusCode, Bytes), Fault> {
        let is_safe = method == Method::GET;
        let place = self.target.http.to_string();
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.target.http.base))
            .header(HOST, self.target.http.addr())
            .header(CONTENT_TYPE, "application/json");
        if let Some(token) = &self.target.token {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        let request = request
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| Fault::usage(format!("this makes no request: {error}")))?;
        let limit = self.limit;
        let mut sender = self.sender().await?;
        let answered = timeout(limit, async {
            let answer = sender.send_request(request).await.map_err(|error| words(&error))?;
            let status = answer.status();
            let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
            let body = body.map_err(|error| error.to_string())?;
            Ok::<_, String>((status, body.to_bytes()))
        });
        let reason = match answered.await {
            Ok(Ok(answer)) => {
                self.sender = Some(sender);
                return Ok(answer);
            }
            Ok(Err(reason)) => reason,
            Err(_) => format!("nothing within {} ms", limit.as_millis()),
        };
        let hint = HTTP_HINT.to_owned();
        Err(match is_safe {
            true => Fault::Unreachable { place, reason, hint },
            false => Fault::Unanswered { place, reason },
        })
    }

    /// A connection on which a request can be sent.
    async fn sender(&mut self) -> Result<SendRequest<Full<Bytes>>, Fault> {
        if let Some(mut sender) = self.sender.take()
            && sender.ready().await.is_ok()
        {
            return Ok(sender);
        }
        let place = &self.target.http;
        let unreachable = |reason: String| Fault::Unreachable {
            place: place.to_string(),
            reason,
            hint: HTTP_HINT.to_owned(),
        };
        let connected = timeout(CONNECT_TIMEOUT, async {
            let stream =
                TcpStream::connect(place.addr()).await.map_err(|error| error.to_string())?;
            stream.set_nodelay(true).map_err(|error| error.to_string())?;
            match &self.target.roots {
                None => begin(stream).await,
                Some(roots) => {
                    let stream = roots.encrypt(stream, &place.addr()).await;
                    begin(stream.map_err(|error| error.to_string())?).await
                }
            }
        });
        match connected.await {
            Ok(sender) => sender.map_err(unreachable),
            Err(_) => {
                Err(unreachable(format!("no connection within {} s", CONNECT_TIMEOUT.as_secs())))
            }
        }
    }

    /// What an answer that says no means.
    fn refused(&self, status: StatusCode, body: &[u8]) -> Fault {
        match serde_json::from_slice::<Refusal>(body) {
            Ok(refusal) => Fault::Refused(refusal),
            Err(_) => Fault::Foreign {
                place: self.target.http.to_string(),
                reason: format!("HTTP status {}", status.as_u16()),
            },
        }
    }
}

const HTTP_HINT: &str =
    "is the server running? --server, ONRUSH_SERVER or a context say where it is";

async fn begin<S>(stream: S) -> Result<SendRequest<Full<Bytes>>, String>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (sender, connection) =
        handshake(TokioIo::new(stream)).await.map_err(|error| words(&error))?;
    // Its errors show at the sender.
    tokio::spawn(async move { drop(connection.await) });
    Ok(sender)
}

/// An error with what is behind it: hyper's own text names the stage only.
fn words(error: &hyper::Error) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_encoded_wherever_they_stand() {
        assert_eq!(path(&["queues", "a/b ä?", "clear"]), "/api/v1/queues/a%2Fb%20%C3%A4%3F/clear");
        assert_eq!(path(&["resources", "queues", ""]), "/api/v1/resources/queues/");
        let some = |text: &str| Some(text.to_owned());
        let asked = query("/x", [("a", None), ("b", some("1&2")), ("c", some("d=e"))]);
        assert_eq!(asked, "/x?b=1%262&c=d%3De");
    }
}
