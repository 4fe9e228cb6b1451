//! Queues: list, show, create, configure, clear, delete.

use serde_json::json;

use crate::world::World;

#[test]
fn a_queue_is_made_with_its_options_and_changed_one_by_one() {
    let world = World::new();
    let line = "queues create orders --namespace shop --task billing --lease-time 1m --retry-limit 5 \
                --retry-delay 250ms --delayed-processing 1s --window-buffer 2s --priority -3 --max-size 1000 \
                --ttl 2h --max-wait-time 1d --retention-enabled --retention 7d --completed-retention 1h \
                --dead-letter-queue --dlq-after-max-retries=true --encryption-enabled=false";
    let made = world.json(line);
    let expected = json!({
        "leaseTime": 60, "retryLimit": 5, "retryDelay": 250, "delayedProcessing": 1, "windowBuffer": 2,
        "priority": -3, "maxSize": 1000, "ttl": 7200, "maxWaitTimeSeconds": 86_400,
        "retentionEnabled": true, "retentionSeconds": 604_800, "completedRetentionSeconds": 3600,
        "deadLetterQueue": true, "dlqAfterMaxRetries": true, "encryptionEnabled": false,
    });
    assert_eq!(made["options"], expected);
    assert_eq!((&made["namespace"], &made["task"]), (&json!("shop"), &json!("billing")));

    let changed = world.json("queues configure orders --retry-limit 9 --task shipping");
    assert_eq!(changed["options"]["retryLimit"], 9);
    assert_eq!(
        (&changed["options"]["priority"], &changed["options"]["ttl"]),
        (&json!(-3), &json!(7200))
    );
    assert_eq!((&changed["namespace"], &changed["task"]), (&json!("shop"), &json!("shipping")));
    let replaced = world.json("queues configure orders --replace --priority 1");
    assert_eq!(
        (&replaced["options"]["priority"], &replaced["options"]["retryLimit"]),
        (&json!(1), &json!(3))
    );
    assert_eq!(replaced["namespace"], "");

    world.run("queues create orders").refused(1, &["exists already", "queues configure"]);
    world.run("queues configure orders").refused(2, &["no option is given", "--help"]);
    world.run("queues configure orders --ttl 1500ms").refused(2, &["--ttl", "whole seconds"]);
    world.run("queues configure orders --sql-rows").refused(1, &["onrushctl: "]);
    world.run("queues show nothing").refused(1, &["queue_not_found", "queues list"]);
}

#[test]
fn options_that_are_kept_do_not_begin_to_drop_messages() {
    // An hour is the default of ttl, which drops nothing unless somebody asks for it.
    let world = World::new();
    world.json("queues create q");
    let log = || world.json("queues show q")["options"]["ttl"].clone();
    assert_eq!(log(), 3600);
    world.json("queues configure q --priority 2");
    assert_eq!(log(), 3600);
    let sent = world.json("queues configure q --ttl 30m");
    assert_eq!(sent["options"]["ttl"], 1800);
    assert_eq!(
        world.json("queues configure q --priority 3")["options"]["ttl"],
        1800,
        "one that was asked for is kept"
    );
}

#[test]
fn changes_at_the_same_moment_do_not_undo_each_other() {
    let world = World::new();
    world.json("queues create q --namespace n");
    for round in 1..=5 {
        std::thread::scope(|scope| {
            for change in ["--priority", "--retry-limit", "--max-size"] {
                let line = format!("queues configure q {change} {round}");
                let world = &world;
                scope.spawn(move || world.json(&line));
            }
        });
        let shown = world.json("queues show q");
        for name in ["priority", "retryLimit", "maxSize"] {
            assert_eq!(shown["options"][name], round, "{name} of {shown}");
        }
        assert_eq!(shown["namespace"], "n");
    }
}

#[test]
fn queues_are_listed_and_shown_in_every_form() {
    let world = World::new();
    assert_eq!(world.json("queues list"), json!({ "queues": [], "total": 0 }));
    let none = world.run("queues list -o table");
    assert_eq!((none.code, none.out.as_str()), (0, ""));
    assert!(none.err.contains("queues create"), "{none:?}");
    world.json("queues create a --namespace x");
    world.json("queues create b --namespace y --task t");
    world.push("b", "1\n2\n3\n");
    let names: Vec<_> = world.run("queues list -o ndjson").lines();
    let names: Vec<_> = names.iter().map(|queue| queue["name"].clone()).collect();
    assert_eq!(names, ["b", "a"]);
    let (titles, rows) = world.table("queues ls");
    assert_eq!(titles[..5], ["NAME", "NAMESPACE", "TASK", "PARTITIONS", "MESSAGES"]);
    assert_eq!(rows[0][..6], ["b", "y", "t", "1", "3", "3"]);
    let only = world.json("queues list --namespace x");
    assert_eq!((only.as_array().unwrap().len(), &only[0]["name"]), (1, &json!("a")));
    assert_eq!(world.json("queues list --namespace x --task t"), json!([]));

    world.run("pop b --group readers --from all").done();
    let shown = world.json("queues show b");
    assert_eq!(
        (&shown["totals"]["total"], &shown["groups"][0]["name"]),
        (&json!(3), &json!("readers"))
    );
    assert_eq!(world.run("queues show b -o ndjson").lines(), [shown]);
    let text = world.run("queues show b -o table").done();
    world.run("push b -p second --payload 1").done();
    let first = world.run("queues show b --limit 1 -o table");
    assert_eq!(first.err, "there are more partitions: --limit and --offset reach them\n");
    assert_eq!(world.run("queues show b --limit 2 -o table").err, "");
    for part in ["lease time", "5m", "GROUP", "readers", "PARTITION", "Default"] {
        assert!(text.contains(part), "{part} is missing: {text}");
    }
}

#[test]
fn clearing_and_deleting_need_a_yes_and_say_what_they_did() {
    let world = World::new();
    let items = "{\"data\":1,\"partition\":\"eu\"}\n{\"data\":2,\"partition\":\"us\"}\n{\"data\":3,\"partition\":\"us\"}\n";
    assert_eq!(world.run_with(&["push", "q", "--items"], items).code, 0);
    world
        .run("queues clear q")
        .refused(2, &["would let go of all messages", "nothing was done", "--yes"]);
    world.run("queues delete q").refused(2, &["would delete queue \"q\"", "--yes"]);
    assert_eq!(world.json("queues show q")["totals"]["total"], 3);
    let cleared = world.json("queues clear q --partition eu --yes");
    assert_eq!((&cleared["messages"], &cleared["partition"]), (&json!(1), &json!("eu")));
    let said = world.run("queues clear q -y -o table").done();
    assert_eq!(said, "2 messages of queue \"q\" are gone\n");
    assert_eq!(world.json("queues delete q --yes")["deleted"], true);
    world.run("queues delete q --yes").refused(1, &["does not exist", "queue_not_found"]);
    world.run("queues clear q --yes").refused(1, &["queue_not_found"]);
}

#[test]
fn names_may_hold_what_paths_and_queries_do_not() {
    let world = World::new();
    let name = "a/b?c=d&e ä%2F";
    let made = world.run_with(&["queues", "create", name], "");
    assert_eq!(made.code, 0, "{made:?}");
    assert_eq!(world.run_with(&["push", name, "-p", "p/1", "--payload", "1"], "").code, 0);
    let shown = world.run_with(&["queues", "show", name], "").done();
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    assert_eq!((&shown["name"], &shown["partitions"][0]["name"]), (&json!(name), &json!("p/1")));
    let cleared = world.run_with(&["queues", "clear", name, "-p", "p/1", "--yes"], "").done();
    assert!(cleared.contains("\"messages\": 1"), "{cleared}");
    assert_eq!(world.run_with(&["queues", "delete", name, "--yes"], "").code, 0);
}
