//! Randomness: the seam between unpredictable bytes and a test that replays.
//!
//! In: nothing, or a seed. Out: random bytes. Called where ids, store names and jitter are made;
//! pure rooms take random values as arguments.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rand::RngCore;

/// A source of random bytes that any thread may use.
pub trait Random: Send + Sync + 'static {
    /// Fills `bytes` with random bytes.
    fn fill(&self, bytes: &mut [u8]);

    /// The next 64 random bits.
    fn next_u64(&self) -> u64 {
        let mut bytes = [0; 8];
        self.fill(&mut bytes);
        u64::from_le_bytes(bytes)
    }
}

impl<R: Random + ?Sized> Random for Arc<R> {
    fn fill(&self, bytes: &mut [u8]) {
        (**self).fill(bytes);
    }

    fn next_u64(&self) -> u64 {
        (**self).next_u64()
    }
}

/// Unpredictable bytes: a cryptographic generator per thread, seeded by the operating system.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemRandom;

impl Random for SystemRandom {
    fn fill(&self, bytes: &mut [u8]) {
        rand::rng().fill_bytes(bytes);
    }
}

/// The same numbers for the same seed, on every machine and for ever. Not for secrets.
///
/// Our own generator (a counter of odd step whose value is mixed) because a library may change
/// its stream between versions, and then no stored seed would reproduce its failure.
#[derive(Debug)]
pub struct SeededRandom {
    state: AtomicU64,
}

/// Odd, so that the counter visits all 2^64 values; from the golden ratio, so that its bits look mixed.
const STEP: u64 = 0x9E37_79B9_7F4A_7C15;

impl SeededRandom {
    /// The generator of this seed.
    pub fn new(seed: u64) -> Self {
        Self { state: AtomicU64::new(seed) }
    }

    /// A number in `0..limit`; 0 when `limit` is 0.
    pub fn below(&self, limit: u64) -> u64 {
        let wide = u128::from(self.next_u64()) * u128::from(limit);
        // The high half of the product is below `limit`.
        u64::try_from(wide >> 64).unwrap_or(0)
    }

    /// True in `per_mille` of 1,000 calls.
    pub fn chance(&self, per_mille: u64) -> bool {
        self.below(1_000) < per_mille
    }
}

impl Random for SeededRandom {
    fn fill(&self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let random = self.next_u64().to_le_bytes();
            for (byte, value) in chunk.iter_mut().zip(random) {
                *byte = value;
            }
        }
    }

    fn next_u64(&self) -> u64 {
        let mut mixed = self.state.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_seed_gives_one_stream() {
        let (a, b) = (SeededRandom::new(7), SeededRandom::new(7));
        let mut bytes = ([0; 37], [0; 37]);
        a.fill(&mut bytes.0);
        b.fill(&mut bytes.1);
        assert_eq!(bytes.0, bytes.1);
        assert_ne!(SeededRandom::new(8).next_u64(), SeededRandom::new(7).next_u64());
    }

    #[test]
    fn the_stream_of_a_seed_never_changes() {
        let random = SeededRandom::new(0);
        assert_eq!(random.next_u64(), 0xE220_A839_7B1D_CDAF);
    }

    #[test]
    fn below_stays_below_its_limit_and_reaches_every_value() {
        let random = SeededRandom::new(1);
        let mut seen = [false; 5];
        for _ in 0..1_000 {
            seen[usize::try_from(random.below(5)).unwrap()] = true;
        }
        assert_eq!(seen, [true; 5]);
        assert_eq!(random.below(0), 0);
    }

    #[test]
    fn system_random_bytes_differ_between_calls() {
        assert_ne!(SystemRandom.next_u64(), SystemRandom.next_u64());
    }
}
