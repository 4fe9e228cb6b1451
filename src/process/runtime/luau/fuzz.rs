//! The body of the fuzzer of JSON: any bytes may be a message, and what a guest read it can write.
//!
//! In: arbitrary bytes. Out: nothing; a panic is a bug. Called by `fuzz/` and by tests on seeds.

use mlua::{Lua, Value};

use super::decode::decode;
use super::encode::{EncodeError, encode};

/// Memory of the VM, so that a text that unfolds meets its limit.
const MEMORY_BYTES: usize = 32 << 20;

/// Reads a text into a VM; what can be read and has a text again is JSON, and reads and writes as itself.
pub fn fuzz_json(text: &[u8]) {
    let lua = Lua::new();
    let Ok(array_mark) = lua.create_table() else { return };
    if lua.set_memory_limit(MEMORY_BYTES).is_err() {
        return;
    }
    let Ok(value) = decode(&lua, &array_mark, text) else { return };
    let written = |value: &Value| {
        let mut out = Vec::new();
        match encode(value, &array_mark, MEMORY_BYTES, &mut out) {
            Ok(()) => Some(out),
            // Strings of the text need not be UTF-8.
            Err(EncodeError::Value(_) | EncodeError::Vm(_)) => None,
            Err(EncodeError::TooLong) => unreachable!("a text becomes six times as long at most"),
        }
    };
    let Some(first) = written(&value) else { return };
    let parsed = serde_json::from_slice::<serde::de::IgnoredAny>(&first);
    assert!(parsed.is_ok(), "what is written is JSON");
    let Ok(again) = decode(&lua, &array_mark, &first) else {
        panic!("what is written can be read")
    };
    assert_eq!(written(&again).as_deref(), Some(&first[..]), "and is written as it was read");
    let rooms = [0, 1, first.len() / 2, first.len() - 1];
    for room in rooms.into_iter().filter(|room| *room < first.len()) {
        let mut out = Vec::new();
        let cut = encode(&value, &array_mark, room, &mut out);
        assert!(matches!(cut, Err(EncodeError::TooLong | EncodeError::Vm(_))));
        assert!(out.len() <= room + 8, "no more is written than there is room for");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::random::SeededRandom;

    #[test]
    fn texts_that_are_nearly_json_do_no_harm() {
        let parts: [&[u8]; 22] = [
            b"{",
            b"}",
            b"[",
            b"]",
            b",",
            b":",
            b"\"",
            b"\"a\"",
            b"\"\\u00e9\"",
            b"\"\\ud83d\\ude00\"",
            b"\\",
            b"null",
            b"true",
            b"1",
            b"-",
            b"0.5",
            b"1e3",
            b"9007199254740993",
            b" ",
            b"\xff",
            b"{\"a\":[1,{}]}",
            b"[[],{}]",
        ];
        let seeds = std::env::var("ONRUSH_FUZZ_SEEDS").ok().and_then(|text| text.parse().ok());
        for seed in 0..seeds.unwrap_or(400) {
            let random = SeededRandom::new(seed);
            let mut text = Vec::new();
            for _ in 0..random.below(12) {
                text.extend_from_slice(parts[random.below(22) as usize]);
            }
            fuzz_json(&text);
        }
        fuzz_json(br#"{"a":[1,null,"x\u0000",{"b":{}},[]],"z":-0.0,"n":1e300}"#);
        fuzz_json(&[b'['; 1_000]);
    }
}
