//! What whoever runs a test may set in the environment: sizes, and seeds for tests that draw lots.

#![allow(dead_code, reason = "no test asks for all of it")]

use std::ops::Range;
use std::str::FromStr;

/// The number that a variable holds, or `default`.
pub(crate) fn number<T: FromStr>(name: &str, default: T) -> T {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// As many seeds as `SEEDS` says, or `default`; or the one that `SEED` names.
pub(crate) fn seeds(default: u64) -> Range<u64> {
    match number("SEED", u64::MAX) {
        u64::MAX => 0..number("SEEDS", default),
        one => one..one + 1,
    }
}

/// Two threads, for a test that makes a runtime for each seed.
pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}
