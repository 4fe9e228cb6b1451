//! What the fuzz targets run: plain functions over bytes, so that tests run them on seeds too.
//!
//! In: any bytes. Out: nothing; each panics when a promise of this crate is broken. Called by
//! `fuzz/` and by this crate's tests.

use bytes::{Bytes, BytesMut};

use crate::batch::{BatchLimits, RecordBatch};
use crate::frame;
use crate::limits::{FRAME_BYTES_MAX, FRAME_HEADER_BYTES};
use crate::request::Request;
use crate::response::Response;

/// Splits a stream into frames; every frame that comes out is written back and must be the bytes
/// that went in.
pub fn frame(data: &[u8]) {
    let mut buffer = BytesMut::from(data);
    let mut at = 0;
    while let Ok(Some(frame)) = frame::decode(&mut buffer, FRAME_BYTES_MAX) {
        let header = frame::header(frame.opcode, frame.request_id, frame.body.len());
        let end = at + FRAME_HEADER_BYTES + frame.body.len();
        assert_eq!(data.get(at..at + FRAME_HEADER_BYTES), Some(header.as_slice()));
        assert_eq!(data.get(at + FRAME_HEADER_BYTES..end), Some(frame.body.as_ref()));
        at = end;
    }
    assert_eq!(data.get(at..), Some(buffer.as_ref()), "what is left stays in the buffer");
}

/// Reads a request: the first byte is its opcode. What can be read is written and read again,
/// and must be the same; a push is walked.
pub fn request(data: &[u8]) {
    let Some((opcode, body)) = data.split_first() else { return };
    let Ok(request) = Request::decode(*opcode, Bytes::copy_from_slice(body)) else { return };
    let mut again = BytesMut::new();
    request.encode(&mut again);
    assert_eq!(Request::decode(*opcode, again.freeze()).as_ref(), Ok(&request));
    if let Request::Push(push) = &request {
        assert_eq!(push.sections.iter().count(), push.sections.count());
        for section in push.sections.iter().flatten() {
            batch(&section.batch);
        }
    }
}

/// Reads a response: the first byte is its opcode. What can be read is written and read again,
/// and must be the same.
pub fn response(data: &[u8]) {
    let Some((opcode, body)) = data.split_first() else { return };
    let Ok(response) = Response::decode(*opcode, Bytes::copy_from_slice(body)) else { return };
    let mut again = BytesMut::new();
    response.encode(&mut again);
    assert_eq!(Response::decode(*opcode, again.freeze()).as_ref(), Ok(&response));
}

/// Reads a record batch, trusted and not. What was parsed has as many records as it says, and
/// its parts put together are the whole.
pub fn batch(data: &[u8]) {
    let bytes = Bytes::copy_from_slice(data);
    if let Ok(trusted) = RecordBatch::parse_trusted(bytes.clone()) {
        let mut walked = 0;
        for record in trusted.records() {
            let header_bytes: usize =
                record.headers.map(|(key, value)| key.len() + value.len()).sum();
            assert!(header_bytes + record.payload.len() < record.range.len());
            walked += 1;
        }
        assert!(walked <= trusted.count());
        let _ = trusted.filter(|index| index % 2 == 0);
    }
    let limits = BatchLimits::default();
    let Ok(batch) = RecordBatch::parse(bytes, &limits) else { return };
    assert_eq!(batch.records().count(), batch.count() as usize);
    let middle = batch.count() / 2;
    let parts: Vec<RecordBatch> = [batch.slice(0, middle), batch.slice(middle, batch.count())]
        .into_iter()
        .flatten()
        .collect();
    for part in &parts {
        assert_eq!(RecordBatch::parse(part.bytes().clone(), &limits).as_ref(), Ok(part));
    }
    let mut whole = BytesMut::new();
    // A batch that was parsed is within the limits, and so are its parts together.
    if let Ok(header) = RecordBatch::joined_header(&parts) {
        whole.extend_from_slice(&header);
    }
    for part in &parts {
        whole.extend_from_slice(&part.records_section());
    }
    assert_eq!(whole, batch.bytes());
}
