//! Names stand with the entries that give them, or not at all.

use super::*;
use crate::log::contract::{block_on, propose};
use crate::log::label::Label;

fn queue(queue: u32, name: &str) -> Label {
    Label::Queue { queue, name: name.into() }
}

fn partition(number: u32, queue: u32, name: &str) -> Label {
    Label::Partition { number, queue, name: name.into() }
}

#[test]
fn an_append_that_is_not_taken_leaves_no_names() {
    on_every_major(|installation| {
        let cluster = Cluster::start(installation).unwrap();
        let log = open_log(&config(&cluster, "s"));
        let named =
            |shard, head, labels: Vec<Label>| Proposal { labels, ..propose(shard, head, b"entry") };
        let append = |all: &[Proposal]| append(&log, all);
        let names = |sql: &str| cluster.sql("postgres", sql).unwrap();
        let both = "SELECT (SELECT count(*) FROM s.queues), (SELECT count(*) FROM s.partitions)";
        // One of the two is stale.
        let refused =
            append(&[named(0, 0, vec![partition(4, 1, "p")]), named(4, 7, vec![queue(1, "q")])]);
        assert_eq!(refused, Append::Conflict(vec![4]));
        assert_eq!(names(both), "0|0");
        append(&[named(0, 0, vec![partition(4, 1, "p")]), named(4, 0, vec![queue(1, "q")])]);
        assert_eq!(names(both), "1|1");
        assert_eq!(names("SELECT shard, number, queue, name FROM s.partitions"), "0|4|1|p");
        // Gone, and not named again by what was decided before.
        append(&[named(4, 1, vec![Label::Gone { queue: 1 }])]);
        let gone = "SELECT name, gone IS NOT NULL FROM s.queues";
        assert_eq!(names(gone), "q|t");
        append(&[named(4, 2, vec![queue(2, "x"), Label::Gone { queue: 2 }])]);
        assert_eq!(names("SELECT name, gone IS NOT NULL FROM s.queues WHERE queue = 2"), "x|t");
        log.settle();
        assert_eq!(names("SELECT count(*) FROM s.partitions"), "0");
    });
}

#[test]
fn a_database_that_has_few_letters_still_takes_every_name() {
    let cluster = Cluster::start(&installations().unwrap()[0]).unwrap();
    let latin = "CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0";
    cluster.sql("postgres", latin).unwrap();
    let database = Database::parse(&cluster.url("latin")).unwrap();
    let log = open_log(&PostgresConfig { database, ..config(&cluster, "s") });
    let proposal = Proposal { labels: vec![queue(1, "注é")], ..propose(4, 0, b"entry") };
    block_on(log.append(&[proposal], Durability::Synced)).unwrap();
    let name = cluster.sql("latin", "SELECT name FROM s.queues").unwrap();
    assert_eq!(name, "\\u{6ce8}\\u{e9}");
}
