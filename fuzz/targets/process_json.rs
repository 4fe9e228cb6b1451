//! Reads bytes as a message of a process, as values of a script, and writes them back.
//!
//! In: any bytes. Out: nothing; a panic, a hang or memory beyond the limit is the finding.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| onrush::process::runtime::luau::fuzz_json(input));
