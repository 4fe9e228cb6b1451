//! The lease route: more time for what a consumer holds.
//!
//! In: the lease from the path, seconds from the body, which may be empty. Out: one object that the
//! official clients of all languages understand. A lease that holds nothing any more is told with
//! `success: false`: as 404 in our own dialect, and as 200 in Queen's, whose clients look at the
//! body only. Called by `route`.

use hyper::StatusCode;
use onrush_protocol::code::Code;
use onrush_protocol::id::uuid_parse;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::state::draft::upkeep::Extended;
use crate::wire::codes;
use crate::wire::http::Api;
use crate::wire::http::dialect::Dialect;
use crate::wire::http::ids::millis_text;
use crate::wire::http::shape::{self, Object};
use crate::wire::http::status::{Answer, Failure, json};

/// What is meant where nothing is said, seconds.
const SECONDS_DEFAULT: u64 = 60;
/// Longest extension, seconds: 30 days. A lease beyond that is a lost message.
pub(super) const SECONDS_MAX: u64 = 30 * 24 * 60 * 60;

#[derive(Deserialize)]
struct Asks<'a> {
    #[serde(borrow)]
    seconds: Option<&'a RawValue>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Body<'a> {
    lease_id: &'a str,
    success: bool,
    error: Option<&'a str>,
    /// Partitions whose lease was extended.
    renewed: u32,
    new_expires_at: Option<&'a str>,
    expires_at: Option<&'a str>,
    #[serde(rename = "lease_expires_at")]
    lease_expires_at: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retryable: Option<bool>,
}

/// Extends a lease.
pub(super) async fn extend(api: &Api, lease_id: &str, body: &[u8]) -> Result<Answer, Failure> {
    let seconds = seconds(body)?;
    let extended = match uuid_parse(lease_id) {
        None => None,
        Some(token) => {
            let extended = api.rooms.delivery.extend_all(token, seconds * 1000).await;
            extended
                .map_err(|error| Failure::new(codes::of_command_error(&error), error.to_string()))?
        }
    };
    Ok(answer(api.dialect, lease_id, extended))
}

fn seconds(body: &[u8]) -> Result<u64, Failure> {
    if body.is_empty() {
        return Ok(SECONDS_DEFAULT);
    }
    let Object::Is(asks) = shape::read::<Object<Asks<'_>>>(body)? else {
        return Err(Failure::malformed("the body must be an object"));
    };
    match asks.seconds.map(|raw| raw.get().parse::<u64>()) {
        None => Ok(SECONDS_DEFAULT),
        Some(Ok(seconds)) if (1..=SECONDS_MAX).contains(&seconds) => Ok(seconds),
        Some(_) => {
            let message = format!("seconds must be a whole number from 1 to {SECONDS_MAX}");
            Err(Failure::value(message).limit(SECONDS_MAX))
        }
    }
}

fn answer(dialect: Dialect, lease_id: &str, extended: Option<Extended>) -> Answer {
    let until = extended.map(|it| millis_text(it.until_ms));
    let until = until.as_deref();
    let lost = until.is_none();
    let status = match dialect {
        Dialect::Onrush if lost => StatusCode::NOT_FOUND,
        Dialect::Onrush | Dialect::Queen => StatusCode::OK,
    };
    let body = Body {
        lease_id,
        success: !lost,
        error: lost.then_some("Lease not found"),
        renewed: extended.map_or(0, |it| it.partitions),
        new_expires_at: until,
        expires_at: until,
        lease_expires_at: until,
        code: lost.then_some(Code::LeaseNotFound.name()),
        retryable: lost.then_some(false),
    };
    json(status, &body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_extension_lasts_60_seconds_unless_it_is_said() {
        assert_eq!(seconds(b""), Ok(60));
        assert_eq!(seconds(b"{}"), Ok(60));
        assert_eq!(seconds(br#"{"seconds":null}"#), Ok(60));
        assert_eq!(seconds(br#"{"seconds":5}"#), Ok(5));
        for body in [r#"{"seconds":0}"#, r#"{"seconds":"5"}"#, r#"{"seconds":2592001}"#, "[]"] {
            assert!(seconds(body.as_bytes()).is_err(), "{body}");
        }
    }

    #[test]
    fn a_lost_lease_is_told_as_each_dialects_clients_listen() {
        assert_eq!(answer(Dialect::Onrush, "x", None).status(), StatusCode::NOT_FOUND);
        assert_eq!(answer(Dialect::Queen, "x", None).status(), StatusCode::OK);
        let held = Some(Extended { until_ms: 1, partitions: 2 });
        assert_eq!(answer(Dialect::Onrush, "x", held).status(), StatusCode::OK);
    }
}
