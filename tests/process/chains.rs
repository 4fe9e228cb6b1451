//! Long chains: a hop is one append, and whatever comes between leaves every message where it belongs.

use serde_json::{Value, json};

use crate::client::World;
use crate::desk::{complete, define, process, push, push_with};

/// A class whose cascades go on for as long as they like.
async fn endless(world: &World, class: &str, module: &str) {
    let limits = json!({ "hops": 0 });
    define(world, class, json!({ "runtime": "native", "module": module, "limits": limits })).await;
}

async fn commits(world: &World) -> u64 {
    world.get("/metrics").await.json()["log"]["commits"].as_u64().unwrap()
}

/// All slots of a process, as its schedule shows them.
async fn schedule(world: &World, process: &str) -> Vec<Value> {
    let mut slots: Vec<Value> = Vec::new();
    loop {
        let from = slots.len();
        let path = format!("/api/v1/processes/{process}/slots?from={from}&limit=1000");
        let page = world.get(&path).await.json();
        slots.extend(page["slots"].as_array().unwrap().iter().cloned());
        if page["has_more"] == false {
            return slots;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hop_is_one_append() {
    let world = World::new().await;
    endless(&world, "pingpong", "pingpong").await;
    endless(&world, "ring", "ring").await;
    // The processes come into being, and so does whatever else is made once.
    push(&world, "pingpong/a", json!({ "start": true, "limit": 2 })).await;
    push(&world, "ring/0", json!({ "size": 3, "laps": 2 })).await;
    for (to, message, slots) in [
        ("pingpong/a", json!({ "start": true, "limit": 598 }), 600),
        ("ring/0", json!({ "size": 3, "laps": 200 }), 601),
    ] {
        let before = commits(&world).await;
        let done = push(&world, to, message).await;
        assert_eq!((&done["complete"], &done["status"]), (&json!(true), &json!("ok")), "{done}");
        assert_eq!(done["stats"]["messages"], slots, "{done}");
        // Now and then a chain goes behind others that wait, and is taken up again.
        let made = commits(&world).await - before;
        assert!(made < slots + slots / 4, "{made} appends for {slots} slots of {to}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn chains_that_share_a_process_keep_their_order_and_their_messages() {
    const LIMIT: u64 = 60;
    let world = World::new().await;
    endless(&world, "pingpong", "pingpong").await;
    let mut pushes = Vec::new();
    for at in 0..8 {
        // Each comes while those before it are under way.
        let message = json!({ "start": true, "limit": LIMIT });
        let more = json!({ "await": "slot", "transactionId": format!("chain {at}") });
        let pushed = push_with(&world, "pingpong/a", message, more).await;
        assert_eq!(pushed.status, 200, "{}", pushed.text());
        pushes.push(pushed.json());
    }
    for pushed in &pushes {
        let done = complete(&world, pushed).await;
        assert_eq!(done["stats"]["messages"], LIMIT + 2, "{done}");
        assert_eq!(done["status"], "ok", "{done}");
    }
    let slots = schedule(&world, "pingpong/a").await;
    assert_eq!(slots.len() as u64, 8 * (LIMIT + 2));
    for pushed in &pushes {
        let its = slots.iter().filter(|slot| slot["cascade"] == pushed["push_id"]);
        let pings: Vec<u64> = its.filter_map(|slot| slot["message"]["ping"].as_u64()).collect();
        assert_eq!(pings, (1..=LIMIT + 1).collect::<Vec<_>>());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chain_that_is_paused_goes_on_where_it_was() {
    const LIMIT: u64 = 1_500;
    let world = World::new().await;
    endless(&world, "pingpong", "pingpong").await;
    let message = json!({ "start": true, "limit": LIMIT });
    let pushed = push_with(&world, "pingpong/a", message, json!({ "await": "slot" })).await.json();
    for _ in 0..3 {
        let pause = world.post("/api/v1/processes/pingpong/a/pause", &json!({})).await;
        assert!(pause.status < 300, "{}", pause.text());
        // What was under way when it was asked may still be committed; then nothing is.
        let mut shown = process(&world, "pingpong/a").await;
        loop {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            let next = process(&world, "pingpong/a").await;
            if next["evaluated"] == shown["evaluated"] {
                break;
            }
            shown = next;
        }
        let resume = world.post("/api/v1/processes/pingpong/a/resume", &json!({})).await;
        assert!(resume.status < 300, "{}", resume.text());
    }
    let done = complete(&world, &pushed).await;
    assert_eq!((&done["stats"]["messages"], &done["status"]), (&json!(LIMIT + 2), &json!("ok")));
    assert_eq!(process(&world, "pingpong/a").await["slots"], LIMIT + 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn chains_end_with_their_server_and_go_on_with_the_next_one() {
    const LIMIT: u64 = 2_000;
    let mut world = World::new().await;
    endless(&world, "pingpong", "pingpong").await;
    endless(&world, "ring", "ring").await;
    let chain = json!({ "start": true, "limit": LIMIT });
    let chain = push_with(&world, "pingpong/a", chain, json!({ "await": "slot" })).await.json();
    let ring = json!({ "size": 2, "laps": LIMIT / 2 });
    let ring = push_with(&world, "ring/0", ring, json!({ "await": "slot" })).await.json();
    for _ in 0..2 {
        world = world.restart().await;
    }
    let done = complete(&world, &chain).await;
    assert_eq!((&done["stats"]["messages"], &done["status"]), (&json!(LIMIT + 2), &json!("ok")));
    let done = complete(&world, &ring).await;
    assert_eq!((&done["stats"]["messages"], &done["status"]), (&json!(LIMIT + 1), &json!("ok")));
    let slots = schedule(&world, "pingpong/a").await;
    let pings: Vec<u64> = slots.iter().filter_map(|it| it["message"]["ping"].as_u64()).collect();
    assert_eq!(pings, (1..=LIMIT + 1).collect::<Vec<_>>());
}
