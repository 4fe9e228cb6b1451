//! Runs read together in order, and which of them are worth becoming one.
//!
//! In: runs, newest first. Out: their rows by rank, the newest of those with one rank; or the labels of
//! runs to merge. Called by the shelf of runs.

use std::io;
use std::sync::Arc;

use super::row::{PAGE_BYTES, Page, Rank, Ranked};
use super::run::{Label, Run, damaged};
use crate::base::place::ShardCount;

/// Pages read at once of each run.
const READ_PAGES: usize = 16;
/// Runs of one size that become one, in the generation that still grows. More means fewer rewrites
/// of an id and more filters to ask for each.
const GROWING_RUNS_MAX: usize = 4;
/// The same in older generations: only stragglers come, so they may be put in order.
const OLD_RUNS_MAX: usize = 2;
/// Runs up to this many rows count as of one size; each size beyond spans a factor of four.
const SMALLEST_ROWS: u64 = 1 << 15;

/// A run being read from a rank on.
struct Cursor {
    run: Arc<Run>,
    count: ShardCount,
    /// Rows of the pages read, the next one last.
    rows: Vec<Ranked>,
    next_page: usize,
    from: Rank,
}

impl Cursor {
    fn new(run: &Arc<Run>, count: ShardCount, from: Rank) -> Self {
        let next_page = run.page_from(from);
        Self { run: Arc::clone(run), count, rows: Vec::new(), next_page, from }
    }

    fn peek(&mut self) -> io::Result<Option<&Ranked>> {
        while self.rows.is_empty() && self.next_page < self.run.pages() {
            self.read()?;
        }
        Ok(self.rows.last())
    }

    fn read(&mut self) -> io::Result<()> {
        let pages = READ_PAGES.min(self.run.pages() - self.next_page);
        let mut bytes = vec![0; pages * PAGE_BYTES];
        self.run.read_pages(self.next_page, &mut bytes)?;
        self.next_page += pages;
        for page in bytes.chunks_exact(PAGE_BYTES) {
            let page = Page::read(page, self.run.label.generation).ok_or_else(damaged)?;
            let rows = (0..page.len()).filter_map(|index| page.get(index));
            self.rows.extend(rows.map(|row| Ranked::new(self.count, row)));
        }
        self.rows.retain(|it| it.rank >= self.from);
        self.rows.reverse();
        Ok(())
    }
}

/// Rows of several runs in order.
pub(super) struct Merged {
    cursors: Vec<Cursor>,
}

impl Merged {
    /// Rows from rank `from` on; `runs` newest first.
    pub(super) fn new(runs: &[Arc<Run>], count: ShardCount, from: Rank) -> Self {
        Self { cursors: runs.iter().map(|run| Cursor::new(run, count, from)).collect() }
    }

    /// The next row, with the age of the run that it is from.
    ///
    /// # Errors
    /// `InvalidData` for a damaged page; the disk's error.
    pub(super) fn next(&mut self) -> io::Result<Option<(Ranked, u64)>> {
        let mut first: Option<(Ranked, u64)> = None;
        for cursor in &mut self.cursors {
            let age = cursor.run.label.age;
            let Some(row) = cursor.peek()? else { continue };
            if first.is_none_or(|(lowest, _)| row.rank < lowest.rank) {
                first = Some((*row, age));
            }
        }
        let Some((lowest, _)) = first else { return Ok(None) };
        for cursor in &mut self.cursors {
            // Older rows of the same rank go with it.
            while cursor.rows.last().is_some_and(|row| row.rank == lowest.rank) {
                cursor.rows.pop();
            }
        }
        Ok(first)
    }
}

/// The size of a run: 0, or so many factors of four beyond the smallest.
fn size(label: &Label) -> u32 {
    (label.rows / SMALLEST_ROWS).checked_ilog(4).map_or(0, |factors| factors + 1)
}

/// Neighbours in age that should become one run; `labels` newest first. `None` when all is well.
pub(super) fn pick(labels: &[Label]) -> Option<Vec<Label>> {
    let growing = labels.iter().map(|label| label.generation).max()?;
    let mut generations: Vec<u32> = labels.iter().map(|label| label.generation).collect();
    generations.sort_unstable();
    generations.dedup();
    generations.into_iter().rev().find_map(|generation| {
        let of_it: Vec<Label> =
            labels.iter().copied().filter(|label| label.generation == generation).collect();
        let most = if generation == growing { GROWING_RUNS_MAX } else { OLD_RUNS_MAX };
        let largest = of_it.iter().map(size).max().unwrap_or(0);
        (0..=largest).find_map(|this_size| pick_of(&of_it, this_size, most))
    })
}

/// So many runs of one size, with smaller ones between and after them.
fn pick_of(labels: &[Label], this_size: u32, most: usize) -> Option<Vec<Label>> {
    let streaks = labels.split(|label| size(label) > this_size);
    let mut long = streaks
        .filter(|streak| streak.iter().filter(|label| size(label) == this_size).count() >= most);
    long.next().map(<[Label]>::to_vec)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn label(number: u64, generation: u32, rows: u64) -> Label {
        Label { number, age: number, generation, rows }
    }

    fn numbers(labels: &[Label]) -> Option<Vec<u64>> {
        pick(labels).map(|picked| picked.iter().map(|label| label.number).collect())
    }

    #[test]
    fn neighbours_of_one_size_become_one() {
        let small = |number| label(number, 1, 1_000);
        assert_eq!(numbers(&[]), None);
        assert_eq!(numbers(&[small(3), small(2), small(1)]), None);
        assert_eq!(numbers(&[small(4), small(3), small(2), small(1)]), Some(vec![4, 3, 2, 1]));
        let large = label(2, 1, 1_000_000);
        assert_eq!(numbers(&[small(4), small(3), large, small(1)]), None);
        let larger = |number| label(number, 1, 100_000);
        let mixed = [larger(5), small(4), larger(3), larger(2), larger(1), label(0, 1, 1 << 30)];
        assert_eq!(numbers(&mixed), Some(vec![5, 4, 3, 2, 1]));
    }

    #[test]
    fn older_generations_are_put_in_order_and_never_mixed() {
        let labels = [label(4, 2, 10), label(3, 1, 10), label(2, 2, 10), label(1, 1, 10)];
        assert_eq!(numbers(&labels), Some(vec![3, 1]));
        assert_eq!(numbers(&[label(4, 2, 10), label(3, 1, 10), label(1, 0, 10)]), None);
    }

    #[test]
    fn runs_stay_few_and_rewrites_seldom_however_many_come() {
        let (mut labels, mut next, mut rewritten) = (Vec::<Label>::new(), 0, 0);
        const FLUSHES: u64 = 4_096;
        const ROWS: u64 = 40_000;
        for _ in 0..FLUSHES {
            next += 1;
            labels.insert(0, label(next, 1, ROWS));
            while let Some(picked) = pick(&labels) {
                let rows = picked.iter().map(|it| it.rows).sum();
                rewritten += rows;
                let at = labels.iter().position(|it| *it == picked[0]).unwrap();
                labels.retain(|it| !picked.contains(it));
                labels.insert(at, Label { rows, ..picked[0] });
            }
            assert!(labels.len() <= 3 * 7, "{} runs", labels.len());
        }
        assert_eq!(labels.iter().map(|it| it.rows).sum::<u64>(), FLUSHES * ROWS);
        let times = rewritten as f64 / (FLUSHES * ROWS) as f64;
        assert!(times < 8.0, "each id was written {times} times");
    }
}
