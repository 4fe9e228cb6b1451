//! When the next request is meant to be sent.
//!
//! In: a rate, or none. Out: times. With a rate they are fixed before the run begins, whatever
//! the server does meanwhile: a request that had to wait for its turn has waited, and its latency
//! says so. Pure. Called by producers.

/// The times of one connection's requests.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Pace {
    /// As soon as there is room.
    Closed,
    /// At fixed times.
    Open {
        /// When the first is due, in nanoseconds.
        first_ns: u64,
        /// Nanoseconds between two, as a fraction so that no rate drifts.
        interval_ns: f64,
        /// How many were sent.
        sent: u64,
    },
}

impl Pace {
    /// A pace at which `connections` together send `requests_per_second`; their times interleave.
    pub(crate) fn open(
        begin_ns: u64,
        requests_per_second: f64,
        connection: usize,
        connections: usize,
    ) -> Self {
        let each_ns = 1e9 / requests_per_second.max(1e-3);
        let first_ns = begin_ns + (each_ns * connection as f64) as u64;
        Self::Open { first_ns, interval_ns: each_ns * connections as f64, sent: 0 }
    }

    /// When the next request is due; `None` in a closed loop, where it always is.
    pub(crate) fn due_ns(&self) -> Option<u64> {
        match self {
            Self::Closed => None,
            Self::Open { first_ns, interval_ns, sent } => {
                Some(first_ns + (interval_ns * *sent as f64) as u64)
            }
        }
    }

    /// Notes that one was sent.
    pub(crate) fn advance(&mut self) {
        if let Self::Open { sent, .. } = self {
            *sent += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(mut pace: Pace, count: usize) -> Vec<u64> {
        let mut times = Vec::new();
        for _ in 0..count {
            times.extend(pace.due_ns());
            pace.advance();
        }
        times
    }

    #[test]
    fn connections_share_a_rate_without_meeting() {
        let first = times(Pace::open(1000, 1e6, 0, 2), 3);
        let second = times(Pace::open(1000, 1e6, 1, 2), 3);
        assert_eq!(first, [1000, 3000, 5000]);
        assert_eq!(second, [2000, 4000, 6000]);
    }

    #[test]
    fn a_rate_that_divides_badly_does_not_drift() {
        let times = times(Pace::open(0, 3.0, 0, 1), 3_000_001);
        assert_eq!(times[3_000_000], 1_000_000_000_000_000);
    }
}
