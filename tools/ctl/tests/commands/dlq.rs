//! Dead letters, and the jobs that move them.

use serde_json::{Value, json};

use crate::world::{Ran, World, wait_until};

fn letters(world: &World, line: &str) -> usize {
    world.json(line)["messages"].as_array().unwrap().len()
}

/// Three dead letters of one group.
fn buried() -> World {
    let world = World::new();
    world.push("orders", "{\"n\":1}\n{\"n\":2}\n{\"n\":3}\n");
    world.bury("orders", "billing", "it broke");
    world
}

#[test]
fn letters_are_listed_and_shown_in_every_form() {
    let world = buried();
    assert_eq!(letters(&world, "dlq list"), 3);
    assert_eq!(
        letters(
            &world,
            "dlq list --queue orders --group billing --partition Default --from 1h --limit 2"
        ),
        2
    );
    assert_eq!(letters(&world, "dlq list --offset 2"), 1);
    assert_eq!(letters(&world, "dlq list --to 1h"), 0, "none failed an hour ago");
    assert_eq!(letters(&world, "dlq list --group other"), 0);
    let lines = world.run("dlq ls -o ndjson").lines();
    assert_eq!((lines.len(), &lines[0]["errorMessage"]), (3, &json!("it broke")));
    let (titles, rows) = world.table("dlq list");
    assert_eq!(titles[..4], ["FAILED", "QUEUE", "PARTITION", "GROUP"]);
    assert_eq!((rows.len(), rows[0][5].as_str()), (3, "it broke"));
    let page = world.run("dlq list --limit 2 -o table");
    assert_eq!(page.err, "there is more: --limit and --offset reach it\n");
    assert_eq!(world.run("dlq list --limit 3 -o table").err, "");

    let id = lines[0]["id"].as_str().unwrap();
    let shown = world.json(&format!("dlq show {id}"));
    assert_eq!((&shown["status"], &shown["payload"]), (&json!("dead_letter"), &lines[0]["data"]));
    let text = world.run(&format!("dlq show {id} -o table")).done();
    assert!(text.contains("it broke") && text.contains("\"n\": "), "{text}");
    world.push("orders", "4\n");
    let alive = world.run("tail orders -n 1").lines();
    world
        .run(&format!("dlq show {}", alive[0]["id"].as_str().unwrap()))
        .refused(1, &["no dead letter", "messages get"]);
}

#[test]
fn redriven_letters_come_to_their_group_again() {
    let world = buried();
    let counted = world.json("dlq redrive orders --dry-run");
    assert_eq!((&counted["moved"], &counted["status"]), (&json!(3), &json!("done")));
    assert_eq!(letters(&world, "dlq list"), 3, "only counted");
    let some = world.json("dlq redrive orders --group billing --error broke --limit 2 --rate 1000");
    assert_eq!((&some["moved"], &some["limit"]), (&json!(2), &json!(2)));
    let stream = world.run("dlq redrive orders -o ndjson");
    let last = stream.lines().pop().unwrap();
    assert_eq!((stream.code, &last["moved"], &last["status"]), (0, &json!(1), &json!("done")));
    assert_eq!(letters(&world, "dlq list"), 0);
    let again = world.run("pop orders --group billing -n 10").lines();
    assert_eq!(again.iter().map(|it| it["data"]["n"].clone()).collect::<Vec<Value>>(), [1, 2, 3]);
    assert!(again.iter().all(|it| it["retryCount"] == 0));

    let (_, rows) = world.table("dlq jobs list");
    assert_eq!((rows.len(), rows[0][1].as_str(), rows[0][4].as_str()), (3, "redrive", "done"));
    assert_eq!(world.json("dlq jobs show 1")["dryRun"], true);
    assert_eq!(world.json("dlq jobs wait 1")["status"], "done");
    let sheet = world.run("dlq jobs show 2 -o table").done();
    assert!(sheet.contains("letters a second  1000"), "{sheet}");
    world.run("dlq jobs show 99").refused(1, &["job_not_found", "dlq jobs list"]);
    world.run("dlq redrive nothing").refused(1, &["queue_not_found"]);
}

#[test]
fn a_job_need_not_be_waited_for_and_can_be_stopped() {
    let world = World::new();
    let input: String = (0..200).map(|n| format!("{n}\n")).collect();
    world.push("orders", &input);
    world.bury("orders", "billing", "x");
    let job = world.json("dlq redrive orders --rate 1 --no-wait");
    assert_eq!(job["status"], "running");
    let id = job["id"].as_u64().unwrap();
    let mut waiting = world.command(&["dlq", "jobs", "wait", &id.to_string()]);
    waiting.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let waiting = waiting.spawn().unwrap();
    let stopped = world.json(&format!("dlq jobs cancel {id}"));
    assert_eq!(stopped["status"], "cancelled");
    assert!(stopped["moved"].as_u64().unwrap() < 200, "{stopped}");
    let ran: Ran = waiting.wait_with_output().unwrap().into();
    ran.refused(1, &[&format!("job {id} is cancelled")]);
}

#[test]
fn ctrl_c_ends_the_waiting_and_not_the_job() {
    let world = World::new();
    let input: String = (0..200).map(|n| format!("{n}\n")).collect();
    world.push("orders", &input);
    world.bury("orders", "billing", "x");
    let mut waiting = world.command(&["dlq", "redrive", "orders", "--rate", "1"]);
    waiting.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let waiting = waiting.spawn().unwrap();
    wait_until("the job has begun", || {
        (world.json("dlq jobs list")["jobs"][0]["status"] == "running").then_some(())
    });
    let pid = waiting.id().to_string();
    assert!(std::process::Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    let ran: Ran = waiting.wait_with_output().unwrap().into();
    ran.refused(130, &["job 1 goes on", "dlq jobs wait 1", "cancel 1"]);
    assert_eq!(world.json("dlq jobs show 1")["status"], "running");
    world.json("dlq jobs cancel 1");
}

#[test]
fn requeued_letters_are_new_messages_and_deleted_ones_are_gone() {
    let world = buried();
    let job = world.json("dlq requeue orders --to-queue repair --to-partition later --limit 1");
    assert_eq!((&job["action"], &job["moved"]), (&json!("requeue"), &json!(1)));
    let moved = world.run("pop repair -n 10").lines();
    assert_eq!((moved.len(), &moved[0]["partition"]), (1, &json!("later")));
    world.run("dlq delete orders --group billing --error broke").refused(
        2,
        &[
            "delete all dead letters of queue \"orders\", group \"billing\", error with \"broke\"",
            "--yes",
        ],
    );
    assert_eq!(world.json("dlq delete orders --dry-run")["moved"], 2);
    assert_eq!(letters(&world, "dlq list"), 2);
    assert_eq!(world.json("dlq delete orders --yes")["moved"], 2);
    assert_eq!(letters(&world, "dlq list"), 0);
}
