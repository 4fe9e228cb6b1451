//! The unmodified crate `queen-mq` against a whole server, its base URL ending in `/queen`: every route
//! that both have, and by name every route that only the client has.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test may fail where it stands, and tells its figures"
)]

mod manual;
mod missing;
mod queues;
mod streams;
mod tokens;
mod transactions;
mod wire_forms;
mod world;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use queen_mq::{
    AckStatus, BufferOptions, Message, PushItem, PushStatus, QueueOptions, SeekRequest, StopReason,
    SubscriptionMode,
};
use serde_json::{Value, json};
use world::World;

/// How long anything may take that is expected to happen; never how long it does take.
const PATIENCE: Duration = Duration::from_secs(30);

fn data(messages: &[Message]) -> Vec<Value> {
    messages.iter().map(|message| message.data.clone()).collect()
}

fn count_to(end: u64) -> Vec<Value> {
    (0..end).map(Value::from).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_is_created_with_its_options_and_deleted() {
    let world = World::start().await;
    let queue = world.queen.queue("orders");
    let options = QueueOptions {
        lease_time: Some(10),
        retry_limit: Some(2),
        priority: Some(5),
        ..QueueOptions::default()
    };
    let made = queue.configure(options).await.unwrap();
    assert_eq!(made["configured"], true);
    assert_eq!(
        (&made["options"]["leaseTime"], &made["options"]["retryLimit"]),
        (&json!(10), &json!(2))
    );
    let listed = world.queen.admin().list_queues(&[]).await.unwrap();
    assert_eq!(listed["queues"][0]["name"], "orders");
    let gone = queue.delete().await.unwrap();
    assert_eq!((&gone["deleted"], &gone["existed"]), (&json!(true), &json!(true)));
    assert_eq!(queue.delete().await.unwrap()["existed"], false);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_pushed_is_popped_and_acknowledged_one_by_one_and_together() {
    let world = World::start().await;
    let queue = world.queen.queue("orders").batch(10).wait(false);
    let payloads =
        [json!({ "n": 1, "text": "é😀" }), json!([1, null, 2.5]), Value::Null, json!("x")];
    let pushed = queue.push_many(payloads.clone()).await.unwrap();
    assert!(pushed.iter().all(|it| it.status == PushStatus::Queued), "{pushed:?}");
    let messages = queue.pop().await.unwrap();
    assert_eq!(data(&messages), payloads);
    for (at, (message, pushed)) in messages.iter().zip(&pushed).enumerate() {
        assert_eq!((&message.id, pushed.index), (&pushed.message_id, at));
        assert_eq!(message.transaction_id, pushed.transaction_id);
        assert_eq!((message.partition.as_str(), pushed.queue_name.as_str()), ("Default", "orders"));
        assert!(!message.lease_id.is_empty() && message.created_at.ends_with('Z'), "{message:?}");
    }
    let acked = world.queen.ack(&messages[0]).await.unwrap();
    assert!(acked.success && !acked.noop && !acked.lease_released, "{acked:?}");
    let again = world.queen.ack(&messages[0]).await.unwrap();
    assert!(again.success && again.noop, "a verdict that changes nothing says so: {again:?}");
    let acked = world.queen.ack_all(&messages[1..]).await.unwrap();
    assert!(acked.iter().all(|it| it.success && !it.noop && !it.dlq), "{acked:?}");
    assert!(acked[2].lease_released, "{acked:?}");
    assert!(queue.pop().await.unwrap().is_empty());
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_asks_for_encryption_is_as_any_other_to_its_client() {
    let world = World::start().await;
    let queue = world.queen.queue("secrets").batch(10).wait(false);
    let options = QueueOptions { encryption_enabled: Some(true), ..QueueOptions::default() };
    let made = queue.configure(options).await.unwrap();
    assert_eq!(made["options"]["encryptionEnabled"], true);
    let payloads = [json!({ "secret": "é😀", "n": 1.50 }), Value::Null, json!([1, 2])];
    queue.push_many(payloads.clone()).await.unwrap();
    let messages = queue.pop().await.unwrap();
    assert_eq!(data(&messages), payloads);
    assert!(world.queen.ack_all(&messages).await.unwrap().iter().all(|it| it.success));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_id_stands_once() {
    let world = World::start().await;
    let queue = world.queen.queue("payments").wait(false).batch(10);
    let item = |payload: u64| PushItem::new("payments", json!(payload)).transaction_id("tx-1");
    let first = queue.push_items(vec![item(1)]).await.unwrap();
    let again = queue.push_items(vec![item(2)]).await.unwrap();
    assert_eq!((first[0].status, again[0].status), (PushStatus::Queued, PushStatus::Duplicate));
    assert_eq!(first[0].message_id, again[0].message_id);
    assert_eq!(data(&queue.pop().await.unwrap()), [json!(1)]);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_keep_their_order_and_are_popped_by_name_or_by_any() {
    let world = World::start().await;
    let queue = || world.queen.queue("orders").wait(false);
    for partition in ["a", "b/ü"] {
        queue().partition(partition).push_many(0..50).await.unwrap();
    }
    let named = queue().partition("b/ü").batch(50).pop().await.unwrap();
    assert_eq!(data(&named), count_to(50));
    assert!(named.iter().all(|message| message.partition == "b/ü"));
    let rest = queue().batch(100).partitions(10).pop().await.unwrap();
    assert_eq!(data(&rest), count_to(50), "the leased partition is not given twice");
    assert!(rest.iter().all(|message| message.partition == "a"));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn queues_are_found_by_namespace_and_task() {
    let world = World::start().await;
    let queue = world.queen.queue("orders").namespace("shop").task("bill");
    queue.create().await.unwrap();
    queue.push(1).await.unwrap();
    let found = world.queen.queue_opt(None).namespace("shop").wait(false).pop().await.unwrap();
    assert_eq!(data(&found), [json!(1)]);
    let none = world.queen.queue_opt(None).task("other").wait(false).pop().await.unwrap();
    assert!(none.is_empty());
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_get_every_message_each_from_where_they_begin() {
    let world = World::start().await;
    let queue = |group: &str| world.queen.queue("news").group(group).batch(10).wait(false);
    queue("one").push_many(0..5).await.unwrap();
    for group in ["one", "two"] {
        let messages = queue(group).pop().await.unwrap();
        assert_eq!(data(&messages), count_to(5), "{group}");
        assert!(messages.iter().all(|message| message.consumer_group == group));
        let acked = world.queen.ack_all(&messages).await.unwrap();
        assert!(acked.iter().all(|it| it.success), "{acked:?}");
        assert!(queue(group).pop().await.unwrap().is_empty());
    }
    let late = || queue("late").subscription_mode(SubscriptionMode::New);
    assert!(late().pop().await.unwrap().is_empty(), "it begins with what comes");
    queue("one").push(9).await.unwrap();
    assert_eq!(data(&late().pop().await.unwrap()), [json!(9)]);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_begins_at_a_time_is_sent_elsewhere_and_forgotten() {
    let world = World::start().await;
    let queue = |group: &str| world.queen.queue("news").group(group).batch(10).wait(false);
    queue("one").push(1).await.unwrap();
    tokio::time::sleep(Duration::from_millis(20)).await;
    let at = jiff::Timestamp::now().to_string();
    queue("one").push(2).await.unwrap();
    let late = queue("late").subscription_from(at.clone()).pop().await.unwrap();
    assert_eq!(data(&late), [json!(2)]);
    let admin = world.queen.admin();
    let to = |timestamp: &str| SeekRequest { timestamp: Some(timestamp.into()), position: None };
    let sought = admin.seek_consumer_group("late", "news", &to("2020-01-01T00:00:00Z")).await;
    assert_eq!(sought.unwrap()["partitionsUpdated"], 1);
    assert_eq!(data(&queue("late").pop().await.unwrap()), [json!(1), json!(2)]);
    let latest = SeekRequest { timestamp: None, position: Some("latest".into()) };
    let sought = admin.seek_consumer_group("late", "news", &latest).await.unwrap();
    assert_eq!(sought["seekToEnd"], true);
    assert!(queue("late").pop().await.unwrap().is_empty());
    let changed = admin.set_subscription_timestamp("late", at).await.unwrap();
    assert_eq!(changed["rowsUpdated"], 1);
    let deleted = admin.delete_consumer_group("late", false).await.unwrap();
    assert_eq!(
        (&deleted["deletedPartitions"], &deleted["metadataDeleted"]),
        (&json!(1), &json!(false))
    );
    assert_eq!(data(&queue("late").pop().await.unwrap()), [json!(2)], "as it is remembered");
    let deleted = admin.delete_consumer_group_for_queue("late", "news", true).await.unwrap();
    assert_eq!(deleted["queueName"], "news");
    assert_eq!(data(&queue("late").pop().await.unwrap()), [json!(1), json!(2)]);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lag_is_told_by_group_and_by_partition() {
    let world = World::start().await;
    let queue = || world.queen.queue("orders").group("workers").wait(false);
    for partition in ["a", "b"] {
        queue().partition(partition).push_many(0..3).await.unwrap();
    }
    let messages = queue().partition("a").batch(2).pop().await.unwrap();
    world.queen.ack_all(&messages).await.unwrap();
    let listed = world.queen.admin().list_consumer_groups().await.unwrap();
    let found = &listed[0];
    assert_eq!((&found["name"], &found["queueName"]), (&json!("workers"), &json!("orders")));
    assert_eq!((&found["totalLag"], &found["partitionsWithLag"]), (&json!(4), &json!(2)));
    let details = world.queen.admin().consumer_group("workers").await.unwrap();
    assert_eq!(details["orders"]["partitions"].as_array().unwrap().len(), 2);
    let lagging = world.queen.admin().lagging_consumers(0).await.unwrap();
    assert_eq!(lagging.as_array().unwrap().len(), 2);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_gets_everything_once_and_in_order() {
    let world = World::start().await;
    let queue = world.queen.queue("orders").group("workers");
    queue.push_many(0..100).await.unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let notes = Arc::clone(&seen);
    let consumer = queue.clone().batch(10).limit(100).poll_timeout(Duration::from_secs(5));
    let consuming = consumer.consume(move |message| {
        notes.lock().unwrap().push(message.data);
        std::future::ready(Ok::<_, std::convert::Infallible>(()))
    });
    let summary = tokio::time::timeout(PATIENCE, consuming).await.unwrap().unwrap();
    assert_eq!((summary.acked, summary.nacked), (100, 0));
    assert_eq!(summary.stopped_by, StopReason::Limit);
    assert_eq!(*seen.lock().unwrap(), count_to(100));
    assert!(queue.wait(false).pop().await.unwrap().is_empty());
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_of_batches_that_holds_them_long_renews_its_lease() {
    let world = World::start().await;
    let queue = world.queen.queue("slow").group("workers");
    queue.configure(QueueOptions { lease_time: Some(2), ..QueueOptions::default() }).await.unwrap();
    queue.push_many(0..10).await.unwrap();
    let consumer = queue.clone().batch(10).limit(10).renew_lease(Duration::from_millis(500));
    let consuming = consumer.consume_batch(|messages| async move {
        assert_eq!(data(&messages), count_to(10));
        // Twice as long as the lease lasts by itself.
        tokio::time::sleep(Duration::from_secs(4)).await;
        Ok::<_, std::convert::Infallible>(())
    });
    let summary = tokio::time::timeout(PATIENCE, consuming).await.unwrap().unwrap();
    assert_eq!(summary.acked, 10);
    assert!(queue.wait(false).pop().await.unwrap().is_empty(), "the acks stood");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_consumer_gets_what_comes_later() {
    let world = World::start().await;
    let queue = world.queen.queue("later");
    let waiting = tokio::spawn({
        let queue = queue.clone().poll_timeout(PATIENCE);
        async move { queue.pop().await.unwrap() }
    });
    queue.push("later").await.unwrap();
    let messages = tokio::time::timeout(PATIENCE, waiting).await.unwrap().unwrap();
    assert_eq!(data(&messages), [json!("later")]);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_message_comes_again_and_then_lies_among_the_dead_letters() {
    let world = World::start().await;
    let queue = world.queen.queue("jobs").poll_timeout(PATIENCE);
    let options =
        QueueOptions { retry_limit: Some(1), retry_delay: Some(0), ..QueueOptions::default() };
    queue.configure(options).await.unwrap();
    queue.push(json!({ "poison": true })).await.unwrap();
    for is_last in [false, true] {
        let messages = queue.pop().await.unwrap();
        assert_eq!(data(&messages), [json!({ "poison": true })]);
        let refused = world.queen.nack(&messages[0], "no luck").await.unwrap();
        assert!(refused.success && !refused.noop, "{refused:?}");
        assert_eq!(refused.dlq, is_last, "{refused:?}");
    }
    let dead = queue.dlq(None, None).await.unwrap();
    assert_eq!((dead.total, &dead.messages[0].data), (1, &json!({ "poison": true })));
    assert!(serde_json::to_string(&dead.messages[0]).unwrap().contains("no luck"), "{dead:?}");
    queue.push("at once").await.unwrap();
    let messages = queue.pop().await.unwrap();
    let buried = world.queen.ack_with(&messages[0], AckStatus::Dlq, None).await.unwrap();
    assert!(buried.success && buried.dlq, "{buried:?}");
    queue.push("again").await.unwrap();
    let messages = queue.pop().await.unwrap();
    let retried = world.queen.ack_with(&messages[0], AckStatus::Retry, None).await.unwrap();
    assert!(retried.success && !retried.dlq && !retried.noop, "{retried:?}");
    assert_eq!(data(&queue.pop().await.unwrap()), [json!("again")]);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_is_renewed_and_one_that_is_gone_is_not() {
    let world = World::start().await;
    let queue = world.queen.queue("orders").wait(false);
    queue.push(1).await.unwrap();
    let message = queue.pop().await.unwrap().remove(0);
    let renewed = world.queen.admin().renew_lease(&message.lease_id, Some(90)).await.unwrap();
    assert!(renewed.success && renewed.renewed == 1, "{renewed:?}");
    assert!(renewed.expires_at().unwrap().ends_with('Z'), "{renewed:?}");
    assert!(world.queen.renew(&message, None).await.unwrap());
    assert!(world.queen.ack(&message).await.unwrap().success);
    assert!(!world.queen.renew(&message, None).await.unwrap(), "it is over");
    let stale = Message { transaction_id: "unknown".into(), ..message };
    let refused = world.queen.ack(&stale).await.unwrap();
    assert!(!refused.success && !refused.noop && refused.error.is_some(), "{refused:?}");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_committed_on_delivery_is_not_given_again() {
    let world = World::start().await;
    let queue = world.queen.queue("once").wait(false);
    queue.push(1).await.unwrap();
    let messages = queue.clone().commit_on_delivery(true).pop().await.unwrap();
    assert_eq!((data(&messages), messages[0].lease_id.as_str()), (vec![json!(1)], ""));
    assert!(queue.pop().await.unwrap().is_empty());
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_buffer_of_the_client_is_flushed() {
    let world = World::start().await;
    let options = BufferOptions {
        message_count: 10,
        time: Duration::from_secs(600),
        ..BufferOptions::default()
    };
    let queue = world.queen.queue("buffered").batch(100).wait(false);
    for number in 0..25 {
        queue.clone().buffer(options).push(number).await.unwrap();
    }
    world.queen.close().await.unwrap();
    assert_eq!(data(&queue.pop().await.unwrap()), count_to(25));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn health_is_told_and_a_name_that_may_not_be_is_refused_as_an_error() {
    let world = World::start().await;
    assert_eq!(world.queen.admin().health().await.unwrap()["status"], "healthy");
    assert!(world.queen.admin().metrics().await.unwrap().contains("\"push\""));
    let refused = world.queen.queue("x".repeat(10_000)).push(1).await.unwrap_err();
    assert_eq!(refused.status(), Some(400), "{refused:?}");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn single_messages_dead_letters_and_traces_are_reached_by_their_calls() {
    let world = World::start().await;
    let admin = world.queen.admin();
    let queue = world.queen.queue("shop.orders").wait(false);
    queue.push(json!({ "n": 1 })).await.unwrap();
    let message = queue.pop().await.unwrap().remove(0);
    let (partition, id) = (message.partition_id.clone(), message.transaction_id.clone());
    let one = admin.message(&partition, &id).await.unwrap();
    assert_eq!((&one["payload"], &one["status"]), (&json!({ "n": 1 }), &json!("processing")));
    let listed = admin.list_messages(&[("queue", "shop.orders".into())]).await.unwrap();
    assert_eq!((&listed["total"], &listed["mode"]["type"]), (&json!(1), &json!("queue")));
    world.queen.ack_with(&message, AckStatus::Dlq, None).await.unwrap();
    let retried = admin.retry_message(&partition, &id).await.unwrap();
    assert_eq!(retried["success"], json!(true), "{retried}");
    assert_eq!(data(&queue.pop().await.unwrap()), [json!({ "n": 1 })]);
    let deleted = admin.delete_message(&partition, &id).await.unwrap();
    assert_eq!(deleted["success"], json!(true), "{deleted}");
    assert_eq!(admin.message(&partition, &id).await.unwrap_err().status(), Some(404));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn overviews_namespaces_and_figures_are_told() {
    let world = World::start().await;
    let admin = world.queen.admin();
    let queue = world.queen.queue("shop.orders").wait(false);
    queue.push(1).await.unwrap();
    let overview = admin.overview().await.unwrap();
    assert_eq!((&overview["queues"], &overview["messages"]["total"]), (&json!(1), &json!(1)));
    assert_eq!(admin.namespaces().await.unwrap()["namespaces"][0]["namespace"], "shop");
    assert_eq!(admin.tasks().await.unwrap()["tasks"][0]["task"], "orders");
    let partitions = admin.partitions(&[("queue", "shop.orders".into())]).await.unwrap();
    assert_eq!(partitions["partitions"][0]["name"], "Default");
    assert_eq!(admin.queue_depth("shop.orders", None).await.unwrap()["pending"], json!(1));
    assert_eq!(admin.status(&[]).await.unwrap()["messages"]["total"], json!(1));
    assert_eq!(admin.queue_stats(&[]).await.unwrap()["queues"][0]["name"], "shop.orders");
    let detail = admin.queue_detail("shop.orders", &[]).await.unwrap();
    assert_eq!(detail["totals"]["total"], json!(1));
    admin.refresh_consumer_stats().await.unwrap();
    for figures in [
        admin.analytics(&[]).await.unwrap(),
        admin.system_metrics(&[]).await.unwrap(),
        admin.worker_metrics(&[]).await.unwrap(),
    ] {
        assert!(figures.is_object(), "{figures}");
    }
    assert_eq!(admin.trace_names(&[]).await.unwrap()["total"], json!(0));
    world.stop().await;
}
