//! Lag: where consumer groups are behind, partition by partition, the longest lag first.
//!
//! In: how long a lag has to be, a queue, a group. Out: partitions with the age of their oldest open message.
//! Called by `commands`.

use std::time::Duration;

use clap::Args;
use serde::Deserialize;

use crate::column::{Kind, column};
use crate::fault::Fault;
use crate::http::{path, query};
use crate::moments;
use crate::output::{View, items};
use crate::session::Session;

/// Most partitions that are asked for, before those of other queues and groups are left out.
const PARTITIONS_MAX: usize = 10_000;

/// What is looked for.
#[derive(Args, Debug)]
pub(crate) struct Lag {
    /// Only lags of at least this length
    #[arg(long, value_name = "DURATION", default_value = "0", value_parser = moments::duration)]
    min: Duration,
    /// Only in this queue
    #[arg(long, short)]
    queue: Option<String>,
    /// Only of this group
    #[arg(long, short)]
    group: Option<String>,
    /// Most partitions that are shown
    #[arg(long, default_value_t = 100)]
    limit: usize,
}

const LAGGING: View = View {
    list: None,
    columns: &[
        column("GROUP", "/consumer_group", Kind::Text),
        column("QUEUE", "/queue_name", Kind::Text),
        column("PARTITION", "/partition_name", Kind::Text),
        column("LAG", "/offset_lag", Kind::Count),
        column("OLDEST", "/time_lag_seconds", Kind::Late),
        column("SINCE", "/oldest_unconsumed_at", Kind::Time),
        column("LEASE", "/worker_id", Kind::Text),
    ],
    empty: "no group lags",
};

pub(crate) async fn run(session: &mut Session, lag: Lag) -> Result<(), Fault> {
    #[derive(Deserialize)]
    struct Place {
        consumer_group: String,
        queue_name: String,
    }
    let parameters = [
        ("minLagSeconds", Some(lag.min.as_secs().to_string())),
        ("limit", Some(PARTITIONS_MAX.to_string())),
    ];
    let body = session.get(&query(&path(&["consumer-groups", "lagging"]), parameters)).await?;
    let all = items(&body, None)?;
    if all.len() == PARTITIONS_MAX {
        eprintln!(
            "onrushctl: warning: more than {PARTITIONS_MAX} partitions lag; only the longest are looked at"
        );
    }
    let is_wanted = |text: &str| {
        let Ok(place) = serde_json::from_str::<Place>(text) else { return false };
        lag.queue.as_ref().is_none_or(|it| *it == place.queue_name)
            && lag.group.as_ref().is_none_or(|it| *it == place.consumer_group)
    };
    let chosen = all.into_iter().filter(|raw| is_wanted(raw.get())).take(lag.limit);
    session.output.chosen(&chosen.collect::<Vec<_>>(), &LAGGING)
}
