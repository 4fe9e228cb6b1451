"""Flows of the unmodified PyPI client queen-mq against a server: `flows.py <base url>`.

Each flow is one function; a flow that fails prints what it saw and ends the run with status 1.
"""

import asyncio
import sys
import uuid
from datetime import datetime, timezone

from queen import Queen, Stream

FLOWS = []
BASE = sys.argv[1]


def flow(function):
    FLOWS.append(function)
    return function


def same(seen, expected, what=""):
    if seen != expected:
        raise AssertionError(f"{what}: saw {seen!r}, expected {expected!r}")


def name():
    return f"queue-{uuid.uuid4()}"


@flow
async def a_queue_is_created_with_its_options_and_deleted(queen):
    queue = name()
    created = await queen.queue(queue).config(
        {"lease_time": 10, "retry_limit": 2, "retention_enabled": True, "priority": 5}
    ).create()
    same(created["configured"], True)
    same(created["options"]["leaseTime"], 10)
    same(created["options"]["retentionEnabled"], True)
    deleted = await queen.queue(queue).delete()
    same((deleted["deleted"], deleted["existed"]), (True, True))
    same((await queen.queue(queue).delete())["existed"], False)


@flow
async def what_is_pushed_is_popped_and_acknowledged(queen):
    queue = name()
    trace = str(uuid.uuid4())
    seen = []

    async def on_success(items):
        seen.extend(items)

    payloads = [{"n": 1, "text": "é😀"}, {"n": 2, "nested": {"list": [1, None, 2.5]}}]
    items = [{"data": payloads[0], "traceId": trace}, {"data": payloads[1]}]
    results = await queen.queue(queue).push(items).on_success(on_success)
    same([it["status"] for it in results], ["queued", "queued"])
    same(len(seen), 2, "the callback for what was queued")
    messages = await queen.queue(queue).batch(10).pop()
    same([it["data"] for it in messages], payloads)
    same(messages[0]["traceId"], trace)
    same([it["id"] for it in messages], [it["message_id"] for it in results])
    acked = await queen.ack(messages[0], True)
    same(acked["success"], True, acked)
    acked = await queen.ack(messages[1:], True)
    same(acked["success"], True, acked)
    same(await queen.queue(queue).wait(False).pop(), [])


@flow
async def a_queue_that_asks_for_encryption_is_as_any_other_to_its_client(queen):
    queue = name()
    created = await queen.queue(queue).config({"encryption_enabled": True}).create()
    same(created["options"]["encryptionEnabled"], True)
    payload = {"secret": "é😀", "n": 1.5}
    await queen.queue(queue).push([{"data": payload}])
    messages = await queen.queue(queue).pop()
    same([it["data"] for it in messages], [payload])


@flow
async def a_null_payload_stays_null(queen):
    queue = name()
    await queen.queue(queue).push([{"data": None}])
    messages = await queen.queue(queue).pop()
    same([it["data"] for it in messages], [None])


@flow
async def a_duplicate_is_told_by_its_callback_with_the_first_messages_id(queen):
    queue = name()
    first = await queen.queue(queue).push([{"transactionId": "tx-1", "data": 1}])
    duplicates = []

    async def on_duplicate(items, _error):
        duplicates.extend(items)

    again = await queen.queue(queue).push([{"transactionId": "tx-1", "data": 2}]).on_duplicate(
        on_duplicate
    )
    same(again[0]["status"], "duplicate")
    same(again[0]["message_id"], first[0]["message_id"])
    same(len(duplicates), 1)


@flow
async def partitions_keep_their_order_and_are_popped_by_name(queen):
    queue = name()
    for partition in ("a", "b"):
        await queen.queue(queue).partition(partition).push([{"data": n} for n in range(50)])
    messages = await queen.queue(queue).partition("b").batch(50).pop()
    same([it["data"] for it in messages], list(range(50)))
    same({it["partition"] for it in messages}, {"b"})
    rest = await queen.queue(queue).batch(100).partitions(10).pop()
    same([it["data"] for it in rest], list(range(50)), "the leased partition is not given twice")


@flow
async def a_consumer_gets_everything_once_and_in_order(queen):
    queue = name()
    await queen.queue(queue).push([{"data": n} for n in range(100)])
    seen = []

    async def handler(message):
        seen.append(message["data"])

    consumer = queen.queue(queue).batch(10).each().limit(100).timeout_millis(5000).consume(handler)
    await asyncio.wait_for(consumer, 60)
    same(seen, list(range(100)))
    same(await queen.queue(queue).wait(False).pop(), [])


@flow
async def a_waiting_consumer_gets_what_comes_later(queen):
    queue = name()
    waiting = asyncio.create_task(queen.queue(queue).timeout_millis(30000).pop())
    await queen.queue(queue).push([{"data": "later"}])
    messages = await asyncio.wait_for(waiting, 60)
    same([it["data"] for it in messages], ["later"])


@flow
async def groups_get_every_message_each(queen):
    queue = name()
    await queen.queue(queue).push([{"data": n} for n in range(5)])
    for group in ("one", "two"):
        messages = await queen.queue(queue).group(group).batch(10).pop()
        same([it["data"] for it in messages], list(range(5)), group)
        same({it["consumerGroup"] for it in messages}, {group})
        acked = await queen.ack(messages, True, {"group": group})
        same(acked["success"], True, acked)
        same(await queen.queue(queue).group(group).wait(False).pop(), [])


@flow
async def a_failed_message_comes_again_and_then_lies_among_the_dead_letters(queen):
    queue = name()
    await queen.queue(queue).config({"retry_limit": 1, "retry_delay": 0}).create()
    await queen.queue(queue).push([{"data": {"poison": True}}])
    for attempt in range(2):
        messages = await queen.queue(queue).timeout_millis(30000).pop()
        same([it["retryCount"] for it in messages], [attempt])
        acked = await queen.ack(messages[0], False, {"error": "no luck"})
        same(acked["success"], True, acked)
    same(await queen.queue(queue).wait(False).pop(), [])
    dead = await queen.queue(queue).dlq().get()
    same(dead["total"], 1)
    same(dead["messages"][0]["data"], {"poison": True})
    same(dead["messages"][0]["errorMessage"], "no luck")


@flow
async def a_lease_is_renewed_and_one_that_is_gone_is_not(queen):
    queue = name()
    await queen.queue(queue).push([{"data": 1}])
    messages = await queen.queue(queue).pop()
    renewed = await queen.renew(messages[0])
    same(renewed["success"], True, renewed)
    if not renewed["newExpiresAt"].endswith("Z"):
        raise AssertionError(renewed)
    same((await queen.ack(messages[0], True))["success"], True)
    gone = await queen.renew(messages[0])
    same(gone["success"], False, gone)
    stale = await queen.ack({**messages[0], "transactionId": "unknown"}, True)
    same(stale["success"], False, stale)


@flow
async def a_buffer_of_the_client_is_flushed(queen):
    queue = name()
    options = {"message_count": 10, "time_millis": 60000}
    for n in range(25):
        await queen.queue(queue).buffer(options).push([{"data": n}])
    await queen.flush_all_buffers()
    messages = await queen.queue(queue).batch(100).pop()
    same([it["data"] for it in messages], list(range(25)))


@flow
async def a_message_committed_on_delivery_is_not_given_again(queen):
    queue = name()
    await queen.queue(queue).push([{"data": 1}])
    messages = await queen.queue(queue).commit_on_delivery().pop()
    same([it["data"] for it in messages], [1])
    same(await queen.queue(queue).wait(False).pop(), [])


@flow
async def queues_are_listed_and_health_is_told(queen):
    queue = name()
    await queen.queue(queue).push([{"data": 1}])
    listed = await queen.admin.list_queues()
    same([it["name"] for it in listed["queues"] if it["name"] == queue], [queue])
    same((await queen.admin.get_queue(queue))["messages"]["total"], 1)
    same((await queen.admin.health())["status"], "healthy")


@flow
async def a_consumer_traces_what_it_does_with_a_message(queen):
    queue = name()
    await queen.queue(queue).push([{"data": {"n": 1}}])
    seen = []

    async def handler(message):
        traced = await message["trace"]({"traceName": [queue, "all"], "data": {"at": "step"}})
        seen.append((message, traced))

    consumer = queen.queue(queue).batch(1).each().limit(1).timeout_millis(5000).consume(handler)
    await asyncio.wait_for(consumer, 60)
    message, traced = seen[0]
    same(traced["success"], True, traced)
    ids = (message["partitionId"], message["transactionId"])
    traces = await queen.admin.get_traces_for_message(*ids)
    same([it["trace_names"] for it in traces["traces"]], [[queue, "all"]], traces)
    named = await queen.admin.get_traces_by_name(queue)
    same((named["total"], named["traces"][0]["data"]), (1, {"at": "step"}))
    names = await queen.admin.get_trace_names()
    same(queue in [it["trace_name"] for it in names["trace_names"]], True)


@flow
async def messages_and_dead_letters_are_reached_by_their_calls(queen):
    queue = f"shop.{uuid.uuid4()}"
    await queen.queue(queue).push([{"data": {"n": 1}}])
    message = (await queen.queue(queue).pop())[0]
    ids = (message["partitionId"], message["transactionId"])
    one = await queen.admin.get_message(*ids)
    same((one["payload"], one["status"]), ({"n": 1}, "processing"))
    listed = await queen.admin.list_messages(queue=queue)
    same((listed["total"], [it["id"] for it in listed["messages"]]), (1, [message["id"]]))
    await queen.ack(message, "dlq")
    dead = await queen.queue(queue).dlq().limit(10).get()
    same((dead["total"], dead["messages"][0]["data"]), (1, {"n": 1}))
    retried = await queen.admin.retry_message(*ids)
    same(retried["success"], True, retried)
    again = await queen.queue(queue).pop()
    same([it["data"] for it in again], [{"n": 1}])
    deleted = await queen.admin.delete_message(*ids)
    same(deleted["success"], True, deleted)
    same((await queen.admin.list_messages(queue=queue))["total"], 0)


@flow
async def namespaces_overview_and_figures_are_told(queen):
    space = f"space-{uuid.uuid4()}"
    await queen.queue(f"{space}.task").push([{"data": 1}, {"data": 2}])
    namespaces = (await queen.admin.get_namespaces())["namespaces"]
    same([it["messages"]["total"] for it in namespaces if it["namespace"] == space], [2])
    tasks = (await queen.admin.get_tasks())["tasks"]
    same("task" in [it["task"] for it in tasks], True)
    same((await queen.admin.get_overview())["queues"] > 0, True)
    depth = await queen.admin.get_queue_depth(f"{space}.task")
    same((depth["pending"], depth["partitionsPending"]), (2, 1))
    partitions = await queen.admin.get_partitions(queue=f"{space}.task")
    same([it["name"] for it in partitions["partitions"]], ["Default"])
    detail = await queen.admin.get_queue_detail(f"{space}.task")
    same(detail["totals"]["pending"], 2)
    await queen.admin.refresh_consumer_stats()
    same((await queen.admin.get_status())["messages"]["total"] > 0, True)
    for read in (
        queen.admin.get_queue_stats,
        queen.admin.get_analytics,
        queen.admin.get_system_metrics,
        queen.admin.get_worker_metrics,
    ):
        same(isinstance(await read(), dict), True, read.__name__)
async def until(queen, queue, count, group=None):
    """The payloads of a queue, as soon as there are so many."""
    seen = []
    for _ in range(300):
        builder = queen.queue(queue).batch(100).wait(False)
        messages = await (builder.group(group) if group else builder).pop()
        seen.extend(it["data"] for it in messages)
        if messages:
            await queen.ack(messages, True, {"group": group} if group else {})
        if len(seen) >= count:
            return seen
        await asyncio.sleep(0.05)
    raise AssertionError(f"only {seen!r} of {count} in {queue}")


@flow
async def a_transaction_moves_messages_on(queen):
    source, sink, audit = name(), name(), name()
    await queen.queue(source).push([{"data": 1}, {"data": 2}])
    messages = await queen.queue(source).batch(10).pop()
    transaction = queen.transaction().ack(messages)
    transaction = transaction.queue(sink).partition("p").push([{"data": 10}, {"data": None}])
    done = await transaction.queue(audit).push([{"data": "moved"}]).commit()
    same(done["success"], True, done)
    same([it["type"] for it in done["results"]], ["ack", "ack", "push", "push", "push"])
    same(await queen.queue(source).wait(False).pop(), [])
    same(await until(queen, sink, 2), [10, None])
    same(await until(queen, audit, 1), ["moved"])


@flow
async def a_transaction_that_is_refused_changes_nothing(queen):
    source, sink = name(), name()
    await queen.queue(source).push([{"data": 1}, {"data": 2}])
    messages = await queen.queue(source).batch(10).pop()
    unknown = {**messages[1], "transactionId": "never-pushed"}
    transaction = queen.transaction().ack([messages[0], unknown])
    try:
        await transaction.queue(sink).push([{"data": 10}]).commit()
    except Exception as error:
        if "Message not found" not in str(error):
            raise AssertionError(error)
    else:
        raise AssertionError("a message that is not there was acknowledged")
    same(await queen.queue(sink).wait(False).pop(), [])
    both = await queen.transaction().ack(messages).commit()
    same(both["success"], True, both)


@flow
async def a_stream_maps_and_filters(queen):
    source, sink = name(), name()
    stream = Stream.from_(queen.queue(source)).map(lambda m: m["data"]["n"] * 10)
    stream = stream.filter(lambda m: m["data"]["n"] > 1).to(queen.queue(sink))
    runner = await stream.run(query_id=name(), url=BASE, max_wait_millis=100)
    try:
        await queen.queue(source).push([{"data": {"n": n}} for n in range(5)])
        same(await until(queen, sink, 3), [{"value": n} for n in (20, 30, 40)])
        same(runner.metrics()["errorsTotal"], 0, runner.metrics())
    finally:
        await runner.stop()


def counting(queen, source, sink):
    time = lambda m: m["data"]["at"]
    stream = Stream.from_(queen.queue(source)).window_tumbling(seconds=1, event_time=time, idle_flush_ms=0)
    stream = stream.aggregate({"count": lambda m: 1, "sum": lambda m: m["n"]})
    return stream.to(queen.queue(sink))


@flow
async def a_stream_counts_in_tumbling_windows(queen):
    source, sink = name(), name()
    runner = await counting(queen, source, sink).run(query_id=name(), url=BASE, max_wait_millis=100)
    try:
        for at, n in [(1000, 1), (1500, 2), (2100, 3), (3500, 4)]:
            await queen.queue(source).push([{"data": {"at": at, "n": n}}])
        windows = await until(queen, sink, 2)
        same([(it["count"], it["sum"]) for it in windows], [(2, 3), (1, 3)], windows)
    finally:
        await runner.stop()


@flow
async def a_stream_that_is_started_again_goes_on_with_its_state(queen):
    source, sink, query = name(), name(), name()
    stream = counting(queen, source, sink)
    runner = await stream.run(query_id=query, url=BASE, max_wait_millis=100)
    await queen.queue(source).push([{"data": {"at": 1000, "n": 1}}])
    for _ in range(300):
        if runner.metrics()["cyclesTotal"] > 0:
            break
        await asyncio.sleep(0.05)
    await runner.stop()
    await queen.queue(source).push([{"data": {"at": 1900, "n": 2}}, {"data": {"at": 2500, "n": 9}}])
    runner = await stream.run(query_id=query, url=BASE, max_wait_millis=100)
    try:
        windows = await until(queen, sink, 1)
        same([(it["count"], it["sum"]) for it in windows], [(2, 3)], windows)
    finally:
        await runner.stop()


@flow
async def a_group_begins_with_what_is_new_or_with_a_time_and_that_lasts(queen):
    queue = name()
    now = queen.queue(queue).group("now").subscription_mode("new").wait(False)
    await queen.queue(queue).create()
    same(await now.pop(), [], "the queue is empty")
    await queen.queue(queue).push([{"data": 1}])
    same([it["data"] for it in await now.batch(10).pop()], [1], "and this is new")
    await asyncio.sleep(0.02)
    at = datetime.now(timezone.utc).isoformat()
    await queen.queue(queue).push([{"data": 2}])
    late = queen.queue(queue).group("late").subscription_from(at).batch(10).wait(False)
    same([it["data"] for it in await late.pop()], [2])
    only = queen.queue(queue).group("only").subscription_mode("new-only").wait(False)
    same(await only.pop(), [])


@flow
async def a_group_is_sent_back_and_to_the_end(queen):
    queue = name()
    await queen.queue(queue).push([{"data": n} for n in range(3)])
    pop = lambda: queen.queue(queue).group("g").batch(10).wait(False).pop()
    messages = await pop()
    same((await queen.ack(messages, True, {"group": "g"}))["success"], True)
    same(await pop(), [])
    sought = await queen.admin.seek_consumer_group("g", queue, {"timestamp": "2020-01-01T00:00:00Z"})
    same((sought["success"], sought["partitionsUpdated"]), (True, 1))
    same([it["data"] for it in await pop()], [0, 1, 2], "again, though they were held or done")
    sought = await queen.admin.seek_consumer_group("g", queue, {"toEnd": True})
    same((sought["seekToEnd"], sought["partitionsUpdated"]), (True, 1))
    same(await pop(), [])
    await queen.queue(queue).push([{"data": 9}])
    same([it["data"] for it in await pop()], [9])


@flow
async def a_group_that_is_deleted_begins_afresh(queen):
    queue, group = name(), name()
    await queen.queue(queue).push([{"data": 1}])
    pop = lambda: queen.queue(queue).group(group).batch(10).wait(False).pop()
    same(len(await pop()), 1)
    deleted = await queen.delete_consumer_group(group)
    same((deleted["success"], deleted["deletedPartitions"]), (True, 1))
    same(len(await pop()), 1, "from the beginning")
    changed = await queen.update_consumer_group_timestamp(group, "2100-01-01T00:00:00Z")
    same((changed["success"], changed["rowsUpdated"]), (True, 1))
    deleted = await queen.admin.delete_consumer_group_for_queue(group, queue, False)
    same((deleted["queueName"], deleted["metadataDeleted"]), (queue, False))
    same(await pop(), [], "not before its time")


@flow
async def lag_is_told_by_group_and_by_partition(queen):
    queue, group = name(), name()
    for partition in ("a", "b"):
        await queen.queue(queue).partition(partition).push([{"data": n} for n in range(3)])
    messages = await queen.queue(queue).partition("a").group(group).batch(2).pop()
    same((await queen.ack(messages, True, {"group": group}))["success"], True)
    listed = await queen.admin.list_consumer_groups()
    found = [it for it in listed if it["name"] == group]
    same([(it["queueName"], it["totalLag"], it["partitionsWithLag"]) for it in found], [(queue, 4, 2)])
    details = await queen.admin.get_consumer_group(group)
    lags = {it["partition"]: it["offsetLag"] for it in details[queue]["partitions"]}
    same(lags, {"a": 1, "b": 3})
    lagging = await queen.admin.get_lagging_consumers(0)
    same(len([it for it in lagging if it["consumer_group"] == group]), 2)


async def run(base):
    async with Queen(base) as queen:
        for function in FLOWS:
            title = function.__name__.replace("_", " ")
            await asyncio.wait_for(function(queen), 120)
            print(f"ok: {title}", flush=True)


asyncio.run(run(BASE))
