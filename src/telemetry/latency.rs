//! Latency recorders: a histogram in stripes, so that threads do not wait for each other.

use std::sync::atomic::{AtomicUsize, Ordering};

use hdrhistogram::Histogram;
use parking_lot::Mutex;

const STRIPES: usize = 8;
/// Longest latency told apart, microseconds: a week. Messages wait as long for their consumers.
const MICROS_MAX: u64 = 7 * 24 * 60 * 60 * 1_000_000;

/// Latencies in microseconds.
#[derive(Debug)]
pub struct Latency {
    stripes: [Mutex<Stripe>; STRIPES],
    next: AtomicUsize,
}

#[derive(Debug)]
struct Stripe(Option<Histogram<u64>>);

thread_local! {
    static OWN_STRIPE: std::cell::Cell<Option<usize>> = const { std::cell::Cell::new(None) };
}

/// What a recorder has seen.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Summary {
    /// How many.
    pub count: u64,
    /// Mean, microseconds.
    pub mean_us: f64,
    /// Median, microseconds.
    pub p50_us: u64,
    /// 95th percentile, microseconds.
    pub p95_us: u64,
    /// 99th percentile, microseconds.
    pub p99_us: u64,
    /// Longest, microseconds.
    pub max_us: u64,
}

/// How many were how long.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Buckets {
    /// How many took no longer than each bound.
    pub within: Vec<u64>,
    /// How many there were.
    pub count: u64,
    /// How long they took together, microseconds.
    pub sum_us: f64,
}

impl Default for Latency {
    fn default() -> Self {
        Self {
            stripes: std::array::from_fn(|_| Mutex::new(Stripe(None))),
            next: AtomicUsize::new(0),
        }
    }
}

impl Latency {
    /// Records `count` events of `micros` each.
    pub fn record(&self, micros: u64, count: u64) {
        let stripe = OWN_STRIPE.with(|own| {
            own.get().unwrap_or_else(|| {
                let stripe = self.next.fetch_add(1, Ordering::Relaxed);
                own.set(Some(stripe));
                stripe
            })
        });
        if let Some(stripe) = self.stripes.get(stripe % STRIPES) {
            let mut stripe = stripe.lock();
            // Made on first use: eight idle histograms would be most of an idle server's heap.
            let histogram = stripe.0.get_or_insert_with(new_histogram);
            histogram.saturating_record_n(micros, count);
        }
    }

    fn all(&self) -> Histogram<u64> {
        let mut all = new_histogram();
        for stripe in &self.stripes {
            if let Some(histogram) = &stripe.lock().0 {
                // Same bounds on both sides, so adding cannot fail.
                let _ = all.add(histogram);
            }
        }
        all
    }

    /// Everything recorded so far, by upper bounds in microseconds, ascending. Each bound is off by as
    /// much as a latency is told apart.
    #[must_use]
    pub fn buckets(&self, bounds_us: &[u64]) -> Buckets {
        let all = self.all();
        let within = bounds_us.iter().map(|bound| all.count_between(0, *bound)).collect();
        Buckets { within, count: all.len(), sum_us: all.mean() * all.len() as f64 }
    }

    /// Everything recorded so far.
    #[must_use]
    pub fn summary(&self) -> Summary {
        let all = self.all();
        Summary {
            count: all.len(),
            mean_us: all.mean(),
            p50_us: all.value_at_quantile(0.50),
            p95_us: all.value_at_quantile(0.95),
            p99_us: all.value_at_quantile(0.99),
            max_us: all.max(),
        }
    }
}

fn new_histogram() -> Histogram<u64> {
    // Two digits: 1 % error, 32 KiB. The bounds are constants, so they are valid.
    Histogram::new_with_bounds(1, MICROS_MAX, 2).unwrap_or_else(|_| unreachable_bounds())
}

fn unreachable_bounds() -> Histogram<u64> {
    unreachable!("1 to {MICROS_MAX} with two digits are valid bounds")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_covers_what_all_threads_recorded() {
        let latency = std::sync::Arc::new(Latency::default());
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let latency = std::sync::Arc::clone(&latency);
                std::thread::spawn(move || latency.record(1_000, 25))
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        let summary = latency.summary();
        assert_eq!(summary.count, 100);
        assert!((990..=1_010).contains(&summary.p50_us), "{summary:?}");
    }
}
