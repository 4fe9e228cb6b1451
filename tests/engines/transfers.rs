//! Tokens that are moved between partitions by transactions, through engines that race on a log that
//! lies: whatever was answered, every token is there once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use onrush::base::random::SeededRandom;
use onrush::log::simulated::Faults;
use onrush::shard::command::Asked;
use onrush::shard::transaction::{OnDuplicate, Reach};
use onrush::state::draft::ack::Verdict;
use onrush::state::draft::pop::PopBudget;
use onrush::transaction::{AckOrder, AppendOrder, Order, Which};
use onrush_protocol::batch::{BatchBuilder, NewRecord};
use onrush_protocol::options::QueueOptions;
use onrush_protocol::qos::Qos;

use crate::cluster::Cluster;
use crate::history::messages;
use crate::seeds::{number, runtime, seeds};
use crate::station::{Ask, QUEUE, Sent, Station};

const TOKENS: u64 = 24;
const PARTITIONS: u64 = 5;

/// Moves what a pop gives to another partition; tells whether it stands for sure.
async fn move_some(station: &Station, random: &SeededRandom) -> bool {
    let budget = PopBudget { messages: 1 + random.below(4) as u32, bytes: 1 << 20, partitions: 3 };
    let Ok(handout) = station.pop(&Ask { budget, wait_ms: 50, ..Ask::of("movers", 1) }).await
    else {
        return false;
    };
    let held = messages(&handout);
    if held.is_empty() {
        return false;
    }
    let ack = |(partition, seq, _): &(u32, u64, String)| AckOrder {
        group: "movers".parse().unwrap(),
        token: Some(handout.token),
        partition: *partition,
        which: Which::Range(*seq, *seq),
        verdict: Verdict::Completed,
        error: Box::default(),
        reach: Reach::Named,
    };
    let append = |(.., payload): &(u32, u64, String)| {
        let mut builder = BatchBuilder::new();
        let payload = payload.as_bytes();
        builder.push(&NewRecord { payload, ..NewRecord::default() }).unwrap();
        AppendOrder {
            queue: QUEUE.parse().unwrap(),
            partition: format!("p{}", random.below(PARTITIONS)).parse().unwrap(),
            batch: builder.finish().unwrap().bytes().clone(),
        }
    };
    let mut order = Order {
        leases: vec![handout.token],
        acks: held.iter().map(ack).collect(),
        states: None,
        appends: held.iter().map(append).collect(),
        on_duplicate: OnDuplicate::Report,
        sub: None,
    };
    if random.chance(150) {
        // Refused by its last part only.
        order.acks.push(AckOrder { which: Which::Range(1 << 40, 1 << 40), ..ack(&held[0]) });
    }
    station.transactions.commit(order).await.is_ok()
}

/// Settles everything that is left; how often each token was there.
async fn drain(cluster: &Cluster) -> BTreeMap<String, u32> {
    let (station, mut found) = (&cluster.stations[0], BTreeMap::new());
    let began = Instant::now();
    loop {
        let budget = PopBudget { messages: 100, bytes: 1 << 20, partitions: 100 };
        let ask = Ask { budget, auto_ack: true, ..Ask::of("movers", 1) };
        let popped = messages(&station.pop(&ask).await.unwrap());
        // A pop that finds nothing looks at what other engines did; one that finds something does not, and
        // its engine may have met half of a transfer.
        let has_looked = popped.is_empty();
        for (.., payload) in popped {
            *found.entry(payload).or_default() += 1;
        }
        let open = station.open().await;
        if has_looked && open.iter().any(|(group, open)| group == "movers" && *open == 0) {
            return found;
        }
        assert!(began.elapsed() < Duration::from_secs(30), "{open:?} stay open");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[test]
fn tokens_moved_by_transactions_of_engines_that_race_are_neither_lost_nor_doubled() {
    let (mut stood, mut conflicts) = (0, 0);
    for seed in seeds(4) {
        println!("seed {seed}");
        let cluster = Arc::new(Cluster::start(seed, 2));
        runtime().block_on(async {
            let first = &cluster.stations[0];
            let options = QueueOptions { retry_limit: 10_000, ..QueueOptions::default() };
            let asked = Asked { options, ..Asked::default() };
            first.catalogs.configure(&QUEUE.parse().unwrap(), "", "", asked).await.unwrap();
            for token in 0..TOKENS {
                let partition = format!("p{}", token % PARTITIONS);
                let records = [(None, format!("token{token}"))];
                let sent = first.push(&partition, Qos::AtLeastOnce, &records).await;
                assert!(matches!(sent, Sent::Stored(..)), "{sent:?}");
            }
            cluster.log.set_faults(Faults {
                unavailable_per_mille: 20,
                answer_lost_per_mille: 40,
                request_lost_per_mille: 20,
                late_per_mille: 20,
                disk_full_per_mille: 5,
                read_unavailable_per_mille: 30,
                yields_max: 3,
            });
            let mut movers = tokio::task::JoinSet::new();
            for mover in 0..4_u64 {
                let cluster = Arc::clone(&cluster);
                movers.spawn(async move {
                    let random = SeededRandom::new(seed * 100 + mover);
                    let mut stood = 0;
                    for _ in 0..number("MOVES", 60) {
                        let at = random.below(cluster.stations.len() as u64) as usize;
                        stood += u64::from(move_some(&cluster.stations[at], &random).await);
                    }
                    stood
                });
            }
            while let Some(done) = movers.join_next().await {
                stood += done.unwrap();
            }
            cluster.log.set_faults(Faults::default());
            let found = drain(&cluster).await;
            let expected = (0..TOKENS).map(|token| (format!("token{token}"), 1)).collect();
            assert_eq!(found, expected, "seed {seed}");
            conflicts += cluster.log.struck().conflicts;
            cluster.stop().await;
        });
    }
    // A proof in which nothing happened proves nothing.
    assert!(stood > 50 && conflicts > 0, "{stood} transactions stood, {conflicts} conflicts");
}
