//! Maintenance over HTTP: pushes held back in the failover log, pops that find nothing.
//!
//! In: `{"enabled": bool}`, or nothing to ask. Out: what is held back now, by every engine of the
//! store and across restarts, and what waits. Called by `admin`.

use hyper::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::state::effect::Maintenance;
use crate::telemetry::Telemetry;
use crate::wire::http::Api;
use crate::wire::http::queues;
use crate::wire::http::shape::{self, Object};
use crate::wire::http::status::{Answer, Failure, json};

#[derive(Deserialize)]
struct Asks<'a> {
    #[serde(borrow)]
    enabled: Option<&'a RawValue>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Push {
    maintenance_mode: bool,
    pop_maintenance_mode: bool,
    buffered_messages: u64,
    buffer_healthy: bool,
    buffer_stats: Stats,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'static str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Stats {
    pending_count: u64,
    failed_count: u64,
    db_healthy: bool,
    failed_files: FailedFiles,
}

/// Batches that were set aside, each in a file of its own.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct FailedFiles {
    count: u64,
    total_bytes: u64,
    #[serde(rename = "totalMB")]
    total_mb: f64,
    failover_count: u64,
    qos0_count: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Pop {
    pop_maintenance_mode: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'static str>,
}

/// Whether pushes are held back, and what waits.
pub(super) fn show_push(api: &Api) -> Answer {
    push(api, api.rooms.catalogs.maintenance(), None)
}

/// Holds pushes back, or no longer.
pub(super) async fn set_push(api: &Api, body: &[u8]) -> Result<Answer, Failure> {
    let enabled = enabled(body)?;
    let now = api.rooms.catalogs.maintain(Some(enabled), None).await;
    let now = now.map_err(|error| queues::failed(&error))?;
    let message = match enabled {
        true => "pushes are kept in the failover log until this is switched off",
        false => "what was held back is being pushed",
    };
    Ok(push(api, now, Some(message)))
}

/// Whether pops find nothing.
pub(super) fn show_pop(api: &Api) -> Answer {
    pop(api.rooms.catalogs.maintenance(), None)
}

/// Lets pops find nothing, or no longer.
pub(super) async fn set_pop(api: &Api, body: &[u8]) -> Result<Answer, Failure> {
    let enabled = enabled(body)?;
    let now = api.rooms.catalogs.maintain(None, Some(enabled)).await;
    let now = now.map_err(|error| queues::failed(&error))?;
    let message = if enabled { "pops find nothing" } else { "pops find messages again" };
    Ok(pop(now, Some(message)))
}

fn push(api: &Api, now: Maintenance, message: Option<&'static str>) -> Answer {
    let telemetry = &api.rooms.telemetry;
    let (waiting, set_aside) = (telemetry.spill_waiting.get(), telemetry.quarantined.get());
    let is_away = telemetry.store_away.get() > 0;
    let body = Push {
        maintenance_mode: now.push,
        pop_maintenance_mode: now.pop,
        buffered_messages: waiting,
        buffer_healthy: set_aside == 0,
        buffer_stats: Stats {
            pending_count: waiting,
            failed_count: set_aside,
            db_healthy: !is_away,
            failed_files: failed_files(&api.rooms.telemetry),
        },
        message,
    };
    json(StatusCode::OK, &body)
}

fn failed_files(telemetry: &Telemetry) -> FailedFiles {
    let (count, qos0_count) = (telemetry.quarantined.get(), telemetry.quarantined_buffered.get());
    let total_bytes = telemetry.quarantined_bytes.get();
    FailedFiles {
        count,
        total_bytes,
        total_mb: total_bytes as f64 / f64::from(1 << 20),
        failover_count: count.saturating_sub(qos0_count),
        qos0_count,
    }
}

fn pop(now: Maintenance, message: Option<&'static str>) -> Answer {
    json(StatusCode::OK, &Pop { pop_maintenance_mode: now.pop, message })
}

fn enabled(body: &[u8]) -> Result<bool, Failure> {
    let asks = match shape::read::<Object<Asks<'_>>>(body) {
        Ok(Object::Is(asks)) => asks.enabled.map(RawValue::get),
        Ok(_) => None,
        Err(failure) => return Err(failure),
    };
    match asks {
        Some("true") => Ok(true),
        Some("false") => Ok(false),
        _ => Err(Failure::value("enabled (boolean) is required")),
    }
}
