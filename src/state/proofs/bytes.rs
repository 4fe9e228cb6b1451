//! Entries as bytes: back as they were, and nothing that is not an entry does any harm.

use bytes::Bytes;
use onrush_protocol::options::QueueOptions;
use proptest::prelude::*;

use crate::state::care::Care;
use crate::state::care::job::{Action, Job, JobState};
use crate::state::care::trace::TraceEvent;
use crate::state::catalog::QueueDefinition;
use crate::state::codec::{self, ENTRY_HEADER};
use crate::state::effect::{
    DeadLetter, DeadReason, Effect, Entry, GroupStart, Maintenance, Origin, ProducerSub, Progress,
};
use crate::state::queries::QueryDefinition;

fn text() -> impl Strategy<Value = Box<str>> {
    "[a-zäöü€ ]{0,12}".prop_map(Into::into)
}

fn start() -> impl Strategy<Value = GroupStart> {
    prop_oneof![
        Just(GroupStart::Beginning),
        Just(GroupStart::New),
        any::<u64>().prop_map(GroupStart::Time),
    ]
}

/// Below and above what is copied into the rope.
fn batch() -> impl Strategy<Value = Bytes> {
    prop_oneof![
        4 => prop::collection::vec(any::<u8>(), 0..60),
        1 => (1_020..1_030_usize).prop_map(|len| vec![0xAB; len]),
    ]
    .prop_map(Bytes::from)
}

fn progress() -> impl Strategy<Value = Progress> {
    let settled = prop::collection::vec((any::<u64>(), any::<u64>()), 0..4);
    let attempts = prop::collection::vec((any::<u64>(), any::<u32>()), 0..4);
    let not_before_ms = prop_oneof![1 => Just(0), 1 => any::<u64>()];
    (any::<u64>(), settled, attempts, not_before_ms).prop_map(
        |(next, settled, attempts, not_before_ms)| Progress {
            next,
            settled,
            attempts,
            not_before_ms,
        },
    )
}

fn sub() -> impl Strategy<Value = Option<ProducerSub>> {
    "[a-zäöü€ ]{0,12}".prop_map(|name| ProducerSub::new(&name))
}

fn dead() -> impl Strategy<Value = Effect> {
    let reason = prop_oneof![
        Just(DeadReason::RetriesExhausted),
        Just(DeadReason::Asked),
        Just(DeadReason::LeaseExpired),
    ];
    let numbers = (any::<u32>(), any::<u32>(), any::<u64>(), any::<u64>(), any::<u32>());
    let again = (prop_oneof![Just(0), any::<u64>()], any::<bool>());
    let texts = (text(), sub());
    (numbers, again, reason, texts, batch()).prop_map(|(numbers, again, reason, texts, batch)| {
        let (error, sub) = texts;
        let (partition, group, seq, pushed_ms, attempts) = numbers;
        let (failed_ms, is_again) = again;
        Effect::Bury(DeadLetter {
            partition,
            group,
            seq,
            pushed_ms,
            failed_ms,
            is_again,
            attempts,
            reason,
            error,
            sub,
            batch,
        })
    })
}

fn care() -> impl Strategy<Value = Effect> {
    let letters = prop::collection::vec(any::<(u64, u64)>(), 0..4);
    let moved =
        (any::<(u32, u32, bool)>(), letters).prop_map(|((partition, group, back), letters)| {
            match back {
                true => Care::Reopen { partition, group, letters },
                false => Care::Exhume { partition, group, letters },
            }
        });
    let erase = any::<(u32, u64)>().prop_map(|(partition, seq)| Care::Erase { partition, seq });
    prop_oneof![moved, erase, job(), trace()].prop_map(Effect::Care)
}

fn job() -> impl Strategy<Value = Care> {
    let action = prop_oneof![
        Just(Action::Redrive),
        Just(Action::Delete),
        (any::<u32>(), prop::option::of(text()))
            .prop_map(|(queue, partition)| Action::Requeue { queue, partition }),
    ];
    let state = prop_oneof![
        Just(JobState::Running),
        Just(JobState::Done),
        Just(JobState::Cancelled),
        Just(JobState::Failed),
    ];
    let texts = (text(), text(), prop::option::of(text()), prop::option::of(text()));
    let cursor = prop::option::of(any::<(u32, u32, u64)>());
    (any::<[u64; 8]>(), any::<[u32; 3]>(), action, state, texts, cursor).prop_map(
        |(longs, shorts, action, state, (queue_name, problem, group, error), cursor)| {
            let [limit, created_ms, moved, skipped, deferred, engine, stepped_ms, odd] = longs;
            let [id, queue, rate] = shorts;
            let (dry_run, partition) = (odd.is_multiple_of(2), None);
            Care::SetJob(Box::new(Job {
                id,
                action,
                queue,
                queue_name,
                group,
                partition,
                error,
                limit,
                rate,
                dry_run,
                created_ms,
                state,
                moved,
                skipped,
                deferred,
                cursor,
                engine,
                stepped_ms,
                problem,
            }))
        },
    )
}

fn trace() -> impl Strategy<Value = Care> {
    let texts = (text(), text(), text(), text(), text());
    let names = prop::collection::vec(text(), 0..3);
    (any::<[u8; 16]>(), any::<(u32, u64, u64)>(), texts, names, batch()).prop_map(
        |(id, (partition, seq, time_ms), texts, names, data)| {
            let (transaction_id, queue, partition_name, group, kind) = texts;
            Care::Trace(Box::new(TraceEvent {
                id,
                partition,
                seq,
                time_ms,
                transaction_id,
                queue,
                partition_name,
                group,
                kind,
                names,
                data,
            }))
        },
    )
}

fn queue() -> impl Strategy<Value = Effect> {
    let numbers = (any::<u32>(), any::<u64>(), any::<u32>(), any::<u64>(), any::<i32>());
    (numbers, any::<bool>(), text(), text(), text()).prop_map(
        |((id, created_ms, seconds, max_size, priority), flag, name, namespace, task)| {
            let options = QueueOptions {
                lease_time_s: seconds,
                max_size,
                priority,
                dead_letter_queue: flag,
                retention_enabled: !flag,
                ..QueueOptions::default()
            };
            let ttl_asked = id.is_multiple_of(2);
            let sealed = false;
            let queue = QueueDefinition {
                id,
                name,
                namespace,
                task,
                created_ms,
                options,
                sealed,
                ttl_asked,
            };
            Effect::DefineQueue(Box::new(queue))
        },
    )
}

fn groups() -> impl Strategy<Value = Effect> {
    let moves = prop::collection::vec(any::<(u32, u64)>(), 0..4);
    prop_oneof![
        (any::<u32>(), moves).prop_map(|(group, moves)| Effect::Seek { group, moves }),
        any::<u32>().prop_map(|group| Effect::DropGroup { group }),
        (any::<u32>(), text(), start()).prop_map(|(queue, name, start)| Effect::Subscribe {
            queue,
            name,
            start
        }),
        (any::<u32>(), text(), any::<bool>())
            .prop_map(|(queue, name, keep_start)| Effect::ForgetGroup { queue, name, keep_start }),
    ]
}

fn states() -> impl Strategy<Value = Effect> {
    let query = (any::<(u32, u32, u64)>(), text(), text(), text(), text()).prop_map(
        |((id, owner, created_ms), name, source, sink, config_hash)| {
            let query = QueryDefinition { id, owner, created_ms, name, source, sink, config_hash };
            Effect::DefineQuery(Box::new(query))
        },
    );
    let put =
        (any::<(u32, u32)>(), batch(), batch()).prop_map(|((owner, partition), key, value)| {
            Effect::PutState { owner, partition, key, value }
        });
    let remove = (any::<(u32, u32)>(), batch())
        .prop_map(|((owner, partition), key)| Effect::RemoveState { owner, partition, key });
    let drop = any::<u32>().prop_map(|owner| Effect::DropStates { owner });
    let class = (any::<(u32, u32)>(), batch())
        .prop_map(|((queue, version), text)| Effect::DefineClass { queue, version, text });
    prop_oneof![query, put, remove, drop, class]
}

fn effect() -> impl Strategy<Value = Effect> {
    let fingerprints = prop::collection::vec(any::<u128>(), 0..4);
    let append = (any::<u32>(), any::<u64>(), sub(), batch(), fingerprints);
    let append = append.prop_map(|(partition, first_seq, sub, batch, fingerprints)| {
        // One fingerprint per record, or none at all.
        let count = if fingerprints.is_empty() { 3 } else { fingerprints.len() as u32 };
        Effect::Append { partition, first_seq, count, fingerprints, sub, batch }
    });
    let relocate = (any::<(u32, u64, u32, u64)>(), sub(), batch()).prop_map(
        |((partition, first_seq, count, time_ms), sub, batch)| Effect::Relocate {
            partition,
            first_seq,
            count,
            time_ms,
            sub,
            batch,
        },
    );
    let create = (any::<u32>(), any::<u32>(), text())
        .prop_map(|(number, queue, name)| Effect::CreatePartition { number, queue, name });
    let register =
        (any::<u32>(), any::<u32>(), text(), start()).prop_map(|(group, queue, name, start)| {
            Effect::RegisterGroup { group, queue, name, start }
        });
    let define = (any::<u32>(), text(), start())
        .prop_map(|(queue, name, start)| Effect::DefineGroup { queue, name, start });
    let lease = (any::<u32>(), any::<u32>(), any::<[u8; 16]>(), any::<[u64; 3]>()).prop_map(
        |(partition, group, token, [until_ms, from, to])| Effect::Lease {
            partition,
            group,
            token,
            until_ms,
            from,
            to,
        },
    );
    let extend = any::<(u32, u32, u64)>().prop_map(|(partition, group, until_ms)| Effect::Extend {
        partition,
        group,
        until_ms,
    });
    let settle = (any::<u32>(), any::<u32>(), progress(), any::<bool>()).prop_map(
        |(partition, group, progress, release)| Effect::Settle {
            partition,
            group,
            progress,
            release,
        },
    );
    let trim =
        any::<(u32, u64)>().prop_map(|(partition, base_seq)| Effect::Trim { partition, base_seq });
    let gone = prop_oneof![
        any::<u32>().prop_map(|queue| Effect::DropQueue { queue }),
        any::<u32>().prop_map(|queue| Effect::ForgetQueue { queue }),
        any::<([u8; 16], u64)>().prop_map(|(spill, position)| Effect::Replayed { spill, position }),
        any::<(u32, bool)>().prop_map(|(queue, on)| Effect::Project { queue, on }),
        any::<(bool, bool)>().prop_map(|(push, pop)| Effect::Maintain(Maintenance { push, pop })),
        states(),
    ];
    prop_oneof![
        3 => append, 2 => relocate, 1 => create, 1 => register, 1 => define, 2 => lease,
        1 => extend, 3 => settle, 1 => trim, 1 => gone, 2 => groups(), 2 => dead(), 1 => queue(),
        2 => care(),
    ]
}

fn entry() -> impl Strategy<Value = Entry> {
    (any::<[u64; 3]>(), prop::collection::vec(effect(), 0..6)).prop_map(
        |([time_ms, engine, append], effects)| Entry {
            time_ms,
            origin: Origin { engine, append },
            effects,
        },
    )
}

fn flat(entry: &Entry) -> Bytes {
    codec::encode(entry).concat().into()
}

proptest! {
    #![proptest_config(super::cases(128))]

    #[test]
    fn an_entry_comes_back_from_its_bytes_as_it_was(entry in entry()) {
        let bytes = flat(&entry);
        let expected = ENTRY_HEADER + entry.effects.iter().map(codec::encoded_len).sum::<usize>();
        prop_assert_eq!(bytes.len(), expected, "encoded_len lies");
        prop_assert_eq!(codec::decode(bytes), Ok(entry));
    }

    #[test]
    fn no_part_of_an_entry_passes_for_an_entry(entry in entry()) {
        let bytes = flat(&entry);
        for kept in 0..bytes.len() {
            prop_assert!(codec::decode(bytes.slice(..kept)).is_err(), "{} bytes passed", kept);
        }
        let more = [&bytes[..], &[0]].concat();
        prop_assert!(codec::decode(more.into()).is_err(), "a byte too many passed");
    }

    #[test]
    fn damaged_bytes_are_read_without_harm(
        entry in entry(),
        damage in prop::collection::vec((any::<usize>(), any::<u8>()), 1..4),
    ) {
        let mut bytes = flat(&entry).to_vec();
        for (at, value) in damage {
            let at = at % bytes.len();
            bytes[at] = value;
        }
        // Whatever is read from it must at least be an entry that can be written.
        if let Ok(read) = codec::decode(bytes.clone().into()) {
            prop_assert!(codec::decode(flat(&read)).is_ok());
        }
        let _ = codec::decode_chunks(bytes.clone().into());
        let _ = codec::decode_dead(bytes.into());
    }
}
