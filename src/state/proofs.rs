//! Proofs of the pure state: whatever is asked, in whatever order, by whomever.
//!
//! In: random commands, decided by one or two deciders over a small conditional log. Out: a panic
//! with the shortest sequence that breaks a promise. [`world`] carries commands out, [`steps`] makes
//! them up, [`picture`] is what can be observed of a state, [`audit`] reads the log with eyes of its
//! own. The properties stand in the other modules. Compiled for tests only.

mod audit;
mod bytes;
mod letters;
mod mishap;
mod picture;
mod race;
mod ready;
mod reference;
mod replay;
mod retention;
mod rows;
mod steps;
mod world;

use proptest::test_runner::Config;

/// As many cases as `PROPTEST_CASES` says, or `default`. Failures are shrunk and printed; they are
/// not kept in files, because a seed means nothing once the generators change.
fn cases(default: u32) -> Config {
    let asked = std::env::var("PROPTEST_CASES").ok().and_then(|text| text.parse().ok());
    Config { cases: asked.unwrap_or(default), failure_persistence: None, ..Config::default() }
}
