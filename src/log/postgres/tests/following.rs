//! Following: briefs in the place of entries, several shards at once, and turns asked for ahead.

use super::*;
use crate::log::Followed;
use crate::log::contract::{block_on, propose};

/// An entry with a brief that begins as it does.
fn with_brief(shard: ShardId, head: u64) -> Proposal {
    let bytes = [head as u8; 300];
    Proposal { brief: Some(Bytes::copy_from_slice(&bytes[..70])), ..propose(shard, head, &bytes) }
}

fn followed(log: &PostgresLog, asked: &[(ShardId, u64)]) -> Vec<Vec<Followed>> {
    block_on(log.follow(asked, 1 << 20)).into_iter().map(Result::unwrap).collect()
}

#[test]
fn whoever_follows_gets_briefs_where_there_are_some_and_places_as_in_the_whole() {
    on_every_major(|installation| {
        let cluster = Cluster::start(installation).unwrap();
        let config = config(&cluster, "s");
        let (a, b) = (open_log(&config), open_log(&config));
        append(&a, &[with_brief(3, 0), propose(1, 0, &[7; 200])]);
        append(&a, &[with_brief(3, 1)]);
        append(&a, &[propose(3, 2, b"whole")]);
        let found = followed(&b, &[(3, 0), (0, 0), (1, 0)]);
        let told = |it: &Followed| (it.entry.index, it.is_brief, it.len, it.entry.bytes.len());
        let told: Vec<Vec<_>> = found.iter().map(|it| it.iter().map(told).collect()).collect();
        let of_three = vec![(0, true, 300, 70), (1, true, 300, 70), (2, false, 5, 5)];
        assert_eq!(told, [of_three, vec![], vec![(0, false, 200, 200)]]);
        let whole = block_on(b.read(3, 0, usize::MAX)).unwrap();
        let places = |it: &Followed| (it.entry.shard, it.entry.position);
        let places: Vec<_> = found[0].iter().map(places).collect();
        assert_eq!(places, whole.iter().map(|it| (it.shard, it.position)).collect::<Vec<_>>());
        assert_eq!(whole[0].bytes[..], [0; 300]);
        // From the middle, and what is beyond the end.
        assert_eq!(followed(&b, &[(3, 2)])[0].len(), 1);
        assert_eq!(followed(&b, &[(3, 3), (3, 99)]), [vec![], vec![]]);
        // The database is recognised by a brief as by the whole.
        append(&a, &[with_brief(3, 3)]);
        assert_eq!(followed(&b, &[(3, 3)])[0].len(), 1);
        b.shared.follower.session().unwrap().sever();
        await_that("the connection", || block_on(b.heads(5)).is_ok());
        assert_eq!(block_on(b.heads(5)).unwrap(), [0, 1, 0, 4, 0]);
    });
}

#[test]
fn what_is_gone_is_told_for_its_shard_alone() {
    on_every_major(|installation| {
        let cluster = Cluster::start(installation).unwrap();
        let a = open_log(&config(&cluster, "s"));
        append(&a, &[with_brief(3, 0), propose(1, 0, b"kept")]);
        cluster.sql("postgres", "DELETE FROM s.log WHERE shard = 3").unwrap();
        let found = block_on(a.follow(&[(3, 0), (1, 0)], 1 << 20));
        assert_eq!(found[0], Err(ReadError::TooOld(0)));
        assert_eq!(found[1].as_ref().unwrap().len(), 1);
    });
}

#[test]
fn an_engine_that_lost_asks_for_its_turn_before_it_decides_and_the_other_waits_for_it() {
    on_every_major(|installation| {
        let cluster = Cluster::start(installation).unwrap();
        let config = config(&cluster, "s");
        let (a, b) = (open_log(&config), open_log(&config));
        await_that("each other", || a.shared.news.has_others() && b.shared.news.has_others());
        assert_eq!(block_on(b.claim(&[1, 2])), None, "it has met nobody");
        append(&a, &[propose(1, 0, b"first")]);
        assert_eq!(append(&b, &[propose(1, 0, b"late")]), Append::Conflict(vec![1]));
        let claim = block_on(b.claim(&[1, 2])).unwrap();
        assert!(claim.is_ours, "{claim:?}");
        assert_eq!(claim.heads, [(1, 1), (2, 0)]);
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| append(&a, &[propose(1, 1, b"second")]));
            append(&b, &[propose(1, 1, b"mine")]);
            assert_eq!(waiting.join().unwrap(), Append::Conflict(vec![1]));
        });
        let read = block_on(a.read(1, 0, usize::MAX)).unwrap();
        let texts: Vec<&[u8]> = read.iter().map(|entry| &entry.bytes[..]).collect();
        assert_eq!(texts, [&b"first"[..], b"mine"]);
    });
}
