//! Who a store is: shard count, secret key and id, made once and never changed.
//!
//! The shard count and the key place every partition, so opening a store with others would lose
//! everything in it: what is stored wins over what is asked for. In: randomness, for a new one. Out:
//! the values; each log keeps them in its own way. Called by the logs and the server's composition.

use crate::base::place::{ShardCount, StoreKey};
use crate::base::random::Random;
use crate::journal::StoreId;

/// Who a store is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Identity {
    /// How many shards it has, the catalog's not counted.
    pub shards: ShardCount,
    /// Its secret: keys every hash of client-chosen text.
    pub key: StoreKey,
    /// Its id: stands wherever something belongs to it.
    pub store: StoreId,
    /// When it was made, in milliseconds since 1970.
    pub created_ms: u64,
}

impl Identity {
    /// A new one, kept nowhere yet.
    #[must_use]
    pub fn new(random: &dyn Random, shards: ShardCount, now_ms: u64) -> Self {
        let (mut key, mut store) = ([0; 16], [0; 16]);
        random.fill(&mut key);
        random.fill(&mut store);
        Self { shards, key: StoreKey(key), store, created_ms: now_ms }
    }
}

/// What was found where an identity was looked for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Loaded {
    /// There was none: this one was made and is durable.
    Created(Identity),
    /// The store's own. It may have another shard count than the one asked for, and that counts.
    Existing(Identity),
}

impl Loaded {
    /// The identity to use.
    #[must_use]
    pub fn identity(&self) -> Identity {
        match self {
            Self::Created(identity) | Self::Existing(identity) => *identity,
        }
    }
}
