//! Faults of clients: rows A17 and B10, and that no row is forgotten.

use std::time::Duration;

use onrush_client::{Client, Message};
use serde_json::{Value, json};

use crate::client::World;
use crate::proxy::{Proxy, Way};

#[tokio::test(flavor = "multi_thread")]
async fn a17_a_flush_that_breaks_off_loses_nothing_and_repeats_nothing() {
    const EACH: usize = 10;
    let world = World::new().await;
    let proxy = Proxy::open(world.server.tcp_addr()).await;
    let builder = Client::builder().addr(&proxy.addr.to_string()).retries(0);
    let client = builder.circuit_breaker(0, Duration::ZERO).connect().await.unwrap();
    let buffer = client.queue("q").buffer(1000, Duration::from_secs(3600)).unwrap();
    let mut added = 0;
    // Cut off on its way there, or with its answer on the way back.
    for way in [Way::ToDatabase, Way::ToServer] {
        for _ in 0..EACH {
            buffer.add(Message::json(&json!(added))).await.unwrap();
            added += 1;
        }
        proxy.cut_after(way, 1);
        let report = buffer.flush().await;
        assert_eq!((report.pushed, report.waiting, report.failed.len()), (0, EACH, 0), "{way:?}");
        assert!(report.error.is_some(), "and it says so");
        let all = async {
            while !buffer.flush().await.is_complete() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), all).await.expect("it comes through");
    }
    assert_eq!(proxy.cuts(), 2);
    let popped = world.get("/api/v1/pop/queue/q?batch=1000").await.json();
    let seen: Vec<Value> =
        popped["messages"].as_array().unwrap().iter().map(|it| it["data"].clone()).collect();
    assert_eq!(seen, (0..added).map(Value::from).collect::<Vec<_>>());
}

#[tokio::test]
async fn b10_an_element_that_failed_says_so_and_an_error_is_no_empty_answer() {
    let world = World::new().await;
    for base in ["", "/queen"] {
        world.push(json!([{ "queue": "q", "payload": 1 }, { "queue": "q", "payload": 2 }])).await;
        let popped = world.get(&format!("{base}/api/v1/pop/queue/q?batch=2")).await.json();
        let line = |at: usize, id: &str| {
            let message = &popped["messages"][at];
            let id = if id.is_empty() { message["transactionId"].clone() } else { json!(id) };
            json!({ "transactionId": id, "partitionId": message["partitionId"],
                    "leaseId": message["leaseId"], "status": "completed" })
        };
        let lines = json!({ "acknowledgments": [line(0, ""), line(1, "never pushed")] });
        let acked = world.post(&format!("{base}/api/v1/ack/batch"), &lines).await.json();
        assert_eq!((&acked[0]["success"], &acked[0]["error"]), (&json!(true), &json!(null)));
        assert_eq!(
            (&acked[1]["success"], &acked[1]["error"]),
            (&json!(false), &json!("Message not found"))
        );
        let single =
            world.post(&format!("{base}/api/v1/ack"), &line(1, "never pushed")).await.json();
        assert_eq!(single[0]["success"], json!(false), "{single}");
        world.post(&format!("{base}/api/v1/ack"), &line(1, "")).await;
        let nothing = world.get(&format!("{base}/api/v1/pop/queue/q")).await;
        assert_eq!((nothing.status, nothing.body.len()), (204, 0));
        for wrong in ["queue/%zz", "queue/q?consumerGroup=g&subscriptionFrom=soon", ""] {
            let refused = world.get(&format!("{base}/api/v1/pop/{wrong}")).await;
            assert!((400..500).contains(&refused.status), "{wrong}: {refused:?}");
            assert!(!refused.json()["error"].as_str().unwrap().is_empty(), "{refused:?}");
        }
    }
}

#[test]
fn every_row_has_a_test_named_after_it_or_a_reason_why_it_does_not_apply() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let sources = std::fs::read_dir(root.join("tests/faults")).unwrap();
    let sources = sources.map(|it| std::fs::read_to_string(it.unwrap().path()).unwrap());
    let sources: String = sources.collect();
    let page = std::fs::read_to_string(root.join("docs/compatibility.md")).unwrap();
    let rows = (1..=18).map(|row| format!("a{row}")).chain((1..=15).map(|row| format!("b{row}")));
    for row in rows {
        let is_tested = sources.contains(&format!("fn {row}_"));
        let is_explained =
            page.lines().any(|line| line.starts_with(&format!("| {} |", row.to_uppercase())));
        assert!(is_tested != is_explained, "{row}: tested {is_tested}, explained {is_explained}");
    }
}
