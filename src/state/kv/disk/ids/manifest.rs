//! Which runs of transaction ids count: rows in the database of all other rows.
//!
//! In: labels. Out: labels, as of the last whole batch. Called by the shelf of runs, and by the store,
//! whose batches list runs together with the rows of the same checkpoint.
//!
//! ```text
//! key:   'r' | number u64, big-endian    value: age u64 | generation u32 | rows u64
//! key:   'f' | shard u16, big-endian     value: forgotten before this age, u64
//! ```

use bytes::{Buf, BufMut};
use fjall::{Database, Keyspace, OwnedWriteBatch, PersistMode};

use super::super::kv_error;
use super::run::Label;
use crate::base::place::{ShardCount, ShardId};
use crate::state::kv::KvError;

const RUN: u8 = b'r';
const FORGOTTEN: u8 = b'f';

/// The list, on disk.
#[derive(Clone)]
pub(in super::super) struct Manifest {
    database: Database,
    keyspace: Keyspace,
}

/// What the list says.
pub(super) struct Listed {
    pub(super) labels: Vec<Label>,
    /// By shard.
    pub(super) forgotten: Vec<u64>,
    /// Higher than every number and age in the list.
    pub(super) next_number: u64,
}

impl Manifest {
    pub(in super::super) fn new(database: Database, keyspace: Keyspace) -> Self {
        Self { database, keyspace }
    }

    /// Lists a run with the batch.
    pub(super) fn add(&self, batch: &mut OwnedWriteBatch, label: &Label) {
        let mut value = Vec::with_capacity(20);
        value.put_u64_le(label.age);
        value.put_u32_le(label.generation);
        value.put_u64_le(label.rows);
        batch.insert(&self.keyspace, key_of(label), value);
    }

    /// Lists `new` in the place of `old`, durably: the files of the old ones may go then.
    pub(super) fn replace(&self, old: &[Label], new: Option<&Label>) -> Result<(), KvError> {
        let mut batch = self.database.batch();
        for label in old {
            batch.remove(&self.keyspace, key_of(label));
        }
        if let Some(label) = new {
            self.add(&mut batch, label);
        }
        batch.commit().map_err(kv_error)?;
        self.database.persist(PersistMode::SyncData).map_err(kv_error)
    }

    /// Notes that a shard's ids in runs before `age` do not count.
    pub(super) fn forget(&self, shard: ShardId, age: u64) -> Result<(), KvError> {
        let mut key = vec![FORGOTTEN];
        key.put_u16(shard);
        self.keyspace.insert(key, age.to_le_bytes()).map_err(kv_error)
    }

    pub(super) fn read(&self, count: ShardCount) -> Result<Listed, KvError> {
        let mut listed = Listed {
            labels: Vec::new(),
            forgotten: vec![0; usize::from(count.get())],
            next_number: 1,
        };
        for row in self.keyspace.iter() {
            let (key, value) = row.into_inner().map_err(kv_error)?;
            let damaged = || KvError("the list of transaction ids is damaged".to_owned());
            let highest = listed.take(&key, &value).ok_or_else(damaged)?;
            listed.next_number = listed.next_number.max(highest.saturating_add(1));
        }
        Ok(listed)
    }
}

impl Listed {
    /// Takes a row; its highest number.
    fn take(&mut self, mut key: &[u8], mut value: &[u8]) -> Option<u64> {
        match key.try_get_u8().ok()? {
            RUN => {
                let number = key.try_get_u64().ok()?;
                let age = value.try_get_u64_le().ok()?;
                let generation = value.try_get_u32_le().ok()?;
                let rows = value.try_get_u64_le().ok()?;
                self.labels.push(Label { number, age, generation, rows });
                Some(number.max(age))
            }
            FORGOTTEN => {
                let shard = key.try_get_u16().ok()?;
                let age = value.try_get_u64_le().ok()?;
                *self.forgotten.get_mut(usize::from(shard))? = age;
                Some(age)
            }
            _ => None,
        }
    }
}

fn key_of(label: &Label) -> Vec<u8> {
    let mut key = vec![RUN];
    key.put_u64(label.number);
    key
}
