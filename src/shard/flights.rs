//! Several appends at once: where the store works on two appends side by side, many pushes are
//! committed by shards that have nothing to do with each other, and while one append is under way the
//! next one is decided. A database spends most of an append in one process for each connection, while
//! the lane waits; so its processes, the lane and the producers use the machine's cores together, and
//! commits share their syncs.
//!
//! In: work that is nothing but pushes. Out: it and what came after it committed, until something
//! else than pushes waits. Called by the lane.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use crate::base::place::ShardId;
use crate::buffer::Buffers;
use crate::buffer::ring::Ring;
use crate::log::{Append, AppendError};
use crate::shard::lane::{COMMIT_BYTES_MAX, Lane, Offered};
use crate::shard::round::{Plan, Work};

/// How often to look whether enough pushes have come for a further append, while others are under way.
/// Nobody rings for pushes while the lane is awake.
const LOOK_INTERVAL: Duration = Duration::from_micros(200);
/// Appends until the lane looks after everything else again, however many pushes come.
const TAKE_OFFS_MAX: usize = 64;
/// How long pushes that are not worth an append of their own wait for more to come.
const GATHER_US: u64 = 2_000;

/// An append that the log works on, with its plan.
type Underway = Pin<Box<dyn Future<Output = (Plan, Result<Append, AppendError>)>>>;

/// An append under way.
struct Flight {
    work: Work,
    line: usize,
    append: Underway,
}

/// The appends under way, and how it is with each of the store's lines.
struct Flights {
    under_way: Vec<Flight>,
    lines: Vec<Line>,
}

/// One of the store's lines; times in the clock's microseconds.
#[derive(Clone, Copy, Default)]
struct Line {
    /// When it was last tried.
    tried_us: u64,
    /// It is another engine's turn until this, as a guess.
    barred_until_us: u64,
}

/// Rings the lane's bell when an append is answered.
struct Bell(Arc<Buffers>);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.bell().ring();
    }
}

impl Lane {
    /// Parts whose shards have nothing to do with each other. A shard always goes with the same others:
    /// were it free to go with any, one append would gather most of them, and the rest wait for it.
    ///
    /// # Errors
    /// The work itself, where it is more than pushes, or little, or would be committed one part after
    /// the other all the same.
    pub(super) fn parts(&self, work: Work) -> Result<Vec<Work>, Box<Work>> {
        let all: u64 = work.rings.iter().map(|(_, rings)| bytes(rings)).sum();
        let is_worth_it = self.log.width() > 1 && all >= self.config.parts_bytes_min;
        // Whose lease ends is found in any shard.
        if !is_worth_it || !work.is_only_pushes() || self.timer_due() {
            return Err(Box::new(work));
        }
        let mut parts: Vec<Work> = (0..self.log.width()).map(|_| Work::default()).collect();
        for (shard, rings) in work.rings {
            if let Some(part) = parts.get_mut(self.line_of(shard)) {
                part.rings.push((shard, rings));
            }
        }
        parts.retain(|part| !part.rings.is_empty());
        Ok(parts)
    }

    /// Which of the store's lines a shard's pushes go by.
    fn line_of(&self, shard: ShardId) -> usize {
        usize::from(shard) % self.log.width().max(1)
    }

    /// Commits parts side by side, and then what comes for shards that no append is under way for, as
    /// long as nothing but pushes waits.
    pub(super) fn commit_side_by_side(&mut self, parts: Vec<Work>) {
        let waker = Waker::from(Arc::new(Bell(Arc::clone(&self.buffers))));
        let lines = vec![Line::default(); self.log.width().max(1)];
        let mut flights = Flights { under_way: Vec::new(), lines };
        let mut parts = parts.into_iter();
        let mut further = 0..TAKE_OFFS_MAX;
        loop {
            self.buffers.bell().listen();
            // Looking at an append is also what sends it: one is on its way while the next is decided.
            if let Some((work, offered)) = landed(&mut flights, &waker) {
                self.land(work, offered, &mut flights, &waker);
            } else if let Some(work) = parts.next() {
                self.take_off(work, &mut flights, &waker);
            } else if !further.is_empty()
                && let Some(work) = self.more_pushes(&mut flights)
            {
                further.next();
                self.take_off(work, &mut flights, &waker);
            } else if flights.under_way.is_empty() {
                return;
            } else {
                self.buffers.bell().sleep(LOOK_INTERVAL);
            }
        }
    }

    /// Decides and offers work; where it wants a look at what others did, it is committed by itself,
    /// after those that are under way.
    fn take_off(&mut self, work: Work, flights: &mut Flights, waker: &Waker) {
        let plan = self.decide(&work);
        let line = work.rings.first().map_or(0, |(shard, _)| self.line_of(*shard));
        let is_apart = plan.entries.iter().all(|(shard, _)| self.line_of(*shard) == line);
        if plan.proposals.is_empty() || plan.is_doubtful() || !is_apart {
            self.land_all(flights, waker);
            return self.commit_whole(work, None);
        }
        let (log, started) = (Arc::clone(&self.log), self.clock.monotonic_us());
        let (clock, telemetry) = (Arc::clone(&self.clock), Arc::clone(&self.telemetry));
        let append = Box::pin(async move {
            let answer = log.append(&plan.proposals, plan.durability).await;
            telemetry.commit_latency.record(clock.monotonic_us() - started, 1);
            (plan, answer)
        });
        flights.under_way.push(Flight { work, line, append });
    }

    /// Ends an append that was answered.
    fn land(&mut self, work: Work, offered: Offered, flights: &mut Flights, waker: &Waker) {
        // Those that stand are applied first: whatever else happened, following must not meet them.
        if !matches!(offered.answer, Ok(Append::Appended(_))) {
            self.land_all(flights, waker);
        }
        self.commit_whole(work, Some(offered));
    }

    /// Waits for everything under way; what stands is applied before the rest is looked at.
    fn land_all(&mut self, flights: &mut Flights, waker: &Waker) {
        let mut others = Vec::new();
        while !flights.under_way.is_empty() {
            self.buffers.bell().listen();
            match landed(flights, waker) {
                Some((work, offered)) if matches!(offered.answer, Ok(Append::Appended(_))) => {
                    self.commit_whole(work, Some(offered));
                }
                Some(other) => others.push(other),
                None => self.buffers.bell().sleep(Duration::MAX),
            }
        }
        for (work, offered) in others {
            self.commit_whole(work, Some(offered));
        }
    }

    /// Pushes for a line that no append is under way on, where they are worth one or have waited, and
    /// nothing else waits for the lane.
    fn more_pushes(&mut self, flights: &mut Flights) -> Option<Work> {
        let width = self.log.width().max(1);
        if flights.under_way.len() >= width || !self.has_nothing_but_pushes() {
            return None;
        }
        let now_us = self.clock.monotonic_us();
        let line = self.fullest_line(flights, now_us)?;
        let state = flights.lines.get_mut(line)?;
        state.tried_us = now_us;
        if !self.may_decide(line) {
            state.barred_until_us = now_us + GATHER_US;
            return None;
        }
        let is_of_line = |shard: ShardId| usize::from(shard) % width == line;
        let rings = self.drain_due(COMMIT_BYTES_MAX, now_us, &is_of_line);
        let reserved = self.buffers.allowances().refresh(|queue| self.replica.undone_of(queue));
        (!rings.is_empty()).then(|| Work { rings, reserved, ..Work::default() })
    }

    /// Whether what is decided for a line will most likely stand. Where other engines append to the same
    /// shards the turn is asked for first, and what they did is applied.
    fn may_decide(&mut self, line: usize) -> bool {
        let shards = 0..self.replica.count().get();
        let shards: Vec<ShardId> = shards.filter(|shard| self.line_of(*shard) == line).collect();
        match self.runtime.block_on(self.log.claim(&shards)) {
            None => true,
            Some(claim) => claim.is_ours && self.follow(&claim.heads).is_ok(),
        }
    }

    /// The free line for which most is due; one with little only after it has waited.
    fn fullest_line(&self, flights: &Flights, now_us: u64) -> Option<usize> {
        let mut waiting = vec![0; flights.lines.len()];
        let is_free = |line: usize| {
            let is_barred = flights.lines.get(line).is_some_and(|it| it.barred_until_us > now_us);
            !is_barred && flights.under_way.iter().all(|flight| flight.line != line)
        };
        for shard in 0..self.replica.count().get() {
            let line = self.line_of(shard);
            let is_due = self.buffers.due_us(shard).is_some_and(|due| due <= now_us);
            if is_due && is_free(line) {
                let bytes = self.buffers.waiting_bytes(shard);
                waiting.get_mut(line).into_iter().for_each(|it| *it += bytes);
            }
        }
        let least = self.config.parts_bytes_min / waiting.len().max(1) as u64;
        let has_waited = |line: usize| {
            flights.lines.get(line).is_some_and(|it| it.tried_us + GATHER_US <= now_us)
        };
        let lines = waiting.into_iter().enumerate();
        lines
            .filter(|(line, bytes)| *bytes > 0 && (*bytes >= least || has_waited(*line)))
            .max_by_key(|(_, bytes)| *bytes)
            .map(|(line, _)| line)
    }

    /// Whether nothing else than pushes waits for the lane: no command, no upkeep, no timer, nothing
    /// that other engines did, and nothing that a failure left behind.
    fn has_nothing_but_pushes(&self) -> bool {
        let now_us = self.clock.monotonic_us();
        let is_later = |due: Option<u64>| due.is_none_or(|due| due > now_us);
        let has_orders = !self.again.is_empty()
            || !self.inbox.is_empty()
            || !self.replica.chores.is_empty()
            || self.stopping.is_some();
        let has_failed = self.poisoned || self.failed_in_a_row > 0 || !self.held.is_empty();
        !has_orders
            && !has_failed
            && !self.is_follow_due()
            && !self.timer_due()
            && self.next_waking_ms().is_none_or(|due| due > self.now_ms())
            && self.takes_all_pushes()
            && is_later(self.parked.next_deadline_us())
            && is_later(self.schedule.next_us(self.has_changes()))
    }
}

/// The first append that was answered, if any was.
fn landed(flights: &mut Flights, waker: &Waker) -> Option<(Work, Offered)> {
    let mut context = Context::from_waker(waker);
    let under_way = &mut flights.under_way;
    let (at, (plan, answer)) = under_way.iter_mut().enumerate().find_map(|(at, flight)| {
        match flight.append.as_mut().poll(&mut context) {
            Poll::Ready(answered) => Some((at, answered)),
            Poll::Pending => None,
        }
    })?;
    let Flight { work, .. } = under_way.swap_remove(at);
    Some((work, Offered { plan, answer }))
}

fn bytes(rings: &[Ring]) -> u64 {
    rings.iter().map(Ring::bytes).sum()
}
