//! Consumer groups over HTTP: where they begin, where they are sent, what is forgotten, how they stand.

use std::time::Duration;

use serde_json::{Value, json};

use crate::client::{World, request};

const GROUPS: &str = "/api/v1/consumer-groups";

fn data(popped: &Value) -> Vec<i64> {
    popped["messages"].as_array().unwrap().iter().map(|it| it["data"].as_i64().unwrap()).collect()
}

impl World {
    async fn put(&self, queue: &str, partition: &str, number: i64) -> Value {
        let item = json!({ "queue": queue, "partition": partition, "payload": number });
        self.push(json!([item])).await.json()["messages"][0].clone()
    }

    /// What a group finds at once, in any partition.
    async fn take(&self, group: &str, more: &str) -> Vec<i64> {
        let path = format!(
            "/api/v1/pop/queue/q?batch=100&partitions=100&autoAck=true&consumerGroup={group}&{more}"
        );
        let popped = self.get(&path).await;
        if popped.status == 204 { Vec::new() } else { data(&popped.json()) }
    }

    /// A time after everything that was pushed so far and not after anything that will be.
    async fn tick(&self) -> String {
        let now = || jiff::Timestamp::now().as_millisecond();
        let before = now();
        while now() <= before + 2 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        jiff::Timestamp::from_millisecond(now()).unwrap().to_string()
    }

    async fn standing(&self, group: &str) -> Value {
        let all = self.get(GROUPS).await.json();
        let found = all.as_array().unwrap().iter().find(|it| it["name"] == group);
        found.cloned().unwrap_or(Value::Null)
    }
}

#[tokio::test]
async fn a_group_begins_at_a_time_in_partitions_that_are_there_and_in_those_that_come() {
    let world = World::new().await;
    world.put("q", "old", 1).await;
    world.put("q", "both", 2).await;
    let from = world.tick().await;
    world.put("q", "both", 3).await;
    world.put("q", "fresh", 4).await;
    let mut found = world.take("g", &format!("subscriptionFrom={from}")).await;
    found.sort_unstable();
    assert_eq!(found, [3, 4]);
    world.put("q", "later", 5).await;
    world.put("q", "old", 6).await;
    // What it asked for at first counts, whatever it says now.
    let mut found = world.take("g", "subscriptionMode=new").await;
    found.sort_unstable();
    assert_eq!(found, [5, 6]);
    let shown = world.standing("g").await;
    assert_eq!((&shown["subscriptionMode"], &shown["totalLag"]), (&json!("timestamp"), &json!(0)));
    assert!(shown["subscriptionTimestamp"].as_str().unwrap() <= from.as_str());
}

#[tokio::test]
async fn a_group_that_begins_in_the_future_gets_what_comes_from_then_on() {
    let world = World::new().await;
    world.put("q", "p", 1).await;
    let at_ms = jiff::Timestamp::now().as_millisecond() + 700;
    let at = jiff::Timestamp::from_millisecond(at_ms).unwrap().to_string();
    assert!(world.take("g", &format!("subscriptionFrom={at}")).await.is_empty());
    world.put("q", "p", 2).await;
    while jiff::Timestamp::now().as_millisecond() <= at_ms {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    world.put("q", "p", 3).await;
    world.put("q", "new", 4).await;
    // The first answer may hold what is found at once, and leave the rest for the second.
    let mut found = world.take("g", "").await;
    found.extend(world.take("g", "").await);
    found.sort_unstable();
    assert_eq!(found, [3, 4]);
    assert!(world.take("g", "").await.is_empty());
}

#[tokio::test]
async fn a_seek_moves_cursors_to_a_time_to_the_end_and_back_and_ends_leases() {
    let world = World::new().await;
    for partition in ["a", "b"] {
        world.put("q", partition, 1).await;
    }
    let middle = world.tick().await;
    for partition in ["a", "b"] {
        world.put("q", partition, 2).await;
    }
    assert_eq!(world.take("g", "").await.len(), 4);
    let seek = |body: Value| {
        let world = &world;
        async move { world.post(&format!("{GROUPS}/g/queues/q/seek"), &body).await }
    };
    let sought = seek(json!({ "timestamp": middle })).await.json();
    assert_eq!((&sought["success"], &sought["partitionsUpdated"]), (&json!(true), &json!(2)));
    assert_eq!((&sought["seekToEnd"], &sought["queueName"]), (&json!(false), &json!("q")));
    assert_eq!(world.take("g", "").await, [2, 2]);
    // Before everything that is kept: from what is kept on.
    seek(json!({ "timestamp": "1999-01-01T00:00:00Z" })).await;
    assert_eq!(world.take("g", "").await.len(), 4);
    seek(json!({ "toBeginning": true })).await;
    let held = world.get("/api/v1/pop/queue/q?batch=9&partitions=9&consumerGroup=g").await.json();
    assert_eq!(held["partitionsClaimed"], 2);
    assert!(world.take("g", "").await.is_empty(), "all of it is held");
    let sought = seek(json!({ "toEnd": true })).await.json();
    assert_eq!((&sought["seekToEnd"], &sought["targetTimestamp"]), (&json!(true), &json!(null)));
    let lease = held["leaseId"].as_str().unwrap();
    let extended = world.post(&format!("/api/v1/lease/{lease}/extend"), &json!({})).await;
    assert_eq!(extended.status, 404, "the lease ended with the seek");
    assert!(world.take("g", "").await.is_empty());
    world.put("q", "a", 3).await;
    assert_eq!(world.take("g", "").await, [3]);
    let world = world.restart().await;
    assert!(world.take("g", "").await.is_empty(), "and it lasts");
}

#[tokio::test]
async fn one_partition_is_sent_to_its_end_alone_and_refusals_say_what_is_missing() {
    let world = World::new().await;
    for partition in ["a", "b/ü"] {
        world.put("q", partition, 1).await;
    }
    let known = world.get("/api/v1/pop/queue/q/partition/none?consumerGroup=g").await;
    assert_eq!(known.status, 204);
    let path = format!("{GROUPS}/g/queues/q/partitions/b%2F%C3%BC/seek");
    let sought = world.ask("POST", &path, "").await.json();
    assert_eq!((&sought["updated"], &sought["cursorMovedTo"]), (&json!(true), &json!(1)));
    assert_eq!(world.take("g", "").await, [1]);
    let missing = world.ask("POST", &format!("{GROUPS}/g/queues/q/partitions/x/seek"), "").await;
    assert_eq!(missing.error(), (404, "Partition not found".into(), "partition_not_found".into()));
    assert_eq!(missing.json()["success"], false);
    let neither = world.post(&format!("{GROUPS}/g/queues/q/seek"), &json!({})).await.error();
    assert_eq!(neither.0, 400);
    assert_eq!(neither.1, "Must specify either 'toEnd': true or 'timestamp'");
    let end = json!({ "toEnd": true });
    let nobody = world.post(&format!("{GROUPS}/nobody/queues/q/seek"), &end).await.error();
    assert_eq!((nobody.0, nobody.2.as_str()), (404, "group_not_found"));
    let queen = world.post(&format!("/queen{GROUPS}/nobody/queues/q/seek"), &end).await;
    assert_eq!((queen.status, &queen.json()["partitionsUpdated"]), (200, &json!(0)));
    let nowhere = world.post(&format!("{GROUPS}/g/queues/none/seek"), &end).await.error();
    assert_eq!((nowhere.0, nowhere.2.as_str()), (404, "queue_not_found"));
}

#[tokio::test]
async fn a_group_that_is_deleted_begins_afresh_by_what_is_remembered_or_by_what_it_says() {
    let world = World::new().await;
    world.put("q", "p", 1).await;
    assert!(world.take("g", "subscriptionMode=new").await.is_empty());
    world.tick().await;
    world.put("q", "p", 2).await;
    assert_eq!(world.take("g", "").await, [2]);
    let path = format!("{GROUPS}/g?deleteMetadata=false");
    let deleted = world.ask("DELETE", &path, "").await.json();
    assert_eq!((&deleted["success"], &deleted["consumerGroup"]), (&json!(true), &json!("g")));
    assert_eq!(
        (&deleted["deletedPartitions"], &deleted["metadataDeleted"]),
        (&json!(1), &json!(false))
    );
    assert_eq!(world.standing("g").await, Value::Null);
    let world = world.restart().await;
    // From its first contact on, as it is remembered.
    assert_eq!(world.take("g", "subscriptionMode=all").await, [2]);
    let deleted = world.ask("DELETE", &format!("{GROUPS}/g/queues/q"), "").await.json();
    assert_eq!((&deleted["queueName"], &deleted["metadataDeleted"]), (&json!("q"), &json!(true)));
    assert_eq!(world.take("g", "").await, [1, 2], "nothing is remembered");
    let nobody = world.ask("DELETE", &format!("{GROUPS}/nobody"), "").await.json();
    assert_eq!(nobody["deletedPartitions"], 0);
}

#[tokio::test]
async fn dead_letters_of_a_group_outlive_it() {
    let world = World::new().await;
    let options = json!({ "retryLimit": 0 });
    world.post("/api/v1/configure", &json!({ "queue": "q", "options": options })).await;
    world.put("q", "p", 7).await;
    let popped = world.get("/api/v1/pop/queue/q?consumerGroup=g").await.json();
    let message = &popped["messages"][0];
    let ack = json!({ "transactionId": message["transactionId"], "status": "failed",
        "partitionId": message["partitionId"], "leaseId": popped["leaseId"], "consumerGroup": "g" });
    world.post("/api/v1/ack", &ack).await;
    world.ask("DELETE", &format!("{GROUPS}/g"), "").await;
    let world = world.restart().await;
    let dead = world.get("/api/v1/dlq?queue=q&consumerGroup=g").await.json();
    assert_eq!((&dead["total"], &dead["messages"][0]["data"]), (&json!(1), &json!(7)));
}

#[tokio::test]
async fn a_subscription_is_changed_where_it_is_stored_and_cursors_stay() {
    let world = World::new().await;
    world.put("q", "p", 1).await;
    assert_eq!(world.take("g", "").await, [1]);
    let from = world.tick().await;
    world.put("q", "p", 2).await;
    let path = format!("{GROUPS}/g/subscription");
    let changed = world.post(&path, &json!({ "subscriptionTimestamp": from })).await.json();
    assert_eq!((&changed["success"], &changed["rowsUpdated"]), (&json!(true), &json!(1)));
    assert_eq!(world.standing("g").await["subscriptionMode"], "timestamp");
    assert_eq!(world.take("g", "").await, [2], "its cursor stays");
    world.ask("DELETE", &format!("{GROUPS}/g?deleteMetadata=false"), "").await;
    assert_eq!(world.take("g", "").await, [2], "and this is where it begins again");
    for (body, what) in [
        (json!({}), "subscriptionTimestamp is required"),
        (json!({ "subscriptionTimestamp": "soon" }), "subscriptionTimestamp must be a time"),
    ] {
        let refused = world.post(&path, &body).await.error();
        assert!(refused.0 == 400 && refused.1.starts_with(what), "{refused:?}");
    }
}

#[tokio::test]
async fn lag_is_told_per_group_queue_and_partition_and_is_exact() {
    let world = World::new().await;
    for (partition, count) in [("a", 3), ("b", 2), ("c", 1)] {
        for number in 0..count {
            world.put("q", partition, number).await;
        }
    }
    world.get("/api/v1/pop/queue/q/partition/c?consumerGroup=g&autoAck=true").await;
    let held = world.get("/api/v1/pop/queue/q/partition/a?consumerGroup=g&batch=2").await.json();
    let ack = json!({ "transactionId": held["messages"][1]["transactionId"], "status": "completed",
        "partitionId": held["partitionId"], "leaseId": held["leaseId"], "consumerGroup": "g" });
    assert_eq!(world.post("/api/v1/ack", &ack).await.status, 200);
    let shown = world.standing("g").await;
    for (key, value) in
        [("totalLag", 4), ("partitionsWithLag", 2), ("members", 1), ("partitions", 3)]
    {
        assert_eq!(shown[key], value, "{key} of {shown}");
    }
    assert_eq!((&shown["topics"], &shown["state"]), (&json!(["q"]), &json!("Stable")));
    let details = world.get(&format!("{GROUPS}/g")).await.json();
    let of = |name: &str| {
        let all = details["q"]["partitions"].as_array().unwrap();
        all.iter().find(|it| it["partition"] == name).unwrap().clone()
    };
    assert_eq!((&of("a")["offsetLag"], &of("a")["totalConsumed"]), (&json!(2), &json!(1)));
    assert_eq!((&of("a")["leaseActive"], &of("a")["workerId"]), (&json!(true), &held["leaseId"]));
    assert_eq!((&of("b")["offsetLag"], &of("c")["offsetLag"]), (&json!(2), &json!(0)));
    let lagging = world.get(&format!("{GROUPS}/lagging?minLagSeconds=0")).await.json();
    let names: Vec<&str> = lagging
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["partition_name"].as_str().unwrap())
        .collect();
    assert_eq!((names.len(), names.contains(&"c")), (2, false));
    assert_eq!(world.get(&format!("{GROUPS}/lagging")).await.json(), json!([]));
    // A page at a time.
    let mut seen = 0;
    let mut from = "0.0".to_owned();
    loop {
        let page = world.get(&format!("{GROUPS}/g?queue=q&limit=1&from={from}")).await.json();
        seen += page["q"]["partitions"].as_array().unwrap().len();
        match page["q"]["next"].as_str() {
            Some(next) => from = next.to_owned(),
            None => break,
        }
    }
    assert_eq!(seen, 3);
    let world = world.restart().await;
    assert_eq!(world.standing("g").await["totalLag"], 4, "counted anew from rows");
}

#[tokio::test]
async fn queue_mode_is_a_group_of_its_own_that_begins_with_everything() {
    let world = World::new().await;
    world.put("q", "p", 1).await;
    assert_eq!(world.take("g", "").await, [1]);
    let path = "/api/v1/pop/queue/q?subscriptionMode=new&autoAck=true";
    let popped = world.get(path).await.json();
    assert_eq!((data(&popped), &popped["consumerGroup"]), (vec![1], &json!("__QUEUE_MODE__")));
    assert_eq!(world.get(path).await.status, 204);
    let shown = world.standing("__QUEUE_MODE__").await;
    assert_eq!((&shown["subscriptionMode"], &shown["totalLag"]), (&json!(null), &json!(0)));
    let waits = "/api/v1/pop/queue/q?wait=true&timeout=60000";
    let mut waiting = world.connect().await;
    waiting.send(&request("GET", waits, "", "")).await;
    let seek = format!("{GROUPS}/__QUEUE_MODE__/queues/q/seek");
    world.post(&seek, &json!({ "toBeginning": true })).await;
    assert_eq!(data(&waiting.answer().await.json()), [1], "a seek wakes who waits");
}

#[tokio::test]
async fn one_lease_holds_several_partitions_and_is_extended_and_acknowledged_as_one() {
    let world = World::new().await;
    for partition in ["a", "b", "c"] {
        world.put("q", partition, 1).await;
        world.put("q", partition, 2).await;
    }
    let path = "/api/v1/pop/queue/q?consumerGroup=g&batch=100&partitions=2";
    let popped = world.get(path).await.json();
    assert_eq!((&popped["partitionsClaimed"], data(&popped)), (&json!(2), vec![1, 2, 1, 2]));
    let messages = popped["messages"].as_array().unwrap();
    assert!(messages.iter().all(|it| it["leaseId"] == popped["leaseId"]));
    let other = world.get(path).await.json();
    assert_eq!(other["partitionsClaimed"], 1, "what is held is not given twice");
    let lease = popped["leaseId"].as_str().unwrap();
    let extended = world.post(&format!("/api/v1/lease/{lease}/extend"), &json!({})).await;
    let extended = extended.json();
    assert_eq!((&extended["success"], &extended["renewed"]), (&json!(true), &json!(2)));
    let acks: Vec<Value> = messages
        .iter()
        .map(|it| {
            json!({ "transactionId": it["transactionId"], "partitionId": it["partitionId"],
                    "status": "completed", "leaseId": lease })
        })
        .collect();
    let body = json!({ "consumerGroup": "g", "acknowledgments": acks });
    let acked = world.post("/queen/api/v1/ack/batch", &body).await.json();
    assert!(acked.as_array().unwrap().iter().all(|it| it["leaseReleased"] == true), "{acked}");
    assert_eq!(world.get(path).await.status, 204);
}
