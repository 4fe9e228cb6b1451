//! What a guest sends and prints, kept within limits as it comes.
//!
//! In: messages and lines. Out: the outbox and the text, or the limit that was reached. Called by the
//! runtimes, which let no guest get around it.

use super::{GuestError, Limits, OutboxEntry, Outcome, Reply};

/// Messages of one evaluation.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    entries: Vec<OutboxEntry>,
    bytes: usize,
}

impl Outbox {
    /// Bytes that the next message may have.
    pub(super) fn room(&self, limits: &Limits) -> usize {
        limits.outbox_bytes.saturating_sub(self.bytes)
    }

    /// Adds a message; returns its index, from 1.
    pub(super) fn send(
        &mut self,
        entry: OutboxEntry,
        limits: &Limits,
    ) -> Result<usize, GuestError> {
        if self.entries.len() >= limits.outbox_entries {
            let limit = limits.outbox_entries;
            return Err(GuestError::OutboxTooLarge { what: "messages", limit });
        }
        let size = bytes_of(&entry);
        if size > self.room(limits) {
            return Err(full_of_bytes(limits));
        }
        self.bytes += size;
        self.entries.push(entry);
        Ok(self.entries.len())
    }

    pub(super) fn into_entries(self) -> Vec<OutboxEntry> {
        self.entries
    }
}

/// The error of a message that does not fit.
pub(super) fn full_of_bytes(limits: &Limits) -> GuestError {
    GuestError::OutboxTooLarge { what: "bytes", limit: limits.outbox_bytes }
}

/// What a message counts in an outbox.
pub(in crate::process) fn bytes_of(entry: &OutboxEntry) -> usize {
    let texts = [&entry.target, &entry.reply_to, &entry.transaction_suffix];
    let texts: usize = texts.into_iter().flatten().map(String::len).sum();
    entry.payload.len() + entry.spawn_init.as_ref().map_or(0, |init| init.len()) + texts
}

/// Lines of one evaluation.
#[derive(Debug, Default)]
pub(super) struct Printed {
    text: String,
    truncated: bool,
}

impl Printed {
    /// Adds a line, or what of it fits.
    pub(super) fn line(&mut self, line: &[u8], limits: &Limits) {
        let room = limits.output_bytes.saturating_sub(self.text.len());
        if self.truncated || line.len() >= room {
            let part = line.get(..room.saturating_sub(1)).unwrap_or(line);
            if !self.truncated {
                self.text.push_str(&String::from_utf8_lossy(part));
                // Replaced bytes may be longer than what they replace.
                truncate(&mut self.text, limits.output_bytes);
            }
            self.truncated = true;
            return;
        }
        self.text.push_str(&String::from_utf8_lossy(line));
        self.text.push('\n');
        if self.text.len() > limits.output_bytes {
            truncate(&mut self.text, limits.output_bytes);
            self.truncated = true;
        }
    }

    /// Completes an outcome.
    pub(super) fn outcome(self, result: Result<Reply, GuestError>, fuel: u64) -> Outcome {
        Outcome { result, printed: self.text, printed_truncated: self.truncated, fuel }
    }
}

/// Cuts a text to at most `bytes`, between two characters.
pub(super) fn truncate(text: &mut String, bytes: usize) {
    if text.len() > bytes {
        let end = (0..=bytes).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(end);
    }
}

/// What stands for an output that is too long: a JSON string with its beginning, no longer than
/// `bytes`.
pub(super) fn cut_output(text: &[u8], bytes: usize) -> Vec<u8> {
    let mut kept = String::from_utf8_lossy(text.get(..bytes).unwrap_or(text)).into_owned();
    loop {
        let quoted = serde_json::to_vec(&kept).unwrap_or_else(|_| b"\"\"".to_vec());
        if quoted.len() <= bytes || kept.is_empty() {
            return quoted;
        }
        // Escapes make it longer by a factor that is known only when it was written.
        let fits = (kept.len() * bytes / quoted.len()).min(kept.len() - 1);
        truncate(&mut kept, fits);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn printing_stops_at_the_limit_and_says_so() {
        let limits = Limits { output_bytes: 8, ..Limits::default() };
        let mut printed = Printed::default();
        printed.line(b"abc", &limits);
        assert!(!printed.truncated);
        printed.line("dé€x".as_bytes(), &limits);
        printed.line(b"y", &limits);
        assert_eq!((printed.text.as_str(), printed.truncated), ("abc\ndé", true));
        let mut printed = Printed::default();
        printed.line(&[0xff; 5], &limits);
        assert!(printed.truncated && printed.text.len() <= 8);
    }

    #[test]
    fn an_output_that_is_cut_is_still_json() {
        for text in
            ["\"\u{1}\u{1}\u{1}\u{1}\u{1}\u{1}\u{1}\u{1}\"", "[1,2,3,4,5,6,7,8]", "\"€€€€€€€\""]
        {
            for bytes in 2..text.len() {
                let cut = cut_output(text.as_bytes(), bytes);
                assert!(cut.len() <= bytes, "{text} to {bytes}");
                let read: String = serde_json::from_slice(&cut).expect("a string");
                assert!(read.chars().all(|c| c == '\u{fffd}' || text.contains(c)));
            }
        }
    }

    #[test]
    fn an_outbox_has_an_end_in_messages_and_in_bytes() {
        let limits = Limits { outbox_entries: 2, outbox_bytes: 10, ..Limits::default() };
        let entry = |bytes: usize| OutboxEntry {
            target: Some("a/b".to_owned()),
            payload: vec![b' '; bytes].into(),
            ..OutboxEntry::default()
        };
        let mut outbox = Outbox::default();
        assert_eq!(outbox.send(entry(2), &limits), Ok(1));
        assert_eq!(outbox.send(entry(3), &limits), Err(full_of_bytes(&limits)));
        assert_eq!(outbox.send(entry(2), &limits), Ok(2));
        let full = GuestError::OutboxTooLarge { what: "messages", limit: 2 };
        assert_eq!(outbox.send(entry(0), &limits), Err(full));
        assert_eq!(outbox.into_entries().len(), 2);
    }
}
