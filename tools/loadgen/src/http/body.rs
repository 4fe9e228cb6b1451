//! JSON of pushes, pops and acks, as the HTTP door speaks it.
//!
//! In: numbers of messages; bodies of answers. Out: bodies of requests; what an answer says. A
//! payload is a JSON string: the stamped bytes of the binary protocol in hexadecimal, so that the
//! same check holds for both. Pure. Called by the HTTP producer and consumer.

use std::fmt::Write;

use onrush_protocol::Qos;
use rand::rngs::StdRng;
use rand::{RngCore, SeedableRng};
use serde::{Deserialize, Serialize};

use crate::payload::{STAMP_BYTES, Stamp};
use crate::template::{partition_name, transaction_id};

/// Fewest bytes of a payload that can carry a stamp: its hexadecimal digits between quotes.
pub(crate) const PAYLOAD_BYTES_MIN: usize = 2 * STAMP_BYTES + 2;

/// Writes the bodies of one producer's pushes.
pub(super) struct PushBody {
    queue: String,
    qos: Qos,
    buffer: (u32, u32),
    producer: u32,
    /// What follows the stamp, in each message of a batch.
    fillings: Vec<Filling>,
}

struct Filling {
    digits: String,
    crc: u32,
}

impl PushBody {
    pub(super) fn new(
        queue: &str,
        qos: Qos,
        buffer: (u32, u32),
        producer: u32,
        batch: u32,
        size: usize,
    ) -> Self {
        let mut random = StdRng::seed_from_u64(u64::from(producer));
        let bytes = size.saturating_sub(PAYLOAD_BYTES_MIN) / 2;
        let fillings = (0..batch)
            .map(|_| {
                let mut filling = vec![0; bytes];
                random.fill_bytes(&mut filling);
                Filling { digits: hex(&filling), crc: crc32fast::hash(&filling) }
            })
            .collect();
        Self { queue: queue.to_owned(), qos, buffer, producer, fillings }
    }

    /// The body of one push; `seqs` are its messages' numbers.
    pub(super) fn write(&self, partition: u32, sent_ns: u64, seqs: &[u64]) -> Vec<u8> {
        let partition = partition_name(partition);
        let mut out = String::with_capacity(seqs.len() * 256);
        out.push_str("{\"items\":[");
        for (at, (&seq, filling)) in seqs.iter().zip(&self.fillings).enumerate() {
            let comma = if at == 0 { "" } else { "," };
            // Writing to a string cannot fail.
            _ = write!(out, "{comma}{{\"queue\":\"{}\",\"partition\":\"{partition}\",", self.queue);
            if self.qos == Qos::ExactlyOnce {
                let id = transaction_id(self.producer, seq);
                let id = std::str::from_utf8(&id).unwrap_or_default();
                _ = write!(out, "\"transactionId\":\"{id}\",");
            }
            let mut stamp = [0; STAMP_BYTES];
            Stamp { producer: self.producer, seq, sent_ns }.write(filling.crc, &mut stamp);
            _ = write!(out, "\"payload\":\"{}{}\"}}", hex(&stamp), filling.digits);
        }
        out.push(']');
        match self.qos {
            Qos::Buffered => {
                let (ms, max) = self.buffer;
                let or = |value: u32, default| if value == 0 { default } else { value };
                _ = write!(out, ",\"bufferMs\":{},\"bufferMax\":{}", or(ms, 100), or(max, 100));
            }
            qos => _ = write!(out, ",\"qos\":{}", qos.number()),
        }
        out.push('}');
        out.into_bytes()
    }
}

/// What a push's answer says, item by item.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct PushSaid {
    pub(super) taken: u32,
    pub(super) duplicates: u32,
    /// The first failure's code, if an item failed.
    pub(super) failed: Option<String>,
    pub(super) failures: u32,
}

/// Reads a push's answer, in either dialect.
pub(super) fn read_push(body: &[u8]) -> Result<PushSaid, String> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Answer {
        Onrush { messages: Vec<Item> },
        Queen(Vec<Item>),
    }
    #[derive(Deserialize)]
    struct Item {
        status: String,
        code: Option<String>,
    }
    let answer: Answer = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    let (Answer::Onrush { messages } | Answer::Queen(messages)) = answer;
    let mut said = PushSaid::default();
    for item in messages {
        match item.status.as_str() {
            "pushed" | "queued" | "buffered" => said.taken += 1,
            "duplicate" => {
                said.taken += 1;
                said.duplicates += 1;
            }
            other => {
                said.failures += 1;
                said.failed.get_or_insert(item.code.unwrap_or_else(|| other.to_owned()));
            }
        }
    }
    Ok(said)
}

/// One popped message, as far as it matters here.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PoppedItem {
    pub(super) id: String,
    pub(super) transaction_id: String,
    pub(super) partition_id: String,
    pub(super) partition: String,
    pub(super) lease_id: Option<String>,
    pub(super) data: serde_json::Value,
}

/// Reads a pop's answer.
pub(super) fn read_pop(body: &[u8]) -> Result<Vec<PoppedItem>, String> {
    #[derive(Deserialize)]
    struct Answer {
        messages: Vec<PoppedItem>,
    }
    let answer: Answer = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    Ok(answer.messages)
}

/// The stamped bytes behind a payload; empty when it is none of ours.
pub(super) fn unhex(data: &serde_json::Value) -> Vec<u8> {
    let digits = data.as_str().unwrap_or_default().as_bytes();
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    digits
        .chunks_exact(2)
        .map_while(|pair| match pair {
            [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
            _ => None,
        })
        .collect()
}

/// The body of an ack for all these messages.
pub(super) fn write_acks(group: &str, messages: &[PoppedItem]) -> Result<Vec<u8>, String> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Acks<'a> {
        consumer_group: &'a str,
        acknowledgments: Vec<OneAck<'a>>,
    }
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct OneAck<'a> {
        transaction_id: &'a str,
        partition_id: &'a str,
        status: &'static str,
        lease_id: Option<&'a str>,
    }
    let acknowledgments = messages
        .iter()
        .map(|message| OneAck {
            transaction_id: &message.transaction_id,
            partition_id: &message.partition_id,
            status: "completed",
            lease_id: message.lease_id.as_deref(),
        })
        .collect();
    let acks = Acks { consumer_group: group, acknowledgments };
    serde_json::to_vec(&acks).map_err(|error| error.to_string())
}

/// How many of an ack's items were done, and why the first other was not.
pub(super) fn read_acks(body: &[u8]) -> Result<(u64, Option<String>), String> {
    #[derive(Deserialize)]
    struct Item {
        success: bool,
        error: Option<String>,
    }
    let items: Vec<Item> = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    let done = items.iter().filter(|item| item.success).count() as u64;
    let refused = items.into_iter().find(|item| !item.success);
    Ok((done, refused.map(|item| item.error.unwrap_or_else(|| "refused".to_owned()))))
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: [char; 16] =
        ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f'];
    let digit = |nibble: u8| DIGITS.get(usize::from(nibble)).copied().unwrap_or('0');
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 0xf)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_push_body_is_json_whose_payloads_carry_their_stamps() {
        for qos in [Qos::Buffered, Qos::AtLeastOnce, Qos::ExactlyOnce] {
            let body = PushBody::new("q", qos, (0, 50), 9, 3, 100);
            let text = body.write(7, 1234, &[5, 6, 6]);
            let json: serde_json::Value = serde_json::from_slice(&text).unwrap();
            let items = json["items"].as_array().unwrap();
            assert_eq!(items.len(), 3);
            for (item, seq) in items.iter().zip([5, 6, 6]) {
                assert_eq!(item["queue"], "q");
                assert_eq!(item["partition"], "p00000007");
                assert_eq!(item["transactionId"].is_string(), qos == Qos::ExactlyOnce);
                let payload = serde_json::to_vec(&item["payload"]).unwrap();
                assert_eq!(payload.len(), 100);
                let stamp = Stamp::read(&unhex(&item["payload"])).unwrap();
                assert_eq!(stamp, Stamp { producer: 9, seq, sent_ns: 1234 });
            }
            let is_buffered = qos == Qos::Buffered;
            assert_eq!(json["bufferMax"].as_u64(), is_buffered.then_some(50));
            assert_eq!(json["qos"].as_u64(), (!is_buffered).then_some(u64::from(qos.number())));
        }
    }

    #[test]
    fn both_dialects_of_an_answer_are_understood() {
        let onrush = br#"{"pushed":false,"qos0":false,"dbHealthy":true,"messages":[
            {"status":"pushed"},{"status":"duplicate"},{"status":"failed","code":"busy"}]}"#;
        let queen = br#"[{"status":"queued"},{"status":"duplicate"},{"status":"failed"}]"#;
        let said = |code: &str| PushSaid {
            taken: 2,
            duplicates: 1,
            failed: Some(code.to_owned()),
            failures: 1,
        };
        assert_eq!(read_push(onrush), Ok(said("busy")));
        assert_eq!(read_push(queen), Ok(said("failed")));
        assert!(read_push(b"{}").is_err());
    }

    #[test]
    fn what_is_no_payload_of_ours_has_no_bytes() {
        assert!(unhex(&serde_json::json!({"a": 1})).is_empty());
        assert_eq!(unhex(&serde_json::json!("00ff")), [0, 255]);
    }
}
