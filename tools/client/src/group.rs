//! Consumer groups: how they stand, where they are sent, and what is forgotten of them.
//!
//! In: a group's name, perhaps a queue and a partition. Out: requests that are safe to repeat: a group that
//! is sent somewhere twice is there. Called by users through [`Client::group`].

use onrush_protocol::limits::{GROUPS_PER_ANSWER_MAX, PARTITIONS_PER_ANSWER_MAX};
use onrush_protocol::request::{DeleteGroup, GroupLag, ListGroups, Seek, SeekTo, Subscribe};
use onrush_protocol::response::{GroupStanding, PartitionStanding};
use onrush_protocol::{GroupName, NameError, PartitionName, QueueName, Request, Response};

use crate::client::{Client, Repeat};
use crate::connection::mismatch;
use crate::error::Error;

/// Whether it is remembered where a deleted group begins when it comes again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeepStart {
    /// Yes: where its first contact said.
    Yes,
    /// No: where it says then.
    No,
}

/// A consumer group. Cheap to clone; making one sends nothing.
#[derive(Clone, Debug)]
pub struct Group {
    client: Client,
    name: Result<GroupName, NameError>,
}

/// A consumer group in one queue, or in one partition of it.
#[derive(Clone, Debug)]
pub struct QueueGroup {
    client: Client,
    names: Result<Names, NameError>,
}

#[derive(Clone, Debug)]
struct Names {
    group: GroupName,
    queue: QueueName,
    partition: Option<PartitionName>,
}

impl Group {
    pub(crate) fn new(client: Client, name: &str) -> Self {
        Self { client, name: name.parse() }
    }

    /// The group in one queue.
    #[must_use]
    pub fn queue(&self, name: &str) -> QueueGroup {
        let names = self
            .name
            .clone()
            .and_then(|group| Ok(Names { group, queue: name.parse()?, partition: None }));
        QueueGroup { client: self.client.clone(), names }
    }

    /// How the group stands in each of its queues, the oldest open message included. The server looks
    /// at all partitions of queues in which some group lags.
    ///
    /// # Errors
    /// As every request: [`Error`] after the last retry.
    pub async fn standings(&self) -> Result<Vec<GroupStanding>, Error> {
        let name = self.name.clone()?;
        let mut all = self.client.groups().await?;
        all.retain(|it| it.group == name);
        Ok(all)
    }

    /// Forgets the group in all queues: cursors and leases. Its dead letters stay. Returns the number
    /// of partitions in which it had a cursor.
    ///
    /// # Errors
    /// As every request: [`Error`] after the last retry.
    pub async fn delete(&self, keep: KeepStart) -> Result<u64, Error> {
        delete(&self.client, self.name.clone()?, None, keep).await
    }

    /// Lets the group begin with the first message stamped at or after `unix_ms`, wherever it has no
    /// cursor. Cursors stay. Returns the number of queues that know the group.
    ///
    /// # Errors
    /// As every request: [`Error`] after the last retry.
    pub async fn start_at(&self, unix_ms: i64) -> Result<u32, Error> {
        let group = self.name.clone()?;
        let request = Request::Subscribe(Subscribe { group, start_ms: unix_ms, queue: None });
        match self.client.request(Repeat::Safe, &request).await? {
            Response::Subscribed(subscribed) => Ok(subscribed.queues),
            other => Err(mismatch("subscribe", &other)),
        }
    }
}

impl QueueGroup {
    /// The group in one partition of the queue: where a seek moves nothing else.
    #[must_use]
    pub fn partition(&self, name: &str) -> Self {
        let names = self
            .names
            .clone()
            .and_then(|names| Ok(Names { partition: Some(name.parse()?), ..names }));
        Self { client: self.client.clone(), names }
    }

    /// Sends the group to the oldest message that is kept. As all seeks, it ends the group's leases
    /// there and forgets attempts. Returns the number of partitions in which a cursor was moved.
    ///
    /// # Errors
    /// [`Error::Refused`] when there is no such queue, group or partition.
    pub async fn seek_to_beginning(&self) -> Result<u64, Error> {
        self.seek(SeekTo::Beginning).await
    }

    /// Sends the group behind the newest message.
    ///
    /// # Errors
    /// As [`Self::seek_to_beginning`].
    pub async fn seek_to_end(&self) -> Result<u64, Error> {
        self.seek(SeekTo::End).await
    }

    /// Sends the group to the first message stamped at or after `unix_ms`, milliseconds since 1970; to
    /// what is kept, where that is younger.
    ///
    /// # Errors
    /// As [`Self::seek_to_beginning`].
    pub async fn seek_to_time(&self, unix_ms: i64) -> Result<u64, Error> {
        self.seek(SeekTo::Time(unix_ms)).await
    }

    async fn seek(&self, to: SeekTo) -> Result<u64, Error> {
        let Names { group, queue, partition } = self.names.clone()?;
        let request = Request::Seek(Seek { queue, group, partition, to });
        match self.client.request(Repeat::Safe, &request).await? {
            Response::Sought(sought) => Ok(sought.partitions),
            other => Err(mismatch("seek", &other)),
        }
    }

    /// Forgets the group in this queue, as [`Group::delete`] does in all.
    ///
    /// # Errors
    /// As every request: [`Error`] after the last retry.
    pub async fn delete(&self, keep: KeepStart) -> Result<u64, Error> {
        let Names { group, queue, .. } = self.names.clone()?;
        delete(&self.client, group, Some(queue), keep).await
    }

    /// How the group stands in the partitions in which it lags, read page by page.
    ///
    /// # Errors
    /// [`Error::Refused`] when there is no such queue or group.
    pub async fn lag(&self) -> Result<Vec<PartitionStanding>, Error> {
        let Names { group, queue, .. } = self.names.clone()?;
        let (mut found, mut from) = (Vec::new(), 0);
        loop {
            let (queue, group) = (queue.clone(), group.clone());
            let limit = PARTITIONS_PER_ANSWER_MAX;
            let lag = GroupLag { queue, group, only_lagging: true, from, limit };
            match self.client.request(Repeat::Safe, &Request::GroupLag(lag)).await? {
                Response::GroupPartitions(page) => {
                    found.extend(page.partitions);
                    from = page.next;
                }
                other => return Err(mismatch("group lag", &other)),
            }
            if from == 0 {
                return Ok(found);
            }
        }
    }
}

/// How all groups stand in all queues.
pub(crate) async fn standings(client: &Client) -> Result<Vec<GroupStanding>, Error> {
    let mut found = Vec::new();
    loop {
        let (skip, limit) = (found.len() as u32, GROUPS_PER_ANSWER_MAX);
        let list = ListGroups { with_oldest: true, skip, limit, queue: None };
        let page = match client.request(Repeat::Safe, &Request::ListGroups(list)).await? {
            Response::Groups(page) => page,
            other => return Err(mismatch("list groups", &other)),
        };
        found.extend(page.groups);
        if !page.has_more {
            return Ok(found);
        }
    }
}

async fn delete(
    client: &Client,
    group: GroupName,
    queue: Option<QueueName>,
    keep: KeepStart,
) -> Result<u64, Error> {
    let keep_start = keep == KeepStart::Yes;
    let request = Request::DeleteGroup(DeleteGroup { group, keep_start, queue });
    // Not repeated: the group may have come again in between.
    match client.request(Repeat::Unsafe, &request).await? {
        Response::GroupDeleted(deleted) => Ok(deleted.partitions),
        other => Err(mismatch("delete group", &other)),
    }
}
