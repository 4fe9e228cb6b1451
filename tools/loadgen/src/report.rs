//! The result of a run, for people and for programs.
//!
//! In: tallies, integrity, the floor. Out: one [`Report`], as a table or as the last line of
//! NDJSON; and whether the run passed. Called once, at the end.

use std::collections::BTreeMap;
use std::io::Write;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::arguments::Load;
use crate::floor::{Bound, Measured};
use crate::machine::Machine;
use crate::tally::Tally;
use crate::verify::Integrity;

/// Percentiles in microseconds.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct Percentiles {
    pub(crate) p50_us: f64,
    pub(crate) p90_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) p999_us: f64,
    pub(crate) p9999_us: f64,
    pub(crate) max_us: f64,
    pub(crate) samples: u64,
}

impl Percentiles {
    pub(crate) fn of(latency_ns: &Histogram<u64>) -> Self {
        let us = |quantile| latency_ns.value_at_quantile(quantile) as f64 / 1e3;
        Self {
            p50_us: us(0.5),
            p90_us: us(0.9),
            p99_us: us(0.99),
            p999_us: us(0.999),
            p9999_us: us(0.9999),
            max_us: latency_ns.max() as f64 / 1e3,
            samples: latency_ns.len(),
        }
    }
}

/// One run and what it is held against.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Pair {
    /// Messages per second.
    pub(crate) rate: f64,
    /// 99th percentile of a request, in microseconds.
    pub(crate) p99_us: f64,
    /// The same of what it is held against.
    pub(crate) against_rate: f64,
    pub(crate) against_p99_us: f64,
}

/// Runs that were made alternately with what they are held against.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Pairs {
    /// What they are held against.
    pub(crate) against: &'static str,
    pub(crate) each: Vec<Pair>,
    /// Of the ratios of the rates.
    pub(crate) median: f64,
    pub(crate) lowest: f64,
    pub(crate) highest: f64,
}

impl Pairs {
    /// `None` without any.
    pub(crate) fn of(against: &'static str, each: Vec<Pair>) -> Option<Self> {
        let ratios = || each.iter().map(|it| it.rate / it.against_rate);
        let median = median(ratios())?;
        let lowest = ratios().fold(f64::INFINITY, f64::min);
        let highest = ratios().fold(f64::NEG_INFINITY, f64::max);
        Some(Self { against, median, lowest, highest, each })
    }
}

impl Pairs {
    fn rows(&self) -> Vec<(&'static str, String)> {
        let Self { against, each, median, lowest, highest } = self;
        let count = |value: f64| group_digits(value.round().max(0.0) as u64);
        let pairs = each.len();
        let ratio =
            format!("{median:.3} of {against} ({lowest:.3} to {highest:.3}, {pairs} pairs)");
        let each = each.iter().map(|pair| {
            let (rate, against) = (count(pair.rate), count(pair.against_rate));
            let (p99, other_p99) = (us(pair.p99_us), us(pair.against_p99_us));
            ("", format!("{rate} messages/s  p99 {p99}  against {against}  p99 {other_p99}"))
        });
        std::iter::once(("median ratio", ratio)).chain(each).collect()
    }
}

/// Everything that is known about a run at its end.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) r#type: &'static str,
    pub(crate) command: &'static str,
    /// Whether the run passed: nothing wrong, nothing lost.
    pub(crate) ok: bool,
    /// Messages per second.
    pub(crate) rate: f64,
    pub(crate) payload_bytes_per_second: f64,
    /// From the intended time of sending to the answer, one sample for each request.
    #[serde(flatten)]
    pub(crate) latency: Percentiles,
    /// From the intended time of sending to the consumer, one sample for each message.
    pub(crate) end_to_end: Option<Percentiles>,
    /// Messages per second that were popped, where both directions ran at once.
    pub(crate) pop_rate: Option<f64>,
    /// Median of the bound's measurements.
    pub(crate) floor_rate: Option<f64>,
    pub(crate) floor_bound: Option<Bound>,
    pub(crate) ratio_to_floor: Option<f64>,
    /// Of a run on a database: the ratio to COPY of one row per batch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ratio_to_batches: Option<f64>,
    pub(crate) floors: Vec<Measured>,
    /// Where it was run several times: by what it is held against. Everything else is of the last run,
    /// but for `ok`, which is of all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) pairs: Vec<Pairs>,
    /// Messages that were answered, warm-up included.
    pub(crate) messages: u64,
    pub(crate) errors: u64,
    pub(crate) error_kinds: BTreeMap<String, u64>,
    /// Messages refused because the server had too much to do; not errors.
    pub(crate) refused: u64,
    /// Requests of an open loop that were due and never sent. Their latency counts up to
    /// then, as that of requests without an answer does.
    pub(crate) unsent: u64,
    /// Messages answered as duplicates.
    pub(crate) answered_duplicate: u64,
    /// Whether everything was popped back and checked.
    pub(crate) verified: bool,
    #[serde(flatten)]
    pub(crate) integrity: Integrity,
    pub(crate) machine: Machine,
    pub(crate) parameters: Load,
    pub(crate) command_line: Vec<String>,
}

/// An argument as it may be shown: a URL's password is left out.
fn without_password(argument: &str) -> String {
    let cut = || {
        let (scheme, rest) = argument.split_once("://")?;
        let (who, place) = rest.rsplit_once('@')?;
        let (user, _) = who.split_once(':')?;
        Some(format!("{scheme}://{user}:***@{place}"))
    };
    cut().unwrap_or_else(|| argument.to_owned())
}

/// What a run came to, before it is dressed up.
pub(crate) struct Findings {
    pub(crate) command: &'static str,
    /// What is reported as the rate and the latency.
    pub(crate) tally: Tally,
    pub(crate) end_to_end: Option<Histogram<u64>>,
    pub(crate) pop_rate: Option<f64>,
    pub(crate) integrity: Option<Integrity>,
    pub(crate) bound: Option<Bound>,
    pub(crate) floors: Vec<Measured>,
}

impl Report {
    pub(crate) fn new(findings: Findings, load: &Load) -> Self {
        let Findings { command, tally, bound, floors, integrity, .. } = findings;
        let floor_rate = bound.and_then(|bound| {
            median(floors.iter().filter(|floor| floor.bound == bound).map(|floor| floor.rate))
        });
        let batches = floors.iter().filter(|floor| floor.bound == Bound::Batches);
        let batches_rate = median(batches.map(|floor| floor.rate));
        // Where nothing but the floor was measured, that is the rate.
        let is_floor = command == "floor";
        let rate = if is_floor { floor_rate.unwrap_or(0.0) } else { tally.rate() };
        let verified = integrity.is_some();
        let integrity = integrity.unwrap_or_default();
        let errors = tally.errors_total();
        Self {
            r#type: "result",
            command,
            ok: errors == 0 && integrity.is_sound(load.promise()),
            rate,
            payload_bytes_per_second: rate * load.size as f64,
            latency: Percentiles::of(&tally.latency),
            end_to_end: findings.end_to_end.as_ref().map(Percentiles::of),
            pop_rate: findings.pop_rate,
            floor_rate,
            floor_bound: floor_rate.and(bound),
            ratio_to_floor: floor_rate.filter(|_| !is_floor).map(|floor| rate / floor),
            ratio_to_batches: batches_rate.filter(|_| !is_floor).map(|floor| rate / floor),
            floors,
            pairs: Vec::new(),
            messages: tally.total,
            errors,
            error_kinds: tally.errors,
            refused: tally.refused,
            unsent: tally.unsent,
            answered_duplicate: tally.duplicates,
            verified,
            integrity,
            machine: Machine::look(),
            parameters: load.clone(),
            command_line: std::env::args().map(|argument| without_password(&argument)).collect(),
        }
    }

    /// Writes the table to standard output.
    pub(crate) fn print_table(&self) {
        let mut rows: Vec<(&str, String)> = Vec::new();
        let count = |value: f64| group_digits(value.round().max(0.0) as u64);
        rows.push(("messages/s", count(self.rate)));
        if let Some(rate) = self.pop_rate {
            rows.push(("popped/s", count(rate)));
        }
        rows.push(("payload MB/s", format!("{:.1}", self.payload_bytes_per_second / 1e6)));
        rows.push(("latency", latency_row(&self.latency)));
        if let Some(end_to_end) = &self.end_to_end {
            rows.push(("end to end", latency_row(end_to_end)));
        }
        for floor in &self.floors {
            let what = match floor.bound {
                Bound::Frames => "floor (frames)",
                Bound::Durable => "floor (durable)",
                Bound::Rows => "floor (rows)",
                Bound::Batches => "floor (batches)",
            };
            let row = format!(
                "{} messages/s  p50 {}  p99 {}  {:.0} syncs/s",
                count(floor.rate),
                us(floor.p50_us),
                us(floor.p99_us),
                floor.syncs
            );
            rows.push((what, row));
        }
        if let Some(ratio) = self.ratio_to_floor {
            rows.push(("ratio to floor", format!("{ratio:.3}")));
        }
        if let Some(ratio) = self.ratio_to_batches {
            rows.push(("ratio to batches", format!("{ratio:.3}")));
        }
        rows.extend(self.pairs.iter().flat_map(Pairs::rows));
        rows.push(("messages", count(self.messages as f64)));
        for (what, value) in [
            ("refused", self.refused),
            ("unsent", self.unsent),
            ("told duplicate", self.answered_duplicate),
            ("foreign", self.integrity.foreign),
        ] {
            if value > 0 {
                rows.push((what, count(value as f64)));
            }
        }
        rows.push(("errors", count(self.errors as f64)));
        for (what, times) in &self.error_kinds {
            rows.push(("", format!("{times} × {what}")));
        }
        rows.push(("integrity", self.integrity_row()));
        let machine = &self.machine;
        rows.push((
            "machine",
            format!("{} × {}, Linux {}", machine.cores, machine.cpu, machine.kernel),
        ));
        let mut out = std::io::stdout().lock();
        for (what, value) in rows {
            // A reader that has gone away is no reason to fail a run.
            drop(writeln!(out, "{what:>16}  {value}"));
        }
    }

    fn integrity_row(&self) -> String {
        if !self.verified {
            return "not checked".to_owned();
        }
        let found = &self.integrity;
        let mut row = format!(
            "{} checked: {} lost, {} duplicated, {} reordered",
            group_digits(found.received),
            found.lost,
            found.duplicated,
            found.reordered
        );
        for (what, value) in [
            ("damaged", found.damaged),
            ("refused but stored", found.refused_but_stored),
            ("missing in the server's sequence", found.sequence_gaps),
        ] {
            if value > 0 {
                row.push_str(&format!(", {value} {what}"));
            }
        }
        row
    }
}

fn latency_row(latency: &Percentiles) -> String {
    format!(
        "p50 {}  p90 {}  p99 {}  p99.9 {}  p99.99 {}  max {}",
        us(latency.p50_us),
        us(latency.p90_us),
        us(latency.p99_us),
        us(latency.p999_us),
        us(latency.p9999_us),
        us(latency.max_us)
    )
}

/// Microseconds in the unit that reads best.
fn us(us: f64) -> String {
    match us {
        us if us < 1e3 => format!("{us:.0} µs"),
        us if us < 1e6 => format!("{:.2} ms", us / 1e3),
        us => format!("{:.2} s", us / 1e6),
    }
}

fn group_digits(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(' ');
        }
        out.push(digit);
    }
    out
}

/// The middle one, or the mean of the two in the middle.
fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let upper = *values.get(values.len() / 2)?;
    let lower = *values.get((values.len() - 1) / 2)?;
    Some((lower + upper) / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_not_shown() {
        let shown = without_password("--database-url=postgresql://me:se:cr@et@db:5432/x");
        assert_eq!(shown, "--database-url=postgresql://me:***@db:5432/x");
        for plain in ["postgresql://me@db/x", "push", "a:b@c"] {
            assert_eq!(without_password(plain), plain);
        }
    }

    #[test]
    fn the_median_is_the_middle_or_the_mean_of_two() {
        assert_eq!(median([3.0, 1.0, 2.0].into_iter()), Some(2.0));
        assert_eq!(median([4.0, 1.0].into_iter()), Some(2.5));
        assert_eq!(median(std::iter::empty()), None);
    }

    #[test]
    fn pairs_are_summed_up_by_the_median_of_their_ratios_and_not_of_their_rates() {
        let pair =
            |rate, against_rate| Pair { rate, p99_us: 1.0, against_rate, against_p99_us: 1.0 };
        let pairs = Pairs::of("the floor", vec![pair(4.0, 8.0), pair(9.0, 10.0), pair(1.0, 10.0)]);
        let pairs = pairs.unwrap();
        assert_eq!((pairs.median, pairs.lowest, pairs.highest), (0.5, 0.1, 0.9));
        assert!(Pairs::of("the floor", Vec::new()).is_none());
    }

    #[test]
    fn digits_stand_in_groups_of_three() {
        assert_eq!(group_digits(0), "0");
        assert_eq!(group_digits(1234), "1 234");
        assert_eq!(group_digits(1_234_567), "1 234 567");
    }
}
