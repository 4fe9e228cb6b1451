//! Answers in JSON, and what a failure looks like: status, name, text, and whether to try again.
//!
//! In: a [`Code`] with its text, or a refusal that only HTTP knows. Out: a response whose status
//! tells the truth, whose body is `{"error", "code", "retryable"}` with the index of the item or
//! the limit where there is one, and `Retry-After` where the same request may be sent again.
//! Called by every route.

use std::borrow::Cow;

use axum::body::Body;
use bytes::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use hyper::{Response, StatusCode};
use onrush_protocol::batch::BatchError;
use onrush_protocol::code::Code;
use onrush_protocol::name::NameError;
use serde::Serialize;

use crate::wire::codes;

/// What every route returns.
pub(super) type Answer = Response<Body>;

/// Seconds after which a retryable refusal may be tried again.
const RETRY_AFTER_S: &str = "1";

/// The text for a payload or a body that is too large; the contract fixes its words.
pub(super) const TOO_LARGE: &str = "Payload exceeds maximum size";

/// A request that was not done, as its client sees it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Failure {
    status: StatusCode,
    code: &'static str,
    retryable: bool,
    message: Cow<'static, str>,
    index: Option<usize>,
    limit: Option<u64>,
}

#[derive(Serialize)]
struct FailureBody<'a> {
    error: &'a str,
    code: &'a str,
    retryable: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    index: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<u64>,
}

impl Failure {
    /// A failure with a code that all doors know.
    pub(super) fn new(code: Code, message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            status: status_of(code),
            code: code.name(),
            retryable: code.is_retryable(),
            message: message.into(),
            index: None,
            limit: None,
        }
    }

    /// A failure that only HTTP has.
    pub(super) fn of_http(
        status: StatusCode,
        code: &'static str,
        message: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self { status, code, retryable: false, message: message.into(), index: None, limit: None }
    }

    /// A body or a query that is not what its route takes.
    pub(super) fn malformed(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Code::MalformedRequest, message)
    }

    /// A value outside its limits.
    pub(super) fn value(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Code::BadValue, message)
    }

    /// A batch or one of its records that is refused.
    pub(super) fn batch(error: &BatchError) -> Self {
        let code = codes::of_batch_error(error);
        let failure = match code {
            Code::MessageTooLarge | Code::BatchTooLarge => Self::new(code, TOO_LARGE),
            _ => Self::new(code, error.to_string()),
        };
        if error.limit() > 0 { failure.limit(error.limit()) } else { failure }
    }

    /// The same, said of one item of the request.
    pub(super) fn at(mut self, index: usize) -> Self {
        self.index = Some(index);
        self
    }

    /// The same, with the limit that was broken.
    pub(super) fn limit(mut self, limit: u64) -> Self {
        self.limit = Some(limit);
        self
    }

    pub(super) fn status(&self) -> StatusCode {
        self.status
    }

    pub(super) fn code(&self) -> &'static str {
        self.code
    }

    pub(super) fn message(&self) -> &str {
        &self.message
    }

    pub(super) fn is_retryable(&self) -> bool {
        self.retryable
    }

    /// The answer.
    pub(super) fn answer(&self) -> Answer {
        let Self { status, code, retryable, message, index, limit } = self;
        let (retryable, index, limit) = (*retryable, *index, *limit);
        let body = FailureBody { error: message, code, retryable, index, limit };
        self.answer_with(*status, &body)
    }

    /// An answer with this failure's status and headers, and a body that says more.
    pub(super) fn answer_with(&self, status: StatusCode, body: &impl Serialize) -> Answer {
        let mut answer = json(status, body);
        if self.retryable {
            answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER_S));
        }
        if status == StatusCode::UNAUTHORIZED {
            let scheme = HeaderValue::from_static("Bearer");
            answer.headers_mut().insert(hyper::header::WWW_AUTHENTICATE, scheme);
        }
        answer
    }
}

impl From<NameError> for Failure {
    fn from(error: NameError) -> Self {
        let failure = Self::new(codes::of_name_error(&error), error.to_string());
        if error.limit() > 0 { failure.limit(error.limit()) } else { failure }
    }
}

/// A JSON answer.
pub(super) fn json(status: StatusCode, body: &impl Serialize) -> Answer {
    match serde_json::to_vec(body) {
        Ok(text) => bytes(status, "application/json", text.into()),
        Err(error) => {
            tracing::error!(%error, "an answer could not be written as JSON");
            let body = Bytes::from_static(
                br#"{"error":"the answer could not be written","code":"internal","retryable":false}"#,
            );
            bytes(StatusCode::INTERNAL_SERVER_ERROR, "application/json", body)
        }
    }
}

/// An answer with a body of its own kind.
pub(super) fn bytes(status: StatusCode, kind: &'static str, body: Bytes) -> Answer {
    let mut answer = Response::new(Body::from(body));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    answer
}

/// 204: nothing there, and no body either.
pub(super) fn empty() -> Answer {
    let mut answer = Response::new(Body::empty());
    *answer.status_mut() = StatusCode::NO_CONTENT;
    answer
}

/// The status of a code. Refusals that lapse by themselves are 5xx, because clients of both
/// dialects try those again and take any 4xx but 429 for final.
pub(super) fn status_of(code: Code) -> StatusCode {
    match code {
        Code::BadFrame
        | Code::UnknownOpcode
        | Code::UnsupportedVersion
        | Code::MalformedRequest
        | Code::HelloRequired
        | Code::BadName
        | Code::BatchInvalid
        | Code::BadChecksum
        | Code::UnsupportedEncoding
        | Code::BadOption
        | Code::BadValue
        | Code::BadControlValue
        | Code::ReservedField => StatusCode::BAD_REQUEST,
        Code::ModuleInvalid | Code::CodecRejected => StatusCode::UNPROCESSABLE_ENTITY,
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::Forbidden | Code::NotAccepted => StatusCode::FORBIDDEN,
        Code::FrameTooLarge
        | Code::BatchTooLarge
        | Code::MessageTooLarge
        | Code::TooManyRecords => StatusCode::PAYLOAD_TOO_LARGE,
        Code::QueueNotFound
        | Code::PartitionNotFound
        | Code::QueueDeleted
        | Code::LeaseNotFound
        | Code::MessageNotFound
        | Code::QueryNotFound
        | Code::GroupNotFound
        | Code::JobNotFound
        | Code::ClassNotFound
        | Code::ProcessNotFound
        | Code::SlotNotFound
        | Code::PushNotFound
        | Code::PathNotFound => StatusCode::NOT_FOUND,
        Code::LeaseExpired
        | Code::EncryptionKeyMissing
        | Code::AlreadySettled
        | Code::MessageSettled
        | Code::DuplicateMessage
        | Code::QueryChanged
        | Code::VersionConflict
        | Code::ProcessStopped
        | Code::NotReplayable
        | Code::PushComplete => StatusCode::CONFLICT,
        Code::QuotaExceeded | Code::QueueFull | Code::BacklogFull => StatusCode::TOO_MANY_REQUESTS,
        Code::DiskFull => StatusCode::INSUFFICIENT_STORAGE,
        Code::RingFull
        | Code::Busy
        | Code::Unavailable
        | Code::ShuttingDown
        | Code::KeyNotHere
        | Code::SealBroken => StatusCode::SERVICE_UNAVAILABLE,
        Code::OutcomeUnknown | Code::TimedOut => StatusCode::GATEWAY_TIMEOUT,
        Code::Poisoned | Code::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_try_again_exactly_what_may_be_tried_again() {
        for code in Code::ALL {
            let status = status_of(*code);
            let client_would = status.is_server_error() || status.as_u16() == 429;
            // A damaged batch cannot come over HTTP; these two are final faults of the server.
            let known = matches!(code, Code::BadChecksum | Code::Poisoned | Code::Internal);
            assert!(known || client_would == code.is_retryable(), "{code}: {status}");
        }
    }

    #[test]
    fn a_failure_names_text_code_and_limit_and_when_to_come_back() {
        let failure = Failure::new(Code::Busy, "no room").limit(7);
        let answer = failure.answer();
        assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(answer.headers()[RETRY_AFTER], "1");
        let final_one = Failure::malformed("items array is required").at(3).answer();
        assert_eq!(final_one.status(), StatusCode::BAD_REQUEST);
        assert!(!final_one.headers().contains_key(RETRY_AFTER));
    }

    #[test]
    fn a_payload_over_its_limit_is_told_in_the_words_of_the_contract() {
        let error = BatchError::TooLarge { field: "payload", record: Some(0), bytes: 9, limit: 8 };
        let failure = Failure::batch(&error);
        assert_eq!(failure.message(), "Payload exceeds maximum size");
        assert_eq!(failure.status(), StatusCode::PAYLOAD_TOO_LARGE);
        assert_eq!(failure.limit, Some(8));
    }
}
