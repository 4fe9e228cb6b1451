//! Verdicts, leases and dead letters.

use serde_json::{Value, json};

use crate::client::World;
use crate::client::store;

/// Pushes one message per payload and pops them all.
async fn leased(world: &World, payloads: Value) -> Value {
    let payloads = payloads.as_array().unwrap().clone();
    let item = |(at, payload): (usize, Value)| json!({ "queue": "q", "payload": payload, "transactionId": format!("t{at}") });
    let items: Vec<Value> = payloads.into_iter().enumerate().map(item).collect();
    world.push(Value::Array(items)).await;
    world.get("/api/v1/pop/queue/q?batch=100").await.json()
}

fn verdict(message: &Value, status: &str) -> Value {
    json!({ "transactionId": message["transactionId"], "partitionId": message["partitionId"],
            "leaseId": message["leaseId"], "status": status, "error": "boom",
            "consumerGroup": null })
}

#[tokio::test]
async fn an_ack_by_transaction_id_settles_and_releases() {
    let world = World::new().await;
    let popped = leased(&world, json!([1])).await;
    let answer = world.post("/api/v1/ack", &verdict(&popped["messages"][0], "completed")).await;
    assert_eq!(answer.status, 200);
    assert_eq!(
        answer.json(),
        json!([{ "index": 0, "transactionId": "t0", "success": true, "error": null,
                 "queueName": "q", "partitionName": "Default", "leaseReleased": true,
                 "dlq": false, "noop": false }])
    );
    let again = world.post("/api/v1/ack", &verdict(&popped["messages"][0], "completed")).await;
    let again = again.json();
    assert_eq!((&again[0]["success"], &again[0]["noop"]), (&json!(true), &json!(true)), "{again}");
    assert_eq!(world.get("/api/v1/pop/queue/q").await.status, 204);
}

#[tokio::test]
async fn a_batch_is_answered_line_by_line_in_request_order() {
    let world = World::new().await;
    let popped = leased(&world, json!([0, 1, 2])).await;
    let messages = &popped["messages"];
    let mut unknown = verdict(&messages[0], "completed");
    unknown["transactionId"] = json!("never-pushed");
    let mut foreign = verdict(&messages[0], "completed");
    foreign["partitionId"] = json!("019a0c11-7fe8-7001-9999-0123456789ab");
    let mut stale = verdict(&messages[1], "completed");
    stale["leaseId"] = json!("019a0c11-7fe8-7001-9999-0123456789ab");
    let mut odd = verdict(&messages[1], "perhaps");
    odd["status"] = json!("perhaps");
    let body = json!({ "consumerGroup": null, "acknowledgments": [
        verdict(&messages[2], "completed"), unknown, foreign, stale, odd,
        verdict(&messages[0], "success"),
    ]});
    let answer = world.post("/api/v1/ack/batch", &body).await;
    assert_eq!(answer.status, 200);
    let json = answer.json();
    let seen: Vec<(bool, &Value)> = json
        .as_array()
        .unwrap()
        .iter()
        .map(|it| (it["success"].as_bool().unwrap(), &it["error"]))
        .collect();
    assert_eq!(
        seen,
        [
            (true, &json!(null)),
            (false, &json!("Message not found")),
            (false, &json!("Message not found")),
            (false, &json!("Invalid or expired lease")),
            (false, &json!("status must be completed, failed, retry or dlq")),
            (true, &json!(null)),
        ]
    );
    let indexes: Vec<&Value> = json.as_array().unwrap().iter().map(|it| &it["index"]).collect();
    assert_eq!(indexes, [0, 1, 2, 3, 4, 5]);
    let rest = world.post("/api/v1/ack", &verdict(&messages[1], "completed")).await.json();
    assert_eq!(rest[0]["leaseReleased"], json!(true), "the last of the batch");
    let empty = world.post("/api/v1/ack/batch", &json!({ "acknowledgments": [] })).await;
    assert_eq!((empty.status, empty.text()), (200, "[]"));
}

#[tokio::test]
async fn a_message_is_also_known_by_its_own_id() {
    let world = World::new().await;
    world.push(json!([{ "queue": "q", "payload": 1 }])).await;
    let popped = world.get("/api/v1/pop/queue/q").await.json();
    let mut message = popped["messages"][0].clone();
    if store::is_embedded() {
        assert_eq!(message["transactionId"], message["id"]);
    }
    // Where the store may be away, it was given a transaction id before the first attempt.
    message["transactionId"] = message["id"].clone();
    let acked = world.post("/queen/api/v1/ack", &verdict(&message, "completed")).await.json();
    assert_eq!(acked[0]["success"], json!(true), "{acked}");
}

#[tokio::test]
async fn an_id_of_the_producers_that_looks_like_an_address_is_not_taken_for_one() {
    let world = World::new().await;
    world.push(json!([{ "queue": "q", "payload": "first" }])).await;
    let first = world.get("/api/v1/pop/queue/q").await.json()["messages"][0].clone();
    world.post("/api/v1/ack", &verdict(&first, "completed")).await;
    // The second message is named by what is the address of the first.
    world.push(json!([{ "queue": "q", "payload": "second", "transactionId": first["id"] }])).await;
    let second = world.get("/api/v1/pop/queue/q").await.json()["messages"][0].clone();
    assert_eq!(second["transactionId"], first["id"]);
    let acked = world.post("/api/v1/ack", &verdict(&second, "failed")).await.json();
    assert_eq!(acked[0]["success"], json!(true), "{acked}");
    let again = world.get("/api/v1/pop/queue/q?wait=true&timeout=30000").await.json();
    assert_eq!(again["messages"][0]["data"], "second");
    assert_eq!(again["messages"][0]["retryCount"], json!(1));
}

#[tokio::test]
async fn an_id_that_the_ledger_has_forgotten_is_found_among_what_its_lease_holds() {
    let world = World::with(|settings| {
        settings.store.dedup_horizon = std::time::Duration::ZERO;
    })
    .await;
    let popped = leased(&world, json!(["a", "b"])).await;
    let messages = &popped["messages"];
    let mut unknown = verdict(&messages[0], "completed");
    unknown["transactionId"] = json!("never-pushed");
    let lines = json!([verdict(&messages[1], "completed"), unknown]);
    let acked = world.post("/api/v1/ack/batch", &json!({ "acknowledgments": lines })).await.json();
    assert_eq!((&acked[0]["success"], &acked[1]["success"]), (&json!(true), &json!(false)));
    assert_eq!(acked[1]["error"], "Message not found");
    let acked = world.post("/api/v1/ack", &verdict(&messages[0], "completed")).await.json();
    assert_eq!(acked[0]["leaseReleased"], json!(true), "{acked}");
}

#[tokio::test]
async fn a_lease_and_the_names_of_its_partition_outlive_a_restart() {
    let world = World::new().await;
    let popped = leased(&world, json!([1])).await;
    let world = world.restart().await;
    let mut by_own_id = verdict(&popped["messages"][0], "completed");
    by_own_id["transactionId"] = popped["messages"][0]["id"].clone();
    let acked = world.post("/api/v1/ack", &by_own_id).await.json();
    assert_eq!(acked[0]["success"], json!(true), "{acked}");
    assert_eq!(
        (&acked[0]["queueName"], &acked[0]["partitionName"]),
        (&json!("q"), &json!("Default"))
    );
}

#[tokio::test]
async fn a_failed_message_comes_again_and_then_is_a_dead_letter_with_its_payload() {
    let world = World::new().await;
    let configured = json!({ "queue": "q", "options": { "retryLimit": 1, "retryDelay": 0 } });
    world.post("/api/v1/configure", &configured).await;
    let popped = leased(&world, json!([{ "poison": true }])).await;
    let first = world.post("/api/v1/ack", &verdict(&popped["messages"][0], "failed")).await.json();
    assert_eq!((&first[0]["success"], &first[0]["dlq"]), (&json!(true), &json!(false)));
    let again = world.get("/api/v1/pop/queue/q?wait=true&timeout=30000").await.json();
    assert_eq!(again["messages"][0]["retryCount"], json!(1));
    assert_ne!(again["leaseId"], popped["leaseId"]);
    let stale = world.post("/api/v1/ack", &verdict(&popped["messages"][0], "completed")).await;
    assert_eq!(stale.json()[0]["error"], "Invalid or expired lease");
    let second = world.post("/api/v1/ack", &verdict(&again["messages"][0], "failed")).await.json();
    assert_eq!((&second[0]["success"], &second[0]["dlq"]), (&json!(true), &json!(true)));
    assert_eq!(world.get("/api/v1/pop/queue/q").await.status, 204);
    let dead = world.get("/api/v1/dlq?queue=q&consumerGroup=__QUEUE_MODE__").await.json();
    assert_eq!(dead["total"], json!(1));
    let letter = &dead["messages"][0];
    assert_eq!(letter["data"], json!({ "poison": true }));
    assert_eq!((&letter["transactionId"], &letter["errorMessage"]), (&json!("t0"), &json!("boom")));
    assert_eq!((&letter["queue"], &letter["partition"]), (&json!("q"), &json!("Default")));
    assert_eq!(letter["retryCount"], json!(2));
    assert_eq!(world.get("/api/v1/dlq?queue=q&consumerGroup=x").await.json()["total"], json!(0));
}

#[tokio::test]
async fn dead_letters_come_in_pages() {
    let world = World::new().await;
    let popped = leased(&world, json!([0, 1, 2])).await;
    for message in popped["messages"].as_array().unwrap() {
        let buried = world.post("/api/v1/ack", &verdict(message, "dlq")).await.json();
        assert_eq!(buried[0]["dlq"], json!(true), "{buried}");
    }
    let page = world.get("/api/v1/dlq?queue=q&limit=2").await.json();
    assert_eq!((&page["hasMore"], &page["total"]), (&json!(true), &json!(3)));
    assert_eq!(page["pagination"], json!({ "limit": 2, "offset": 0 }));
    let rest = world.get("/api/v1/dlq?queue=q&limit=2&offset=2").await.json();
    assert_eq!((&rest["hasMore"], &rest["total"]), (&json!(false), &json!(3)));
    let payloads =
        page["messages"].as_array().unwrap().iter().chain(rest["messages"].as_array().unwrap());
    assert_eq!(
        payloads.map(|it| it["data"].clone()).collect::<Vec<_>>(),
        [2, 1, 0],
        "newest first"
    );
}

#[tokio::test]
async fn a_retry_is_no_attempt_and_no_fault() {
    let world = World::new().await;
    let popped = leased(&world, json!([1])).await;
    let acked = world.post("/api/v1/ack", &verdict(&popped["messages"][0], "retry")).await.json();
    assert_eq!(acked[0]["success"], json!(true));
    let again = world.get("/api/v1/pop/queue/q?wait=true&timeout=30000").await.json();
    assert_eq!(again["messages"][0]["retryCount"], json!(0));
}

#[tokio::test]
async fn an_extension_is_one_object_for_all_clients_and_an_empty_body_is_enough() {
    let world = World::new().await;
    let popped = leased(&world, json!([1])).await;
    let lease = popped["leaseId"].as_str().unwrap();
    for path in
        [format!("/api/v1/lease/{lease}/extend"), format!("/queen/api/v1/lease/{lease}/extend")]
    {
        let answer = world.ask("POST", &path, "").await;
        assert_eq!(answer.status, 200);
        let json = answer.json();
        assert_eq!((&json["leaseId"], &json["success"]), (&json!(lease), &json!(true)));
        assert_eq!(json["renewed"], json!(1));
        assert_eq!(json["newExpiresAt"], json["expiresAt"]);
        assert_eq!(json["lease_expires_at"], json["expiresAt"]);
        assert!(json["expiresAt"].as_str().unwrap().ends_with('Z'));
    }
    let gone = "019a0c11-7fe8-7001-9999-0123456789ab";
    let lost = world.ask("POST", &format!("/api/v1/lease/{gone}/extend"), "{}").await;
    assert_eq!(lost.error(), (404, "Lease not found".into(), "lease_not_found".into()));
    let lost = world.ask("POST", &format!("/queen/api/v1/lease/{gone}/extend"), "{}").await;
    let (status, lost) = (lost.status, lost.json());
    assert_eq!((status, &lost["success"], &lost["renewed"]), (200, &json!(false), &json!(0)));
    let lost = world.ask("POST", "/api/v1/lease/not-a-lease/extend", "{}").await;
    assert_eq!(lost.status, 404);
}

#[tokio::test]
async fn ack_bodies_are_refused_in_the_words_of_the_contract() {
    let world = World::new().await;
    let refused = world.post("/api/v1/ack", &json!({})).await.error();
    assert_eq!((refused.0, refused.1.as_str()), (400, "transactionId is required"));
    let refused = world.post("/api/v1/ack/batch", &json!({ "acknowledgments": 7 })).await.error();
    assert_eq!((refused.0, refused.1.as_str()), (400, "acknowledgments array is required"));
}
