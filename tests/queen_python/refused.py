"""Flows of what the client can do and the server does not have: each is refused in plain words, and
nothing else suffers by it."""

import asyncio

from queen import Queen

from runner import BASE, data, flow, name, refused, run, same

MISSING = "there is nothing at this path"


def missing(error):
    same(error.response.status_code, 404, error)


@flow
async def values_by_key_locks_and_timers_are_not_there(queen):
    kv, timers = queen.kv, queen.timers
    for call in (
        kv.get("ns", "k"),
        kv.put("ns", "k", 1, ttl_seconds=60),
        kv.once("ns", "k", ttl_seconds=60),
        kv.incr("ns", "k", delta=1, ttl_seconds=60),
        kv.delete("ns", "k"),
        kv.get_prefix("ns", "k"),
        timers.schedule("q", "k", {}, delay_ms=1000),
        timers.peek("q", "k"),
        timers.list("q"),
        timers.cancel("q", "k"),
        queen.lock("name", ttl_seconds=5).acquire(),
        queen.semaphore("name", 2, ttl_seconds=5).acquire(),
        queen.locks.get("name"),
    ):
        missing(await refused(call, ""))


@flow
async def queues_in_memory_are_not_there(queen):
    for call in (queen.ephemeral.push("q", [{"n": 1}]), queen.ephemeral.pop("q"), queen.ephemeral.queues()):
        same((await refused(call, "")).code, "ephemeral_unsupported")


@flow
async def reads_by_offset_are_not_there(queen):
    queue = name()
    await queen.queue(queue).push([{"data": 1}])
    missing(await refused(queen.queue(queue).fetch(["Default"]), MISSING))
    missing(await refused(queen.queue(queue).changed_since(), MISSING))


@flow
async def the_newest_message_alone_is_not_to_be_had(queen):
    queue = name()
    await queen.queue(queue).push([{"data": n} for n in range(3)])
    builder = lambda: queen.queue(queue).group("g").conflation().timeout_millis(500)
    await refused(builder().pop(), "conflation is not supported")
    await refused(builder().consume(lambda message: None), "conflation is not supported")
    same(data(await queen.queue(queue).group("g").batch(10).pop()), [0, 1, 2], "all are there")


@flow
async def binary_bodies_are_refused_by_name(queen):
    queue = name()
    async with Queen(BASE, binary_push=True) as binary:
        error = await refused(binary.queue(queue).push([{"data": 1}]), "binary")
        same(error.response.status_code, 415)
        same(await binary.queue(queue).wait(False).pop(), [])
        # What the client sends as JSON all the same works.
        trace = "4bf92f35-77b3-4da6-a3ce-929d0e0e4736"
        await binary.queue(queue).push([{"data": 2, "traceId": trace}])
        same(data(await binary.queue(queue).pop()), [2])


@flow
async def a_consumer_that_reports_to_supervisors_consumes_all_the_same(queen):
    queue, seen = name(), []
    await queen.queue(queue).push([{"data": n} for n in range(5)])

    async def handler(message):
        seen.append(message["data"])

    consumer = queen.queue(queue).supervision({"group": "app"}).batch(5).each().limit(5).timeout_millis(2000)
    await asyncio.wait_for(consumer.consume(handler), 60)
    same(seen, list(range(5)))
    same(await queen.queue(queue).wait(False).pop(), [])


run()
