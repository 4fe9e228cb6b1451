//! Streams of the client over a server without claims: it falls back to what older servers have.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use queen_mq::streams::{RunOptions, Stream, StreamHandle};
use queen_mq::{Message, QueueOptions};
use serde_json::{Value, json};

use crate::world::World;
use crate::{PATIENCE, data};

fn options(query: &str) -> RunOptions {
    RunOptions::new(query).max_wait(Duration::from_millis(100))
}

/// The payloads of a queue, as soon as there are so many.
async fn until(world: &World, queue: &str, count: usize) -> Vec<Value> {
    let mut seen = Vec::new();
    let found = async {
        while seen.len() < count {
            let queue = world.queen.queue(queue).batch(100).poll_timeout(Duration::from_secs(2));
            let messages = queue.pop().await.unwrap();
            world.queen.ack_all(&messages).await.unwrap();
            seen.extend(data(&messages));
        }
    };
    let in_time = tokio::time::timeout(PATIENCE, found).await;
    assert!(in_time.is_ok(), "only {seen:?} of {count} in {queue}");
    seen
}

fn at(message: &Message) -> Option<i64> {
    message.data["at"].as_i64()
}

/// Counts and sums in windows of a second, by the time in the payload.
async fn counting(world: &World, query: &str) -> StreamHandle {
    Stream::from(world.queen.queue("source"))
        .window_tumbling(1)
        .event_time(at)
        .idle_flush_ms(0)
        .aggregate_count("count")
        .aggregate_sum("sum", |it| it.number("n"))
        .to(world.queen.queue("sink"))
        .run(&world.queen, options(query))
        .await
        .unwrap()
}

fn counted(windows: &[Value]) -> Vec<(f64, f64)> {
    let number = |window: &Value, name: &str| window[name].as_f64().unwrap();
    windows.iter().map(|it| (number(it, "count"), number(it, "sum"))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_maps_filters_and_makes_many_of_one() {
    let world = World::start().await;
    let stream = Stream::from(world.queen.queue("source"))
        .map(|it| json!({ "n": it.number("n").unwrap_or_default() * 10.0 }))
        .filter(|it| it.number("n") > Some(10.0))
        .flat_map(|it| vec![it.data.clone(), json!("again")])
        .to_partitioned(world.queen.queue("sink"), |_| "p".to_owned())
        .run(&world.queen, options("mapping"));
    let stream = stream.await.unwrap();
    for n in 0..3 {
        world.queen.queue("source").push(json!({ "n": n })).await.unwrap();
    }
    let sunk = until(&world, "sink", 2).await;
    assert_eq!(sunk, [json!({ "n": 20.0 }), json!({ "value": "again" })]);
    assert_eq!(stream.metrics().errors, 0, "{:?}", stream.metrics());
    stream.stop().await.unwrap();
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_counts_in_tumbling_windows_and_goes_on_with_its_state() {
    let world = World::start().await;
    let source = world.queen.queue("source");
    let stream = counting(&world, "sums").await;
    for (at, n) in [(1000, 1), (1500, 2), (2100, 3)] {
        source.push(json!({ "at": at, "n": n })).await.unwrap();
    }
    assert_eq!(counted(&until(&world, "sink", 1).await), [(2.0, 3.0)]);
    let all_read = async {
        while stream.metrics().messages < 3 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, all_read).await.unwrap();
    stream.stop().await.unwrap();
    for (at, n) in [(2900, 4), (3500, 5)] {
        source.push(json!({ "at": at, "n": n })).await.unwrap();
    }
    let stream = counting(&world, "sums").await;
    assert_eq!(
        counted(&until(&world, "sink", 1).await),
        [(2.0, 7.0)],
        "with what was there before"
    );
    stream.stop().await.unwrap();
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn windows_of_the_time_of_arrival_close_though_nothing_more_comes() {
    let world = World::start().await;
    let stream = Stream::from(world.queen.queue("source"))
        .window_tumbling(1)
        .idle_flush_ms(50)
        .aggregate_count("count")
        .to(world.queen.queue("sink"))
        .run(&world.queen, options("arrivals"));
    let stream = stream.await.unwrap();
    world.queen.queue("source").push_many(0..4).await.unwrap();
    let windows = until(&world, "sink", 1).await;
    assert_eq!(windows[0]["count"].as_f64(), Some(4.0), "{windows:?}");
    stream.stop().await.unwrap();
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_end_by_silence_and_a_fold_is_ones_own() {
    let world = World::start().await;
    let stream = Stream::from(world.queen.queue("source"))
        .key_by(|it| it.text("word").unwrap_or_default().to_owned())
        .window_session(1)
        .event_time(at)
        .idle_flush_ms(0)
        .reduce(json!(0), |total, _| json!(total.as_i64().unwrap_or_default() + 1))
        .to(world.queen.queue("sink"))
        .run(&world.queen, options("sessions"));
    let stream = stream.await.unwrap();
    for (word, at) in [("a", 1000), ("b", 1100), ("a", 1500), ("a", 9000)] {
        world.queen.queue("source").push(json!({ "word": word, "at": at })).await.unwrap();
    }
    let mut sessions = until(&world, "sink", 2).await;
    sessions.sort_by_key(|it| it["value"].as_i64());
    assert_eq!(sessions, [json!({ "value": 1 }), json!({ "value": 2 })]);
    stream.stop().await.unwrap();
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gate_lets_through_in_order_what_its_state_allows() {
    let world = World::start().await;
    let source = world.queen.queue("source");
    let leases = QueueOptions {
        lease_time: Some(1),
        retry_limit: Some(50),
        retry_delay: Some(0),
        ..QueueOptions::default()
    };
    source.configure(leases).await.unwrap();
    source.push_many((0..6).map(|n| json!({ "n": n }))).await.unwrap();
    let stream = Stream::from(source)
        .gate(|_, ctx| {
            let second = (ctx.stream_time_ms / 1000) as f64;
            if ctx.num("second", 0.0) != second {
                ctx.set_num("second", second);
                ctx.set_num("taken", 0.0);
            }
            let taken = ctx.num("taken", 0.0) + 1.0;
            ctx.set_num("taken", taken);
            taken <= 2.0
        })
        .to(world.queen.queue("sink"))
        .run(&world.queen, options("gate"));
    let stream = stream.await.unwrap();
    let expected: Vec<Value> = (0..6).map(|n| json!({ "n": n })).collect();
    assert_eq!(until(&world, "sink", 6).await, expected);
    stream.stop().await.unwrap();
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chain_that_changed_is_refused_until_its_state_is_given_up() {
    let world = World::start().await;
    let nothing = |_, _| std::future::ready(Ok(()));
    let chain = || Stream::from(world.queen.queue("source"));
    let first = chain().map(|it| it.data.clone()).foreach(nothing);
    first.run(&world.queen, options("q")).await.unwrap().stop().await.unwrap();
    let refused = chain().filter(|_| true).foreach(nothing).run(&world.queen, options("q")).await;
    assert!(refused.unwrap_err().to_string().contains("different operator chain"));
    let again = chain().filter(|_| true).foreach(nothing);
    let again = again.run(&world.queen, options("q").reset(true)).await.unwrap();
    again.stop().await.unwrap();
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cycle_that_is_refused_is_tried_again_without_waiting_for_its_lease() {
    let world = World::start().await;
    let source = world.queen.queue("source");
    // A lease lasts longer than the test may.
    let leases =
        QueueOptions { lease_time: Some(600), retry_delay: Some(0), ..QueueOptions::default() };
    source.configure(leases).await.unwrap();
    source.push(1).await.unwrap();
    let looks = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&looks);
    let stream = Stream::from(source)
        .map(move |_| {
            let is_first = counted.fetch_add(1, Ordering::SeqCst) == 0;
            json!({ "text": "x".repeat(if is_first { 3_000_000 } else { 3 }) })
        })
        .to(world.queen.queue("sink"))
        .run(&world.queen, options("large"));
    let stream = stream.await.unwrap();
    assert_eq!(until(&world, "sink", 1).await, [json!({ "text": "xxx" })]);
    assert_eq!((looks.load(Ordering::SeqCst), stream.metrics().errors), (2, 1));
    stream.stop().await.unwrap();
    world.stop().await;
}
