//! What tests of the runtimes share: a state in memory that remembers what it was asked, and calls.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use super::{
    Call, CallKind, GuestError, Language, Limits, Message, Module, Outcome, Prelude, Reply,
    Runtimes, Source, StateFault, StateView,
};
use crate::base::clock::SystemClock;

/// State keys in memory.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct MapState {
    pub(super) keys: BTreeMap<String, String>,
    pub(super) read: Vec<String>,
    pub(super) written: Vec<String>,
    pub(super) fault: Option<StateFault>,
}

impl MapState {
    pub(super) fn with(keys: &[(&str, &str)]) -> Self {
        let keys = keys.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        Self { keys: keys.collect(), ..Self::default() }
    }

    pub(super) fn value(&self, key: &str) -> Option<&str> {
        self.keys.get(key).map(String::as_str)
    }

    fn check(&self) -> Result<(), StateFault> {
        self.fault.clone().map_or(Ok(()), Err)
    }
}

impl StateView for MapState {
    fn get(&mut self, key: &str) -> Result<Option<Bytes>, StateFault> {
        self.check()?;
        self.read.push(key.to_owned());
        Ok(self.keys.get(key).map(|value| Bytes::from(value.clone())))
    }

    fn put(&mut self, key: &str, value: Bytes) -> Result<(), StateFault> {
        self.check()?;
        self.written.push(key.to_owned());
        let value = String::from_utf8(value.to_vec()).expect("values are JSON");
        serde_json::from_str::<serde::de::IgnoredAny>(&value).expect("values are JSON");
        self.keys.insert(key.to_owned(), value);
        Ok(())
    }

    fn remove(&mut self, key: &str) -> Result<(), StateFault> {
        self.check()?;
        self.written.push(key.to_owned());
        self.keys.remove(key);
        Ok(())
    }

    fn scan(&mut self, prefix: &str, limit: usize) -> Result<Vec<(String, Bytes)>, StateFault> {
        self.check()?;
        let from = self.keys.range(prefix.to_owned()..);
        let found = from.take_while(|(key, _)| key.starts_with(prefix)).take(limit);
        Ok(found.map(|(key, value)| (key.clone(), Bytes::from(value.clone()))).collect())
    }
}

pub(super) fn runtimes() -> Runtimes {
    Runtimes::new(Arc::new(SystemClock::new()))
}

pub(super) fn compile(
    language: Language,
    prelude: Prelude,
    code: &[u8],
) -> Result<Arc<dyn Module>, GuestError> {
    let source = Source { name: "test", language, prelude, code };
    runtimes().compile(&source, &Limits::default())
}

pub(super) fn script(code: &str) -> Arc<dyn Module> {
    compile(Language::Luau, Prelude::None, code.as_bytes()).expect("the script compiles")
}

pub(super) fn message(payload: &str) -> Message<'_> {
    Message {
        payload: payload.as_bytes(),
        is_json: true,
        id: "m1",
        transaction_id: "t1",
        timestamp_ms: 1_700_000_000_000,
        from: "client:alice",
        from_slot: None,
        from_index: None,
        cascade: "c1",
        parent: None,
        depth: 0,
        hops_left: 64,
        in_reply_to: None,
        reply_to: None,
    }
}

pub(super) fn call(payload: &str) -> Call<'_> {
    Call { message: Some(message(payload)), ..bare(CallKind::Handle) }
}

pub(super) fn bare(kind: CallKind) -> Call<'static> {
    Call {
        kind,
        message: None,
        class: "test",
        key: "one",
        slot: 7,
        now_ms: 1_700_000_000_123,
        seed: 0x1234_5678_9abc_def0,
        version: 1,
    }
}

pub(super) fn handle(module: &dyn Module, payload: &str, state: &mut MapState) -> Outcome {
    module.evaluate(call(payload), state, &Limits::default())
}

#[track_caller]
pub(super) fn reply(outcome: Outcome) -> Reply {
    outcome.result.unwrap_or_else(|error| panic!("{error} ({})", error.code()))
}

/// The output of a call that must not fail.
#[track_caller]
pub(super) fn output(outcome: Outcome) -> String {
    let output = reply(outcome).output.expect("there is an output");
    String::from_utf8(output.to_vec()).expect("an output is JSON")
}

#[track_caller]
pub(super) fn error(outcome: Outcome) -> GuestError {
    outcome.result.expect_err("the call fails")
}
