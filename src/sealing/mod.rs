//! Sealing: payloads of queues that ask for it are encrypted before they reach a ring, and opened when
//! they leave to a consumer or an answer. In between, in memory, in logs, in a database, in the failover
//! log and as dead letters, there is ciphertext only.
//!
//! In: batches and the place that they are for. Out: sealed batches, and the way back; or a refusal. It
//! fails closed: without a key nothing is sealed, and what does not open is never taken for a message.
//! Called by admission, delivery, and the lane.
//!
//! [`keys`] where keys come from, [`form`] the bytes, [`watch`] keys that change while a server runs.

pub mod form;
mod fuzz;
mod key;
pub mod keys;
#[cfg(test)]
mod tests;
pub mod watch;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use aws_lc_rs::aead::LessSafeKey;
use onrush_protocol::batch::RecordBatch;
use parking_lot::Mutex;

pub use form::Place;
pub use fuzz::fuzz_open;
pub use key::KeyId;

use crate::base::random::Random;
use form::{SEALED_BYTES_MAX, Sealer};
use key::Salt;
use keys::KeySet;

/// Blocks of AES that one derived key encrypts at most: 64 GiB, far below where GCM begins to leak. A
/// counter stays below it too, as a record has one block at least.
const BLOCKS_MAX: u64 = u32::MAX as u64;
/// Derived keys that are remembered for opening; each salt of each start of a server needs one.
const OPENERS_MAX: usize = 1024;

/// Why a batch was not sealed: it must not be stored.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum SealError {
    /// There is no key to seal with.
    #[error("the queue asks for encryption and this server has no key")]
    NoKey,
    /// Each message grows by what its seal needs, and these do not fit then.
    #[error("sealed, the batch would have {bytes} bytes; at most {limit} are allowed")]
    TooLarge {
        /// Its bytes, sealed.
        bytes: usize,
        /// Most bytes that a sealed batch may have.
        limit: usize,
    },
    /// The library failed.
    #[error("sealing failed")]
    Failed,
}

/// Why a message does not open. It stays where it is.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum OpenError {
    /// The key that it was sealed with is not in the ring now.
    #[error("key {0} is not here")]
    NoKey(KeyId),
    /// It was changed, or it is not from this place, or its key is not the one of that number.
    #[error(
        "the message does not open with key {0}: it was changed or moved, or the key is another one"
    )]
    Broken(KeyId),
    /// It is nothing that this server sealed.
    #[error("the sealed message is not one: {0}")]
    Malformed(&'static str),
}

/// The keys of a server. They may be exchanged at any time; what is under way ends with those that it
/// began with.
pub struct Keyring {
    ring: ArcSwap<Ring>,
    random: Arc<dyn Random>,
    /// Why the keys could not be read again, when that failed last.
    fault: Mutex<Option<String>>,
}

/// What can be told of a ring: no secret.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Picture {
    /// The numbers of all keys, ascending.
    pub keys: Vec<KeyId>,
    /// The key that seals.
    pub active: Option<KeyId>,
    /// Why the keys could not be read again, when that failed last.
    pub fault: Option<String>,
}

struct Ring {
    keys: KeySet,
    /// What seals now; `None` without keys.
    epoch: Option<ArcSwap<Epoch>>,
    openers: Mutex<HashMap<(KeyId, Salt), Arc<LessSafeKey>>>,
}

/// A derived key and how much it encrypted so far.
struct Epoch {
    id: KeyId,
    salt: Salt,
    key: LessSafeKey,
    used: AtomicU64,
}

impl Epoch {
    fn begin(keys: &KeySet, random: &dyn Random) -> Option<Self> {
        let mut salt = Salt::default();
        random.fill(&mut salt);
        let id = keys.active()?;
        let key = keys.get(id)?.derive(&salt)?;
        Some(Self { id, salt, key, used: AtomicU64::new(0) })
    }
}

impl Ring {
    fn new(keys: KeySet, random: &dyn Random) -> Self {
        let epoch = Epoch::begin(&keys, random).map(ArcSwap::from_pointee);
        Self { keys, epoch, openers: Mutex::default() }
    }

    fn opener(&self, id: KeyId, salt: &Salt) -> Result<Arc<LessSafeKey>, OpenError> {
        if let Some(known) = self.openers.lock().get(&(id, *salt)) {
            return Ok(Arc::clone(known));
        }
        let key = self.keys.get(id).ok_or(OpenError::NoKey(id))?;
        let key = Arc::new(key.derive(salt).ok_or(OpenError::Broken(id))?);
        let mut openers = self.openers.lock();
        if openers.len() >= OPENERS_MAX {
            openers.clear();
        }
        openers.insert((id, *salt), Arc::clone(&key));
        Ok(key)
    }
}

impl Keyring {
    /// A ring of these keys; salts are drawn from `random`, which must not be guessed nor repeat.
    #[must_use]
    pub fn new(keys: KeySet, random: Arc<dyn Random>) -> Self {
        let ring = ArcSwap::from_pointee(Ring::new(keys, &*random));
        Self { ring, random, fault: Mutex::new(None) }
    }

    /// A ring without keys: it seals nothing and opens nothing.
    #[must_use]
    pub fn empty() -> Self {
        Self::new(KeySet::default(), Arc::new(crate::base::random::SystemRandom))
    }

    /// Whether there is a key to seal with.
    #[must_use]
    pub fn can_seal(&self) -> bool {
        self.ring.load().epoch.is_some()
    }

    /// What can be told of it.
    #[must_use]
    pub fn picture(&self) -> Picture {
        let ring = self.ring.load();
        let keys = ring.keys.ids().collect();
        Picture { keys, active: ring.keys.active(), fault: self.fault.lock().clone() }
    }

    /// Exchanges the keys; returns whether they are others now.
    pub fn replace(&self, keys: KeySet) -> bool {
        *self.fault.lock() = None;
        if self.ring.load().keys == keys {
            return false;
        }
        self.ring.store(Arc::new(Ring::new(keys, &*self.random)));
        true
    }

    /// The keys could not be read again: those that are there stay. Returns whether that is news.
    fn keep_for(&self, fault: String) -> bool {
        let fault = Some(fault);
        let mut known = self.fault.lock();
        let is_news = *known != fault;
        *known = fault;
        is_news
    }

    /// Seals every payload of a batch, with the active key.
    ///
    /// # Errors
    /// [`SealError`]: the batch must not be stored.
    pub fn seal(&self, place: Place<'_>, batch: &RecordBatch) -> Result<RecordBatch, SealError> {
        let bytes = form::sealed_bytes(batch);
        if bytes > SEALED_BYTES_MAX {
            return Err(SealError::TooLarge { bytes, limit: SEALED_BYTES_MAX });
        }
        let ring = self.ring.load();
        let current = ring.epoch.as_ref().ok_or(SealError::NoKey)?;
        // No less than there are, and counted without looking at any record.
        let blocks = (bytes / 16) as u64 + u64::from(batch.count());
        loop {
            let epoch = current.load();
            let counter = epoch.used.fetch_add(blocks, Ordering::Relaxed);
            if counter + blocks <= BLOCKS_MAX {
                let Epoch { id, salt, key, .. } = &**epoch;
                let sealer = Sealer { id: *id, salt, key, counter: counter as u32 };
                return form::seal(&sealer, place, batch);
            }
            let next = Epoch::begin(&ring.keys, &*self.random).ok_or(SealError::NoKey)?;
            current.store(Arc::new(next));
        }
    }

    /// Opens every payload of a batch; one that is not sealed is itself.
    ///
    /// # Errors
    /// The index of the first record that does not open, and why: those before it do.
    pub fn open(
        &self,
        place: Place<'_>,
        batch: &RecordBatch,
    ) -> Result<RecordBatch, (u32, OpenError)> {
        if !batch.is_sealed() {
            return Ok(batch.clone());
        }
        let ring = self.ring.load();
        form::open(place, batch, |id, salt| ring.opener(id, salt))
    }
}

impl std::fmt::Debug for Keyring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Picture { keys, active, .. } = self.picture();
        f.debug_struct("Keyring").field("keys", &keys).field("active", &active).finish()
    }
}
