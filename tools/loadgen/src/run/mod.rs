//! The runs: which phases each command has, and what is reported of them.
//!
//! In: checked arguments. Out: a [`Report`]. Every run but `floor` has a queue and a consumer
//! group of its own, measures the floor before and after with the same traffic, and pops
//! everything back that it pushed. Called by `main`.

mod pairs;
pub(crate) mod pop;
pub(crate) mod push;

use std::sync::Arc;
use std::sync::atomic::Ordering::Release;
use std::time::Duration;

use onrush_client::{Client, GroupName, Qos, QueueName};

use crate::arguments::{Command, Load};
use crate::clock::{Clock, Span};
use crate::consumer::{Consumption, Expected};
use crate::error::LoadError;
use crate::floor::database::Traffic;
use crate::floor::{self, Bound, Measured};
use crate::http;
use crate::numbers::Ledger;
use crate::progress::{Progress, Voice};
use crate::report::{Findings, Report};
use crate::tally::{Meter, Tally, latencies};
use crate::verify::{Integrity, Verifier};
use pop::{PopCrew, PopPlan};
use push::{PushCrew, PushPlan, Pushed};

/// How long outstanding answers are waited for after the end.
pub(crate) const DRAIN: Duration = Duration::from_secs(10);

/// Longest that filling or emptying a queue may take.
pub(crate) const PHASE_MAX: Duration = Duration::from_secs(3600);

/// One run and what all its phases share.
pub(crate) struct Run<'a> {
    pub(crate) load: &'a Load,
    voice: Voice,
    pub(crate) clock: Clock,
    pub(crate) queue: QueueName,
    pub(crate) group: GroupName,
    /// Tells this run's messages from another's in the same queue.
    mark: u16,
}

/// Does what the command says.
pub(crate) fn run(command: &Command) -> Result<Report, LoadError> {
    let (name, load) = command.parts();
    load.check(name)?;
    if let Some(times) = load.pairs {
        return match command {
            Command::Mixed(_) => pairs::of_groups(load, times),
            _ => pairs::against_the_floor(load, times),
        };
    }
    let run = Run::new(load)?;
    let findings = match command {
        Command::Floor(_) => run.floor_only(),
        Command::Push(_) if load.http => run.with_queue(|run| run.around(http::push)),
        Command::Pop(_) if load.http => run.with_queue(|run| run.around(http::pop)),
        Command::Mixed(_) if load.http => run.with_queue(|run| run.around(http::mixed)),
        Command::Push(_) => run.with_queue(|run| run.around(Run::push)),
        Command::Pop(_) => run.with_queue(|run| run.around(Run::pop)),
        Command::Mixed(_) => run.with_queue(|run| run.around(Run::mixed)),
    }?;
    Ok(Report::new(Findings { command: name, ..findings }, load))
}

impl<'a> Run<'a> {
    fn new(load: &'a Load) -> Result<Self, LoadError> {
        let mark: u16 = rand::random();
        let nonce: u32 = rand::random();
        let own = format!("load-{nonce:08x}");
        let refused = |error: onrush_protocol::NameError| LoadError::Argument {
            name: "queue",
            value: load.queue.clone().unwrap_or_default(),
            allowed: error.to_string(),
        };
        Ok(Self {
            load,
            voice: Voice::choose(load.json),
            clock: Clock::start(),
            queue: load.queue.as_deref().unwrap_or(&own).parse().map_err(refused)?,
            group: own.parse().map_err(refused)?,
            mark,
        })
    }

    pub(crate) fn push_plan(&self) -> PushPlan {
        PushPlan::new(self.load, self.queue.clone(), self.mark)
    }

    pub(crate) fn pop_plan(&self) -> PopPlan {
        PopPlan::new(self.load, self.queue.clone(), self.group.clone())
    }

    pub(crate) fn verifier(&self) -> Option<Verifier> {
        // One more where partitions are learnt.
        let learners = usize::from(self.load.affinity.is_some());
        let producers = self.load.connections + learners;
        let partitions = self.load.partitions as usize;
        (!self.load.no_verify).then(|| Verifier::new(self.mark, producers, partitions))
    }

    pub(crate) fn progress(
        &self,
        phase: &'static str,
        length: Duration,
        meter: &Arc<Meter>,
    ) -> Progress {
        Progress::start(self.voice, phase, length, meter)
    }

    /// What this run's rate is held against.
    pub(crate) fn bound(&self, is_push: bool) -> Bound {
        match self.load.promise() {
            Qos::Buffered if is_push => Bound::Frames,
            _ if self.load.database_url.is_some() => Bound::Rows,
            _ => Bound::Durable,
        }
    }

    /// All that a run held against `bound` measures.
    pub(super) fn measure_all(&self, bound: Bound) -> Result<Vec<Measured>, LoadError> {
        match bound {
            Bound::Rows => Ok(vec![self.measure(Bound::Rows)?, self.measure(Bound::Batches)?]),
            bound => Ok(vec![self.measure(bound)?]),
        }
    }

    fn measure(&self, bound: Bound) -> Result<Measured, LoadError> {
        let load = self.load;
        let (seconds, threads) = (load.floor_length(), load.floor_threads);
        if let (Bound::Rows | Bound::Batches, Some(url)) = (bound, &load.database_url) {
            let (connections, batch, size) = (load.connections, load.batch, load.size);
            let (url, commit) = (url.clone(), load.floor_commit);
            let traffic = Traffic { url, connections, batch, size, commit };
            return floor::database::measure(bound, &traffic, seconds);
        }
        floor::measure(bound, &self.push_plan(), seconds, threads, &load.data_dir)
    }

    /// Both bounds and nothing else.
    fn floor_only(&self) -> Result<Findings, LoadError> {
        let bounds = match self.load.database_url {
            Some(_) => [Bound::Rows, Bound::Batches],
            None => [Bound::Frames, Bound::Durable],
        };
        let twice = bounds.iter().chain(&bounds);
        let floors = twice.map(|bound| self.measure(*bound)).collect::<Result<_, _>>()?;
        let span = Span::new(self.clock, Duration::ZERO, Duration::from_secs(1), Duration::ZERO);
        Ok(Findings {
            command: "floor",
            tally: Tally::new(span, Arc::new(Meter::default())),
            end_to_end: None,
            pop_rate: None,
            integrity: None,
            bound: Some(self.bound(true)),
            floors,
        })
    }

    /// Sets up the run's queue, and deletes it after.
    pub(super) fn with_queue(
        &self,
        body: impl FnOnce(&Self) -> Result<Findings, LoadError>,
    ) -> Result<Findings, LoadError> {
        if self.load.queue.is_some() {
            return body(self);
        }
        if self.load.http {
            let result = http::set_up(self).and_then(|()| body(self));
            self.clean_up(|| http::tear_down(self));
            return result;
        }
        let runtime = runtime()?;
        let mut builder = Client::builder().addr(&self.load.addr).retries(0);
        if let Some(token) = &self.load.token {
            builder = builder.token(token);
        }
        let client = runtime.block_on(builder.connect())?;
        let queue = client.queue(self.queue.as_str());
        runtime.block_on(queue.create())?;
        client.disconnect();
        let result = body(self);
        self.clean_up(|| Ok(runtime.block_on(queue.delete()).map(drop)?));
        result
    }

    /// Deletes the run's queue. What was found out is worth more than a queue that stays behind.
    fn clean_up(&self, delete: impl FnOnce() -> Result<(), LoadError>) {
        if !self.load.keep
            && let Err(error) = delete()
        {
            eprintln!("onrush-load: the queue {} stays behind: {error}", self.queue);
        }
    }

    /// Measures the floor before and after `body`.
    fn around(
        &self,
        body: impl FnOnce(&Self) -> Result<Findings, LoadError>,
    ) -> Result<Findings, LoadError> {
        if self.load.no_floor {
            return body(self);
        }
        let bound = self.bound(true);
        let before = self.measure_all(bound)?;
        let mut findings = body(self)?;
        findings.floors.extend(before);
        findings.floors.extend(self.measure_all(findings.bound.unwrap_or(bound))?);
        Ok(findings)
    }

    pub(super) fn push(&self) -> Result<Findings, LoadError> {
        let mut plan = self.push_plan();
        let learnt = self.load.affinity.map(|shards| self.learn(&mut plan, shards)).transpose()?;
        let crew = PushCrew::dial(&plan)?;
        let meter = Arc::new(Meter::default());
        let span = Span::new(self.clock, self.load.warmup(), self.load.length(), DRAIN);
        let pushed = {
            let length = self.load.warmup() + self.load.length();
            let _progress = self.progress("push", length, &meter);
            let mut pushed = crew.run(self.clock, span, &meter)?;
            pushed.ledgers.extend(learnt.into_iter().flat_map(|learnt| learnt.ledgers));
            pushed
        };
        let mut findings = Findings {
            command: "push",
            end_to_end: None,
            pop_rate: None,
            integrity: None,
            bound: Some(self.bound(true)),
            floors: Vec::new(),
            tally: Tally::new(span, Arc::clone(&meter)),
        };
        if !self.load.no_verify {
            match self.check(&pushed) {
                Ok((integrity, consumed)) => {
                    findings.integrity = Some(integrity);
                    for (what, count) in &consumed.tally.errors {
                        findings.tally.error(&format!("check: {what}"), *count);
                    }
                }
                // The server is gone, perhaps; what was measured until then is still told.
                Err(error) => findings.tally.error(&format!("check: {error}"), 1),
            }
        }
        findings.tally.absorb(&pushed.tally);
        Ok(findings)
    }

    /// Learns which server each partition belongs to.
    fn learn(&self, plan: &mut PushPlan, shards: u16) -> Result<Pushed, LoadError> {
        let meter = Arc::new(Meter::default());
        let span = Span::new(self.clock, Duration::ZERO, PHASE_MAX, DRAIN);
        let _progress = self.progress("learn", Duration::from_secs(1), &meter);
        plan.learn(shards, self.clock, span, &meter)
    }

    /// Pops back everything that was pushed.
    fn check(&self, pushed: &Pushed) -> Result<(Integrity, Consumption), LoadError> {
        let expected = Arc::new(Expected::default());
        expected.messages.store(pushed.accepted(), Release);
        expected.is_final.store(true, Release);
        let span = Span::new(self.clock, Duration::ZERO, PHASE_MAX, Duration::ZERO);
        let meter = Arc::new(Meter::default());
        let _progress = self.progress("check", Duration::from_secs(10), &meter);
        let crew = PopCrew::dial(&self.pop_plan())?;
        let mut consumed = crew.run(self.clock, span, &meter, expected, self.verifier())?;
        let integrity = consumed.verifier.take().map(|verifier| verifier.close(&pushed.ledgers));
        Ok((integrity.unwrap_or_default(), consumed))
    }

    fn pop(&self) -> Result<Findings, LoadError> {
        let mut plan = self.push_plan();
        plan.messages_max = self.load.messages;
        plan.rate = None;
        // Everything must be there before it is popped.
        if plan.terms.qos == Qos::Buffered {
            plan.terms.qos = Qos::AtLeastOnce;
        }
        let meter = Arc::new(Meter::default());
        let fill = Span::new(self.clock, Duration::ZERO, PHASE_MAX, DRAIN);
        let pushed = {
            let _progress = self.progress("fill", self.load.length(), &meter);
            PushCrew::dial(&plan)?.run(self.clock, fill, &meter)?
        };
        let expected = Arc::new(Expected::default());
        expected.messages.store(pushed.accepted(), Release);
        expected.is_final.store(true, Release);
        let crew = PopCrew::dial(&self.pop_plan())?;
        let meter = Arc::new(Meter::default());
        let mut span = Span::new(self.clock, Duration::ZERO, self.load.length(), PHASE_MAX);
        let mut consumed = {
            let _progress = self.progress("pop", self.load.length(), &meter);
            crew.run(self.clock, span, &meter, expected, self.verifier())?
        };
        // A queue that was empty before the time was up is measured until then.
        span.end_ns = span.end_ns.min(consumed.last_ns.max(span.warm_ns + 1));
        consumed.tally.span = span;
        for (what, count) in &pushed.tally.errors {
            consumed.tally.error(&format!("fill: {what}"), *count);
        }
        let integrity = consumed.verifier.take().map(|verifier| verifier.close(&pushed.ledgers));
        Ok(Findings {
            command: "pop",
            tally: consumed.tally,
            end_to_end: None,
            pop_rate: None,
            integrity,
            bound: Some(Bound::Durable),
            floors: Vec::new(),
        })
    }

    /// Producers, and consumers of so many groups that each read everything.
    pub(super) fn mixed(&self) -> Result<Findings, LoadError> {
        if self.load.groups == 0 {
            // Nobody reads meanwhile; everything is popped back after.
            return self.push().map(|findings| Findings { command: "mixed", ..findings });
        }
        let push_crew = PushCrew::dial(&self.push_plan())?;
        let plans = (0..self.load.groups).map(|index| self.pop_plan_of(index));
        let crews = plans.map(|plan| PopCrew::dial(&plan?)).collect::<Result<Vec<_>, _>>()?;
        let expected = Arc::new(Expected::default());
        let (meter, popped) = (Arc::new(Meter::default()), Arc::new(Meter::default()));
        let clock = self.clock;
        let span = Span::new(clock, self.load.warmup(), self.load.length(), DRAIN);
        // Consumers go on until everything has come out.
        let pop_span = Span { give_up_ns: u64::MAX, ..span };
        let length = self.load.warmup() + self.load.length();
        let (pushed, consumed) = std::thread::scope(|scope| {
            let _progress = self.progress("mixed", length, &meter);
            let consume = |crew: PopCrew| {
                let (expected, popped) = (Arc::clone(&expected), Arc::clone(&popped));
                scope.spawn(move || crew.run(clock, pop_span, &popped, expected, self.verifier()))
            };
            let consumers: Vec<_> = crews.into_iter().map(consume).collect();
            let pushed = push_crew.run(clock, span, &meter);
            if let Ok(pushed) = &pushed {
                expected.messages.store(pushed.accepted(), Release);
            }
            expected.is_final.store(true, Release);
            let consumed: Vec<_> = consumers.into_iter().map(|it| it.join()).collect();
            (pushed, consumed)
        });
        let pushed = pushed?;
        let mut findings = Findings {
            command: "mixed",
            tally: pushed.tally,
            end_to_end: None,
            pop_rate: Some(0.0),
            integrity: None,
            bound: Some(self.bound(true)),
            floors: Vec::new(),
        };
        for consumed in consumed {
            let panicked =
                |_| LoadError::Io { doing: "popping", reason: "a thread panicked".into() };
            findings.add(consumed.map_err(panicked)??, &pushed.ledgers);
        }
        Ok(findings)
    }

    /// The plan of one of several groups.
    fn pop_plan_of(&self, index: u16) -> Result<PopPlan, LoadError> {
        let group = match index {
            0 => self.group.clone(),
            index => {
                let name = format!("{}-{index}", self.group);
                let refused = |error: onrush_protocol::NameError| LoadError::Io {
                    doing: "naming a group",
                    reason: error.to_string(),
                };
                name.parse().map_err(refused)?
            }
        };
        Ok(PopPlan { group, ..self.pop_plan() })
    }
}

impl Findings {
    /// Adds what one group's consumers counted.
    fn add(&mut self, mut consumed: Consumption, ledgers: &[Ledger]) {
        for (what, count) in &consumed.tally.errors {
            self.tally.error(what, *count);
        }
        *self.pop_rate.get_or_insert(0.0) += consumed.tally.rate();
        let Some(verifier) = consumed.verifier.take() else { return };
        self.integrity.get_or_insert_default().add(&verifier.close(ledgers));
        // Both histograms have the same bounds, for which adding cannot fail.
        _ = self.end_to_end.get_or_insert_with(latencies).add(&consumed.tally.end_to_end);
    }
}

/// A small runtime for the parts that are not measured, and for HTTP.
pub(crate) fn runtime() -> Result<tokio::runtime::Runtime, LoadError> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(LoadError::io("starting a runtime"))
}
