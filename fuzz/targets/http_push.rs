//! Reads the JSON body of a push over HTTP, whose payloads are borrowed and never parsed.
//!
//! In: any bytes. Out: nothing; a panic, a hang or memory beyond the limit is the finding.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| onrush::wire::fuzz_http_push(input));
