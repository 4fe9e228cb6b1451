//! What messages die of most, for the page that shows everything at once.
//!
//! In: the newest dead letters. Out: what they say, and how many say it. Letters are read from the log, so
//! what was read stays good for a while. Called by `status_page`.

use std::collections::BTreeMap;

use serde::Serialize;
use tokio::sync::Mutex;

use crate::delivery::desk::words;
use crate::shard::look::letters::LetterFilter;
use crate::wire::http::Api;
use crate::wire::http::dead::failed;
use crate::wire::http::status::Failure;

/// Letters that are looked at, the newest.
const LETTERS_MAX: usize = 1_000;
/// Errors that are told.
const ERRORS_MAX: usize = 10;
/// How long what was read stays good, microseconds.
const FRESH_US: u64 = 10_000_000;

/// An error, and of how many of the newest dead letters.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub(super) struct TopError {
    error: Box<str>,
    count: u64,
}

/// What was read last, and when, in the clock's microseconds.
#[derive(Debug, Default)]
pub(super) struct Errors(Mutex<Option<(u64, Vec<TopError>)>>);

impl Errors {
    /// The errors of the newest letters, the most frequent first. Waits for disks or networks now and
    /// then; whoever comes meanwhile waits for the same.
    pub(super) async fn top(&self, api: &Api) -> Result<Vec<TopError>, Failure> {
        let mut last = self.0.lock().await;
        let now_us = api.rooms.clock.monotonic_us();
        if let Some((at_us, errors)) = &*last
            && now_us.saturating_sub(*at_us) < FRESH_US
        {
            return Ok(errors.clone());
        }
        let letters = api.rooms.engine.dead_letters(LetterFilter::default(), 0, LETTERS_MAX).await;
        let letters = letters.map_err(|error| failed(&error))?.letters;
        let errors = most(letters.iter().map(words));
        *last = Some((now_us, errors.clone()));
        Ok(errors)
    }
}

fn most<'a>(words: impl Iterator<Item = &'a str>) -> Vec<TopError> {
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    words.for_each(|word| *counts.entry(word).or_default() += 1);
    let mut counts: Vec<(&str, u64)> = counts.into_iter().collect();
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    counts.truncate(ERRORS_MAX);
    counts.into_iter().map(|(error, count)| TopError { error: error.into(), count }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_frequent_errors_come_first_and_of_equals_the_first_in_order() {
        let many: Vec<String> = (0..20).map(|it| format!("e{it:02}")).collect();
        let words = many.iter().map(String::as_str).chain(["late", "e07", "late", "late"]);
        let top = most(words);
        assert_eq!(top.len(), ERRORS_MAX);
        let shown: Vec<(&str, u64)> = top.iter().map(|it| (&*it.error, it.count)).collect();
        assert_eq!(shown[..4], [("late", 3), ("e07", 2), ("e00", 1), ("e01", 1)]);
    }
}
