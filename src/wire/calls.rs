//! Calls of servers elsewhere that processes ask for, over HTTP.
//!
//! In: a call. Out: what its server said, whatever that was. Called by the room of processes.

use std::time::Duration;

use hyper::Method;
use hyper::header::{ACCEPT, CONTENT_TYPE, HeaderName, HeaderValue, USER_AGENT};

use crate::process::effects::{Answer, Answering, Outside, Request};
use crate::wire::fetch::{self, Address, Said};

/// What every attempt of one call says alike, so that its server can tell it from another call.
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// Asks servers over HTTP.
#[derive(Clone, Copy, Debug, Default)]
pub struct Caller;

impl Outside for Caller {
    fn call(&self, request: Request, within: Duration) -> Answering {
        Box::pin(async move {
            let address = Address::parse(&request.url).map_err(|_| "no http or https address")?;
            let method = Method::from_bytes(request.method.as_bytes());
            let method = method.map_err(|error| error.to_string())?;
            let kind =
                if request.is_bytes { "application/octet-stream" } else { "application/json" };
            let id = HeaderValue::from_str(&request.id).map_err(|error| error.to_string())?;
            let mut headers = vec![
                (ACCEPT, HeaderValue::from_static("application/json, */*")),
                (USER_AGENT, HeaderValue::from_static("onrush")),
                (IDEMPOTENCY_KEY, id),
            ];
            let body = if method == Method::GET { Default::default() } else { request.body };
            if method != Method::GET {
                headers.push((CONTENT_TYPE, HeaderValue::from_static(kind)));
            }
            let said = Said { method, headers, body };
            let fetch::Answer { status, content_type, body } =
                fetch::ask(&address, said, within).await?;
            Ok(Answer { status, content_type, body })
        })
    }
}
