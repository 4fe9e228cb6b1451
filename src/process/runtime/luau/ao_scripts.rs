//! Scripts as people write them for AO, unchanged, slot after slot.

use std::sync::Arc;

use super::super::rig::{MapState, bare, compile, error, message, reply};
use super::super::{
    Call, CallKind, Language, Limits, Message, Module, OutboxEntry, Outcome, Prelude,
};

fn ao(code: &str) -> Arc<dyn Module> {
    compile(Language::Luau, Prelude::Ao, code.as_bytes()).expect("the script compiles")
}

fn from<'a>(sender: &'a str, payload: &'a str) -> Call<'a> {
    let message = Message { from: sender, ..message(payload) };
    Call { message: Some(message), ..bare(CallKind::Handle) }
}

#[track_caller]
fn say(module: &Arc<dyn Module>, payload: &str, state: &mut MapState) -> Outcome {
    module.evaluate(from("process:other/p", payload), state, &Limits::default())
}

#[track_caller]
fn sent(outcome: Outcome) -> Vec<(String, serde_json::Value)> {
    let line = |entry: OutboxEntry| {
        let payload = serde_json::from_slice(&entry.payload).expect("payloads are JSON");
        (entry.target.unwrap_or_default(), payload)
    };
    reply(outcome).outbox.into_iter().map(line).collect()
}

#[test]
fn ping_is_answered_with_pong() {
    let module = ao(r#"
        Handlers.add("pingpong", Handlers.utils.hasMatchingTag("Action", "Ping"), function(msg)
            print("ping from " .. msg.From)
            msg.reply({ Action = "Pong", Data = "hello " .. msg.Tags.Name })
            Send({ Target = msg.From, Action = "Also", Count = 5, Tags = { Extra = true } })
        end)
        "#);
    let outcome = say(&module, r#"{"Action":"Ping","Name":"Bob"}"#, &mut MapState::default());
    assert_eq!(outcome.printed, "ping from other/p\n");
    let pong = serde_json::json!({ "Action": "Pong", "Data": "hello Bob" });
    let also = serde_json::json!({ "Action": "Also", "Count": "5", "Extra": "true" });
    let expected = [("$reply".to_owned(), pong), ("other/p".to_owned(), also)];
    assert_eq!(sent(outcome), expected);
    let outcome = say(&module, r#"{"Action":"Other"}"#, &mut MapState::default());
    assert_eq!(reply(outcome).outbox, []);
}

const TOKEN: &str = include_str!("../../../../examples/processes/ao/token.lua");

#[test]
fn globals_of_a_token_are_its_state() {
    let token = ao(TOKEN);
    let mut state = MapState::default();
    let balances = |state: &MapState| -> serde_json::Value {
        serde_json::from_str(state.value("Balances").expect("balances are kept")).expect("JSON")
    };
    let first = say(&token, r#"{"Action":"Info"}"#, &mut state);
    assert_eq!(first.printed, "loaded\n");
    let lines = sent(first);
    let info = serde_json::json!({ "Name": "Points Coin", "Ticker": "PNTS", "Loads": "1" });
    assert_eq!(lines, [("other/p".to_owned(), info)]);
    assert_eq!(balances(&state), serde_json::json!({ "test/one": 1000 }));
    assert_eq!(state.value("utils"), None, "code is no state");

    let transfer = r#"{"Action":"Transfer","Recipient":"bob","Quantity":"30"}"#;
    let outcome =
        token.evaluate(from("process:test/one", transfer), &mut state, &Limits::default());
    assert_eq!(outcome.printed, "", "the top level has run before");
    assert_eq!(sent(outcome), []);
    assert_eq!(balances(&state), serde_json::json!({ "bob": 30, "test/one": 970 }));
    assert_eq!(state.value("History"), Some(r#"["start","bob"]"#), "nothing twice");
    assert_eq!((state.value("Loads"), state.value("Last")), (Some("1"), Some(r#""bob""#)));

    let poor = token.evaluate(from("client:carol", transfer), &mut state, &Limits::default());
    assert_eq!(sent(poor)[0].1["Error"], "Insufficient Balance!");
    let no_recipient = r#"{"Action":"Transfer","Quantity":"1"}"#;
    let failed =
        token.evaluate(from("process:test/one", no_recipient), &mut state, &Limits::default());
    assert!(error(failed).to_string().contains("Recipient is required!"));
    let asked = say(&token, r#"{"Action":"Balance","Target":"bob"}"#, &mut state);
    assert_eq!(sent(asked)[0].1["Balance"], "30");

    reply(say(&token, r#"{"Action":"Forget"}"#, &mut state));
    assert_eq!(state.value("Ticker"), None);
    let info = sent(say(&token, r#"{"Action":"Info"}"#, &mut state));
    assert_eq!(info[0].1.get("Ticker"), None, "what was set to nil stays away");
}

#[test]
fn a_new_version_is_loaded_again_with_the_state_of_the_old() {
    let token = ao(TOKEN);
    let mut state = MapState::default();
    reply(say(&token, r#"{"Action":"Info"}"#, &mut state));
    let newer = Call { version: 2, ..from("process:other/p", r#"{"Action":"Info"}"#) };
    let outcome = token.evaluate(newer, &mut state, &Limits::default());
    assert_eq!(sent(outcome)[0].1["Loads"], "2");
    assert_eq!(state.value("Balances"), Some(r#"{"test/one":1000}"#));
}

#[test]
fn the_top_level_sends_once() {
    let module = ao("Send({ Target = 'registry/main', Action = 'Hello' })");
    let mut state = MapState::default();
    let started = module.evaluate(bare(CallKind::Init), &mut state, &Limits::default());
    assert_eq!(sent(started)[0].0, "registry/main");
    assert_eq!(sent(say(&module, "{}", &mut state)), []);
}

#[test]
fn a_slot_that_changes_nothing_writes_nothing() {
    let token = ao(TOKEN);
    let mut state = MapState::default();
    reply(say(&token, r#"{"Action":"Info"}"#, &mut state));
    state.written.clear();
    reply(say(&token, r#"{"Action":"Info"}"#, &mut state));
    assert_eq!(state.written, [""; 0]);
}

#[test]
fn handlers_match_in_order_and_by_every_kind_of_pattern() {
    let module = ao(r#"
        Seen = Seen or {}
        local function note(name) return function(msg) table.insert(Seen, name) end end
        Handlers.add("log", function(msg) return "continue" end, note("log"))
        Handlers.add("number", function(msg) return if msg.Action == "N" then 1 else 0 end, note("number"))
        Handlers.add("name", "ByName", note("name"))
        Handlers.add("Short", note("short"))
        Handlers.add("spec", { Action = "Spec", Level = "_" }, note("spec"))
        Handlers.add("choice", { Action = { "One", "Two" } }, note("choice"))
        Handlers.add("data", Handlers.utils.hasMatchingData("hello"), note("data"))
        Handlers.add("of", Handlers.utils.hasMatchingTagOf("Action", { "X", "Y" }), note("of"))
        Handlers.prepend("first", { Action = "First" }, note("first"))
        Handlers.add("gone", { Action = "Gone" }, note("gone"))
        Handlers.remove("gone")
        Handlers.before("spec").add("early", { Action = "Spec", Early = "_" }, note("early"))
        Handlers.add("resolve", { Action = "Resolve" }, {
            [{ Status = "a" }] = note("resolve-a"),
            [{ Status = "b" }] = note("resolve-b"),
        })
        "#);
    for (payload, seen) in [
        (r#"{"Action":"N"}"#, r#"["log","number"]"#),
        (r#"{"Action":"ByName"}"#, r#"["log","name"]"#),
        (r#"{"Action":"Short"}"#, r#"["log","short"]"#),
        (r#"{"Action":"Spec"}"#, r#"["log"]"#),
        (r#"{"Action":"Spec","Level":3}"#, r#"["log","spec"]"#),
        (r#"{"Action":"Spec","Level":3,"Early":1}"#, r#"["log","early"]"#),
        (r#"{"Tags":{"Action":"Two"}}"#, r#"["log","choice"]"#),
        (r#"{"Tags":[{"name":"Action","value":"One"}]}"#, r#"["log","choice"]"#),
        (r#"{"Data":"hello"}"#, r#"["log","data"]"#),
        (r#"{"Action":"Y"}"#, r#"["log","of"]"#),
        (r#"{"Action":"First"}"#, r#"["first"]"#),
        (r#"{"Action":"Gone"}"#, r#"["log"]"#),
        (r#"{"Action":"Resolve","Status":"b"}"#, r#"["log","resolve-b"]"#),
        (r#""plain text""#, r#"["log"]"#),
    ] {
        let mut state = MapState::default();
        reply(say(&module, payload, &mut state));
        assert_eq!(state.value("Seen"), Some(seen), "{payload}");
    }
}

#[test]
fn a_handler_that_runs_once_runs_once() {
    let module = ao(r#"
        Handlers.once("greet", "Greet", function(msg) return "welcome" end)
        Handlers.add("greet-again", "Greet", function(msg) return "again" end)
        Handlers.add("twice", { Action = "Twice" }, function(msg) return "yes" end, 2)
        "#);
    let mut state = MapState::default();
    let mut answers = Vec::new();
    for action in ["Greet", "Greet", "Twice", "Twice", "Twice"] {
        let outcome = say(&module, &format!(r#"{{"Action":"{action}"}}"#), &mut state);
        let output = reply(outcome).output.unwrap_or_default();
        answers.push(String::from_utf8(output.to_vec()).expect("JSON"));
    }
    assert_eq!(answers, [r#""welcome""#, r#""again""#, r#""yes""#, r#""yes""#, ""]);
}

#[test]
fn amounts_of_any_size_are_exact() {
    let module = ao(r#"
        local bint = require('.bint')(256)
        Supply = Supply or "340282366920938463463374607431768211455"
        Handlers.add("calc", "Calc", function(msg)
            local supply = bint(Supply)
            return {
                tostring(supply + 1), tostring(supply * supply), tostring(supply // 10 ^ 9),
                tostring(supply % 97), tostring(1 - supply), tostring(bint(-7) // 2), tostring(bint(-7) % 2),
                bint.__lt(0, supply), bint.__le(supply, "5"), bint(5) == bint("0005"), tostring(bint(2) ^ 128),
                bint.tonumber("12") + 1, pcall(bint, "x"), pcall(bint, 1.5), pcall(bint.idiv, 1, 0),
            }
        end)
        "#);
    let outcome = say(&module, r#"{"Action":"Calc"}"#, &mut MapState::default());
    let output = reply(outcome).output.expect("an output");
    let output: serde_json::Value = serde_json::from_slice(&output).expect("JSON");
    // The last call of a list gives all of its results.
    let parts = output.as_array().expect("a list");
    assert_eq!(parts.last().and_then(|error| error.as_str()), Some("attempt to divide by zero"));
    let expected = serde_json::json!([
        "340282366920938463463374607431768211456",
        "115792089237316195423570985008687907852589419931798687112530834793049593217025",
        "340282366920938463463374607431",
        "34",
        "-340282366920938463463374607431768211454",
        "-4",
        "1",
        true,
        false,
        true,
        "340282366920938463463374607431768211456",
        13,
        false,
        false,
        false
    ]);
    assert_eq!(parts.get(..15), expected.as_array().map(|list| &list[..]));
}

#[test]
fn what_the_prelude_brings_outlives_no_slot() {
    let module = ao(r#"
        local bint = require('.bint')()
        Handlers.add("leak", "Leak", function(msg)
            Handlers.leaked, ao.leaked = 1, 1
            return {
                pcall(function() Utils.leaked = 1 end),
                pcall(function() bint.leaked = 1 end),
                Colors.leaked,
            }
        end)
        Handlers.add("look", "Look", function(msg)
            return { Handlers.leaked == nil, ao.leaked == nil }
        end)
        "#);
    let mut state = MapState::default();
    let leak = reply(say(&module, r#"{"Action":"Leak"}"#, &mut state)).output.expect("an output");
    let leak: serde_json::Value = serde_json::from_slice(&leak).expect("JSON");
    assert_eq!((&leak[0], &leak[1]), (&false.into(), &false.into()));
    let look = reply(say(&module, r#"{"Action":"Look"}"#, &mut state)).output;
    assert_eq!(look.as_deref(), Some(&b"[true,true]"[..]));
}

#[test]
fn what_the_prelude_lacks_says_so() {
    for (body, said) in [
        ("Receive({ Action = 'x' })", "a slot cannot"),
        ("Send({ Target = 'a/b' }).receive()", "a slot cannot"),
        ("ao.spawn('x', {})", "ao.spawn is not part of this prelude"),
        ("require('.crypto')", "there is no module .crypto"),
        ("Box = { print }", "state.Box: a function has no JSON"),
    ] {
        let code = format!("Handlers.add('go', 'Go', function(msg) {body} end)");
        let outcome = say(&ao(&code), r#"{"Action":"Go"}"#, &mut MapState::default());
        let error = error(outcome).to_string();
        assert!(error.contains(said), "{body}: {error}");
    }
}
