//! The client's other ways to put a request: what the server answers in JSON all the same, and what it
//! refuses by name. And several servers.

use queen_mq::{Config, PushItem, PushStatus, Queen, QueueOptions, SupervisionConfig};
use serde_json::json;

use crate::world::World;
use crate::{PATIENCE, count_to, data};

#[tokio::test(flavor = "multi_thread")]
async fn a_pop_that_would_take_frames_is_answered_in_json() {
    let world = World::start().await;
    let framed = Queen::connect(Config::new(world.url()).framed_pop(true)).unwrap();
    let queue = framed.queue("orders").batch(10).wait(false);
    queue.push_many(0..3).await.unwrap();
    let popped = queue.pop().await.unwrap();
    assert_eq!(data(&popped), count_to(3));
    assert!(framed.ack_all(&popped).await.unwrap().iter().all(|it| it.success));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn binary_bodies_are_refused_by_name() {
    let world = World::start().await;
    let config = || Config::new(world.url()).binary_push(true);
    for config in [config(), config().push_compression(true)] {
        let binary = Queen::connect(config).unwrap();
        let refused = binary.queue("orders").push(1).await.unwrap_err();
        assert_eq!(refused.status(), Some(415), "{refused:?}");
        assert!(refused.to_string().contains("binary bodies are not supported"), "{refused}");
    }
    let binary = Queen::connect(config().push_compression(true)).unwrap();
    let refused = binary.transaction().push("orders", 1).unwrap().commit().await.unwrap_err();
    assert_eq!(refused.status(), Some(415), "{refused:?}");
    assert!(world.queen.queue("orders").wait(false).pop().await.unwrap().is_empty());
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_newest_message_alone_is_not_to_be_had_and_that_is_said() {
    let world = World::start().await;
    let queue = world.queen.queue("orders").group("g").batch(10).wait(false);
    queue.push_many(0..3).await.unwrap();
    let refused = queue.clone().conflation(true).pop().await.unwrap_err();
    assert_eq!(refused.status(), Some(400), "{refused:?}");
    assert!(refused.to_string().contains("conflation is not supported"), "{refused}");
    assert_eq!(data(&queue.pop().await.unwrap()), count_to(3));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_that_reports_to_supervisors_consumes_all_the_same() {
    let world = World::start().await;
    let queue = world.queen.queue("orders");
    queue.push_many(0..5).await.unwrap();
    let consumer = queue.clone().supervision(Some(SupervisionConfig::new("app"))).limit(5);
    let consuming = consumer.consume(|_| std::future::ready(Ok::<_, String>(())));
    let summary = tokio::time::timeout(PATIENCE, consuming).await.unwrap().unwrap();
    assert_eq!(summary.acked, 5);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_away_is_passed_by() {
    let world = World::start().await;
    let urls = ["http://127.0.0.1:9/queen".to_owned(), world.url()];
    let several = Queen::connect(Config::urls(urls)).unwrap();
    for number in 0..5 {
        let queue = several.queue(format!("q{number}")).wait(false);
        queue.push(number).await.unwrap();
        assert_eq!(data(&queue.pop().await.unwrap()), [json!(number)]);
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn options_of_newer_servers_are_overlooked() {
    let world = World::start().await;
    let options = QueueOptions {
        dedup_window_seconds: Some(60),
        min_pop_wait_time: Some(5),
        retention_sink_hold: Some("s3".into()),
        max_size: Some(7),
        ..QueueOptions::default()
    };
    let made = world.queen.queue("orders").configure(options).await.unwrap();
    assert_eq!(made["options"]["maxSize"], json!(7), "{made}");
    assert!(made["options"].get("dedupWindowSeconds").is_none(), "what is not heard is not echoed");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_held_back_or_fails_alone_is_told_item_by_item() {
    let world = World::start().await;
    let queue = world.queen.queue("orders").batch(10).poll_timeout(PATIENCE);
    let large = PushItem::new("orders", json!("x".repeat(5_000_000)));
    let pushed = queue.push_items(vec![large, PushItem::new("orders", json!(1))]).await.unwrap();
    assert_eq!([pushed[0].status, pushed[1].status], [PushStatus::Failed, PushStatus::Queued]);
    let path = "/api/v1/system/maintenance";
    let switched = world.send("POST", path, "{\"enabled\":true}").await;
    assert!(switched.starts_with("HTTP/1.1 200"), "{switched}");
    let pushed = queue.push(2).await.unwrap();
    assert!(pushed[0].status == PushStatus::Buffered && pushed[0].status.accepted(), "{pushed:?}");
    world.send("POST", path, "{\"enabled\":false}").await;
    let mut seen = Vec::new();
    while seen.len() < 2 {
        let popped = queue.pop().await.unwrap();
        assert!(!popped.is_empty(), "only {seen:?}");
        world.queen.ack_all(&popped).await.unwrap();
        seen.extend(data(&popped));
    }
    assert_eq!(seen, [json!(1), json!(2)]);
    world.stop().await;
}
