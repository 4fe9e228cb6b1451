//! Groups, cursors and visibility: rows A1, A2, A4, A8, A9, A10 and A18.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::client::World;

/// How long anything may take that is expected to happen.
const PATIENCE: Duration = Duration::from_secs(60);

fn data(popped: &Value) -> Vec<i64> {
    let messages = popped["messages"].as_array().unwrap();
    messages.iter().map(|message| message["data"].as_i64().unwrap()).collect()
}

impl World {
    /// What a pop finds at once; nothing is an empty list.
    async fn pop(&self, queue: &str, query: &str) -> Value {
        let popped = self.get(&format!("/api/v1/pop/queue/{queue}?batch=100&{query}")).await;
        match popped.status {
            204 => json!({ "messages": [] }),
            200 => popped.json(),
            _ => panic!("{popped:?}"),
        }
    }

    async fn push_number(&self, queue: &str, partition: &str, number: i64) {
        let item = json!({ "queue": queue, "partition": partition, "payload": number });
        assert_eq!(self.push(json!([item])).await.status, 201);
    }

    async fn ack(&self, message: &Value, group: &str, lease: Option<&str>) -> Value {
        let ack = json!({
            "transactionId": message["transactionId"],
            "partitionId": message["partitionId"],
            "status": "completed",
            "consumerGroup": group,
            "leaseId": lease,
        });
        self.post("/queen/api/v1/ack", &ack).await.json()[0].clone()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a1_what_is_pushed_at_once_is_seen_in_the_order_of_its_sequence_and_never_skipped() {
    const PRODUCERS: i64 = 8;
    const EACH: i64 = 25;
    let world = std::sync::Arc::new(World::new().await);
    let producers = (0..PRODUCERS).map(|producer| {
        let world = std::sync::Arc::clone(&world);
        tokio::spawn(async move {
            for number in 0..EACH {
                world.push_number("q", "one", producer * EACH + number).await;
            }
        })
    });
    let producers: Vec<_> = producers.collect();
    let (mut seen, deadline) = (Vec::new(), Instant::now() + PATIENCE);
    while seen.len() < (PRODUCERS * EACH) as usize {
        assert!(Instant::now() < deadline, "{} of {}", seen.len(), PRODUCERS * EACH);
        // As fast as can be, so that it reads between any two of them.
        seen.extend(data(&world.pop("q", "consumerGroup=fast&autoAck=true").await));
    }
    for producer in producers {
        producer.await.unwrap();
    }
    assert_eq!(seen.iter().collect::<BTreeSet<_>>().len(), seen.len(), "none came twice");
    for producer in 0..PRODUCERS {
        let own: Vec<i64> = seen.iter().copied().filter(|it| it / EACH == producer).collect();
        assert_eq!(own, (producer * EACH..(producer + 1) * EACH).collect::<Vec<_>>());
    }
    // A group that comes later reads the very same order.
    let mut later = Vec::new();
    while later.len() < seen.len() {
        let more = data(&world.pop("q", "consumerGroup=later&autoAck=true").await);
        assert!(!more.is_empty(), "{} of {}", later.len(), seen.len());
        later.extend(more);
    }
    assert_eq!(later, seen);
}

#[tokio::test]
async fn a2_a_group_of_new_messages_that_comes_to_an_empty_queue_misses_none() {
    let world = World::new().await;
    world.post("/api/v1/configure", &json!({ "queue": "q" })).await;
    for start in ["subscriptionMode=new", "subscriptionMode=new-only", "subscriptionFrom=now"] {
        let group = start.replace('=', "-");
        assert!(data(&world.pop("q", &format!("consumerGroup={group}&{start}")).await).is_empty());
    }
    let world = world.restart().await;
    world.push_number("q", "a", 1).await;
    world.push_number("q", "b", 2).await;
    for group in ["subscriptionMode-new", "subscriptionMode-new-only", "subscriptionFrom-now"] {
        // Its first word counts, also where nothing is said or something else.
        let popped = world.pop("q", &format!("consumerGroup={group}&partitions=9")).await;
        let found: BTreeSet<i64> = data(&popped).into_iter().collect();
        assert_eq!(found, BTreeSet::from([1, 2]), "{group}");
    }
    let late = world.pop("q", "consumerGroup=late&subscriptionMode=new&partitions=9").await;
    assert!(data(&late).is_empty(), "it came after them");
}

#[tokio::test]
async fn a4_a_late_ack_moves_no_cursor_back_and_an_early_one_completes_nothing_before_it() {
    let world = World::new().await;
    for number in 0..5 {
        world.push_number("q", "Default", number).await;
    }
    let popped = world.pop("q", "consumerGroup=g").await;
    let messages = popped["messages"].as_array().unwrap();
    let lease = popped["leaseId"].as_str();
    for message in messages {
        assert_eq!(world.ack(message, "g", lease).await["success"], true);
    }
    assert!(data(&world.pop("q", "consumerGroup=g").await).is_empty());
    // Said again, without a lease, of the oldest.
    assert_eq!(world.ack(&messages[0], "g", None).await["success"], true);
    assert!(data(&world.pop("q", "consumerGroup=g").await).is_empty(), "nothing came back");
    world.push_number("q", "Default", 5).await;
    assert_eq!(data(&world.pop("q", "consumerGroup=g").await), [5]);
    // The last one first: those before it are still to be done.
    let other = world.pop("q", "consumerGroup=other").await;
    let last = other["messages"].as_array().unwrap().last().unwrap().clone();
    assert_eq!(world.ack(&last, "other", other["leaseId"].as_str()).await["success"], true);
    let retry = json!({
        "transactionId": other["messages"][0]["transactionId"],
        "partitionId": other["messages"][0]["partitionId"],
        "status": "retry", "consumerGroup": "other", "leaseId": other["leaseId"],
    });
    world.post("/queen/api/v1/ack", &retry).await;
    assert_eq!(data(&world.pop("q", "consumerGroup=other").await), [0, 1, 2, 3, 4]);
}

#[tokio::test]
async fn a8_new_only_means_new_and_a_start_that_cannot_be_read_is_refused_by_name() {
    let world = World::new().await;
    world.push_number("q", "Default", 1).await;
    let popped = world.pop("q", "consumerGroup=g&subscriptionMode=new-only").await;
    assert!(data(&popped).is_empty());
    for prefix in ["", "/queen"] {
        for from in ["yesterday", "2026-13-40T00:00:00Z", "-1"] {
            let path =
                format!("{prefix}/api/v1/pop/queue/q?consumerGroup=h&subscriptionFrom={from}");
            let (status, error, code) = world.get(&path).await.error();
            assert_eq!((status, code.as_str()), (400, "bad_value"), "{from}");
            assert!(error.contains("subscriptionFrom"), "{error}");
        }
    }
    // Nothing was remembered of the group that was refused.
    assert_eq!(data(&world.pop("q", "consumerGroup=h").await), [1]);
}

#[tokio::test]
async fn a9_a_pop_that_begins_after_a_push_was_answered_sees_it_without_waiting() {
    let world = World::new().await;
    for number in 0..50 {
        // A partition that is new, and one that is not, of a queue that is new the first time.
        let partition = if number % 2 == 0 { format!("p{number}") } else { "old".into() };
        world.push_number("q", &partition, number).await;
        let popped = world.pop("q", "consumerGroup=g&autoAck=true&wait=false").await;
        assert_eq!(data(&popped), [number]);
    }
}

#[tokio::test]
async fn a10_a_partition_that_was_idle_for_long_is_found_however_much_others_do() {
    let world = World::new().await;
    let group = "consumerGroup=g&partitions=100&autoAck=true";
    world.push_number("q", "idle", 0).await;
    assert_eq!(data(&world.pop("q", group).await), [0]);
    for round in 1..30 {
        world.push_number("q", "busy", round).await;
        assert_eq!(data(&world.pop("q", group).await), [round]);
        assert!(data(&world.pop("q", group).await).is_empty(), "an empty scan");
    }
    world.push_number("q", "idle", 99).await;
    assert_eq!(data(&world.pop("q", group).await), [99]);
    // After a seek and after a delete the next pop looks everywhere, too.
    let path = "/api/v1/consumer-groups/g/queues/q/seek";
    let sought = world.post(path, &json!({ "timestamp": "2020-01-01T00:00:00Z" })).await.json();
    assert_eq!(sought["partitionsUpdated"], 2);
    assert_eq!(data(&world.pop("q", group).await).len(), 31);
    assert_eq!(world.ask("DELETE", "/api/v1/consumer-groups/g", "").await.status, 200);
    assert_eq!(data(&world.pop("q", group).await).len(), 31);
}

#[tokio::test]
async fn a18_partitions_and_groups_whose_names_join_to_the_same_text_hold_nothing_from_each_other()
{
    let world = World::new().await;
    let pairs = [("ab", "c"), ("a", "bc"), ("abc", "x"), ("a", "bcx")];
    for (partition, _) in pairs {
        world.push_number("q", partition, 1).await;
    }
    for (partition, group) in pairs {
        let path = format!("/api/v1/pop/queue/q/partition/{partition}?consumerGroup={group}");
        let popped = world.get(&path).await;
        assert_eq!(popped.status, 200, "{partition} of {group} is held by another pair");
        assert_eq!(popped.json()["messages"][0]["partition"], *partition);
    }
}
