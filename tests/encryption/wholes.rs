//! What transactions and cycles of queries push to a queue that asks for encryption.

use serde_json::{Value, json};

use crate::client::World;
use crate::desk::{Desk, payloads};
use crate::resting::files_with;

const CANARY: &str = "canary-in-a-whole-4e1b";

/// A transaction and a cycle that push into `secrets`; what each was answered.
async fn push_both(world: &World) -> [Value; 2] {
    let push = json!({ "type": "push", "queue": "secrets", "payload": { "by": "transaction", "text": CANARY } });
    let transaction = json!({ "operations": [push] });
    let transaction = world.post("/api/v1/transaction", &transaction).await.json();
    let query = json!({ "name": "n", "source_queue": "open", "config_hash": "h" });
    let query = world.post("/streams/v1/queries", &query).await.json()["query_id"].clone();
    world.push(json!([{ "queue": "open", "payload": 1 }])).await;
    let read = world.get("/api/v1/pop/queue/open?autoAck=true").await.json();
    let cycle = json!({ "query_id": query, "partition_id": read["partitionId"], "ack": null,
        "push_items": [{ "queue": "secrets", "payload": { "by": "cycle", "text": CANARY } }] });
    [transaction, world.post("/streams/v1/cycle", &cycle).await.json()]
}

#[tokio::test(flavor = "multi_thread")]
async fn they_seal_it_and_it_is_opened_where_it_leaves() {
    let desk = Desk::with(&[(1, 'a')], |it| it.store.checkpoint_interval_ms = 100).await;
    desk.sealed_queue("secrets").await;
    for done in push_both(&desk.world).await {
        assert_eq!(done["success"], true, "{done}");
    }
    let desk = desk.restart().await;
    let folder = desk.world.folder.path().to_owned();
    assert_eq!(files_with(&folder, CANARY.as_bytes()), Vec::<String>::new());
    let expected = ["transaction", "cycle"].map(|by| json!({ "by": by, "text": CANARY }));
    let popped = desk.world.get("/api/v1/pop/queue/secrets?batch=10").await.json();
    assert_eq!(payloads(&popped), expected);
    // The same by the routes of single messages.
    for (message, payload) in popped["messages"].as_array().unwrap().iter().zip(&expected) {
        let [partition, id] =
            ["partitionId", "transactionId"].map(|it| message[it].as_str().unwrap());
        let path = format!("/api/v1/messages/{partition}/{id}");
        let one = desk.world.get(&path).await.json();
        assert_eq!((&one["payload"], &one["isEncrypted"]), (payload, &json!(true)), "{one}");
    }
    let listed = desk.world.get("/api/v1/messages?queue=secrets").await;
    assert!(!listed.text().contains(CANARY), "a list has no payloads");
    // Without its key a message is shown all the same, and says what it lacks.
    desk.keys(&[(2, 'b')]).await;
    let message = &popped["messages"][0];
    let [partition, id] = ["partitionId", "transactionId"].map(|it| message[it].as_str().unwrap());
    let one = desk.world.get(&format!("/api/v1/messages/{partition}/{id}")).await.json();
    assert_eq!((&one["payload"], &one["isEncrypted"]), (&Value::Null, &json!(true)), "{one}");
    assert_eq!(one["payloadError"], "key 1 is not here");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_key_they_are_refused_whole() {
    let desk = Desk::with_keys(&[(1, 'a')]).await;
    desk.sealed_queue("secrets").await;
    let Desk { world, .. } = desk;
    let world = world.restart_with(|settings| settings.encryption.key_ring = String::new()).await;
    let push = |queue: &str| json!({ "type": "push", "queue": queue, "payload": 1 });
    let both = json!({ "operations": [push("elsewhere"), push("secrets")] });
    let refused = world.post("/api/v1/transaction", &both).await;
    assert_eq!((refused.status, refused.error().2.as_str()), (409, "encryption_key_missing"));
    assert_eq!(world.get("/api/v1/pop/queue/elsewhere").await.status, 204);
    let [_, cycle] = push_both(&world).await;
    assert_eq!(
        (&cycle["success"], &cycle["code"]),
        (&json!(false), &json!("encryption_key_missing"))
    );
}
