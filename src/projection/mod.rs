//! Projecting: messages of queues that ask for it become plain rows of the database that the store is
//! in.
//!
//! In: entries of the log, from where the rows leave off. Out: rows, and in the same transaction where
//! they lead: so none is there twice and none is missing, whoever dies when. One engine at a time does
//! it, the others look whether it still does. It runs behind the log: no push ever waits for it, and
//! the log keeps what is still to be projected. Started by the server's composition where the store is in
//! a database; `rows` is the pure part.

mod rows;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::AbortHandle;

use crate::base::place::{PartitionNumber, QueueId, ShardId};
use crate::log::StoredEntry;
use crate::log::postgres::{
    Lock, Orders, Place, ProjectionError, ProjectionStore, RowChanges, Step,
};
use crate::state::care::Care;
use crate::state::codec::{self, EntryError};
use crate::state::effect::{Effect, Entry};
use crate::telemetry::Telemetry;

/// Pause while rows are up to date with the log.
const SOON: Duration = Duration::from_millis(200);
/// Pause while nothing asks for rows, or another engine sees to them.
const LATER: Duration = Duration::from_secs(1);
/// Bytes of entries that one transaction projects, about.
const BYTES_PER_ROUND: usize = 8 << 20;
/// Rounds that may fail in a row, a second apart, before anybody is told: a first connection takes its
/// time, and so does one that broke.
const FAILURES_TOLD: u32 = 5;
/// Names of partitions that are remembered.
const NAMES_MAX: usize = 200_000;

/// Why a round did not come to its end. Nothing of it stands.
#[derive(Debug, thiserror::Error)]
enum RoundError {
    #[error(transparent)]
    Store(#[from] ProjectionError),
    #[error("entry {index} of shard {shard}: {error}")]
    Entry { shard: ShardId, index: u64, error: EntryError },
}

/// When the next round is worth its while.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Next {
    AtOnce,
    Soon,
    Later,
}

/// A task that projects for as long as this lives.
#[derive(Debug)]
pub struct Projector(AbortHandle);

impl Projector {
    /// Starts it. To be called within a runtime.
    #[must_use]
    pub fn start(store: ProjectionStore, telemetry: Arc<Telemetry>) -> Self {
        Self(tokio::spawn(run(store, telemetry)).abort_handle())
    }
}

impl Drop for Projector {
    fn drop(&mut self) {
        // A transaction under way is undone with its connection, or stands whole.
        self.0.abort();
    }
}

async fn run(store: ProjectionStore, telemetry: Arc<Telemetry>) {
    let mut names = Names::default();
    let mut failed_in_a_row = 0_u32;
    loop {
        let next = round(&store, &mut names, &telemetry).await;
        match &next {
            Ok(_) => failed_in_a_row = 0,
            Err(error) => {
                failed_in_a_row = failed_in_a_row.saturating_add(1);
                // Said once it lasts, and not again as long as it stays so.
                match failed_in_a_row {
                    FAILURES_TOLD => tracing::warn!(%error, "messages do not become rows now"),
                    _ => tracing::debug!(%error, "messages do not become rows now"),
                }
            }
        }
        match next.unwrap_or(Next::Later) {
            Next::AtOnce => tokio::task::yield_now().await,
            Next::Soon => tokio::time::sleep(SOON).await,
            Next::Later => tokio::time::sleep(LATER).await,
        }
    }
}

async fn round(
    store: &ProjectionStore,
    names: &mut Names,
    telemetry: &Telemetry,
) -> Result<Next, RoundError> {
    let mut orders = store.orders().await?;
    note(&orders, telemetry);
    if orders.queues.is_empty() && orders.gone.is_empty() {
        return Ok(Next::Later);
    }
    match store.take_lock().await? {
        Lock::Others => return Ok(Next::Later),
        Lock::Held => {}
        // Another engine may have carried out what these said.
        Lock::Taken => orders = store.orders().await?,
    }
    // Before rows of another queue with the same name come.
    for (queue, name) in &orders.gone {
        if !store.sweep(*queue, name.as_deref()).await? {
            return Ok(Next::AtOnce);
        }
    }
    let (changes, steps) = gather(store, names, &orders).await?;
    if steps.is_empty() {
        return Ok(Next::Soon);
    }
    store.commit(&changes, &steps).await?;
    let led_to_its_head = |place: &Place| {
        let step = steps.iter().find(|step| step.shard == place.shard);
        step.map_or(place.next, |step| step.next) >= place.head
    };
    Ok(if orders.places.iter().all(led_to_its_head) { Next::Soon } else { Next::AtOnce })
}

fn note(orders: &Orders, telemetry: &Telemetry) {
    telemetry.projection_entries.set(orders.entries);
    telemetry.projection_ms.set((orders.seconds.max(0.0) * 1000.0) as u64);
}

/// What one transaction writes: entries of the shards that are furthest behind, and of as many others
/// as fit.
async fn gather(
    store: &ProjectionStore,
    names: &mut Names,
    orders: &Orders,
) -> Result<(RowChanges, Vec<Step>), RoundError> {
    let mut places: Vec<Place> =
        orders.places.iter().copied().filter(|place| place.next < place.head).collect();
    places.sort_by_key(|place| std::cmp::Reverse(place.head - place.next));
    let (mut changes, mut steps, mut bytes) = (RowChanges::default(), Vec::new(), 0);
    for place in places {
        if bytes >= BYTES_PER_ROUND {
            break;
        }
        let (skipped, entries) = store.read(place, BYTES_PER_ROUND - bytes).await?;
        let Place { shard, was, next, .. } = place;
        if skipped > 0 {
            tracing::error!(shard, next, skipped, "entries were gone before they became rows");
        }
        bytes += entries.iter().map(|entry| entry.bytes.len()).sum::<usize>();
        let entries = entries.into_iter().map(decode).collect::<Result<Vec<_>, _>>()?;
        names.learn(store, shard, &entries).await?;
        for (index, entry) in &entries {
            rows::add(&mut changes, (shard, *index), entry, &orders.queues, |number| {
                names.known.get(&number).map(|(queue, name)| (*queue, Arc::clone(name)))
            });
        }
        let next = next + skipped + entries.len() as u64;
        if next > place.next {
            steps.push(Step { shard, was, next, skipped });
        }
    }
    Ok((changes, steps))
}

/// An entry with its number.
fn decode(stored: StoredEntry) -> Result<(u64, Entry), RoundError> {
    let StoredEntry { shard, index, bytes, .. } = stored;
    let entry = codec::decode(bytes);
    entry.map(|entry| (index, entry)).map_err(|error| RoundError::Entry { shard, index, error })
}

/// Queues and names of partitions. A number is never given again, so what is known stays true.
#[derive(Debug, Default)]
struct Names {
    known: HashMap<PartitionNumber, (QueueId, Arc<str>)>,
}

impl Names {
    /// Asks for the partitions of some entries that are not known yet.
    async fn learn(
        &mut self,
        store: &ProjectionStore,
        shard: ShardId,
        entries: &[(u64, Entry)],
    ) -> Result<(), RoundError> {
        if self.known.len() > NAMES_MAX {
            self.known.clear();
        }
        let mut unknown: Vec<PartitionNumber> = Vec::new();
        for (_, entry) in entries {
            unknown.extend(entry.effects.iter().filter_map(|effect| match effect {
                Effect::Append { partition, .. } | Effect::Care(Care::Erase { partition, .. })
                    if !self.known.contains_key(partition) =>
                {
                    Some(*partition)
                }
                _ => None,
            }));
        }
        unknown.sort_unstable();
        unknown.dedup();
        if unknown.is_empty() {
            return Ok(());
        }
        for (number, queue, name) in store.names(shard, &unknown).await? {
            self.known.insert(number, (queue, name.into()));
        }
        Ok(())
    }
}
