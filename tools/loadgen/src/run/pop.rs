//! Popping over TCP: several connections on one thread, every message checked.
//!
//! In: a plan, and how many messages are expected once that is known. Out: what the consumers
//! counted, with the verifier. One thread, because then messages of a partition are seen in the
//! order in which the server handed them out. Called by the runs.

use std::sync::Arc;
use std::time::Duration;

use onrush_protocol::request::{Pop, SubscriptionStart};
use onrush_protocol::{GroupName, QueueName};

use crate::arguments::Load;
use crate::clock::{Clock, Span, as_ns};
use crate::consumer::{Consumer, Consumption, Expected};
use crate::engine::{self, Line, dial};
use crate::error::LoadError;
use crate::tally::{Meter, Tally};
use crate::verify::Verifier;

/// How long one pop waits at the server, in milliseconds: long enough to cost nothing, short
/// enough to notice the end.
const WAIT_MS: u32 = 200;

/// What is popped, and how.
#[derive(Clone, Debug)]
pub(crate) struct PopPlan {
    pub(crate) addr: String,
    pub(crate) token: Option<String>,
    pub(crate) queue: QueueName,
    pub(crate) group: GroupName,
    pub(crate) connections: usize,
    pub(crate) in_flight: usize,
    pub(crate) batch: u32,
    pub(crate) partitions_max: u16,
    pub(crate) idle: Duration,
}

impl PopPlan {
    pub(crate) fn new(load: &Load, queue: QueueName, group: GroupName) -> Self {
        Self {
            addr: load.addr.clone(),
            token: load.token.clone(),
            queue,
            group,
            connections: load.pop_connections,
            in_flight: load.pop_in_flight,
            batch: load.pop_batch,
            partitions_max: load.pop_partitions,
            idle: Duration::from_secs_f64(load.idle),
        }
    }

    fn request(&self) -> Pop {
        Pop {
            queue: self.queue.clone(),
            partition: None,
            group: self.group.clone(),
            messages_max: self.batch,
            bytes_max: 0,
            partitions_max: self.partitions_max,
            wait_ms: WAIT_MS,
            lease_ms: 0,
            auto_ack: false,
            start: SubscriptionStart::Beginning,
        }
    }
}

/// Connections that are ready to pop.
pub(crate) struct PopCrew {
    lines: Vec<Line<Consumer>>,
    idle: Duration,
}

impl PopCrew {
    /// Connects and shakes hands.
    pub(crate) fn dial(plan: &PopPlan) -> Result<Self, LoadError> {
        let mut lines = Vec::with_capacity(plan.connections);
        for _ in 0..plan.connections {
            let (stream, welcome) = dial(&plan.addr, plan.token.as_deref())?;
            // An ack goes out beside each pop, and must find a place too.
            let window = (welcome.in_flight_max.max(2) as usize) / 2;
            lines
                .push(Line::new(stream, Consumer::new(plan.request(), plan.in_flight.min(window))));
        }
        Ok(Self { lines, idle: plan.idle })
    }

    /// Pops until what is expected has come, or nothing comes any more.
    pub(crate) fn run(
        mut self,
        clock: Clock,
        span: Span,
        meter: &Arc<Meter>,
        expected: Arc<Expected>,
        verifier: Option<Verifier>,
    ) -> Result<Consumption, LoadError> {
        let mut shared = Consumption {
            tally: Tally::new(span, Arc::clone(meter)),
            verifier,
            received: 0,
            expected,
            last_ns: clock.now_ns(),
            idle_ns: as_ns(self.idle),
        };
        engine::run(&mut self.lines, &mut shared, clock, span.give_up_ns)?;
        Ok(shared)
    }
}
