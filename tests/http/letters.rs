//! Dead letters and what may be done with them; single messages.

use std::time::Duration;

use serde_json::{Value, json};

use crate::client::World;

/// Waits until a job has ended, and shows it.
async fn ended(world: &World, job: &Value) -> Value {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    loop {
        let now = world.get(&format!("/api/v1/dlq/jobs/{}", job["id"])).await.json();
        if now["status"] != "running" {
            return now;
        }
        assert!(tokio::time::Instant::now() < deadline, "a job ends: {now}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn pop(world: &World, group: &str) -> Value {
    let path = format!("/api/v1/pop/queue/q?batch=1000&partitions=10&consumerGroup={group}");
    let popped = world.get(&path).await;
    if popped.status == 204 { json!({ "messages": [] }) } else { popped.json() }
}

fn payloads(page: &Value) -> Vec<Value> {
    page["messages"].as_array().unwrap().iter().map(|it| it["data"].clone()).collect()
}

async fn say(world: &World, popped: &Value, group: &str, status: &str, error: &str) {
    let lines = popped["messages"].as_array().unwrap().iter().map(|message| {
        json!({
            "transactionId": message["transactionId"], "partitionId": message["partitionId"],
            "leaseId": message["leaseId"], "status": status, "error": error,
        })
    });
    let body = json!({ "consumerGroup": group, "acknowledgments": lines.collect::<Vec<_>>() });
    let said = world.post("/api/v1/ack/batch", &body).await.json();
    assert!(said.as_array().unwrap().iter().all(|it| it["success"] == true), "{said}");
}

/// Two groups get the same messages: one is done with them, the other buries them.
async fn buried_by_one_group(world: &World, payloads: std::ops::Range<u32>) {
    let items: Vec<Value> = payloads
        .map(|it| json!({ "queue": "q", "payload": it, "transactionId": format!("t{it}") }))
        .collect();
    world.push(json!(items)).await;
    let popped = pop(world, "done").await;
    say(world, &popped, "done", "completed", "").await;
    let popped = pop(world, "bad").await;
    say(world, &popped, "bad", "dlq", "it broke").await;
}

#[tokio::test]
async fn a_redriven_letter_comes_again_to_its_own_group_only_with_no_attempt_counted() {
    let world = World::new().await;
    buried_by_one_group(&world, 0..3).await;
    assert!(payloads(&pop(&world, "bad").await).is_empty());
    let body = json!({ "queue": "q", "consumerGroup": "bad", "error": "broke" });
    let begun = world.post("/api/v1/dlq/redrive", &body).await;
    assert_eq!(begun.status, 202);
    let job = ended(&world, &begun.json()).await;
    assert_eq!((&job["status"], &job["moved"]), (&json!("done"), &json!(3)), "{job}");
    let again = pop(&world, "bad").await;
    assert_eq!(payloads(&again), [0, 1, 2]);
    assert!(again["messages"].as_array().unwrap().iter().all(|it| it["retryCount"] == 0));
    assert!(payloads(&pop(&world, "done").await).is_empty(), "the other group is done with them");
    assert_eq!(world.get("/api/v1/dlq?queue=q").await.json()["total"], json!(0));
    say(&world, &again, "bad", "completed", "").await;
    let world = world.restart().await;
    assert!(payloads(&pop(&world, "bad").await).is_empty());
    let jobs = world.get("/api/v1/dlq/jobs").await.json();
    assert_eq!(jobs["jobs"][0]["moved"], json!(3), "jobs are remembered");
}

#[tokio::test]
async fn letters_whose_messages_are_gone_from_their_queue_come_back_from_the_letters() {
    let world = World::new().await;
    buried_by_one_group(&world, 0..3).await;
    let cleared = world.ask("DELETE", "/api/v1/queues/q/clear", "").await.json();
    assert_eq!(cleared["messages"], json!(3), "{cleared}");
    assert_eq!(world.get("/api/v1/dlq?queue=q").await.json()["total"], json!(3));
    let begun = world.post("/api/v1/dlq/redrive", &json!({ "queue": "q" })).await.json();
    let job = ended(&world, &begun).await;
    assert_eq!((&job["status"], &job["moved"]), (&json!("done"), &json!(3)), "{job}");
    assert_eq!(payloads(&pop(&world, "bad").await), [0, 1, 2]);
    assert!(payloads(&pop(&world, "done").await).is_empty());
}

#[tokio::test]
async fn a_job_moves_no_more_than_asked_and_a_dry_run_moves_nothing() {
    let world = World::new().await;
    buried_by_one_group(&world, 0..5).await;
    let dry = json!({ "queue": "q", "dryRun": true });
    let begun = world.post("/api/v1/dlq/redrive", &dry).await.json();
    assert_eq!(ended(&world, &begun).await["moved"], json!(5));
    assert_eq!(world.get("/api/v1/dlq?queue=q").await.json()["total"], json!(5));
    let some = json!({ "queue": "q", "limit": 2 });
    let begun = world.post("/api/v1/dlq/delete", &some).await.json();
    assert_eq!(ended(&world, &begun).await["moved"], json!(2));
    assert_eq!(world.get("/api/v1/dlq?queue=q").await.json()["total"], json!(3));
    let other = json!({ "queue": "q", "error": "something else" });
    let begun = world.post("/api/v1/dlq/delete", &other).await.json();
    let job = ended(&world, &begun).await;
    assert_eq!((&job["moved"], &job["skipped"]), (&json!(0), &json!(3)));
}

#[tokio::test]
async fn a_requeued_letter_is_a_new_message_of_the_queue_that_it_is_sent_to() {
    let world = World::new().await;
    buried_by_one_group(&world, 0..2).await;
    let body = json!({ "queue": "q", "toQueue": "other", "toPartition": "p" });
    let begun = world.post("/api/v1/dlq/requeue", &body).await.json();
    let job = ended(&world, &begun).await;
    assert_eq!((&job["status"], &job["moved"]), (&json!("done"), &json!(2)), "{job}");
    let popped = world.get("/api/v1/pop/queue/other/partition/p?batch=10").await.json();
    assert_eq!(payloads(&popped), [0, 1]);
    assert_ne!(popped["messages"][0]["transactionId"], "t0", "it has an id of its own");
    assert_eq!(world.get("/api/v1/dlq?queue=q").await.json()["total"], json!(0));
}

#[tokio::test]
async fn letters_of_a_deleted_group_are_counted_found_deleted_and_go_to_the_group_of_its_name() {
    let world = World::new().await;
    buried_by_one_group(&world, 0..3).await;
    let letters = world.get("/api/v1/dlq?queue=q").await.json();
    let path = |data: i64| {
        let all = letters["messages"].as_array().unwrap();
        let it = all.iter().find(|it| it["data"] == data).unwrap();
        let [partition, id] = ["partitionId", "transactionId"].map(|key| it[key].as_str().unwrap());
        format!("/api/v1/messages/{partition}/{id}")
    };
    world.ask("DELETE", "/api/v1/consumer-groups/bad", "").await;
    let world = world.restart().await;
    let total = || async { world.get("/api/v1/dlq?queue=q").await.json()["total"].clone() };
    assert_eq!(total().await, 3);
    // Every figure has them.
    let overview = world.get("/api/v1/resources/overview").await.json();
    assert_eq!(overview["messages"]["deadLetter"], 3, "{overview}");
    let queue = world.get("/api/v1/resources/queues/q").await.json();
    assert_eq!(
        (&queue["totals"]["deadLetter"], &queue["partitions"][0]["stats"]["deadLetter"]),
        (&json!(3), &json!(3)),
        "{queue}"
    );
    let found = world.get(&path(1)).await.json();
    assert_eq!(
        (&found["status"], &found["errorMessage"]),
        (&json!("dead_letter"), &json!("it broke")),
        "{found}"
    );
    // What is deleted is not to be read any more.
    assert_eq!(world.ask("DELETE", &path(0), "").await.status, 200);
    let left = world.get("/api/v1/dlq?queue=q").await.json();
    assert_eq!((payloads(&left), total().await), (vec![json!(2), json!(1)], json!(2)));
    // Nobody is there to get them back, and that is said.
    let refused = world.post(&format!("{}/retry", path(1)), &json!({})).await.error();
    assert_eq!((refused.0, refused.2.as_str()), (404, "group_not_found"), "{refused:?}");
    let redrive = json!({ "queue": "q", "consumerGroup": "bad" });
    let begun = world.post("/api/v1/dlq/redrive", &redrive).await.json();
    let job = ended(&world, &begun).await;
    assert_eq!((&job["moved"], &job["skipped"]), (&json!(0), &json!(2)), "{job}");
    // The group comes again, and is done with what is in the queue.
    let again = pop(&world, "bad").await;
    assert_eq!(payloads(&again), [1, 2]);
    say(&world, &again, "bad", "completed", "").await;
    assert_eq!(world.post(&format!("{}/retry", path(1)), &json!({})).await.status, 200);
    let begun = world.post("/api/v1/dlq/redrive", &redrive).await.json();
    let job = ended(&world, &begun).await;
    assert_eq!((&job["moved"], &job["skipped"]), (&json!(1), &json!(0)), "{job}");
    assert_eq!(payloads(&pop(&world, "bad").await), [1, 2]);
    assert!(payloads(&pop(&world, "done").await).is_empty(), "the other group is done with them");
    assert_eq!(total().await, 0);
}

#[tokio::test]
async fn a_slow_job_can_be_cancelled_and_what_it_has_not_moved_stays() {
    for action in ["redrive", "requeue", "delete"] {
        let world = World::new().await;
        buried_by_one_group(&world, 0..10).await;
        let mut body = json!({ "queue": "q", "ratePerSecond": 1 });
        if action == "requeue" {
            body["toQueue"] = json!("other");
        }
        let begun = world.post(&format!("/api/v1/dlq/{action}"), &body).await.json();
        let path = format!("/api/v1/dlq/jobs/{}", begun["id"]);
        // In the middle of it.
        let moved_some = async {
            while world.get(&path).await.json()["moved"] == json!(0) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), moved_some).await.expect("it moves some");
        let cancelled = world.ask("DELETE", &path, "").await.json();
        assert_eq!(cancelled["status"], "cancelled", "{action}: {cancelled}");
        let moved = cancelled["moved"].as_u64().unwrap();
        assert!((1..10).contains(&moved), "{action}: {cancelled}");
        let left = world.get("/api/v1/dlq?queue=q").await.json()["total"].as_u64().unwrap();
        assert_eq!(moved + left, 10, "{action}");
        let again = payloads(&pop(&world, "bad").await).len() as u64;
        let pushed = world.get("/api/v1/pop/queue/other?batch=100").await;
        let pushed = if pushed.status == 204 { 0 } else { payloads(&pushed.json()).len() as u64 };
        let expected = match action {
            "redrive" => (moved, 0),
            "requeue" => (0, moved),
            _ => (0, 0),
        };
        assert_eq!((again, pushed), expected, "{action}");
        // What was left alone can still be moved.
        let begun = world.post("/api/v1/dlq/redrive", &json!({ "queue": "q" })).await.json();
        assert_eq!(ended(&world, &begun).await["moved"], json!(left), "{action}");
        assert_eq!(world.get("/api/v1/dlq/jobs/999").await.status, 404);
    }
}

#[tokio::test]
async fn a_letter_in_the_middle_of_a_live_lease_waits_for_its_end() {
    let world = World::new().await;
    world.push(json!([0, 1, 2].map(|it| json!({ "queue": "q", "payload": it })))).await;
    let popped = pop(&world, "g").await;
    let middle = json!({ "messages": [popped["messages"][1]] });
    say(&world, &middle, "g", "dlq", "x").await;
    let begun = world.post("/api/v1/dlq/redrive", &json!({ "queue": "q" })).await.json();
    let others = json!({ "messages": [popped["messages"][0], popped["messages"][2]] });
    say(&world, &others, "g", "completed", "").await;
    assert_eq!(ended(&world, &begun).await["moved"], json!(1));
    assert_eq!(payloads(&pop(&world, "g").await), [1]);
}

#[tokio::test]
async fn dead_letters_are_found_by_queue_group_partition_and_time() {
    let world = World::new().await;
    world
        .push(json!([
            { "queue": "q", "partition": "a", "payload": 1 },
            { "queue": "q", "partition": "b", "payload": 2 },
        ]))
        .await;
    let popped = pop(&world, "g").await;
    say(&world, &popped, "g", "dlq", "").await;
    let total = |path: &'static str| {
        let world = &world;
        async move { world.get(path).await.json()["total"].clone() }
    };
    assert_eq!(total("/api/v1/dlq").await, json!(2), "of all queues");
    assert_eq!(total("/api/v1/dlq?queue=nothing").await, json!(0));
    assert_eq!(total("/api/v1/dlq?queue=q&consumerGroup=g").await, json!(2));
    assert_eq!(total("/api/v1/dlq?queue=q&consumerGroup=h").await, json!(0));
    assert_eq!(total("/api/v1/dlq?queue=q&partition=b").await, json!(1));
    assert_eq!(total("/api/v1/dlq?queue=q&to=2020-01-01T00:00:00Z").await, json!(0));
    assert_eq!(total("/api/v1/dlq?queue=q&from=2020-01-01T00:00:00Z").await, json!(2));
    assert_eq!(world.get("/api/v1/dlq?from=never").await.status, 400);
    let world = world.restart().await;
    let page = world.get("/api/v1/dlq?queue=q&partition=a").await.json();
    assert_eq!((payloads(&page), &page["total"]), (vec![json!(1)], &json!(1)));
    assert!(page["messages"][0]["failedAt"].is_string());
}

#[tokio::test]
async fn letters_larger_together_than_an_append_are_moved_and_hold_up_no_other_job() {
    // 80 MiB of them; an append takes 64.
    const LETTERS: usize = 80;
    let world = World::new().await;
    let large = "x".repeat((1 << 20) - 2);
    for _ in 0..LETTERS / 20 {
        let items: Vec<Value> =
            (0..20).map(|_| json!({ "queue": "q", "payload": large })).collect();
        assert_eq!(world.push(json!(items)).await.status, 201);
    }
    let mut buried = 0;
    while buried < LETTERS {
        let popped = pop(&world, "bad").await;
        let messages = popped["messages"].as_array().unwrap().len();
        assert!(messages > 0, "{buried} of {LETTERS}");
        say(&world, &popped, "bad", "dlq", "").await;
        buried += messages;
    }
    let requeue = json!({ "queue": "q", "toQueue": "r" });
    let begun = world.post("/api/v1/dlq/requeue", &requeue).await;
    assert_eq!(begun.status, 202, "{}", begun.json());
    let dry = json!({ "queue": "q", "dryRun": true });
    let behind = world.post("/api/v1/dlq/redrive", &dry).await.json();
    assert_eq!(ended(&world, &behind).await["status"], json!("done"));
    let job = ended(&world, &begun.json()).await;
    assert_eq!((&job["status"], &job["moved"]), (&json!("done"), &json!(LETTERS)), "{job}");
}
