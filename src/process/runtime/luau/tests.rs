//! The guest API of scripts: state, messages, sending, printing, and what does not outlive a slot.

use super::super::rig::{
    MapState, bare, call, compile, error, handle, message, output, reply, runtimes, script,
};
use super::super::{
    Call, CallKind, GuestError, Language, Limits, Message, OutboxEntry, Prelude, Source, StateFault,
};

/// What a script returns for a message.
#[track_caller]
fn run(code: &str, payload: &str) -> String {
    output(handle(&*script(code), payload, &mut MapState::default()))
}

fn entry(target: &str, payload: &'static str) -> OutboxEntry {
    let target = Some(target.to_owned());
    OutboxEntry { target, payload: payload.into(), ..OutboxEntry::default() }
}

#[test]
fn a_counter_counts() {
    let counter = script(
        "function handle(state, msg, ctx)
            state.count = (state.count or 0) + msg.by
            return { count = state.count, slot = ctx.slot, me = ctx.self }
        end",
    );
    let mut state = MapState::default();
    let first = output(handle(&*counter, r#"{"by":2}"#, &mut state));
    assert_eq!(first, r#"{"count":2,"me":"test/one","slot":7}"#);
    let second = output(handle(&*counter, r#"{"by":40}"#, &mut state));
    assert_eq!(second, r#"{"count":42,"me":"test/one","slot":7}"#);
    assert_eq!(state.value("count"), Some("42"));
}

#[test]
fn only_keys_that_are_touched_are_read_and_only_those_that_changed_are_written() {
    let code = "function handle(state)
        local _ = state.read
        _ = state.read
        state.blind = 1
        state.same = 5
        _ = state.gone
        state.removed = nil
        state.absent = nil
        state.list[2] = 'b'
    end";
    let keys =
        [("read", "1"), ("same", "5"), ("removed", "true"), ("list", r#"["a"]"#), ("x", "1")];
    let mut state = MapState::with(&keys);
    reply(handle(&*script(code), "null", &mut state));
    assert_eq!(state.read, ["read", "gone", "list"]);
    // What was not read is written without asking whether it changes anything.
    assert_eq!(state.written, ["absent", "blind", "list", "removed", "same"]);
    assert_eq!(state.value("list"), Some(r#"["a","b"]"#));
    assert_eq!(state.value("removed"), None);
}

#[test]
fn a_scan_is_ordered_and_sees_what_the_slot_has_written() {
    let code = "function handle(state, msg)
        state['b/2'] = nil
        state['b/3'] = { n = 3 }
        state['b/10'].n = 11
        local found = {}
        for _, item in state:scan('b/', msg.limit) do
            found[#found + 1] = item.key .. '=' .. item.value.n
            item.value.n += 100
        end
        return found
    end";
    let keys = [
        ("a", "1"),
        ("b/1", r#"{"n":1}"#),
        ("b/10", r#"{"n":10}"#),
        ("b/2", r#"{"n":2}"#),
        ("c", "1"),
    ];
    let mut state = MapState::with(&keys);
    let found = output(handle(&*script(code), "{}", &mut state));
    assert_eq!(found, r#"["b/1=1","b/10=11","b/3=3"]"#);
    assert_eq!(state.value("b/1"), Some(r#"{"n":101}"#), "a table from a scan is the state's");
    let found = output(handle(&*script(code), r#"{"limit":2}"#, &mut MapState::with(&keys)));
    assert_eq!(found, r#"["b/1=1","b/10=11"]"#);
}

#[test]
fn messages_leave_in_order_with_all_that_was_asked_for_them() {
    let code = "function handle(state, msg, ctx)
        local first = ctx.send{ target = 'a/b', n = 1, delay_ms = 5, ttl_ms = 6, reply_to = 'x/y', transaction_suffix = 's' }
        ctx.reply{ ok = true }
        ctx.emit('orders', { n = 2 })
        ctx.emit('orders', { n = 3 }, 'p1')
        ctx.after(1000, { tick = 1 })
        ctx.spawn('c', 'k', { balance = 7 }, { hello = 1 })
        return { first, ctx.send{ none = 1 } }
    end";
    let reply = reply(handle(&*script(code), "{}", &mut MapState::default()));
    assert_eq!(reply.output.as_deref(), Some(&b"[1,7]"[..]));
    let first = OutboxEntry {
        delay_ms: Some(5),
        ttl_ms: Some(6),
        reply_to: Some("x/y".to_owned()),
        transaction_suffix: Some("s".to_owned()),
        ..entry("a/b", r#"{"n":1}"#)
    };
    let expected = [
        first,
        entry("$reply", r#"{"ok":true}"#),
        entry("queue:orders", r#"{"n":2}"#),
        entry("queue:orders/p1", r#"{"n":3}"#),
        OutboxEntry { delay_ms: Some(1000), ..entry("$timer", r#"{"tick":1}"#) },
        OutboxEntry {
            spawn_init: Some(r#"{"balance":7}"#.into()),
            ..entry("c/k", r#"{"hello":1}"#)
        },
        OutboxEntry { target: None, ..entry("", r#"{"none":1}"#) },
    ];
    assert_eq!(reply.outbox, expected);
}

#[test]
fn a_message_that_cannot_be_sent_is_an_error_at_the_line_that_sends_it() {
    for (entry, said) in [
        ("{ target = 'a/b', from = 'x' }", "field from: the engine sets it"),
        ("{ target = 5 }", "target is a string"),
        ("{ target = 'a/b', delay_ms = -1 }", "delay_ms is a whole number"),
        ("{ target = 'a/b', delay_ms = 1.5 }", "delay_ms is a whole number"),
        ("{ target = 'a/b', f = print }", "a function has no JSON"),
        ("{ target = 'a/b', s = '\\xff' }", "not UTF-8"),
        ("{ 1, 2 }", "a number as key"),
        ("5", "takes a table"),
    ] {
        let code = format!("function handle(_, _, ctx)\n ctx.send({entry})\nend");
        let error = error(handle(&*script(&code), "{}", &mut MapState::default()));
        assert!(error.to_string().starts_with("test:2: "), "{error}");
        assert!(error.to_string().contains(said), "{entry}: {error}");
        assert_eq!(error.code(), "guest_error");
    }
}

#[test]
fn an_error_has_its_line_and_takes_all_that_was_sent_along() {
    let code = "function handle(state, msg, ctx)
        ctx.send{ target = 'a/b' }
        print('before')
        local x = nil
        return x.y
    end";
    let outcome = handle(&*script(code), "{}", &mut MapState::default());
    assert_eq!(outcome.printed, "before\n");
    let error = error(outcome);
    assert_eq!(error.to_string(), "test:5: attempt to index nil with 'y'");
    for (raised, said) in [
        ("{ code = 5 }", r#"{"code":5}"#),
        ("nil", "an error without a message"),
        ("setmetatable({}, { __tostring = function() return 'custom' end })", "custom"),
        ("print", "function"),
    ] {
        let code = format!("function handle() error({raised}) end");
        let outcome = handle(&*script(&code), "{}", &mut MapState::default());
        assert_eq!(outcome.result, Err(GuestError::Guest { message: said.to_owned() }));
    }
}

#[test]
fn what_a_message_says_of_itself_can_be_read_and_not_changed() {
    let code = "function handle(state, msg)
        assert(not pcall(function() msg.from = 'x' end))
        assert(not pcall(function() msg.new = 'x' end))
        return { msg.id, msg.from, msg.cascade, msg.depth, msg.hops_left, msg.timestamp,
            msg.transaction_id, msg.parent or 'none', msg.from_slot or 'none', msg.payload.from, msg.x }
    end";
    let said = run(code, r#"{"from":"forged","x":"y"}"#);
    assert_eq!(
        said,
        r#"["m1","client:alice","c1",0,64,1700000000000,"t1","none","none","forged","y"]"#
    );
    let binary = Message { payload: b"\xff\x00", is_json: false, ..message("") };
    let binary = Call { message: Some(binary), ..bare(CallKind::Handle) };
    let length = script("function handle(_, msg) return #msg.payload end");
    let outcome = length.evaluate(binary, &mut MapState::default(), &Limits::default());
    assert_eq!(output(outcome), "2");
    let outcome = handle(&*length, "{\"a\":", &mut MapState::default());
    assert_eq!(error(outcome).to_string(), "the message is no JSON: no value at byte 5");
}

#[test]
fn json_keeps_what_it_says() {
    let echo = script("function handle(_, msg) return msg.payload end");
    for (sent, back) in [
        (
            r#"{"a":[1,2.5,-3],"b":{"c":true,"d":"é\n"}}"#,
            r#"{"a":[1,2.5,-3],"b":{"c":true,"d":"é\n"}}"#,
        ),
        (r#"{"b":1,"a":2}"#, r#"{"a":2,"b":1}"#),
        ("[]", "[]"),
        ("{}", "{}"),
        (r#"{"a":[],"b":{}}"#, r#"{"a":[],"b":{}}"#),
        ("[1,null,2]", "[1,null,2]"),
        ("[null]", "[null]"),
        (r#"{"a":null,"b":1}"#, r#"{"b":1}"#),
        ("9007199254740992", "9007199254740992"),
        ("-9007199254740992", "-9007199254740992"),
        ("9007199254740993", r#""9007199254740993""#),
        ("-123456789012345678901234567890", r#""-123456789012345678901234567890""#),
        ("1e20", "1e+20"),
        ("1.0", "1"),
        ("0.1", "0.1"),
        ("-0.0", "-0.0"),
        (r#""\u00e9\ud83d\ude00\ud83d""#, "\"é😀\u{fffd}\""),
        (r#"{"1":"a"}"#, r#"{"1":"a"}"#),
        (" [ 1 , { } ] ", "[1,{}]"),
        (r#"{"a":1,"a":2}"#, r#"{"a":2}"#),
    ] {
        assert_eq!(output(handle(&*echo, sent, &mut MapState::default())), back, "{sent}");
    }
    let deep = format!("{}{}", "[".repeat(101), "]".repeat(101));
    for wrong in ["", "[1,]", "01", "1.", "\"\u{1}\"", "nul", "[1] 2", "{1:2}", "1e999", &deep] {
        let outcome = handle(&*echo, wrong, &mut MapState::default());
        assert!(error(outcome).to_string().starts_with("the message is no JSON"), "{wrong}");
    }
}

#[test]
fn scripts_make_json_and_read_it() {
    let code = "function handle()
        local list = json.array()
        local read = json.decode('{\"a\":[1,null],\"b\":null}')
        return {
            json.encode({ z = 1, a = { 2, 3 }, e = list, o = {} }),
            read.a[2] == json.null,
            read.b == nil,
            select(2, pcall(json.decode, '[')),
            select(2, pcall(json.encode, { f = 0/0 })),
            select(2, pcall(json.encode, { 1, x = 2 })),
        }
    end";
    assert_eq!(
        run(code, "{}"),
        r#"["{\"a\":[2,3],\"e\":[],\"o\":{},\"z\":1}",true,true,"this is no JSON: no value at byte 1","NaN has no JSON","a table with a number as key that is no list from 1 on has no JSON"]"#
    );
    let itself = "function handle() local t = {}; t.t = t; return t end";
    let outcome = handle(&*script(itself), "{}", &mut MapState::default());
    assert!(error(outcome).to_string().contains("contains itself"));
}

#[test]
fn printing_shows_values_without_addresses() {
    let code = "function handle(state, msg, ctx)
        print('a', 1, nil, true, { x = { 1 } }, print, json.null)
        ctx.log(string.format('%s %d %*', {}, 5, print), `{coroutine.create(print)}`, tostring({}))
    end";
    let outcome = handle(&*script(code), "{}", &mut MapState::default());
    let expected =
        "a\t1\tnil\ttrue\t{\"x\":[1]}\tfunction\tnull\ntable 5 function\tthread\ttable\n";
    assert_eq!(outcome.printed, expected);
    assert!(!outcome.printed_truncated);
}

#[test]
fn output_and_prints_beyond_the_limit_are_cut_and_marked() {
    let limits = Limits { output_bytes: 100, ..Limits::default() };
    let code = "function handle() for i = 1, 50 do print(i) end return string.rep('x', 200) end";
    let outcome = script(code).evaluate(call("{}"), &mut MapState::default(), &limits);
    assert!(outcome.printed_truncated && outcome.printed.len() <= 100);
    assert!(outcome.printed.starts_with("1\n2\n"));
    let reply = reply(outcome);
    assert!(reply.output_truncated);
    let text = reply.output.expect("what fits is there");
    let text: String = serde_json::from_slice(&text).expect("it is JSON");
    assert!(text.starts_with("\"xxx") && text.len() < 100, "{text}");
}

#[test]
fn the_same_call_has_the_same_outcome_in_a_new_vm_and_in_one_that_has_served() {
    let code = "local calls = 0
    function handle(state, msg, ctx)
        calls += 1
        counter = (counter or 0) + 1
        local t = {}
        for i = 1, 50 do t['k' .. math.random(1000)] = i end
        local order = {}
        for k, v in t do order[#order + 1] = k .. v end
        print({}, t, function() end, order)
        ctx.send{ target = 'a/b', r = ctx.random(), s = ctx.random(1, 6) }
        state.seen = (state.seen or 0) + 1
        pcall(error, {})
        return { calls, counter, order, ctx.fuel_left(), math.random() }
    end";
    let mut first = MapState::default();
    let expected = handle(&*script(code), r#"{"a":1}"#, &mut first);
    assert!(expected.result.is_ok(), "{expected:?}");
    let warm = script(code);
    for other in ["{}", "[1,2,3]", "5"] {
        handle(&*warm, other, &mut MapState::default());
    }
    for _ in 0..3 {
        let mut state = MapState::default();
        assert_eq!(handle(&*warm, r#"{"a":1}"#, &mut state), expected);
        assert_eq!(state, first);
    }
    let other_seed = Call { seed: 5, ..call(r#"{"a":1}"#) };
    let other = warm.evaluate(other_seed, &mut MapState::default(), &Limits::default());
    assert_ne!(other.result, expected.result, "another seed gives other numbers");
}

#[test]
fn nothing_outlives_a_slot_but_the_state() {
    let code = "function handle(state, msg)
        local seen = { leaked, _G.leaked2, string.leaked, rawget(_G, 'leaked3'), rawget(state, 'leaked') }
        rawset(state, 'leaked', 1)
        leaked = 1
        _G.leaked2 = 2
        rawset(_G, 'leaked3', 3)
        local refused = 0
        for _, try in {
            function() string.leaked = 1 end,
            function() rawset(string, 'leaked', 1) end,
            function() getmetatable('').leaked = 1 end,
            function() getmetatable(_G).__index = nil end,
            function() getmetatable(json.decode('[]')).leaked = 1 end,
            function() json.leaked = 1 end,
            function() setmetatable(state, {}) end,
        } do
            if not pcall(try) then refused += 1 end
        end
        return { #seen, refused }
    end";
    let module = script(code);
    for _ in 0..2 {
        assert_eq!(output(handle(&*module, "{}", &mut MapState::default())), "[0,7]");
    }
}

#[test]
fn what_reaches_out_of_the_sandbox_is_not_there() {
    let names = [
        "require",
        "loadstring",
        "load",
        "dofile",
        "collectgarbage",
        "gcinfo",
        "getfenv",
        "setfenv",
        "newproxy",
        "os",
        "io",
        "package",
    ];
    let list = names.join(", ");
    let code = format!(
        "function handle() local n = 0 for _ in {{ {list} }} do n += 1 end
        return {{ n, debug.info == nil, debug.getupvalue == nil }} end"
    );
    assert_eq!(run(&code, "{}"), "[0,true,true]");
}

#[test]
fn functions_are_found_as_globals_or_in_what_the_module_returns() {
    for code in [
        "function init(state) state.a = 1 end
        function migrate(state, from) state.a = from + 10 end
        function handle(state) return state.a end",
        "local function init(state) state.a = 1 end
        local function migrate(state, from) state.a = from + 10 end
        return { init = init, migrate = migrate, handle = function(state) return state.a end }",
    ] {
        let module = script(code);
        let mut state = MapState::default();
        let limits = Limits::default();
        assert_eq!(reply(module.evaluate(bare(CallKind::Init), &mut state, &limits)).output, None);
        assert_eq!(state.value("a"), Some("1"));
        reply(module.evaluate(bare(CallKind::Migrate { from_version: 3 }), &mut state, &limits));
        assert_eq!(output(handle(&*module, "{}", &mut state)), "13");
    }
    let bare_function = script("return function(_, msg) return msg.x end");
    assert_eq!(output(handle(&*bare_function, r#"{"x":"y"}"#, &mut MapState::default())), r#""y""#);
    let outcome =
        bare_function.evaluate(bare(CallKind::Init), &mut MapState::default(), &Limits::default());
    assert_eq!(reply(outcome).output, None, "a module without init does nothing");
}

#[test]
fn what_is_no_module_is_refused_with_the_reason() {
    let compiled = |code: &[u8]| compile(Language::Luau, Prelude::None, code).err();
    for (code, said) in [
        ("function handle(", "test:1: "),
        ("local x = 1", "there is no function `handle`"),
        ("handle = 5", "handle is a number, not a function"),
        ("\n\nerror('at the top')", "test:3: at the top"),
    ] {
        let error = compiled(code.as_bytes()).unwrap_or_else(|| panic!("{code} is no module"));
        assert_eq!(error.code(), "module_invalid");
        assert!(error.to_string().contains(said), "{code}: {error}");
    }
    let source = Source {
        name: "test",
        language: Language::Luau,
        prelude: Prelude::None,
        code: b"while true do end",
    };
    let endless = runtimes().compile(&source, &Limits { fuel: 1_000, ..Limits::default() }).err();
    assert!(endless.is_some_and(|error| error.to_string().contains("more than 1000 steps")));
    assert_eq!(compiled(b"\xff").map(|error| error.code()), Some("module_invalid"));
    let long = format!("--{}\nfunction handle() end", "x".repeat(super::SOURCE_BYTES_MAX));
    assert!(compiled(long.as_bytes()).is_some_and(|error| error.to_string().contains("at most")));
    // Bytecode is not taken from outside: it could do what no source can.
    assert!(compiled(b"\x05\x00\x00").is_some());
}

#[test]
fn a_store_that_is_away_ends_the_slot_whatever_the_guest_catches() {
    let code = "function handle(state, msg, ctx)
        pcall(function() return state.a end)
        state.b = 1
        return 'caught'
    end";
    let fault = Some(StateFault::Unavailable("no connection".to_owned()));
    let outcome = handle(&*script(code), "{}", &mut MapState { fault, ..MapState::default() });
    let error = error(outcome);
    assert_eq!(error.code(), "store_unavailable");
    assert!(error.is_transient());
    let fault = Some(StateFault::Limit { what: "bytes of an instance", limit: 5 });
    let outcome = handle(&*script(code), "{}", &mut MapState { fault, ..MapState::default() });
    assert_eq!(
        outcome.result,
        Err(GuestError::StateLimit { what: "bytes of an instance", limit: 5 })
    );
}

#[test]
fn keys_and_values_of_the_state_are_what_json_can_say() {
    for (write, said) in [
        ("state[5] = 1", "a state key is a string, not a number"),
        ("local _ = state[true]", "a state key is a string, not a boolean"),
        ("state.f = print", "a function cannot be kept in the state"),
        ("state.scan = 1", "state.scan is a method"),
        ("state.t = { f = print }", "state.t: a function has no JSON"),
        ("for _ in state do end", "use state:scan"),
        ("state['\\xff'] = 1", "a state key is UTF-8"),
        ("state:scan(5)", "a prefix and a limit"),
        ("state:scan('', -1)", "whole number"),
    ] {
        let code = format!("function handle(state) {write} end");
        let error = error(handle(&*script(&code), "{}", &mut MapState::default()));
        assert_eq!(error.code(), "guest_error", "{write}");
        assert!(error.to_string().contains(said), "{write}: {error}");
    }
    let code = "function handle(state) state:set('scan', 1) state.x = json.null return state:get('scan') end";
    let mut state = MapState::with(&[("x", "1")]);
    assert_eq!(output(handle(&*script(code), "{}", &mut state)), "1");
    assert_eq!((state.value("scan"), state.value("x")), (Some("1"), None));
}
