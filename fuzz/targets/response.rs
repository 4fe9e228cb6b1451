//! Decodes an answer: what a client reads from a server that it need not trust.
//!
//! In: any bytes. Out: nothing; a panic, a hang or memory beyond the limit is the finding.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| onrush_protocol::fuzz_bodies::response(input));
