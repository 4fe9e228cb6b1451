//! What a database bounds: the same messages by raw binary COPY into a table without an index, one
//! row per message or one row per batch, and nothing else.
//!
//! In: a database's URL and the shape of the traffic. Out: messages per second that were committed.
//! Every connection sends the same prepared bytes again and again, so that the client costs next to
//! nothing. Called by the floor.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::SinkExt;
use hdrhistogram::Histogram;
use rand::rngs::StdRng;
use rand::{RngCore, SeedableRng};
use tokio::task::JoinSet;
use tokio_postgres::{Client, NoTls};

use super::{Bound, Measured, WARMUP};
use crate::clock::{Clock, Span};
use crate::error::LoadError;

/// Bytes handed to the driver at a time.
const CHUNK_BYTES: usize = 256 << 10;

/// The traffic that is imitated.
#[derive(Clone, Debug)]
pub(crate) struct Traffic {
    /// Where the database is.
    pub(crate) url: String,
    pub(crate) connections: usize,
    /// Messages of a batch.
    pub(crate) batch: u32,
    /// Bytes of a message.
    pub(crate) size: usize,
    /// Messages of a transaction.
    pub(crate) commit: u32,
}

/// Measures one bound for `seconds`. Its table is made and dropped again.
pub(crate) fn measure(
    bound: Bound,
    traffic: &Traffic,
    seconds: Duration,
) -> Result<Measured, LoadError> {
    let runtime = crate::run::runtime()?;
    runtime.block_on(async {
        let table = format!("onrush_floor_{}", std::process::id());
        let client = connect(&traffic.url).await?;
        let make = format!("DROP TABLE IF EXISTS {table}; CREATE TABLE {table} (body bytea)");
        client.batch_execute(&make).await.map_err(failed)?;
        let measured = copies(bound, traffic, seconds, &table).await;
        client.batch_execute(&format!("DROP TABLE {table}")).await.map_err(failed)?;
        measured
    })
}

async fn copies(
    bound: Bound,
    traffic: &Traffic,
    seconds: Duration,
    table: &str,
) -> Result<Measured, LoadError> {
    let (rows, bytes, messages) = shape(bound, traffic);
    let rows = chunks(rows, bytes);
    let clock = Clock::start();
    let span = Span::new(clock, WARMUP, seconds, Duration::ZERO);
    let mut crew = JoinSet::new();
    for _ in 0..traffic.connections {
        let client = connect(&traffic.url).await?;
        let (rows, copy) = (rows.clone(), format!("COPY {table} FROM STDIN BINARY"));
        crew.spawn(async move { copy_on(&client, &copy, &rows, clock, span).await });
    }
    let mut latency = histogram()?;
    while let Some(done) = crew.join_next().await {
        let done = done.map_err(|error| failed_with(&error))??;
        latency.add(done).map_err(|error| failed_with(&error))?;
    }
    Ok(Measured {
        bound,
        rate: (latency.len() * u64::from(messages)) as f64 / span.seconds(),
        syncs: latency.len() as f64 / span.seconds(),
        p50_us: latency.value_at_quantile(0.5) as f64 / 1e3,
        p99_us: latency.value_at_quantile(0.99) as f64 / 1e3,
    })
}

/// Copies again and again; returns how long each counted transaction took, nanoseconds.
async fn copy_on(
    client: &Client,
    copy: &str,
    rows: &[Bytes],
    clock: Clock,
    span: Span,
) -> Result<Histogram<u64>, LoadError> {
    let mut latency = histogram()?;
    while clock.now_ns() < span.end_ns {
        let began_ns = clock.now_ns();
        let sink = client.copy_in::<_, Bytes>(copy).await.map_err(failed)?;
        let mut sink = std::pin::pin!(sink);
        for chunk in rows {
            sink.feed(chunk.clone()).await.map_err(failed)?;
        }
        sink.finish().await.map_err(failed)?;
        let ended_ns = clock.now_ns();
        if span.counts(ended_ns) {
            latency.record(ended_ns - began_ns).map_err(|error| failed_with(&error))?;
        }
    }
    Ok(latency)
}

/// Rows of a transaction, bytes of a row, and messages of it all.
fn shape(bound: Bound, traffic: &Traffic) -> (u32, usize, u32) {
    let Traffic { batch, size, commit, .. } = *traffic;
    match bound {
        Bound::Batches => {
            let rows = commit.div_ceil(batch);
            (rows, size * batch as usize, rows * batch)
        }
        _ => (commit, size, commit),
    }
}

/// A whole binary COPY of equal rows, cut into chunks.
fn chunks(rows: u32, bytes: usize) -> Vec<Bytes> {
    let mut out = BytesMut::new();
    out.put_slice(b"PGCOPY\n\xff\r\n\0");
    // No flags, no extension.
    out.put_u64(0);
    // Nothing that the database could compress: it would store almost nothing.
    let mut random = StdRng::seed_from_u64(1);
    let mut body = vec![0; bytes];
    for _ in 0..rows {
        out.put_i16(1);
        out.put_i32(i32::try_from(bytes).unwrap_or(i32::MAX));
        random.fill_bytes(&mut body);
        out.put_slice(&body);
    }
    out.put_i16(-1);
    let mut out = out.freeze();
    let mut chunks = Vec::new();
    while !out.is_empty() {
        chunks.push(out.split_to(out.len().min(CHUNK_BYTES)));
    }
    chunks
}

async fn connect(url: &str) -> Result<Client, LoadError> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.map_err(failed)?;
    // It ends with its client; what goes wrong on it is told to the client.
    tokio::spawn(connection);
    Ok(client)
}

fn histogram() -> Result<Histogram<u64>, LoadError> {
    Histogram::new(3).map_err(|error| failed_with(&error))
}

fn failed(error: tokio_postgres::Error) -> LoadError {
    // The outer message alone says "db error".
    let reason = match error.as_db_error() {
        Some(said) => said.to_string(),
        None => error.to_string(),
    };
    LoadError::Io { doing: "measuring the database", reason }
}

fn failed_with(error: &dyn std::fmt::Display) -> LoadError {
    LoadError::Io { doing: "measuring the database", reason: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_bounds_carry_the_same_messages() {
        let url = String::new();
        let traffic = Traffic { url, connections: 1, batch: 100, size: 100, commit: 10_000 };
        let bytes = |bound| {
            let (rows, bytes, messages) = shape(bound, &traffic);
            assert_eq!(messages, 10_000);
            chunks(rows, bytes).iter().map(Bytes::len).sum::<usize>()
        };
        let (head_and_tail, per_row) = (19 + 2, 6);
        assert_eq!(bytes(Bound::Rows), head_and_tail + 10_000 * (100 + per_row));
        assert_eq!(bytes(Bound::Batches), head_and_tail + 100 * (10_000 + per_row));
    }
}
