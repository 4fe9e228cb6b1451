//! Queues over HTTP: configure, delete, list, look at one.
//!
//! In: paths and bodies. Out: settings as the contract shows them, and numbers that are true now.
//! Every number of messages comes from the shards when it is asked for. Called by `admin`.

use std::borrow::Cow;

use hyper::StatusCode;
use onrush_protocol::name::QueueName;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::catalog::CatalogError;
use crate::shard::command::Description;
use crate::state::catalog::QueueDefinition;
use crate::wire::codes;
use crate::wire::http::Api;
use crate::wire::http::ids::{Uuid, millis_text};
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

#[derive(Serialize)]
struct Listed<'a> {
    queues: Vec<Queue<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Queue<'a> {
    id: Uuid,
    name: &'a str,
    namespace: &'a str,
    task: &'a str,
    created_at: String,
    partitions: u64,
    messages: Messages,
    groups: Vec<Group>,
    #[serde(skip_serializing_if = "Option::is_none")]
    options: Option<Shown<'a>>,
}

#[derive(Serialize)]
struct Messages {
    total: u64,
    /// Not settled by the group that is furthest behind; all of them where there is no group.
    pending: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Group {
    name: Box<str>,
    pending: u64,
    leased_partitions: u64,
}

/// Makes a queue or replaces all of its settings.
pub(super) async fn configure(api: &Api, body: &[u8]) -> Result<Answer, Failure> {
    let required = || Failure::malformed("queue is required");
    let Object::Is(raw) = shape::read::<Object<RawConfigure<'_>>>(body)? else {
        return Err(required());
    };
    let name: QueueName = raw.queue.and_then(shape::text).ok_or_else(required)?.parse()?;
    let namespace = label(raw.namespace, "namespace must be a string of at most 255 bytes")?;
    let task = label(raw.task, "task must be a string of at most 255 bytes")?;
    let asked = match &raw.options {
        None => RawOptions::default().read(true)?,
        Some(Object::Is(options)) => options.read(api.dialect.is_strict())?,
        Some(Object::Other) => return Err(Failure::malformed("options must be an object")),
    };
    let configured = api.rooms.catalogs.configure(&name, &namespace, &task, asked).await;
    let queue = configured.map_err(|error| failed(&error))?;
    let body = Configured {
        configured: true,
        queue_id: Uuid::of_queue(queue.id),
        partition_id: None,
        queue: &queue.name,
        namespace: &queue.namespace,
        task: &queue.task,
        options: Shown { options: &queue.options, sql_rows: asked.sql_rows },
    };
    Ok(json(StatusCode::OK, &body))
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

/// All queues, newest first.
pub(super) async fn list(api: &Api) -> Result<Answer, Failure> {
    let definitions = api.rooms.catalogs.list();
    let mut queues = Vec::with_capacity(definitions.len());
    for definition in definitions.iter().rev() {
        // One that was deleted meanwhile is not listed.
        if let Some(description) = describe(api, definition).await? {
            queues.push(shown(definition, description));
        }
    }
    Ok(json(StatusCode::OK, &Listed { queues }))
}

/// One queue with its settings.
pub(super) async fn get(api: &Api, name: &str) -> Result<Answer, Failure> {
    let name: QueueName = name.parse()?;
    let missing = || failed(&CatalogError::NotFound(name.clone()));
    let definition = api.rooms.catalogs.find(&name).ok_or_else(missing)?;
    let description = describe(api, &definition).await?.ok_or_else(missing)?;
    let sql_rows = api.rooms.catalogs.has_sql_rows(&definition);
    let options = Some(Shown { options: &definition.options, sql_rows });
    let queue = Queue { options, ..shown(&definition, description) };
    Ok(json(StatusCode::OK, &queue))
}

async fn describe(api: &Api, definition: &QueueDefinition) -> Result<Option<Description>, Failure> {
    let name: QueueName = definition.name.parse()?;
    match api.rooms.catalogs.describe(&name).await {
        Ok(description) => Ok(Some(description)),
        Err(CatalogError::NotFound(_)) => Ok(None),
        Err(error) => Err(failed(&error)),
    }
}

fn shown(definition: &QueueDefinition, description: Description) -> Queue<'_> {
    let Description { partitions, messages: total, groups } = description;
    let pending = groups.iter().map(|(_, pending, _)| *pending).max().unwrap_or(total);
    let groups = groups.into_iter().map(|(name, pending, leased_partitions)| Group {
        name,
        pending,
        leased_partitions,
    });
    Queue {
        id: Uuid::of_queue(definition.id),
        name: &definition.name,
        namespace: &definition.namespace,
        task: &definition.task,
        created_at: millis_text(definition.created_ms),
        partitions,
        messages: Messages { total, pending },
        groups: groups.collect(),
        options: None,
    }
}

/// A catalog's error as its client sees it.
pub(super) fn failed(error: &CatalogError) -> Failure {
    Failure::new(codes::of_catalog_error(error), error.to_string())
}
