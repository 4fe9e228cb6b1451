//! What Prometheus reads: its format, the names that are promised, and true numbers.

use std::collections::BTreeMap;

use serde_json::json;

use crate::client::World;

/// A family: what kind it is, and its series.
#[derive(Debug, Default)]
struct Family {
    kind: String,
    series: BTreeMap<String, f64>,
}

/// Reads a page as Prometheus does: each series below the family that it belongs to.
fn read(text: &str) -> BTreeMap<String, Family> {
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    let mut last = String::new();
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            assert!(help.split_once(' ').is_some_and(|(_, words)| !words.is_empty()), "{line}");
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').unwrap();
            let is_new = families
                .insert(name.to_owned(), Family { kind: kind.to_owned(), ..Family::default() })
                .is_none();
            assert!(is_new, "{name} stands twice");
            last = name.to_owned();
        } else {
            let (series, value) = line.rsplit_once(' ').unwrap();
            let name = series.split('{').next().unwrap();
            let family = families.get_mut(&last).unwrap();
            let of_histogram = ["_bucket", "_sum", "_count"].map(|end| format!("{last}{end}"));
            let is_its = match family.kind.as_str() {
                "histogram" => of_histogram.iter().any(|it| it == name),
                _ => name == last,
            };
            assert!(is_its, "{line} below {last}");
            let is_new = family.series.insert(series.to_owned(), value.parse().unwrap()).is_none();
            assert!(is_new, "{line} stands twice");
        }
    }
    families
}

#[tokio::test]
async fn the_page_follows_the_rules_and_has_every_name_that_is_promised() {
    let world = World::new().await;
    for path in ["/metrics/prometheus", "/queen/metrics/prometheus"] {
        let answer = world.get(path).await;
        assert_eq!(answer.status, 200);
        let families = read(answer.text());
        for (name, family) in families.iter().filter(|(name, _)| !name.starts_with("queen_")) {
            let is_counter = family.kind == "counter";
            assert_eq!(name.ends_with("_total"), is_counter, "{name}: {}", family.kind);
            for unit in ["milliseconds", "microseconds", "ms", "us", "kb", "mb"] {
                let mut words = name.split('_');
                assert!(words.all(|word| word != unit), "{name} is not in base units");
            }
            if family.kind == "histogram" {
                let bucket =
                    |bound: &str| family.series[&format!("{name}_bucket{{le=\"{bound}\"}}")];
                assert_eq!(bucket("+Inf"), family.series[&format!("{name}_count")], "{name}");
                assert!(bucket("0.0001") <= bucket("0.005") && bucket("10") <= bucket("+Inf"));
            }
        }
        let is_queens = path.starts_with("/queen");
        let queens = families.keys().filter(|name| name.starts_with("queen_")).count();
        assert_eq!(queens > 20, is_queens, "{queens}");
        for name in PROMISED {
            assert!(families.contains_key(*name), "{name} of {path}");
        }
        let in_database = !crate::client::store::is_embedded();
        for name in ["mq_db_pool_in_use", "mq_db_request_duration_seconds"] {
            assert_eq!(families.contains_key(name), in_database, "{name}");
        }
        for name in ["mq_wal_fsync_duration_seconds", "mq_wal_fsync_errors_total"] {
            assert_eq!(families.contains_key(name), !in_database, "{name}");
        }
    }
}

/// Families that are there whatever the store.
const PROMISED: &[&str] = &[
    "mq_messages_pushed_total",
    "mq_messages_delivered_total",
    "mq_messages_acked_total",
    "mq_messages_redelivered_total",
    "mq_messages_dead_lettered_total",
    "mq_duplicates_suppressed_total",
    "mq_push_duration_seconds",
    "mq_pop_duration_seconds",
    "mq_delivery_delay_seconds",
    "mq_end_to_end_duration_seconds",
    "mq_group_lag_messages",
    "mq_group_oldest_unacked_age_seconds",
    "mq_leases_active",
    "mq_leases_expired_total",
    "mq_connections",
    "mq_backpressure_rejections_total",
    "mq_wal_append_bytes_total",
    "mq_wal_corrupt_records_total",
    "mq_failover_active",
    "mq_failover_pending_messages",
    "mq_failover_oldest_age_seconds",
    "mq_disk_free_bytes",
    "mq_runtime_cascade_depth",
    "mq_runtime_fuel_used_total",
    "mq_process_slots_total",
    "mq_process_slots_failed_total",
    "mq_process_refused_total",
    "mq_process_hand_overs_total",
    "mq_process_duplicates_total",
    "mq_process_working",
    "mq_process_evaluation_seconds",
    "mq_process_commit_seconds",
    "mq_process_delay_seconds",
    "mq_build_info",
    "process_cpu_seconds_total",
    "process_resident_memory_bytes",
    "process_virtual_memory_bytes",
    "process_start_time_seconds",
    "process_open_fds",
    "process_max_fds",
];

#[tokio::test]
async fn the_numbers_are_what_was_done() {
    let world = World::new().await;
    let options = json!({ "queue": "q", "options": { "retryLimit": 1, "retryDelay": 0 } });
    assert!(world.post("/api/v1/configure", &options).await.status < 300);
    let item = json!({ "queue": "q", "transactionId": "once" });
    world.push(json!([item, item, { "queue": "q" }, { "queue": "q" }])).await;
    let pop = |batch: u32| format!("/api/v1/pop/queue/q?consumerGroup=g&batch={batch}");
    let said = async |message: &serde_json::Value, status: &str| {
        let body = json!({
            "transactionId": message["transactionId"], "partitionId": message["partitionId"],
            "leaseId": message["leaseId"], "consumerGroup": "g", "status": status,
        });
        assert_eq!(world.post("/api/v1/ack", &body).await.json()[0]["success"], json!(true));
    };
    let popped = world.get(&pop(3)).await.json();
    said(&popped["messages"][0], "completed").await;
    said(&popped["messages"][1], "completed").await;
    said(&popped["messages"][2], "failed").await;
    let again = world.get(&pop(1)).await.json();
    said(&again["messages"][0], "failed").await;
    world.push(json!([{ "queue": "q" }])).await;
    assert_eq!(world.get(&pop(1)).await.json()["messages"].as_array().unwrap().len(), 1);
    assert_eq!(world.ask("POST", "/api/v1/stats/refresh", "").await.status, 200);
    let families = read(world.get("/metrics/prometheus").await.text());
    let value = |series: &str| {
        let family = families.iter().find_map(|(_, family)| family.series.get(series));
        *family.unwrap_or_else(|| panic!("{series}: {families:#?}"))
    };
    for (series, expected) in [
        (r#"mq_messages_pushed_total{queue="q",qos="1",status="pushed"}"#, 4.0),
        (r#"mq_messages_pushed_total{queue="q",qos="1",status="duplicate"}"#, 1.0),
        (r#"mq_messages_delivered_total{queue="q",group="g"}"#, 5.0),
        (r#"mq_messages_acked_total{queue="q",group="g",status="completed"}"#, 2.0),
        (r#"mq_messages_acked_total{queue="q",group="g",status="failed"}"#, 2.0),
        (r#"mq_messages_dead_lettered_total{reason="retries_exhausted"}"#, 1.0),
        ("mq_messages_redelivered_total", 1.0),
        ("mq_duplicates_suppressed_total", 1.0),
        (r#"mq_group_lag_messages{queue="q",group="g"}"#, 1.0),
        (r#"mq_dead_letters{queue="q"}"#, 1.0),
        ("mq_leases_active", 1.0),
        ("mq_push_duration_seconds_count", 2.0),
        ("mq_pop_duration_seconds_count", 3.0),
        ("mq_delivery_delay_seconds_count", 5.0),
        ("mq_end_to_end_duration_seconds_count", 2.0),
        ("mq_failover_active", 0.0),
    ] {
        assert_eq!(value(series), expected, "{series}");
    }
    assert!(value(r#"mq_group_oldest_unacked_age_seconds{queue="q",group="g"}"#) >= 0.0);
    assert!(value(r#"mq_connections{transport="http"}"#) >= 1.0, "the one that asks");
    assert!(value("process_resident_memory_bytes") > 1e6);
    assert!(value("mq_disk_free_bytes") > 0.0);
    assert!(value("mq_wal_append_bytes_total") > 0.0);
}
