//! Queries: named computations over a queue whose state is kept here.
//!
//! In: registrations, already decided. Out: who owns which state keys. A query that is reset gets a
//! new owner number, so that nothing of its old state can be read or written again. Pure; kept by
//! the catalog's shard, with bytes of its own for entries and rows.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::state::codec::EntryError;
use crate::state::effect::OwnerId;
use crate::state::rows;

/// Number of a query, never used twice.
pub type QueryId = u32;

/// One query as the catalog's log holds it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct QueryDefinition {
    /// Its number.
    pub id: QueryId,
    /// Whose its state keys are now.
    pub owner: OwnerId,
    /// When it was first registered, unix milliseconds.
    pub created_ms: u64,
    /// Its name.
    pub name: Box<str>,
    /// The queue that it reads.
    pub source: Box<str>,
    /// The queue that it writes to; empty for none.
    pub sink: Box<str>,
    /// What tells one chain of operators from another.
    pub config_hash: Box<str>,
}

const CUT_OFF: EntryError = EntryError { field: "query", problem: "cut off" };

impl QueryDefinition {
    /// Bytes of its encoded form.
    pub(super) fn encoded_len(&self) -> usize {
        4 + 4 + 8 + self.texts().iter().map(|text| 2 + text.len()).sum::<usize>()
    }

    fn texts(&self) -> [&str; 4] {
        [&self.name, &self.source, &self.sink, &self.config_hash]
    }

    pub(super) fn put(&self, out: &mut BytesMut) {
        out.put_u32_le(self.id);
        out.put_u32_le(self.owner);
        out.put_u64_le(self.created_ms);
        for text in self.texts() {
            out.put_u16_le(text.len() as u16);
            out.put_slice(text.as_bytes());
        }
    }

    pub(super) fn read(bytes: &mut Bytes) -> Result<Self, EntryError> {
        let id = bytes.try_get_u32_le().map_err(|_| CUT_OFF)?;
        let owner = bytes.try_get_u32_le().map_err(|_| CUT_OFF)?;
        let created_ms = bytes.try_get_u64_le().map_err(|_| CUT_OFF)?;
        let mut texts: [Box<str>; 4] = Default::default();
        for text in &mut texts {
            let len = usize::from(bytes.try_get_u16_le().map_err(|_| CUT_OFF)?);
            if len > bytes.len() {
                return Err(CUT_OFF);
            }
            *text = rows::rest_text(&mut bytes.split_to(len))?;
        }
        let [name, source, sink, config_hash] = texts;
        Ok(Self { id, owner, created_ms, name, source, sink, config_hash })
    }
}

/// All queries.
#[derive(Clone, Debug, Default)]
pub struct Queries {
    by_id: BTreeMap<QueryId, Arc<QueryDefinition>>,
    by_name: BTreeMap<Box<str>, QueryId>,
}

impl Queries {
    /// A query by its number.
    #[must_use]
    pub fn get(&self, id: QueryId) -> Option<&Arc<QueryDefinition>> {
        self.by_id.get(&id)
    }

    /// A query by its name.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<&Arc<QueryDefinition>> {
        self.by_id.get(self.by_name.get(name)?)
    }

    /// All queries in the order of their numbers.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<QueryDefinition>> {
        self.by_id.values()
    }

    /// The number that the next query gets.
    #[must_use]
    pub fn next_id(&self) -> QueryId {
        self.by_id.last_key_value().map_or(0, |(id, _)| id.saturating_add(1))
    }

    /// The number that the next owner of state keys gets: queries are never forgotten, and the
    /// newest owner is always some query's.
    #[must_use]
    pub fn next_owner(&self) -> OwnerId {
        self.by_id.values().map(|it| it.owner).max().map_or(0, |owner| owner.saturating_add(1))
    }

    pub(super) fn define(&mut self, query: QueryDefinition) {
        self.by_name.insert(query.name.clone(), query.id);
        self.by_id.insert(query.id, Arc::new(query));
    }
}
