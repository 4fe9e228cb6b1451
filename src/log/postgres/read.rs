//! Reading: heads, entries, and bodies inside entries.
//!
//! In: a shard and where. Out: what stands there, or why it cannot be read. Heads and entries go over
//! one connection, bodies over another, so that consumers who catch up do not hold up whoever follows.
//! Called by the log.

use bytes::Bytes;
use tokio_postgres::types::ToSql;

use super::batch::{PART_BYTES, place, position};
use super::error::of_read;
use super::link::Link;
use super::session::Session;
use super::shared::Shared;
use crate::base::place::ShardId;
use crate::log::{Extent, Followed, FollowedShard, ReadError, StoredEntry};

/// Entries of one read at most, however small they are.
const ENTRIES_MAX: i64 = 1_024;
/// Pieces that one read looks into: plans grow with them.
const PIECES_PER_READ: i32 = 8;
/// Entries of one shard that following brings at a time: the others wait for all of them.
const FOLLOWED_MAX: i64 = 256;
/// Bytes of each shard that following asks for at least.
const FOLLOWED_BYTES_MIN: usize = 64 << 10;
/// Entries up to this size are read whole when a part of them is asked for: others will be next.
const SMALL_ENTRY_BYTES: i32 = 1 << 20;

impl Shared {
    /// The heads of the shards below `count`.
    pub(super) async fn read_heads(&self, count: usize) -> Result<Vec<u64>, ReadError> {
        let rows = self
            .ask(&self.follower, async |session: &Session| {
                session.client.query(&session.statements.heads, &[]).await
            })
            .await?;
        if rows.len() != self.heads.len() || count > rows.len() {
            let reason = format!("{} heads instead of {}", rows.len(), self.heads.len());
            return Err(ReadError::Corrupt { position: 0, reason });
        }
        let mut heads = Vec::with_capacity(rows.len());
        for (shard, row) in (0..).zip(rows) {
            let (head, bytes): (i64, i64) = (row.get(0), row.get(1));
            self.note_head(shard, head as u64);
            self.note_bytes(shard, bytes as u64);
            heads.push(head as u64);
        }
        heads.truncate(count);
        Ok(heads)
    }

    /// The head of one shard.
    pub(super) async fn read_head(&self, shard: ShardId) -> Result<u64, ReadError> {
        self.head_over(&self.follower, shard).await
    }

    async fn head_over(&self, link: &Link, shard: ShardId) -> Result<u64, ReadError> {
        let shards = vec![i32::from(shard)];
        let row = self
            .ask(link, async |session: &Session| {
                session.client.query_one(&session.statements.heads_of, &[&shards]).await
            })
            .await?;
        let head: i64 = row.get(1);
        self.note_head(shard, head as u64);
        Ok(head as u64)
    }

    /// Entries from `from` on.
    pub(super) async fn read_entries(
        &self,
        shard: ShardId,
        from: u64,
        bytes_max: usize,
    ) -> Result<Vec<StoredEntry>, ReadError> {
        let (number, first) = (i32::from(shard), i64::try_from(from).unwrap_or(i64::MAX));
        let (piece, last) = self.pieces_of(shard, from)?;
        let last = last.max(piece.saturating_add(PIECES_PER_READ));
        let bytes = i64::try_from(bytes_max).unwrap_or(i64::MAX);
        let (shards, entries) = (vec![number], ENTRIES_MAX);
        let (head, rows) = self
            .ask(&self.follower, async |session: &Session| {
                let (client, statements) = (&session.client, &session.statements);
                // In this order: an entry that the head tells of is there.
                let of: [&(dyn ToSql + Sync); 1] = [&shards];
                let head = client.query_one(&statements.heads_of, &of);
                let asked: [&(dyn ToSql + Sync); 6] =
                    [&number, &first, &bytes, &piece, &last, &entries];
                let rows = client.query(&statements.read, &asked);
                tokio::try_join!(head, rows)
            })
            .await?;
        let head: i64 = head.get(1);
        self.note_head(shard, head as u64);
        if from >= head as u64 {
            return Ok(Vec::new());
        }
        let mut found = Vec::with_capacity(rows.len());
        let mut cache = self.cache.lock();
        for (index, row) in (from..).zip(rows) {
            let (number, body): (i64, &[u8]) = (row.get(0), row.get(1));
            if number as u64 != index {
                // The rest may be in pieces that were not looked into; the first one never is.
                break;
            }
            let bytes = Bytes::copy_from_slice(body);
            cache.add(shard, index, bytes.clone());
            self.witness.note(shard, index, std::slice::from_ref(&bytes));
            found.push(StoredEntry { shard, index, position: position(index), bytes });
        }
        if found.is_empty() { Err(ReadError::TooOld(position(from))) } else { Ok(found) }
    }

    /// Entries of several shards, each from a number on.
    pub(super) async fn follow_entries(
        &self,
        asked: &[(ShardId, u64)],
        bytes_max: usize,
    ) -> Vec<FollowedShard> {
        let found = match self.look_up(asked, bytes_max).await {
            Ok(found) => found,
            Err(error) => return asked.iter().map(|_| Err(error.clone())).collect(),
        };
        let mut cache = self.cache.lock();
        let each = asked.iter().zip(found).map(|((shard, from), entries)| {
            for Followed { entry, is_brief, len } in &entries {
                let bytes = std::slice::from_ref(&entry.bytes);
                self.witness.note_sized(*shard, entry.index, *len as usize, bytes);
                if !is_brief {
                    cache.add(*shard, entry.index, entry.bytes.clone());
                }
            }
            let is_there = !entries.is_empty() || self.known_head(*shard) <= *from;
            is_there.then_some(entries).ok_or(ReadError::TooOld(position(*from)))
        });
        each.collect()
    }

    async fn look_up(
        &self,
        asked: &[(ShardId, u64)],
        bytes_max: usize,
    ) -> Result<Vec<Vec<Followed>>, ReadError> {
        let pieces = self.pieces.load_full();
        let places: Vec<(i32, i64, i32, i32)> = asked
            .iter()
            .filter_map(|(shard, from)| {
                let (piece, last) = pieces.holding(*shard, *from)?;
                let last = last.max(piece.saturating_add(PIECES_PER_READ));
                let first = i64::try_from(*from).unwrap_or(i64::MAX);
                Some((i32::from(*shard), first, piece, last))
            })
            .collect();
        let shards: Vec<i32> = places.iter().map(|it| it.0).collect();
        let firsts: Vec<i64> = places.iter().map(|it| it.1).collect();
        let from_pieces: Vec<i32> = places.iter().map(|it| it.2).collect();
        let to_pieces: Vec<i32> = places.iter().map(|it| it.3).collect();
        let lowest = from_pieces.iter().min().copied().unwrap_or(0);
        let highest = to_pieces.iter().max().copied().unwrap_or(0);
        let bytes = (bytes_max / asked.len().max(1)).max(FOLLOWED_BYTES_MIN) as i64;
        let (heads, rows) = self
            .ask(&self.follower, async |session: &Session| {
                let (client, statements) = (&session.client, &session.statements);
                // In this order: an entry that the head tells of is there.
                let of: [&(dyn ToSql + Sync); 1] = [&shards];
                let heads = client.query(&statements.heads_of, &of);
                let asked: [&(dyn ToSql + Sync); 8] = [
                    &shards,
                    &firsts,
                    &from_pieces,
                    &to_pieces,
                    &bytes,
                    &FOLLOWED_MAX,
                    &lowest,
                    &highest,
                ];
                let rows = client.query(&statements.follow, &asked);
                tokio::try_join!(heads, rows)
            })
            .await?;
        for row in heads {
            let (shard, head): (i32, i64) = (row.get(0), row.get(1));
            self.note_head(shard as ShardId, head as u64);
        }
        let mut found: Vec<Vec<Followed>> = asked.iter().map(|_| Vec::new()).collect();
        for row in rows {
            let (shard, index): (i32, i64) = (row.get(0), row.get(1));
            let at = asked.iter().position(|(asked, _)| i32::from(*asked) == shard);
            let Some((entries, (shard, from))) =
                at.and_then(|at| found.get_mut(at).zip(asked.get(at)))
            else {
                continue;
            };
            // The rest may be in pieces that were not looked into; the first one never is.
            if index as u64 != from + entries.len() as u64 {
                continue;
            }
            let (len, is_brief, bytes): (i32, bool, &[u8]) = (row.get(2), row.get(3), row.get(4));
            let (index, bytes) = (index as u64, Bytes::copy_from_slice(bytes));
            let entry = StoredEntry { shard: *shard, index, position: position(index), bytes };
            entries.push(Followed { entry, is_brief, len: u64::try_from(len).unwrap_or(0) });
        }
        Ok(found)
    }

    /// A body that is in memory; `None` when the database must be asked.
    pub(super) fn body_in_memory(
        &self,
        shard: ShardId,
        extent: Extent,
    ) -> Option<Result<Bytes, ReadError>> {
        let (index, _) = place(extent.position);
        let entry = self.cache.lock().get(shard, index)?;
        Some(cut(&entry, extent, || self.known_head(shard) == index + 1))
    }

    /// A body, from the database.
    pub(super) async fn read_body(
        &self,
        shard: ShardId,
        extent: Extent,
    ) -> Result<Bytes, ReadError> {
        let (index, offset) = place(extent.position);
        let (piece, last) = self.pieces_of(shard, index)?;
        let (number, head) = (i32::from(shard), i64::try_from(index).unwrap_or(i64::MAX));
        let from = i32::try_from(offset).unwrap_or(i32::MAX).saturating_add(1);
        let length = i32::try_from(extent.len).unwrap_or(i32::MAX);
        let row = self
            .ask(&self.bodies, async |session: &Session| {
                let (small, part) = (SMALL_ENTRY_BYTES, PART_BYTES as i32);
                let asked: [&(dyn ToSql + Sync); 8] =
                    [&number, &head, &from, &length, &small, &piece, &last, &part];
                session.client.query_opt(&session.statements.body, &asked).await
            })
            .await?;
        let Some(row) = row else {
            let head = self.head_over(&self.bodies, shard).await?;
            return Err(match index < head {
                true => ReadError::TooOld(extent.position),
                false => ReadError::PastEnd(extent.position),
            });
        };
        let (size, body): (i32, &[u8]) = (row.get(0), row.get(1));
        let bytes = Bytes::copy_from_slice(body);
        if usize::try_from(size).is_ok_and(|size| size == bytes.len()) {
            self.cache.lock().add(shard, index, bytes.clone());
            return cut(&bytes, extent, || self.known_head(shard) <= index + 1);
        }
        let is_newest = || self.known_head(shard) <= index + 1;
        cut(&bytes, Extent { position: position(index), len: extent.len }, is_newest)
    }
}

/// The part of an entry that an extent names.
fn cut(
    entry: &Bytes,
    extent: Extent,
    is_newest: impl FnOnce() -> bool,
) -> Result<Bytes, ReadError> {
    let (_, offset) = place(extent.position);
    let (from, len) = (offset as usize, extent.len as usize);
    let to = from.saturating_add(len);
    if to <= entry.len() {
        return Ok(entry.slice(from..to));
    }
    let position = extent.position;
    match is_newest() {
        true => Err(ReadError::PastEnd(position)),
        false => {
            let reason = "the extent is not inside one entry".to_owned();
            Err(ReadError::Corrupt { position, reason })
        }
    }
}

impl Shared {
    /// Asks over a link, within the deadline of reading. Where it is late, all are cut.
    async fn ask<T>(
        &self,
        link: &Link,
        question: impl AsyncFnOnce(&Session) -> Result<T, tokio_postgres::Error>,
    ) -> Result<T, ReadError> {
        let session = link.session().map_err(ReadError::Unavailable)?;
        match self.within(self.config.read_timeout, question(&session)).await {
            Ok(answer) => answer.map_err(|error| of_read(&error)),
            Err(_late) => {
                self.sever_all();
                Err(ReadError::Unavailable("the database did not answer in time".to_owned()))
            }
        }
    }
}
