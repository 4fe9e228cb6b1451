//! What queues and consumers are told to do: delays, windows, sizes, side by side.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use queen_mq::{Cancel, QueueOptions, StopReason, TraceRequest};
use serde_json::{Value, json};

use crate::world::World;
use crate::{PATIENCE, count_to, data};

#[tokio::test(flavor = "multi_thread")]
async fn many_partitions_come_in_one_pop_under_one_lease() {
    let world = World::start().await;
    let queue = || world.queen.queue("orders").wait(false);
    for partition in 0..5 {
        queue().partition(format!("p{partition}")).push_many(0..3).await.unwrap();
    }
    let messages = queue().batch(100).partitions(5).pop().await.unwrap();
    let leases: BTreeSet<&str> = messages.iter().map(|it| it.lease_id.as_str()).collect();
    assert_eq!((messages.len(), leases.len()), (15, 1));
    for partition in 0..5 {
        let name = format!("p{partition}");
        let its = messages.iter().filter(|it| it.partition == name).map(|it| it.data.clone());
        assert_eq!(its.collect::<Vec<_>>(), count_to(3), "{name}");
    }
    let renewed = world.queen.admin().renew_lease(&messages[0].lease_id, Some(90)).await.unwrap();
    assert!(renewed.success, "{renewed:?}");
    let acked = world.queen.ack_all(&messages).await.unwrap();
    assert!(acked.iter().all(|it| it.success), "{acked:?}");
    assert!(queue().partitions(5).pop().await.unwrap().is_empty());
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn consumers_side_by_side_keep_the_order_of_each_partition() {
    let world = World::start().await;
    for partition in 0..8 {
        let queue = world.queen.queue("orders").partition(format!("p{partition}"));
        queue.push_many(0..25).await.unwrap();
    }
    let seen = Arc::new(Mutex::new(BTreeMap::<String, Vec<Value>>::new()));
    // The first two handlers wait for each other, so that they are at work at the same time.
    let both = Arc::new(tokio::sync::Barrier::new(2));
    let first = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let notes = Arc::clone(&seen);
    let queue = world.queen.queue("orders").group("workers");
    let consumer = queue.clone().concurrency(4).batch(10).partitions(1).limit(200);
    let consumer = consumer.poll_timeout(Duration::from_secs(2));
    let consuming = consumer.consume(move |message| {
        let (both, notes) = (Arc::clone(&both), Arc::clone(&notes));
        let waits = first.fetch_add(1, std::sync::atomic::Ordering::SeqCst) < 2;
        async move {
            if waits {
                tokio::time::timeout(PATIENCE, both.wait()).await.map_err(|it| it.to_string())?;
            }
            notes.lock().unwrap().entry(message.partition).or_default().push(message.data);
            Ok::<_, String>(())
        }
    });
    let summary = tokio::time::timeout(PATIENCE * 2, consuming).await.unwrap().unwrap();
    assert_eq!((summary.acked, summary.nacked), (200, 0));
    let seen = seen.lock().unwrap().clone();
    assert_eq!(seen.len(), 8);
    assert!(seen.values().all(|its| *its == count_to(25)), "{seen:?}");
    assert!(queue.wait(false).pop().await.unwrap().is_empty());
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_that_fails_is_tried_again_and_then_its_message_is_buried() {
    let world = World::start().await;
    let queue = world.queen.queue("jobs");
    let options =
        QueueOptions { retry_limit: Some(1), retry_delay: Some(0), ..QueueOptions::default() };
    queue.configure(options).await.unwrap();
    queue.push_many(["poison", "fine"]).await.unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let notes = Arc::clone(&seen);
    let consumer = queue.clone().batch(1).limit(3).poll_timeout(Duration::from_secs(2));
    let consuming = consumer.consume(move |message| {
        let is_poison = message.data == "poison";
        notes.lock().unwrap().push(message.data);
        std::future::ready(if is_poison { Err("no luck") } else { Ok(()) })
    });
    let summary = tokio::time::timeout(PATIENCE, consuming).await.unwrap().unwrap();
    assert_eq!((summary.acked, summary.nacked), (1, 2));
    assert_eq!(*seen.lock().unwrap(), ["poison", "poison", "fine"]);
    assert_eq!(queue.dlq(None, None).await.unwrap().messages[0].data, "poison");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_ends_when_nothing_comes_or_it_is_told_to() {
    let world = World::start().await;
    let handler = |_| std::future::ready(Ok::<_, String>(()));
    let queue = world.queen.queue("quiet").poll_timeout(Duration::from_millis(200));
    let idle = queue.clone().idle(Duration::from_millis(500));
    let summary = tokio::time::timeout(PATIENCE, idle.consume(handler)).await.unwrap().unwrap();
    assert_eq!(summary.stopped_by, StopReason::Idle);
    let cancel = Cancel::new();
    let consumer = queue.clone().cancel(cancel.clone());
    let consuming = tokio::spawn(async move { consumer.consume(handler).await });
    cancel.cancel();
    let summary = tokio::time::timeout(PATIENCE, consuming).await.unwrap().unwrap().unwrap();
    assert_eq!(summary.stopped_by, StopReason::Cancelled);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn delayed_messages_and_those_of_a_window_come_when_their_time_has_come() {
    let world = World::start().await;
    let with = |name: &str| world.queen.queue(name).batch(10).poll_timeout(PATIENCE);
    let delayed = QueueOptions { delayed_processing: Some(1), ..QueueOptions::default() };
    with("delayed").configure(delayed).await.unwrap();
    let window = QueueOptions { window_buffer: Some(1), ..QueueOptions::default() };
    with("window").configure(window).await.unwrap();
    let pushed = Instant::now();
    with("delayed").push(1).await.unwrap();
    assert_eq!(data(&with("delayed").pop().await.unwrap()), [json!(1)]);
    assert!(pushed.elapsed() >= Duration::from_secs(1), "{:?}", pushed.elapsed());
    let mut last = Instant::now();
    for number in 0..3 {
        last = Instant::now();
        with("window").push(number).await.unwrap();
    }
    assert_eq!(data(&with("window").pop().await.unwrap()), count_to(3), "all at once");
    assert!(last.elapsed() >= Duration::from_secs(1), "{:?}", last.elapsed());
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_lasts_as_long_as_its_consumer_says_and_one_that_runs_out_is_an_attempt() {
    let world = World::start().await;
    let queue = || world.queen.queue("jobs").poll_timeout(PATIENCE);
    queue().push(1).await.unwrap();
    let first = queue().lease_seconds(1).pop().await.unwrap().remove(0);
    // The queue's own leases last five minutes.
    let second = queue().pop().await.unwrap().remove(0);
    assert_eq!((&first.id, first.lease_id == second.lease_id), (&second.id, false));
    let late = world.queen.ack(&first).await.unwrap();
    assert_eq!((late.success, late.error.as_deref()), (false, Some("Invalid or expired lease")));
    let shown = world.queen.admin().message(&first.partition_id, &first.transaction_id).await;
    assert_eq!(shown.unwrap()["consumerGroups"][0]["attempts"], json!(1));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn large_payloads_come_back_as_they_were_and_too_large_ones_are_refused() {
    let world = World::start().await;
    let queue = world.queen.queue("large").batch(10).wait(false);
    let payloads: Vec<Value> =
        (0..6).map(|n| json!({ "n": n, "text": "ü".repeat(200_000) })).collect();
    queue.push_many(payloads.clone()).await.unwrap();
    let popped = queue.pop().await.unwrap();
    assert!(data(&popped) == payloads, "2.4 MB in one push");
    world.queen.ack_all(&popped).await.unwrap();
    let whole = json!({ "text": "ü".repeat(1_000_000), "end": true });
    queue.push(whole.clone()).await.unwrap();
    let popped = queue.pop().await.unwrap();
    assert!(data(&popped) == [whole], "2 MB in one message");
    world.queen.ack_all(&popped).await.unwrap();
    let refused = queue.push("x".repeat(5_000_000)).await.unwrap_err();
    assert_eq!(refused.status(), Some(413), "{refused:?}");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pop_that_leaves_its_size_to_the_server_is_told_what_it_chose() {
    let world = World::start().await;
    let queue = world.queen.queue("orders").wait(false);
    queue.push_many(0..3).await.unwrap();
    let popped = queue.pop_result().await.unwrap();
    assert_eq!(data(&popped.messages), count_to(3));
    let sizes = popped.autopilot.unwrap();
    assert!(sizes.batch >= 3 && sizes.partitions >= 1, "{sizes:?}");
    queue.push_many(0..3).await.unwrap();
    world.queen.ack_all(&popped.messages).await.unwrap();
    let one = queue.autopilot(false).pop_result().await.unwrap();
    assert_eq!((data(&one.messages), one.autopilot.is_none()), (count_to(1), true));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_traced_is_found_by_message_and_by_name() {
    let world = World::start().await;
    let (admin, queue) = (world.queen.admin(), world.queen.queue("orders").wait(false));
    queue.push(1).await.unwrap();
    let message = queue.pop().await.unwrap().remove(0);
    let trace = TraceRequest {
        transaction_id: message.transaction_id.clone(),
        partition_id: message.partition_id.clone(),
        consumer_group: message.consumer_group.clone(),
        trace_names: Some(vec!["order-7".into()]),
        event_type: "step".into(),
        data: json!({ "at": "step" }),
    };
    assert!(admin.record_trace(&trace).await.unwrap().success);
    let traces = admin.traces_for_message(&message.partition_id, &message.transaction_id).await;
    assert_eq!(traces.unwrap()["traces"][0]["event_type"], "step");
    let named = admin.traces_by_name("order-7", &[]).await.unwrap();
    assert_eq!(
        (&named["total"], &named["traces"][0]["data"]),
        (&json!(1), &json!({ "at": "step" }))
    );
    assert_eq!(admin.trace_names(&[]).await.unwrap()["trace_names"][0]["trace_name"], "order-7");
    world.stop().await;
}
