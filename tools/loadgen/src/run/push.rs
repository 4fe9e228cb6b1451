//! Pushing over TCP: many connections on few threads.
//!
//! In: a plan. Out: a tally and the producers' ledgers. Connections are made before the clock
//! starts. Called by the runs and by the floor, so that both meet the very same driver.

use std::sync::Arc;

use onrush_protocol::limits::{BATCH_BYTES_MAX, RECORDS_MAX};
use onrush_protocol::request::PushTerms;
use onrush_protocol::response::Welcome;
use onrush_protocol::{BatchLimits, Qos, QueueName};

use crate::arguments::Load;
use crate::clock::{Clock, Span};
use crate::engine::{self, Line, dial};
use crate::error::LoadError;
use crate::numbers::Ledger;
use crate::pace::Pace;
use crate::producer::{Producer, ProducerTerms};
use crate::tally::{Meter, Tally};
use crate::template::{Shape, Template};

/// What is pushed, and how.
#[derive(Clone, Debug)]
pub(crate) struct PushPlan {
    /// Connections are spread over them.
    pub(crate) addrs: Vec<String>,
    pub(crate) token: Option<String>,
    pub(crate) queue: QueueName,
    pub(crate) terms: PushTerms,
    pub(crate) batch: u32,
    pub(crate) size: usize,
    pub(crate) connections: usize,
    pub(crate) in_flight: usize,
    pub(crate) partitions: u32,
    /// Messages per second in all; `None` for a closed loop.
    pub(crate) rate: Option<f64>,
    pub(crate) duplicates: f64,
    pub(crate) threads: usize,
    /// Tells this run's messages from another's.
    pub(crate) mark: u16,
    pub(crate) is_stamped: bool,
    /// Messages of all connections together, in full batches.
    pub(crate) messages_max: u64,
    /// By address: the partitions that are pushed to there; all of them where there is no route.
    pub(crate) routes: Vec<Arc<[u32]>>,
    /// Number of the first producer.
    pub(crate) first_producer: usize,
}

/// What came of it.
pub(crate) struct Pushed {
    pub(crate) tally: Tally,
    /// By producer.
    pub(crate) ledgers: Vec<Ledger>,
}

impl Pushed {
    /// Messages that the server took, each counted once.
    pub(crate) fn accepted(&self) -> u64 {
        self.ledgers.iter().map(|ledger| ledger.accepted).sum()
    }
}

impl PushPlan {
    pub(crate) fn new(load: &Load, queue: QueueName, mark: u16) -> Self {
        let terms = PushTerms {
            qos: load.promise(),
            buffer_ms: load.buffer_ms,
            buffer_max: load.buffer_max,
            ..PushTerms::default()
        };
        Self {
            addrs: std::iter::once(&load.addr).chain(&load.also).cloned().collect(),
            token: load.token.clone(),
            queue,
            terms,
            batch: load.batch,
            size: load.size,
            connections: load.connections,
            in_flight: load.in_flight,
            partitions: load.partitions,
            rate: load.rate,
            duplicates: load.duplicates,
            threads: load.threads,
            mark,
            is_stamped: !load.no_verify,
            messages_max: u64::MAX,
            routes: Vec::new(),
            first_producer: 0,
        }
    }

    /// The same traffic, for a server that stores nothing, as fast as it goes.
    pub(crate) fn for_floor(&self, addrs: &[String]) -> Self {
        Self {
            addrs: addrs.to_vec(),
            token: None,
            rate: None,
            duplicates: 0.0,
            messages_max: u64::MAX,
            routes: Vec::new(),
            ..self.clone()
        }
    }

    /// One message for each partition, so that receipts tell where they belong.
    fn for_learning(&self) -> Self {
        Self {
            addrs: self.addrs.iter().take(1).cloned().collect(),
            batch: 1,
            connections: 1,
            rate: None,
            duplicates: 0.0,
            messages_max: u64::from(self.partitions),
            first_producer: self.connections,
            ..self.clone()
        }
    }

    /// Finds out which server each partition belongs to, when `shards` shards are shared out among
    /// all servers; pushes one message to each partition for that.
    ///
    /// # Errors
    /// [`LoadError`] of the connection, or where a server would get nothing.
    pub(crate) fn learn(
        &mut self,
        shards: u16,
        clock: Clock,
        span: Span,
        meter: &Arc<Meter>,
    ) -> Result<Pushed, LoadError> {
        let pushed = PushCrew::dial(&self.for_learning())?.run(clock, span, meter)?;
        let mut routes = vec![Vec::new(); self.addrs.len()];
        let names = pushed.ledgers.iter().flat_map(|ledger| (0..).zip(&ledger.names));
        for (partition, number) in names.filter_map(|(at, number)| Some((at, (*number)?))) {
            let shard = number % u32::from(shards);
            // Neighbours go to different servers: shards that share a line of a database, every eighth,
            // then mostly belong to one of them.
            let server = shard as usize % routes.len().max(1);
            if let Some(route) = routes.get_mut(server) {
                route.push(partition);
            }
        }
        if routes.iter().any(Vec::is_empty) {
            return Err(LoadError::Argument {
                name: "affinity",
                value: shards.to_string(),
                allowed: "a server would get nothing; more --partitions are needed".to_owned(),
            });
        }
        self.routes = routes.into_iter().map(Arc::from).collect();
        Ok(pushed)
    }

    fn template(&self, index: usize, welcome: &Welcome) -> Result<Template, LoadError> {
        let announced = welcome.batch_bytes_max as usize;
        let limits = BatchLimits {
            batch_bytes_max: if announced == 0 { BATCH_BYTES_MAX } else { announced },
            message_bytes_max: usize::MAX,
            records_max: RECORDS_MAX,
        };
        let shape = Shape {
            queue: self.queue.clone(),
            terms: self.terms,
            batch: self.batch,
            size: self.size,
            is_stamped: self.is_stamped,
            has_ids: self.terms.qos == Qos::ExactlyOnce,
            seed: index as u64,
        };
        Template::build(&shape, limits)
    }

    fn producer(&self, index: usize, in_flight: usize, template: Template, span: Span) -> Producer {
        let connections = self.connections;
        let pace = match self.rate {
            Some(rate) => {
                // The warm-up is paced too.
                let begin_ns = span.begin_ns;
                Pace::open(begin_ns, rate / f64::from(self.batch), index, connections)
            }
            None => Pace::Closed,
        };
        let each = self.messages_max.div_ceil(connections as u64);
        let terms = ProducerTerms {
            producer: u32::from(self.mark) << 16 | (self.first_producer + index) as u32,
            partitions: self.partitions,
            route: self.routes.get(index % self.addrs.len().max(1)).cloned(),
            first_partition: (index as u64 * u64::from(self.partitions) / connections as u64)
                as u32,
            batch: self.batch,
            in_flight,
            pace,
            duplicates: self.duplicates,
            messages_max: if self.messages_max == u64::MAX { u64::MAX } else { each },
            end_ns: span.end_ns,
        };
        Producer::new(terms, template)
    }
}

/// Connections that are ready to push.
pub(crate) struct PushCrew {
    plan: PushPlan,
    sockets: Vec<(std::net::TcpStream, usize, Template)>,
}

impl PushCrew {
    /// Connects and shakes hands.
    pub(crate) fn dial(plan: &PushPlan) -> Result<Self, LoadError> {
        let mut sockets = Vec::with_capacity(plan.connections);
        for (index, addr) in (0..plan.connections).zip(plan.addrs.iter().cycle()) {
            let (stream, welcome) = dial(addr, plan.token.as_deref())?;
            let in_flight = plan.in_flight.min(welcome.in_flight_max.max(1) as usize);
            sockets.push((stream, in_flight, plan.template(index, &welcome)?));
        }
        if let Some((_, in_flight, _)) =
            sockets.iter().find(|(_, found, _)| *found < plan.in_flight)
        {
            eprintln!("onrush-load: the server takes {in_flight} requests under way, not more");
        }
        Ok(Self { plan: plan.clone(), sockets })
    }

    /// Pushes from now until the span ends.
    pub(crate) fn run(
        self,
        clock: Clock,
        span: Span,
        meter: &Arc<Meter>,
    ) -> Result<Pushed, LoadError> {
        let threads = self.plan.threads.min(self.plan.connections).max(1);
        let mut crews: Vec<Vec<(usize, Line<Producer>)>> = Vec::new();
        crews.resize_with(threads, Vec::new);
        for (index, (stream, in_flight, template)) in self.sockets.into_iter().enumerate() {
            let producer = self.plan.producer(index, in_flight, template, span);
            if let Some(crew) = crews.get_mut(index % threads) {
                crew.push((index, Line::new(stream, producer)));
            }
        }
        let results: Vec<_> = std::thread::scope(|scope| {
            let handles: Vec<_> = crews
                .into_iter()
                .map(|crew| scope.spawn(|| drive(crew, clock, span, meter)))
                .collect();
            handles.into_iter().map(|handle| handle.join()).collect()
        });
        let mut tally = Tally::new(span, Arc::clone(meter));
        let mut ledgers = Vec::new();
        for result in results {
            let (part, found) = result.map_err(|_| LoadError::Io {
                doing: "pushing",
                reason: "a thread panicked".to_owned(),
            })??;
            tally.absorb(&part);
            ledgers.extend(found);
        }
        ledgers.sort_by_key(|(index, _)| *index);
        Ok(Pushed { tally, ledgers: ledgers.into_iter().map(|(_, ledger)| ledger).collect() })
    }
}

type Driven = (Tally, Vec<(usize, Ledger)>);

fn drive(
    crew: Vec<(usize, Line<Producer>)>,
    clock: Clock,
    span: Span,
    meter: &Arc<Meter>,
) -> Result<Driven, LoadError> {
    let mut tally = Tally::new(span, Arc::clone(meter));
    let (indices, mut lines): (Vec<_>, Vec<_>) = crew.into_iter().unzip();
    engine::run(&mut lines, &mut tally, clock, span.give_up_ns)?;
    let ledgers = lines.into_iter().map(|line| line.dialogue.into_ledger());
    Ok((tally, indices.into_iter().zip(ledgers).collect()))
}
