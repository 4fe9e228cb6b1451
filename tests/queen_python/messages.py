"""Flows of messages: pushed, popped, consumed, acknowledged."""

import asyncio
import time
import uuid

from queen import Queen

from runner import BASE, data, eventually, flow, name, refused, run, same, until


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
async def a_message_with_an_id_of_its_own_and_one_without_are_both_found_by_it(queen):
    queue = name()
    own = await queen.queue(queue).push([{"transactionId": "mine", "data": 1}, {"data": 2}])
    messages = await queen.queue(queue).batch(10).pop()
    same([it["transactionId"] for it in messages], [it["transaction_id"] for it in own])
    same(messages[0]["transactionId"], "mine")
    elsewhere = await queen.queue(queue).partition("p").push([{"transactionId": "mine", "data": 3}])
    same(elsewhere[0]["status"], "queued", "an id counts within its partition")


@flow
async def of_many_pushes_of_one_id_at_once_one_is_taken(queen):
    queue = name()

    async def push(n):
        return (await queen.queue(queue).push([{"transactionId": "tx", "data": n}]))[0]

    results = await asyncio.gather(*(push(n) for n in range(20)))
    same(sorted(it["status"] for it in results), ["duplicate"] * 19 + ["queued"])
    same(len({it["message_id"] for it in results}), 1, "all are told the one that stands")
    same(len(await queen.queue(queue).batch(100).pop()), 1)


@flow
async def many_partitions_come_in_one_pop_under_one_lease(queen):
    queue = name()
    for partition in range(5):
        await queen.queue(queue).partition(f"p{partition}").push([{"data": n} for n in range(3)])
    messages = await queen.queue(queue).batch(100).partitions(5).pop()
    same(len({it["leaseId"] for it in messages}), 1)
    by_partition = {}
    for message in messages:
        by_partition.setdefault(message["partition"], []).append(message["data"])
    same(by_partition, {f"p{partition}": [0, 1, 2] for partition in range(5)})
    renewed = await queen.renew(messages)
    same([it["success"] for it in renewed], [True], renewed)
    acked = await queen.ack(messages, True)
    same((acked["success"], len(acked["results"])), (True, 15), acked)
    same(await queen.queue(queue).partitions(5).wait(False).pop(), [])


@flow
async def a_pop_takes_no_more_than_it_asks_for_over_all_partitions(queen):
    queue = name()
    for partition in range(4):
        await queen.queue(queue).partition(f"p{partition}").push([{"data": n} for n in range(4)])
    seen = []
    while len(seen) < 16:
        messages = await queen.queue(queue).batch(6).partitions(4).wait(False).pop()
        same(0 < len(messages) <= 6, True, messages)
        seen.extend((it["partition"], it["data"]) for it in messages)
        await queen.ack(messages, True)
    same(sorted(seen), [(f"p{p}", n) for p in range(4) for n in range(4)])


@flow
async def consumers_side_by_side_keep_the_order_of_each_partition(queen):
    queue, done, together = name(), asyncio.Event(), asyncio.Event()
    partitions = [f"p{n}" for n in range(8)]
    for partition in partitions:
        await queen.queue(queue).partition(partition).push([{"data": n} for n in range(25)])
    seen, busy, wrong = {}, set(), []

    async def handler(message):
        partition = message["partition"]
        if partition in busy:
            wrong.append(f"two consumers in {partition}")
        busy.add(partition)
        if len(busy) > 1:
            together.set()
        # The first one goes on when another is at work beside it.
        await asyncio.wait_for(together.wait(), 60)
        busy.discard(partition)
        seen.setdefault(partition, []).append(message["data"])
        if sum(map(len, seen.values())) == 200:
            done.set()

    consumer = queen.queue(queue).group("workers").concurrency(4).batch(10).partitions(1).each()
    consuming = consumer.timeout_millis(500).consume(handler, signal=done)
    await asyncio.wait_for(consuming, 100)
    same((wrong, seen), ([], {partition: list(range(25)) for partition in partitions}))
    same(await queen.queue(queue).group("workers").partitions(8).wait(False).pop(), [])


@flow
async def a_batch_is_acknowledged_with_a_verdict_for_each(queen):
    queue = name()
    await queen.queue(queue).config({"retry_limit": 3, "retry_delay": 0}).create()
    await queen.queue(queue).push([{"data": n} for n in range(4)])
    messages = await queen.queue(queue).batch(10).pop()
    for message, verdict in zip(messages, [True, False, "dlq", "retry"]):
        message["_status"] = verdict
    acked = await queen.ack(messages)
    same(acked["success"], True, acked)
    again = await queen.queue(queue).batch(10).timeout_millis(30000).pop()
    same([(it["data"], it["retryCount"]) for it in again], [(1, 1), (3, 0)])
    same(data((await queen.queue(queue).dlq().get())["messages"]), [2])
    same((await queen.ack(again, False, {"error": "not now"}))["success"], True)
    same(data(await queen.queue(queue).batch(10).timeout_millis(30000).pop()), [1, 3], "a nack of all")


@flow
async def an_ack_whose_lease_is_over_is_told_so_and_the_message_comes_again(queen):
    queue = name()
    await queen.queue(queue).config({"lease_time": 1, "retry_limit": 5}).create()
    await queen.queue(queue).push([{"data": 1}])
    first = (await queen.queue(queue).pop())[0]
    second = (await queen.queue(queue).timeout_millis(60000).pop())[0]
    same((second["id"], second["retryCount"]), (first["id"], 1), "a lease that ran out was an attempt")
    same(second["leaseId"] == first["leaseId"], False)
    late = await queen.ack(first, True)
    same((late["success"], late["error"]), (False, "Invalid or expired lease"))


@flow
async def a_handler_that_fails_is_tried_again_and_then_its_message_is_buried(queen):
    queue, done, seen = name(), asyncio.Event(), []
    await queen.queue(queue).config({"retry_limit": 1, "retry_delay": 0}).create()
    await queen.queue(queue).push([{"data": "poison"}, {"data": "fine"}])

    async def handler(message):
        seen.append(message["data"])
        if message["data"] == "poison":
            raise ValueError("no luck")
        done.set()

    consumer = queen.queue(queue).batch(1).each().timeout_millis(500).consume(handler, signal=done)
    await asyncio.wait_for(consumer, 60)
    same(seen, ["poison", "poison", "fine"])
    dead = (await queen.queue(queue).dlq().get())["messages"]
    same([(it["data"], it["errorMessage"]) for it in dead], [("poison", "no luck")])


@flow
async def a_consumer_that_holds_messages_long_renews_their_lease(queen):
    queue, seen = name(), []
    await queen.queue(queue).config({"lease_time": 3}).create()
    await queen.queue(queue).push([{"data": n} for n in range(3)])

    async def handler(messages):
        seen.append(data(messages))
        # Longer than the lease lasts by itself.
        await asyncio.sleep(5)

    consumer = queen.queue(queue).batch(10).limit(3).renew_lease(True, 500).timeout_millis(5000)
    await asyncio.wait_for(consumer.consume(handler), 60)
    same(seen, [[0, 1, 2]])
    same(await queen.queue(queue).wait(False).pop(), [], "the acks stood")


@flow
async def a_delayed_message_comes_when_its_time_has_come(queen):
    queue = name()
    await queen.queue(queue).config({"delayed_processing": 1}).create()
    pushed_at = time.monotonic()
    await queen.queue(queue).push([{"data": 1}])
    messages = await queen.queue(queue).timeout_millis(30000).pop()
    same((data(messages), time.monotonic() - pushed_at >= 1), ([1], True))


@flow
async def a_window_buffer_holds_a_partition_until_it_is_quiet(queen):
    queue = name()
    await queen.queue(queue).config({"window_buffer": 1}).create()
    for n in range(3):
        last_at = time.monotonic()
        await queen.queue(queue).push([{"data": n}])
        await asyncio.sleep(0.1)
    messages = await queen.queue(queue).batch(10).timeout_millis(30000).pop()
    same((data(messages), time.monotonic() - last_at >= 1), ([0, 1, 2], True))


@flow
async def large_payloads_come_back_as_they_were_and_too_large_ones_are_refused(queen):
    queue = name()
    payloads = [{"text": "ü" * 200_000, "n": n, "list": list(range(1000))} for n in range(6)]
    await queen.queue(queue).push([{"data": payload} for payload in payloads])
    popped = await queen.queue(queue).batch(10).pop()
    same(data(popped) == payloads, True, "2.4 MB in one push")
    await queen.ack(popped, True)
    whole = {"text": "ü" * 1_000_000, "end": True}
    await queen.queue(queue).push([{"data": whole}])
    popped = await queen.queue(queue).pop()
    same(data(popped) == [whole], True, "2 MB in one message")
    await queen.ack(popped, True)
    error = await refused(queen.queue(queue).push([{"data": "x" * 5_000_000}]), "exceeds maximum size")
    same(await queen.queue(queue).wait(False).pop(), [], error)


@flow
async def what_a_consumer_leaves_to_its_user_comes_again(queen):
    queue = name()
    await queen.queue(queue).config({"lease_time": 1, "retry_limit": 20, "retry_delay": 0}).create()
    await queen.queue(queue).push([{"data": 1}])
    seen = []

    async def handler(message):
        seen.append(message["data"])

    consumer = queen.queue(queue).batch(1).each().limit(1).auto_ack(False).timeout_millis(5000)
    await asyncio.wait_for(consumer.consume(handler), 60)
    again = await queen.queue(queue).timeout_millis(30000).pop()
    same((seen, data(again)), ([1], [1]), "nobody acknowledged it")
    same((await queen.ack(again, True))["success"], True)
    same(await queen.queue(queue).wait(False).pop(), [])


@flow
async def the_buffer_of_one_partition_is_flushed_alone(queen):
    queue = name()
    options = {"message_count": 100, "time_millis": 600_000}
    for partition in ("a", "b"):
        await queen.queue(queue).partition(partition).buffer(options).push([{"data": partition}])
    await queen.queue(queue).partition("a").flush_buffer()
    same(data(await queen.queue(queue).batch(10).wait(False).pop()), ["a"])
    await queen.queue(queue).partition("b").flush_buffer()
    same(data(await queen.queue(queue).partition("b").wait(False).pop()), ["b"])


@flow
async def a_page_of_more_dead_letters_than_pages_have_is_a_page_all_the_same(queen):
    queue = name()
    await queen.queue(queue).push([{"data": n} for n in range(3)])
    for message in await queen.queue(queue).batch(10).pop():
        await queen.ack(message, "dlq")
    # This client takes every refusal for «no dead letters».
    dead = await queen.queue(queue).dlq().limit(5000).get()
    same((dead["total"], sorted(it["data"] for it in dead["messages"])), (3, [0, 1, 2]), dead)


@flow
async def odd_payloads_and_names_are_kept(queen):
    queue = name() + " größe"
    payloads = [0, False, "", [], {}, 1.5, {"a": {"b": [None]}}, "\u0000\u2028😀"]
    await queen.queue(queue).partition("p ü").push([{"data": payload} for payload in payloads])
    messages = await queen.queue(queue).batch(20).pop()
    same((data(messages), {it["partition"] for it in messages}), (payloads, {"p ü"}))


@flow
async def queues_are_popped_and_consumed_by_namespace_and_task(queen):
    space = f"space-{uuid.uuid4()}"
    await queen.queue(f"{space}.bill").push([{"data": 1}])
    await queen.queue(name()).namespace(space).task("ship").create()
    messages = await queen.queue().namespace(space).wait(False).pop()
    same([(it["data"], it["queue"]) for it in messages], [(1, f"{space}.bill")])
    await queen.ack(messages, True)
    same(await queen.queue().namespace(space).task("ship").wait(False).pop(), [])
    await queen.queue(f"{space}.bill").push([{"data": 2}])
    seen = []

    async def handler(message):
        seen.append(message["data"])

    consumer = queen.queue().namespace(space).task("bill").batch(1).each().limit(1).timeout_millis(5000)
    await asyncio.wait_for(consumer.consume(handler), 60)
    same(seen, [2])


@flow
async def a_pop_that_leaves_its_size_to_the_server_is_told_what_it_chose(queen):
    queue = name()
    await queen.queue(queue).push([{"data": n} for n in range(3)])
    result = await queen.queue(queue).pop_result()
    same(data(result.messages), [0, 1, 2])
    same((result.autopilot.batch >= 3, result.autopilot.partitions >= 1), (True, True))
    await queen.queue(queue).push([{"data": n} for n in range(3)])
    await queen.ack(result.messages, True)
    one = await queen.queue(queue).autopilot(False).pop_result()
    same((data(one.messages), one.autopilot), ([0], None))


@flow
async def a_buffer_sends_what_it_has_when_it_is_full_or_its_time_has_come(queen):
    queue = name()
    full = {"message_count": 5, "time_millis": 600_000}
    for n in range(5):
        await queen.queue(queue).buffer(full).push([{"data": n}])
    same(await until(queen, queue, 5), list(range(5)))
    soon = {"message_count": 1000, "time_millis": 50}
    await queen.queue(queue).partition("soon").buffer(soon).push([{"data": "soon"}])
    same(await until(queen, queue, 1), ["soon"])
    await eventually(lambda: queen.get_buffer_stats()["totalBufferedMessages"] == 0, queen.get_buffer_stats())


@flow
async def a_full_queue_is_told_as_too_many_requests_and_takes_more_when_it_has_room(queen):
    queue = name()
    await queen.queue(queue).config({"max_size": 1}).create()
    await queen.queue(queue).push([{"data": 1}])
    async with Queen(BASE, retry_429={"max_attempts": 2, "base_ms": 1, "cap_ms": 1}) as hasty:
        error = await refused(hasty.queue(queue).push([{"data": 2}]), "maxSize")
        same((error.response.status_code, error.code), (429, "queue_full"))
        same(error.retry_after_seconds > 0, True, error)
    # One that has more patience comes through as soon as there is room.

    async def push():
        return await queen.queue(queue).push([{"data": 2}])

    waiting = asyncio.create_task(push())
    messages = await queen.queue(queue).pop()
    same((await queen.ack(messages, True))["success"], True)
    same((await asyncio.wait_for(waiting, 60))[0]["status"], "queued")


@flow
async def a_server_that_is_away_is_passed_by(queen):
    nobody = "http://127.0.0.1:9/queen"
    async with Queen([nobody, BASE]) as several:
        for _ in range(5):
            queue = name()
            await several.queue(queue).push([{"data": 1}])
            same(data(await several.queue(queue).pop()), [1])


run()
