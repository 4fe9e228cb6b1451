//! Which pages of other origins may use the API in a browser.
//!
//! In: the allowed origins, and a request's head. Out: the answer to a preflight, the header that lets a
//! page read an answer, and whether a page that is not allowed asks: one need not be able to read an
//! answer to do harm. Nothing allowed: no header is ever added. Pure. Called by `route`.

use axum::body::Body;
use hyper::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD, HOST,
    HeaderValue, ORIGIN, VARY,
};
use hyper::http::request::Parts;
use hyper::{Method, Response, StatusCode};

use crate::wire::http::status::Answer;

/// Where a browser says how a page that asks is related to this server.
const FETCH_SITE: &str = "sec-fetch-site";
/// Methods that routes take.
const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, POST, PUT, DELETE, OPTIONS");
/// Headers that pages may send.
const HEADERS: HeaderValue = HeaderValue::from_static(
    "Content-Type, Authorization, If-Match, If-None-Match, traceparent, tracestate",
);
/// Headers that pages may read beside the ordinary ones.
const EXPOSED: HeaderValue = HeaderValue::from_static("Retry-After, WWW-Authenticate, ETag");
/// Seconds for which a browser need not ask again: a day.
const MAX_AGE: HeaderValue = HeaderValue::from_static("86400");

/// The allowed origins.
#[derive(Clone, Debug, Default)]
pub struct Cors {
    any: bool,
    origins: Vec<String>,
}

impl Cors {
    /// Reads origins that are parted by commas; `*` stands for all.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let origins = text.split(',').map(|it| it.trim().trim_end_matches('/'));
        let origins: Vec<String> = origins.filter(|it| !it.is_empty()).map(str::to_owned).collect();
        Self { any: origins.iter().any(|it| it == "*"), origins }
    }

    /// Whether any origin is allowed.
    pub(super) fn is_on(&self) -> bool {
        !self.origins.is_empty()
    }

    /// What a page of this origin is told, if it is allowed.
    fn allow(&self, origin: &HeaderValue) -> Option<HeaderValue> {
        if self.any {
            return Some(HeaderValue::from_static("*"));
        }
        self.origins.iter().any(|it| it.as_bytes() == origin.as_bytes()).then(|| origin.clone())
    }

    /// Whether a browser says that a page of an origin which is not allowed sends this. What it says comes
    /// with every request of a page and cannot be changed by one; other clients say nothing of the kind.
    pub(super) fn is_foreign(&self, head: &Parts) -> bool {
        if self.any {
            return false;
        }
        match head.headers.get(ORIGIN) {
            Some(origin) => self.allow(origin).is_none() && !is_own(origin, head),
            // Images and forms that only get something come without an origin.
            None => head.headers.get(FETCH_SITE).is_some_and(|site| site == "cross-site"),
        }
    }

    /// The answer to a browser that asks before it sends a request; `None` for any other request. It
    /// carries no token, so nobody is asked for one.
    pub(super) fn preflight(&self, head: &Parts) -> Option<Answer> {
        let asks = head.method == Method::OPTIONS
            && self.is_on()
            && head.headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD);
        let origin = head.headers.get(ORIGIN).filter(|_| asks)?;
        let mut answer = Response::new(Body::empty());
        *answer.status_mut() = StatusCode::NO_CONTENT;
        if self.allow(origin).is_some() {
            let headers = answer.headers_mut();
            headers.insert(ACCESS_CONTROL_ALLOW_METHODS, METHODS);
            headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, HEADERS);
            headers.insert(ACCESS_CONTROL_MAX_AGE, MAX_AGE);
        }
        self.mark(Some(origin), &mut answer);
        Some(answer)
    }

    /// Lets a page of `origin` read an answer, if it may.
    pub(super) fn mark(&self, origin: Option<&HeaderValue>, answer: &mut Answer) {
        if !self.is_on() {
            return;
        }
        let headers = answer.headers_mut();
        if !self.any {
            // What is told depends on who asks, so nothing between may give it to others.
            headers.append(VARY, HeaderValue::from_static("Origin"));
        }
        if let Some(allowed) = origin.and_then(|origin| self.allow(origin)) {
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
            headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
        }
    }
}

/// Whether an origin is the one that is asked: this server's own pages.
fn is_own(origin: &HeaderValue, head: &Parts) -> bool {
    let asked = head.uri.authority().map(|it| it.as_str());
    let asked = asked.or_else(|| head.headers.get(HOST)?.to_str().ok());
    let from = origin.to_str().ok().and_then(|it| Some(it.split_once("://")?.1));
    from.zip(asked).is_some_and(|(from, asked)| from.eq_ignore_ascii_case(asked))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(cors: &Cors, origin: &'static str) -> Option<String> {
        let mut answer = Response::new(Body::empty());
        cors.mark(Some(&HeaderValue::from_static(origin)), &mut answer);
        let header = answer.headers().get(ACCESS_CONTROL_ALLOW_ORIGIN)?;
        Some(header.to_str().unwrap().to_owned())
    }

    #[test]
    fn only_listed_origins_are_allowed_and_a_star_allows_all() {
        let cors = Cors::parse("https://a.example, https://b.example:8443/");
        assert_eq!(told(&cors, "https://a.example").as_deref(), Some("https://a.example"));
        assert_eq!(
            told(&cors, "https://b.example:8443").as_deref(),
            Some("https://b.example:8443")
        );
        for other in ["http://a.example", "https://a.example.evil", "null"] {
            assert_eq!(told(&cors, other), None, "{other}");
        }
        assert_eq!(told(&Cors::parse("*"), "null").as_deref(), Some("*"));
        assert_eq!(told(&Cors::parse(""), "https://a.example"), None);
    }
}
