//! What one evaluation may use.

use super::GuestError;

/// Most that one evaluation may use. Whatever exceeds one of these ends with the error named here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Steps: for Luau calls, returns, rounds of loops and steps of pattern matching; for WASM, units of
    /// fuel. More is [`FuelExhausted`](super::GuestError::FuelExhausted).
    pub fuel: u64,
    /// Milliseconds on the clock. More is [`TimeExceeded`](super::GuestError::TimeExceeded).
    pub wall_ms: u64,
    /// Bytes of memory of the guest, with what its runtime needs itself. More is
    /// [`MemoryExceeded`](super::GuestError::MemoryExceeded).
    pub memory_bytes: usize,
    /// Messages sent. More is [`OutboxTooLarge`](super::GuestError::OutboxTooLarge).
    pub outbox_entries: usize,
    /// Bytes of all messages sent. More is [`OutboxTooLarge`](super::GuestError::OutboxTooLarge).
    pub outbox_bytes: usize,
    /// Bytes of the output, and again of what was printed. More is cut off, and marked as cut.
    pub output_bytes: usize,
    /// Bytes of a state key. More is [`StateLimit`](super::GuestError::StateLimit).
    pub state_key_bytes: usize,
    /// Bytes of a state value. More is [`StateLimit`](super::GuestError::StateLimit).
    pub state_value_bytes: usize,
    /// Bytes of state keys and values written, those written over included: one text may be the value of
    /// thousands of keys, so the guest's memory does not bound them. More is
    /// [`StateLimit`](super::GuestError::StateLimit).
    pub state_bytes_written: usize,
    /// State keys read, written or found by a scan. More is
    /// [`StateLimit`](super::GuestError::StateLimit).
    pub state_keys_touched: usize,
    /// State keys that one scan returns. Who asks for more gets this many.
    pub scan_keys: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            fuel: 10_000_000,
            wall_ms: 1_000,
            memory_bytes: 32 << 20,
            outbox_entries: 1_000,
            outbox_bytes: 4 << 20,
            output_bytes: 256 << 10,
            state_key_bytes: 1 << 10,
            state_value_bytes: 1 << 20,
            state_bytes_written: 8 << 20,
            state_keys_touched: 10_000,
            scan_keys: 1_000,
        }
    }
}

impl Limits {
    /// Whether a guest that touched `touched` state keys may touch this one too.
    pub(super) fn may_touch(&self, key: &str, touched: usize) -> Result<(), GuestError> {
        if key.len() > self.state_key_bytes {
            let limit = self.state_key_bytes as u64;
            return Err(GuestError::StateLimit { what: "bytes of a state key", limit });
        }
        if touched >= self.state_keys_touched {
            let limit = self.state_keys_touched as u64;
            return Err(GuestError::StateLimit { what: "state keys touched in a slot", limit });
        }
        Ok(())
    }

    /// Whether a guest that wrote `written` bytes of state may write this too; how many it wrote then.
    pub(super) fn may_write(
        &self,
        key: &str,
        value: &[u8],
        written: usize,
    ) -> Result<usize, GuestError> {
        let refuse = |what, limit: usize| GuestError::StateLimit { what, limit: limit as u64 };
        if value.len() > self.state_value_bytes {
            return Err(refuse("bytes of a state value", self.state_value_bytes));
        }
        let written = written.saturating_add(key.len()).saturating_add(value.len());
        if written > self.state_bytes_written {
            return Err(refuse("bytes of state written in a slot", self.state_bytes_written));
        }
        Ok(written)
    }
}
