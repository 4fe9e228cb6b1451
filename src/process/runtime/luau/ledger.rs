//! The ledger of the examples: exact balances, and invariants after every step (PV-20, at the runtime).
//!
//! In: transfers between ledgers. Messages between them are delivered here by a loop in place of the
//! engine, one slot at a time, in any order between sources.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::super::rig::{MapState, bare, message, script};
use super::super::{Call, CallKind, GuestError, Limits, Message, Module};

const LEDGER: &str = include_str!("../../../../examples/processes/luau/ledger.luau");

struct Ledgers {
    module: Arc<dyn Module>,
    states: BTreeMap<String, MapState>,
    slots: u64,
}

impl Ledgers {
    /// The root with 100 for alice.
    fn new() -> Self {
        let mut ledgers = Self { module: script(LEDGER), states: BTreeMap::new(), slots: 0 };
        let mint = r#"{"action":"mint","to":"alice","quantity":100}"#;
        ledgers.push("root", "client:bank", mint).expect("the supply is minted");
        ledgers
    }

    /// Evaluates a message and all that comes of it.
    fn push(&mut self, to: &str, from: &str, payload: &str) -> Result<String, GuestError> {
        let first = self.slot(to, from, payload)?;
        let mut pending: VecDeque<(String, String, String)> = first.1.into();
        self.check(&pending);
        while let Some((to, from, payload)) = pending.pop_front() {
            let (_, more) = self.slot(&to, &from, &payload)?;
            pending.extend(more);
            self.check(&pending);
        }
        Ok(first.0)
    }

    #[allow(clippy::type_complexity)]
    fn slot(
        &mut self,
        to: &str,
        from: &str,
        payload: &str,
    ) -> Result<(String, Vec<(String, String, String)>), GuestError> {
        let message = Message { from, ..message(payload) };
        let slot = self.slots;
        self.slots += 1;
        let call = Call {
            class: "ledger",
            key: to,
            slot,
            message: Some(message),
            ..bare(CallKind::Handle)
        };
        let mut state = self.states.get(to).cloned().unwrap_or_default();
        let reply = self.module.evaluate(call, &mut state, &Limits::default()).result?;
        self.states.insert(to.to_owned(), state);
        let output = String::from_utf8(reply.output.unwrap_or_default().to_vec()).expect("JSON");
        let next = reply.outbox.into_iter().map(|entry| {
            let target = entry.target.expect("a target");
            let key = target.strip_prefix("ledger/").expect("a ledger").to_owned();
            let payload = String::from_utf8(entry.payload.to_vec()).expect("JSON");
            (key, format!("process:ledger/{to}"), payload)
        });
        Ok((output, next.collect()))
    }

    /// Transfers and gives back the sender's new balance.
    fn transfer(
        &mut self,
        at: &str,
        from: &str,
        to: &str,
        quantity: &str,
        via: Option<&str>,
    ) -> Result<String, GuestError> {
        let via = via.map_or(String::new(), |ledger| format!(r#","via":"ledger/{ledger}""#));
        let payload = format!(r#"{{"action":"transfer","to":"{to}","quantity":{quantity}{via}}}"#);
        self.push(at, &format!("client:{from}"), &payload)
    }

    fn number(&self, ledger: &str, key: &str) -> u64 {
        let value = self.states.get(ledger).and_then(|state| state.value(key));
        value.map_or(0, |value| value.parse().expect("a whole number"))
    }

    /// What is on the accounts of a ledger, those of other ledgers apart.
    fn balances(&self, ledger: &str) -> BTreeMap<String, u64> {
        let Some(state) = self.states.get(ledger) else { return BTreeMap::new() };
        let accounts = state.keys.keys().filter_map(|key| key.strip_prefix("account/"));
        accounts
            .map(|name| (name.to_owned(), self.number(ledger, &format!("account/{name}"))))
            .collect()
    }

    /// What must hold after every slot, with what is on its way counted as if it had arrived.
    fn check(&self, pending: &VecDeque<(String, String, String)>) {
        assert_eq!(
            self.balances("root").values().sum::<u64>(),
            100,
            "the root's supply is constant"
        );
        let mut claims: BTreeMap<(String, String), u64> = BTreeMap::new();
        for (ledger, state) in &self.states {
            for other in state.keys.keys().filter_map(|key| key.strip_prefix("claim/ledger/")) {
                let claim = self.number(ledger, &format!("claim/ledger/{other}"));
                claims.insert((ledger.clone(), other.to_owned()), claim);
            }
        }
        for (to, from, payload) in pending {
            let from = from.trim_start_matches("process:ledger/").to_owned();
            let payload: serde_json::Value = serde_json::from_str(payload).expect("JSON");
            let quantity = payload["quantity"].as_u64().expect("a quantity");
            let pair =
                if payload["action"] == "credit" { (to.clone(), from) } else { (from, to.clone()) };
            *claims.entry(pair).or_default() += quantity;
        }
        for ((holder, at), claim) in claims {
            let account = self.number(&at, &format!("account/ledger/{holder}"));
            assert_eq!(claim, account, "what {holder} claims at {at} is what it has there");
        }
        // Every ledger owes to its accounts what it claims elsewhere, and the root what was minted.
        for ledger in self.states.keys().filter(|ledger| *ledger != "root" && pending.is_empty()) {
            let claimed: u64 = self.states[ledger]
                .keys
                .keys()
                .filter(|key| key.starts_with("claim/"))
                .map(|key| self.number(ledger, key))
                .sum();
            assert_eq!(self.balances(ledger).values().sum::<u64>(), claimed, "{ledger}");
        }
    }
}

fn accounts(list: &[(&str, u64)]) -> BTreeMap<String, u64> {
    list.iter().map(|(name, amount)| ((*name).to_owned(), *amount)).collect()
}

#[test]
fn pv_20_a_transfer_moves_and_a_bad_one_does_nothing() {
    let mut ledgers = Ledgers::new();
    assert_eq!(ledgers.transfer("root", "alice", "bob", "1", None), Ok("99".to_owned()));
    assert_eq!(ledgers.balances("root"), accounts(&[("alice", 99), ("bob", 1)]));
    for quantity in ["101", "\"101\"", "\"1\"", "-1", "0", "1.5", "null", "9007199254740993"] {
        let refused = ledgers.transfer("root", "alice", "bob", quantity, None);
        assert_eq!(refused.map_err(|error| error.code()), Err("guest_error"), "{quantity}");
    }
    assert!(ledgers.transfer("root", "mallory", "mallory", "1", None).is_err());
    let forged = r#"{"action":"credit","to":"mallory","quantity":5}"#;
    assert!(ledgers.push("root", "client:mallory", forged).is_err(), "only ledgers credit");
    assert!(ledgers.push("root", "process:other/x", forged).is_err(), "only these ledgers");
    let again = r#"{"action":"mint","to":"alice","quantity":1}"#;
    assert!(ledgers.push("root", "client:bank", again).is_err());
    assert_eq!(ledgers.balances("root"), accounts(&[("alice", 99), ("bob", 1)]));
}

#[test]
fn pv_20_a_deposit_comes_back() {
    let mut ledgers = Ledgers::new();
    ledgers.transfer("root", "alice", "alice", "10", Some("sub")).expect("a deposit");
    assert_eq!(ledgers.balances("root"), accounts(&[("alice", 90), ("ledger/sub", 10)]));
    assert_eq!(ledgers.balances("sub"), accounts(&[("alice", 10)]));
    ledgers.transfer("sub", "alice", "bob", "8", None).expect("a transfer below");
    ledgers.transfer("sub", "bob", "bob", "7", Some("root")).expect("a withdrawal");
    assert_eq!(ledgers.balances("root"), accounts(&[("alice", 90), ("bob", 7), ("ledger/sub", 3)]));
    assert_eq!(ledgers.balances("sub"), accounts(&[("alice", 2), ("bob", 1)]));
}

#[test]
fn pv_20_two_ledgers_below_trade_with_each_other() {
    let mut ledgers = Ledgers::new();
    ledgers.transfer("root", "alice", "alice", "90", Some("sub1")).expect("a deposit");
    ledgers.transfer("sub1", "alice", "bob", "10", Some("sub2")).expect("across");
    ledgers.transfer("sub2", "bob", "bob", "5", Some("sub1")).expect("back");
    ledgers.transfer("sub2", "bob", "alice", "4", Some("sub1")).expect("back");
    assert_eq!(ledgers.balances("root"), accounts(&[("alice", 10), ("ledger/sub1", 90)]));
    let sub1 = accounts(&[("alice", 84), ("bob", 5), ("ledger/sub2", 1)]);
    assert_eq!(ledgers.balances("sub1"), sub1);
    assert_eq!(ledgers.balances("sub2"), accounts(&[("bob", 1)]));
}
