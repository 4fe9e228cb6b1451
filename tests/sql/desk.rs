//! What the tests of this folder share: clusters, servers on them, and rows to compare.

use std::time::Duration;

use onrush::config::{Secret, Settings};
use onrush_client::{Queue, ReceivedMessage, SubscriptionStart};
use onrush_pgharness::{Cluster, installations};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

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

/// Everything that is kept in a queue, as a group that is new sees it.
pub(crate) async fn peek(queue: &Queue, group: &str) -> Vec<ReceivedMessage> {
    let mut all = Vec::new();
    loop {
        let pop = queue.pop().group(group).start(SubscriptionStart::Beginning);
        let popped = pop.batch(1000).partitions(100).auto_ack(true).send().await.unwrap();
        if popped.is_empty() {
            return all;
        }
        all.extend(popped.messages);
    }
}

/// The same as rows, in their order.
pub(crate) async fn peek_rows(queue: &Queue, group: &str) -> Vec<Row> {
    let mut rows: Vec<Row> = peek(queue, group).await.iter().map(Row::of).collect();
    rows.sort();
    rows
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
