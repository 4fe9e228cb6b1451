//! Clusters start, keep what they committed through every kind of end, and leave nothing behind.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may fail where it stands")]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use onrush_pgharness::{Cluster, Stop, installations};

#[test]
fn what_is_committed_survives_every_kind_of_end_on_every_major() {
    for installation in installations().unwrap() {
        let mut cluster = Cluster::start(&installation).unwrap();
        let version = cluster.sql("postgres", "SHOW server_version_num").unwrap();
        assert!(version.starts_with(&installation.major().to_string()), "{version}");
        assert_eq!(cluster.sql("postgres", "SHOW fsync").unwrap(), "on");
        cluster.sql("postgres", "CREATE TABLE kept (n int)").unwrap();
        for (n, end) in [None, Some(Stop::Immediate), Some(Stop::Fast)].into_iter().enumerate() {
            cluster.sql("postgres", &format!("INSERT INTO kept VALUES ({n})")).unwrap();
            match end {
                None => cluster.kill(),
                Some(how) => cluster.stop(how),
            }
            assert!(cluster.sql("postgres", "SELECT 1").is_err(), "it is gone");
            cluster.start_again().unwrap();
            let count = cluster.sql("postgres", "SELECT count(*) FROM kept").unwrap();
            assert_eq!(count, (n + 1).to_string());
        }
    }
}

#[test]
fn a_frozen_server_answers_nothing_until_it_goes_on() {
    let cluster = Cluster::start(&installations().unwrap().remove(0)).unwrap();
    cluster.freeze();
    // The system still takes connections in its name.
    let mut peer = TcpStream::connect(("127.0.0.1", cluster.port())).unwrap();
    // Asks whether it speaks TLS; it answers with one letter.
    peer.write_all(&[0, 0, 0, 8, 4, 210, 22, 47]).unwrap();
    peer.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    let mut answer = [0; 1];
    assert!(peer.read(&mut answer).is_err(), "it answered {answer:?}");
    cluster.thaw();
    peer.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    peer.read_exact(&mut answer).unwrap();
    assert!(b"NS".contains(&answer[0]), "{answer:?}");
}

#[test]
fn nothing_is_left_behind() {
    let cluster = Cluster::start(&installations().unwrap().remove(0)).unwrap();
    let (folder, port) = (cluster.folder().to_owned(), cluster.port());
    assert!(folder.exists());
    drop(cluster);
    let deadline = Instant::now() + Duration::from_secs(10);
    while folder.exists() {
        assert!(Instant::now() < deadline, "{} is still there", folder.display());
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(TcpStream::connect(("127.0.0.1", port)).is_err());
}
