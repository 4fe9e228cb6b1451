//! What one slot costs to evaluate, warm: scripts with and without the AO-flavoured prelude, and a
//! compiled guest; and what a script of the same work costs whose state is one large value.
//!
//! In: nothing. Out: criterion's figures, per slot. Nothing is committed here: the state is a map in
//! memory.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use onrush::base::clock::SystemClock;
use onrush::process::runtime::{
    Call, CallKind, Language, Limits, Message, Module, Prelude, Runtimes, Source, StateFault,
    StateView,
};

const COUNTER: &str = include_str!("../examples/processes/luau/counter.luau");
const LEDGER: &str = include_str!("../examples/processes/luau/ledger.luau");
const TOKEN: &str = include_str!("../examples/processes/ao/token.lua");
const FAC: &str = include_str!("../examples/processes/wasm/fac.wat");
const NOTHING: &str = "function handle() end";
const SENDER: &str = "function handle(state, msg, ctx)
    for i = 1, 10 do ctx.send({ target = 'sink/' .. i, n = i, text = 'hello' }) end
end";

#[derive(Default)]
struct Keys(BTreeMap<String, Bytes>);

impl StateView for Keys {
    fn get(&mut self, key: &str) -> Result<Option<Bytes>, StateFault> {
        Ok(self.0.get(key).cloned())
    }

    fn put(&mut self, key: &str, value: Bytes) -> Result<(), StateFault> {
        self.0.insert(key.to_owned(), value);
        Ok(())
    }

    fn remove(&mut self, key: &str) -> Result<(), StateFault> {
        self.0.remove(key);
        Ok(())
    }

    fn scan(&mut self, prefix: &str, limit: usize) -> Result<Vec<(String, Bytes)>, StateFault> {
        let found =
            self.0.range(prefix.to_owned()..).take_while(|(key, _)| key.starts_with(prefix));
        Ok(found.take(limit).map(|(key, value)| (key.clone(), value.clone())).collect())
    }
}

fn call(slot: u64, payload: &str) -> Call<'_> {
    let message = Message {
        payload: payload.as_bytes(),
        is_json: true,
        id: "01890a5d-ac96-774b-bcce-b302099a8057",
        transaction_id: "01890a5d-ac96-774b-bcce-b302099a8057",
        timestamp_ms: 1_700_000_000_000,
        from: "client:alice",
        from_slot: None,
        from_index: None,
        cascade: "01890a5d-ac96-774b-bcce-b302099a8057",
        parent: None,
        depth: 0,
        hops_left: 64,
        in_reply_to: None,
        reply_to: None,
    };
    Call {
        kind: CallKind::Handle,
        message: Some(message),
        class: "bench",
        key: "root",
        slot,
        now_ms: 1_700_000_000_000,
        seed: slot,
        version: 1,
    }
}

fn slot(module: &dyn Module, state: &mut Keys, slot: u64, payload: &str) {
    let outcome = module.evaluate(call(slot, payload), state, &Limits::default());
    assert!(outcome.result.is_ok(), "{:?}", black_box(outcome).result);
}

fn slots(criterion: &mut Criterion) {
    let runtimes = Runtimes::new(Arc::new(SystemClock::new()));
    let compile = |language, prelude, code: &[u8]| {
        let source = Source { name: "bench", language, prelude, code };
        runtimes.compile(&source, &Limits::default()).expect("it is a module")
    };
    let luau = |code: &str| compile(Language::Luau, Prelude::None, code.as_bytes());
    let fac = wat::parse_str(FAC).expect("it is WAT");
    let mint = r#"{"action":"mint","to":"alice","quantity":9007199254740992}"#;
    let pay = r#"{"action":"transfer","to":"bob","quantity":1}"#;
    let info = r#"{"Action":"Info"}"#;
    let cases: [(&str, Arc<dyn Module>, &str, &str); 6] = [
        ("luau: nothing", luau(NOTHING), "{}", "{}"),
        ("luau: counter", luau(COUNTER), "{}", r#"{"by":2}"#),
        ("luau: ledger transfer", luau(LEDGER), mint, pay),
        ("luau: ten messages", luau(SENDER), "{}", "{}"),
        ("luau, AO: token", compile(Language::Luau, Prelude::Ao, TOKEN.as_bytes()), info, info),
        ("wasm: factorial", compile(Language::Wasm, Prelude::None, &fac), "5", "20"),
    ];
    let mut group = criterion.benchmark_group("a slot of");
    group.throughput(Throughput::Elements(1));
    group.warm_up_time(Duration::from_millis(500));
    group.measurement_time(Duration::from_secs(2));
    for (name, module, first, payload) in cases {
        let mut state = Keys::default();
        slot(&*module, &mut state, 0, first);
        let mut at = 0;
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                at += 1;
                slot(&*module, &mut state, at, payload);
            });
        });
    }
    group.finish();
}

/// Balances as one value, as scripts for AO have them: all of it is read and written for each change.
fn one_large_value(criterion: &mut Criterion) {
    let runtimes = Runtimes::new(Arc::new(SystemClock::new()));
    let code = "function handle(state, msg)
        local all = state.all or {}
        all[msg.key] = (all[msg.key] or 0) + 1
        state.all = all
    end";
    let source = Source {
        name: "bench",
        language: Language::Luau,
        prelude: Prelude::None,
        code: code.as_bytes(),
    };
    let module = runtimes.compile(&source, &Limits::default()).expect("it is a module");
    let mut group = criterion.benchmark_group("a change in a value with");
    group.throughput(Throughput::Elements(1));
    for keys in [10, 100, 1_000] {
        let fields: BTreeMap<String, u64> =
            (0..keys).map(|at| (format!("account-{at}"), at)).collect();
        let text = serde_json::to_vec(&fields).expect("it is JSON");
        let mut state = Keys::default();
        state.0.insert("all".to_owned(), text.into());
        group.bench_function(format!("{keys} fields"), |bencher| {
            bencher.iter(|| slot(&*module, &mut state, 1, r#"{"key":"account-7"}"#));
        });
    }
    group.finish();
}

criterion_group!(benches, slots, one_large_value);
criterion_main!(benches);
