//! The hello of a connection: which version is spoken, and who it is.
//!
//! In: a hello. Out: somebody known and the welcome for them, or why they may not come in. Finding out
//! may wait for a key server; nothing else of the connection is read meanwhile. Called by `connection`.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use onrush_protocol::code::Code;
use onrush_protocol::request::{Hello, Token};
use onrush_protocol::response::{Failure, Welcome};
use onrush_protocol::text::ShortText;
use onrush_protocol::version;

use crate::wire::Rooms;
use crate::wire::auth::{Auth, Caller, Denied};
use crate::wire::tcp::{Config, failure};

/// A hello that is being looked into.
pub(super) type Greeting = Pin<Box<dyn Future<Output = Known> + Send>>;

/// What became of it.
pub(super) struct Known {
    pub(super) request_id: u64,
    /// The version that is spoken from here on.
    pub(super) version: u16,
    pub(super) who: Result<Caller, Denied>,
}

/// Hears a hello.
///
/// # Errors
/// The answer to a client that speaks no version of ours.
pub(super) fn hear(auth: &Arc<Auth>, request_id: u64, hello: Hello) -> Result<Greeting, Failure> {
    let version = version::negotiate(hello.version_min, hello.version_max).map_err(|error| {
        let failure = failure::plain(Code::UnsupportedVersion, &error);
        failure.blaming("version", u64::from(version::PROTOCOL_VERSION))
    })?;
    let auth = Arc::clone(auth);
    Ok(Box::pin(async move {
        let who = auth.identify(hello.token.as_ref().map(Token::as_bytes)).await;
        Known { request_id, version, who }
    }))
}

/// What somebody who came in is told.
pub(super) fn welcome(rooms: &Rooms, config: &Config, version: u16) -> Welcome {
    let limits = rooms.ingest.limits();
    Welcome {
        version,
        server: ShortText::lossy(concat!("onrush ", env!("CARGO_PKG_VERSION"))),
        frame_bytes_max: config.frame_bytes_max as u32,
        batch_bytes_max: limits.batch_bytes_max as u32,
        message_bytes_max: limits.message_bytes_max as u32,
        in_flight_max: config.in_flight_max,
        store: ShortText::lossy(config.store),
        durability: ShortText::lossy(config.durability),
    }
}
