//! The simulated log keeps the stories that every log keeps, and lies as told.

use super::super::contract::{self, Subject, block_on, propose};
use super::*;

struct Simulated {
    log: Arc<SimulatedLog>,
}

impl Subject for Simulated {
    fn log(&self) -> Arc<dyn Log> {
        Arc::clone(&self.log) as Arc<dyn Log>
    }

    fn crash(&mut self) {
        self.log.crash();
        self.restart();
    }

    fn restart(&mut self) {
        self.log = Arc::new(self.log.connect());
    }
}

fn new(seed: u64) -> SimulatedLog {
    SimulatedLog::new(seed, contract::shards())
}

fn append(log: &SimulatedLog, head: u64) -> Result<Append, AppendError> {
    block_on(log.append(&[propose(0, head, b"x")], Durability::Synced))
}

#[test]
fn keeps_the_contract_of_all_logs() {
    for seed in 0..20 {
        contract::check_all(seed, &|seed| Box::new(Simulated { log: Arc::new(new(seed)) }));
    }
}

#[test]
fn keeps_the_contract_when_appends_are_slow() {
    contract::check_all(1, &|seed| {
        let log = Arc::new(new(seed));
        log.set_faults(Faults { yields_max: 5, ..Faults::default() });
        Box::new(Simulated { log })
    });
}

#[test]
fn what_relies_on_a_shard_that_others_changed_is_refused_for_it() {
    let log = new(1);
    let relying = |head| [Proposal { relies_on: Some((4, head)), ..propose(1, 0, b"relies") }];
    block_on(log.append(&[propose(4, 0, b"other")], Durability::Synced)).unwrap();
    let stale = block_on(log.append(&relying(0), Durability::Synced));
    assert_eq!(stale, Ok(Append::Conflict(vec![4])));
    assert_eq!(block_on(log.head(1)), Ok(0));
    let fresh = block_on(log.append(&relying(1), Durability::Synced));
    assert!(matches!(fresh, Ok(Append::Appended(_))), "{fresh:?}");
}

#[test]
fn each_fault_does_what_it_says() {
    let log = new(1);
    for fault in [Fault::Unavailable, Fault::DiskFull, Fault::RequestLost, Fault::AnswerLost] {
        log.script(fault);
    }
    assert!(matches!(append(&log, 0), Err(AppendError::Unavailable(_))));
    assert_eq!(append(&log, 0), Err(AppendError::DiskFull));
    assert_eq!(append(&log, 0), Err(AppendError::OutcomeUnknown));
    assert_eq!(block_on(log.head(0)), Ok(0), "a lost request leaves nothing");
    assert_eq!(append(&log, 0), Err(AppendError::OutcomeUnknown));
    assert_eq!(block_on(log.head(0)), Ok(1), "a lost answer leaves the entry");
    assert!(matches!(append(&log, 1), Ok(Append::Appended(_))));
    let struck = log.struck();
    assert_eq!((struck.unavailable, struck.disk_full), (1, 1));
    assert_eq!((struck.requests_lost, struck.answers_lost, struck.appended), (1, 1, 2));
}

#[test]
fn chances_strike_all_faults_and_the_same_seed_strikes_alike() {
    let run = |seed| {
        let log = new(seed);
        log.set_faults(Faults {
            unavailable_per_mille: 100,
            answer_lost_per_mille: 100,
            request_lost_per_mille: 100,
            late_per_mille: 100,
            disk_full_per_mille: 100,
            read_unavailable_per_mille: 100,
            yields_max: 3,
        });
        let mut answers = Vec::new();
        let mut head = 0;
        for _ in 0..500 {
            let answer = append(&log, head);
            if matches!(answer, Ok(Append::Appended(_)) | Err(AppendError::OutcomeUnknown)) {
                head = block_on(log.head(0)).unwrap_or(head);
            }
            answers.push(answer);
        }
        (answers, log.struck(), log.entries().len() as u64)
    };
    let (answers, struck, entries) = run(7);
    assert_eq!((answers, struck, entries), run(7));
    assert_ne!(run(8).1, struck);
    assert!(struck.unavailable > 0 && struck.disk_full > 0 && struck.conflicts > 0);
    assert!(struck.answers_lost > 0 && struck.requests_lost > 0 && struck.late > 0);
    assert_eq!(entries, struck.appended);
}

#[test]
fn a_late_append_stands_if_its_heads_still_do_and_not_otherwise() {
    let (mut stood, mut came_too_late) = (0, 0);
    for seed in 0..40 {
        let log = new(seed);
        log.script(Fault::Late);
        assert_eq!(append(&log, 0), Err(AppendError::OutcomeUnknown));
        // Either it arrived before the same offer came again, or after.
        match append(&log, 0) {
            Ok(Append::Conflict(shards)) => {
                assert_eq!(shards, vec![0]);
                stood += 1;
            }
            other => {
                assert!(matches!(other, Ok(Append::Appended(_))), "{other:?}");
                came_too_late += 1;
            }
        }
        for _ in 0..20 {
            assert_eq!(block_on(log.head(0)), Ok(1), "it stands once");
        }
    }
    assert!(stood > 0 && came_too_late > 0, "{stood} {came_too_late}");
}

#[test]
fn a_full_disk_stays_full_until_there_is_space() {
    let log = new(1);
    log.set_disk_full(true);
    for _ in 0..3 {
        assert_eq!(append(&log, 0), Err(AppendError::DiskFull));
    }
    log.set_disk_full(false);
    assert!(append(&log, 0).is_ok());
}

#[test]
fn a_cut_connection_reaches_nothing_while_another_works() {
    let one = new(1);
    let other = one.connect();
    one.set_cut(true);
    assert!(matches!(append(&one, 0), Err(AppendError::Unavailable(_))));
    assert!(matches!(block_on(one.head(0)), Err(ReadError::Unavailable(_))));
    assert!(append(&other, 0).is_ok());
    one.set_cut(false);
    assert_eq!(append(&one, 0), Ok(Append::Conflict(vec![0])), "the other was there meanwhile");
}

#[test]
fn a_crash_kills_every_connection_and_says_what_it_took() {
    let mut lost = 0;
    for seed in 0..50 {
        let log = new(seed);
        for head in 0..10 {
            let durability = if head == 4 { Durability::Synced } else { Durability::Written };
            block_on(log.append(&[propose(0, head, b"x")], durability)).unwrap();
        }
        let taken = log.crash();
        lost += taken;
        assert!(matches!(append(&log, 0), Err(AppendError::Unavailable(_))));
        assert_eq!(block_on(log.connect().head(0)), Ok(10 - taken));
        assert!(taken <= 5);
    }
    assert!((50..=200).contains(&lost), "{lost} lost in 50 crashes");
}

#[test]
fn a_crash_between_an_append_and_its_answer_leaves_the_outcome_open() {
    let log = new(1);
    log.set_faults(Faults { yields_max: 1, ..Faults::default() });
    let mut open = 0;
    for _ in 0..50 {
        let connection = log.connect();
        connection.set_faults(Faults { yields_max: 1, ..Faults::default() });
        let head = connection.store.lock().head(0);
        let proposals = [propose(0, head, b"x")];
        let mut future = connection.append(&proposals, Durability::Synced);
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        if future.as_mut().poll(&mut context).is_ready() {
            continue;
        }
        log.crash();
        let answer = block_on(future);
        match answer {
            Err(AppendError::OutcomeUnknown) => {
                open += 1;
                assert_eq!(log.store.lock().head(0), head + 1, "it was synced");
            }
            Err(AppendError::Unavailable(_)) => assert_eq!(log.store.lock().head(0), head),
            other => panic!("{other:?}"),
        }
    }
    assert!(open > 0);
}

#[test]
fn a_body_is_refused_where_no_single_entry_of_the_shard_holds_it() {
    let log = new(1);
    let two = [propose(0, 0, b"zero"), propose(1, 0, b"one")];
    let Ok(Append::Appended(at)) = block_on(log.append(&two, Durability::Synced)) else { panic!() };
    assert_eq!(log.body(1, Extent { position: at[1], len: 3 }).unwrap(), "one");
    for (shard, position, len) in [(1, at[0], 2), (0, at[0], 6), (0, at[0] + 5, 1)] {
        let refused = log.body(shard, Extent { position, len });
        assert!(matches!(refused, Err(ReadError::Corrupt { .. })), "{refused:?}");
    }
}
