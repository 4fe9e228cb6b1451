"""Flows of transactions."""

import uuid

from runner import data, flow, name, refused, run, same, until


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
async def a_transaction_takes_each_verdict_and_the_group_that_it_is_for(queen):
    queue = name()
    await queen.queue(queue).config({"retry_limit": 3, "retry_delay": 0}).create()
    await queen.queue(queue).push([{"data": n} for n in range(4)])
    messages = await queen.queue(queue).group("g").batch(10).pop()
    transaction = queen.transaction()
    for message, status in zip(messages, ["completed", "failed", "dlq", "retry"]):
        transaction = transaction.ack(message, status, {"consumer_group": "g"})
    done = await transaction.commit()
    same([it["dlq"] for it in done["results"]], [False, False, True, False], done)
    again = await queen.queue(queue).group("g").batch(10).timeout_millis(30000).pop()
    same([(it["data"], it["retryCount"]) for it in again], [(1, 1), (3, 0)])
    same(data((await queen.queue(queue).dlq("g").get())["messages"]), [2])


@flow
async def a_transaction_spans_leases_of_several_queues_and_falls_with_any_of_them(queen):
    one, other, sink = name(), name(), name()
    for queue in (one, other):
        await queen.queue(queue).push([{"data": queue}])
    first, second = (await queen.queue(one).pop())[0], (await queen.queue(other).pop())[0]
    same((await queen.ack(second, True))["success"], True)
    both = queen.transaction().ack([first, second]).queue(sink).push([{"data": 1}])
    await refused(both.commit(), "Invalid or expired lease")
    same(await queen.queue(sink).wait(False).pop(), [], "rolled back")
    alone = await queen.transaction().ack(first).queue(sink).push([{"data": 2}]).commit()
    same((bool(alone), data(await queen.queue(sink).pop())), (True, [2]))


@flow
async def a_transaction_keeps_trace_ids_and_tells_duplicates(queen):
    queue, trace = name(), str(uuid.uuid4())
    item = {"data": 1, "transactionId": "once", "traceId": trace}
    done = await queen.transaction().queue(queue).push([item]).commit()
    again = await queen.transaction().queue(queue).push([item, {"data": 2}]).commit()
    same([it["status"] for it in again["results"]], ["duplicate", "queued"])
    same(again["results"][0]["messageId"], done["results"][0]["messageId"])
    messages = await queen.queue(queue).batch(10).pop()
    same([(it["data"], it["traceId"]) for it in messages], [(1, trace), (2, None)])


@flow
async def a_transaction_seals_what_it_pushes_to_a_queue_that_asks_for_it(queen):
    queue = name()
    await queen.queue(queue).config({"encryption_enabled": True}).create()
    await queen.transaction().queue(queue).push([{"data": {"secret": 1}}]).commit()
    message = (await queen.queue(queue).pop())[0]
    same(message["data"], {"secret": 1})
    one = await queen.admin.get_message(message["partitionId"], message["transactionId"])
    same((one["isEncrypted"], one["payload"]), (True, {"secret": 1}))


@flow
async def keys_and_timers_that_ride_along_are_refused_with_the_whole(queen):
    queue = name()
    with_key = queen.transaction().once("dedup", "k", ttl_seconds=60).queue(queue).push([{"data": 1}])
    await refused(with_key.commit(), "kv operations in a transaction are not supported")
    timed = queen.transaction().queue(queue).push([{"data": 1}])
    timed = timed.timer(queue).key("k").payload({}).after_ms(10).schedule()
    await refused(timed.commit(), "timers operations in a transaction are not supported")
    same(await queen.queue(queue).wait(False).pop(), [])


run()
