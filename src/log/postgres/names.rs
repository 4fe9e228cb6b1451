//! Names as rows: written in the statement of the entry that gives them, so they never lag.
//!
//! In: the labels of an append, or all names that an engine knows. Out: parameters for the statement;
//! rows for what was there before the schema kept names; and an end to names of queues that are gone.
//! Called by `append`, by `upkeep`, and once by whoever starts an engine.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio_postgres::Client;
use tokio_postgres::types::ToSql;

use super::PostgresLog;
use super::error::words;
use super::session::Session;
use crate::base::place::QueueId;
use crate::log::Proposal;
use crate::log::label::Label;

/// Names that one statement adds for what was there before.
const NAMES_PER_STATEMENT: usize = 5_000;
/// Names of partitions that one round of upkeep takes away.
const SWEPT_PER_ROUND: i64 = 20_000;
/// How often to look whether they are wanted still.
const STOP_INTERVAL: Duration = Duration::from_millis(50);
/// How long adding old names may take, all together: seconds for a million partitions.
const OLD_NAMES_MAX: Duration = Duration::from_secs(600);

/// What an engine that was there first wrote stays: it is newer.
const ADD_QUEUES: &str = "
INSERT INTO queues (queue, name) SELECT * FROM unnest($1::int8[], $2::text[])
ON CONFLICT (queue) DO NOTHING";
const ADD_PARTITIONS: &str = "
INSERT INTO partitions (shard, number, queue, name)
SELECT number % (SELECT shards FROM store), number, queue, name
  FROM unnest($1::int8[], $2::int8[], $3::text[]) AS named (number, queue, name)
ON CONFLICT (shard, number) DO NOTHING";

const ADD_ERASED: &str = "
INSERT INTO erased (shard, number, seq)
SELECT number % (SELECT shards FROM store), number, seq
  FROM unnest($1::int8[], $2::int8[], $3::int8[]) AS gone (number, first, last),
       generate_series(gone.first, gone.last) AS seq
ON CONFLICT (shard, number, seq) DO NOTHING";
/// Rows of messages that were deleted before anybody took rows away.
const REMOVE_ROWS: &str = "
DELETE FROM message_rows AS old
 USING unnest($1::int8[], $2::int8[], $3::int8[]) AS gone (number, first, last)
  JOIN partitions ON partitions.shard = gone.number % (SELECT shards FROM store)
                 AND partitions.number = gone.number
  JOIN queues ON queues.queue = partitions.queue AND queues.gone IS NULL
 WHERE old.queue = queues.name AND old.partition = partitions.name
   AND old.seq BETWEEN gone.first AND gone.last";

/// Names of partitions whose queue is gone, and what was deleted in them: of the same ones, for afterwards
/// nobody knows what those were. Whoever asks for messages joins with queues, so these are in nobody's
/// way; but for one who deletes queues all day they add up.
const SWEEP_PARTITIONS: &str = "
WITH old AS MATERIALIZED (
    SELECT partitions.shard, partitions.number
      FROM queues JOIN partitions ON partitions.queue = queues.queue
     WHERE queues.gone IS NOT NULL LIMIT $1::int8
), emptied AS (
    DELETE FROM erased USING old
     WHERE erased.shard = old.shard AND erased.number = old.number
)
DELETE FROM partitions AS swept USING old
 WHERE swept.shard = old.shard AND swept.number = old.number";
/// And then the queue, once no engine can be at making a partition of it any more.
const SWEEP_QUEUES: &str = "
DELETE FROM queues
 WHERE gone < now() - interval '1 hour'
   AND NOT has_rows
   AND NOT EXISTS (SELECT FROM partitions WHERE partitions.queue = queues.queue)";

/// Why old names could not be added. Those that were stay.
#[derive(Debug, thiserror::Error)]
#[error("adding the names of queues and partitions: {0}")]
pub struct NamingError(String);

/// Names as parameters: columns of rows.
#[derive(Debug, Default, Eq, PartialEq)]
pub(super) struct Names {
    /// By queue.
    pub(super) queues: Vec<i64>,
    pub(super) queue_names: Vec<Option<String>>,
    pub(super) gone: Vec<bool>,
    /// Whether messages are rows from here on; `None` where nothing is said of it.
    pub(super) rows: Vec<Option<bool>>,
    /// By partition.
    pub(super) shards: Vec<i32>,
    pub(super) numbers: Vec<i64>,
    pub(super) of_queues: Vec<i64>,
    pub(super) names: Vec<String>,
    /// By range of deleted messages.
    pub(super) erased_shards: Vec<i32>,
    pub(super) erased_numbers: Vec<i64>,
    pub(super) erased_firsts: Vec<i64>,
    pub(super) erased_lasts: Vec<i64>,
}

/// What an append says of a queue.
#[derive(Debug, Default)]
struct OfQueue {
    name: Option<String>,
    is_gone: bool,
    rows: Option<bool>,
}

impl Names {
    /// In the order of the statement that adds entries with names, behind those of the entries.
    pub(super) fn parameters(&self) -> [&(dyn ToSql + Sync); 12] {
        [
            &self.queues,
            &self.queue_names,
            &self.gone,
            &self.rows,
            &self.shards,
            &self.numbers,
            &self.of_queues,
            &self.names,
            &self.erased_shards,
            &self.erased_numbers,
            &self.erased_firsts,
            &self.erased_lasts,
        ]
    }

    /// The names that an append gives, as a database with this encoding can hold them; `None` where it
    /// gives none. What one append says of a queue again and again becomes one row.
    pub(super) fn of(proposals: &[Proposal], is_unicode: bool) -> Option<Self> {
        if proposals.iter().all(|proposal| proposal.labels.is_empty()) {
            return None;
        }
        let mut names = Self::default();
        let mut queues: BTreeMap<QueueId, OfQueue> = BTreeMap::new();
        for proposal in proposals {
            for label in &proposal.labels {
                match label {
                    Label::Queue { queue, name } => {
                        queues.entry(*queue).or_default().name = Some(fitting(name, is_unicode));
                    }
                    Label::Gone { queue } => queues.entry(*queue).or_default().is_gone = true,
                    Label::Rows { queue, on } => {
                        queues.entry(*queue).or_default().rows = Some(*on);
                    }
                    Label::Partition { number, queue, name } => {
                        names.shards.push(i32::from(proposal.shard));
                        names.numbers.push(i64::from(*number));
                        names.of_queues.push(i64::from(*queue));
                        names.names.push(fitting(name, is_unicode));
                    }
                    Label::Erased { number, first, last } => {
                        names.erased_shards.push(i32::from(proposal.shard));
                        names.erased_numbers.push(i64::from(*number));
                        names.erased_firsts.push(*first as i64);
                        names.erased_lasts.push(*last as i64);
                    }
                }
            }
        }
        for (queue, OfQueue { name, is_gone, rows }) in queues {
            names.queues.push(i64::from(queue));
            names.queue_names.push(name);
            names.gone.push(is_gone);
            names.rows.push(rows);
        }
        Some(names)
    }
}

/// A name in an encoding that may not have all of its letters: a commit must not fail over that.
fn fitting(name: &str, is_unicode: bool) -> String {
    match is_unicode {
        true => name.to_owned(),
        false => name.escape_default().to_string(),
    }
}

/// Takes away names that nobody can ask for any more.
pub(super) async fn sweep(session: &Session) -> Result<(), tokio_postgres::Error> {
    session.client.execute(SWEEP_PARTITIONS, &[&SWEPT_PER_ROUND]).await?;
    session.client.execute(SWEEP_QUEUES, &[]).await.map(|_| ())
}

impl PostgresLog {
    /// Gives names to what was there before the schema kept any; once done in a store's life, it does
    /// nothing. `labels` are all that there are, queues first. Waits up to ten minutes, or until `stop` is
    /// raised. Not to be called by a thread that runs asynchronous tasks.
    ///
    /// # Errors
    /// [`NamingError`]; what was added stays, and the next start goes on.
    pub fn name_what_was_there(
        &self,
        labels: impl Iterator<Item = Label>,
        stop: &AtomicBool,
    ) -> Result<(), NamingError> {
        let session = self.shared.upkeep.session().map_err(NamingError)?;
        let stopping = async {
            while !stop.load(Ordering::Acquire) {
                tokio::time::sleep(STOP_INTERVAL).await;
            }
        };
        let naming = async {
            tokio::select! {
                named = name_all(&session, labels) => {
                    named.map_err(|error| NamingError(words(&error)))
                }
                () = stopping => Err(NamingError("it was stopped".to_owned())),
            }
        };
        let limited = self.shared.within(OLD_NAMES_MAX, naming);
        let late = |_| NamingError("it took too long".to_owned());
        self.shared.runtime().block_on(limited).map_err(late)?
    }
}

async fn name_all(
    session: &Session,
    labels: impl Iterator<Item = Label>,
) -> Result<(), tokio_postgres::Error> {
    let client = &session.client;
    if client.query_one("SELECT is_named FROM store", &[]).await?.get(0) {
        return Ok(());
    }
    let mut labels = labels.peekable();
    while labels.peek().is_some() {
        let some: Vec<Label> = labels.by_ref().take(NAMES_PER_STATEMENT).collect();
        add(client, &some, session.is_unicode).await?;
    }
    client.execute("UPDATE store SET is_named = true", &[]).await.map(|_| ())
}

async fn add(
    client: &Client,
    labels: &[Label],
    is_unicode: bool,
) -> Result<(), tokio_postgres::Error> {
    // Which shard a partition is of, its number says.
    let proposal = Proposal {
        shard: 0,
        expected_head: 0,
        parts: Vec::new(),
        brief: None,
        relies_on: None,
        labels: labels.to_vec(),
    };
    let Some(names) = Names::of(&[proposal], is_unicode) else { return Ok(()) };
    let queues: [&(dyn ToSql + Sync); 2] = [&names.queues, &names.queue_names];
    client.execute(ADD_QUEUES, &queues).await?;
    let partitions: [&(dyn ToSql + Sync); 3] = [&names.numbers, &names.of_queues, &names.names];
    client.execute(ADD_PARTITIONS, &partitions).await?;
    if names.erased_numbers.is_empty() {
        return Ok(());
    }
    let erased: [&(dyn ToSql + Sync); 3] =
        [&names.erased_numbers, &names.erased_firsts, &names.erased_lasts];
    client.execute(ADD_ERASED, &erased).await?;
    client.execute(REMOVE_ROWS, &erased).await.map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proposal(shard: u16, labels: Vec<Label>) -> Proposal {
        Proposal {
            shard,
            expected_head: 0,
            parts: Vec::new(),
            brief: None,
            relies_on: None,
            labels,
        }
    }

    #[test]
    fn an_append_without_names_has_none_and_a_queue_that_comes_and_goes_has_one_row() {
        assert_eq!(Names::of(&[proposal(1, vec![])], true), None);
        let made = Label::Queue { queue: 3, name: "a".into() };
        let part = Label::Partition { number: 9, queue: 3, name: "é".into() };
        let gone = Label::Gone { queue: 3 };
        let both = [proposal(1, vec![part]), proposal(4, vec![made, gone])];
        let names = Names::of(&both, true).unwrap();
        assert_eq!((&names.queues[..], &names.gone[..]), (&[3][..], &[true][..]));
        assert_eq!(names.queue_names, [Some("a".to_owned())]);
        assert_eq!((&names.shards[..], &names.numbers[..]), (&[1][..], &[9][..]));
        assert_eq!(names.names, ["é"]);
        assert_eq!(Names::of(&both, false).unwrap().names, ["\\u{e9}"]);
    }
}
