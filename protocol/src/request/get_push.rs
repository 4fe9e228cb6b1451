//! GetPush: asks how a push to a process stands; answered by `PushShown`.
//!
//! | bytes | field |
//! |---|---|
//! | 1 + n | `push`: a short text: the push's id |
//! | 1 | `as_graph`: 0 a tree, 1 nodes and edges, without what follows being looked at |
//! | 4 | `wait_ms`: how long to wait until it is complete, at most 600 000 |
//! | 4 | `result_depth`: how many levels carry their results |
//! | 4 | `limit`: nodes, 1 to 1 000 |
//! | 1 + n | `cursor`: a short text: where a node of an answer was cut; of 0 bytes for the beginning |

use bytes::{BufMut, Bytes, BytesMut};

use crate::decode_error::DecodeError;
use crate::limits::{PAGE_ITEMS_MAX, PROCESS_WAIT_MS_MAX};
use crate::primitive::{Reader, put_flag, put_short};
use crate::text::ShortText;

/// Asks how a push stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GetPush {
    /// The push's id.
    pub push: ShortText,
    /// Whether its messages are wanted as nodes and edges, and not as a tree.
    pub as_graph: bool,
    /// How long to wait until it is complete, in milliseconds: at most 600 000.
    pub wait_ms: u32,
    /// How many levels of the tree carry their results.
    pub result_depth: u32,
    /// Nodes of the tree: 1 to 1 000.
    pub limit: u32,
    /// Where a node of an answer was cut; empty for the beginning.
    pub cursor: ShortText,
}

impl GetPush {
    /// Appends the body.
    pub fn encode(&self, out: &mut BytesMut) {
        put_short(out, self.push.as_bytes());
        put_flag(out, self.as_graph);
        out.put_u32_le(self.wait_ms);
        out.put_u32_le(self.result_depth);
        out.put_u32_le(self.limit);
        put_short(out, self.cursor.as_bytes());
    }

    /// Reads the body.
    ///
    /// # Errors
    /// [`DecodeError`] naming the field and the limit.
    pub fn decode(body: Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(&body);
        let push = reader.short("push", ShortText::parse)?;
        let as_graph = reader.flag("as_graph")?;
        let wait_ms = reader.u32_in("wait_ms", 0, PROCESS_WAIT_MS_MAX)?;
        let result_depth = reader.u32("result_depth")?;
        let limit = reader.u32_in("limit", 1, PAGE_ITEMS_MAX)?;
        let cursor = reader.short("cursor", ShortText::parse)?;
        reader.end()?;
        Ok(Self { push, as_graph, wait_ms, result_depth, limit, cursor })
    }
}
