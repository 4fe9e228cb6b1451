//! The pop routes: a query in, messages out, or nothing after a wait.
//!
//! In: queue and partition from the path, the rest from the query. Out: the body of the contract;
//! 204 without a body when there is nothing. A client that hangs up drops the future, and what was
//! claimed for it goes back. When the server stops, those who wait get their 204 at once. Called by
//! `route`.

use onrush_protocol::code::Code;
use onrush_protocol::limits::POP_MESSAGES_MAX;
use onrush_protocol::name::{GroupName, PartitionName, QueueName};

use crate::delivery::{PopError, PopOrder, WAIT_MS_MAX};
use crate::shard::command::{CommandError, Empty};
use crate::state::draft::pop::PopBudget;
use crate::state::effect::GroupStart;
use crate::wire::codes;
use crate::wire::http::status::{Answer, Failure, empty};
use crate::wire::http::url::Query;
use crate::wire::http::{Api, Config, lease, pop_answer, times};

/// Most partitions of one pop.
const PARTITIONS_MAX: u64 = 10_000;
/// What a client that leaves the sizes to the server gets.
const AUTOPILOT_BATCH: u32 = 200;
const AUTOPILOT_PARTITIONS: u32 = 16;

/// Pops from one partition of a queue, or from any, for somebody whose token lasts for `left_ms` more.
pub(super) async fn pop(
    api: &Api,
    queue: QueueName,
    partition: Option<PartitionName>,
    query: &str,
    left_ms: u64,
) -> Result<Answer, Failure> {
    let query = Query::parse(query)?;
    let mut order = order(&api.config, api.dialect.is_strict(), queue, partition, &query)?;
    order.wait_ms = order.wait_ms.min(left_ms);
    let sized = sized_here(&query, &order);
    let answer = hand_out(api, order, sized).await.map_err(|error| refused(&error))?;
    Ok(answer.unwrap_or_else(empty))
}

/// A pop that failed, as its client sees it.
pub(super) fn refused(error: &PopError) -> Failure {
    Failure::new(codes::of_pop_error(error), error.to_string())
}

/// The sizes that the server chose, where its client left them to it and wants to know.
pub(super) fn sized_here(query: &Query<'_>, order: &PopOrder) -> Option<PopBudget> {
    query.is_on("autopilot").then_some(order.budget)
}

/// Carries an order out; `None` when there is nothing. `sized` is told beside the messages.
pub(super) async fn hand_out(
    api: &Api,
    order: PopOrder,
    sized: Option<PopBudget>,
) -> Result<Option<Answer>, PopError> {
    let (queue, group, partition) =
        (order.queue.clone(), order.group.clone(), order.partition.clone());
    let (auto_ack, waits) = (order.auto_ack, order.wait_ms > 0);
    let popped = tokio::select! {
        // In this order, so that messages that are there are not left behind.
        biased;
        popped = api.rooms.delivery.pop(order) => popped,
        () = api.stopping(), if waits => return Ok(None),
    };
    let handout = match popped {
        Ok(handout) => handout,
        Err(PopError::Command(CommandError::ShuttingDown)) if waits => return Ok(None),
        Err(error) => return Err(error),
    };
    if handout.packages.is_empty() {
        let window = match handout.empty {
            Some(Empty::WindowOpen(number)) if !api.dialect.is_strict() => Some(number),
            _ => None,
        };
        let waits = window.zip(partition);
        return Ok(waits.map(|(number, name)| pop_answer::window(&queue, &name, number, &group)));
    }
    for package in &handout.packages {
        api.names.remember(package.partition, queue.as_str(), package.name.as_str());
    }
    Ok(Some(pop_answer::answer(&queue, &group, &handout, auto_ack, sized)))
}

/// Reads the query. What cannot be meant is refused where `strict`; else it counts as not said, and more
/// than there may be as the most.
pub(super) fn order(
    config: &Config,
    strict: bool,
    queue: QueueName,
    partition: Option<PartitionName>,
    query: &Query<'_>,
) -> Result<PopOrder, Failure> {
    let number = |name, min, max| match query.number(name, min, max) {
        Err(_) if !strict => Ok(query.number(name, max, u64::MAX).ok().flatten().map(|_| max)),
        number => number,
    };
    let autopilot = query.is_on("autopilot");
    let (batch, partitions) =
        if autopilot { (AUTOPILOT_BATCH, AUTOPILOT_PARTITIONS) } else { (config.pop_batch, 1) };
    let messages_max = config.messages_max.min(POP_MESSAGES_MAX);
    let messages = number("batch", 1, u64::from(messages_max))?.map_or(batch, |it| it as u32);
    let partitions = number("partitions", 1, PARTITIONS_MAX)?.map_or(partitions, |it| it as u32);
    let timeout = number("timeout", 0, WAIT_MS_MAX)?;
    // As the queue says, where the consumer says nothing.
    let lease_ms =
        number("leaseSeconds", 1, lease::SECONDS_MAX)?.map_or(0, |seconds| seconds * 1000);
    let wait_ms = if query.is_on("wait") { timeout.unwrap_or(config.pop_timeout_ms) } else { 0 };
    let group = match query.get("consumerGroup") {
        None => GroupName::queue_mode(),
        Some(name) => name.parse()?,
    };
    if query.is_on("conflation") {
        return Err(Failure::value("conflation is not supported"));
    }
    let start = start(config, strict, &group, query)?;
    let budget = PopBudget { messages, bytes: config.pop_bytes_max, partitions };
    let auto_ack = query.is_on("autoAck");
    Ok(PopOrder { queue, partition, group, start, budget, wait_ms, lease_ms, auto_ack })
}

/// Where a group begins that is new.
fn start(
    config: &Config,
    strict: bool,
    group: &GroupName,
    query: &Query<'_>,
) -> Result<GroupStart, Failure> {
    if group.is_queue_mode() {
        // Consumers that share a queue always share all of it.
        return Ok(GroupStart::Beginning);
    }
    match query.get("subscriptionFrom") {
        None => {}
        Some("now") => return Ok(GroupStart::New),
        // A start that silently were another one would lose or repeat messages.
        Some(text) => {
            let time_ms = times::parse(text).ok_or_else(|| {
                Failure::value(format!("subscriptionFrom must be now or {}", times::FORM))
            })?;
            return Ok(GroupStart::Time(time_ms));
        }
    }
    match query.get("subscriptionMode") {
        Some("new" | "new-only" | "now") => Ok(GroupStart::New),
        Some("all" | "from_beginning") => Ok(GroupStart::Beginning),
        Some(_) if strict => {
            Err(Failure::new(Code::BadValue, "subscriptionMode must be all or new"))
        }
        None if config.start_new => Ok(GroupStart::New),
        Some(_) | None => Ok(GroupStart::Beginning),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(strict: bool, query: &str) -> Result<PopOrder, Failure> {
        let query = Query::parse(query).unwrap();
        order(&Config::default(), strict, QueueName::default(), None, &query)
    }

    #[test]
    fn what_is_not_said_has_the_defaults_of_the_contract() {
        let order = read(true, "").unwrap();
        assert_eq!((order.budget.messages, order.budget.partitions), (1, 1));
        assert_eq!((order.wait_ms, order.auto_ack), (0, false));
        assert!(order.group.is_queue_mode());
        assert_eq!(read(true, "wait=true").unwrap().wait_ms, 30_000);
        assert_eq!(read(true, "timeout=50").unwrap().wait_ms, 0, "a timeout is no wish to wait");
    }

    #[test]
    fn everything_that_can_be_said_is_heard() {
        let query = "batch=50&wait=1&timeout=250&autoAck=true&consumerGroup=g&partitions=4";
        let order = read(true, query).unwrap();
        assert_eq!((order.budget.messages, order.budget.partitions), (50, 4));
        assert_eq!((order.wait_ms, order.auto_ack, order.group.as_str()), (250, true, "g"));
        assert_eq!((order.lease_ms, read(true, "leaseSeconds=90").unwrap().lease_ms), (0, 90_000));
        let sized_by_us = read(false, "autopilot=true&partitions=3").unwrap();
        assert_eq!((sized_by_us.budget.messages, sized_by_us.budget.partitions), (200, 3));
    }

    #[test]
    fn a_group_begins_where_it_says_and_a_start_that_is_not_known_is_refused() {
        let start = |query: &str| read(false, query).map(|it| it.start);
        assert_eq!(start("consumerGroup=g&subscriptionMode=new"), Ok(GroupStart::New));
        assert_eq!(start("consumerGroup=g&subscriptionMode=new-only"), Ok(GroupStart::New));
        assert_eq!(start("consumerGroup=g&subscriptionFrom=now"), Ok(GroupStart::New));
        assert_eq!(start("consumerGroup=g"), Ok(GroupStart::Beginning));
        assert_eq!(start("subscriptionMode=new"), Ok(GroupStart::Beginning), "queue mode");
        let at = start("consumerGroup=g&subscriptionFrom=2026-01-01T00:00:00Z");
        assert_eq!(at, Ok(GroupStart::Time(1_767_225_600_000)));
        assert_eq!(start("consumerGroup=g&subscriptionFrom=1767225600000"), at);
        let refused = start("consumerGroup=g&subscriptionFrom=yesterday").unwrap_err();
        assert!(refused.message().starts_with("subscriptionFrom"), "{refused:?}");
    }

    #[test]
    fn input_that_cannot_be_meant_is_refused_by_us_and_overlooked_for_queens_clients() {
        let names_it = |query: &str| {
            let refused = read(true, query).unwrap_err();
            let name = query.split('=').next().unwrap();
            assert!(refused.message().starts_with(name), "{refused:?}");
        };
        for query in ["batch=ten", "batch=0", "partitions=-1", "timeout=soon", "leaseSeconds=0"] {
            names_it(query);
            assert_eq!(read(false, query).unwrap().budget, read(true, "").unwrap().budget);
        }
        for query in ["batch=20000", "partitions=10001", "timeout=3600001&wait=true"] {
            names_it(query);
        }
        let most = read(false, "batch=20000&partitions=10001&timeout=3600001&wait=true").unwrap();
        assert_eq!((most.budget.messages, most.budget.partitions), (10_000, 10_000));
        assert_eq!(most.wait_ms, WAIT_MS_MAX);
        assert!(read(true, "consumerGroup=g&subscriptionMode=newest").is_err());
        let overlooked = read(false, "consumerGroup=g&subscriptionMode=newest").unwrap();
        assert_eq!(overlooked.start, GroupStart::Beginning);
    }
}
