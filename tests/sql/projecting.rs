//! `message_rows`: plain rows of queues that ask for them, each message once, whoever dies when.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use onrush_client::{Client, Message, Qos, QueueOptions};
use onrush_pgharness::Cluster;
use serde_json::{Value, json};

use crate::desk::{
    PATIENCE, Row, ask, clusters, erase, fleeting, is_space_back, objects, peek_rows, rows, start,
    start_tidy, while_nothing_becomes_rows,
};
use crate::process::ServerProcess;
use crate::server::TestServer;

const BEHIND: &str = "SELECT coalesce(sum(entries), 0) AS n FROM onrush.projection";

/// Makes a queue whose messages are rows.
async fn make(client: &Client, queue: &str) {
    client.queue(queue).config(QueueOptions::default()).sql_rows(true).create().await.unwrap();
}

/// Waits until rows are up to date with the log.
async fn caught_up(cluster: &Cluster) {
    let deadline = Instant::now() + PATIENCE;
    while objects(cluster, BEHIND)[0]["n"] != json!(0) {
        assert!(Instant::now() < deadline, "{:?}", objects(cluster, "TABLE onrush.projection"));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn rows_of(cluster: &Cluster, queue: &str) -> Vec<Row> {
    let found = rows(cluster, &format!("onrush.message_rows WHERE queue = '{queue}'"));
    found.into_iter().map(|(row, _)| row).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_what_pops_give_and_what_the_view_shows() {
    for cluster in clusters() {
        let server = start(&cluster, |_| {}).await;
        let client = server.client().await;
        make(&client, "rows").await;
        for partition in ["a", "ü", "c"] {
            let queue = client.queue("rows").partition(partition);
            queue
                .push((0..50).map(|n| Message::json(&json!({ "n": n, "ä": "注" }))))
                .await
                .unwrap();
            let ids = (0..5).map(|n| Message::json(&n).transaction_id(format!("№ {n}")));
            queue.push(ids).qos(Qos::ExactlyOnce).await.unwrap();
            queue.push([Message::bytes(vec![0xff; 900_000]), Message::bytes("{}")]).await.unwrap();
            client.queue("plain").partition(partition).push([Message::json(&1)]).await.unwrap();
        }
        caught_up(&cluster).await;
        // What `jsonb` does not take does not hold the rest up.
        let odd = [json!({ "zero": "\u{0}" }), json!({ "fine": true })];
        client.queue("rows").push(odd.iter().map(Message::json)).await.unwrap();
        let nul = Message::json(&1).transaction_id("a\u{0}b");
        client.queue("rows").push([nul]).qos(Qos::ExactlyOnce).await.unwrap();
        caught_up(&cluster).await;
        let found = rows(&cluster, "onrush.message_rows");
        assert_eq!(found, rows(&cluster, "onrush.messages('rows')"));
        assert_eq!(found.len(), 3 * 57 + 3);
        let odd: Vec<&Value> =
            found.iter().filter(|it| it.0.partition == "Default").map(|it| &it.1).collect();
        assert_eq!(odd, [&Value::Null, &json!({ "fine": true }), &json!(1)]);
        // But for the one id that text in PostgreSQL cannot hold, they are what a consumer gets.
        let mut popped = peek_rows(&client.queue("rows"), "g").await;
        for row in popped.iter_mut().filter(|row| row.transaction_id.contains('\u{0}')) {
            row.transaction_id = "a\\000b".to_owned();
        }
        assert_eq!(found.into_iter().map(|it| it.0).collect::<Vec<_>>(), popped);
        let (_, metrics) = ask(&server, "GET", "/metrics", "").await;
        assert!(metrics["projection"]["lag_entries"].is_u64(), "{metrics}");
        server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_becomes_rows_from_when_it_asks_until_it_does_no_more() {
    for cluster in clusters() {
        let server = start(&cluster, |_| {}).await;
        let client = server.client().await;
        let queue = client.queue("q").partition("p");
        // Another queue is rows already, so shards have their places in the log.
        make(&client, "other").await;
        client.queue("other").push([Message::json(&0)]).await.unwrap();
        let push = async |numbers: std::ops::Range<u32>| {
            queue.push(numbers.map(|n| Message::json(&n))).await.unwrap();
        };
        push(0..5).await;
        let body = json!({ "queue": "q", "options": { "sqlRows": true } }).to_string();
        let (status, configured) = ask(&server, "POST", "/api/v1/configure", &body).await;
        assert_eq!((status, &configured["options"]["sqlRows"]), (200, &json!(true)));
        push(5..10).await;
        caught_up(&cluster).await;
        let body = json!({ "queue": "q", "options": {} }).to_string();
        ask(&server, "POST", "/api/v1/configure", &body).await;
        push(10..15).await;
        caught_up(&cluster).await;
        make(&client, "q").await;
        push(15..20).await;
        caught_up(&cluster).await;
        let seqs: Vec<u64> = rows_of(&cluster, "q").iter().map(|row| row.seq).collect();
        assert_eq!(seqs, (5..10).chain(15..20).collect::<Vec<_>>());
        // It is still known after a restart.
        let server = server.restart().await;
        let (_, shown) = ask(&server, "GET", "/api/v1/resources/queues/q", "").await;
        assert_eq!(shown["options"]["sqlRows"], json!(true), "{shown}");
        server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_go_with_their_queue_before_others_of_its_name_come() {
    let cluster = clusters().remove(0);
    let server = start(&cluster, |_| {}).await;
    let client = server.client().await;
    for round in 0..3 {
        make(&client, "q").await;
        let messages = (0..10).map(|n| Message::json(&json!({ "round": round, "n": n })));
        client.queue("q").push(messages).await.unwrap();
        caught_up(&cluster).await;
        assert_eq!(rows_of(&cluster, "q"), peek_rows(&client.queue("q"), "g").await);
        client.queue("q").delete().await.unwrap();
    }
    let deadline = Instant::now() + PATIENCE;
    while !rows_of(&cluster, "q").is_empty() {
        assert!(Instant::now() < deadline, "rows of a queue that is gone stay");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_row_of_a_deleted_message_goes_and_of_one_deleted_before_none_comes() {
    for cluster in clusters() {
        let server = start(&cluster, |_| {}).await;
        let client = server.client().await;
        let queue = client.queue("rows");
        let seqs = |rows: &[Row]| rows.iter().map(|row| row.seq).collect::<Vec<_>>();
        // Before any server has begun to make rows.
        while_nothing_becomes_rows(&cluster, async {
            make(&client, "rows").await;
            queue.push((0..5).map(|n| Message::json(&n))).await.unwrap();
            let all = peek_rows(&queue, "a").await;
            erase(&server, all.iter().find(|row| row.seq == 1).unwrap()).await;
        })
        .await;
        caught_up(&cluster).await;
        assert_eq!(seqs(&rows_of(&cluster, "rows")), [0, 2, 3, 4]);
        queue.push((5..8).map(|n| Message::json(&n))).await.unwrap();
        caught_up(&cluster).await;
        let all = rows_of(&cluster, "rows");
        erase(&server, all.iter().find(|row| row.seq == 6).unwrap()).await;
        caught_up(&cluster).await;
        let left = rows_of(&cluster, "rows");
        assert_eq!(seqs(&left), [0, 2, 3, 4, 5, 7]);
        assert_eq!(left, peek_rows(&queue, "b").await);
        server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_embedded_store_refuses_rows_and_changes_nothing() {
    let server = TestServer::start().await;
    let client = server.client().await;
    let asked = client.queue("q").config(QueueOptions::default()).sql_rows(true).create().await;
    if !crate::server::store::is_embedded() {
        // Where all tests have a database there is nothing to refuse.
        asked.unwrap();
        return server.stop().await;
    }
    let refused = asked.unwrap_err().to_string();
    assert!(refused.contains("sqlRows"), "{refused}");
    let body = json!({ "queue": "q", "options": { "sqlRows": true } }).to_string();
    let (status, refused) = ask(&server, "POST", "/api/v1/configure", &body).await;
    assert_eq!((status, &refused["code"]), (400, &json!("bad_option")), "{refused}");
    assert_eq!(ask(&server, "GET", "/api/v1/resources/queues/q", "").await.0, 404);
    server.stop().await;
}

/// A server as a process, which gives space back as soon as it may.
async fn process(cluster: &Cluster) -> (ServerProcess, Client, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("database.url={}", cluster.url("postgres"));
    let settings = [
        url.as_str(),
        "store.segment_bytes=1MiB",
        "store.checkpoint_interval_ms=100",
        "store.retention_interval_ms=1000",
    ];
    let mut process = ServerProcess::spawn_with(folder.path(), &settings);
    let address = process.listening().await.to_string();
    (process, Client::connect(&address).await.unwrap(), folder)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_killed_while_it_projects_leaves_no_row_twice_and_none_missing() {
    for cluster in clusters() {
        let mut projecting = process(&cluster).await;
        make(&projecting.1, "rows").await;
        let mut most_rows = 0;
        for round in 0..4 {
            let other = process(&cluster).await;
            let pushed = Arc::new(AtomicUsize::new(0));
            let stop = Arc::new(AtomicBool::new(false));
            let pushing = tokio::spawn(push_all_the_time(
                other.1.clone(),
                round,
                Arc::clone(&pushed),
                Arc::clone(&stop),
            ));
            // In the middle of it: some of this round's are rows and others are not.
            let deadline = Instant::now() + PATIENCE;
            loop {
                assert!(Instant::now() < deadline, "nothing becomes rows");
                let count = "SELECT count(*) AS n FROM onrush.message_rows";
                let count = objects(&cluster, count)[0]["n"].as_u64().unwrap();
                if count > most_rows {
                    most_rows = count;
                    break;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            // Dropped, it is killed without a word.
            drop(std::mem::replace(&mut projecting, other));
            tokio::time::sleep(Duration::from_millis(300)).await;
            stop.store(true, Ordering::Relaxed);
            pushing.await.unwrap();
            assert!(pushed.load(Ordering::Relaxed) > 0);
        }
        caught_up(&cluster).await;
        let found = rows_of(&cluster, "rows");
        let popped = peek_rows(&projecting.1.queue("rows"), "g").await;
        assert!(found == popped, "{} rows, {} messages", found.len(), popped.len());
        let skipped = "SELECT sum(skipped) AS n FROM onrush.projected";
        assert_eq!(objects(&cluster, skipped)[0]["n"], json!(0));
    }
}

async fn push_all_the_time(
    client: Client,
    round: usize,
    pushed: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
) {
    let mut count = 0;
    while !stop.load(Ordering::Relaxed) {
        let queue = client.queue("rows").partition(&format!("p{}", count % 7));
        let message = |n| Message::json(&json!({ "round": round, "count": count, "n": n }));
        queue.push((0..20).map(message)).await.unwrap();
        pushed.fetch_add(20, Ordering::Relaxed);
        count += 1;
    }
}

/// How far rows are behind, as `/metrics` tells it: entries and seconds.
async fn lag(server: &TestServer) -> (u64, f64) {
    let (_, metrics) = ask(server, "GET", "/metrics", "").await;
    let lag = &metrics["projection"];
    (lag["lag_entries"].as_u64().unwrap(), lag["lag_seconds"].as_f64().unwrap())
}

/// Waits until the lag is so; returns it.
async fn lag_until(server: &TestServer, is_so: impl Fn((u64, f64)) -> bool) -> (u64, f64) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let now = lag(server).await;
        if is_so(now) {
            return now;
        }
        assert!(Instant::now() < deadline, "the lag stays {now:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn how_far_rows_are_behind_is_told_as_it_is_and_nothing_once_they_are_there() {
    for cluster in clusters() {
        let server = start(&cluster, |_| {}).await;
        let client = server.client().await;
        while_nothing_becomes_rows(&cluster, async {
            make(&client, "rows").await;
            // A commit of its own for each, so an entry of its own.
            for n in 0..20 {
                client.queue("rows").partition("p").push([Message::json(&n)]).await.unwrap();
            }
            let (entries, seconds) = lag_until(&server, |(entries, _)| entries >= 20).await;
            assert_eq!(objects(&cluster, BEHIND)[0]["n"], json!(entries));
            // Nothing comes, and what waits grows older.
            let (after, _) = lag_until(&server, |(_, now)| now >= seconds + 1.0).await;
            assert_eq!(after, entries);
            client.queue("rows").partition("p").push([Message::json(&20)]).await.unwrap();
            lag_until(&server, |(now, _)| now == entries + 1).await;
        })
        .await;
        assert_eq!(lag_until(&server, |(entries, _)| entries == 0).await, (0, 0.0));
        assert_eq!(rows_of(&cluster, "rows").len(), 21);
        server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_keeps_what_has_still_to_become_rows() {
    let cluster = clusters().remove(0);
    let server = start_tidy(&cluster).await;
    let client = server.client().await;
    let options = fleeting();
    while_nothing_becomes_rows(&cluster, fill(&cluster, &client, options)).await;
    caught_up(&cluster).await;
    let seqs: Vec<u64> = rows_of(&cluster, "rows").iter().map(|row| row.seq).collect();
    assert_eq!(seqs, (0..seqs.len() as u64).collect::<Vec<_>>());
    assert!(seqs.len() >= 16 * 8);
    let deadline = Instant::now() + PATIENCE;
    while !is_space_back(&cluster) {
        assert!(Instant::now() < deadline, "its space does not come back");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    server.stop().await;
}

/// Pushes and settles more than several pieces hold, and looks whether any of it goes.
async fn fill(cluster: &Cluster, client: &Client, options: QueueOptions) {
    let queue = client.queue("rows");
    queue.config(options).sql_rows(true).create().await.unwrap();
    for _ in 0..8 {
        for _ in 0..4 {
            queue.push((0..16).map(|_| Message::bytes(vec![b'n'; 16 << 10]))).await.unwrap();
            let popped = queue.pop().batch(1000).send().await.unwrap();
            client.ack(&popped).await.unwrap();
        }
        // Longer than what is settled is kept for, several times over all rounds.
        tokio::time::sleep(Duration::from_millis(400)).await;
    }
    let pieces = "SELECT min(piece) AS oldest, max(piece) AS newest FROM onrush.pieces";
    let pieces = objects(cluster, pieces).remove(0);
    assert_eq!(pieces["oldest"], json!(0), "{pieces}");
    assert!(pieces["newest"].as_u64().unwrap() > 4, "{pieces}");
}
