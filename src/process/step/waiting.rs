//! Entries that do not go now: they wait for their target, for their time, or for the answer of a server
//! elsewhere.

use bytes::Bytes;
use onrush_protocol::batch::BatchError;

use super::{Builder, Sending};
use crate::process::call::Call;
use crate::process::definition::UnknownTarget;
use crate::process::effects::TRIED_MS;
use crate::process::keys::{EFFECTS, PARKED, parked_key, timer_key};
use crate::process::record::{EntryRecord, EntryStatus, Fault, Letter};
use crate::state::draft::transaction::StateOp;
use crate::state::effect::OwnerId;
use crate::state::tally::TallyChange;

impl Builder<'_> {
    pub(super) fn unknown(
        &mut self,
        sending: &Sending<'_>,
        to: &str,
        mut record: EntryRecord,
    ) -> EntryRecord {
        let fault = Fault::new("target_not_found", format!("there is no '{to}'"));
        let policy = sending.entry.definition.unknown_target;
        match policy {
            UnknownTarget::Park(ttl_ms) => {
                let until_ms = self.now_ms.saturating_add(ttl_ms);
                let letter = self.letter(sending, None, until_ms);
                if let Err(error) = letter.fits() {
                    return self.too_large(sending, &error, record);
                }
                let class = to.split_once('/').map_or(to, |(class, _)| class);
                self.wait(PARKED, parked_key(class, &sending.child_key()), &letter);
                let change = TallyChange { pending: 1, messages: 1, ..TallyChange::default() };
                self.add(sending.root(), &change, false);
                record.status = EntryStatus::Parked;
            }
            UnknownTarget::Dlq | UnknownTarget::Fail => {
                match policy {
                    UnknownTarget::Fail => {
                        let change = TallyChange { lost: 1, ..TallyChange::default() };
                        self.add(sending.root(), &change, false);
                    }
                    _ => self.refuse(sending, &fault),
                }
                (record.status, record.error) = (EntryStatus::Refused, Some(fault));
            }
        }
        record
    }

    /// Puts a call of a server elsewhere among those that are to be made.
    pub(super) fn call(
        &mut self,
        sending: &Sending<'_>,
        call: Call,
        answer_to: Box<str>,
    ) -> Result<EntryStatus, BatchError> {
        let entry = sending.entry.entry;
        let until_ms = self.now_ms.saturating_add(entry.ttl_ms.unwrap_or(TRIED_MS));
        let due_ms = self.now_ms.saturating_add(entry.delay_ms.unwrap_or(0));
        let letter = self.letter(sending, None, until_ms);
        let letter = Letter { target: answer_to, call: Some(call), ..letter };
        letter.fits()?;
        self.wait(EFFECTS, timer_key(due_ms, &sending.child_key()), &letter);
        let pending = TallyChange { pending: 1, messages: 1, ..TallyChange::default() };
        self.add(sending.root(), &pending, false);
        Ok(EntryStatus::Called)
    }

    pub(super) fn wait(&mut self, owner: OwnerId, key: Bytes, letter: &Letter) {
        let value = serde_json::to_vec(letter).unwrap_or_default().into();
        self.change(owner, self.desk, StateOp::Put { key, value });
    }
}
