//! Fills the history: once a minute, everything that is counted, in all and by queue.
//!
//! Started by `listen`, ends when the server stops. Looks at the shards one by one, between commits.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use crate::base::process;
use crate::shard::look::figures::QueueFigures;
use crate::state::catalog::QueueDefinition;
use crate::telemetry::history::{GroupNow, Newest, QueueSnapshot, Snapshot};
use crate::telemetry::queues::GroupCount;
use crate::wire::http::{Api, resources};

const MINUTE: Duration = Duration::from_secs(60);

/// Takes a sample a minute until the server stops.
pub(super) async fn run(api: Arc<Api>, mut stop: watch::Receiver<bool>) {
    let mut minutes = tokio::time::interval(MINUTE);
    minutes.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        let stops = tokio::select! {
            _ = minutes.tick() => false,
            _ = stop.wait_for(|stop| *stop) => true,
        };
        if stops {
            return;
        }
        sample(&api).await;
    }
}

/// Takes one sample now.
pub(super) async fn sample(api: &Api) {
    // An engine that stops has no figures any more.
    let Ok(queues) = resources::all(api).await else { return };
    let now_ms = api.rooms.clock.now_ms();
    let lag_ms = |figures: &QueueFigures| {
        figures.oldest_ms().map_or(0, |oldest_ms| now_ms.saturating_sub(oldest_ms))
    };
    let lags: Vec<u64> = queues.iter().map(|(_, figures)| lag_ms(figures)).collect();
    let sum = resources::sum(&queues);
    let mut all = counted(api, now_ms);
    all.pending = sum.pending + sum.processing;
    all.lag_max_ms = lags.iter().copied().max().unwrap_or(0);
    all.lag_avg_ms = lags.iter().sum::<u64>() / (lags.len() as u64).max(1);
    api.history.take_newest(newest(&queues, now_ms));
    let parked = api.rooms.engine.look(|view| {
        let counts = view.parked.counts();
        counts.map(|(name, count)| (name.to_string(), count as u64)).collect::<BTreeMap<_, _>>()
    });
    let parked = parked.await.unwrap_or_default();
    let catalog = api.rooms.engine.catalog_now();
    api.rooms.telemetry.by_queue.keep(|queue| catalog.get(queue).is_some());
    let asked = api.rooms.telemetry.by_queue.all();
    let by_queue = queues.iter().zip(lags).map(|((queue, figures), lag_ms)| {
        let (pushed, dead, partitions) = (figures.pushed, figures.dead, figures.partitions);
        let parked = parked.get(&*queue.name).copied().unwrap_or(0);
        let own = asked.queues.get(&queue.id);
        let asked = own.cloned().unwrap_or_default();
        let done = |of: fn(&GroupCount) -> u64| asked.groups.iter().map(|(_, it)| of(it)).sum();
        let snapshot = QueueSnapshot {
            time_ms: now_ms,
            pushed,
            dead,
            popped: done(|it| it.delivered),
            acked: done(|it| it.completed),
            push_requests: asked.push_requests,
            pop_empty: asked.pop_empty,
            ack_requests: asked.ack_requests,
            ack_refused: asked.ack_refused,
            transactions: asked.transactions,
            has_requests: own.is_some(),
            partitions,
            parked,
            lag_ms,
            ..QueueSnapshot::default()
        };
        (queue.name.clone(), snapshot)
    });
    api.history.take(all, by_queue.collect());
}

/// How groups and dead letters stand now.
fn newest(queues: &[(Arc<QueueDefinition>, QueueFigures)], now_ms: u64) -> Newest {
    let groups = queues.iter().flat_map(|(queue, figures)| {
        figures.groups.iter().map(|(name, it)| GroupNow {
            queue: queue.name.clone(),
            group: name.clone(),
            behind: it.counts.pending + it.counts.processing,
            oldest_ms: it.oldest_ms,
        })
    });
    let dead = queues.iter().map(|(queue, figures)| (queue.name.clone(), figures.counts().dead));
    Newest::of(now_ms, groups.collect(), dead.filter(|(_, count)| *count > 0).collect())
}

/// What telemetry has counted so far.
pub(super) fn counted(api: &Api, now_ms: u64) -> Snapshot {
    let (telemetry, usage) = (&api.rooms.telemetry, process::usage());
    let database = api.rooms.engine.log().connections();
    Snapshot {
        time_ms: now_ms,
        pushed: telemetry.pushed.get(),
        push_requests: telemetry.push_latency.summary().count,
        popped: telemetry.popped.get(),
        pop_requests: telemetry.pop_requests.get(),
        pop_empty: telemetry.pop_empty.get(),
        acked: telemetry.acked.get(),
        ack_requests: telemetry.ack_requests.get(),
        ack_failed: telemetry.ack_failed.get(),
        dead: telemetry.dead.get(),
        errors: telemetry.commit_failed.get(),
        retained: telemetry.retained.get(),
        completed_gone: telemetry.completed_gone.get(),
        expired: telemetry.expired.get(),
        removals: telemetry.removals.get(),
        commits: telemetry.commits.get(),
        user_us: usage.user_us,
        system_us: usage.system_us,
        rss_bytes: usage.rss_bytes,
        virtual_bytes: usage.virtual_bytes,
        connections: telemetry.connections.get(),
        db_active: database.active,
        db_idle: database.idle,
        ..Snapshot::default()
    }
}
