//! Reads bytes as a sealed batch that came back from a store, and seals, changes and opens them.
//!
//! In: any bytes. Out: nothing; a panic, a hang or memory beyond the limit is the finding.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| onrush::sealing::fuzz_open(input));
