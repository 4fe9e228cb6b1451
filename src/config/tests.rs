//! Stories of loading: which source wins, and what a refusal tells.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::*;

/// A world outside the process, built up piece by piece.
#[derive(Default)]
struct World {
    inputs: Inputs,
    files: Vec<tempfile::NamedTempFile>,
}

impl World {
    fn config(mut self, text: &str) -> Self {
        let path = self.file(text);
        self.inputs.config_file = Some(path);
        self
    }

    fn file(&mut self, text: &str) -> PathBuf {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        let path = file.path().to_owned();
        self.files.push(file);
        path
    }

    fn variable(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.inputs.environment.push((name.into(), value.into()));
        self
    }

    fn flag(mut self, flag: &str, key: &str, value: &str) -> Self {
        self.inputs.flags.push(FlagValue {
            flag: flag.to_owned(),
            key: key.to_owned(),
            value: value.to_owned(),
        });
        self
    }

    fn settings(&self) -> Settings {
        load(&self.inputs).unwrap().settings
    }

    fn refusal(&self) -> String {
        load(&self.inputs).expect_err("it should be refused").to_string()
    }
}

fn world() -> World {
    World::default()
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

#[test]
fn without_any_source_the_defaults_hold() {
    assert_eq!(world().settings(), Settings::default());
}

#[test]
fn a_flag_wins_over_a_variable_and_a_variable_over_the_file() {
    let world = world().config("[buffer]\nbuffer_ms = 1\nbuffer_max = 1\nring_messages_max = 1");
    let world = world.variable("ONRUSH_BUFFER_BUFFER_MS", "2");
    let world = world.variable("ONRUSH_BUFFER_RING_MESSAGES_MAX", "2");
    let buffer = world.flag("--set", "buffer.ring_messages_max", "3").settings().buffer;
    assert_eq!((buffer.buffer_max, buffer.buffer_ms, buffer.ring_messages_max), (1, 2, 3));
}

#[test]
fn values_are_read_with_and_without_units() {
    let text = "[wire]\nframe_bytes_max = \"9MiB\"\nhello_timeout_ms = \"2s\"\nin_flight_max = 1_000\n\
                [store]\ndedup_horizon = \"3d\"\nsegment_bytes = 0x200000\ncompaction_live_ratio = 0.5";
    let settings = world().config(text).settings();
    assert_eq!(settings.wire.frame_bytes_max, 9 << 20);
    assert_eq!((settings.wire.hello_timeout_ms, settings.wire.in_flight_max), (2_000, 1_000));
    assert_eq!(settings.store.dedup_horizon, Duration::from_secs(3 * 86_400));
    assert_eq!(settings.store.segment_bytes, 2 << 20);
    assert!((settings.store.compaction_live_ratio - 0.5).abs() < f64::EPSILON);
}

#[test]
fn an_unknown_key_is_refused_with_its_line_and_a_suggestion() {
    let text = world().config("[server]\nlog_level = \"info\"\n\n[buffer]\nbufer_ms = 5").refusal();
    assert!(text.contains("buffer.bufer_ms is not known"), "{text}");
    assert!(text.contains("line 5"), "{text}");
    assert!(text.contains("did you mean buffer.buffer_ms?"), "{text}");
}

#[test]
fn unknown_sections_and_keys_outside_of_any_section_are_refused() {
    let text = world().config("http_addr = \"127.0.0.1:1\"\n[serverr]\nx = 1").refusal();
    assert!(text.contains("http_addr is not known") && text.contains("line 1"), "{text}");
    assert!(text.contains("did you mean server.http_addr?"), "{text}");
    assert!(
        text.contains("serverr is not known") && text.contains("did you mean server?"),
        "{text}"
    );
}

#[test]
fn an_unknown_variable_of_ours_is_refused_and_others_are_none_of_our_business() {
    let world = world().variable("ONRUSH_BUFFER_BUFER_MS", "5").variable("BUFFER_MS", "x");
    let text = world.refusal();
    assert!(text.contains("did you mean ONRUSH_BUFFER_BUFFER_MS?"), "{text}");
    assert_eq!(text.lines().count(), 2, "{text}");
}

#[test]
fn an_unknown_key_of_a_flag_is_refused_with_a_suggestion() {
    let text = world().flag("--set", "store.shard", "1").refusal();
    assert!(text.contains("store.shard is not known (flag --set); did you mean store.shards?"));
}

#[test]
fn a_bad_value_is_refused_with_key_value_range_and_origin() {
    let text = world().config("[store]\nshards = 0").refusal();
    assert!(text.contains("store.shards = \"0\""), "{text}");
    assert!(text.contains("line 2"), "{text}");
    assert!(text.contains("expected a whole number from 1 to 1024"), "{text}");
}

#[test]
fn every_problem_of_every_source_is_told_at_once() {
    let world = world().config("[store]\nshards = -1\n[http]\ndialect = \"latin\"");
    let world = world.variable("ONRUSH_WIRE_IN_FLIGHT_MAX", "many").flag("--set", "a.b", "c");
    let error = load(&world.inputs).unwrap_err();
    assert_eq!(error.problems.len(), 4, "{error}");
}

#[test]
fn a_value_of_the_wrong_shape_is_refused() {
    let text = world().config("[server]\ndata_dir = 7\nhttp_addr = [1]\ntoken = true").refusal();
    assert!(text.contains("server.data_dir = \"7\"") && text.contains("in quotes"), "{text}");
    assert!(text.contains("server.http_addr = \"array\""), "{text}");
    assert!(text.contains("server.token") && !text.contains("true"), "{text}");
}

#[test]
fn text_that_is_no_toml_is_refused_with_its_line() {
    let text = world().config("[server]\n\nlog_level = = 1").refusal();
    assert!(text.contains("line 3"), "{text}");
}

#[test]
fn a_file_that_is_missing_or_much_too_large_is_refused() {
    let mut missing = world();
    missing.inputs.config_file = Some(PathBuf::from("missing/onrush.toml"));
    assert!(missing.refusal().contains("cannot read missing/onrush.toml (flag --config)"));
    let large = world().config(&"#".repeat(2 << 20));
    assert!(large.refusal().contains("larger than 1048576 bytes"));
}

#[test]
fn the_file_may_be_named_by_a_variable_but_the_flag_wins() {
    let mut world = world();
    let path = world.file("[delivery]\npop_batch = 7");
    let world = world.variable("ONRUSH_CONFIG", path);
    assert_eq!(world.settings().delivery.pop_batch, 7);
    assert_eq!(world.config("[delivery]\npop_batch = 8").settings().delivery.pop_batch, 8);
}

#[test]
fn host_and_port_each_replace_their_half_of_the_address() {
    let base = || world().config("[server]\nhttp_addr = \"127.0.0.2:1000\"");
    let http_addr = |world: World| world.settings().server.http_addr;
    assert_eq!(http_addr(base().variable("PORT", "80")), address("127.0.0.2:80"));
    assert_eq!(http_addr(base().variable("HOST", "localhost")), address("127.0.0.1:1000"));
    assert_eq!(
        http_addr(world().variable("HOST", "::1").variable("PORT", "80")),
        address("[::1]:80")
    );
    assert_eq!(
        http_addr(base().variable("HOST", "").variable("PORT", "")),
        address("127.0.0.2:1000")
    );
}

#[test]
fn our_own_name_of_the_address_wins_over_host_and_port_whatever_they_hold() {
    let world = world().variable("HOST", "my-machine").variable("PORT", "http");
    let text = world.refusal();
    assert!(text.contains("variable HOST") && text.contains("variable PORT"), "{text}");
    let world = world.variable("ONRUSH_HTTP_ADDR", "127.0.0.1:7");
    assert_eq!(world.settings().server.http_addr, address("127.0.0.1:7"));
}

#[test]
fn the_more_specific_of_several_names_wins() {
    let world = world().variable("LOG_LEVEL", "warn");
    assert_eq!(world.settings().server.log_level, LogLevel::Warn);
    let world = world.variable("ONRUSH_LOG_LEVEL", "error");
    assert_eq!(world.settings().server.log_level, LogLevel::Error);
    let world = world.variable("ONRUSH_SERVER_LOG_LEVEL", "trace");
    assert_eq!(world.settings().server.log_level, LogLevel::Trace);
}

#[test]
fn names_of_queen_are_understood() {
    let world = world().variable("DEFAULT_TIMEOUT", "5000").variable("DEFAULT_BATCH_SIZE", "10");
    let world = world.variable("DEFAULT_SUBSCRIPTION_MODE", "new").variable("LOG_LEVEL", "debug");
    let settings = world.variable("RETENTION_INTERVAL", "60000").settings();
    assert_eq!((settings.delivery.pop_timeout_ms, settings.delivery.pop_batch), (5_000, 10));
    assert_eq!(settings.delivery.subscription_mode, SubscriptionMode::New);
    assert_eq!(settings.store.retention_interval_ms, 60_000);
}

#[test]
fn a_token_comes_from_a_variable_or_from_a_file_without_its_line_end() {
    let plain = world().variable("ONRUSH_TOKEN", "secret").settings();
    assert_eq!(plain.server.token.expose(), "secret");
    let mut from_file = world();
    let path = from_file.file("secret\r\n");
    let settings = from_file.variable("ONRUSH_TOKEN_FILE", path).settings();
    assert_eq!(settings.server.token.expose(), "secret");
}

#[test]
fn a_token_given_twice_or_by_an_empty_or_missing_file_is_refused() {
    let mut empty = world();
    let path = empty.file("\n");
    let empty = empty.variable("ONRUSH_TOKEN_FILE", path);
    assert!(empty.refusal().contains("a file that is not empty"));
    assert!(empty.variable("ONRUSH_TOKEN", "x").refusal().contains("given twice"));
    let missing = world().variable("ONRUSH_SERVER_TOKEN_FILE", "missing/token").refusal();
    assert!(missing.contains("variable ONRUSH_SERVER_TOKEN_FILE"), "{missing}");
}

#[test]
fn a_refused_token_is_not_told() {
    let text = world().variable("ONRUSH_TOKEN", "two words").refusal();
    assert!(text.contains("server.token") && !text.contains("two words"), "{text}");
}

#[test]
fn a_setting_given_by_two_flags_is_refused() {
    let twice = world().flag("--data-dir", "server.data_dir", "a");
    let text = twice.flag("--set", "server.data_dir", "b").refusal();
    assert!(text.contains("given twice (flag --data-dir, and flag --set)"), "{text}");
}

#[cfg(unix)]
#[test]
fn a_variable_that_is_no_text_is_refused() {
    use std::os::unix::ffi::OsStringExt;
    let raw = OsString::from_vec(vec![0xFF, 0xFE]);
    assert!(world().variable("ONRUSH_DATA_DIR", raw).refusal().contains("expected UTF-8"));
}
