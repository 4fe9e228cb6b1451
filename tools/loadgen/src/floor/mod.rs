//! What bounds any such engine on this machine, measured in the same run.
//!
//! In: the shape of a run's traffic. Out: messages per second of two servers that do nothing but
//! what nobody can leave out. The first reads the very same frames, looks at their structure and
//! answers. The second also appends the batches to a file and answers after `fdatasync`, one
//! write and one sync for all that came while the last sync ran. Both are driven by the same
//! driver as the real server. Where the server stores into a database, `database` measures what that
//! bounds instead. Called around every run, and by `onrush-load floor`.

pub(crate) mod database;
mod group;
mod sink;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use crate::clock::{Clock, Span};
use crate::error::LoadError;
use crate::run::push::{PushCrew, PushPlan};
use crate::tally::Meter;
use group::Group;

/// Left out at the beginning of each measurement.
const WARMUP: Duration = Duration::from_millis(200);

/// Which bound is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Bound {
    /// Frames in, receipts out.
    Frames,
    /// Frames in, appended and synced, receipts out.
    Durable,
    /// Binary COPY into a database, one row per message.
    Rows,
    /// Binary COPY into a database, one row per batch.
    Batches,
}

/// One measurement.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Measured {
    pub(crate) bound: Bound,
    /// Messages per second.
    pub(crate) rate: f64,
    /// Syncs per second; 0 where none are made.
    pub(crate) syncs: f64,
    /// Median and 99th percentile of a request, in microseconds.
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
}

/// Measures one bound with the traffic of `plan` for `seconds`, in a closed loop. The file, if
/// there is one, is made in `folder` and removed.
pub(crate) fn measure(
    bound: Bound,
    plan: &PushPlan,
    seconds: Duration,
    threads: usize,
    folder: &Path,
) -> Result<Measured, LoadError> {
    let group = match bound {
        Bound::Frames | Bound::Rows | Bound::Batches => None,
        Bound::Durable => Some(Arc::new(Group::open(folder)?)),
    };
    let sink = sink::start(threads, group.clone())?;
    let crew = PushCrew::dial(&plan.for_floor(sink.addrs()));
    let clock = Clock::start();
    let span = Span::new(clock, WARMUP, seconds, Duration::from_secs(5));
    let outcome = crew.and_then(|crew| crew.run(clock, span, &Arc::new(Meter::default())));
    let syncs = group.as_ref().map_or(0, |group| group.syncs());
    sink.stop()?;
    let tally = outcome?.tally;
    if let Some((what, count)) = tally.errors.first_key_value() {
        let reason = format!("{count} × {what}");
        return Err(LoadError::Io { doing: "measuring the floor", reason });
    }
    let us = |quantile| tally.latency.value_at_quantile(quantile) as f64 / 1e3;
    Ok(Measured {
        bound,
        rate: tally.rate(),
        syncs: syncs as f64 / (span.seconds() + WARMUP.as_secs_f64()),
        p50_us: us(0.5),
        p99_us: us(0.99),
    })
}
