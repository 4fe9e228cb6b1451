//! Examples of pops that say who pushed, of queues as a list, and of processes. Called by `examples`.

use onrush_protocol::request::{
    AwaitLevel, CancelPush, ChangeProcess, ClearQueue, GetProcess, GetPush, ListQueues, Pop,
    PopAny, PopKnown, ProcessChange, ProcessLook, PushControls, PushProcess, PushSlot,
};
use onrush_protocol::response::{Cleared, KnownMessages, ProcessAnswer, QueueShown, Queues};
use onrush_protocol::{PartitionName, QueueName, Request, Response, ShortText};

use crate::examples::{TIME_MS, long, messages, pop, queue, short};

const PUSH: &str = "018bcfe5-6800-7000-8000-a800000003e8";

fn process() -> (QueueName, PartitionName) {
    ("wallet".parse().unwrap(), "alice".parse().unwrap())
}

fn controls() -> PushControls {
    PushControls {
        level: AwaitLevel::Slot,
        timeout_ms: Some(5000),
        max_depth: Some(3),
        strict: true,
        ..PushControls::default()
    }
}

pub(crate) fn requests() -> Vec<(&'static str, u64, Request)> {
    let (class, key) = process();
    let push = PushProcess {
        class: class.clone(),
        key: key.clone(),
        controls: controls(),
        transaction_id: long("order-1"),
        message: bytes::Bytes::from_static(br#"{"n":1}"#),
    };
    let slot = PushSlot { class: class.clone(), key: key.clone(), slot: 7, controls: controls() };
    let show = GetPush {
        push: short(PUSH),
        as_graph: false,
        wait_ms: 1000,
        result_depth: 1,
        limit: 100,
        cursor: ShortText::default(),
    };
    let look = ProcessLook::Slot { slot: 7, wait_ms: 1000, path: long("output") };
    let get = GetProcess { class: class.clone(), key: key.clone(), look };
    let change = ProcessChange::Pause { reason: long("audit") };
    let any = Pop { queue: QueueName::default(), ..pop() };
    let any = PopAny { namespace: Some(short("shop")), task: None, terms: any };
    let list = ListQueues { skip: 0, limit: 100, namespace: Some(short("shop")), task: None };
    vec![
        ("pop_known", 15, Request::PopKnown(PopKnown { pop: pop() })),
        ("list_queues", 37, Request::ListQueues(list)),
        ("clear_queue", 38, Request::ClearQueue(ClearQueue { queue: queue(), partition: None })),
        ("pop_any", 39, Request::PopAny(any)),
        ("push_process", 40, Request::PushProcess(push)),
        ("push_slot", 41, Request::PushSlot(slot)),
        ("get_push", 42, Request::GetPush(show)),
        ("cancel_push", 43, Request::CancelPush(CancelPush { push: short(PUSH) })),
        ("get_process", 44, Request::GetProcess(get)),
        ("change_process", 45, Request::ChangeProcess(ChangeProcess { class, key, change })),
    ]
}

fn answer(status: u16, json: &'static str) -> ProcessAnswer {
    ProcessAnswer { status, json: json.into() }
}

pub(crate) fn responses() -> Vec<(&'static str, u64, Response)> {
    let known = KnownMessages { messages: messages(), producers: vec![long("shop")] };
    let shown = QueueShown {
        queue: queue(),
        queue_id: 12,
        namespace: short("shop"),
        task: ShortText::default(),
        created_ms: TIME_MS,
        partitions: 4,
        total: 100,
        pending: 70,
        processing: 5,
        completed: 25,
        dead_letters: 2,
    };
    let queues = Queues { has_more: false, queues: vec![shown] };
    vec![
        ("known_messages", 15, Response::KnownMessages(known.clone())),
        ("queues", 37, Response::Queues(queues)),
        ("cleared", 38, Response::Cleared(Cleared { messages: 70 })),
        ("any_messages", 39, Response::AnyMessages(known)),
        ("process_pushed", 40, Response::ProcessPushed(answer(200, r#"{"slot":7}"#))),
        ("slot_pushed", 41, Response::SlotPushed(answer(202, r#"{"slot":7}"#))),
        ("push_shown", 42, Response::PushShown(answer(200, r#"{"complete":true}"#))),
        ("push_cancelled", 43, Response::PushCancelled(answer(200, r#"{"status":"cancelled"}"#))),
        ("process_shown", 44, Response::ProcessShown(answer(200, r#"{"balance":90}"#))),
        ("process_changed", 45, Response::ProcessChanged(answer(200, r#"{"stopped":"audit"}"#))),
    ]
}
