//! From a request to the one function that answers it.
//!
//! In: method, path and headers. Out: an answer, always: a refusal is one too. The routes of the
//! message path are matched here by hand; all others go to a router. Under `/queen` everything is
//! said in Queen's dialect, at the root in the configured one. Called by `listen`, per request.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::{ACCEPT, AUTHORIZATION, EXPECT, HeaderName, IF_MATCH, IF_NONE_MATCH, ORIGIN};
use hyper::http::request::Parts;
use hyper::{Method, Request, StatusCode};
use onrush_protocol::code::Code;
use tower::ServiceExt;

use crate::wire::auth::role::Level;
use crate::wire::auth::{Caller, Denied};
use crate::wire::http::body::{self, BodyLimits};
use crate::wire::http::push_pack::TRACEPARENT;
use crate::wire::http::status::{Answer, Failure};
use crate::wire::http::table::{Label, READ_WRITE, Row, Rules, Verb, hot};
use crate::wire::http::{Api, ack, discover, facade, facade_path, lease, pop, push, url};

/// The two ways in, the router behind them, and who may.
pub(super) struct Doors {
    pub(super) root: Arc<Api>,
    pub(super) queen: Arc<Api>,
    pub(super) router: Router,
    pub(super) rules: Rules,
}

/// Largest body of a route that is public, bytes: none of them takes any, and whoever asks is not known.
const PUBLIC_BODY_BYTES_MAX: usize = 4096;

/// The prefix of Queen's dialect.
pub(super) const QUEEN: &str = "/queen";

/// A route of the message path.
#[derive(Debug, Eq, PartialEq)]
enum Hot<'a> {
    Push,
    Pop { queue: &'a str, partition: Option<&'a str> },
    Discover,
    Ack,
    AckBatch,
    Extend { lease_id: &'a str },
}

const PUSH: Label = Label {
    verb: Verb::Post,
    path: "/api/v1/push",
    level: READ_WRITE,
    id: "push",
    summary: "Push messages, to any queues and partitions",
};
const POP_QUEUE: Label = Label {
    verb: Verb::Get,
    path: "/api/v1/pop/queue/{queue}",
    level: READ_WRITE,
    id: "popQueue",
    summary: "Pop from any partition of a queue",
};
const POP_PARTITION: Label = Label {
    verb: Verb::Get,
    path: "/api/v1/pop/queue/{queue}/partition/{partition}",
    level: READ_WRITE,
    id: "popPartition",
    summary: "Pop from one partition",
};
const DISCOVER: Label = Label {
    verb: Verb::Get,
    path: "/api/v1/pop",
    level: READ_WRITE,
    id: "popDiscovered",
    summary: "Pop from any queue of a namespace or task",
};
const ACK: Label = Label {
    verb: Verb::Post,
    path: "/api/v1/ack",
    level: READ_WRITE,
    id: "ack",
    summary: "Say what became of a message",
};
const ACK_BATCH: Label = Label {
    verb: Verb::Post,
    path: "/api/v1/ack/batch",
    level: READ_WRITE,
    id: "ackBatch",
    summary: "Say what became of many messages",
};
const EXTEND: Label = Label {
    verb: Verb::Post,
    path: "/api/v1/lease/{leaseId}/extend",
    level: READ_WRITE,
    id: "extendLease",
    summary: "Hold a lease for longer",
};

/// The routes of the message path.
pub(super) fn rows() -> Vec<Row> {
    [PUSH, POP_QUEUE, POP_PARTITION, DISCOVER, ACK, ACK_BATCH, EXTEND].map(hot).into()
}

impl Hot<'_> {
    /// Its row.
    fn label(&self) -> &'static Label {
        match self {
            Self::Push => &PUSH,
            Self::Pop { partition: None, .. } => &POP_QUEUE,
            Self::Pop { partition: Some(_), .. } => &POP_PARTITION,
            Self::Discover => &DISCOVER,
            Self::Ack => &ACK,
            Self::AckBatch => &ACK_BATCH,
            Self::Extend { .. } => &EXTEND,
        }
    }
}

impl Doors {
    /// The API that a path asks for, and the path inside of it.
    fn enter<'a>(&self, path: &'a str) -> (&Arc<Api>, &'a str) {
        match path.strip_prefix(QUEEN) {
            Some("") => (&self.queen, "/"),
            Some(rest) if rest.starts_with('/') => (&self.queen, rest),
            Some(_) | None => (&self.root, path),
        }
    }
}

/// Answers one request. Dropping the future takes nothing back that was done.
pub(super) async fn handle(doors: &Doors, request: Request<Incoming>) -> Answer {
    let (head, incoming) = request.into_parts();
    let cors = &doors.root.config.cors;
    if !cors.is_on() {
        return answer(doors, &head, incoming).await;
    }
    if let Some(answer) = cors.preflight(&head) {
        return answer;
    }
    let mut answer = answer(doors, &head, incoming).await;
    cors.mark(head.headers.get(ORIGIN), &mut answer);
    answer
}

async fn answer(doors: &Doors, head: &Parts, incoming: Incoming) -> Answer {
    let (api, path) = doors.enter(head.uri.path());
    let hot = find(&head.method, path);
    let theirs = match hot {
        Some(_) => None,
        None => facade_path::find(&head.method, path),
    };
    let level = match (&hot, &theirs) {
        (Some(hot), _) => hot.label().level,
        (None, Some(ask)) => ask.level(),
        (None, None) => doors.rules.level(&head.method, path),
    };
    // Where nobody is asked for a token, whoever sits at a browser would be lent to every page.
    if level != Level::Public && api.rooms.auth.is_open() && api.config.cors.is_foreign(head) {
        return foreign().answer();
    }
    let answered = match (admit(api, head, path, level).await, hot) {
        (Err(denied), _) => Err(Failure::new(denied.code(), denied.to_string())),
        (Ok(caller), Some(hot)) => take(api, head, hot, incoming, caller).await,
        (Ok(caller), None) => {
            let bytes_max = body_bytes_max(api, level);
            match (read_at_most(api, head, incoming, bytes_max).await, theirs) {
                (Ok(body), Some(ask)) => facade::answer(api, ask, head, &body, caller).await,
                (Ok(body), None) => Ok(forward(doors, head, body, caller).await),
                (Err(failure), _) => Err(failure),
            }
        }
    };
    answered.unwrap_or_else(|failure| failure.answer())
}

/// Lets a request in whose sender may do what it asks for.
async fn admit(
    api: &Api,
    head: &Parts,
    path: &str,
    level: Level,
) -> Result<Option<Caller>, Denied> {
    let auth = &api.rooms.auth;
    let level = auth.level(level, path);
    if level == Level::Public {
        return Ok(None);
    }
    let presented = head.headers.get(AUTHORIZATION).map(|value| value.as_bytes());
    auth.admit(presented.and_then(bearer), level).await
}

/// The token of a header. The scheme's name may be written in any case, or left out.
fn bearer(value: &[u8]) -> Option<&[u8]> {
    match value.split_at_checked(7) {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case(b"Bearer ") => {
            Some(token.trim_ascii())
        }
        // Another scheme has a blank behind its name, which no token has.
        _ => Some(value).filter(|value| !value.iter().any(u8::is_ascii_whitespace)),
    }
}

/// The route of the message path that this is.
fn find<'a>(method: &Method, path: &'a str) -> Option<Hot<'a>> {
    let rest = path.strip_prefix("/api/v1/")?;
    if method == Method::GET {
        if rest == "pop" {
            return Some(Hot::Discover);
        }
        let rest = rest.strip_prefix("pop/queue/")?;
        let (queue, partition) = match rest.split_once('/') {
            None => (rest, None),
            Some((queue, more)) => (queue, Some(more.strip_prefix("partition/")?)),
        };
        return partition
            .is_none_or(|name| !name.contains('/'))
            .then_some(Hot::Pop { queue, partition });
    }
    if method != Method::POST {
        return None;
    }
    match rest {
        "push" => Some(Hot::Push),
        "ack" => Some(Hot::Ack),
        "ack/batch" => Some(Hot::AckBatch),
        _ => {
            let lease_id = rest.strip_prefix("lease/")?.strip_suffix("/extend")?;
            (!lease_id.contains('/')).then_some(Hot::Extend { lease_id })
        }
    }
}

async fn take(
    api: &Arc<Api>,
    head: &Parts,
    hot: Hot<'_>,
    incoming: Incoming,
    caller: Option<Caller>,
) -> Result<Answer, Failure> {
    let left_ms = caller.as_ref().map_or(u64::MAX, |caller| api.rooms.auth.left_ms(caller));
    let query = head.uri.query().unwrap_or_default();
    match hot {
        Hot::Pop { queue, partition } => {
            let queue = url::segment(queue)?.parse()?;
            let partition = partition.map(url::segment).transpose()?;
            let partition = partition.map(|name| name.parse()).transpose()?;
            pop::pop(api, queue, partition, query, left_ms).await
        }
        Hot::Discover => discover::pop(api, query, left_ms).await,
        Hot::Push => {
            let origin = push::Origin::of(&head.headers, caller.and_then(|it| it.sub));
            push::push(api, &read(api, head, incoming).await?, origin).await
        }
        Hot::Ack => ack::ack(api, &read(api, head, incoming).await?).await,
        Hot::AckBatch => ack::ack_batch(api, &read(api, head, incoming).await?).await,
        Hot::Extend { lease_id } => {
            let lease_id = url::segment(lease_id)?;
            lease::extend(api, &lease_id, &read(api, head, incoming).await?).await
        }
    }
}

/// Hands a request to the router. A route that stores messages finds who sends them among the request's
/// extensions, where that is known.
async fn forward(doors: &Doors, head: &Parts, body: Bytes, caller: Option<Caller>) -> Answer {
    let mut request = Request::new(Body::from(body));
    *request.method_mut() = head.method.clone();
    *request.uri_mut() = head.uri.clone();
    // Those that a route beside the message path asks for, and no others.
    for name in [HeaderName::from_static(TRACEPARENT), ACCEPT, IF_MATCH, IF_NONE_MATCH] {
        if let Some(value) = head.headers.get(&name) {
            request.headers_mut().insert(name, value.clone());
        }
    }
    if let Some(caller) = caller {
        request.extensions_mut().insert(caller);
    }
    match doors.router.clone().oneshot(request).await {
        Ok(answer) => answer,
        Err(never) => match never {},
    }
}

/// Largest body of a route of this level, bytes.
fn body_bytes_max(api: &Api, level: Level) -> usize {
    match level {
        Level::Public => PUBLIC_BODY_BYTES_MAX,
        Level::AtLeast(_) => api.config.body_bytes_max,
    }
}

async fn read(api: &Api, head: &Parts, incoming: Incoming) -> Result<Bytes, Failure> {
    read_at_most(api, head, incoming, api.config.body_bytes_max).await
}

async fn read_at_most(
    api: &Api,
    head: &Parts,
    incoming: Incoming,
    bytes_max: usize,
) -> Result<Bytes, Failure> {
    let limits = BodyLimits { bytes_max, grace: api.config.body_timeout };
    body::read(incoming, limits, head.headers.contains_key(EXPECT), &*api.rooms.clock).await
}

/// Whether a path is one of the message path that is asked for with another method.
pub(super) fn is_hot_path(path: &str) -> bool {
    let path = path.strip_prefix(QUEEN).unwrap_or(path);
    find(&Method::GET, path).is_some() || find(&Method::POST, path).is_some()
}

/// The answer to a path that leads nowhere.
pub(super) fn nowhere(path: &str) -> Failure {
    if is_hot_path(path) {
        return wrong_method();
    }
    Failure::of_http(StatusCode::NOT_FOUND, "route_not_found", "there is nothing at this path")
}

/// The answer to a page of another origin.
fn foreign() -> Failure {
    let message = "pages of other origins may not; http.cors_origins lists those that may";
    Failure::new(Code::Forbidden, message)
}

/// The answer to a method that its path does not take.
pub(super) fn wrong_method() -> Failure {
    let message = "the path does not take this method";
    Failure::of_http(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_of_the_message_path_are_found_by_method_and_path() {
        let get = |path| find(&Method::GET, path);
        let post = |path| find(&Method::POST, path);
        assert_eq!(post("/api/v1/push"), Some(Hot::Push));
        assert_eq!(post("/api/v1/ack"), Some(Hot::Ack));
        assert_eq!(post("/api/v1/ack/batch"), Some(Hot::AckBatch));
        assert_eq!(post("/api/v1/lease/x/extend"), Some(Hot::Extend { lease_id: "x" }));
        let pop = |queue, partition| Some(Hot::Pop { queue, partition });
        assert_eq!(get("/api/v1/pop/queue/a.b"), pop("a.b", None));
        assert_eq!(get("/api/v1/pop/queue/a/partition/p%2F1"), pop("a", Some("p%2F1")));
        assert_eq!(get("/api/v1/pop/queue/"), pop("", None), "the empty name is legal");
        assert_eq!(get("/api/v1/pop/queue//partition/p"), pop("", Some("p")));
        assert_eq!(get("/api/v1/pop"), Some(Hot::Discover));
        for path in ["/api/v1/push", "/api/v1/pop/", "/api/v1/pop/queue/a/b", "/push", "/"] {
            assert_eq!(get(path), None, "{path}");
        }
        for path in ["/api/v1/push/", "/api/v1/pop/queue/a", "/api/v1/lease/a/b/extend"] {
            assert_eq!(post(path), None, "{path}");
        }
        assert_eq!(get("/api/v1/pop/queue/a/partition/b/c"), None);
    }

    #[test]
    fn every_row_of_the_message_path_is_found_and_every_route_has_its_row() {
        let rows = rows();
        for row in &rows {
            let method = if row.label.verb == Verb::Get { Method::GET } else { Method::POST };
            let path = row.label.path.replace(['{', '}'], "");
            let hot = find(&method, &path).unwrap_or_else(|| panic!("{path} is not found"));
            assert_eq!(hot.label(), &row.label);
        }
        let pop = |partition| Hot::Pop { queue: "q", partition };
        let extend = Hot::Extend { lease_id: "x" };
        for hot in
            [Hot::Push, Hot::Discover, Hot::Ack, Hot::AckBatch, extend, pop(None), pop(Some("p"))]
        {
            assert!(rows.iter().any(|row| row.label == *hot.label()), "{hot:?} has no row");
        }
    }

    #[test]
    fn a_known_path_with_another_method_is_told_apart_from_an_unknown_one() {
        assert_eq!(nowhere("/api/v1/push").status(), StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(nowhere("/queen/api/v1/pop/queue/a").status(), StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(nowhere("/api/v2/push").status(), StatusCode::NOT_FOUND);
    }

    #[test]
    fn a_bearer_token_is_found_whatever_the_case_of_its_scheme() {
        assert_eq!(bearer(b"Bearer secret"), Some(&b"secret"[..]));
        assert_eq!(bearer(b"bearer  secret "), Some(&b"secret"[..]));
        assert_eq!(bearer(b"a.bare.token"), Some(&b"a.bare.token"[..]));
        for value in [&b"Basic secret"[..], b"Digest a, b", b"Token secret"] {
            assert_eq!(bearer(value), None);
        }
    }
}
