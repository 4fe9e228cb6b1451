//! Whole runs of the binary against a server in memory: that a sound server passes, and that each
//! broken promise is found and fails the run.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that cannot go on has failed, and should say where"
)]

#[path = "runs/command.rs"]
mod command;
#[path = "../../client/tests/support/mod.rs"]
mod support;

use command::run;
use onrush_client::Code;
use support::{FakeServer, Fault, Mischief, PUSH};

fn push(server: &FakeServer, more: &str) -> String {
    format!(
        "push --addr {} --no-floor --seconds 0.3 --warmup 0.1 --connections 3 --partitions 4 \
         --in-flight 4 --batch 10 --idle 0.5 {more}",
        server.addr()
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sound_server_passes_at_every_promise() {
    for qos in ["--qos 0", "--qos 1", "--qos 2", "--qos 2 --duplicates 5%"] {
        let server = FakeServer::start().await;
        let (code, report) = run(&push(&server, qos)).await;
        assert_eq!(code, 0, "{report:#}");
        assert_eq!(report["type"], "result");
        for field in ["errors", "lost", "duplicated", "reordered", "damaged", "sequence_gaps"] {
            assert_eq!(report[field], 0, "{field}");
        }
        for field in ["rate", "p50_us", "p90_us", "p99_us", "p999_us", "p9999_us"] {
            assert!(report[field].as_f64().unwrap() > 0.0, "{field}");
        }
        assert!(report["floor_rate"].is_null() && report["ratio_to_floor"].is_null());
        assert!(report["machine"]["cpu"].is_string() && report["command_line"].is_array());
        assert_eq!(report["parameters"]["batch"], 10);
        assert!(report["received"].as_u64().unwrap() > 0);
        let is_repeating = qos.contains("duplicates");
        assert_eq!(report["answered_duplicate"].as_u64().unwrap() > 0, is_repeating);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_with_several_servers_gets_all_of_it_shared_out_by_shard() {
    let server = FakeServer::start().await;
    let more = format!("--also {} --affinity 2", server.addr());
    let (code, report) = run(&push(&server, &more)).await;
    assert_eq!(code, 0, "{report:#}");
    assert_eq!((&report["lost"], &report["reordered"]), (&0.into(), &0.into()));
    // Each partition got one message to learn from, and batches of ten since.
    let received = report["received"].as_u64().unwrap();
    assert!(received > 4 && received % 10 == 4, "{received}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_broken_promise_fails_the_run_by_its_name() {
    for (mischief, field) in [
        (Mischief::Lose, "lost"),
        (Mischief::Repeat, "duplicated"),
        (Mischief::Swap, "reordered"),
        (Mischief::Damage, "damaged"),
    ] {
        let server = FakeServer::start().await;
        server.shared.store.lock().unwrap().mischief = Some(mischief);
        let (code, report) = run(&push(&server, "--qos 2")).await;
        assert_eq!(code, 1, "{mischief:?}");
        assert!(report[field].as_u64().unwrap() > 0, "{mischief:?}: {report:#}");
        assert_eq!(report["ok"], false);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_has_no_room_is_no_error_and_loses_nothing() {
    let server = FakeServer::start().await;
    for _ in 0..20 {
        server.fault(PUSH, Fault::Refuse(Code::RingFull, 1));
    }
    let (code, report) = run(&push(&server, "--qos 0")).await;
    assert_eq!(code, 0, "{report:#}");
    assert_eq!(report["refused"], 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn any_other_refusal_is_an_error_by_its_name() {
    let server = FakeServer::start().await;
    server.fault(PUSH, Fault::Refuse(Code::Poisoned, 0));
    let (code, report) = run(&push(&server, "")).await;
    assert_eq!(code, 1);
    assert_eq!(report["error_kinds"]["poisoned"], 1);
    assert_eq!(report["lost"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fixed_rate_is_kept() {
    let server = FakeServer::start().await;
    let (code, report) = run(&push(&server, "--rate 5000")).await;
    assert_eq!(code, 0, "{report:#}");
    let messages = report["messages"].as_u64().unwrap();
    // 0.4 seconds at 5000 in batches of 10, whatever the machine does meanwhile.
    assert!((1970..=2030).contains(&messages), "{messages}");
}

#[tokio::test(flavor = "multi_thread")]
async fn popping_and_mixing_check_as_much() {
    for command in ["pop --messages 5000", "mixed --rate 5000"] {
        let server = FakeServer::start().await;
        let line = format!(
            "{command} --addr {} --no-floor --seconds 0.5 --warmup 0.1 --connections 2 \
             --partitions 5 --batch 10 --in-flight 4 --pop-batch 50 --idle 0.5",
            server.addr()
        );
        let (code, report) = run(&line).await;
        assert_eq!(code, 0, "{report:#}");
        assert!(report["rate"].as_f64().unwrap() > 0.0);
        assert!(report["received"].as_u64().unwrap() > 0);
        assert_eq!(report["verified"], true);
        assert_eq!(report["end_to_end"].is_object(), command.starts_with("mixed"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_floor_is_measured_before_and_after() {
    let server = FakeServer::start().await;
    let line = format!(
        "push --addr {} --seconds 0.2 --warmup 0 --connections 2 --in-flight 2 --batch 10 \
         --floor-seconds 0.2 --idle 0.5",
        server.addr()
    );
    let (code, report) = run(&line).await;
    assert_eq!(code, 0, "{report:#}");
    assert_eq!(report["floors"].as_array().unwrap().len(), 2);
    assert_eq!(report["floor_bound"], "durable");
    let (rate, floor) = (report["rate"].as_f64().unwrap(), report["floor_rate"].as_f64().unwrap());
    let ratio = report["ratio_to_floor"].as_f64().unwrap();
    assert!((ratio - rate / floor).abs() < 1e-9);
    assert!(report["floors"][0]["syncs"].as_f64().unwrap() > 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn pairs_alternate_with_the_floor_and_the_median_of_their_ratios_is_told() {
    let server = FakeServer::start().await;
    let line = format!(
        "push --addr {} --seconds 0.2 --warmup 0 --connections 2 --in-flight 2 --batch 10 \
         --floor-seconds 0.2 --idle 0.5 --pairs 3",
        server.addr()
    );
    let (code, report) = run(&line).await;
    assert_eq!(code, 0, "{report:#}");
    let pairs = &report["pairs"][0];
    assert_eq!(pairs["against"], "the floor (durable)");
    let each = pairs["each"].as_array().unwrap();
    let number = |pair: &serde_json::Value, field: &str| pair[field].as_f64().unwrap();
    let mut ratios: Vec<f64> =
        each.iter().map(|pair| number(pair, "rate") / number(pair, "against_rate")).collect();
    ratios.sort_by(f64::total_cmp);
    assert_eq!(ratios.len(), 3);
    for (field, expected) in [("lowest", ratios[0]), ("median", ratios[1]), ("highest", ratios[2])]
    {
        assert!((number(pairs, field) - expected).abs() < 1e-9, "{field}: {pairs:#}");
    }
    assert_eq!(report["ratio_to_floor"], pairs["median"]);
    assert_eq!(report["verified"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_each_read_everything_and_are_held_against_one_and_none() {
    let server = FakeServer::start().await;
    let line = format!(
        "mixed --addr {} --seconds 0.3 --warmup 0.1 --connections 2 --partitions 5 --batch 10 \
         --in-flight 4 --pop-batch 50 --idle 0.5 --rate 5000 --groups 3 --no-floor",
        server.addr()
    );
    let (code, report) = run(&line).await;
    assert_eq!(code, 0, "{report:#}");
    assert_eq!((&report["lost"], &report["reordered"]), (&0.into(), &0.into()));
    let (messages, received) = (&report["messages"], report["received"].as_u64().unwrap());
    assert_eq!(received, 3 * messages.as_u64().unwrap(), "{report:#}");
    let (code, report) = run(&format!("{line} --pairs 2")).await;
    assert_eq!(code, 0, "{report:#}");
    for (at, against) in ["1 group", "no group"].into_iter().enumerate() {
        let pairs = &report["pairs"][at];
        assert_eq!(
            (&pairs["against"], pairs["each"].as_array().unwrap().len()),
            (&against.into(), 2)
        );
        assert!(pairs["median"].as_f64().unwrap() > 0.0, "{pairs:#}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_queue_of_a_run_is_gone_after_it_unless_it_is_kept() {
    let server = FakeServer::start().await;
    run(&push(&server, "")).await;
    assert_eq!(server.shared.store.lock().unwrap().count(), 0);
    run(&push(&server, "--keep")).await;
    assert!(server.shared.store.lock().unwrap().count() > 0);
}
