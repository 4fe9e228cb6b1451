//! Which store the servers of a test have.
//!
//! The embedded one, unless `ONRUSH_TEST_STORE` says `postgres`, or `postgres:15` for one major: then a
//! real PostgreSQL, one cluster for the test process and a schema for each server.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use onrush::config::{Secret, Settings};
use onrush_pgharness::{Cluster, installations};

static CLUSTER: OnceLock<Option<Cluster>> = OnceLock::new();
static STORES: AtomicU64 = AtomicU64::new(0);

/// Gives a server that names no database the store that is asked for.
pub(crate) fn choose(settings: &mut Settings) {
    let Some(cluster) = CLUSTER.get_or_init(start) else { return };
    if !settings.database.url.is_set() {
        settings.database.url = Secret::new(cluster.url("postgres"));
        settings.database.schema = format!("store_{}", STORES.fetch_add(1, Ordering::Relaxed));
    }
}

/// Whether servers have the embedded store.
#[allow(dead_code, reason = "not every test tells them apart")]
pub(crate) fn is_embedded() -> bool {
    CLUSTER.get_or_init(start).is_none()
}

fn start() -> Option<Cluster> {
    let asked = std::env::var("ONRUSH_TEST_STORE").unwrap_or_default();
    let major = match asked.split_once(':').unwrap_or((&asked, "")) {
        ("" | "embedded", _) => return None,
        ("postgres", major) => major,
        (other, _) => panic!("ONRUSH_TEST_STORE is {other:?}; embedded and postgres are known"),
    };
    let mut found = installations().unwrap();
    if !major.is_empty() {
        let major: u32 = major.parse().unwrap();
        found.retain(|it| it.major() == major);
    }
    let first = found.first().unwrap_or_else(|| panic!("no PostgreSQL {major} is installed"));
    // Servers of tests that are over go when they like: one for each of more than a hundred tests, nine
    // connections each.
    Some(Cluster::start_with(first, &["max_connections=2000"]).unwrap())
}
