//! Health: is the process there, does the engine answer, does the store take writes.
//!
//! In: nothing. Out: `/livez`, true as long as anything is; `/readyz` and `/health`, true when the
//! engine answers within two seconds and pushes are taken: its log can still be synced, or the store
//! is away and the failover log stands in. Looking costs a turn of the
//! engine and at most one sync, so looks of the same half second share one. Called by `admin` and
//! `metrics`.

use std::time::Duration;

use hyper::StatusCode;
use serde::Serialize;
use tokio::sync::Mutex;
use tokio::time::timeout;

use crate::wire::http::Api;
use crate::wire::http::status::{Answer, json};
use crate::wire::http::url::Query;

/// Longest that a part may take to answer.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);
/// How long a look stays good, microseconds.
const FRESH_US: u64 = 500_000;

/// What a look found.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Look {
    /// The engine's commit loop answers.
    pub(super) engine: bool,
    /// The log is not poisoned and can be reached.
    pub(super) store: bool,
    /// The server takes new work.
    pub(super) open: bool,
    /// The store is away, and pushes go to the failover log; unless another store is in its place.
    pub(super) stands_in: bool,
}

impl Look {
    /// Whether work that is sent here will be done.
    fn is_ready(self) -> bool {
        self.engine && (self.store || self.stands_in) && self.open
    }
}

/// The last look, and when it was, in the clock's microseconds.
#[derive(Debug, Default)]
pub(super) struct LastLook(Mutex<Option<(u64, bool, bool)>>);

/// Looks, or says what was seen a moment ago.
pub(super) async fn look(api: &Api) -> Look {
    let mut last = api.last_look.0.lock().await;
    let now_us = api.rooms.clock.monotonic_us();
    let fresh = last.filter(|(at_us, ..)| now_us.saturating_sub(*at_us) < FRESH_US);
    let (engine, store) = match fresh {
        Some((_, engine, store)) => (engine, store),
        None => {
            let seen = (engine_answers(api).await, store_syncs(api).await);
            // As of its end: whoever waited for this look need not look again.
            *last = Some((api.rooms.clock.monotonic_us(), seen.0, seen.1));
            seen
        }
    };
    let telemetry = &api.rooms.telemetry;
    let is_away = telemetry.store_away.get() > 0;
    let stands_in = is_away && telemetry.store_other.get() == 0;
    Look { engine, store: store && !is_away, open: !*api.stop.borrow(), stands_in }
}

async fn engine_answers(api: &Api) -> bool {
    matches!(timeout(PATIENCE, api.rooms.engine.look(|_| ())).await, Ok(Ok(())))
}

async fn store_syncs(api: &Api) -> bool {
    matches!(timeout(PATIENCE, api.rooms.engine.log().sync()).await, Ok(Ok(())))
}

#[derive(Serialize)]
struct Health {
    status: &'static str,
    database: &'static str,
    server: &'static str,
    version: &'static str,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    worker: Option<Worker>,
}

/// What clients of Queen look for beside it: there is one worker here, and nothing is shared.
#[derive(Serialize)]
struct Worker {
    worker_id: u8,
    shared_state: Shared,
    queen: Alone,
}

#[derive(Serialize)]
struct Shared {
    enabled: bool,
    running: bool,
    maintenance_mode: bool,
    pop_maintenance_mode: bool,
}

#[derive(Serialize)]
struct Alone {
    worker_id: u8,
    status: &'static str,
}

impl Worker {
    fn of(api: &Api, status: &'static str) -> Self {
        let held_back = api.rooms.catalogs.maintenance();
        Self {
            worker_id: 0,
            shared_state: Shared {
                enabled: false,
                running: false,
                maintenance_mode: held_back.push,
                pop_maintenance_mode: held_back.pop,
            },
            queen: Alone { worker_id: 0, status },
        }
    }
}

/// `/health`: 200 or 503, in the words of the contract.
pub(super) async fn health(api: &Api) -> Answer {
    let look = look(api).await;
    let word = if look.is_ready() { "healthy" } else { "unhealthy" };
    let is_asked = !api.dialect.is_strict();
    let body = Health {
        status: word,
        database: if look.engine && look.store { "connected" } else { "disconnected" },
        server: "Onrush",
        version: env!("CARGO_PKG_VERSION"),
        worker: is_asked.then(|| Worker::of(api, word)),
    };
    json(status(look), &body)
}

/// `/livez`: whoever can answer is alive.
pub(super) async fn live() -> Answer {
    json(StatusCode::OK, &Short { status: "alive" })
}

#[derive(Serialize)]
struct Short {
    status: &'static str,
}

#[derive(Serialize)]
struct Verbose {
    status: &'static str,
    checks: Checks,
}

#[derive(Serialize)]
struct Checks {
    engine: &'static str,
    store: &'static str,
    open: &'static str,
    /// Where pushes go while the store is away.
    failover: &'static str,
    /// Batches that no shard took, to be looked at by somebody.
    set_aside: u64,
}

/// `/readyz`: 200 or 503; with `?verbose`, which part is not ready.
pub(super) async fn ready(api: &Api, query: &str) -> Answer {
    let look = look(api).await;
    let word = if look.is_ready() { "ready" } else { "not ready" };
    let asked = Query::parse(query).is_ok_and(|query| query.has("verbose"));
    if !asked {
        return json(status(look), &Short { status: word });
    }
    let say = |good: bool| if good { "ok" } else { "failed" };
    let Look { engine, store, open, stands_in } = look;
    let telemetry = &api.rooms.telemetry;
    let checks = Checks {
        engine: say(engine),
        // It does not come back by itself.
        store: if telemetry.store_taken_back.get() > 0 { "taken back" } else { say(store) },
        open: say(open),
        failover: match stands_in {
            _ if telemetry.spill_unreadable.get() > 0 => "unreadable",
            true => "in use",
            false => "idle",
        },
        set_aside: telemetry.quarantined.get(),
    };
    json(status(look), &Verbose { status: word, checks })
}

fn status(look: Look) -> StatusCode {
    if look.is_ready() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}
