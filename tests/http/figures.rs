//! Figures, traces, clearing, and what there is for whoever comes from the system before.

use std::time::Duration;

use onrush_client::{Client, Message};
use serde_json::{Value, json};

use crate::client::World;

async fn filled() -> World {
    let world = World::new().await;
    world
        .push(json!([
            { "queue": "shop.orders", "partition": "a", "payload": 1 },
            { "queue": "shop.orders", "partition": "a", "payload": 2 },
            { "queue": "shop.orders", "partition": "b", "payload": 3 },
            { "queue": "shop.mails", "payload": 4 },
        ]))
        .await;
    let path = "/api/v1/pop/queue/shop.orders/partition/a?batch=2&consumerGroup=g";
    let popped = world.get(path).await.json();
    let first = &popped["messages"][0];
    let ack = json!({
        "transactionId": first["transactionId"], "partitionId": first["partitionId"],
        "leaseId": first["leaseId"], "consumerGroup": "g", "status": "completed",
    });
    assert_eq!(world.post("/api/v1/ack", &ack).await.json()[0]["success"], json!(true));
    world
}

#[tokio::test]
async fn resources_are_told_in_true_numbers() {
    let world = filled().await;
    let queue = world.get("/api/v1/resources/queues/shop.orders").await.json();
    assert_eq!(
        queue["totals"],
        json!({ "total": 3, "pending": 1, "processing": 1, "completed": 1, "failed": 0, "deadLetter": 0 })
    );
    let names: Vec<Value> =
        queue["partitions"].as_array().unwrap().iter().map(|it| it["name"].clone()).collect();
    assert_eq!((names.len(), &queue["partitionCount"]), (2, &json!(2)));
    let list = world.get("/queen/api/v1/resources/queues").await.json();
    assert_eq!(list["queues"][0]["name"], "shop.mails", "newest first");
    let orders = &list["queues"][1];
    assert_eq!(orders["messages"], json!({ "total": 3, "pending": 1, "processing": 1 }));
    let namespaces = world.get("/api/v1/resources/namespaces").await.json();
    let shop = &namespaces["namespaces"][0];
    assert_eq!((&shop["namespace"], &shop["queues"]), (&json!("shop"), &json!(2)));
    assert_eq!((&shop["partitions"], &shop["messages"]["total"]), (&json!(3), &json!(4)));
    let tasks = world.get("/api/v1/resources/tasks").await.json();
    assert_eq!(tasks["tasks"].as_array().unwrap().len(), 2);
    let overview = world.get("/api/v1/resources/overview").await.json();
    assert_eq!((&overview["queues"], &overview["partitions"]), (&json!(2), &json!(3)));
    assert_eq!(overview["messages"]["total"], json!(4));
    let partitions = world.get("/api/v1/resources/partitions?queue=shop.orders&limit=1").await;
    let partitions = partitions.json();
    assert_eq!(
        (&partitions["total"], partitions["partitions"].as_array().unwrap().len()),
        (&json!(2), 1)
    );
    assert_eq!(world.get("/api/v1/resources/queues/none").await.status, 404);
}

#[tokio::test]
async fn partitions_are_ranked_by_what_is_open_in_them() {
    let world = World::new().await;
    for (partition, count) in [("quiet", 1), ("busy", 3), ("done", 1)] {
        let item = json!({ "queue": "q", "partition": partition });
        world.push(vec![item; count].into()).await;
    }
    let pop = "/api/v1/pop/queue/q/partition/done?autoAck=true&consumerGroup=g";
    assert_eq!(world.get(pop).await.status, 200);
    let listed = world.get("/queen/api/v1/resources/partitions?queue=q").await.json();
    let rows = listed["partitions"].as_array().unwrap();
    let told: Vec<_> = rows.iter().map(|it| [&it["partition"], &it["pending"]]).collect();
    assert_eq!(json!(told), json!([["busy", 3], ["quiet", 1], ["done", 0]]));
    for row in rows {
        assert_eq!((&row["queue"], &row["processing"]), (&json!("q"), &json!(0)), "{row}");
        assert_eq!(row["createdAt"], row["oldestMessage"], "it came with its first message: {row}");
    }
    assert_eq!(rows[2]["lagSeconds"], 0, "nothing of it waits");
    // What is open there waits, and is as old as it is.
    let waits = async {
        while world.get("/api/v1/resources/partitions?queue=q&limit=9").await.json()["partitions"]
            [0]["lagSeconds"]
            == 0
        {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), waits).await.expect("it grows");
    // Where the first message is gone, nobody knows when it came.
    world.ask("DELETE", "/api/v1/queues/q/clear?partition=done", "").await;
    let listed = world.get("/api/v1/resources/partitions?queue=q").await.json();
    assert_eq!(listed["partitions"][2]["createdAt"], json!(null), "{listed}");
}

#[tokio::test]
async fn queues_are_found_by_label_and_by_a_part_of_their_name_page_by_page() {
    let world = World::new().await;
    for name in ["shop.orders", "shop.mails", "desk.orders"] {
        world.push(json!([{ "queue": name }])).await;
    }
    let names = |path: &'static str| {
        let world = &world;
        async move {
            let list = world.get(path).await.json();
            let names = list["queues"].as_array().unwrap().iter().map(|it| it["name"].clone());
            json!([names.collect::<Vec<_>>(), list["total"]])
        }
    };
    for (query, found) in [
        ("/api/v1/resources/queues?search=ord", json!([["desk.orders", "shop.orders"], 2])),
        ("/api/v1/resources/queues?namespace=shop&limit=1", json!([["shop.mails"], 2])),
        ("/api/v1/resources/queues?limit=1&offset=2", json!([["shop.orders"], 3])),
        ("/api/v1/resources/queues?task=orders&search=desk", json!([["desk.orders"], 1])),
        ("/api/v1/status/queues?namespace=shop", json!([["shop.mails", "shop.orders"], 2])),
        ("/api/v1/status/queues?task=orders&limit=1", json!([["desk.orders"], 2])),
        ("/queen/api/v1/status/queues?queue=shop.mails&limit=9999", json!([["shop.mails"], 1])),
    ] {
        assert_eq!(names(query).await, found, "{query}");
    }
}

#[tokio::test]
async fn the_depth_of_a_queue_is_that_of_all_its_partitions_whatever_is_shown_of_them() {
    let world = filled().await;
    for (group, pending) in [("", 2), ("&group=g", 2), ("&group=new", 3)] {
        for (page, shown) in [("", 2), ("&limit=1", 1), ("&offset=2", 0)] {
            let path = format!("/api/v1/resources/queues/shop.orders/depth?{group}{page}");
            let depth = world.get(&path).await.json();
            assert_eq!(depth["pending"], json!(pending), "{path}: {depth}");
            assert_eq!(depth["effectivePending"], json!(pending), "{path}: {depth}");
            assert_eq!(depth["partitionsPending"], json!(2), "{path}: {depth}");
            assert_eq!(depth["partitions"].as_array().unwrap().len(), shown, "{path}: {depth}");
        }
    }
}

#[tokio::test]
async fn a_cleared_queue_keeps_its_settings_and_groups_and_says_what_went() {
    let world = filled().await;
    let path = "/api/v1/queues/shop.orders/clear";
    let one = world.ask("DELETE", &format!("{path}?partition=b"), "").await.json();
    assert_eq!(
        one,
        json!({ "cleared": true, "queue": "shop.orders", "partition": "b", "messages": 1 })
    );
    let all = world.ask("DELETE", path, "").await.json();
    assert_eq!((&all["messages"], &all["partition"]), (&json!(2), &json!(null)));
    let world = world.restart().await;
    let pop = "/api/v1/pop/queue/shop.orders?consumerGroup=g";
    assert_eq!(world.get(pop).await.status, 204);
    world.push(json!([{ "queue": "shop.orders", "partition": "a", "payload": "new" }])).await;
    assert_eq!(world.get(pop).await.json()["messages"][0]["data"], "new");
    let queue = world.get("/api/v1/resources/queues/shop.orders").await.json();
    assert_eq!((&queue["groups"][0]["name"], &queue["totals"]["total"]), (&json!("g"), &json!(1)));
    assert_eq!(world.ask("DELETE", "/api/v1/queues/none/clear", "").await.status, 404);
}

#[tokio::test]
async fn what_is_told_of_a_message_is_found_by_message_and_by_name() {
    let world = World::new().await;
    let pushed =
        world.push(json!([{ "queue": "q", "payload": { "n": 1 }, "transactionId": "t/1" }]));
    pushed.await;
    let message = world.get("/api/v1/messages?queue=q").await.json()["messages"][0].clone();
    let trace = |names: Value, data: Value| {
        json!({
            "transactionId": "t/1", "partitionId": message["partitionId"], "data": data,
            "consumerGroup": "g", "eventType": "step", "traceNames": names,
        })
    };
    let first =
        world.post("/api/v1/traces", &trace(json!(["a b", "c", "c"]), json!({ "at": 1 }))).await;
    assert_eq!((first.status, &first.json()["success"]), (201, &json!(true)));
    world.post("/api/v1/traces", &trace(json!("c"), json!({ "at": 2 }))).await;
    let world = world.restart().await;
    let path = format!("/api/v1/traces/{}/t%2F1", message["partitionId"].as_str().unwrap());
    let traces = world.get(&path).await.json()["traces"].clone();
    assert_eq!(
        (&traces[0]["data"], &traces[1]["data"]),
        (&json!({ "at": 1 }), &json!({ "at": 2 }))
    );
    assert_eq!(traces[0]["trace_names"], json!(["a b", "c"]));
    assert_eq!(
        (&traces[0]["event_type"], &traces[0]["consumer_group"]),
        (&json!("step"), &json!("g"))
    );
    let named = world.get("/api/v1/traces/by-name/a%20b").await.json();
    assert_eq!((&named["total"], &named["traces"][0]["queue_name"]), (&json!(1), &json!("q")));
    assert_eq!(named["traces"][0]["message_payload"], json!({ "n": 1 }));
    let names = world.get("/api/v1/traces/names").await.json();
    assert_eq!((&names["total"], &names["trace_names"][0]["trace_name"]), (&json!(2), &json!("c")));
    assert_eq!(names["trace_names"][0]["trace_count"], json!(2));
}

#[tokio::test]
async fn a_trace_beyond_its_limits_or_of_nothing_is_refused_by_name() {
    let world = World::new().await;
    world.push(json!([{ "queue": "q", "payload": 1, "transactionId": "t" }])).await;
    let message = world.get("/api/v1/messages?queue=q").await.json()["messages"][0].clone();
    let with = |key: &str, to: Value| {
        let mut body = json!({
            "transactionId": "t", "partitionId": message["partitionId"], "data": { "a": 1 },
        });
        body[key] = to;
        body
    };
    let many: Vec<String> = (0..17).map(|it| format!("n{it}")).collect();
    for (key, to, word) in [
        ("transactionId", json!(null), "transactionId and partitionId are required"),
        ("data", json!(null), "data is required"),
        ("data", json!({ "x": "x".repeat(70_000) }), "data is longer than 65536 bytes"),
        ("traceNames", json!(many), "traceNames holds more than 16 names"),
        ("traceNames", json!([1]), "traceNames must be"),
        ("eventType", json!("x".repeat(256)), "eventType is longer"),
    ] {
        let (status, error, _) = world.post("/api/v1/traces", &with(key, to)).await.error();
        assert!(status == 400 && error.contains(word), "{key}: {status} {error}");
    }
    let unknown = world.post("/api/v1/traces", &with("transactionId", json!("other"))).await;
    assert_eq!(unknown.error().1, "Message not found");
}

#[tokio::test]
async fn the_pages_of_the_dashboard_get_what_they_look_at() {
    let world = filled().await;
    let status = world.get("/queen/api/v1/status").await.json();
    assert_eq!(status["messages"]["total"], json!(4));
    assert_eq!((&status["leases"]["active"], &status["bucketMinutes"]), (&json!(1), &json!(1)));
    assert_eq!(status["messages"]["requests"]["push"], json!(1));
    let queues = world.get("/api/v1/status/queues?limit=1").await.json();
    assert_eq!((queues["queues"].as_array().unwrap().len(), &queues["total"]), (1, &json!(2)));
    let queue = world.get("/api/v1/status/queues/shop.orders").await.json();
    assert_eq!(
        (&queue["totals"]["total"], &queue["totals"]["messages"]["total"]),
        (&json!(3), &json!(3))
    );
    let messages = world.get("/api/v1/status/queues/shop.orders/messages?limit=2").await.json();
    assert_eq!(messages.as_array().unwrap().len(), 2);
    assert_eq!(world.ask("POST", "/api/v1/stats/refresh", "").await.status, 200);
    world.push(json!([{ "queue": "shop.mails", "payload": 5 }])).await;
    assert_eq!(world.ask("POST", "/api/v1/stats/refresh", "").await.status, 200);
    let workers = world.get("/api/v1/analytics/worker-metrics").await.json();
    assert_eq!(workers["summary"]["pendingMessages"], json!(4));
    for path in [
        "/api/v1/status/analytics?interval=minute",
        "/api/v1/status/buffers",
        "/api/v1/analytics/system-metrics",
        "/api/v1/analytics/queue-lag?queue=shop.mails",
        "/api/v1/analytics/queue-ops",
        "/api/v1/analytics/queue-parked-replicas",
        "/api/v1/analytics/retention",
        "/api/v1/analytics/postgres-stats",
        "/api/v1/system/shared-state",
        "/metrics/prometheus",
    ] {
        assert_eq!(world.get(path).await.status, 200, "{path}");
    }
    let ops = world.get("/api/v1/analytics/queue-ops?queue=shop.mails").await.json();
    let pushed =
        ops["series"].as_array().unwrap().iter().map(|it| it["pushMessages"].as_u64().unwrap());
    assert_eq!(pushed.sum::<u64>(), 1, "{ops}");
    let text = world.get("/metrics/prometheus").await;
    let series = r#"mq_messages_pushed_total{queue="shop.mails",qos="1",status="pushed"} 2"#;
    assert!(text.text().contains(series), "{}", text.text());
    let migration = world.ask("POST", "/api/v1/migration/start", "{}").await;
    assert_eq!((migration.status, migration.error().2.as_str()), (501, "not_implemented"));
    assert_eq!(world.ask("POST", "/internal/api/notify", "{}").await.json()["status"], "ok");
    assert_eq!(world.get("/api/v1/status?from=odd").await.status, 400);
}

#[tokio::test]
async fn a_trace_context_comes_out_as_it_went_in() {
    const ITEM: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    const HEADER: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";
    let world = World::new().await;
    let body = json!({ "items": [
        { "queue": "q", "payload": 1, "traceparent": ITEM },
        { "queue": "q", "payload": 2 },
    ] });
    let mut wire = world.connect().await;
    let header = format!("Traceparent: {HEADER}\r\n");
    let pushed = wire.ask_with("POST", "/api/v1/push", &header, &body.to_string()).await;
    assert_eq!(pushed.status, 201);
    let odd =
        wire.ask_with("POST", "/api/v1/push", "traceparent: odd\r\n", &body.to_string()).await;
    assert_eq!(odd.status, 201, "a header that is no context is overlooked");
    let popped = world.get("/api/v1/pop/queue/q?batch=10").await.json();
    let contexts: Vec<&Value> =
        popped["messages"].as_array().unwrap().iter().map(|it| &it["traceparent"]).collect();
    assert_eq!(contexts, [&json!(ITEM), &json!(HEADER), &json!(ITEM), &json!(null)]);
    let listed = world.get("/api/v1/messages?queue=q").await.json();
    assert_eq!(listed["messages"][3]["traceparent"], ITEM);
    // And over the other door, in both directions.
    let client = Client::connect(&world.server.tcp_addr().to_string()).await.unwrap();
    let popped = client.queue("q").pop().group("other").batch(1).await.unwrap();
    let first = listed["messages"].as_array().unwrap().last().unwrap();
    assert_eq!(popped.messages[0].traceparent(), first["traceparent"].as_str());
    client.queue("r").push([Message::json(&1).traceparent(ITEM)]).await.unwrap();
    let popped = world.get("/api/v1/pop/queue/r").await.json();
    assert_eq!(popped["messages"][0]["traceparent"], ITEM);
}

#[tokio::test]
async fn figures_of_the_database_are_its_own_and_none_where_there_is_none() {
    let world = World::new().await;
    world.push(json!([{ "queue": "q", "payload": "x".repeat(100_000) }])).await;
    let stats = world.get("/queen/api/v1/analytics/postgres-stats").await;
    assert_eq!(stats.status, 200, "{stats:?}");
    let stats = stats.json();
    assert!(stats["timestamp"].as_str().unwrap().ends_with('Z'), "{stats}");
    for list in [
        "tableCache",
        "indexCache",
        "deadTuples",
        "hotUpdates",
        "activeQueries",
        "autovacuumStatus",
        "bufferUsage",
        "tableSizes",
    ] {
        assert!(stats[list].is_array(), "{list}: {stats}");
    }
    if crate::client::store::is_embedded() {
        assert_eq!((&stats["database"], &stats["tableSizes"]), (&json!(null), &json!([])));
        return;
    }
    assert_eq!(stats["database"], "postgres");
    assert_eq!(stats["databaseCache"]["database"], "postgres");
    assert!(stats["databaseCache"]["cacheHits"].as_u64().unwrap() > 0, "{stats}");
    assert!(stats["bufferConfig"]["sharedBuffers"].is_string(), "{stats}");
    let sizes = stats["tableSizes"].as_array().unwrap();
    let total = |table: &Value| table["totalSizeBytes"].as_u64().unwrap();
    assert!(sizes.iter().any(|it| total(it) > 0), "{stats}");
    for table in sizes {
        let [own, indexes] =
            ["tableSizeBytes", "indexSizeBytes"].map(|it| table[it].as_u64().unwrap());
        assert_eq!(total(table), own + indexes, "{table}");
    }
    // Of this store's schema only, though others are in the same database.
    let schemas: std::collections::BTreeSet<Option<&str>> =
        stats["tableCache"].as_array().unwrap().iter().map(|it| it["schema"].as_str()).collect();
    assert_eq!(schemas.len(), 1, "{schemas:?}");
}
