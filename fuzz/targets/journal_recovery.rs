//! Opens a segment of the log that holds these bytes, as a start after a crash does.
//!
//! In: any bytes. Out: nothing; a panic, a hang or memory beyond the limit is the finding.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| onrush::journal::fuzz::fuzz_recovery(input));
