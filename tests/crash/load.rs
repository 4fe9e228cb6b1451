//! Producers and consumers that go on whatever happens to the server.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use onrush_client::{Client, Message, Qos};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::checker::{Checker, QUEUE};

pub(crate) const PRODUCERS: u32 = 4;
const CONSUMERS: usize = 2;
const BATCH: u64 = 5;
/// Keeps the run's size within what a debug build can check afterwards.
const PAUSE: Duration = Duration::from_millis(4);

/// The load of one run.
pub(crate) struct Load {
    addr: watch::Sender<Option<SocketAddr>>,
    producing: Arc<AtomicBool>,
    producers: JoinSet<()>,
    consumers: JoinSet<()>,
}

impl Load {
    pub(crate) fn start(checker: Arc<Checker>) -> Self {
        Self::start_from(checker, 0)
    }

    /// As [`Self::start`], with producers that are numbered from `first` on.
    pub(crate) fn start_from(checker: Arc<Checker>, first: u32) -> Self {
        let (addr, watching) = watch::channel(None);
        let producing = Arc::new(AtomicBool::new(true));
        let mut producers = JoinSet::new();
        for producer in first..first + PRODUCERS {
            let task = Producer {
                producer,
                qos: if producer % 2 == 0 { Qos::AtLeastOnce } else { Qos::ExactlyOnce },
                checker: Arc::clone(&checker),
                addr: watching.clone(),
            };
            producers.spawn(task.run(Arc::clone(&producing)));
        }
        let mut consumers = JoinSet::new();
        for _ in 0..CONSUMERS {
            consumers.spawn(consume(Arc::clone(&checker), watching.clone()));
        }
        Self { addr, producing, producers, consumers }
    }

    /// Where the server is now.
    pub(crate) fn point_at(&self, addr: Option<SocketAddr>) {
        self.addr.send_replace(addr);
    }

    /// Lets producers finish what they began, and ends the consumers.
    pub(crate) async fn finish(mut self) {
        self.producing.store(false, Ordering::Release);
        let done = async { while self.producers.join_next().await.is_some() {} };
        tokio::time::timeout(Duration::from_secs(60), done).await.expect("producers still wait");
        self.consumers.shutdown().await;
    }
}

/// A client of the server that is there now; waits until there is one. Its own retries are off, so
/// that the test decides what is sent again.
async fn connect(addr: &mut watch::Receiver<Option<SocketAddr>>) -> Client {
    loop {
        let now = *addr.wait_for(Option::is_some).await.unwrap();
        let builder = Client::builder().addr(&now.unwrap().to_string()).retries(0);
        let builder = builder.request_timeout(Duration::from_secs(5));
        match builder.circuit_breaker(u32::MAX, Duration::from_secs(1)).connect().await {
            Ok(client) => return client,
            Err(_) => tokio::time::sleep(Duration::from_millis(2)).await,
        }
    }
}

struct Producer {
    producer: u32,
    qos: Qos,
    checker: Arc<Checker>,
    addr: watch::Receiver<Option<SocketAddr>>,
}

impl Producer {
    async fn run(mut self, producing: Arc<AtomicBool>) {
        let mut client = connect(&mut self.addr).await;
        for first in (0..).step_by(BATCH as usize) {
            if !producing.load(Ordering::Acquire) {
                return;
            }
            let partition = (first / BATCH) % 2;
            // The same batch until it is acknowledged: at QoS 1 it may then stand twice, at QoS 2
            // it may not.
            while !self.push(&client, partition, first).await {
                client = connect(&mut self.addr).await;
            }
            self.checker.acknowledged(self.producer, first..first + BATCH);
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn push(&self, client: &Client, partition: u64, first: u64) -> bool {
        let name = format!("p{}-{partition}", self.producer);
        let messages = (first..first + BATCH).map(|number| {
            let message = Message::json(&(self.producer, number));
            match self.qos {
                Qos::ExactlyOnce => message.transaction_id(format!("{}-{number}", self.producer)),
                _ => message,
            }
        });
        let queue = client.queue(QUEUE).partition(&name);
        match queue.push(messages).qos(self.qos).await {
            Ok(result) => result.is_complete(),
            Err(_) => false,
        }
    }
}

async fn consume(checker: Arc<Checker>, mut addr: watch::Receiver<Option<SocketAddr>>) {
    loop {
        let client = connect(&mut addr).await;
        let queue = client.queue(QUEUE);
        loop {
            let pop = queue.pop().group("live").batch(50).partitions(2);
            let Ok(popped) = pop.wait(Duration::from_millis(200)).lease(LEASE).send().await else {
                break;
            };
            for message in &popped.messages {
                checker.delivered_live(message);
            }
            if !popped.is_empty() && client.ack(&popped.messages).await.is_ok() {
                checker.ack_confirmed(&popped.messages);
            }
        }
    }
}

/// Short, so that what a killed consumer held comes again within the run.
const LEASE: Duration = Duration::from_secs(2);
