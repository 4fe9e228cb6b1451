//! What the tests of this folder share: clusters, servers on them, and rows to compare.

use std::time::Duration;

use onrush::config::{Secret, Settings};
use onrush_client::{Queue, QueueOptions, ReceivedMessage};
use onrush_pgharness::{Cluster, installations};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::look;
use crate::server::TestServer;

/// How long anything may take that is expected to happen; never how long it does take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A cluster of each major.
pub(crate) fn clusters() -> Vec<Cluster> {
    installations().unwrap().iter().map(|it| Cluster::start(it).unwrap()).collect()
}

/// A server with a data folder of its own on a cluster's store.
pub(crate) async fn start(cluster: &Cluster, change: impl FnOnce(&mut Settings)) -> TestServer {
    let url = cluster.url("postgres");
    TestServer::start_with(move |settings| {
        settings.database.url = Secret::new(url);
        change(settings);
    })
    .await
}

/// The same, and it gives space back as soon as it can, in small pieces.
pub(crate) async fn start_tidy(cluster: &Cluster) -> TestServer {
    start(cluster, |settings| {
        settings.store.segment_bytes = 256 << 10;
        settings.store.retention_interval_ms = 50;
        settings.store.checkpoint_interval_ms = 50;
    })
    .await
}

/// How a queue is that lets go of what is done with.
pub(crate) fn fleeting() -> QueueOptions {
    QueueOptions { retention_enabled: true, completed_retention_s: 1, ..QueueOptions::default() }
}

/// Whether the log's first piece was given back.
pub(crate) fn is_space_back(cluster: &Cluster) -> bool {
    let oldest = "SELECT min(piece) AS n FROM onrush.pieces";
    objects(cluster, oldest)[0]["n"] != 0
}

/// Does something while nothing becomes rows, so that the log keeps what has still to: somebody else
/// holds the projector's lock and does nothing.
pub(crate) async fn while_nothing_becomes_rows<T>(
    cluster: &Cluster,
    work: impl Future<Output = T>,
) -> T {
    let lock = "SELECT pg_advisory_lock(hashtextextended('onrush onrush projector', 0)); \
                SELECT pg_sleep(1000)";
    let (done, held) = std::thread::scope(|scope| {
        // It ends with the statement that ends its session.
        let holding = scope.spawn(move || cluster.sql("postgres", lock).is_err());
        let locks = "SELECT count(*) AS n FROM pg_locks l JOIN pg_stat_activity a USING (pid) \
                     WHERE l.locktype = 'advisory' AND l.granted AND a.query LIKE '%pg_sleep%' \
                       AND a.pid <> pg_backend_pid()";
        while objects(cluster, locks)[0]["n"] == 0 {
            assert!(!holding.is_finished(), "the lock cannot be had");
        }
        let runtime = tokio::runtime::Handle::current();
        let done = tokio::task::block_in_place(|| runtime.block_on(work));
        let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                   WHERE query LIKE '%pg_sleep%' AND pid <> pg_backend_pid()";
        cluster.sql("postgres", end).unwrap();
        (done, holding.join().unwrap())
    });
    assert!(held, "it held the lock to the end");
    done
}

/// A message as anybody may see it.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct Row {
    pub(crate) queue: String,
    pub(crate) partition: String,
    pub(crate) seq: u64,
    pub(crate) id: String,
    pub(crate) transaction_id: String,
    pub(crate) time_ms: u64,
    pub(crate) bytes: Vec<u8>,
}

impl Row {
    pub(crate) fn of(message: &ReceivedMessage) -> Self {
        Self {
            queue: message.queue().as_str().to_owned(),
            partition: message.partition_name().as_str().to_owned(),
            seq: message.seq,
            id: message.id.to_string(),
            transaction_id: message.transaction_id().into_owned(),
            time_ms: message.time_ms,
            bytes: message.bytes().to_vec(),
        }
    }
}

/// The rows of a query, as objects.
pub(crate) fn objects(cluster: &Cluster, query: &str) -> Vec<Value> {
    let all = format!("SELECT coalesce(json_agg(found), '[]') FROM ({query}) AS found");
    serde_json::from_str(&cluster.sql("postgres", &all).unwrap()).unwrap()
}

/// Messages from a view, a function or a table, and their payloads as JSON.
pub(crate) fn rows(cluster: &Cluster, from: &str) -> Vec<(Row, Value)> {
    let query = format!(
        "SELECT queue, partition, seq, id, transaction_id, payload, \
                (extract(epoch FROM time) * 1000)::int8 AS time_ms, \
                encode(payload_bytes, 'hex') AS hex FROM {from}"
    );
    let mut rows: Vec<(Row, Value)> = objects(cluster, &query).iter().map(row).collect();
    rows.sort_by(|one, other| one.0.cmp(&other.0));
    rows
}

fn row(object: &Value) -> (Row, Value) {
    let text = |key: &str| object[key].as_str().unwrap().to_owned();
    let hex = text("hex");
    let bytes = (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16));
    let row = Row {
        queue: text("queue"),
        partition: text("partition"),
        seq: object["seq"].as_u64().unwrap(),
        id: text("id"),
        transaction_id: text("transaction_id"),
        time_ms: object["time_ms"].as_u64().unwrap(),
        bytes: bytes.collect::<Result<_, _>>().unwrap(),
    };
    (row, object["payload"].clone())
}

/// Everything that is kept in a queue, as a group that is new sees it, as rows in their order.
pub(crate) async fn peek_rows(queue: &Queue, group: &str) -> Vec<Row> {
    let mut rows: Vec<Row> = look::peek(queue, group).await.iter().map(Row::of).collect();
    rows.sort();
    rows
}

/// Deletes a message over HTTP.
pub(crate) async fn erase(server: &TestServer, row: &Row) {
    let (_, queue) =
        ask(server, "GET", &format!("/api/v1/resources/queues/{}", row.queue), "").await;
    let partitions = queue["partitions"].as_array().unwrap();
    let partition = partitions.iter().find(|it| it["name"] == row.partition.as_str()).unwrap();
    let partition = partition["id"].as_str().unwrap();
    let path = format!("/api/v1/messages/{partition}/{}", row.transaction_id);
    let (status, told) = ask(server, "DELETE", &path, "").await;
    assert_eq!(status, 200, "{told}");
}

/// Asks a server over HTTP; the answer's status and its JSON.
pub(crate) async fn ask(server: &TestServer, method: &str, path: &str, body: &str) -> (u16, Value) {
    let address = server.url().trim_start_matches("http://").to_owned();
    let mut stream = TcpStream::connect(address).await.unwrap();
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\
         Content-Length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, serde_json::from_str(body).unwrap_or(Value::Null))
}
