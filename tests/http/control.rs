//! Queues, health and figures.

use serde_json::{Value, json};

use crate::client::World;

#[tokio::test]
async fn all_fifteen_options_are_echoed_as_they_were_sent_and_replaced_whole() {
    let world = World::new().await;
    let options = json!({
        "leaseTime": 30, "maxSize": 1000, "ttl": 7200, "retryLimit": 5, "retryDelay": 2000,
        "deadLetterQueue": true, "dlqAfterMaxRetries": true, "priority": -5,
        "delayedProcessing": 2, "windowBuffer": 3, "retentionSeconds": 60,
        "completedRetentionSeconds": 30, "retentionEnabled": true, "encryptionEnabled": false,
        "maxWaitTimeSeconds": 90,
    });
    let body = json!({ "queue": "orders", "namespace": "n", "task": "t", "options": options });
    let answer = world.post("/api/v1/configure", &body).await;
    assert_eq!(answer.status, 200);
    let json = answer.json();
    assert_eq!(json["configured"], json!(true));
    assert_eq!(json["options"], options);
    assert_eq!((&json["namespace"], &json["task"]), (&json!("n"), &json!("t")));
    assert!(uuid::Uuid::parse_str(json["queueId"].as_str().unwrap()).is_ok());
    let again = world.post("/api/v1/configure", &json!({ "queue": "orders" })).await.json();
    assert_eq!(again["options"]["leaseTime"], json!(300));
    assert_eq!(again["options"]["retryDelay"], json!(1000));
    assert_eq!((&again["namespace"], &again["queueId"]), (&json!(""), &json["queueId"]));
}

#[tokio::test]
async fn settings_that_are_not_named_stay_where_a_change_says_so() {
    let world = World::new().await;
    let change = |body: Value| {
        let world = &world;
        async move { world.post("/queen/api/v1/configure", &body).await }
    };
    let first = json!({ "queue": "q", "namespace": "n", "task": "t", "mode": "merge",
        "options": { "leaseTime": 30, "retryLimit": 9, "ttl": 60 } });
    let made = change(first).await.json();
    assert_eq!(
        (&made["options"]["leaseTime"], &made["options"]["maxSize"]),
        (&30.into(), &0.into())
    );
    let merge = json!({ "queue": "q", "task": "u", "mode": "merge",
        "options": { "leaseTime": 40, "ttl": null, "later": 1 } });
    let merged = change(merge).await.json();
    let options = &merged["options"];
    assert_eq!((&merged["namespace"], &merged["task"]), (&json!("n"), &json!("u")));
    assert_eq!(
        (&options["leaseTime"], &options["retryLimit"], &options["ttl"]),
        (&json!(40), &json!(9), &json!(3600)),
        "null is the default"
    );
    let world = world.restart().await;
    let shown = world.get("/api/v1/resources/queues/q").await.json();
    assert_eq!((&shown["options"], &shown["namespace"]), (options, &json!("n")));
    for mode in [json!({}), json!({ "mode": null }), json!({ "mode": "replace" })] {
        let mut body = json!({ "queue": "q", "options": { "leaseTime": 50 } });
        body.as_object_mut().unwrap().extend(mode.as_object().unwrap().clone());
        let replaced = world.post("/api/v1/configure", &body).await.json();
        assert_eq!(replaced["options"]["retryLimit"], 3, "{body}");
        assert_eq!(replaced["namespace"], "");
        let again = json!({ "queue": "q", "mode": "merge", "options": { "retryLimit": 8 } });
        assert_eq!(
            world.post("/api/v1/configure", &again).await.json()["options"]["leaseTime"],
            50
        );
    }
    for mode in [json!("patch"), json!(1), json!("")] {
        let body = json!({ "queue": "q", "mode": mode });
        let (status, error, _) = world.post("/queen/api/v1/configure", &body).await.error();
        assert_eq!((status, error.as_str()), (400, "mode must be \"merge\" or \"replace\""));
    }
}

#[tokio::test]
async fn settings_that_cannot_be_kept_are_refused() {
    let world = World::new().await;
    let refused = |body: Value| {
        let world = &world;
        async move { world.post("/api/v1/configure", &body).await.error() }
    };
    let (status, error, _) = refused(json!({})).await;
    assert_eq!((status, error.as_str()), (400, "queue is required"));
    let (_, error, code) = refused(json!({ "queue": "q", "options": { "ttl": "1" } })).await;
    assert!(error.contains("ttl"), "{error}");
    assert_eq!(code, "bad_option");
    let unknown = json!({ "queue": "q", "options": { "leesTime": 1 } });
    assert_eq!(refused(unknown.clone()).await.2, "bad_option");
    let encrypted = json!({ "queue": "q", "options": { "encryptionEnabled": true } });
    let (status, _, code) = refused(encrypted).await;
    assert_eq!((status, code.as_str()), (409, "encryption_key_missing"), "never stored in clear");
    assert_eq!(world.get("/api/v1/resources/queues").await.json()["queues"], json!([]));
    assert_eq!(world.post("/queen/api/v1/configure", &unknown).await.status, 200);
}

#[tokio::test]
async fn a_deleted_queue_is_gone_with_all_it_held() {
    let world = World::new().await;
    world.push(json!([{ "queue": "a/b c", "payload": 1, "transactionId": "t" }])).await;
    let path = "/api/v1/resources/queues/a%2Fb%20c";
    assert_eq!(world.get(path).await.json()["messages"]["total"], json!(1));
    let deleted = world.ask("DELETE", path, "").await.json();
    assert_eq!(deleted, json!({ "deleted": true, "queue": "a/b c", "existed": true }));
    let again = world.ask("DELETE", path, "").await.json();
    assert_eq!(again, json!({ "deleted": true, "queue": "a/b c", "existed": false }));
    assert_eq!(world.get(path).await.status, 404);
    let pushed =
        world.push(json!([{ "queue": "a/b c", "payload": 2, "transactionId": "t" }])).await;
    assert_eq!(pushed.json()["messages"][0]["status"], "pushed", "a new queue remembers nothing");
    assert_eq!(pushed.json()["messages"][0]["sequence"], json!(0));
}

#[tokio::test]
async fn queues_are_listed_newest_first_with_numbers_that_are_true() {
    let world = World::new().await;
    for name in ["old", "new"] {
        world.push(json!([{ "queue": name }, { "queue": name, "partition": "p" }])).await;
    }
    let popped = world.get("/api/v1/pop/queue/old?consumerGroup=g").await.json();
    let listed = world.get("/queen/api/v1/resources/queues").await.json();
    let names: Vec<&Value> =
        listed["queues"].as_array().unwrap().iter().map(|it| &it["name"]).collect();
    assert_eq!(names, ["new", "old"]);
    let old = &listed["queues"][1];
    assert_eq!(old["partitions"], json!(2));
    assert_eq!(old["messages"], json!({ "total": 2, "pending": 1, "processing": 1 }));
    let group = json!({
        "name": "g", "pending": 1, "processing": 1, "deadLetter": 0, "leasedPartitions": 1,
    });
    assert_eq!(old["groups"], json!([group]));
    assert_eq!(listed["queues"][0]["groups"], json!([]));
    assert_eq!(popped["messages"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn health_is_told_in_the_words_of_the_contract() {
    let world = World::new().await;
    let answer = world.get("/health").await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.json()["status"], "healthy");
    assert_eq!(answer.json()["database"], "connected");
    assert_eq!(answer.json()["worker_id"], Value::Null, "only who looks for it is told");
    let queen = world.get("/queen/health").await.json();
    assert_eq!((&queen["status"], &queen["worker_id"]), (&json!("healthy"), &json!(0)));
    assert_eq!(queen["queen"], json!({ "worker_id": 0, "status": "healthy" }));
    world.post("/api/v1/system/maintenance/pop", &json!({ "enabled": true })).await;
    let shared = &world.get("/queen/health").await.json()["shared_state"];
    assert_eq!(
        (&shared["pop_maintenance_mode"], &shared["maintenance_mode"]),
        (&json!(true), &json!(false))
    );
    assert_eq!(world.get("/livez").await.status, 200);
    assert_eq!(world.get("/readyz").await.json(), json!({ "status": "ready" }));
    let checks =
        json!({ "engine": "ok", "store": "ok", "open": "ok", "failover": "idle", "set_aside": 0 });
    assert_eq!(world.get("/readyz?verbose").await.json()["checks"], checks);
}

#[tokio::test]
async fn figures_have_the_shape_of_the_contract_and_are_true() {
    let world = World::new().await;
    let item = json!({ "queue": "q", "transactionId": "t" });
    world.push(json!([item, item, { "queue": "q" }])).await;
    let json = world.get("/metrics").await.json();
    let push = &json["push"];
    assert_eq!((&push["total"], &push["duplicates"]), (&json!(2), &json!(1)));
    assert_eq!((&push["requests"], &push["failed"]), (&json!(1), &json!(0)));
    for key in ["throughput", "avg_latency_ms", "p95_latency_ms", "p99_latency_ms"] {
        assert!(push[key].is_number(), "{key}: {push}");
    }
    assert!(push["p99_latency_ms"].as_f64() > Some(0.0));
    let database = &json["database"];
    let open = ["connections_active", "connections_idle"].map(|it| database[it].as_u64().unwrap());
    assert_eq!(database["healthy"], json!(true));
    assert_eq!(open.iter().sum::<u64>() > 0, !crate::client::store::is_embedded(), "{database}");
    assert_eq!(json["file_buffer"], json!({ "pending": 0, "flushed": 0, "failed": 0 }));
    assert_eq!(database["poolSize"], json!(open.iter().sum::<u64>()), "{database}");
    assert_eq!(database["idleConnections"], json!(open[1]), "{database}");
    assert_eq!(json["requests"], json!({ "push": 1, "pop": 0, "ack": 0 }));
    assert_eq!(json["messages"], json!({ "pushed": 2, "popped": 0, "acked": 0 }));
    for (block, key) in [("memory", "rssBytes"), ("memory", "virtualBytes"), ("cpu", "user_us")] {
        assert!(json[block][key].as_u64().is_some_and(|it| it > 0), "{block}.{key}: {json}");
    }
    let series = world.get("/api/v1/analytics/system-metrics?hostname=elsewhere").await.json();
    assert_eq!((&series["replicas"], &series["replicaCount"]), (&json!([]), &json!(0)));
}

#[tokio::test]
async fn pushes_held_back_for_maintenance_come_out_once_and_in_order_when_it_ends() {
    let world = World::new().await;
    let item = |number: u64| json!([{ "queue": "q", "payload": number }]);
    assert_eq!(world.push(item(0)).await.json()["messages"][0]["status"], "pushed");
    let path = "/api/v1/system/maintenance";
    assert_eq!(world.get(path).await.json()["maintenanceMode"], json!(false));
    let (status, error, _) = world.post(path, &json!({ "enabled": 1 })).await.error();
    assert_eq!((status, error.as_str()), (400, "enabled (boolean) is required"));
    let on = world.post(path, &json!({ "enabled": true })).await.json();
    assert_eq!(on["maintenanceMode"], json!(true));
    for number in 1..4 {
        let pushed = world.push(item(number)).await.json();
        assert_eq!(pushed["messages"][0]["status"], "buffered", "{pushed}");
        assert_eq!(pushed["dbHealthy"], json!(true), "nothing is wrong with the store");
    }
    assert_eq!(world.get(path).await.json()["bufferedMessages"], json!(3));
    let metrics = world.get("/metrics").await.json();
    assert_eq!(metrics["file_buffer"]["pending"], json!(3));
    let popped = world.get("/api/v1/pop/queue/q?batch=10&autoAck=true").await.json();
    assert_eq!(popped["messages"].as_array().unwrap().len(), 1, "pops go on working: {popped}");
    let off = world.post(path, &json!({ "enabled": false })).await.json();
    assert_eq!(off["maintenanceMode"], json!(false));
    let mut payloads = Vec::new();
    while payloads.len() < 3 {
        let path = "/api/v1/pop/queue/q?batch=10&autoAck=true&wait=true&timeout=20000";
        let popped = world.get(path).await.json();
        let messages = popped["messages"].as_array().unwrap().clone();
        assert!(!messages.is_empty(), "what was held back does not come out");
        payloads.extend(messages.iter().map(|it| it["data"].as_u64().unwrap()));
    }
    assert_eq!(payloads, [1, 2, 3]);
    assert_eq!(world.push(item(4)).await.json()["messages"][0]["status"], "pushed");
    assert_eq!(world.get(path).await.json()["bufferedMessages"], json!(0));
}

#[tokio::test]
async fn pops_find_nothing_during_their_maintenance_and_whoever_waited_gets_it_after() {
    let world = World::new().await;
    world.push(json!([{ "queue": "q", "payload": 1 }])).await;
    let path = "/api/v1/system/maintenance/pop";
    let on = world.post(path, &json!({ "enabled": true })).await.json();
    assert_eq!(on["popMaintenanceMode"], json!(true));
    let empty = world.get("/api/v1/pop/queue/q").await;
    assert!(empty.status == 204 || empty.json()["messages"] == json!([]), "{empty:?}");
    let waits = world.get("/api/v1/pop/queue/q?wait=true&timeout=20000&autoAck=true");
    let ends = async {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        world.post(path, &json!({ "enabled": false })).await
    };
    let (popped, off) = tokio::join!(waits, ends);
    assert_eq!(off.json()["popMaintenanceMode"], json!(false));
    assert_eq!(popped.json()["messages"][0]["data"], json!(1));
}
