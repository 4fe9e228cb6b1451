//! The whole engine on a disk that loses power, fails and fills up: nothing acknowledged at QoS 1 or 2
//! is lost, nothing pushed at QoS 2 stands twice, order is kept, what was settled does not come again,
//! and refusals are explicit.
//!
//! `SEEDS` sets how many seeds of each kind, `LIVES` how often each machine loses its power, `SEED`
//! runs one alone. Threads make a run of
//! one seed differ from the next; the faults are the same.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test: a panic is how it fails, and it names its seed"
)]

#[path = "simulated/history.rs"]
mod history;
#[path = "lying_disk/life.rs"]
mod life;
#[path = "lying_disk/machine.rs"]
mod machine;
#[path = "support/seeds.rs"]
mod seeds;
#[path = "simulated/station.rs"]
mod station;
#[path = "simulated/transcript.rs"]
mod transcript;

use std::sync::Arc;
use std::time::Duration;

use onrush::base::random::SeededRandom;
use onrush::base::sim::Survival;
use onrush::delivery::Handout;
use onrush::state::draft::ack::{AckItem, Verdict};
use onrush_protocol::qos::Qos;

use history::History;
use life::{Clients, GROUPS};
use machine::Machine;
use seeds::{number, runtime, seeds};
use station::{Ask, Sent, Station};

/// What happened over all seeds, so that a test can prove that it saw it.
#[derive(Debug, Default)]
struct Seen {
    cut: u64,
    cut_while_starting: u64,
    unanswered: u64,
    stored: u64,
}

/// One machine over several lives, all but the last of which end with a loss of power.
async fn lives(seed: u64, lives: u64, seen: &mut Seen) {
    let machine = Machine::new(seed);
    let random = SeededRandom::new(seed ^ 0x11FE);
    let clients = Arc::new(Clients::new(seed));
    for _ in 0..lives {
        machine.disk.power_off_after(5 + random.below(400));
        if random.chance(300) {
            // Power that goes while the engine starts.
            machine.disk.power_off_after(random.below(12));
        }
        machine.disk.set_short_writes(random.chance(300));
        match machine.start() {
            Ok(station) => {
                let station = Arc::new(station);
                clients.live(&station, 40).await;
                seen.cut += u64::from(machine.disk.is_off());
                if random.chance(500) {
                    // The power goes for good before anything can be put in order.
                    machine.disk.power_off_after(0);
                }
                station.stop().await;
            }
            Err(error) => {
                assert!(machine.disk.is_off(), "seed {seed}: {error}");
                seen.cut_while_starting += 1;
            }
        }
        machine.crash();
    }
    let station = machine.start().unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    clients.finish(&station).await;
    station.stop().await;
    drop(station);
    let transcript = machine.transcript();
    clients.history.check(&transcript, &GROUPS);
    History::check_payloads(&transcript, &clients.got.lock());
    seen.unanswered += clients.history.count("unknown");
    seen.stored += clients.history.count("stored");
}

#[test]
fn nothing_acknowledged_is_lost_when_the_power_goes_again_and_again() {
    let mut seen = Seen::default();
    for seed in seeds(40) {
        println!("seed {seed}");
        runtime().block_on(lives(seed, number("LIVES", 4), &mut seen));
    }
    println!("{seen:?}");
    if seeds(40).count() >= 20 {
        assert!(seen.cut > 0 && seen.cut_while_starting > 0, "{seen:?}");
        assert!(seen.unanswered > 0 && seen.stored > 100, "{seen:?}");
    }
}

#[test]
fn after_a_failed_sync_nothing_is_acknowledged_and_a_restart_recovers() {
    let (mut stored, mut failed) = (0, 0);
    for seed in seeds(20) {
        println!("seed {seed}");
        runtime().block_on(async {
            let machine = Machine::new(seed);
            let random = SeededRandom::new(seed ^ 0xE10);
            let clients = Arc::new(Clients::new(seed));
            let station = Arc::new(machine.start().unwrap());
            if random.chance(500) {
                machine.disk.fail_sync_at(1 + random.below(120));
            } else {
                machine.disk.fail_write_at(1 + random.below(120));
            }
            clients.live(&station, 60).await;
            let unknown = clients.history.count("unknown");
            if unknown > 0 {
                failed += 1;
                // The log is poisoned: a yes would be a lie from now on.
                for qos in [Qos::AtLeastOnce, Qos::ExactlyOnce] {
                    let records = [(Some("late".to_owned()), "late".to_owned())];
                    let sent = station.push("p0", qos, &records).await;
                    assert!(matches!(sent, Sent::Refused(_)), "seed {seed}: {sent:?}");
                }
            }
            station.stop().await;
            drop(station);
            // The process goes; or the machine does, and takes what no sync saved.
            match random.below(3) {
                0 => machine.disk.crash_with(Survival::All),
                1 => machine.crash_hard(),
                _ => machine.crash(),
            }
            let station = machine.start().unwrap_or_else(|error| panic!("seed {seed}: {error}"));
            clients.finish(&station).await;
            station.stop().await;
            drop(station);
            clients.history.check(&machine.transcript(), &GROUPS);
            stored += clients.history.count("stored");
        });
    }
    if seeds(20).count() >= 20 {
        assert!(stored > 100 && failed > 0, "{stored} stored, {failed} failed");
    }
}

/// Pushes until the disk is full; how many stand.
async fn fill(station: &Station, clients: &Clients, bytes: usize) -> u64 {
    for number in 0..10_000 {
        let records = [(None, format!("filler.{bytes}.{number}.{}", "x".repeat(bytes)))];
        let sent = station.push("full", Qos::AtLeastOnce, &records).await;
        clients.history.sent(Qos::AtLeastOnce, &records, &sent);
        match sent {
            Sent::Stored(..) => {}
            Sent::Refused(why) => {
                assert!(why.contains("DiskFull"), "{why}");
                return number;
            }
            other => panic!("{other:?}"),
        }
    }
    panic!("the disk was never full");
}

async fn ack_all(station: &Station, clients: &Clients, handout: &Handout) {
    for package in &handout.packages {
        for batch in &package.batches {
            let (first, count) = (batch.first_seq, u64::from(batch.batch.count()));
            let (verdict, error) = (Verdict::Completed, "".into());
            let item = AckItem { first, last: first + count - 1, verdict, error };
            let items = vec![(package.partition, item)];
            let acked = station.ack(GROUPS[0], Some(handout.token), items).await.unwrap();
            assert!(acked[0].is_ok(), "{acked:?}");
            clients.history.settled(GROUPS[0], package.partition, first, first + count);
        }
    }
}

#[test]
fn a_full_disk_refuses_what_is_large_keeps_serving_and_recovers_without_a_restart() {
    for seed in seeds(4) {
        println!("seed {seed}");
        runtime().block_on(async {
            let machine = Machine::new(seed);
            let clients = Arc::new(Clients::new(seed));
            let station = machine.start().unwrap();
            fill_and_free(&machine, &clients, &station).await;
            station.stop().await;
            drop(station);
            machine.crash();
            let station = machine.start().unwrap_or_else(|error| panic!("seed {seed}: {error}"));
            clients.finish(&station).await;
            station.stop().await;
            drop(station);
            clients.history.check(&machine.transcript(), &GROUPS);
        });
    }
}

async fn fill_and_free(machine: &Machine, clients: &Arc<Clients>, station: &Station) {
    let kept = station.push("full", Qos::AtLeastOnce, &[(None, "first".into())]).await;
    assert!(matches!(kept, Sent::Stored(..)));
    for round in 0..3 {
        machine.disk.set_capacity(Some(machine.disk.allocated()));
        // Two of them fill a segment but for some kilobytes.
        let stored = fill(station, clients, 27_000 + round).await;
        // What needs little space still works, also beside a push that needs much.
        let large = [(None, format!("large.{round}.{}", "x".repeat(27_000)))];
        let ask = Ask { wait_ms: 0, ..Ask::of(GROUPS[0], 2) };
        let (sent, handout) =
            tokio::join!(station.push("full", Qos::AtLeastOnce, &large), station.pop(&ask));
        assert!(matches!(&sent, Sent::Refused(why) if why.contains("DiskFull")), "{sent:?}");
        let handout = handout.unwrap();
        assert!(!handout.packages.is_empty(), "round {round}: {stored} stored");
        let asked = clients.history.tick();
        clients.history.delivered(GROUPS[0], asked, false, &handout);
        let (sent, ()) = tokio::join!(
            station.push("full", Qos::AtLeastOnce, &large),
            ack_all(station, clients, &handout),
        );
        assert!(matches!(sent, Sent::Refused(_)), "{sent:?}");
        // What QoS 0 said yes to waits for space.
        let buffered = [(None, format!("buffered.{round}.{}", "x".repeat(27_000)))];
        let sent = station.push("full", Qos::Buffered, &buffered).await;
        assert!(matches!(sent, Sent::Buffered), "{sent:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
        machine.disk.set_capacity(None);
        let after = [(None, format!("after.{round}"))];
        let sent = station.push("full", Qos::AtLeastOnce, &after).await;
        clients.history.sent(Qos::AtLeastOnce, &after, &sent);
        let Sent::Stored(_, outcomes) = sent else { panic!("round {round}: {sent:?}") };
        assert_eq!(station.telemetry.buffered_lost.get(), 0);
        assert!(outcomes[0].0 > stored, "the buffered one stands before it");
    }
}
