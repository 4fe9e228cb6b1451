//! Limits between settings: values that are each allowed, but not together.
//!
//! In: assembled settings and who gave each. Out: a problem per pair that does not fit, naming both.
//! Pure. Called by `config::load` when every value by itself is good.

use std::net::IpAddr;

use super::error::{Problem, Shown};
use super::value::Value;
use super::{Loaded, SETTINGS};

/// What a frame holds beside its batch: its header, the head of a push, and the two names.
const FRAME_OVERHEAD_BYTES: u64 = 4096;

/// One setting must not exceed another one.
struct Order {
    lesser: &'static str,
    greater: &'static str,
    /// How much smaller it must be.
    room: u64,
    words: &'static str,
}

const fn fits(lesser: &'static str, greater: &'static str) -> Order {
    Order { lesser, greater, room: 0, words: "at most" }
}

/// From the smallest thing to the one that must hold it.
const ORDERS: &[Order] = &[
    fits("wire.message_bytes_max", "wire.batch_bytes_max"),
    fits("wire.message_bytes_max", "http.body_bytes_max"),
    fits("wire.batch_target_bytes", "wire.batch_bytes_max"),
    Order {
        lesser: "wire.batch_bytes_max",
        greater: "wire.frame_bytes_max",
        room: FRAME_OVERHEAD_BYTES,
        words: "at least 4KiB less than",
    },
    Order {
        lesser: "delivery.pop_bytes_max",
        greater: "wire.frame_bytes_max",
        room: FRAME_OVERHEAD_BYTES,
        words: "at least 4KiB less than",
    },
    // A batch that no ring could ever hold would wait until its timeout instead of being refused.
    fits("wire.batch_bytes_max", "buffer.ring_bytes_max"),
    fits("buffer.ring_bytes_max", "buffer.budget_bytes"),
    fits("buffer.buffer_max", "buffer.ring_messages_max"),
    fits("store.dedup_generation", "store.dedup_horizon"),
    fits("delivery.pop_batch", "delivery.messages_max"),
    // Longer than the statement may take it would never be the reason.
    fits("database.lock_timeout_ms", "database.append_timeout_ms"),
];

/// Finds every pair that does not fit.
pub(super) fn problems(loaded: &Loaded) -> Vec<Problem> {
    let mut problems = Vec::new();
    for order in ORDERS {
        let (lesser, greater) = (number(loaded, order.lesser), number(loaded, order.greater));
        if lesser.saturating_add(order.room) > greater {
            problems.push(conflict(loaded, order.lesser, order.words, order.greater));
        }
    }
    let server = &loaded.settings.server;
    if server.http_addr == server.tcp_addr && server.http_addr.port() != 0 {
        problems.push(conflict(loaded, "server.http_addr", "different from", "server.tcp_addr"));
    }
    if !loaded.settings.asks_for_tokens() && !server.allow_insecure_bind {
        for (key, address) in
            [("server.http_addr", server.http_addr), ("server.tcp_addr", server.tcp_addr)]
        {
            if !is_loopback(address.ip()) {
                problems.push(Problem::InsecureBind { given: shown(loaded, key) });
            }
        }
    }
    let tls = &loaded.settings.tls;
    if tls.cert_file.is_empty() != tls.key_file.is_empty() {
        problems.push(conflict(loaded, "tls.cert_file", "given together with", "tls.key_file"));
    }
    problems
}

/// Loopback, also when an IPv4 address is written as IPv6.
fn is_loopback(ip: IpAddr) -> bool {
    ip.to_canonical().is_loopback()
}

fn conflict(loaded: &Loaded, key: &str, rule: &'static str, other: &str) -> Problem {
    Problem::Conflict { given: shown(loaded, key), rule, other: shown(loaded, other) }
}

fn number(loaded: &Loaded, path: &str) -> u64 {
    let values = SETTINGS.iter().zip(loaded.settings.values());
    let found = values.into_iter().find(|(setting, _)| setting.path == path);
    match found {
        Some((_, Value::Number(number))) => number,
        _ => unreachable!("{path} stands in the table as a number"),
    }
}

fn shown(loaded: &Loaded, path: &str) -> Shown {
    let entry = loaded.entries().find(|entry| entry.setting.path == path);
    let (value, origin) = entry.map_or_else(
        || unreachable!("{path} stands in the table"),
        |entry| {
            (entry.setting.redact(&entry.setting.rule.show(&entry.value)), entry.origin.clone())
        },
    );
    Shown { key: path.to_owned(), value, origin }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{ConfigError, FlagValue, Inputs, load};

    fn load_with(pairs: &[(&str, &str)]) -> Result<Loaded, ConfigError> {
        let flags = pairs.iter().map(|(key, value)| FlagValue {
            flag: "--set".to_owned(),
            key: (*key).to_owned(),
            value: (*value).to_owned(),
        });
        load(&Inputs { flags: flags.collect(), ..Inputs::default() })
    }

    fn refusal(pairs: &[(&str, &str)]) -> String {
        load_with(pairs).expect_err("the pairs do not fit").to_string()
    }

    #[test]
    fn every_order_names_numbers_of_the_table() {
        let loaded = load_with(&[]).unwrap();
        for order in ORDERS {
            assert!(number(&loaded, order.lesser) + order.room <= number(&loaded, order.greater));
        }
    }

    #[test]
    fn a_message_that_fits_no_batch_is_refused_and_both_keys_are_named() {
        let text = refusal(&[("wire.message_bytes_max", "8MiB"), ("wire.batch_bytes_max", "4MiB")]);
        assert!(
            text.contains(
                "wire.message_bytes_max = \"8MiB\" (flag --set) must be at most \
                 wire.batch_bytes_max = \"4MiB\" (flag --set)"
            ),
            "{text}"
        );
    }

    #[test]
    fn a_batch_must_leave_room_for_the_head_of_its_frame() {
        let tight = [("wire.frame_bytes_max", "8MiB")];
        assert!(refusal(&tight).contains("at least 4KiB less than"));
        assert!(load_with(&[("wire.frame_bytes_max", "8196KiB")]).is_ok());
    }

    #[test]
    fn a_generation_longer_than_the_horizon_is_refused() {
        assert!(refusal(&[("store.dedup_generation", "8d")]).contains("store.dedup_horizon"));
    }

    #[test]
    fn two_protocols_cannot_share_an_address_but_may_both_ask_for_any_port() {
        let same = [("server.http_addr", "127.0.0.1:9"), ("server.tcp_addr", "127.0.0.1:9")];
        assert!(refusal(&same).contains("different from"));
        let any = [("server.http_addr", "127.0.0.1:0"), ("server.tcp_addr", "127.0.0.1:0")];
        assert!(load_with(&any).is_ok());
    }

    #[test]
    fn an_address_that_others_reach_needs_a_token_or_a_decision() {
        let open = ("server.tcp_addr", "0.0.0.0:6631");
        let text = refusal(&[open]);
        assert!(text.contains("server.allow_insecure_bind") && text.contains("0.0.0.0:6631"));
        assert!(load_with(&[open, ("server.token", "secret")]).is_ok());
        assert!(load_with(&[open, ("server.allow_insecure_bind", "true")]).is_ok());
        assert!(load_with(&[open, ("auth.jwt_enabled", "true")]).is_ok());
        assert!(load_with(&[open, ("auth.tokens_file", "tokens")]).is_ok());
        assert!(load_with(&[open, ("auth.tokens", ",")]).is_ok(), "nobody is let in by it");
        assert!(load_with(&[("server.tcp_addr", "[::ffff:127.0.0.1]:6631")]).is_ok());
        assert!(load_with(&[("server.tcp_addr", "[::]:6631")]).is_err());
    }
}
