//! Compiled guests: the interface, its limits, and guests that break its rules.

use std::sync::Arc;

use base64::Engine as _;

use super::super::rig::{MapState, bare, call, compile, error, handle, message, output, reply};
use super::super::{
    Call, CallKind, GuestError, Language, Limits, Message, Module, OutboxEntry, Prelude, StateFault,
};

const FAC: &str = include_str!("../../../../examples/processes/wasm/fac.wat");

const FAC_BINARY: &[u8] = include_bytes!("../../../../examples/processes/wasm/fac.wasm");

fn wasm(text: &str) -> Result<Arc<dyn Module>, GuestError> {
    let binary = wat::parse_str(text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    compile(Language::Wasm, Prelude::None, &binary)
}

/// A guest whose `handle` does `body`; `data` is at 0, the call's text at 4096.
fn guest(data: &str, body: &str) -> Arc<dyn Module> {
    let text = format!(
        r#"(module
        (import "onrush" "kv_get" (func $get (param i32 i32 i32 i32) (result i32)))
        (import "onrush" "kv_put" (func $put (param i32 i32 i32 i32)))
        (import "onrush" "kv_del" (func $del (param i32 i32)))
        (import "onrush" "kv_scan" (func $scan (param i32 i32 i32 i32 i32) (result i32)))
        (import "onrush" "send" (func $send (param i32 i32) (result i32)))
        (import "onrush" "log" (func $log (param i32 i32)))
        (import "onrush" "now" (func $now (result i64)))
        (import "onrush" "random" (func $random (result i64)))
        (import "onrush" "payload_len" (func $payload_len (result i32)))
        (import "onrush" "payload_copy" (func $payload_copy (param i32)))
        (import "onrush" "fail" (func $fail (param i32 i32)))
        (memory (export "memory") 1)
        (table 1 funcref)
        (data (i32.const 0) "{data}")
        (func (export "alloc") (param i32) (result i32) (i32.const 4096))
        (func $again (export "again") (param i32) (result i32)
            (i32.add (i32.const 1) (call $again (local.get 0))))
        (func $pack (param $at i32) (param $len i32) (result i64)
            (i64.or (i64.shl (i64.extend_i32_u (local.get $at)) (i64.const 32))
                (i64.extend_i32_u (local.get $len))))
        (func (export "handle") (param $text i32) (param $len i32) (result i64) {body}))"#
    );
    wasm(&text).unwrap_or_else(|error| panic!("{error}\n{body}"))
}

#[test]
fn pv_10_factorials() {
    let fac = wasm(FAC).expect("the example is a module");
    for (number, factorial) in
        [("5", "120"), ("6", "720"), ("0", "1"), ("20", "2432902008176640000")]
    {
        assert_eq!(output(handle(&*fac, number, &mut MapState::default())), factorial);
    }
    for refused in ["21", "-1", "\"5\"", "", "100"] {
        let error = error(handle(&*fac, refused, &mut MapState::default()));
        let said =
            if refused.is_empty() { "the message is no JSON" } else { "push a whole number" };
        assert!(error.to_string().starts_with(said), "{refused}: {error}");
    }
    let binary = wat::parse_str(FAC).expect("the example is WAT");
    assert_eq!(binary, FAC_BINARY, "the example's binary is of its text");
    let base64 = base64::engine::general_purpose::STANDARD.encode(binary);
    let again = compile(Language::Wasm, Prelude::None, base64.as_bytes()).expect("base64 is taken");
    assert_eq!(output(handle(&*again, "5", &mut MapState::default())), "120");
}

#[test]
fn a_guest_reads_its_call() {
    let echo = guest("", "(call $pack (local.get $text) (local.get $len))");
    let said = output(handle(&*echo, r#"{"a":[1, 2]}"#, &mut MapState::default()));
    assert_eq!(
        said,
        r#"{"ctx":{"self":"test/one","class":"test","key":"one","slot":7,"now":1700000000123,"version":1},"message":{"id":"m1","transaction_id":"t1","timestamp":1700000000000,"from":"client:alice","cascade":"c1","depth":0,"hops_left":64,"payload":{"a":[1, 2]}}}"#
    );
    let binary = Message { payload: b"\xff\x00\x01", is_json: false, ..message("") };
    let binary = Call { message: Some(binary), ..bare(CallKind::Handle) };
    let digits = guest(
        "0",
        "(call $payload_copy (i32.const 100))
        (i32.store8 (i32.const 0) (i32.add (i32.const 48)
            (i32.add (call $payload_len) (i32.load8_u (i32.const 102)))))
        (call $pack (i32.const 0) (i32.const 1))",
    );
    let outcome = digits.evaluate(binary, &mut MapState::default(), &Limits::default());
    assert_eq!(output(outcome), "4");
    let limits = Limits::default();
    let started = echo.evaluate(bare(CallKind::Init), &mut MapState::default(), &limits);
    assert_eq!(reply(started).output, None, "a guest without init does nothing");
}

#[test]
fn a_guest_keeps_its_state() {
    let keeper = guest(
        "abcnull",
        "(call $put (i32.const 0) (i32.const 2) (i32.const 3) (i32.const 4))
        (call $del (i32.const 1) (i32.const 1))
        (drop (call $get (i32.const 0) (i32.const 1) (i32.const 100) (i32.const 0)))
        (call $pack (i32.const 100) (call $scan (i32.const 0) (i32.const 1) (i32.const 0) (i32.const 100) (i32.const 1000)))",
    );
    let mut state = MapState::with(&[("a", "[1]"), ("b", "2"), ("c", "3")]);
    let found = output(handle(&*keeper, "{}", &mut state));
    assert_eq!(found, r#"[{"key":"a","value":[1]},{"key":"ab","value":null}]"#);
    assert_eq!(state.value("b"), None);
    assert_eq!(state.value("ab"), Some("null"));
    let absent = guest(
        "x",
        "(if (i32.ne (call $get (i32.const 0) (i32.const 1) (i32.const 100) (i32.const 9)) (i32.const -1))
            (then unreachable)) (i64.const 0)",
    );
    assert_eq!(reply(handle(&*absent, "{}", &mut MapState::default())).output, None);
    let fault = Some(StateFault::Unavailable("away".to_owned()));
    let outcome = handle(&*absent, "{}", &mut MapState { fault, ..MapState::default() });
    assert_eq!(error(outcome).code(), "store_unavailable");
}

#[test]
fn a_guest_sends_and_prints() {
    let entry = r#"{\"target\":\"a/b\",\"n\":1,\"delay_ms\":5,\"spawn_init\":{\"x\":1}}"#;
    let len = entry.replace('\\', "").len();
    let sender = guest(
        entry,
        &format!(
            "(drop (call $send (i32.const 0) (i32.const {len})))
            (call $log (i32.const 2) (i32.const 6))
            (if (i64.ne (call $now) (i64.const 1700000000123)) (then unreachable))
            (i64.const 0)"
        ),
    );
    let outcome = handle(&*sender, "{}", &mut MapState::default());
    assert_eq!(outcome.printed, "target\n");
    let expected = OutboxEntry {
        target: Some("a/b".to_owned()),
        payload: r#"{"n":1}"#.into(),
        delay_ms: Some(5),
        spawn_init: Some(r#"{"x":1}"#.into()),
        ..OutboxEntry::default()
    };
    assert_eq!(reply(outcome).outbox, [expected]);
    for (entry, said) in [
        (r#"{\"from\":1}"#, "the engine sets it"),
        ("[]", "a message is a JSON object"),
        (r#"{\"delay_ms\":-1}"#, "delay_ms"),
        (r#"{\"target\":5}"#, "target"),
        (r#"{\"spawn_init\":5}"#, "spawn_init is an object"),
    ] {
        let len = entry.replace('\\', "").len();
        let body = format!("(drop (call $send (i32.const 0) (i32.const {len}))) (i64.const 0)");
        let error = error(handle(&*guest(entry, &body), "{}", &mut MapState::default()));
        assert!(error.to_string().contains(said), "{entry}: {error}");
    }
}

#[test]
fn the_same_call_has_the_same_outcome_every_time() {
    let body = "(i64.store (i32.const 100) (i64.or (call $random) (i64.const 1)))
        (i32.store8 (i32.const 200) (i32.add (i32.const 48) (i32.wrap_i64 (i64.rem_u (i64.load (i32.const 100)) (i64.const 10)))))
        (i32.store8 (i32.const 201) (i32.add (i32.const 48) (i32.wrap_i64 (i64.rem_u (call $random) (i64.const 10)))))
        (call $log (i32.const 200) (i32.const 2))
        (i64.const 0)";
    let module = guest("", body);
    let first = handle(&*module, "{}", &mut MapState::default());
    assert!(first.result.is_ok() && first.fuel > 0);
    assert_eq!(handle(&*module, "{}", &mut MapState::default()), first);
    assert_eq!(handle(&*guest("", body), "{}", &mut MapState::default()), first);
}

#[track_caller]
fn ends_with(code: &str, body: &str, limits: &Limits) {
    let module = guest("abc{}", body);
    let outcome = module.evaluate(call("{}"), &mut MapState::default(), limits);
    assert_eq!(error(outcome).code(), code, "{body}");
    let forever = module.evaluate(call("{}"), &mut MapState::default(), limits);
    assert_eq!(error(forever).code(), code, "{body}, again");
}

#[test]
fn guests_that_mean_harm_end_within_their_limits() {
    let endless = "(loop $l (br $l)) (i64.const 0)";
    let little = Limits { fuel: 1_000_000, wall_ms: 60_000, ..Limits::default() };
    ends_with("fuel_exhausted", endless, &little);
    let log = "(loop $l (call $log (i32.const 0) (i32.const 60000)) (br $l)) (i64.const 0)";
    ends_with("fuel_exhausted", log, &little);
    let hurried = Limits { fuel: u64::MAX, wall_ms: 50, ..Limits::default() };
    ends_with("time_exceeded", endless, &hurried);
    ends_with("time_exceeded", log, &hurried);
    let grow = "(loop $l (drop (memory.grow (i32.const 16))) (br $l)) (i64.const 0)";
    ends_with("memory_exceeded", grow, &little);
    ends_with("guest_error", "(drop (call $again (i32.const 1))) (i64.const 0)", &little);
    ends_with("guest_error", "unreachable", &little);
    let few = Limits { outbox_entries: 3, ..little.clone() };
    let send = "(loop $l (drop (call $send (i32.const 3) (i32.const 2))) (br $l)) (i64.const 0)";
    ends_with("outbox_too_large", send, &few);
    let small = Limits { outbox_bytes: 1, ..little.clone() };
    ends_with("outbox_too_large", send, &small);
    let brief = Limits { state_bytes_written: 8, ..little.clone() };
    let put = "(loop $l (call $put (i32.const 0) (i32.const 1) (i32.const 3) (i32.const 2)) (br $l)) (i64.const 0)";
    ends_with("state_limit", put, &brief);
    let narrow =
        Limits { state_key_bytes: 2, state_value_bytes: 1, state_keys_touched: 1, ..little };
    for body in [
        "(call $del (i32.const 0) (i32.const 3)) (i64.const 0)",
        "(call $put (i32.const 0) (i32.const 1) (i32.const 3) (i32.const 2)) (i64.const 0)",
        "(call $del (i32.const 0) (i32.const 1)) (call $del (i32.const 1) (i32.const 1)) (i64.const 0)",
    ] {
        ends_with("state_limit", body, &narrow);
    }
}

#[test]
fn addresses_and_texts_that_are_wrong_are_errors_of_the_guest() {
    for (body, said) in [
        ("(call $log (i32.const -1) (i32.const 5)) (i64.const 0)", "outside of the memory"),
        ("(call $log (i32.const 0) (i32.const -1)) (i64.const 0)", "outside of the memory"),
        ("(call $payload_copy (i32.const 65535)) (i64.const 0)", "outside of the memory"),
        (
            "(call $put (i32.const 0) (i32.const 1) (i32.const 0) (i32.const 1)) (i64.const 0)",
            "is no JSON",
        ),
        ("(call $pack (i32.const 65535) (i32.const 5))", "the output is outside"),
        ("(call $pack (i32.const 0) (i32.const 3))", "the output is no JSON"),
        ("(call $fail (i32.const 0) (i32.const 3)) (i64.const 0)", "abc"),
        (
            "(i32.store8 (i32.const 0) (i32.const 255)) (call $del (i32.const 0) (i32.const 1)) (i64.const 0)",
            "not UTF-8",
        ),
    ] {
        let error = error(handle(&*guest("abc", body), "{}", &mut MapState::default()));
        assert_eq!(error.code(), "guest_error");
        assert!(error.to_string().contains(said), "{body}: {error}");
    }
}

#[test]
fn an_output_that_is_too_long_is_cut() {
    let limits = Limits { output_bytes: 50, ..Limits::default() };
    let echo = guest("", "(call $pack (local.get $text) (local.get $len))");
    let reply = reply(echo.evaluate(call("{}"), &mut MapState::default(), &limits));
    assert!(reply.output_truncated);
    let text: String = serde_json::from_slice(&reply.output.expect("some")).expect("JSON");
    assert!(text.starts_with(r#"{"ctx":"#));
}

#[test]
fn what_is_no_module_is_refused_with_the_reason() {
    let rest = r#"(func (export "alloc") (param i32) (result i32) (i32.const 0))
        (func (export "handle") (param i32 i32) (result i64) (i64.const 0))"#;
    for (text, said) in [
        ("(module)".to_owned(), "no function `alloc`"),
        (format!("(module {rest})"), "no memory `memory`"),
        (
            r#"(module (memory (export "memory") 1) (func (export "alloc") (param i32) (result i32) (i32.const 0)))"#.to_owned(),
            "no function `handle`",
        ),
        (
            format!(r#"(module (memory (export "memory") 1) {rest} (func (export "init")))"#),
            "`init` has another type",
        ),
        (
            format!(r#"(module (import "wasi_snapshot_preview1" "fd_write" (func)) (memory (export "memory") 1) {rest})"#),
            "fd_write",
        ),
        (format!(r#"(module (memory (export "memory") 4000) {rest})"#), ""),
        (format!(r#"(module (func $s) (start $s) (memory (export "memory") 1) {rest})"#), "start"),
    ] {
        let refused = wasm(&text).err().unwrap_or_else(|| panic!("{text} is no module"));
        assert_eq!(refused.code(), "module_invalid");
        assert!(refused.to_string().contains(said), "{text}: {refused}");
    }
    for bytes in [&b"\0asm"[..], b"\0asm\x01\0\0\0\xff", b"not base64!", b"AGFzbQ=="] {
        let refused = compile(Language::Wasm, Prelude::None, bytes).err();
        assert_eq!(refused.map(|error| error.code()), Some("module_invalid"));
    }
    let prelude = compile(Language::Wasm, Prelude::Ao, b"").err();
    assert!(prelude.is_some_and(|error| error.to_string().contains("prelude")));
}
