//! Decodes a request: an opcode, then the body that it announces.
//!
//! In: any bytes. Out: nothing; a panic, a hang or memory beyond the limit is the finding.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| onrush_protocol::fuzz_bodies::request(input));
