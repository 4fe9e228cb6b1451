"""Flows of consumer groups."""

import asyncio
from datetime import datetime, timezone

from runner import flow, name, run, same


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

run()
