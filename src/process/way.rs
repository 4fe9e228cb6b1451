//! The messages that led to a message: from each to the one that it was sent for.

use crate::process::keys::Address;
use crate::process::look::{read_record, record_of};
use crate::process::tree::process_name;
use crate::process::{Inner, ProcessError};
use crate::state::kv::KvError;

/// Messages of a way, at most.
const LENGTH_MAX: usize = 1_000;
/// Messages that are read in one turn of the lane.
const CHUNK: usize = 64;

/// A message on the way to another.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Waypoint {
    /// Where it stands.
    pub address: Address,
    /// Its process, `class/key`; `None` where that is gone.
    pub process: Option<String>,
}

impl Inner {
    /// The way to a message and with it, the first message of the cascade before all others; of a long
    /// one the end.
    pub(super) async fn way_to(&self, last: Address) -> Result<Vec<Waypoint>, ProcessError> {
        let (mut way, mut next) = (Vec::new(), Some(last));
        while let Some(from) = next.filter(|_| way.len() < LENGTH_MAX) {
            let read = self.engine.look(move |look| {
                let (mut part, mut next) = (Vec::new(), Some(from));
                while let Some(address) = next.filter(|_| part.len() < CHUNK) {
                    part.push(Waypoint { address, process: process_name(look, address) });
                    let record = record_of(look, address.partition, address.seq)?;
                    let record = record.and_then(|record| read_record(&record));
                    next = record.and_then(|it| Address::parse(it.parent.as_deref()?));
                }
                Ok::<_, KvError>((part, next))
            });
            let (part, more) = read.await??;
            way.extend(part);
            next = more;
        }
        way.reverse();
        Ok(way)
    }
}
