//! Consumer groups: list, show, delete, seek, lag.

use serde_json::{Value, json};

use crate::world::World;

/// A queue of three messages in two partitions; one group has settled one of them.
fn lagging() -> World {
    let world = World::new();
    let items = "{\"data\":1,\"partition\":\"a\"}\n{\"data\":2,\"partition\":\"a\"}\n{\"data\":3,\"partition\":\"b\"}\n";
    assert_eq!(world.run_with(&["push", "orders", "--items"], items).code, 0);
    assert_eq!(world.run("pop orders --partition a --group billing --from all --ack").code, 0);
    world
}

#[test]
fn groups_are_listed_and_shown_in_every_form() {
    let world = World::new();
    let none = world.run("groups list -o table");
    assert_eq!((none.code, none.out.as_str()), (0, ""));
    assert!(none.err.contains("popped"), "{none:?}");
    drop(world);
    let world = lagging();
    assert_eq!(world.run("pop orders --group other --from new").code, 5);
    let all = world.json("groups list");
    assert_eq!(all.as_array().unwrap().len(), 2, "{all}");
    assert_eq!(world.run("groups list -o ndjson").lines(), *all.as_array().unwrap());
    let (titles, rows) = world.table("groups list --queue orders");
    assert_eq!(
        titles,
        ["GROUP", "QUEUE", "MEMBERS", "PARTITIONS", "LAGGING", "LAG", "OLDEST", "STATE"]
    );
    let billing = rows.iter().find(|row| row[0] == "billing").unwrap();
    assert_eq!((billing[5].as_str(), billing[7].as_str()), ("2", "Stable"));
    assert_eq!(world.json("groups list --queue none"), json!([]));

    let shown = world.json("groups show billing");
    assert_eq!(shown["orders"]["partitions"].as_array().unwrap().len(), 2, "{shown}");
    let lines = world.run("groups show billing -o ndjson").lines();
    assert!(lines.iter().all(|line| line["queue"] == "orders"), "{lines:?}");
    let (_, mut rows) = world.table("groups show billing --queue orders");
    // Partitions come in the order of the shards that they happened to come to.
    rows.sort();
    assert_eq!(rows.iter().map(|row| row[1].as_str()).collect::<Vec<&str>>(), ["a", "b"]);
    world.run("groups show nobody").refused(1, &["group_not_found", "groups list"]);
}

#[test]
fn a_group_is_sent_elsewhere_with_a_yes_only() {
    let world = lagging();
    let pop = || -> Vec<Value> {
        let lines = world.run("pop orders --group billing -n 10 --partitions 10 --ack").lines();
        let mut data: Vec<Value> = lines.iter().map(|line| line["data"].clone()).collect();
        data.sort_by_key(Value::as_u64);
        data
    };
    world
        .run("seek billing orders --to-end")
        .refused(2, &["send group \"billing\" to the end", "--yes"]);
    let moved = world.json("seek billing orders --to-end --yes");
    assert_eq!((&moved["seekToEnd"], &moved["success"]), (&json!(true), &json!(true)));
    assert!(pop().is_empty());
    world.json("seek billing orders --to-beginning --yes");
    assert_eq!(pop(), [1, 2, 3]);
    world.json("seek billing orders --to-time 1h --yes");
    assert_eq!(pop(), [1, 2, 3], "an hour ago there was none of them");
    let one = world.json("seek billing orders --partition a --to-beginning --yes");
    assert_eq!((&one["partitionName"], &one["updated"]), (&json!("a"), &json!(true)));
    assert_eq!(pop(), [1, 2]);
    let said = world.run("seek billing orders --to-end --yes -o table").done();
    assert!(said.contains("group \"billing\" is at the end of queue \"orders\""), "{said}");
    world.run("seek billing orders").refused(2, &["--to-time", "--to-end"]);
    world.run("seek billing orders --to-end --to-beginning").refused(2, &["cannot be used with"]);
    world.run("seek billing orders --to-time soon").refused(2, &["\"soon\" is no time"]);
    world.run("seek nobody orders --to-end --yes").refused(1, &["group_not_found"]);
    world
        .run("seek billing orders -p none --to-end --yes")
        .refused(1, &["partition_not_found", "queues show"]);
}

#[test]
fn a_group_is_forgotten_with_a_yes_only() {
    let world = lagging();
    world
        .run("groups delete billing")
        .refused(2, &["forget the cursors", "in all queues", "--yes"]);
    let kept = world.json("groups delete billing --queue orders --keep-start --yes");
    assert_eq!((&kept["metadataDeleted"], &kept["queueName"]), (&json!(false), &json!("orders")));
    assert_eq!(world.run("pop orders --group billing --from all").code, 0);
    let said = world.run("groups rm billing --yes -o table").done();
    assert!(said.starts_with("group \"billing\" is forgotten in all queues"), "{said}");
    assert_eq!(world.json("groups list"), json!([]));
}

#[test]
fn lag_shows_where_and_the_longest_first() {
    let world = lagging();
    let all = world.json("lag");
    assert_eq!(all.as_array().unwrap().len(), 2, "{all}");
    assert_eq!(world.run("lag -o ndjson --limit 1").lines().len(), 1);
    let (titles, rows) = world.table("lag --group billing --queue orders");
    assert_eq!(titles[..4], ["GROUP", "QUEUE", "PARTITION", "LAG"]);
    assert!(rows.iter().all(|row| row[3] == "1"), "{rows:?}");
    assert_eq!(world.json("lag --min 1h"), json!([]));
    assert_eq!(world.json("lag --group nobody"), json!([]));
    let none = world.run("lag --queue other -o table");
    assert_eq!((none.code, none.err.as_str()), (0, "no group lags\n"));
}
