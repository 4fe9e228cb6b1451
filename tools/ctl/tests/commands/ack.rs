//! Pop and ack.

use serde_json::{Value, json};

use crate::world::World;

#[test]
fn what_was_popped_is_acknowledged_by_its_own_lines() {
    let world = World::new();
    world.push("q", "1\n2\n3\n");
    let popped = world.run("pop q -n 2");
    let lines = popped.lines();
    assert_eq!((popped.code, lines.len()), (0, 2), "{popped:?}");
    for field in ["id", "transactionId", "partitionId", "leaseId", "leaseExpiresAt", "createdAt"] {
        assert!(lines[0][field].is_string(), "{field}: {}", lines[0]);
    }
    assert_eq!((&lines[1]["data"], &lines[1]["sequence"]), (&json!(2), &json!(1)));
    assert_eq!(lines[0]["consumerGroup"], "__QUEUE_MODE__");
    let acked = world.run_with(&["ack"], &popped.out);
    let told: Vec<_> = acked.lines().iter().map(|line| line["success"].clone()).collect();
    assert_eq!((acked.code, told), (0, vec![json!(true), json!(true)]));
    let last = world.run("pop q --wait 10s").lines();
    assert_eq!((last.len(), &last[0]["data"]), (1, &json!(3)));

    // The same one message by its ids, once as failed, then as done.
    let ids = |line: &Value| -> Vec<String> {
        ["partitionId", "transactionId", "leaseId"]
            .map(|it| line[it].as_str().unwrap().to_owned())
            .to_vec()
    };
    let [partition, transaction, lease] = &ids(&last[0])[..] else { panic!("three ids") };
    let failed =
        ["ack", partition, transaction, "--lease", lease, "--status", "failed", "--error", "no"];
    assert_eq!(world.run_with(&failed, "").code, 0);
    let again = world.run("pop q --wait 30s").lines();
    assert_eq!((&again[0]["data"], &again[0]["retryCount"]), (&json!(3), &json!(1)));
    let stale = world.run_with(&["ack", partition, transaction, "--lease", lease], "");
    stale.refused(1, &["1 of 1 messages were not settled"]);
    assert_eq!(stale.lines()[0]["success"], false);
    let [_, _, lease] = &ids(&again[0])[..] else { panic!("three ids") };
    let table = ["ack", partition, transaction, "--lease", lease, "-o", "table"];
    let said = world.run_with(&table, "").done();
    assert!(said.starts_with("TRANSACTION ID") && said.contains("yes"), "{said}");
    world.run("pop q").refused(5, &[]);
}

#[test]
fn popping_says_by_its_exit_code_that_there_is_nothing() {
    let world = World::new();
    world.json("queues create q");
    let none = world.run("pop q");
    assert_eq!((none.code, none.out.as_str(), none.err.as_str()), (5, "", ""), "{none:?}");
    assert_eq!(world.run("pop q -o json").out, "[]\n");
    let table = world.run("pop q -o table");
    assert_eq!((table.code, table.err.as_str()), (5, "nothing to pop\n"));
}

#[test]
fn a_pop_can_complete_what_it_has_printed() {
    let world = World::new();
    world.push("q", "{ \"a\": 1 }\n");
    let list: Value =
        serde_json::from_str(&world.run("pop q --ack -o json --lease 1m").done()).unwrap();
    assert_eq!(list[0]["data"], json!({ "a": 1 }));
    world.run("pop q").refused(5, &[]);
    let shown = world.json("queues show q");
    assert_eq!(
        (&shown["totals"]["pending"], &shown["totals"]["processing"]),
        (&json!(0), &json!(0))
    );
    world.push("q", "2\n3\n");
    let (titles, rows) = world.table("pop q --group g --from all -n 10 --partition Default");
    assert_eq!(titles.last().unwrap(), "DATA");
    assert_eq!(rows.len(), 3, "another group gets all of it: {rows:?}");
    world.run("pop q --group new --from new").refused(5, &[]);
    world.push("q", "4\n");
    assert_eq!(world.run("pop q --group new -n 10").lines()[0]["data"], 4);
    world.run("pop q -n 0").refused(2, &["10000"]);
    world.run("pop q --from sometime --group x").refused(2, &["no time"]);
}

#[test]
fn lines_of_several_groups_and_verdicts_of_their_own_are_told_apart() {
    let world = World::new();
    world.push("q", "1\n2\n");
    let mut lines = world.run("pop q -n 2 --group a --from all").done();
    lines.push_str(&world.run("pop q -n 2 --group b --from all").done());
    // Of the first message group a says that it is beyond hope.
    let lines = lines.replacen('{', "{\"status\":\"dlq\",\"error\":\"beyond hope\",", 1);
    let acked = world.run_with(&["ack"], &lines);
    let told = acked.lines();
    assert_eq!((acked.code, told.len()), (0, 4), "{acked:?}");
    assert_eq!(told.iter().filter(|line| line["dlq"] == true).count(), 1);
    let letters = world.json("dlq list --queue q");
    assert_eq!(letters["messages"].as_array().unwrap().len(), 1);
    let letter = &letters["messages"][0];
    assert_eq!(
        (&letter["consumerGroup"], &letter["errorMessage"]),
        (&json!("a"), &json!("beyond hope"))
    );

    world.run_with(&["ack"], "{\"no\":1}\n").refused(2, &["line 1", "no message"]);
    let none = world.run_with(&["ack"], "");
    assert_eq!((none.code, none.err.as_str()), (0, "no lines, nothing acknowledged\n"));
    world.run("ack only-one-id").refused(2, &["TRANSACTION_ID"]);
}
