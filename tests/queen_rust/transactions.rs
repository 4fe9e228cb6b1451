//! Transactions of the client: all of it or nothing.

use queen_mq::{AckStatus, Expiry, QueueOptions, TxnPushItem};
use serde_json::json;

use crate::world::World;
use crate::{PATIENCE, data};

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_moves_a_message_on_or_not_at_all() {
    let world = World::start().await;
    let (orders, paid) = (world.queen.queue("orders"), world.queen.queue("paid"));
    orders.push(1).await.unwrap();
    let held = orders.wait(false).pop().await.unwrap();
    let transaction = world.queen.transaction().ack_all(&held).push("paid", 10).unwrap();
    let done = transaction.commit().await.unwrap();
    assert!(done.success && done.results.len() == 2, "{done:?}");
    assert_eq!(data(&paid.wait(false).pop().await.unwrap()), [json!(10)]);
    // The lease is over, and with it everything that was to happen under it.
    let again = world.queen.transaction().ack_all(&held).push("paid", 11).unwrap();
    assert!(again.commit().await.is_err());
    assert!(world.queen.queue("paid").wait(false).pop().await.unwrap().is_empty());
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_takes_each_verdict() {
    let world = World::start().await;
    let queue = world.queen.queue("jobs").group("g").batch(10).poll_timeout(PATIENCE);
    let options =
        QueueOptions { retry_limit: Some(3), retry_delay: Some(0), ..QueueOptions::default() };
    queue.configure(options).await.unwrap();
    queue.push_many(0..4).await.unwrap();
    let held = queue.pop().await.unwrap();
    let verdicts = [AckStatus::Completed, AckStatus::Failed, AckStatus::Dlq, AckStatus::Retry];
    let acks = held.iter().zip(verdicts);
    let transaction = acks
        .fold(world.queen.transaction(), |it, (message, verdict)| it.ack_with(message, verdict));
    let done = transaction.commit().await.unwrap();
    assert!(done.success && done.results.len() == 4, "{done:?}");
    assert_eq!(data(&queue.pop().await.unwrap()), [json!(1), json!(3)]);
    let dead = queue.dlq(None, None).await.unwrap();
    assert_eq!((dead.total, &dead.messages[0].data), (1, &json!(2)));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_keeps_ids_partitions_and_traces() {
    let world = World::start().await;
    let trace = "4bf92f35-77b3-4da6-a3ce-929d0e0e4736";
    let item = |payload: u64| TxnPushItem {
        partition: Some("p".into()),
        transaction_id: Some("once".into()),
        trace_id: Some(trace.into()),
        ..TxnPushItem::new("paid", json!(payload))
    };
    for payload in [1, 2] {
        let transaction = world.queen.transaction().push_item(item(payload)).unwrap();
        assert!(transaction.commit().await.unwrap().success, "a duplicate is told, not refused");
    }
    let popped = world.queen.queue("paid").batch(10).wait(false).pop().await.unwrap();
    assert_eq!(data(&popped), [json!(1)]);
    assert_eq!((popped[0].partition.as_str(), popped[0].transaction_id.as_str()), ("p", "once"));
    assert_eq!(popped[0].trace_id.as_deref(), Some(trace));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_and_timers_that_ride_along_are_refused_with_the_whole() {
    let world = World::start().await;
    let transaction = world.queen.transaction().push("paid", 1).unwrap();
    let ttl = Expiry::seconds(60);
    let refused = transaction.kv_put_if_absent("ns", "key", json!(true), ttl).unwrap();
    let refused = refused.commit().await.unwrap_err();
    assert_eq!(refused.status(), Some(400), "{refused:?}");
    assert!(refused.to_string().contains("kv operations in a transaction"), "{refused}");
    assert!(world.queen.queue("paid").wait(false).pop().await.unwrap().is_empty());
    world.stop().await;
}
