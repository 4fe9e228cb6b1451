//! Streams of the client over a server without claims: it falls back to what older servers have.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use queen_mq::streams::{LatePolicy, RunOptions, Stream, StreamHandle};
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
            json!({ "text": "x".repeat(if is_first { 5_000_000 } else { 3 }) })
        })
        .to(world.queen.queue("sink"))
        .run(&world.queen, options("large"));
    let stream = stream.await.unwrap();
    assert_eq!(until(&world, "sink", 1).await, [json!({ "text": "xxx" })]);
    assert_eq!((looks.load(Ordering::SeqCst), stream.metrics().errors), (2, 1));
    stream.stop().await.unwrap();
    world.stop().await;
}

/// Pushes messages with a time and a number of their own.
async fn push_at(world: &World, messages: &[(i64, i64)]) {
    for (at, n) in messages {
        world.queen.queue("source").push(json!({ "at": at, "n": n })).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_aggregate_is_computed_and_two_queries_of_one_queue_keep_apart() {
    let world = World::start().await;
    let aggregates = Stream::from(world.queen.queue("source"))
        .window_tumbling(1)
        .event_time(at)
        .idle_flush_ms(0)
        .aggregate_min("min", |it| it.number("n"))
        .aggregate_max("max", |it| it.number("n"))
        .aggregate_avg("avg", |it| it.number("n"))
        .to(world.queen.queue("aggregates"))
        .run(&world.queen, options("aggregates"))
        .await
        .unwrap();
    let sums = counting(&world, "sums").await;
    push_at(&world, &[(1000, 5), (1200, 1), (1400, 9), (1500, 5), (3000, 0)]).await;
    let window = until(&world, "aggregates", 1).await.remove(0);
    let numbers = ["min", "max", "avg"].map(|name| window[name].as_f64());
    assert_eq!(numbers, [Some(1.0), Some(9.0), Some(5.0)], "{window}");
    assert_eq!(counted(&until(&world, "sink", 1).await), [(4.0, 20.0)]);
    aggregates.stop().await.unwrap();
    sums.stop().await.unwrap();
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sliding_window_counts_a_message_in_each_window_that_it_is_in() {
    let world = World::start().await;
    let stream = Stream::from(world.queen.queue("source"))
        .window_sliding(2, 1)
        .event_time(at)
        .idle_flush_ms(0)
        .aggregate_count("count")
        .to(world.queen.queue("sink"))
        .run(&world.queen, options("sliding"))
        .await
        .unwrap();
    push_at(&world, &[(1500, 1), (1600, 2), (9000, 0)]).await;
    let windows = until(&world, "sink", 2).await;
    let counts: Vec<_> = windows.iter().map(|it| it["count"].as_f64().unwrap()).collect();
    assert_eq!(counts, [2.0, 2.0], "{windows:?}");
    stream.stop().await.unwrap();
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_late_is_dropped_or_counted_as_the_query_says() {
    let world = World::start().await;
    for (policy, sums, late) in
        [(LatePolicy::Include, [1.0, 7.0], 0), (LatePolicy::Drop, [1.0, 4.0], 1)]
    {
        let name = format!("{policy:?}");
        let source = world.queen.queue(format!("source-{name}"));
        let stream = Stream::from(source.clone())
            .window_tumbling(1)
            .event_time(at)
            .on_late(policy)
            .idle_flush_ms(0)
            .aggregate_sum("sum", |it| it.number("n"))
            .to(world.queen.queue(format!("sink-{name}")))
            .run(&world.queen, options(&name))
            .await
            .unwrap();
        // The third is late for a window that the second one closed.
        for (at, n) in [(1000, 1), (9000, 4), (1200, 7), (20_000, 0)] {
            source.push(json!({ "at": at, "n": n })).await.unwrap();
            if at == 9000 {
                let first = until(&world, &format!("sink-{name}"), 1).await;
                assert_eq!(first[0]["sum"].as_f64(), Some(sums[0]), "{first:?}");
            }
        }
        let more = if late == 0 { 2 } else { 1 };
        let rest = until(&world, &format!("sink-{name}"), more).await;
        assert!(rest.iter().any(|it| it["sum"].as_f64() == Some(sums[1])), "{name}: {rest:?}");
        assert_eq!(stream.metrics().late_events, late, "{name}");
        stream.stop().await.unwrap();
    }
    world.stop().await;
}
