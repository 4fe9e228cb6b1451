//! An HTTP door in front of the store in memory, as far as the load generator speaks it.
//!
//! In: requests over HTTP/1.1. Out: what a real server would say, or what a store that was told to
//! break a promise makes of it. A message's transaction id is its id here, whatever its producer said.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use onrush_protocol::id::{partition_from_uuid, partition_uuid, uuid_parse, uuid_text};
use onrush_protocol::request::{
    Ack, AckItem, AckOutcome, DeleteQueue, Pop, PushSection, SubscriptionStart,
};
use onrush_protocol::response::{Chunk, MessagesSection, PushStatus, SectionReceipt};
use onrush_protocol::{
    BatchBuilder, BatchLimits, LongText, MessageId, NewRecord, Qos, RecordBatch,
};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::store::Store;

/// How often a pop that waits looks again.
const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// A running door. It ends with the test's runtime.
pub(crate) struct Door {
    pub(crate) addr: SocketAddr,
    pub(crate) store: Arc<Mutex<Store>>,
}

impl Door {
    pub(crate) async fn open() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let store = Arc::<Mutex<Store>>::default();
        let shared = Arc::clone(&store);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let shared = Arc::clone(&shared);
                let service = service_fn(move |request| handle(Arc::clone(&shared), request));
                let serving = hyper::server::conn::http1::Builder::new();
                let serving = serving.serve_connection(TokioIo::new(stream), service);
                // A client that goes away is no matter of the door's.
                tokio::spawn(async move { drop(serving.await) });
            }
        });
        Self { addr, store }
    }
}

async fn handle(
    store: Arc<Mutex<Store>>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let (head, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let path = head.uri.path();
    let answer = match path {
        "/api/v1/configure" => json!({ "configured": true }),
        "/api/v1/push" => push(&mut store.lock().unwrap(), &body),
        "/api/v1/ack/batch" => ack(&mut store.lock().unwrap(), &body),
        _ => match path.strip_prefix("/api/v1/pop/queue/") {
            Some(queue) => pop(&store, queue, head.uri.query().unwrap_or_default()).await,
            None => {
                let queue = path.strip_prefix("/api/v1/resources/queues/").unwrap();
                let queue = queue.parse().unwrap();
                store.lock().unwrap().delete(&DeleteQueue { queue });
                json!({ "deleted": true })
            }
        },
    };
    let mut response = Response::new(Full::new(Bytes::from(answer.to_string())));
    if answer.is_null() {
        *response.status_mut() = hyper::StatusCode::NO_CONTENT;
        *response.body_mut() = Full::default();
    }
    Ok(response)
}

/// All items of a push of the load generator are for one partition.
fn push(store: &mut Store, body: &Value) -> Value {
    let items = body["items"].as_array().unwrap();
    let text = |item: &Value, key: &str| item[key].as_str().unwrap().to_owned();
    let mut builder = BatchBuilder::new();
    for item in items {
        let payload = item["payload"].to_string();
        let record = NewRecord {
            transaction_id: item["transactionId"].as_str(),
            is_json: true,
            payload: payload.as_bytes(),
            ..NewRecord::default()
        };
        builder.push(&record).unwrap();
    }
    let section = PushSection {
        queue: text(&items[0], "queue").parse().unwrap(),
        partition: text(&items[0], "partition").parse().unwrap(),
        batch: builder.finish().unwrap().bytes().clone(),
    };
    let qos = match body["qos"].as_u64() {
        None => Qos::Buffered,
        Some(number) => Qos::from_number(number as u8).unwrap(),
    };
    let statuses: Vec<&str> = match store.push(qos, Ok(section)) {
        SectionReceipt::Buffered { count } => vec!["buffered"; count as usize],
        SectionReceipt::Pushed { count, .. } => vec!["pushed"; count as usize],
        SectionReceipt::Mixed { outcomes, .. } => outcomes
            .iter()
            .map(|it| if it.status == PushStatus::Pushed { "pushed" } else { "duplicate" })
            .collect(),
        SectionReceipt::Failed(failure) => panic!("{failure:?}"),
    };
    let messages: Vec<Value> = statuses.iter().map(|it| json!({ "status": it })).collect();
    json!({ "pushed": true, "messages": messages })
}

async fn pop(store: &Mutex<Store>, queue: &str, query: &str) -> Value {
    let said = |name: &str| {
        let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        pairs.filter(|(key, _)| *key == name).map(|(_, value)| value).next_back().unwrap()
    };
    let ask = Pop {
        queue: queue.parse().unwrap(),
        partition: None,
        group: said("consumerGroup").parse().unwrap(),
        messages_max: said("batch").parse().unwrap(),
        bytes_max: 0,
        partitions_max: said("partitions").parse().unwrap(),
        wait_ms: said("timeout").parse().unwrap(),
        lease_ms: 0,
        auto_ack: false,
        start: SubscriptionStart::Beginning,
    };
    let wait = Duration::from_millis(u64::from(ask.wait_ms));
    let until = tokio::time::Instant::now() + wait;
    loop {
        let found = store.lock().unwrap().pop(&ask);
        if !found.sections.is_empty() {
            let lease = text_of(found.lease);
            let messages: Vec<Value> =
                found.sections.iter().flat_map(|section| messages(section, &lease)).collect();
            return json!({ "success": true, "messages": messages });
        }
        if tokio::time::Instant::now() >= until {
            return Value::Null;
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

fn messages(section: &MessagesSection, lease: &str) -> Vec<Value> {
    let partition_id = text_of(partition_uuid(section.partition));
    let of_chunk = |Chunk { first_seq, time_ms, batch }: &Chunk| {
        let batch = RecordBatch::parse(batch.clone(), &BatchLimits::default()).unwrap();
        let message = |(seq, payload): (u64, Vec<u8>)| {
            let id = MessageId::new(*time_ms, section.partition, seq).unwrap().to_uuid_text();
            let id = std::str::from_utf8(&id).unwrap();
            let data: Value = serde_json::from_slice(&payload).unwrap();
            json!({ "id": id, "transactionId": id, "partitionId": partition_id,
                    "partition": section.partition_name.as_str(), "leaseId": lease, "data": data })
        };
        let payloads = batch.records().map(|record| record.payload.to_vec());
        (*first_seq..).zip(payloads).map(message).collect::<Vec<_>>()
    };
    section.chunks.iter().flat_map(of_chunk).collect()
}

fn ack(store: &mut Store, body: &Value) -> Value {
    let lines = body["acknowledgments"].as_array().unwrap();
    let lease = uuid_parse(lines[0]["leaseId"].as_str().unwrap()).unwrap();
    let item = |line: &Value| {
        let id = MessageId::parse(line["transactionId"].as_str().unwrap()).unwrap();
        let partition = uuid_parse(line["partitionId"].as_str().unwrap()).unwrap();
        let (_, of_id, seq) = id.parts();
        assert_eq!(partition_from_uuid(partition), Some(of_id));
        assert_eq!(line["status"], "completed");
        let (outcome, error) = (AckOutcome::Completed, LongText::default());
        AckItem { partition: of_id, first_seq: seq, last_seq: seq, outcome, error }
    };
    let items: Vec<AckItem> = lines.iter().map(item).collect();
    let group = body["consumerGroup"].as_str().unwrap().parse().unwrap();
    let acked = store.ack(&Ack { group, lease, items });
    acked.items.iter().map(|it| json!({ "success": it.code == 0 })).collect()
}

fn text_of(uuid: [u8; 16]) -> String {
    String::from_utf8(uuid_text(uuid).to_vec()).unwrap()
}
