//! What the client leaves to its user: acks of one's own, and a buffer that waits for its server.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use queen_mq::{BufferOptions, Config, PushStatus, Queen, QueueOptions};
use tokio::net::TcpListener;

use crate::world::World;
use crate::{PATIENCE, count_to, data};

fn short_lease() -> QueueOptions {
    let (lease_time, retry_limit, retry_delay) = (Some(1), Some(20), Some(0));
    QueueOptions { lease_time, retry_limit, retry_delay, ..QueueOptions::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_consumer_leaves_to_its_user_comes_again_until_somebody_acknowledges_it() {
    let world = World::start().await;
    let queue = world.queen.queue("orders").group("workers").poll_timeout(PATIENCE);
    queue.configure(short_lease()).await.unwrap();
    queue.push(1).await.unwrap();
    for result in [Ok(()), Err("it broke")] {
        let consumer = queue.clone().limit(1).auto_ack(false);
        let consuming = consumer.consume(move |_| std::future::ready(result));
        let summary = tokio::time::timeout(PATIENCE, consuming).await.unwrap().unwrap();
        assert_eq!((summary.processed, summary.acked, summary.nacked), (1, 0, 0));
    }
    let again = queue.pop().await.unwrap();
    assert_eq!(again.len(), 1, "its leases ran out");
    assert!(world.queen.ack(&again[0]).await.unwrap().success);
    assert!(queue.wait(false).pop().await.unwrap().is_empty());
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_that_is_refused_whole_comes_again_whole() {
    let world = World::start().await;
    let queue = world.queen.queue("orders").group("workers").batch(10).poll_timeout(PATIENCE);
    queue.configure(short_lease()).await.unwrap();
    queue.push_many(0..4).await.unwrap();
    let claim = queue.pop().await.unwrap();
    let refused = world.queen.nack_all(&claim, "the batch broke").await.unwrap();
    assert_eq!(refused.len(), 4);
    assert!(refused.iter().all(|it| it.success && !it.dlq), "{refused:?}");
    assert_eq!(data(&queue.pop().await.unwrap()), count_to(4));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_buffer_of_one_partition_is_flushed_alone() {
    let world = World::start().await;
    let options = BufferOptions { time: Duration::from_secs(600), ..BufferOptions::default() };
    let queue = world.queen.queue("orders").wait(false);
    let [first, second] = ["a", "b"].map(|name| queue.clone().partition(name).buffer(options));
    first.push(0).await.unwrap();
    second.push(1).await.unwrap();
    let flushed = first.flush_buffer().await.unwrap();
    assert_eq!(flushed.iter().map(|it| it.status).collect::<Vec<_>>(), [PushStatus::Queued]);
    assert_eq!(world.queen.buffer_stats().total_buffered_messages, 1);
    assert_eq!(data(&queue.clone().batch(10).pop().await.unwrap()), count_to(1));
    second.flush_buffer().await.unwrap();
    assert_eq!(queue.partition("b").pop().await.unwrap().len(), 1);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_buffer_whose_server_is_away_holds_up_its_producer_and_loses_nothing() {
    const BOUND: usize = 10;
    // A port that nobody listens on yet.
    let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let queen = Queen::connect(Config::new(format!("http://{address}/queen"))).unwrap();
    let options = BufferOptions {
        message_count: 5,
        time: Duration::from_millis(10),
        max_size: BOUND,
        retry_delay: Duration::from_millis(50),
    };
    let (queue, pushed) = (queen.queue("orders").buffer(options), Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&pushed);
    let producer = tokio::spawn(async move {
        for number in 0..30 {
            queue.clone().push(number).await.unwrap();
            count.fetch_add(1, Ordering::AcqRel);
        }
    });
    let is_full = async {
        while pushed.load(Ordering::Acquire) < BOUND {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, is_full).await.expect("the buffer fills");
    assert!(!producer.is_finished() && pushed.load(Ordering::Acquire) == BOUND);
    let world = World::with(|settings| settings.server.http_addr = address).await;
    tokio::time::timeout(PATIENCE, producer).await.expect("it goes on").unwrap();
    queen.close().await.unwrap();
    let mut seen = Vec::new();
    let all = async {
        while seen.len() < 30 {
            let popped = world.queen.queue("orders").batch(100).pop().await.unwrap();
            world.queen.ack_all(&popped).await.unwrap();
            seen.extend(data(&popped));
        }
    };
    tokio::time::timeout(PATIENCE, all).await.expect("everything comes");
    assert_eq!(seen, count_to(30), "in order, and once");
    world.stop().await;
}
