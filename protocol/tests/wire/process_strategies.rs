//! Any pop that says who pushed, any list of queues, anything about processes. Called by `properties`.

use onrush_protocol::request::{
    AwaitLevel, CancelPush, ChangeProcess, ClearQueue, GetProcess, GetPush, ListQueues, Pop,
    PopAny, PopKnown, ProcessChange, ProcessLook, PushControls, PushProcess, PushSlot,
};
use onrush_protocol::response::{
    Cleared, KnownMessages, Messages, ProcessAnswer, QueueShown, Queues,
};
use onrush_protocol::{LongText, QueueName, Request, Response};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use crate::properties::{blob, long, messages, partition, pop, queue, short};

fn only_pop(request: Request) -> Pop {
    match request {
        Request::Pop(pop) => pop,
        other => panic!("{other:?} is no pop"),
    }
}

fn pops() -> impl Strategy<Value = Request> {
    let wanted = prop_oneof![
        (short(), option::of(short())).prop_map(|(namespace, task)| (Some(namespace), task)),
        short().prop_map(|task| (None, Some(task))),
    ];
    prop_oneof![
        pop().prop_map(|request| Request::PopKnown(PopKnown { pop: only_pop(request) })),
        (wanted, pop()).prop_map(|((namespace, task), request)| {
            let (queue, partition) = (QueueName::default(), None);
            let terms = Pop { queue, partition, ..only_pop(request) };
            Request::PopAny(PopAny { namespace, task, terms })
        }),
    ]
}

fn controls() -> impl Strategy<Value = PushControls> {
    let numbers = (option::of(0..=600_000u32), any::<[Option<u32>; 3]>(), any::<Option<u64>>());
    (select(AwaitLevel::ALL), numbers, any::<bool>()).prop_map(|(level, numbers, strict)| {
        let (timeout_ms, [result_depth, max_depth, max_hops], max_messages) = numbers;
        PushControls { level, timeout_ms, result_depth, max_depth, max_hops, max_messages, strict }
    })
}

fn look() -> impl Strategy<Value = ProcessLook> {
    prop_oneof![
        Just(ProcessLook::Standing),
        (any::<[u64; 2]>(), 1..=1_000u32).prop_map(|([from, last], limit)| ProcessLook::Slots {
            from,
            last,
            limit
        }),
        (any::<u64>(), 0..=600_000u32, long())
            .prop_map(|(slot, wait_ms, path)| ProcessLook::Slot { slot, wait_ms, path }),
        (0..=600_000u32, long()).prop_map(|(wait_ms, path)| ProcessLook::Newest { wait_ms, path }),
        (long(), long(), 1..=1_000u32).prop_map(|(prefix, after, limit)| ProcessLook::State {
            prefix,
            after,
            limit
        }),
        long().prop_map(|name| ProcessLook::StateKey { name }),
    ]
}

fn get_push() -> impl Strategy<Value = Request> {
    let numbers = (0..=600_000u32, any::<u32>(), 1..=1_000u32);
    (short(), any::<bool>(), numbers, short()).prop_map(|(push, as_graph, numbers, cursor)| {
        let (wait_ms, result_depth, limit) = numbers;
        Request::GetPush(GetPush { push, as_graph, wait_ms, result_depth, limit, cursor })
    })
}

pub(crate) fn request() -> impl Strategy<Value = Request> {
    let id = "\\PC{0,60}".prop_map(|text| LongText::lossy(&text));
    let change = prop_oneof![
        long().prop_map(|reason| ProcessChange::Pause { reason }),
        Just(ProcessChange::Resume),
    ];
    prop_oneof![
        pops(),
        (any::<u32>(), 1..=1_000u32, option::of(short()), option::of(short())).prop_map(
            |(skip, limit, namespace, task)| {
                Request::ListQueues(ListQueues { skip, limit, namespace, task })
            }
        ),
        (queue(), option::of(partition())).prop_map(|(queue, partition)| {
            Request::ClearQueue(ClearQueue { queue, partition })
        }),
        (queue(), partition(), controls(), id, blob()).prop_map(
            |(class, key, controls, transaction_id, message)| {
                let push = PushProcess { class, key, controls, transaction_id, message };
                Request::PushProcess(push)
            }
        ),
        (queue(), partition(), any::<u64>(), controls()).prop_map(
            |(class, key, slot, controls)| Request::PushSlot(PushSlot {
                class,
                key,
                slot,
                controls
            })
        ),
        get_push(),
        short().prop_map(|push| Request::CancelPush(CancelPush { push })),
        (queue(), partition(), look())
            .prop_map(|(class, key, look)| Request::GetProcess(GetProcess { class, key, look })),
        (queue(), partition(), change).prop_map(|(class, key, change)| {
            Request::ChangeProcess(ChangeProcess { class, key, change })
        }),
    ]
}

fn known() -> impl Strategy<Value = KnownMessages> {
    (messages(), vec(long(), 25)).prop_map(|(response, mut producers)| {
        let Response::Messages(messages) = response else { panic!("{response:?}") };
        producers.truncate(chunks(&messages));
        KnownMessages { messages, producers }
    })
}

fn chunks(messages: &Messages) -> usize {
    messages.sections.iter().map(|section| section.chunks.len()).sum()
}

fn queue_shown() -> impl Strategy<Value = QueueShown> {
    (queue(), short(), short(), any::<[u64; 8]>()).prop_map(|(queue, namespace, task, n)| {
        QueueShown {
            queue,
            queue_id: n[0],
            namespace,
            task,
            created_ms: n[1],
            partitions: n[2],
            total: n[3],
            pending: n[4],
            processing: n[5],
            completed: n[6],
            dead_letters: n[7],
        }
    })
}

pub(crate) fn response() -> impl Strategy<Value = Response> {
    let kinds: [fn(ProcessAnswer) -> Response; 6] = [
        Response::ProcessPushed,
        Response::SlotPushed,
        Response::PushShown,
        Response::PushCancelled,
        Response::ProcessShown,
        Response::ProcessChanged,
    ];
    prop_oneof![
        known().prop_map(Response::KnownMessages),
        known().prop_map(Response::AnyMessages),
        (any::<bool>(), vec(queue_shown(), 0..4))
            .prop_map(|(has_more, queues)| Response::Queues(Queues { has_more, queues })),
        any::<u64>().prop_map(|messages| Response::Cleared(Cleared { messages })),
        (0..kinds.len(), any::<u16>(), blob())
            .prop_map(move |(kind, status, json)| kinds[kind](ProcessAnswer { status, json })),
    ]
}
