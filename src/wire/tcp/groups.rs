//! Requests about consumer groups: to their room, and the answer back.
//!
//! In: a request. Out: a response, or a failure that blames the field. Called by `dispatch`.

use onrush_protocol::request::{
    DeleteGroup, GroupLag, ListGroups, Seek, SeekTo as AskedTo, Subscribe, SubscriptionStart,
};
use onrush_protocol::response::{
    Failure, GroupDeleted, GroupPartitions, GroupStanding, Groups, PartitionStanding, Response,
    Sought, Subscribed,
};

use crate::delivery::groups::GroupError;
use crate::shard::command::CommandError;
use crate::shard::groups::SurveyPlace;
use crate::shard::look::standings;
use crate::state::draft::group::SeekTo;
use crate::state::effect::GroupStart;
use crate::wire::tcp::failure;
use crate::wire::{Rooms, codes};

/// Times before 1970 are its beginning: no message is older.
fn unix_ms(time_ms: i64) -> u64 {
    u64::try_from(time_ms).unwrap_or(0)
}

pub(super) async fn seek(rooms: &Rooms, seek: Seek) -> Result<Response, Failure> {
    let to = match seek.to {
        AskedTo::Beginning => SeekTo::Beginning,
        AskedTo::End => SeekTo::End,
        AskedTo::Time(time_ms) => SeekTo::Time(unix_ms(time_ms)),
    };
    let Seek { queue, group, partition, .. } = &seek;
    let moved = rooms.delivery.seek(queue, group, partition.as_ref(), to).await;
    let partitions = moved.map_err(|error| failed(&error))?.partitions;
    Ok(Response::Sought(Sought { partitions }))
}

pub(super) async fn delete(rooms: &Rooms, delete: DeleteGroup) -> Result<Response, Failure> {
    let DeleteGroup { group, keep_start, queue } = delete;
    let forgotten = rooms.delivery.forget_group(queue.as_ref(), &group, keep_start).await;
    let forgotten = forgotten.map_err(|error| command(&error))?;
    let (queues, partitions) = (forgotten.queues, forgotten.partitions);
    Ok(Response::GroupDeleted(GroupDeleted { queues, partitions }))
}

pub(super) async fn subscribe(rooms: &Rooms, asked: Subscribe) -> Result<Response, Failure> {
    let start = GroupStart::Time(unix_ms(asked.start_ms));
    let queues = rooms.delivery.subscribe(asked.queue.as_ref(), &asked.group, start).await;
    let queues = queues.map_err(|error| command(&error))?;
    Ok(Response::Subscribed(Subscribed { queues }))
}

pub(super) async fn list(rooms: &Rooms, asked: ListGroups) -> Result<Response, Failure> {
    let queue = match &asked.queue {
        None => None,
        Some(name) => {
            let missing = || failed(&GroupError::NoQueue(name.clone()));
            Some(rooms.catalogs.find(name).ok_or_else(missing)?.id)
        }
    };
    let found = rooms.delivery.group_standings(queue).await;
    let standings = found.map_err(|error| command(&error))?;
    let end = (asked.skip as usize).saturating_add(asked.limit as usize);
    let has_more = standings.len() > end;
    let mut groups = Vec::new();
    let wanted = standings.into_iter().skip(asked.skip as usize).take(asked.limit as usize);
    let mut oldest = (None, Default::default());
    for standing in wanted {
        if asked.with_oldest && standing.behind > 0 && oldest.0 != Some(standing.queue) {
            let found = rooms.delivery.oldest_unsettled(standing.queue).await;
            oldest = (Some(standing.queue), found.map_err(|error| command(&error))?);
        }
        let is_known = oldest.0 == Some(standing.queue) && standing.behind > 0;
        let oldest_ms = oldest.1.get(&standing.group).copied().filter(|_| is_known);
        groups.push(standing_of(&standing, oldest_ms.unwrap_or(0))?);
    }
    Ok(Response::Groups(Groups { has_more, groups }))
}

fn standing_of(it: &standings::GroupStanding, oldest_ms: u64) -> Result<GroupStanding, Failure> {
    let start = match it.subscription.start {
        GroupStart::Beginning => SubscriptionStart::Beginning,
        GroupStart::New => SubscriptionStart::New,
        GroupStart::Time(time_ms) => {
            SubscriptionStart::Time(i64::try_from(time_ms).unwrap_or(i64::MAX))
        }
    };
    Ok(GroupStanding {
        queue: it.queue_name.parse().map_err(|error| failure::name(&error))?,
        group: it.group.parse().map_err(|error| failure::name(&error))?,
        members: it.members,
        partitions: it.partitions,
        lagging: it.lagging,
        behind: it.behind,
        oldest_ms,
        since_ms: it.subscription.since_ms,
        start,
    })
}

pub(super) async fn lag(rooms: &Rooms, asked: GroupLag) -> Result<Response, Failure> {
    let missing = || failed(&GroupError::NoQueue(asked.queue.clone()));
    let queue = rooms.catalogs.find(&asked.queue).ok_or_else(missing)?.id;
    if !rooms.catalogs.has_group(queue, &asked.group) {
        return Err(failed(&GroupError::NoGroup(asked.group)));
    }
    let place = u16::try_from(asked.from >> 32)
        .map(|shard| SurveyPlace { shard, at: (asked.from & u64::from(u32::MAX)) as u32 });
    // Behind all shards: the page is empty.
    let place = place.unwrap_or(SurveyPlace { shard: u16::MAX, at: 0 });
    let (group, limit) = (&asked.group, asked.limit as usize);
    let page = rooms.delivery.group_partitions(queue, group, asked.only_lagging, place, limit);
    let (partitions, next) = page.await.map_err(|error| command(&error))?;
    let next = next.map_or(0, |it| u64::from(it.shard) << 32 | u64::from(it.at));
    let partitions = partitions.into_iter().map(|it| {
        Ok(PartitionStanding {
            partition: it.partition,
            name: it.name.parse().map_err(|error| failure::name(&error))?,
            next_seq: it.next,
            end_seq: it.end,
            behind: it.behind,
            oldest_ms: it.oldest_ms.unwrap_or(0),
            lease_until_ms: it.lease.map_or(0, |(_, until_ms)| until_ms),
        })
    });
    let partitions = partitions.collect::<Result<_, Failure>>()?;
    Ok(Response::GroupPartitions(GroupPartitions { next, partitions }))
}

fn command(error: &CommandError) -> Failure {
    failure::plain(codes::of_command_error(error), error)
}

fn failed(error: &GroupError) -> Failure {
    let failure = failure::plain(codes::of_group_error(error), error);
    match error {
        GroupError::NoQueue(_) => failure.blaming("queue", 0),
        GroupError::NoGroup(_) => failure.blaming("group", 0),
        GroupError::NoPartition => failure.blaming("partition", 0),
        GroupError::Command(_) => failure,
    }
}
