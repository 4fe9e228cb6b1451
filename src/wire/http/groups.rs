//! Consumer groups over HTTP: how they stand, and what is done with them.
//!
//! In: paths, queries and small bodies. Out: the shapes of the contract with true numbers, also where the
//! system that we replace leaves them out. Members of a group are leases that differ and pops that wait at
//! this engine; a group lags when its oldest message waits for more than five minutes, and is dead when
//! nobody takes it. Called by its `rows`.

pub(super) mod rows;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use hyper::StatusCode;
use onrush_protocol::name::{GroupName, PartitionName, QueueName};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::base::place::QueueId;
use crate::delivery::groups::{GroupError, Moved};
use crate::shard::groups::{PartitionStanding, SurveyPlace};
use crate::shard::look::standings::GroupStanding;
use crate::state::draft::group::SeekTo;
use crate::state::effect::GroupStart;
use crate::wire::codes;
use crate::wire::http::ids::{Uuid, millis_text};
use crate::wire::http::shape::{self, Object};
use crate::wire::http::status::{Answer, Failure, json};
use crate::wire::http::url::Query;
use crate::wire::http::{Api, dead, times};

/// A group whose oldest message waits for longer lags, seconds.
const LAGGING_S: u64 = 300;
/// Lag from which partitions are listed where nothing is said, and at most, seconds.
const MIN_LAG_S: u64 = 3_600;
const MIN_LAG_S_MAX: u64 = 100 * 366 * 24 * 3_600;
/// Partitions that one answer lists where nothing is said, and at most.
const PARTITIONS: u64 = 10_000;
const PARTITIONS_MAX: u64 = 100_000;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Listed<'a> {
    name: &'a str,
    topics: [&'a str; 1],
    queue_name: &'a str,
    members: u64,
    partitions: u64,
    partitions_with_lag: u64,
    total_lag: u64,
    max_time_lag: u64,
    state: &'static str,
    subscription_mode: Option<&'static str>,
    subscription_timestamp: Option<String>,
    subscription_created_at: Option<String>,
}

#[derive(Serialize)]
struct InQueue {
    partitions: Vec<InPartition>,
    /// Where the next page begins, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct InPartition {
    partition: Box<str>,
    partition_id: Uuid,
    /// The lease, where there is one: nothing else is known of who works.
    worker_id: Option<Uuid>,
    last_consumed_at: Option<String>,
    total_consumed: u64,
    offset_lag: u64,
    time_lag_seconds: u64,
    lease_active: bool,
    lease_expires_at: Option<String>,
}

#[derive(Serialize)]
struct Lagging<'a> {
    consumer_group: &'a str,
    queue_name: &'a str,
    partition_name: Box<str>,
    partition_id: Uuid,
    worker_id: Option<Uuid>,
    offset_lag: u64,
    time_lag_seconds: u64,
    lag_hours: f64,
    oldest_unconsumed_at: Option<String>,
    last_consumed_at: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Deleted<'a> {
    success: bool,
    consumer_group: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    queue_name: Option<&'a str>,
    deleted_partitions: u64,
    metadata_deleted: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Subscribed<'a> {
    success: bool,
    consumer_group: &'a str,
    new_timestamp: String,
    rows_updated: u32,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Sought<'a> {
    success: bool,
    consumer_group: &'a str,
    queue_name: &'a str,
    seek_to_end: bool,
    target_timestamp: Option<String>,
    partitions_updated: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SoughtOne<'a> {
    success: bool,
    consumer_group: &'a str,
    queue_name: &'a str,
    partition_name: &'a str,
    updated: bool,
    cursor_moved_to: Option<u64>,
}

#[derive(Serialize)]
struct NoPartition {
    success: bool,
    error: &'static str,
    code: &'static str,
    retryable: bool,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawSeek<'a> {
    #[serde(borrow)]
    to_end: Option<&'a RawValue>,
    to_beginning: Option<&'a RawValue>,
    position: Option<&'a RawValue>,
    timestamp: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawSubscription<'a> {
    #[serde(borrow)]
    subscription_timestamp: Option<&'a RawValue>,
}

/// All groups of all queues.
pub(super) async fn list(api: &Api) -> Result<Answer, Failure> {
    let standings = standings(api, None).await?;
    let mut oldest = BTreeMap::<QueueId, BTreeMap<Box<str>, u64>>::new();
    for standing in standings.iter().filter(|it| it.behind > 0) {
        if let Entry::Vacant(place) = oldest.entry(standing.queue) {
            let found = api.rooms.delivery.oldest_unsettled(standing.queue).await;
            place.insert(found.map_err(|error| dead::failed(&error))?);
        }
    }
    let now_ms = api.rooms.clock.now_ms();
    let shown = standings.iter().map(|standing| {
        let of_queue = oldest.get(&standing.queue);
        let oldest_ms = of_queue.and_then(|it| it.get(&standing.group)).copied();
        show(standing, lag_s(oldest_ms, now_ms))
    });
    Ok(json(StatusCode::OK, &shown.collect::<Vec<_>>()))
}

fn show(standing: &GroupStanding, max_time_lag: u64) -> Listed<'_> {
    let subscription = standing.subscription;
    let since = (subscription.since_ms > 0).then(|| millis_text(subscription.since_ms));
    let (mode, timestamp) = match subscription.start {
        GroupStart::Beginning => (None, None),
        GroupStart::New => (Some("new"), since.clone()),
        GroupStart::Time(time_ms) => (Some("timestamp"), Some(millis_text(time_ms))),
    };
    let state = match (max_time_lag > LAGGING_S, standing.members) {
        (false, _) => "Stable",
        (true, 0) => "Dead",
        (true, _) => "Lagging",
    };
    Listed {
        name: &standing.group,
        topics: [&standing.queue_name],
        queue_name: &standing.queue_name,
        members: standing.members,
        partitions: standing.partitions,
        partitions_with_lag: standing.lagging,
        total_lag: standing.behind,
        max_time_lag,
        state,
        subscription_mode: mode,
        subscription_timestamp: timestamp,
        subscription_created_at: since,
    }
}

/// One group, partition by partition, of all its queues or one.
pub(super) async fn get(api: &Api, group: &str, query: &str) -> Result<Answer, Failure> {
    let group: GroupName = group.parse()?;
    let query = Query::parse(query)?;
    let limit = query.number("limit", 1, PARTITIONS_MAX)?.unwrap_or(PARTITIONS);
    let from = query.get("from").map(place).transpose()?.unwrap_or_default();
    let asked = query.get("queue");
    let standings = standings(api, None).await?;
    let is_it = |it: &&GroupStanding| {
        *it.group == *group.as_str() && asked.is_none_or(|queue| *it.queue_name == *queue)
    };
    let now_ms = api.rooms.clock.now_ms();
    let mut found = BTreeMap::new();
    for standing in standings.iter().filter(is_it) {
        let page = api.rooms.delivery.group_partitions(
            standing.queue,
            &group,
            false,
            from,
            limit as usize,
        );
        let (partitions, next) = page.await.map_err(|error| dead::failed(&error))?;
        let partitions = partitions.into_iter().map(|it| in_partition(it, now_ms)).collect();
        let next = next.map(|it| format!("{}.{}", it.shard, it.at));
        found.insert(&standing.queue_name, InQueue { partitions, next });
    }
    Ok(json(StatusCode::OK, &found))
}

fn in_partition(standing: PartitionStanding, now_ms: u64) -> InPartition {
    let lease = standing.lease.filter(|(_, until_ms)| *until_ms > now_ms);
    InPartition {
        partition: standing.name,
        partition_id: Uuid::of_partition(standing.partition),
        worker_id: lease.map(|(token, _)| Uuid(token)),
        last_consumed_at: None,
        total_consumed: standing.settled,
        offset_lag: standing.behind,
        time_lag_seconds: lag_s(standing.oldest_ms, now_ms),
        lease_active: lease.is_some(),
        lease_expires_at: lease.map(|(_, until_ms)| millis_text(until_ms)),
    }
}

/// Partitions in which some group lags by a time, the longest first.
pub(super) async fn lagging(api: &Api, query: &str) -> Result<Answer, Failure> {
    let query = Query::parse(query)?;
    let min_lag_s = query.number("minLagSeconds", 0, MIN_LAG_S_MAX)?.unwrap_or(MIN_LAG_S);
    let limit = query.number("limit", 1, PARTITIONS_MAX)?.unwrap_or(PARTITIONS) as usize;
    let standings = standings(api, None).await?;
    let now_ms = api.rooms.clock.now_ms();
    let mut found = Vec::new();
    for standing in standings.iter().filter(|it| it.behind > 0) {
        let group: GroupName = standing.group.parse()?;
        let mut from = Some(SurveyPlace::default());
        while let Some(place) = from {
            let page =
                api.rooms.delivery.group_partitions(standing.queue, &group, true, place, limit);
            let (partitions, next) = page.await.map_err(|error| dead::failed(&error))?;
            let lags = |it: &PartitionStanding| lag_s(it.oldest_ms, now_ms) >= min_lag_s;
            let lagging = partitions.into_iter().filter(lags);
            found.extend(lagging.map(|it| lagging_one(standing, it, now_ms)));
            // Only the longest are told: what is shorter than all of them is let go on the way.
            if found.len() > 2 * limit {
                keep_longest(&mut found, limit);
            }
            from = next;
        }
    }
    keep_longest(&mut found, limit);
    Ok(json(StatusCode::OK, &found))
}

fn keep_longest(found: &mut Vec<Lagging<'_>>, limit: usize) {
    found.sort_by_key(|it| std::cmp::Reverse(it.time_lag_seconds));
    found.truncate(limit);
}

fn lagging_one(standing: &GroupStanding, partition: PartitionStanding, now_ms: u64) -> Lagging<'_> {
    let lag_s = lag_s(partition.oldest_ms, now_ms);
    let lease = partition.lease.filter(|(_, until_ms)| *until_ms > now_ms);
    Lagging {
        consumer_group: &standing.group,
        queue_name: &standing.queue_name,
        partition_name: partition.name,
        partition_id: Uuid::of_partition(partition.partition),
        worker_id: lease.map(|(token, _)| Uuid(token)),
        offset_lag: partition.behind,
        time_lag_seconds: lag_s,
        lag_hours: (lag_s as f64 / 36.0).round() / 100.0,
        oldest_unconsumed_at: partition.oldest_ms.map(millis_text),
        last_consumed_at: None,
    }
}

/// Forgets a group, of one queue or of all.
pub(super) async fn delete(
    api: &Api,
    group: &str,
    queue: Option<&str>,
    query: &str,
) -> Result<Answer, Failure> {
    let query = Query::parse(query)?;
    let group: GroupName = group.parse()?;
    let queue = queue.map(str::parse::<QueueName>).transpose()?;
    let keep_start = query.has("deleteMetadata") && !query.is_on("deleteMetadata");
    let forgotten = api.rooms.delivery.forget_group(queue.as_ref(), &group, keep_start).await;
    let forgotten = forgotten.map_err(|error| dead::failed(&error))?;
    let body = Deleted {
        success: true,
        consumer_group: group.as_str(),
        queue_name: queue.as_ref().map(QueueName::as_str),
        deleted_partitions: forgotten.partitions,
        metadata_deleted: !keep_start,
    };
    Ok(json(StatusCode::OK, &body))
}

/// Changes where a group begins wherever it has no cursor.
pub(super) async fn subscribe(api: &Api, group: &str, body: &[u8]) -> Result<Answer, Failure> {
    let group: GroupName = group.parse()?;
    let required = || Failure::malformed("subscriptionTimestamp is required");
    let Object::Is(raw) = shape::read::<Object<RawSubscription<'_>>>(body)? else {
        return Err(required());
    };
    let raw = raw.subscription_timestamp.ok_or_else(required)?;
    let time_ms = time(raw, "subscriptionTimestamp")?;
    let start = GroupStart::Time(time_ms);
    let changed = api.rooms.delivery.subscribe(None, &group, start).await;
    let body = Subscribed {
        success: true,
        consumer_group: group.as_str(),
        new_timestamp: millis_text(time_ms),
        rows_updated: changed.map_err(|error| dead::failed(&error))?,
    };
    Ok(json(StatusCode::OK, &body))
}

/// Sends a group elsewhere in all partitions of a queue.
pub(super) async fn seek(
    api: &Api,
    group: &str,
    queue: &str,
    body: &[u8],
) -> Result<Answer, Failure> {
    let (group, queue): (GroupName, QueueName) = (group.parse()?, queue.parse()?);
    let to = seek_to(body)?
        .ok_or_else(|| Failure::malformed("Must specify either 'toEnd': true or 'timestamp'"))?;
    let moved = match api.rooms.delivery.seek(&queue, &group, None, to).await {
        // The clients of Queen expect no cursors to be moved where there are none.
        Err(GroupError::NoGroup(_)) if !api.dialect.is_strict() => Moved::default(),
        moved => moved.map_err(|error| failed(&error))?,
    };
    let target = match to {
        SeekTo::Time(time_ms) => Some(millis_text(time_ms)),
        SeekTo::Beginning | SeekTo::End => None,
    };
    let body = Sought {
        success: true,
        consumer_group: group.as_str(),
        queue_name: queue.as_str(),
        seek_to_end: to == SeekTo::End,
        target_timestamp: target,
        partitions_updated: moved.partitions,
    };
    Ok(json(StatusCode::OK, &body))
}

/// Sends a group elsewhere in one partition: to its end, unless the body says something else.
pub(super) async fn seek_one(
    api: &Api,
    group: &str,
    queue: &str,
    partition: &str,
    body: &[u8],
) -> Result<Answer, Failure> {
    let (group, queue): (GroupName, QueueName) = (group.parse()?, queue.parse()?);
    let name: PartitionName = partition.parse()?;
    let to = seek_to(body)?.unwrap_or(SeekTo::End);
    let moved = match api.rooms.delivery.seek(&queue, &group, Some(&name), to).await {
        Err(GroupError::NoGroup(_)) if !api.dialect.is_strict() => Moved::default(),
        Err(error @ GroupError::NoPartition) => {
            let failure = failed(&error);
            let (error, code) = ("Partition not found", failure.code());
            let body = NoPartition { success: false, error, code, retryable: false };
            return Ok(failure.answer_with(failure.status(), &body));
        }
        moved => moved.map_err(|error| failed(&error))?,
    };
    let body = SoughtOne {
        success: true,
        consumer_group: group.as_str(),
        queue_name: queue.as_str(),
        partition_name: name.as_str(),
        updated: moved.partitions > 0,
        cursor_moved_to: moved.next,
    };
    Ok(json(StatusCode::OK, &body))
}

/// Where a body sends a group; `None` where it does not say.
fn seek_to(body: &[u8]) -> Result<Option<SeekTo>, Failure> {
    if body.is_empty() {
        return Ok(None);
    }
    let Object::Is(raw) = shape::read::<Object<RawSeek<'_>>>(body)? else {
        return Err(Failure::malformed("the body must be an object"));
    };
    let is_on = |raw: Option<&RawValue>| raw.is_some_and(|it| it.get() == "true");
    if is_on(raw.to_end) {
        return Ok(Some(SeekTo::End));
    }
    if is_on(raw.to_beginning) {
        return Ok(Some(SeekTo::Beginning));
    }
    match raw.position.map(|raw| shape::text(raw).unwrap_or_default()).as_deref() {
        None => {}
        Some("earliest" | "beginning") => return Ok(Some(SeekTo::Beginning)),
        Some("latest" | "end") => return Ok(Some(SeekTo::End)),
        Some(_) => return Err(Failure::value("position must be earliest or latest")),
    }
    raw.timestamp.map(|raw| time(raw, "timestamp").map(SeekTo::Time)).transpose()
}

/// A field that is a time.
fn time(raw: &RawValue, field: &'static str) -> Result<u64, Failure> {
    // Unix milliseconds may be written as the number that they are.
    let text = shape::text(raw).unwrap_or(Cow::Borrowed(raw.get()));
    times::parse(&text).ok_or_else(|| Failure::value(format!("{field} must be {}", times::FORM)))
}

/// The place that an answer named as the next one.
fn place(text: &str) -> Result<SurveyPlace, Failure> {
    let parts = text.split_once('.').and_then(|(shard, at)| {
        Some(SurveyPlace { shard: shard.parse().ok()?, at: at.parse().ok()? })
    });
    parts.ok_or_else(|| Failure::value("from must be the next of an earlier answer"))
}

async fn standings(api: &Api, queue: Option<QueueId>) -> Result<Vec<GroupStanding>, Failure> {
    api.rooms.delivery.group_standings(queue).await.map_err(|error| dead::failed(&error))
}

fn lag_s(oldest_ms: Option<u64>, now_ms: u64) -> u64 {
    oldest_ms.map_or(0, |oldest_ms| now_ms.saturating_sub(oldest_ms) / 1000)
}

fn failed(error: &GroupError) -> Failure {
    Failure::new(codes::of_group_error(error), error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seek_goes_where_its_body_says_and_nowhere_without_a_word() {
        assert_eq!(seek_to(br#"{"toEnd":true}"#), Ok(Some(SeekTo::End)));
        assert_eq!(seek_to(br#"{"toBeginning":true}"#), Ok(Some(SeekTo::Beginning)));
        assert_eq!(seek_to(br#"{"position":"earliest"}"#), Ok(Some(SeekTo::Beginning)));
        assert_eq!(seek_to(br#"{"position":"latest"}"#), Ok(Some(SeekTo::End)));
        assert!(seek_to(br#"{"position":"middle"}"#).is_err());
        let at = seek_to(br#"{"toEnd":false,"timestamp":"2026-05-16T08:00:00.123Z"}"#);
        assert_eq!(at, Ok(Some(SeekTo::Time(1_778_918_400_123))));
        for body in [&b""[..], b"{}", br#"{"toEnd":false}"#] {
            assert_eq!(seek_to(body), Ok(None));
        }
        for body in [r#"{"timestamp":1778918400123}"#, r#"{"timestamp":"1778918400123"}"#] {
            assert_eq!(seek_to(body.as_bytes()), at, "{body}");
        }
        for body in [r#"{"timestamp":"soon"}"#, r#"{"timestamp":7.5}"#, r#"{"timestamp":[]}"#] {
            let refused = seek_to(body.as_bytes()).unwrap_err();
            assert!(refused.message().starts_with("timestamp"), "{refused:?}");
        }
    }

    #[test]
    fn a_page_begins_where_the_one_before_ended() {
        assert_eq!(place("3.70"), Ok(SurveyPlace { shard: 3, at: 70 }));
        for text in ["", "3", "a.b", "3.70.1"] {
            assert!(place(text).is_err(), "{text}");
        }
    }
}
