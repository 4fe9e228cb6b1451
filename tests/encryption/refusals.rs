//! It fails closed: without a key nothing is taken, and what does not open is refused by name, stays
//! where it is, counts no attempt, and holds up nobody else.

use onrush::buffer::flush::FlushWish;
use onrush::buffer::ring::{Pending, Placed};
use onrush::config::Secret;
use onrush::sealing::Place;
use onrush::state::draft::push::PushBatch;
use onrush_client::Client;
use onrush_protocol::batch::{BatchBuilder, NewRecord, RecordBatch};
use onrush_protocol::qos::Qos;
use serde_json::{Value, json};

use crate::client::World;
use crate::desk::{Desk, payloads};

#[tokio::test(flavor = "multi_thread")]
async fn without_a_key_neither_the_queue_nor_a_push_to_it_is_taken() {
    let key = Secret::new("ab".repeat(32));
    let world = World::with(|settings| settings.encryption.key = key).await;
    let body = json!({ "queue": "q", "options": { "encryptionEnabled": true } });
    assert_eq!(world.post("/api/v1/configure", &body).await.status, 200);
    assert_eq!(world.push(json!([{ "queue": "q", "payload": 1 }])).await.status, 201);
    let world = world.restart_with(|settings| settings.encryption.key = Secret::default()).await;
    let other = json!({ "queue": "r", "options": { "encryptionEnabled": true } });
    let (status, _, code) = world.post("/api/v1/configure", &other).await.error();
    assert_eq!((status, code.as_str()), (409, "encryption_key_missing"));
    let refused =
        world.push(json!([{ "queue": "q", "payload": 2 }, { "queue": "s", "payload": 3 }]));
    let refused = refused.await.json();
    assert_eq!(refused["messages"][0]["status"], "failed", "{refused}");
    assert_eq!(refused["messages"][0]["code"], "encryption_key_missing", "{refused}");
    assert_eq!(
        refused["messages"][1]["status"], "pushed",
        "another queue is not disturbed: {refused}"
    );
    let client = Client::connect(&world.server.tcp_addr().to_string()).await.unwrap();
    let messages = [onrush_client::Message::json(&4)];
    let result = client.queue("q").push(messages).qos(Qos::Buffered).await;
    let told = format!("{result:?}");
    assert!(told.contains("this server has no key"), "{told}");
    let popped = world.get("/api/v1/pop/queue/q").await.error();
    assert_eq!(
        (popped.0, popped.1.as_str()),
        (503, "message 0 of partition Default cannot be handed out: key 0 is not here")
    );
    // The key comes back: nothing was lost, and nothing was added.
    let world = world.restart_with(|it| it.encryption.key = Secret::new("ab".repeat(32))).await;
    let popped = world.get("/api/v1/pop/queue/q?batch=10").await.json();
    assert_eq!(payloads(&popped), [json!(1)]);
    assert_eq!(popped["messages"][0]["retryCount"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_taken_away_holds_its_messages_up_and_gives_them_back_when_it_returns() {
    let desk = Desk::with_keys(&[(1, 'a')]).await;
    desk.sealed_queue("secrets").await;
    desk.push("secrets", "old", &[json!(1), json!(2)]).await;
    desk.keys(&[(2, 'b'), (1, 'a')]).await;
    desk.push("secrets", "old", &[json!(3)]).await;
    desk.push("secrets", "new", &[json!(4)]).await;
    desk.keys(&[(2, 'b')]).await;
    // More often than a message may be tried, with and without a lease.
    for query in ["batch=10", "batch=10&autoAck=true"].repeat(4) {
        let one = "/partition/old";
        let path = format!("/api/v1/pop/queue/secrets{one}?{query}&consumerGroup=g");
        let (status, error, code) = desk.world.get(&path).await.error();
        assert_eq!((status, code.as_str()), (503, "key_not_here"));
        assert!(error.contains("key 1 is not here"), "{error}");
    }
    let address = desk.world.server.tcp_addr().to_string();
    let client = Client::connect(&address).await.unwrap();
    let refused =
        client.queue("secrets").partition("old").pop().group("g").send().await.unwrap_err();
    assert!(refused.to_string().contains("key 1 is not here"), "{refused}");
    let path = "/api/v1/pop/queue/secrets?batch=10&partitions=10&consumerGroup=g&autoAck=true";
    assert_eq!(payloads(&desk.world.get(path).await.json()), [json!(4)], "others are not held up");
    desk.keys(&[(2, 'b'), (1, 'a')]).await;
    let popped = desk.world.get(path).await.json();
    assert_eq!(payloads(&popped), [json!(1), json!(2), json!(3)]);
    let retries = popped["messages"].as_array().unwrap().iter().map(|it| &it["retryCount"]);
    assert!(retries.into_iter().all(|it| *it == 0), "{popped}");
    let letters = desk.world.get("/api/v1/dlq?queue=secrets").await.json();
    assert_eq!(letters["messages"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_opens_before_a_message_that_does_not_is_handed_out_and_the_rest_is_held_by_nobody() {
    let desk = Desk::with_keys(&[(1, 'a')]).await;
    desk.sealed_queue("secrets").await;
    desk.push("secrets", "p", &[json!(1), json!(2)]).await;
    desk.keys(&[(2, 'b'), (1, 'a')]).await;
    desk.push("secrets", "p", &[json!(3)]).await;
    desk.keys(&[(1, 'a')]).await;
    let popped = desk.world.get("/api/v1/pop/queue/secrets?batch=10").await.json();
    assert_eq!(payloads(&popped), [json!(1), json!(2)]);
    let acks = popped["messages"].as_array().unwrap().iter().map(|message| {
        json!({ "transactionId": message["transactionId"], "partitionId": message["partitionId"],
                "leaseId": message["leaseId"], "status": "completed" })
    });
    let body = json!({ "acknowledgments": acks.collect::<Vec<_>>() });
    assert_eq!(desk.world.post("/api/v1/ack/batch", &body).await.status, 200);
    let (status, error, _) = desk.refused("secrets", "batch=10").await;
    assert_eq!(status, 503, "the lease is over with what was handed out: {error}");
    assert!(error.contains("key 2 is not here"), "{error}");
    desk.keys(&[(1, 'a'), (2, 'b')]).await;
    let popped = desk.world.get("/api/v1/pop/queue/secrets?batch=10").await.json();
    assert_eq!(payloads(&popped), [json!(3)]);
    assert_eq!(popped["messages"][0]["retryCount"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_key_under_the_same_number_opens_nothing() {
    let desk = Desk::with_keys(&[(1, 'a')]).await;
    desk.sealed_queue("secrets").await;
    desk.push("secrets", "p", &[json!("x")]).await;
    desk.keys(&[(1, 'f'), (3, 'c')]).await;
    let (status, error, code) = desk.refused("secrets", "batch=1&autoAck=true").await;
    assert_eq!((status, code.as_str()), (503, "seal_broken"), "{error}");
    desk.keys(&[(1, 'a')]).await;
    assert_eq!(desk.take("secrets", 1).await, [json!("x")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_whose_next_message_does_not_open_holds_up_no_other_of_its_namespace() {
    let desk = Desk::with_keys(&[(1, 'a')]).await;
    for (queue, priority, encrypts) in [("blocked", 9, true), ("other", 0, false)] {
        let body = json!({
            "queue": queue, "namespace": "n",
            "options": { "encryptionEnabled": encrypts, "priority": priority },
        });
        assert_eq!(desk.world.post("/api/v1/configure", &body).await.status, 200);
    }
    desk.push("blocked", "p", &[json!("sealed")]).await;
    desk.push("other", "p", &[json!(0), json!(1), json!(2)]).await;
    desk.keys(&[(2, 'b')]).await;
    let path = "/api/v1/pop?namespace=n&autoAck=true&wait=true&timeout=60000";
    for expected in 0..3 {
        assert_eq!(payloads(&desk.world.get(path).await.json()), [json!(expected)]);
    }
    let (status, error, code) = desk.world.get(path).await.error();
    assert_eq!((status, code.as_str()), (503, "key_not_here"), "{error}");
    desk.keys(&[(2, 'b'), (1, 'a')]).await;
    assert_eq!(payloads(&desk.world.get(path).await.json()), [json!("sealed")]);
}

/// Puts a batch into a queue's ring as if admission had sealed it.
fn smuggle(desk: &Desk, queue: &str, partition: &str, batch: RecordBatch) {
    let engine = &desk.world.server.rooms().engine;
    let queue = engine.catalog_now().find(queue).unwrap().id;
    let hash = engine.key().place(queue, partition);
    let push = PushBatch { batch, fingerprints: Vec::new(), sub: None };
    let pending = Pending { push, qos: Qos::Buffered, signer: None, places: None };
    let partition = partition.parse().unwrap();
    let placed = Placed { queue, partition, hash, flush: FlushWish::Now, pending };
    let shard = engine.shards().of_hash(hash);
    engine.buffers().push(shard, placed, engine.clock().monotonic_us()).unwrap();
}

fn clear(payload: &Value) -> RecordBatch {
    let mut builder = BatchBuilder::new();
    let payload = payload.to_string();
    let record = NewRecord { is_json: true, payload: payload.as_bytes(), ..NewRecord::default() };
    builder.push(&record).unwrap();
    builder.finish().unwrap()
}

async fn refused_once_it_is_there(desk: &Desk, queue: &str) -> (u16, String, String) {
    desk.refused(queue, "batch=10&wait=true&timeout=60000&autoAck=true").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_was_moved_or_changed_is_refused_and_the_others_are_not_disturbed() {
    let desk = Desk::with_keys(&[(1, 'a')]).await;
    for queue in ["one", "two", "three"] {
        desk.sealed_queue(queue).await;
    }
    let engine = desk.world.server.rooms().engine.clone();
    let id = |name: &str| engine.catalog_now().find(name).unwrap().id;
    let place = Place { queue: id("one"), partition: "p" };
    let sealed = engine.seals().seal(place, &clear(&json!("of one"))).unwrap();
    // Into another queue, and into another partition of its own.
    smuggle(&desk, "two", "p", sealed.clone());
    assert_eq!(refused_once_it_is_there(&desk, "two").await.2, "seal_broken");
    smuggle(&desk, "one", "q", sealed.clone());
    assert_eq!(refused_once_it_is_there(&desk, "one").await.2, "seal_broken");
    let changed = sealed.rewrite(true, 0, |record, out| {
        out.extend_from_slice(record.payload);
        *out.last_mut().unwrap() ^= 1;
        Ok::<_, ()>(())
    });
    smuggle(&desk, "one", "p", sealed);
    desk.push("three", "other", &[json!("fine")]).await;
    smuggle(&desk, "one", "p", changed.unwrap());
    // The first one is where it belongs; the second holds its partition, however often it is asked for.
    let path = "/api/v1/pop/queue/one/partition/p?batch=1&wait=true&timeout=60000&autoAck=true";
    assert_eq!(payloads(&desk.world.get(path).await.json()), [json!("of one")]);
    for _ in 0..6 {
        assert_eq!(desk.world.get(path).await.error().2, "seal_broken");
    }
    assert_eq!(desk.take("three", 10).await, [json!("fine")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_reaches_its_ring_in_clear_is_sealed_before_it_is_committed() {
    let desk = Desk::with_keys(&[(1, 'a')]).await;
    desk.sealed_queue("secrets").await;
    // As a push whose queue was asked to encrypt while the message waited in its ring.
    smuggle(&desk, "secrets", "p", clear(&json!("late-canary")));
    let path = "/api/v1/pop/queue/secrets?wait=true&timeout=60000&consumerGroup=g";
    assert_eq!(payloads(&desk.world.get(path).await.json()), [json!("late-canary")]);
    let desk = desk.restart().await;
    assert_eq!(
        crate::resting::files_with(desk.world.folder.path(), b"late-canary"),
        Vec::<String>::new()
    );
}
