//! Runs that are made several times, alternately with what they are held against.
//!
//! In: checked arguments. Out: the report of the last run, with all pairs and the median of their ratios:
//! on a machine that others use too, one run beside one floor says little. Each run has a queue of its own.
//! Called by the runs.

use crate::arguments::Load;
use crate::error::LoadError;
use crate::floor::{Bound, Measured};
use crate::report::{Findings, Pair, Pairs, Report};
use crate::run::Run;

/// Measures the floor and pushes, so many times.
pub(super) fn against_the_floor(load: &Load, times: u16) -> Result<Report, LoadError> {
    let push = |run: &Run<'_>| if load.http { crate::http::push(run) } else { run.push() };
    let mut reports = Vec::new();
    for _ in 0..times {
        let run = Run::new(load)?;
        let findings = run.with_queue(|run| {
            let floors = run.measure_all(run.bound(true))?;
            Ok(Findings { floors, ..push(run)? })
        })?;
        reports.push(Report::new(Findings { command: "push", ..findings }, load));
    }
    let of = |bound: Bound| {
        let pair = |report: &Report| {
            let floor = report.floors.iter().find(|floor| floor.bound == bound)?;
            let Measured { rate, p99_us, .. } = *floor;
            Some(pair_of(report, (rate, p99_us)))
        };
        reports.iter().filter_map(pair).collect::<Vec<_>>()
    };
    let bounds = [
        (Bound::Frames, "the floor (frames)"),
        (Bound::Durable, "the floor (durable)"),
        (Bound::Rows, "the floor (rows)"),
        (Bound::Batches, "the floor (batches)"),
    ];
    let pairs = bounds.into_iter().filter_map(|(bound, name)| Pairs::of(name, of(bound))).collect();
    last(reports, pairs)
}

/// Pushes beside so many groups that read, beside one, and beside none, so many times.
pub(super) fn of_groups(load: &Load, times: u16) -> Result<Report, LoadError> {
    let (mut reports, mut of_one, mut of_none) = (Vec::new(), Vec::new(), Vec::new());
    for time in 0..times {
        // Another one is first each time, so that none is always the one that finds the disk tidy.
        let mut order = [load.groups, 1, 0];
        order.rotate_left(usize::from(time) % 3);
        for groups in order {
            let load = Load { groups, no_floor: true, ..load.clone() };
            let run = Run::new(&load)?;
            let report = Report::new(run.with_queue(Run::mixed)?, &load);
            match groups {
                0 => of_none.push(report),
                1 => of_one.push(report),
                _ => reports.push(report),
            }
        }
    }
    let against = |others: &[Report]| {
        let pairs = reports.iter().zip(others);
        pairs.map(|(report, other)| pair_of(report, (other.rate, other.latency.p99_us))).collect()
    };
    let pairs = [("1 group", against(&of_one)), ("no group", against(&of_none))];
    let pairs = pairs.into_iter().filter_map(|(name, each)| Pairs::of(name, each)).collect();
    let is_sound = of_one.iter().chain(&of_none).all(|report| report.ok);
    last(reports, pairs).map(|report| Report { ok: report.ok && is_sound, ..report })
}

fn pair_of(report: &Report, (against_rate, against_p99_us): (f64, f64)) -> Pair {
    Pair { rate: report.rate, p99_us: report.latency.p99_us, against_rate, against_p99_us }
}

/// The last report, which speaks for all.
fn last(mut reports: Vec<Report>, pairs: Vec<Pairs>) -> Result<Report, LoadError> {
    let ok = reports.iter().all(|report| report.ok);
    let none = || LoadError::Io { doing: "running pairs", reason: "there were none".into() };
    let report = reports.pop().ok_or_else(none)?;
    let median = |is_it: fn(&str) -> bool| {
        let found =
            pairs.iter().find(|it| it.against.starts_with("the floor") && is_it(it.against));
        found.map(|it| it.median)
    };
    let ratio_to_floor = median(|against| !against.contains("batches"));
    let ratio_to_batches = median(|against| against.contains("batches"));
    Ok(Report { ok, ratio_to_floor, ratio_to_batches, pairs, ..report })
}
