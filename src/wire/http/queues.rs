//! Queues over HTTP: configure and delete.
//!
//! In: paths and bodies. Out: settings as the contract shows them. Called by `admin`; looking at queues is
//! `resources`.

use std::borrow::Cow;

use hyper::StatusCode;
use onrush_protocol::name::QueueName;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::catalog::CatalogError;
use crate::shard::command::Named;
use crate::wire::codes;
use crate::wire::http::Api;
use crate::wire::http::ids::Uuid;
use crate::wire::http::options::{RawOptions, Shown};
use crate::wire::http::shape::{self, Object, optional_text};
use crate::wire::http::status::{Answer, Failure, json};

/// Longest namespace or task, bytes.
const LABEL_BYTES_MAX: usize = 255;

#[derive(Deserialize)]
struct RawConfigure<'a> {
    #[serde(borrow)]
    queue: Option<&'a RawValue>,
    namespace: Option<&'a RawValue>,
    task: Option<&'a RawValue>,
    options: Option<Object<RawOptions<'a>>>,
    mode: Option<&'a RawValue>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Configured<'a> {
    configured: bool,
    queue_id: Uuid,
    /// Partitions come with their first message, so a queue may have none yet.
    partition_id: Option<Uuid>,
    queue: &'a str,
    namespace: &'a str,
    task: &'a str,
    options: Shown<'a>,
}

#[derive(Serialize)]
struct Deleted<'a> {
    deleted: bool,
    queue: &'a str,
    existed: bool,
}

/// Makes a queue or replaces its settings: all of them, or with `"mode": "merge"` those that are named.
pub(super) async fn configure(api: &Api, body: &[u8]) -> Result<Answer, Failure> {
    let required = || Failure::malformed("queue is required");
    let Object::Is(raw) = shape::read::<Object<RawConfigure<'_>>>(body)? else {
        return Err(required());
    };
    let name: QueueName = raw.queue.and_then(shape::text).ok_or_else(required)?.parse()?;
    let namespace = label(raw.namespace, "namespace must be a string of at most 255 bytes")?;
    let task = label(raw.task, "task must be a string of at most 255 bytes")?;
    let mut asked = match &raw.options {
        None => RawOptions::default().read(true)?,
        Some(Object::Is(options)) => options.read(api.dialect.is_strict())?,
        Some(Object::Other) => return Err(Failure::malformed("options must be an object")),
    };
    let keeps = keeps_the_rest(raw.mode)?;
    asked.only = asked.only.filter(|_| keeps).map(|only| {
        let labels = [(Named::NAMESPACE, raw.namespace), (Named::TASK, raw.task)];
        let named = labels.into_iter().filter(|(_, raw)| raw.is_some());
        named.fold(only, |only, (number, _)| only.with(number))
    });
    let configured = api.rooms.catalogs.configure(&name, &namespace, &task, asked).await;
    let queue = configured.map_err(|error| failed(&error))?;
    let body = Configured {
        configured: true,
        queue_id: Uuid::of_queue(queue.id),
        partition_id: None,
        queue: &queue.name,
        namespace: &queue.namespace,
        task: &queue.task,
        options: Shown {
            options: &queue.options,
            sql_rows: api.rooms.catalogs.has_sql_rows(&queue),
        },
    };
    Ok(json(StatusCode::OK, &body))
}

/// Whether settings that are not named stay as they are, instead of having their defaults again.
fn keeps_the_rest(mode: Option<&RawValue>) -> Result<bool, Failure> {
    let refusal = "mode must be \"merge\" or \"replace\"";
    match optional_text(mode, refusal)?.as_deref() {
        None | Some("replace") => Ok(false),
        Some("merge") => Ok(true),
        Some(_) => Err(Failure::value(refusal)),
    }
}

fn label<'a>(raw: Option<&'a RawValue>, refusal: &'static str) -> Result<Cow<'a, str>, Failure> {
    let text = optional_text(raw, refusal)?.unwrap_or_default();
    if text.len() > LABEL_BYTES_MAX {
        return Err(Failure::value(refusal).limit(LABEL_BYTES_MAX as u64));
    }
    Ok(text)
}

/// Deletes a queue with all it holds.
pub(super) async fn delete(api: &Api, name: &str) -> Result<Answer, Failure> {
    let name: QueueName = name.parse()?;
    let existed = api.rooms.catalogs.delete(&name).await.map_err(|error| failed(&error))?;
    Ok(json(StatusCode::OK, &Deleted { deleted: true, queue: name.as_str(), existed }))
}

/// A catalog's error as its client sees it.
pub(super) fn failed(error: &CatalogError) -> Failure {
    Failure::new(codes::of_catalog_error(error), error.to_string())
}
