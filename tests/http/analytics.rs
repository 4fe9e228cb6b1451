//! Figures over time: what they say is what was done.

use std::time::Duration;

use serde_json::{Value, json};

use crate::client::World;
use crate::transactions::{ack, leased};

/// Takes figures now, so that what comes is told from what was.
async fn sample(world: &World) {
    assert_eq!(world.ask("POST", "/api/v1/stats/refresh", "").await.status, 200);
}

async fn configure(world: &World, queue: &str, options: Value) {
    let body = json!({ "queue": queue, "options": options });
    assert!(world.post("/api/v1/configure", &body).await.status < 300);
}

/// The sum of a field of a queue's points.
async fn of_queue(world: &World, queue: &str, field: &str) -> u64 {
    let path = format!("/api/v1/analytics/queue-ops?queue={queue}");
    let ops = world.get(&path).await.json();
    let series = ops["series"].as_array().unwrap();
    assert!(!series.is_empty(), "{ops}");
    series.iter().map(|it| it[field].as_u64().unwrap_or_else(|| panic!("{field} of {it}"))).sum()
}

#[tokio::test]
async fn each_rule_that_lets_messages_go_is_told_by_itself() {
    let world = World::with(|settings| settings.store.retention_interval_ms = 50).await;
    configure(&world, "old", json!({ "ttl": 1 })).await;
    configure(&world, "kept", json!({ "retentionEnabled": true, "retentionSeconds": 1 })).await;
    let done = json!({ "retentionEnabled": true, "completedRetentionSeconds": 1 });
    configure(&world, "done", done).await;
    sample(&world).await;
    let items = ["old", "kept", "done", "done"].map(|queue| json!({ "queue": queue }));
    world.push(items.into()).await;
    let popped = world.get("/api/v1/pop/queue/done?batch=9&autoAck=true").await.json();
    assert_eq!(popped["messages"].as_array().unwrap().len(), 2);
    let gone = async {
        while world.get("/api/v1/resources/overview").await.json()["messages"]["total"] != 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), gone).await.expect("everything goes");
    sample(&world).await;
    let told = world.get("/api/v1/analytics/retention").await.json();
    let totals = &told["totals"];
    let rules = ["evictionMsgs", "retentionMsgs", "completedRetentionMsgs", "totalMsgs"];
    assert_eq!(rules.map(|rule| totals[rule].as_u64()), [Some(1), Some(1), Some(2), Some(4)]);
    assert!((1..=4).contains(&totals["eventCount"].as_u64().unwrap()), "{told}");
    let series = told["series"].as_array().unwrap();
    let sum: u64 = series.iter().map(|it| it["totalMsgs"].as_u64().unwrap()).sum();
    assert_eq!(sum, 4, "{told}");
    assert!(series.iter().all(|it| it["bucket"].is_string()), "{told}");
}

#[tokio::test]
async fn what_was_asked_of_a_queue_is_counted_request_by_request() {
    let world = World::new().await;
    configure(&world, "q", json!({})).await;
    configure(&world, "idle", json!({})).await;
    sample(&world).await;
    let in_partition = |partition: &str| json!({ "queue": "q", "partition": partition });
    world.push(json!([in_partition("a"), in_partition("a"), in_partition("b")])).await;
    let path = "/api/v1/pop/queue/q/partition/a?consumerGroup=g&batch=2";
    let popped = world.get(path).await.json();
    assert_eq!(world.get(path).await.status, 204, "somebody holds it");
    let verdict = |message: &Value, lease: &Value| {
        json!({
            "transactionId": message["transactionId"], "partitionId": message["partitionId"],
            "leaseId": lease, "consumerGroup": "g", "status": "completed",
        })
    };
    let [first, second] = [0, 1].map(|at| popped["messages"][at].clone());
    let foreign = json!("00000000-0000-4000-8000-000000000001");
    for (message, lease, stands) in [(&first, &first["leaseId"], true), (&second, &foreign, false)]
    {
        let said = world.post("/api/v1/ack", &verdict(message, lease)).await.json();
        assert_eq!(said[0]["success"], json!(stands), "{said}");
    }
    sample(&world).await;
    for (field, count) in [
        ("pushRequests", 2),
        ("pushMessages", 3),
        ("popEmpty", 1),
        ("ackRequests", 2),
        ("ackSuccess", 1),
        ("ackFailed", 1),
        ("transactions", 0),
        ("partitionsCreated", 2),
        ("partitionsDeleted", 0),
    ] {
        assert_eq!(of_queue(&world, "q", field).await, count, "{field}");
    }
    for field in ["pushRequests", "popEmpty", "ackRequests", "ackFailed", "partitionsCreated"] {
        let path = "/api/v1/analytics/queue-ops?queue=idle";
        let series = world.get(path).await.json()["series"].clone();
        // Nothing happened to it, so nothing of it is counted: that is not the same as a figure.
        assert!(series[0][field] == json!(null) || series[0][field] == json!(0), "{series}");
    }
    let workers = world.get("/api/v1/analytics/worker-metrics").await.json();
    assert_eq!(workers["summary"]["totalAckFailed"], json!(1));
}

#[tokio::test]
async fn what_was_popped_and_acknowledged_is_that_and_not_what_is_gone() {
    let world = World::with(|settings| settings.store.retention_interval_ms = 50).await;
    configure(&world, "q", json!({})).await;
    configure(&world, "old", json!({ "ttl": 1 })).await;
    sample(&world).await;
    let item = |queue: &str| json!({ "queue": queue });
    world.push(json!([item("q"), item("q"), item("q"), item("old"), item("old")])).await;
    for (group, auto_ack) in [("a", true), ("b", false)] {
        let path = format!("/api/v1/pop/queue/q?batch=9&consumerGroup={group}&autoAck={auto_ack}");
        let popped = world.get(&path).await.json();
        assert_eq!(popped["messages"].as_array().unwrap().len(), 3, "{group}");
    }
    // A group that knows the other queue, and finds nothing in it once its messages are too old.
    let gone = async {
        while world.get("/api/v1/resources/queues/old").await.json()["totals"]["total"] != 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), gone).await.expect("they go");
    assert_eq!(world.get("/api/v1/pop/queue/old?consumerGroup=a").await.status, 204);
    sample(&world).await;
    for (queue, popped, acked) in [("q", 6, 3), ("old", 0, 0)] {
        assert_eq!(of_queue(&world, queue, "popMessages").await, popped, "{queue}");
        assert_eq!(of_queue(&world, queue, "ackSuccess").await, acked, "{queue}");
    }
    let lag = world.get("/api/v1/analytics/queue-lag?queue=q").await.json();
    let counts = lag.as_array().unwrap().iter().map(|it| it["popCount"].as_u64().unwrap());
    assert_eq!(counts.sum::<u64>(), 6, "{lag}");
    let page = world.get("/queen/metrics/prometheus").await;
    let rate = |line: &str| {
        let found = page.text().lines().find_map(|it| it.strip_prefix(line));
        found.unwrap_or_else(|| panic!("{line}")).trim().parse::<f64>().unwrap()
    };
    let popped = rate("queen_queue_pop_messages_per_minute{queue=\"q\"}");
    let acked = rate("queen_queue_ack_per_minute{queue=\"q\",result=\"success\"}");
    assert!(acked > 0.0 && (popped / acked - 2.0).abs() < 0.01, "{popped} and {acked}");
}

#[tokio::test]
async fn transactions_and_partitions_that_go_with_their_queue_are_counted() {
    let world = World::new().await;
    let held = leased(&world, "from", 1).await;
    sample(&world).await;
    let operations = json!([
        { "type": "push", "items": [{ "queue": "to", "payload": 1 }] },
        ack(&held[0], "completed"),
    ]);
    let done = world.post("/queen/api/v1/transaction", &json!({ "operations": operations })).await;
    assert_eq!(done.json()["success"], true);
    sample(&world).await;
    assert_eq!(of_queue(&world, "from", "transactions").await, 1);
    assert_eq!(of_queue(&world, "from", "ackSuccess").await, 1);
    assert_eq!(world.ask("DELETE", "/api/v1/resources/queues/from", "").await.status, 200);
    configure(&world, "from", json!({})).await;
    // What a queue held goes behind the answer.
    for _ in 0..300 {
        sample(&world).await;
        if of_queue(&world, "from", "partitionsDeleted").await == 1 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(of_queue(&world, "from", "partitionsDeleted").await, 1);
    // The server takes figures itself when it starts, perhaps before there was one.
    assert!(of_queue(&world, "from", "partitionsCreated").await <= 1);
}

#[tokio::test]
async fn what_messages_die_of_most_is_told_with_how_often() {
    let world = World::new().await;
    configure(&world, "q", json!({ "retryLimit": 0 })).await;
    for error in ["no such customer", "timed out", "timed out"] {
        world.push(json!([{ "queue": "q" }])).await;
        let popped = world.get("/api/v1/pop/queue/q").await.json();
        let message = &popped["messages"][0];
        let verdict = json!({
            "transactionId": message["transactionId"], "partitionId": message["partitionId"],
            "leaseId": message["leaseId"], "status": "failed", "error": error,
        });
        assert_eq!(world.post("/api/v1/ack", &verdict).await.json()[0]["dlq"], json!(true));
    }
    let status = world.get("/api/v1/status").await.json();
    let dead = &status["deadLetterQueue"];
    assert_eq!((&dead["totalMessages"], &dead["affectedPartitions"]), (&json!(3), &json!(1)));
    assert_eq!(
        dead["topErrors"],
        json!([{ "error": "timed out", "count": 2 }, { "error": "no such customer", "count": 1 }])
    );
}
