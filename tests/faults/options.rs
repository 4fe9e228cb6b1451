//! Options that are only echoed, attempts that are not counted, and what retention takes with it.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::client::World;

const POP: &str = "/api/v1/pop/queue/q";

async fn configure(world: &World, queue: &str, options: Value) {
    let body = json!({ "queue": queue, "namespace": "n", "options": options });
    assert_eq!(world.post("/api/v1/configure", &body).await.status, 200);
}

async fn push(world: &World, queue: &str, payloads: &[u64]) {
    let item = |payload: &u64| json!({ "queue": queue, "payload": payload });
    let items: Vec<Value> = payloads.iter().map(item).collect();
    assert_eq!(world.push(json!(items)).await.status, 201);
}

/// What a pop got; nothing where its answer has no body.
async fn pop(world: &World, path: &str) -> Vec<Value> {
    let answer = world.get(path).await;
    if answer.status == 204 {
        return Vec::new();
    }
    answer.json()["messages"].as_array().unwrap().clone()
}

fn data(messages: &[Value]) -> Vec<u64> {
    messages.iter().map(|message| message["data"].as_u64().unwrap()).collect()
}

async fn ack(world: &World, message: &Value, status: &str) {
    let body = json!({
        "transactionId": message["transactionId"], "partitionId": message["partitionId"],
        "leaseId": message["leaseId"], "status": status, "error": "because",
    });
    let acked = world.post("/api/v1/ack", &body).await.json();
    assert_eq!(acked[0]["success"], json!(true), "{acked}");
}

async fn dead(world: &World, queue: &str) -> Vec<Value> {
    let path = format!("/api/v1/dlq?queue={queue}");
    world.get(&path).await.json()["messages"].as_array().unwrap().clone()
}

#[tokio::test]
async fn a6_a_lease_that_runs_out_counts_as_an_attempt_until_there_is_a_dead_letter() {
    let world = World::new().await;
    configure(&world, "q", json!({ "leaseTime": 1, "retryLimit": 1 })).await;
    push(&world, "q", &[7, 8]).await;
    for attempt in 0..2 {
        let popped = pop(&world, &format!("{POP}?wait=true&timeout=20000")).await;
        assert_eq!((data(&popped), &popped[0]["retryCount"]), (vec![7], &json!(attempt)));
    }
    let popped = pop(&world, &format!("{POP}?wait=true&timeout=20000")).await;
    assert_eq!(data(&popped), [8]);
    let dead = dead(&world, "q").await;
    assert_eq!((dead.len(), &dead[0]["data"], &dead[0]["retryCount"]), (1, &json!(7), &json!(2)));
}

#[tokio::test]
async fn a7_a_retry_delay_delays_and_holds_up_what_is_behind_it() {
    let world = World::new().await;
    configure(&world, "q", json!({ "retryDelay": 600 })).await;
    push(&world, "q", &[1, 2]).await;
    let popped = pop(&world, POP).await;
    let failed_at = Instant::now();
    ack(&world, &popped[0], "failed").await;
    let again = pop(&world, &format!("{POP}?batch=9&wait=true&timeout=20000")).await;
    assert_eq!(data(&again), [1, 2]);
    assert!(failed_at.elapsed() >= Duration::from_millis(600), "{:?}", failed_at.elapsed());
}

#[tokio::test]
async fn a7_a_ttl_drops_what_is_older_and_only_where_somebody_asked_for_one() {
    let world = World::new().await;
    configure(&world, "q", json!({ "ttl": 1 })).await;
    configure(&world, "quiet", json!({})).await;
    push(&world, "q", &[1]).await;
    push(&world, "quiet", &[1]).await;
    sleep(Duration::from_millis(1_100)).await;
    assert!(pop(&world, &format!("{POP}?batch=9")).await.is_empty());
    assert_eq!(data(&pop(&world, "/api/v1/pop/queue/quiet").await), [1]);
    let figures = world.get("/metrics").await.json();
    assert_eq!(figures["delivery"]["removed_expired"], json!(1), "{figures}");
    assert_eq!(figures["delivery"]["removed_undelivered"], json!(1), "{figures}");
}

#[tokio::test]
async fn a7_a_higher_priority_is_served_first_and_a_low_one_does_not_starve() {
    let world = World::new().await;
    for (queue, priority) in [("low", -1), ("high", 10), ("middle", 5)] {
        configure(&world, queue, json!({ "priority": priority })).await;
        push(&world, queue, &[0; 40]).await;
    }
    let mut served = Vec::new();
    for _ in 0..40 {
        let popped = pop(&world, "/api/v1/pop?namespace=n&autoAck=true").await;
        served.push(popped[0]["queue"].as_str().unwrap().to_owned());
    }
    assert!(served[..16].iter().all(|queue| queue == "high"), "{served:?}");
    let count = |name: &str| served.iter().filter(|queue| *queue == name).count();
    assert!(count("low") >= 2 && count("middle") >= 2, "{served:?}");
    assert!(count("high") > 30, "{served:?}");
}

#[tokio::test]
async fn a7_a_full_queue_refuses_explicitly_and_whole_batches_and_takes_more_when_it_has_room() {
    let world = World::new().await;
    configure(&world, "q", json!({ "maxSize": 3 })).await;
    push(&world, "q", &[1, 2]).await;
    let two = json!([{ "queue": "q", "payload": 3 }, { "queue": "q", "payload": 4 }]);
    let refused = world.push(two).await;
    assert_eq!((refused.status, refused.json()["code"].as_str()), (429, Some("queue_full")));
    assert_eq!(refused.json()["retryable"], json!(true));
    let named = |id: &str| json!([{ "queue": "q", "payload": 5, "transactionId": id }]);
    assert_eq!(world.push(named("last")).await.status, 201, "one still fits");
    let again = world.push(named("last")).await;
    let again = again.json();
    assert_eq!(again["messages"][0]["status"], "duplicate", "it needs no room: {again}");
    assert_eq!(world.push(named("more")).await.status, 429);
    // In another partition, at another QoS, after a restart: it is the queue that is full.
    let elsewhere = json!([{ "queue": "q", "partition": "p", "payload": 6 }]);
    assert_eq!(world.push(elsewhere.clone()).await.status, 429);
    let buffered = json!({ "items": elsewhere, "qos0": true });
    let answer = world.post("/api/v1/push", &buffered).await;
    assert_eq!((answer.status, answer.error().2.as_str()), (429, "queue_full"));
    let world = world.restart().await;
    assert_eq!(world.push(elsewhere.clone()).await.status, 429);
    let popped = pop(&world, &format!("{POP}?batch=9")).await;
    assert_eq!(data(&popped), [1, 2, 5]);
    ack(&world, &popped[0], "completed").await;
    assert_eq!(world.push(elsewhere.clone()).await.status, 201);
    assert_eq!(world.push(elsewhere).await.status, 429);
    configure(&world, "q", json!({})).await;
    push(&world, "q", &[7, 8, 9]).await;
}

#[tokio::test]
async fn a7_messages_become_dead_letters_whatever_the_two_flags_say() {
    let world = World::new().await;
    for (at, flags) in
        [(false, false), (true, false), (false, true), (true, true)].iter().enumerate()
    {
        let queue = format!("q{at}");
        let options = json!({
            "retryLimit": 0, "deadLetterQueue": flags.0, "dlqAfterMaxRetries": flags.1,
        });
        configure(&world, &queue, options).await;
        push(&world, &queue, &[1]).await;
        let popped = pop(&world, &format!("/api/v1/pop/queue/{queue}")).await;
        ack(&world, &popped[0], "failed").await;
        assert_eq!(dead(&world, &queue).await.len(), 1, "{flags:?}");
    }
}

#[tokio::test]
async fn a_window_that_is_open_is_told_to_queens_clients_and_nothing_to_others() {
    let world = World::new().await;
    configure(&world, "q", json!({ "windowBuffer": 3600 })).await;
    push(&world, "q", &[1]).await;
    let path = "/api/v1/pop/queue/q/partition/Default";
    assert_eq!(world.get(path).await.status, 204);
    let answer = world.get(&format!("/queen{path}")).await;
    assert_eq!(answer.status, 200);
    let body = answer.json();
    assert_eq!((&body["success"], &body["windowBufferActive"]), (&json!(true), &json!(true)));
    assert_eq!((&body["queue"], &body["partition"]), (&json!("q"), &json!("Default")));
    assert_eq!((&body["messages"], &body["leaseId"]), (&json!([]), &json!("")));
    assert!(uuid::Uuid::parse_str(body["partitionId"].as_str().unwrap()).is_ok());
    assert_eq!(world.get("/queen/api/v1/pop/queue/q").await.status, 204, "from any partition");
}

#[tokio::test]
async fn a11_retention_takes_neither_what_is_held_nor_dead_letters_nor_what_is_not_consumed() {
    let world = World::with(|settings| settings.store.retention_interval_ms = 50).await;
    // Whoever has seen it: but not while somebody holds it, and never dead letters.
    let options = json!({ "retentionEnabled": true, "retentionSeconds": 1, "retryLimit": 0 });
    configure(&world, "q", options).await;
    push(&world, "q", &[1, 2, 3]).await;
    let popped = pop(&world, POP).await;
    ack(&world, &popped[0], "failed").await;
    let held = pop(&world, POP).await;
    assert_eq!(data(&held), [2]);
    // Only what all groups are done with.
    let completed = json!({ "retentionEnabled": true, "completedRetentionSeconds": 1 });
    configure(&world, "kept", completed).await;
    push(&world, "kept", &[1, 2]).await;
    let done = pop(&world, "/api/v1/pop/queue/kept?batch=9&autoAck=true").await;
    assert_eq!(done.len(), 2);
    let slow = "/api/v1/pop/queue/kept?batch=9&consumerGroup=slow";
    assert_eq!(data(&pop(&world, &format!("{slow}&autoAck=true")).await), [1, 2]);
    push(&world, "kept", &[3]).await;
    sleep(Duration::from_millis(1_500)).await;
    ack(&world, &held[0], "completed").await;
    assert!(pop(&world, &format!("{POP}?batch=9")).await.is_empty(), "3 is too old");
    let letters = dead(&world, "q").await;
    assert_eq!((letters.len(), &letters[0]["data"]), (1, &json!(1)));
    assert_eq!(data(&pop(&world, slow).await), [3], "not consumed, so kept");
    let total = |name: &'static str| {
        let world = &world;
        async move {
            let queue = world.get(&format!("/api/v1/resources/queues/{name}")).await.json();
            queue["messages"]["total"].as_u64().unwrap()
        }
    };
    let gone = async {
        while total("q").await > 0 || total("kept").await > 1 {
            sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), gone).await.expect("the rest goes");
}
