//! Single messages and their traces.

use serde_json::{Value, json};

use crate::world::World;

/// A server with one message, its id and that of its partition.
fn with_one() -> (World, String, String) {
    let world = World::new();
    let pushed = world.run("push orders --payload {\"n\":1.50} --transaction-id order-1").lines();
    let text = |field: &str| pushed[0][field].as_str().unwrap().to_owned();
    let (id, partition) = (text("messageId"), text("partitionId"));
    (world, id, partition)
}

#[test]
fn messages_are_found_by_what_is_known_of_them() {
    let (world, id, partition) = with_one();
    let list = |line: &str| world.json(line)["messages"].as_array().unwrap().len();
    assert_eq!(
        list("messages list --queue orders --partition Default --status pending --from 1h"),
        1
    );
    assert_eq!(list("messages list --status dead-letter"), 0);
    assert_eq!(list("messages list --to 1h --from 2h"), 0);
    assert_eq!(list("messages list --namespace orders --limit 1"), 1);
    let (titles, rows) = world.table("messages list");
    assert_eq!(titles[..4], ["ID", "QUEUE", "PARTITION", "STATUS"]);
    assert_eq!((rows[0][0].as_str(), rows[0][3].as_str()), (id.as_str(), "pending"));
    assert_eq!(world.run("messages list -o ndjson").lines()[0]["id"], json!(id));

    let by_id = world.run(&format!("messages get {id}")).done();
    let by_producers = world.run(&format!("messages get {partition} order-1")).done();
    assert_eq!(by_id, by_producers);
    assert!(by_id.contains("\"n\": 1.50"), "the payload is as it was pushed: {by_id}");
    world.run("pop orders --group g --from all").done();
    let text = world.run(&format!("messages get {id} -o table")).done();
    for part in ["transaction id  order-1", "GROUP", "processing", "\"n\": 1.50"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    world.run("messages get order-1").refused(2, &["no message's id", "id of the partition"]);
    world
        .run(&format!("messages get {partition} other"))
        .refused(1, &["message_not_found", "messages list"]);
}

#[test]
fn a_message_is_buried_given_back_and_deleted() {
    let (world, id, partition) = with_one();
    world.run(&format!("messages dlq {id}")).refused(1, &["message_settled"]);
    let popped = world.run("pop orders --group g --from all").done();
    assert_eq!(world.run_with(&["ack", "--status", "retry"], &popped).code, 0);
    let buried =
        world.run_with(&["messages", "dlq", &id, "--group", "g", "--error", "wrong address"], "");
    assert_eq!(buried.code, 0, "{buried:?}");
    let letters = world.json("dlq list");
    assert_eq!(letters["messages"][0]["errorMessage"], "wrong address");
    let said = world.run(&format!("messages retry {partition} order-1 --group g -o table")).done();
    assert_eq!(said, "message order-1 is given back, in 1 groups\n");
    world.run(&format!("messages retry {id}")).refused(1, &["not a dead letter"]);
    world.run(&format!("messages delete {id}")).refused(2, &["delete message", "--yes"]);
    assert_eq!(world.json(&format!("messages delete {id} --yes"))["success"], true);
    world.run(&format!("messages get {id}")).refused(1, &["message_not_found"]);
    world.run("pop orders --group g").refused(5, &[]);
}

#[test]
fn what_happened_to_a_message_is_told_and_found() {
    let (world, id, partition) = with_one();
    let empty = world.run(&format!("traces show {id} -o table"));
    assert!(empty.err.contains("traces add"), "{empty:?}");
    let line = format!(
        "traces add {partition} order-1 --data {{\"paid\":1.10}} --type step --group billing --name order-17 --name payments"
    );
    let told = world.json(&line);
    assert!(told["traceId"].is_string(), "{told}");
    let said = world.run(&format!("traces add {id} --data 7 -o table")).done();
    assert!(said.starts_with("event ") && said.ends_with(" is told\n"), "{said}");
    let events = world.run(&format!("traces show {id} -o ndjson"));
    assert!(events.out.contains("\"data\":{\"paid\":1.10}"), "data is as it was told: {events:?}");
    assert_eq!(events.lines()[0]["trace_names"], json!(["order-17", "payments"]));
    let (_, rows) = world.table(&format!("traces show {partition} order-1"));
    assert_eq!((rows.len(), rows[0][1].as_str(), rows[1][1].as_str()), (2, "step", "info"));
    let named = world.json("traces name order-17 --limit 5");
    assert_eq!((&named["total"], &named["traces"][0]["queue_name"]), (&json!(1), &json!("orders")));
    let names = world.json("traces names");
    let names: Vec<&Value> =
        names["trace_names"].as_array().unwrap().iter().map(|it| &it["trace_name"]).collect();
    assert_eq!(names.len(), 2);
    assert_eq!(world.table("traces names").1.len(), 2);
    world.run(&format!("traces add {id} --data {{")).refused(2, &["--data is no JSON"]);
    world.run(&format!("traces add {partition} none --data 1")).refused(1, &["message_not_found"]);
}
