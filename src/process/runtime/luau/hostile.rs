//! Guests that mean harm: each ends within its limits and with its own error, and the next call finds a
//! sound VM.

use std::sync::Arc;

use super::super::rig::{MapState, call, handle, output, script};
use super::super::{GuestError, Limits, Module, Outcome};

/// Runs one hostile call, then a good one of the same module.
#[track_caller]
fn attack(body: &str, limits: &Limits) -> Outcome {
    let code = format!(
        "function handle(state, msg, ctx)
            if msg.good then return 'fine' end
            {body}
        end"
    );
    let module: Arc<dyn Module> = script(&code);
    let outcome = module.evaluate(call("{}"), &mut MapState::default(), limits);
    let after = handle(&*module, r#"{"good":true}"#, &mut MapState::default());
    assert_eq!(output(after), r#""fine""#);
    outcome
}

#[track_caller]
fn ends_with(code: &str, bodies: &[&str], limits: &Limits) {
    for body in bodies {
        let outcome = attack(body, limits);
        let ended = outcome.result.as_ref().map_err(GuestError::code);
        assert_eq!(ended.err(), Some(code), "{body}: {:?}", outcome.result);
    }
}

/// Little fuel, so that the tests are quick, and more time than it lasts on a busy machine.
fn little_fuel() -> Limits {
    Limits { fuel: 200_000, wall_ms: 60_000, ..Limits::default() }
}

#[test]
fn endless_loops_run_out_of_fuel_also_where_errors_are_caught() {
    let bodies = [
        "while true do end",
        "repeat until false",
        "for i = 1, math.huge do end",
        "while true do pcall(function() while true do end end) end",
        "while true do xpcall(function() while true do end end, function() while true do end end) end",
        "local function f() while true do pcall(f) end end f()",
        "local function f() pcall(f) pcall(f) pcall(f) end f() f() while true do end",
        "while true do coroutine.wrap(function() while true do end end)() end",
        "while true do coroutine.resume(coroutine.create(function() while true do end end)) end",
        "table.sort({ 3, 2, 1 }, function() while true do end end)",
        "string.gsub('aaa', 'a', function() while true do end end)",
        "local s = setmetatable({}, { __tostring = function() while true do end end }) error(s)",
        "for _ in function() return 1 end do end",
    ];
    ends_with("fuel_exhausted", &bodies, &little_fuel());
}

#[test]
fn patterns_that_explode_run_out_of_fuel() {
    let bodies = [
        "local n = 28 string.find(string.rep('a', n), string.rep('a?', n) .. string.rep('a', n))",
        "string.match(string.rep('a', 30000), '.-.-.-.-b')",
        "string.gsub(string.rep('a', 30000), '(a*)*b', '')",
        "for _ in string.gmatch(string.rep('(', 20000), '%b()') do end string.find(string.rep('(', 1e6), string.rep('%b()', 3) .. 'x')",
        // Long in both: looked at a hundred million times between two steps if nobody counts.
        "string.find(string.rep('a', 4e6), string.rep('a', 2e6) .. 'b', 1, true)",
        "string.split(string.rep('a', 4e6), string.rep('a', 2e6) .. 'b')",
        "string.find(string.rep('a', 4e6), '[' .. string.rep('b', 1e6) .. ']*x')",
        "pcall(string.find, string.rep('a', 4e6), string.rep('a', 2e6) .. 'b', 1, true)",
        "table.move({}, 1, 2000000000, 2, {})",
    ];
    ends_with("fuel_exhausted", &bodies, &little_fuel());
}

#[test]
fn whoever_takes_too_long_is_ended_by_the_clock() {
    let limits = Limits { fuel: u64::MAX, wall_ms: 50, ..Limits::default() };
    let bodies = [
        "while true do end",
        "while true do pcall(function() while true do end end) end",
        "string.find(string.rep('a', 30), string.rep('a?', 30) .. string.rep('a', 30))",
        // Few steps, each of which unwinds two hundred calls within each other.
        "local t = setmetatable({}, { __index = function(t, k) return t[k + 1] end }) while true do pcall(function() return t[1] end) end",
    ];
    ends_with("time_exceeded", &bodies, &limits);
}

#[test]
fn memory_bombs_meet_their_limit_also_where_errors_are_caught() {
    let limits = Limits { memory_bytes: 8 << 20, wall_ms: 60_000, ..Limits::default() };
    let bodies = [
        "local t = {} while true do t[#t + 1] = {} end",
        "local s = 'x' while true do s = s .. s end",
        "string.rep('x', 1e9)",
        "table.create(1e7)",
        "buffer.create(1e9)",
        "local t = {} for i = 1, 1e9 do t['k' .. i] = i end",
        "while true do pcall(string.rep, 'x', 1e9) end",
        "while true do xpcall(string.rep, function() return 'caught' end, 'x', 1e9) end",
        "pcall(function() local t = {} while true do t[#t + 1] = {} end end) return 'survived'",
        "coroutine.resume(coroutine.create(function() string.rep('x', 1e9) end)) return 'survived'",
        "table.concat(table.create(1e5, string.rep('x', 1000)))",
        "json.decode('[' .. string.rep('[],', 200000) .. '[]]')",
        "pcall(json.decode, '[' .. string.rep('[],', 200000) .. '[]]') return 'survived'",
        "local t = {} for i = 1, 200 do t = { t, t } end json.encode({ t, string.rep('x', 5e6) })",
        "local s = string.rep('x', 1e6) local t = {} for i = 1, 20 do t[i] = s end json.encode(t)",
        "string.pack('c1000000000', 'x')",
        "local function f(...) return f(1, ...) end f()",
    ];
    for body in bodies {
        let outcome = attack(body, &limits);
        let code = outcome.result.as_ref().err().map(GuestError::code);
        // One hits another wall on the way: the depth of a value.
        let walls = [Some("memory_exceeded"), Some("guest_error")];
        let may_differ = body.contains("for i = 1, 200");
        let expected: &[Option<&str>] = if may_differ { &walls } else { &walls[..1] };
        assert!(expected.contains(&code), "{body}: {:?}", outcome.result);
    }
}

#[test]
fn deep_recursion_is_an_error_of_the_guest() {
    let bodies = [
        "local function f() return 1 + f() end return f()",
        "local t = {} for i = 1, 1e5 do t = { t } end return t",
        "local t = setmetatable({}, {}) getmetatable(t).__index = function(_, k) return t[k] end return t.x",
        "local function f() return coroutine.wrap(f)() end return f()",
        "string.find(string.rep('(', 1000) , string.rep('(', 1000))",
        "error(setmetatable({}, { __tostring = error }))",
    ];
    ends_with("guest_error", &bodies, &Limits::default());
}

#[test]
fn an_outbox_that_is_too_large_fails_the_slot() {
    let limits = Limits { outbox_entries: 10, outbox_bytes: 10_000, ..Limits::default() };
    let bodies = [
        "for i = 1, 11 do ctx.send{ target = 'a/b' } end",
        "for i = 1, 11 do pcall(ctx.send, { target = 'a/b' }) end return 'survived'",
        "ctx.send{ target = 'a/b', s = string.rep('x', 10001) }",
        "ctx.send{ target = string.rep('x', 10001) }",
        "ctx.spawn('a', 'b', { s = string.rep('x', 10001) })",
        "while true do ctx.send{ target = 'a/b' } end",
    ];
    ends_with("outbox_too_large", &bodies, &limits);
    let full = attack("for i = 1, 10 do ctx.send{ target = 'a/b' } end", &limits);
    assert_eq!(full.result.map(|reply| reply.outbox.len()), Ok(10));
}

#[test]
fn limits_of_the_state_fail_the_slot() {
    let limits = Limits {
        state_key_bytes: 20,
        state_value_bytes: 1_000,
        state_keys_touched: 10,
        ..Limits::default()
    };
    let bodies = [
        "state.x = string.rep('x', 1000)",
        "state[string.rep('k', 21)] = 1",
        "local _ = state[string.rep('k', 21)]",
        "for i = 1, 11 do state['k' .. i] = i end",
        "for i = 1, 11 do local _ = state['k' .. i] end",
        "for i = 1, 20 do pcall(function() state['k' .. i] = i end) end return 'survived'",
        "state.x = string.rep('x', 1000) state:scan('', 1)",
    ];
    ends_with("state_limit", &bodies, &limits);
    let little = Limits { state_bytes_written: 10_000, ..Limits::default() };
    let one_text_for_many_keys = [
        "local s = string.rep('x', 900) for i = 1, 20 do state['k' .. i] = s end",
        "for i = 1, 20 do state.k = string.rep('x', 900) .. i state:scan('k') end",
    ];
    ends_with("state_limit", &one_text_for_many_keys, &little);
    let full =
        attack("for i = 1, 10 do state['k' .. i] = i end state.k1 = string.rep('x', 998)", &limits);
    assert!(full.result.is_ok(), "{:?}", full.result);
}

#[test]
fn fuel_is_counted_the_same_every_time() {
    let body = "for i = 1, 1000 do pcall(string.find, 'abc', 'c') end return 1";
    let first = attack(body, &Limits::default());
    assert!(first.fuel > 1_000, "{}", first.fuel);
    assert_eq!(attack(body, &Limits::default()).fuel, first.fuel);
    let exact = Limits { fuel: first.fuel, ..Limits::default() };
    assert!(attack(body, &exact).result.is_ok());
    let less = Limits { fuel: first.fuel - 1, ..Limits::default() };
    assert_eq!(
        attack(body, &less).result,
        Err(GuestError::FuelExhausted { limit: first.fuel - 1 })
    );
}
