"""Flows of streams."""

import asyncio

from queen import Stream

from runner import BASE, eventually, flow, name, refused, run, same, until


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
async def a_stream_makes_many_of_one_and_counts_by_key_and_session(queen):
    source, sink = name(), name()
    stream = Stream.from_(queen.queue(source)).flat_map(lambda m: [m["data"], m["data"]])
    stream = stream.key_by(lambda m: m["data"]["word"]).window_session(
        gap=1, event_time=lambda m: m["data"]["at"], idle_flush_ms=0
    )
    stream = stream.aggregate({"count": lambda m: 1}).to(queen.queue(sink))
    runner = await stream.run(query_id=name(), url=BASE, max_wait_millis=100)
    try:
        for word, at in [("a", 1000), ("b", 1100), ("a", 1500), ("a", 9000)]:
            await queen.queue(source).push([{"data": {"word": word, "at": at}}])
        sessions = await until(queen, sink, 2)
        same(sorted(it["count"] for it in sessions), [2, 4], sessions)
    finally:
        await runner.stop()


@flow
async def a_gate_lets_through_in_order_what_its_state_allows(queen):
    source, sink = name(), name()
    await queen.queue(source).config({"lease_time": 1, "retry_limit": 50, "retry_delay": 0}).create()
    await queen.queue(source).push([{"data": {"n": n}} for n in range(6)])

    def two_a_second(message, ctx):
        second = ctx.stream_time_ms // 1000
        if ctx.state.get("second") != second:
            ctx.state.update(second=second, taken=0)
        ctx.state["taken"] += 1
        return ctx.state["taken"] <= 2

    stream = Stream.from_(queen.queue(source)).gate(two_a_second).to(queen.queue(sink))
    runner = await stream.run(query_id=name(), url=BASE, max_wait_millis=100)
    try:
        same(await until(queen, sink, 6), [{"n": n} for n in range(6)])
    finally:
        await runner.stop()


@flow
async def a_stream_hands_its_windows_to_a_function_and_folds_with_one(queen):
    source, seen = name(), []
    stream = Stream.from_(queen.queue(source)).window_sliding(
        size=2, slide=1, event_time=lambda m: m["data"]["at"], idle_flush_ms=0
    )
    stream = stream.reduce(lambda total, m: total + m["n"], 0).foreach(lambda value, ctx: seen.append(value))
    runner = await stream.run(query_id=name(), url=BASE, max_wait_millis=100)
    try:
        for at, n in [(1000, 1), (2000, 2), (9000, 0)]:
            await queen.queue(source).push([{"data": {"at": at, "n": n}}])
        await eventually(lambda: len(seen) >= 3, "three windows")
        same(sorted(seen), [1, 2, 3])
    finally:
        await runner.stop()


@flow
async def windows_of_the_time_of_day_close_though_nothing_more_comes(queen):
    source, sink = name(), name()
    stream = Stream.from_(queen.queue(source)).window_cron(every="second", idle_flush_ms=50)
    stream = stream.aggregate({"count": lambda m: 1}).to(queen.queue(sink))
    runner = await stream.run(query_id=name(), url=BASE, max_wait_millis=100)
    try:
        await queen.queue(source).push([{"data": {"n": n}} for n in range(4)])
        same(await until(queen, sink, 1), [{"count": 4}])
        same(runner.metrics()["errorsTotal"], 0, runner.metrics())
    finally:
        await runner.stop()


@flow
async def a_chain_that_changed_is_refused_until_its_state_is_given_up(queen):
    source, query = name(), name()
    chain = Stream.from_(queen.queue(source))
    runner = await chain.map(lambda m: m["data"]).foreach(lambda value, ctx: None).run(query_id=query, url=BASE)
    await runner.stop()
    other = chain.filter(lambda m: True).foreach(lambda value, ctx: None)
    await refused(other.run(query_id=query, url=BASE), "config_hash mismatch")
    runner = await other.run(query_id=query, url=BASE, reset=True)
    await runner.stop()


@flow
async def a_cycle_that_is_refused_is_tried_again_without_waiting_for_its_lease(queen):
    source, sink, sizes = name(), name(), [5_000_000, 3]
    # The lease lasts longer than the flow may.
    await queen.queue(source).config({"lease_time": 600, "retry_limit": 5, "retry_delay": 0}).create()

    def grow(message):
        return {"text": "x" * (sizes.pop(0) if len(sizes) > 1 else sizes[0])}

    stream = Stream.from_(queen.queue(source)).map(grow).to(queen.queue(sink))
    runner = await stream.run(query_id=name(), url=BASE, max_wait_millis=100)
    try:
        await queen.queue(source).push([{"data": 1}])
        same(await until(queen, sink, 1), [{"text": "xxx"}])
        same(runner.metrics()["errorsTotal"], 1, runner.metrics())
    finally:
        await runner.stop()


run()
