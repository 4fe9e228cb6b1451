//! The view and the function `messages`, and the names that they need.

use std::time::Instant;

use onrush_client::{Client, Message, Qos, Queue, QueueOptions};
use onrush_pgharness::Cluster;
use serde_json::{Value, json};

use crate::desk::{
    PATIENCE, Row, ask, clusters, erase, fleeting, is_space_back, objects, peek_rows, rows, start,
    start_tidy, while_nothing_becomes_rows,
};
use crate::look::peek;
use crate::server::TestServer;

/// Names with letters of many kinds, and what SQL would rather not see in a name.
const QUEUE: &str = "bestellungen 'ü' — 注文";
const PARTITIONS: [&str; 4] = ["Default", "köln", "a\"b|c\\", "🚀"];

/// Messages of every kind into some partitions, over both doors.
async fn push_all_kinds(server: &TestServer, client: &Client) {
    let uuid = "019a0c11-7fe8-7001-9999-0123456789ab".parse().unwrap();
    for partition in PARTITIONS {
        let queue = client.queue(QUEUE).partition(partition);
        let plain = (0..30).map(|n| Message::json(&json!({ "n": n, "text": "größer 注文 🚀" })));
        queue.push(plain).await.unwrap();
        let ids = (0..5).map(|n| {
            let message = Message::json(&json!([n])).transaction_id(format!("{partition} № {n}"));
            message.trace_id(uuid).header("key", vec![0, 1, 2]).header("key", "ü".repeat(300))
        });
        queue.push(ids).qos(Qos::ExactlyOnce).await.unwrap();
        let bytes = [vec![], vec![0], vec![0xff; 3], b"{\"a\": 1}".to_vec(), vec![b'x'; 700_000]];
        queue.push(bytes.map(Message::bytes)).await.unwrap();
        let large = (0..4).map(|n| Message::json(&json!({ "n": n, "large": "ä".repeat(200_000) })));
        queue.push(large).await.unwrap();
        let nul = Message::json(&json!({ "text": "zero \u{0} in it" }));
        queue.push([nul, Message::json(&Value::Null)]).qos(Qos::Buffered).await.unwrap();
        let item = |n: usize| {
            json!({ "queue": QUEUE, "partition": partition, "payload": { "http": n, "1.50": 1.5 },
                    "transactionId": n.is_multiple_of(2).then(|| format!("http {n}")) })
        };
        let body = json!({ "items": (0..6).map(item).collect::<Vec<_>>() });
        let pushed = ask(server, "POST", "/api/v1/push", &body.to_string()).await;
        assert_eq!(pushed.0, 201, "{pushed:?}");
        // Once more: what is a duplicate stands once.
        ask(server, "POST", "/api/v1/push", &body.to_string()).await;
    }
}

/// What `jsonb` makes of a payload, or that it is none.
fn as_jsonb(is_json: bool, bytes: &[u8]) -> Value {
    let text = String::from_utf8_lossy(bytes);
    match is_json && !text.contains("\\u0000") {
        true => serde_json::from_str(&text).unwrap(),
        false => Value::Null,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_row_is_what_a_pop_gives() {
    for cluster in clusters() {
        let server = start(&cluster, |_| {}).await;
        let client = server.client().await;
        push_all_kinds(&server, &client).await;
        let mut popped: Vec<(Row, Value)> = peek(&client.queue(QUEUE), "all")
            .await
            .iter()
            .map(|message| (Row::of(message), as_jsonb(message.is_json, message.bytes())))
            .collect();
        popped.sort_by(|one, other| one.0.cmp(&other.0));
        assert_eq!(popped.len(), 4 * (30 + 5 + 5 + 4 + 2 + 9));
        let viewed = rows(&cluster, "onrush.messages");
        for (seen, expected) in viewed.iter().zip(&popped) {
            assert!(seen == expected, "{:?} {:?}", seen.0, expected.0);
        }
        assert_eq!(viewed.len(), popped.len());
        // A null that is a payload is not the absence of one.
        let nulls = "SELECT count(*) AS n FROM onrush.messages WHERE payload = 'null'";
        assert_eq!(objects(&cluster, nulls)[0]["n"], 4);
        over_http(&server, &viewed).await;
        by_function(&cluster, &viewed);
        server.stop().await;
    }
}

/// The API's own words for a message: its id, its transaction id, its time.
async fn over_http(server: &TestServer, viewed: &[(Row, Value)]) {
    let path = "/api/v1/pop/queue/bestellungen%20'%C3%BC'%20%E2%80%94%20%E6%B3%A8%E6%96%87\
                /partition/k%C3%B6ln?batch=1000&consumerGroup=http&subscriptionMode=all&autoAck=true";
    let (status, popped) = ask(server, "GET", path, "").await;
    assert_eq!(status, 200, "{popped}");
    let messages = popped["messages"].as_array().unwrap();
    let of_partition: Vec<&Row> =
        viewed.iter().map(|(row, _)| row).filter(|row| row.partition == "köln").collect();
    assert_eq!(messages.len(), of_partition.len());
    for (message, row) in messages.iter().zip(of_partition) {
        assert_eq!(
            (&message["id"], &message["transactionId"]),
            (&json!(row.id), &json!(row.transaction_id))
        );
    }
}

/// The function gives what the view does, of what it is asked for.
fn by_function(cluster: &Cluster, viewed: &[(Row, Value)]) {
    let quoted = QUEUE.replace('\'', "''");
    assert_eq!(rows(cluster, &format!("onrush.messages('{quoted}')")), viewed);
    for partition in PARTITIONS {
        let from = format!("onrush.messages('{quoted}', '{partition}', 33)");
        let expected: Vec<_> = viewed
            .iter()
            .filter(|(row, _)| row.partition == partition && row.seq >= 33)
            .cloned()
            .collect();
        assert!(!expected.is_empty());
        assert_eq!(rows(cluster, &from), expected);
        // In order, without being asked to.
        let seqs = objects(cluster, &format!("SELECT seq FROM {from}"));
        assert!(seqs.is_sorted_by_key(|row| row["seq"].as_u64()));
    }
    assert_eq!(rows(cluster, "onrush.messages('another')"), []);
    assert_eq!(rows(cluster, &format!("onrush.messages('{quoted}', 'another')")), []);
    assert_eq!(rows(cluster, &format!("onrush.messages('{quoted}', from_seq => 100000)")), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_is_read_from_its_shard_alone() {
    let cluster = clusters().remove(0);
    let server = start(&cluster, |_| {}).await;
    let client = server.client().await;
    for n in 0..40 {
        let queue = client.queue("q").partition(&format!("p{n}"));
        queue.push([Message::json(&n)]).await.unwrap();
    }
    // Whoever looked into another shard would stumble over what is no entry there.
    let broken = "UPDATE onrush.log SET bytes = '\\x00' WHERE shard <> \
                  (SELECT shard FROM onrush.partitions WHERE name = 'p7')";
    cluster.sql("postgres", broken).unwrap();
    let found = rows(&cluster, "onrush.messages('q', 'p7')");
    assert_eq!((found.len(), &found[0].1), (1, &json!(7)));
    cluster.sql("postgres", "SELECT * FROM onrush.messages").unwrap_err();
    drop(server);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_granted_the_messages_reads_them_and_nobody_else_does() {
    for cluster in clusters() {
        let server = start(&cluster, |_| {}).await;
        let client = server.client().await;
        client.queue("q").push([Message::json(&1)]).await.unwrap();
        let as_reader = |query: &str| cluster.sql("postgres", &format!("SET ROLE reader; {query}"));
        let view = "SELECT count(*) FROM onrush.messages";
        let function = "SELECT count(*) FROM onrush.messages('q')";
        cluster
            .sql("postgres", "CREATE ROLE reader; GRANT USAGE ON SCHEMA onrush TO reader")
            .unwrap();
        as_reader(view).unwrap_err();
        as_reader(function).unwrap_err();
        let grant = "GRANT SELECT ON onrush.messages TO reader; \
                     GRANT EXECUTE ON FUNCTION onrush.messages TO reader";
        cluster.sql("postgres", grant).unwrap();
        for query in [view, function] {
            assert!(as_reader(query).unwrap().ends_with('1'));
        }
        as_reader("SELECT count(*) FROM onrush.log").unwrap_err();
        // A table of one's own under a name that the function uses changes nothing.
        let shadow = "CREATE TEMP TABLE log (shard int, head int, piece int, body bytea)";
        assert!(as_reader(&format!("{shadow}; {function}")).unwrap().ends_with('1'));
        server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_is_deleted_and_made_again_shows_only_what_is_new() {
    for cluster in clusters() {
        let server = start(&cluster, |_| {}).await;
        let client = server.client().await;
        let queue = client.queue("q");
        queue.push((0..9).map(|n| Message::json(&n))).await.unwrap();
        queue.delete().await.unwrap();
        assert_eq!(rows(&cluster, "onrush.messages"), []);
        queue.push([Message::json(&"new")]).await.unwrap();
        let found = rows(&cluster, "onrush.messages('q')");
        assert_eq!((found.len(), &found[0].1), (1, &json!("new")));
        assert_eq!(rows(&cluster, "onrush.messages"), found);
        assert_eq!(peek_rows(&queue, "g").await, [found[0].0.clone()]);
        server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_written_again_to_give_space_back_shows_once() {
    let cluster = clusters().remove(0);
    let server = start_tidy(&cluster).await;
    let client = server.client().await;
    let kept = client.queue("kept");
    // So that its old place cannot go while nothing becomes rows.
    kept.config(QueueOptions::default()).sql_rows(true).create().await.unwrap();
    let noise = client.queue("noise");
    noise.config(fleeting()).create().await.unwrap();
    let copies = "SELECT count(*) AS n FROM onrush.entries, onrush.entry_batches(body, NULL, 0) b \
                  JOIN onrush.partitions USING (number) JOIN onrush.queues q USING (queue) \
                  WHERE q.name = 'kept'";
    let expected = while_nothing_becomes_rows(&cluster, async {
        kept.push((0..50).map(|n| Message::json(&n))).await.unwrap();
        let expected = peek_rows(&kept, "g").await;
        let deadline = Instant::now() + PATIENCE;
        while objects(&cluster, copies)[0]["n"].as_u64() < Some(2) {
            assert!(Instant::now() < deadline, "it is never written again");
            make_noise(&client, &noise).await;
        }
        assert_eq!(shown(&cluster), expected, "while it is there twice");
        expected
    })
    .await;
    let deadline = Instant::now() + PATIENCE;
    while !is_space_back(&cluster) {
        assert!(Instant::now() < deadline, "no space comes back");
        // Looking takes far longer than making noise: the more pieces there are, the longer.
        for _ in 0..10 {
            make_noise(&client, &noise).await;
        }
        assert_eq!(shown(&cluster), expected);
    }
    assert_eq!(shown(&cluster), expected, "when its old place is gone");
    server.stop().await;
}

/// Messages that are pushed and done with, so that the log has something to give back.
async fn make_noise(client: &Client, noise: &Queue) {
    noise.push((0..16).map(|_| Message::bytes(vec![b'n'; 16 << 10]))).await.unwrap();
    let popped = noise.pop().batch(1000).send().await.unwrap();
    client.ack(&popped).await.unwrap();
}

/// What the function shows of the queue that is kept.
fn shown(cluster: &Cluster) -> Vec<Row> {
    rows(cluster, "onrush.messages('kept')").into_iter().map(|(row, _)| row).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_from_before_there_were_names_has_them_after_the_next_start() {
    for cluster in clusters() {
        let server = start(&cluster, |_| {}).await;
        let client = server.client().await;
        for n in 0..20 {
            let queue = client.queue(&format!("q{}", n % 3)).partition(&format!("p{n}"));
            queue.push([Message::json(&n)]).await.unwrap();
        }
        client.queue("gone").push([Message::json(&0)]).await.unwrap();
        client.queue("gone").delete().await.unwrap();
        let deleted = rows(&cluster, "onrush.messages").remove(0).0;
        erase(&server, &deleted).await;
        let before = rows(&cluster, "onrush.messages");
        assert!(before.iter().all(|it| it.0 != deleted));
        assert_eq!(before.len(), 19);
        let (settings, folder) = server.stop_and_keep().await;
        // What a server of step 1 left behind: its tables and nothing else.
        let back = "CREATE SCHEMA old; \
                    DO $$ DECLARE t name; BEGIN FOR t IN SELECT tablename FROM pg_tables \
                      WHERE schemaname = 'onrush' AND (tablename ~ '^log' OR tablename IN \
                      ('steps', 'store', 'heads', 'pieces', 'checkpoints', 'checkpoint_parts')) \
                    LOOP EXECUTE format('ALTER TABLE onrush.%I SET SCHEMA old', t); END LOOP; END $$; \
                    DROP SCHEMA onrush CASCADE; ALTER SCHEMA old RENAME TO onrush; \
                    ALTER TABLE onrush.store DROP COLUMN is_named; \
                    ALTER TABLE onrush.log DROP CONSTRAINT log_pkey, DROP COLUMN brief, \
                      DROP COLUMN part, DROP COLUMN len, ADD PRIMARY KEY (shard, head, piece); \
                    ALTER TABLE onrush.log RENAME COLUMN bytes TO body; \
                    DELETE FROM onrush.steps WHERE step > 1";
        cluster.sql("postgres", back).unwrap();
        let server = TestServer::start_again(settings, folder).await;
        assert_eq!(rows(&cluster, "onrush.messages"), before);
        let client = server.client().await;
        client.queue("q1").partition("new").push([Message::json(&1)]).await.unwrap();
        assert_eq!(rows(&cluster, "onrush.messages").len(), 20);
        server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_was_deleted_is_seen_by_nobody_and_goes_with_its_queue() {
    for cluster in clusters() {
        let server = start(&cluster, |_| {}).await;
        let queue = server.client().await.queue("q");
        queue.push((0..9).map(|n| Message::json(&n))).await.unwrap();
        for at in [0, 4, 8] {
            let row = peek_rows(&queue, &format!("before {at}")).await.remove(at - at / 4);
            erase(&server, &row).await;
        }
        let left = peek_rows(&queue, "after").await;
        assert_eq!(left.iter().map(|row| row.seq).collect::<Vec<_>>(), [1, 2, 3, 5, 6, 7]);
        for from in ["onrush.messages", "onrush.messages('q')", "onrush.messages('q', 'Default')"] {
            let shown: Vec<Row> = rows(&cluster, from).into_iter().map(|it| it.0).collect();
            assert_eq!(shown, left, "{from}");
        }
        let count = "SELECT count(*) AS n FROM onrush.erased";
        assert_eq!(objects(&cluster, count)[0]["n"], json!(3));
        queue.delete().await.unwrap();
        let deadline = Instant::now() + PATIENCE;
        // Upkeep sweeps at its beginning; a server that was there already would take its time.
        let server = server.restart().await;
        while objects(&cluster, count)[0]["n"] != json!(0) {
            assert!(Instant::now() < deadline, "what was deleted in a queue that is gone stays");
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        server.stop().await;
    }
}
