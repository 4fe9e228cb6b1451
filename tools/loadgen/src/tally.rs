//! What one thread counts: messages, latencies, refusals, errors.
//!
//! In: what became of requests, and when. Out: sums that threads' tallies are merged into, and a
//! [`Meter`] that others may read while the run goes on. Latency is taken once for each request,
//! from the moment at which it was *meant* to be sent. Called by producers and consumers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use hdrhistogram::Histogram;

use crate::clock::Span;

/// Longest latency that is told apart, in nanoseconds: 100 s.
const LATENCY_NS_MAX: u64 = 100_000_000_000;

/// A histogram of nanoseconds with three digits, 1 ns to 100 s.
pub(crate) fn latencies() -> Histogram<u64> {
    // The bounds are constants for which this cannot fail.
    Histogram::new_with_bounds(1, LATENCY_NS_MAX, 3).expect("1 ns to 100 s in three digits")
}

/// Read by the progress line while the run goes on.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    /// Messages that were accepted or consumed so far.
    pub(crate) messages: AtomicU64,
    /// Errors so far.
    pub(crate) errors: AtomicU64,
}

/// One thread's counts.
#[derive(Debug)]
pub(crate) struct Tally {
    pub(crate) span: Span,
    /// Nanoseconds from intended sending to answer, one for each request.
    pub(crate) latency: Histogram<u64>,
    /// Nanoseconds from intended sending to arrival at the consumer, one for each message.
    pub(crate) end_to_end: Histogram<u64>,
    /// Messages answered within the span.
    pub(crate) counted: u64,
    /// Messages answered at all.
    pub(crate) total: u64,
    /// Messages that the server refused because it had too much to do, and said so.
    pub(crate) refused: u64,
    /// Messages that were answered as duplicates.
    pub(crate) duplicates: u64,
    /// Requests that were meant to be sent in time and never were.
    pub(crate) unsent: u64,
    /// What went wrong, and how often.
    pub(crate) errors: BTreeMap<String, u64>,
    meter: Arc<Meter>,
}

impl Tally {
    pub(crate) fn new(span: Span, meter: Arc<Meter>) -> Self {
        Self {
            span,
            latency: latencies(),
            end_to_end: latencies(),
            counted: 0,
            total: 0,
            refused: 0,
            duplicates: 0,
            unsent: 0,
            errors: BTreeMap::new(),
            meter,
        }
    }

    /// A request with `messages` was answered now, and meant to be sent at `intended_ns`.
    pub(crate) fn answered(&mut self, messages: u64, intended_ns: u64, now_ns: u64) {
        self.total += messages;
        self.meter.messages.fetch_add(messages, Relaxed);
        if self.span.counts(now_ns) {
            self.counted += messages;
        }
        if self.span.counts(intended_ns) {
            self.latency.saturating_record(now_ns.saturating_sub(intended_ns).max(1));
        }
    }

    /// A request that was meant to be sent at `intended_ns` has no answer and will get none: it
    /// has taken at least until now, and leaving it out would make a slow server look fast.
    pub(crate) fn unanswered(&mut self, intended_ns: u64, now_ns: u64) {
        if self.span.counts(intended_ns) && intended_ns <= now_ns {
            self.latency.saturating_record((now_ns - intended_ns).max(1));
        }
    }

    /// A message that was meant to be sent at `sent_ns` arrived now.
    pub(crate) fn arrived(&mut self, sent_ns: u64, now_ns: u64) {
        if self.span.counts(sent_ns) {
            self.end_to_end.saturating_record(now_ns.saturating_sub(sent_ns).max(1));
        }
    }

    pub(crate) fn error(&mut self, what: &str, count: u64) {
        if count == 0 {
            return;
        }
        self.meter.errors.fetch_add(count, Relaxed);
        match self.errors.get_mut(what) {
            Some(so_far) => *so_far += count,
            None => drop(self.errors.insert(what.to_owned(), count)),
        }
    }

    pub(crate) fn errors_total(&self) -> u64 {
        self.errors.values().sum()
    }

    /// Adds another thread's counts.
    pub(crate) fn absorb(&mut self, other: &Self) {
        // Both histograms have the same bounds, for which adding cannot fail.
        _ = self.latency.add(&other.latency);
        _ = self.end_to_end.add(&other.end_to_end);
        self.counted += other.counted;
        self.total += other.total;
        self.refused += other.refused;
        self.duplicates += other.duplicates;
        self.unsent += other.unsent;
        for (what, count) in &other.errors {
            *self.errors.entry(what.clone()).or_default() += count;
        }
    }

    /// Messages per second within the span.
    pub(crate) fn rate(&self) -> f64 {
        self.counted as f64 / self.span.seconds().max(1e-9)
    }
}
