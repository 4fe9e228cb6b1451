//! Keys that come and go while producers and consumers work.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use onrush_client::{Client, Message};
use serde_json::{Value, json};

use crate::desk::{Desk, PATIENCE, payloads};
use crate::resting::maintenance;

/// Waits until nothing waits in the failover log any more.
async fn drained(desk: &Desk) {
    let until = Instant::now() + PATIENCE;
    while desk.world.server.rooms().telemetry.spill_waiting.get() > 0 {
        assert!(Instant::now() < until, "what was held back does not get into the store");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn numbers(from: u64, to: u64) -> Vec<Value> {
    (from..to).map(|n| json!({ "n": n })).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_change_while_messages_wait_in_the_failover_log() {
    let desk = Desk::with_keys(&[(1, 'a')]).await;
    desk.sealed_queue("secrets").await;
    maintenance(&desk, true).await;
    desk.push("secrets", "p", &numbers(0, 10)).await;
    desk.keys(&[(1, 'a'), (2, 'b')]).await;
    desk.keys(&[(2, 'b'), (1, 'a')]).await;
    desk.push("secrets", "p", &numbers(10, 20)).await;
    let desk = desk.restart().await;
    desk.keys(&[(3, 'c'), (2, 'b'), (1, 'a')]).await;
    desk.push("secrets", "p", &numbers(20, 30)).await;
    maintenance(&desk, false).await;
    drained(&desk).await;
    desk.push("secrets", "p", &numbers(30, 40)).await;
    let path = "/api/v1/pop/queue/secrets/partition/p?batch=100&autoAck=true";
    assert_eq!(payloads(&desk.world.get(path).await.json()), numbers(0, 40));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_taken_away_too_early_sets_nothing_aside_and_what_waited_comes_when_it_is_back() {
    let desk = Desk::with_keys(&[(1, 'a')]).await;
    desk.sealed_queue("secrets").await;
    maintenance(&desk, true).await;
    desk.push("secrets", "p", &numbers(0, 10)).await;
    desk.keys(&[(2, 'b')]).await;
    desk.push("secrets", "p", &numbers(10, 20)).await;
    maintenance(&desk, false).await;
    drained(&desk).await;
    let telemetry = desk.world.server.rooms().telemetry.clone();
    assert_eq!(telemetry.quarantined.get(), 0, "nobody threw it out");
    let (status, error, code) = desk.refused("secrets", "batch=100").await;
    assert_eq!((status, code.as_str()), (503, "key_not_here"), "{error}");
    desk.keys(&[(2, 'b'), (1, 'a')]).await;
    let until = Instant::now() + PATIENCE;
    let mut all = Vec::new();
    while all.len() < 20 {
        assert!(Instant::now() < until, "{all:?}");
        all.extend(desk.take("secrets", 100).await);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(all, numbers(0, 20));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn keys_change_under_load_and_every_message_comes_out_once_and_in_order() {
    let desk = Desk::with_keys(&[(1, 'b')]).await;
    desk.sealed_queue("secrets").await;
    let address = desk.world.server.tcp_addr().to_string();
    let is_over = Arc::new(AtomicBool::new(false));
    let is_all_there = Arc::new(AtomicBool::new(false));
    let producers = (0..2).map(|producer| {
        let (address, is_over) = (address.clone(), Arc::clone(&is_over));
        tokio::spawn(async move {
            let client = Client::connect(&address).await.unwrap();
            let queue = client.queue("secrets").partition(&format!("p{producer}"));
            let mut count = 0;
            while !is_over.load(Ordering::Relaxed) {
                let messages = (count..count + 7).map(|n| Message::json(&json!({ "n": n })));
                queue.push(messages.collect::<Vec<_>>()).await.unwrap();
                count += 7;
            }
            count
        })
    });
    let producers: Vec<_> = producers.collect();
    let consumers = (0..2).map(|partition| {
        let (address, is_all_there) = (address.clone(), Arc::clone(&is_all_there));
        tokio::spawn(async move {
            let client = Client::connect(&address).await.unwrap();
            let queue = client.queue("secrets").partition(&format!("p{partition}"));
            let mut seen: Vec<u64> = Vec::new();
            loop {
                let ends = is_all_there.load(Ordering::Relaxed);
                let popped = queue.pop().batch(50).send().await.unwrap();
                let numbers = popped.messages.iter().map(|it| it.json::<Value>().unwrap());
                seen.extend(numbers.map(|it| it["n"].as_u64().unwrap()));
                client.ack(&popped.messages).await.unwrap();
                if ends && popped.is_empty() {
                    return seen;
                }
            }
        })
    });
    let consumers: Vec<_> = consumers.collect();
    // A new key is known before it is used, and an old one for as long as it is needed.
    let key = |id: u32| (id, ['a', 'b', 'c', 'd', 'e', 'f', '7', '8'][id as usize]);
    let ring = |active: u32, most: u32| {
        let others = (1..=most).filter(|id| *id != active);
        std::iter::once(active).chain(others).map(key).collect::<Vec<_>>()
    };
    for newest in 2..8 {
        desk.keys(&ring(newest - 1, newest)).await;
        desk.keys(&ring(newest, newest)).await;
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    is_over.store(true, Ordering::Relaxed);
    let mut pushed = Vec::new();
    for producer in producers {
        pushed.push(producer.await.unwrap());
    }
    is_all_there.store(true, Ordering::Relaxed);
    for (pushed, consumer) in pushed.into_iter().zip(consumers) {
        let seen = consumer.await.unwrap();
        assert!(pushed > 0);
        assert_eq!(seen, (0..pushed).collect::<Vec<_>>());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ring_that_cannot_be_read_again_leaves_the_keys_as_they_are() {
    let desk = Desk::with_keys(&[(1, 'a')]).await;
    desk.sealed_queue("secrets").await;
    std::fs::write(&desk.ring, "active = 9\n[keys]\n").unwrap();
    let seals = desk.world.server.rooms().engine.seals().clone();
    let until = Instant::now() + PATIENCE;
    while seals.picture().fault.is_none() {
        assert!(Instant::now() < until, "nobody says that the file is wrong");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(seals.picture().fault.unwrap().contains("key 9 is to be active"));
    desk.push("secrets", "p", &[json!(1)]).await;
    assert_eq!(desk.take("secrets", 1).await, [json!(1)]);
    desk.keys(&[(2, 'b'), (1, 'a')]).await;
    assert_eq!(seals.picture().fault, None);
}
