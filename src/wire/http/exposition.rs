//! Prometheus's text format: families, their series, and a bound on how many there are.
//!
//! In: names, numbers, histograms. Out: text. A family whose series would take too much room has those
//! that come last folded into one that is called [`OTHER`], so that a page stays small however many queues
//! there are, and sums stay true. Called by `prometheus`.

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::telemetry::latency::Latency;
use crate::telemetry::queues::OTHER;

/// Bytes of the series of one family.
const FAMILY_BYTES_MAX: usize = 56 << 10;

/// Upper bounds of buckets, microseconds: those that OpenTelemetry advises for messaging, and five below.
const BOUNDS_US: [u64; 19] = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 75_000, 100_000, 250_000, 500_000,
    750_000, 1_000_000, 2_500_000, 5_000_000, 7_500_000, 10_000_000,
];

/// What a family is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
}

/// How series are folded into one.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fold {
    /// Added up.
    Sum,
    /// The largest stands for all.
    Max,
}

/// Labels of a series whose values are names that somebody chose, and labels that are words of ours.
type Labels<'a> = (Vec<(&'static str, &'a str)>, Vec<(&'static str, &'static str)>);

/// One series.
pub(super) struct Series<'a> {
    labels: Labels<'a>,
    value: f64,
}

impl<'a> Series<'a> {
    pub(super) fn new(
        named: Vec<(&'static str, &'a str)>,
        fixed: Vec<(&'static str, &'static str)>,
        value: f64,
    ) -> Self {
        Self { labels: (named, fixed), value }
    }
}

/// A page on its way.
#[derive(Debug, Default)]
pub(super) struct Page {
    text: String,
    folded: u64,
}

impl Page {
    /// The page.
    pub(super) fn into_text(self) -> String {
        self.text
    }

    /// Series that were folded so far.
    pub(super) fn folded(&self) -> u64 {
        self.folded
    }

    fn begin(&mut self, name: &str, kind: &str, help: &str) {
        self.put(format_args!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
    }

    fn put(&mut self, words: std::fmt::Arguments<'_>) {
        // Writing to a string cannot fail.
        let _ = self.text.write_fmt(words);
    }

    /// A family of one series without labels.
    pub(super) fn one(&mut self, name: &str, kind: Kind, help: &str, value: f64) {
        self.some(name, kind, help, [(&[][..], value)]);
    }

    /// A family of a few series, whose labels are words of ours.
    pub(super) fn some<'a>(
        &mut self,
        name: &str,
        kind: Kind,
        help: &str,
        series: impl IntoIterator<Item = (&'a [(&'static str, &'a str)], f64)>,
    ) {
        self.begin(name, kind.word(), help);
        for (labels, value) in series {
            let labels = render(labels.iter().copied());
            self.put(format_args!("{name}{labels} {value}\n"));
        }
    }

    /// A family of any number of series. The first ones stand by themselves, as many as there is room for.
    pub(super) fn bounded<'a>(
        &mut self,
        name: &str,
        (kind, fold): (Kind, Fold),
        help: &str,
        series: impl IntoIterator<Item = Series<'a>>,
    ) {
        self.begin(name, kind.word(), help);
        let (start, mut is_full) = (self.text.len(), false);
        let mut rest: BTreeMap<Vec<(&str, &str)>, f64> = BTreeMap::new();
        for Series { labels: (named, fixed), value } in series {
            let is_other = named.iter().all(|(_, name)| *name == OTHER);
            if !is_other && !is_full {
                let labels = render(named.iter().chain(&fixed).copied());
                let line = format!("{name}{labels} {value}\n");
                is_full = self.text.len() - start + line.len() > FAMILY_BYTES_MAX;
                if !is_full {
                    self.text.push_str(&line);
                    continue;
                }
            }
            self.folded += u64::from(!is_other);
            let others = named.iter().map(|(label, _)| (*label, OTHER)).chain(fixed);
            let sum = rest.entry(others.collect()).or_insert(0.0);
            *sum = match fold {
                Fold::Sum => *sum + value,
                Fold::Max => sum.max(value),
            };
        }
        for (labels, value) in rest {
            let labels = render(labels.into_iter());
            self.put(format_args!("{name}{labels} {value}\n"));
        }
    }

    /// A histogram of seconds.
    pub(super) fn seconds(&mut self, name: &str, help: &str, latency: &Latency) {
        self.begin(name, "histogram", help);
        let buckets = latency.buckets(&BOUNDS_US);
        for (bound, below) in BOUNDS_US.iter().zip(&buckets.within) {
            let bound = *bound as f64 / 1e6;
            self.put(format_args!("{name}_bucket{{le=\"{bound}\"}} {below}\n"));
        }
        let (count, sum) = (buckets.count, buckets.sum_us / 1e6);
        self.put(format_args!("{name}_bucket{{le=\"+Inf\"}} {count}\n"));
        self.put(format_args!("{name}_sum {sum}\n{name}_count {count}\n"));
    }
}

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
        }
    }
}

/// Labels in braces; nothing where there are none.
fn render<'a>(labels: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let mut text = String::new();
    for (label, value) in labels {
        text.push(if text.is_empty() { '{' } else { ',' });
        text.push_str(label);
        text.push_str("=\"");
        for letter in value.chars() {
            match letter {
                '\\' => text.push_str("\\\\"),
                '"' => text.push_str("\\\""),
                '\n' => text.push_str("\\n"),
                letter => text.push(letter),
            }
        }
        text.push('"');
    }
    if !text.is_empty() {
        text.push('}');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_others_cannot_end_a_label_or_begin_a_line() {
        let mut page = Page::default();
        let series = Series::new(vec![("queue", "a\"} 1\nb\\")], vec![("status", "ok")], 2.0);
        page.bounded("m", (Kind::Gauge, Fold::Sum), "Help", [series]);
        let line = page.into_text().lines().nth(2).unwrap().to_owned();
        assert_eq!(line, r#"m{queue="a\"} 1\nb\\",status="ok"} 2"#);
    }

    #[test]
    fn what_has_no_room_is_folded_and_the_sum_stays_true() {
        let names: Vec<String> = (0..2_000).map(|at| format!("{at:0>200}")).collect();
        let series = |fold| {
            let mut page = Page::default();
            let all = names.iter().flat_map(|name| {
                let of = |status| Series::new(vec![("queue", name)], vec![("status", status)], 3.0);
                [of("ok"), of("failed")]
            });
            let other = Series::new(vec![("queue", OTHER)], vec![("status", "ok")], 5.0);
            page.bounded("m", (Kind::Counter, fold), "Help", [other].into_iter().chain(all));
            let folded = page.folded();
            (page.into_text(), folded)
        };
        let (text, folded) = series(Fold::Sum);
        assert!(text.len() < FAMILY_BYTES_MAX + 500, "{}", text.len());
        let values = text.lines().filter(|line| !line.starts_with('#'));
        let values = values.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap());
        assert_eq!(values.sum::<f64>(), 2_000.0 * 6.0 + 5.0);
        let others = text.lines().filter(|line| line.contains(OTHER)).count();
        assert_eq!(others, 2, "one for each status");
        assert_eq!(text.lines().count() as u64 - 2 - 2 + folded, 4_000);
        let (text, _) = series(Fold::Max);
        assert!(text.ends_with("m{queue=\"__other__\",status=\"ok\"} 5\n"), "{text}");
    }

    #[test]
    fn a_histogram_is_cumulative_and_ends_with_everything() {
        let latency = Latency::default();
        latency.record(300, 2);
        latency.record(40_000, 1);
        latency.record(60_000_000, 1);
        let mut page = Page::default();
        page.seconds("m_seconds", "Help", &latency);
        let text = page.into_text();
        for (bound, count) in [("0.00025", 0), ("0.0005", 2), ("0.05", 3), ("10", 3), ("+Inf", 4)] {
            let line = format!("m_seconds_bucket{{le=\"{bound}\"}} {count}\n");
            assert!(text.contains(&line), "{line}: {text}");
        }
        assert!(text.contains("m_seconds_count 4\n"), "{text}");
        let sum = text.lines().find_map(|line| line.strip_prefix("m_seconds_sum ")).unwrap();
        assert!((sum.parse::<f64>().unwrap() - 60.0406).abs() < 0.7, "{sum}");
    }
}
