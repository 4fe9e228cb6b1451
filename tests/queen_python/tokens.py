"""Flows of a client with a JSON Web Token: what its role lets it do, and who it is to whoever pops.

The tokens stand in `ONRUSH_TOKENS`, as JSON by role.
"""

import json
import os

from queen import Queen, Stream

from runner import BASE, flow, name, refused, run, same

TOKENS = json.loads(os.environ["ONRUSH_TOKENS"])


def known_as(role):
    return Queen(BASE, bearer_token=TOKENS[role])


def status(error):
    return error.response.status_code


@flow
async def nobody_and_somebody_whose_time_is_over_are_told_so(queen):
    error = await refused(queen.queue("q").push([{"data": 1}]), "Authentication required")
    same(status(error), 401)
    async with known_as("expired") as client:
        error = await refused(client.queue("q").push([{"data": 1}]), "Token has expired")
        same(status(error), 401)
    same((await queen.admin.health())["status"], "healthy", "for everybody")


@flow
async def a_reader_reads_and_does_not_write(_queen):
    queue = name()
    async with known_as("read-write") as writer, known_as("read-only") as reader:
        await writer.queue(queue).push([{"data": 1}])
        same((await reader.admin.get_queue(queue))["messages"]["total"], 1)
        for call in (reader.queue(queue).push([{"data": 2}]), reader.queue(queue).create()):
            same(status(await refused(call, "Insufficient permissions")), 403)
        same(await reader.queue(queue).wait(False).pop(), [], "the client makes nothing of a 403")
        same((await reader.admin.get_queue(queue))["messages"]["processing"], 0)


@flow
async def a_writer_works_and_an_admin_takes_away(_queen):
    queue = name()
    async with known_as("read-write") as writer, known_as("admin") as admin:
        await writer.queue(queue).create()
        same(status(await refused(writer.queue(queue).delete(), "Insufficient permissions")), 403)
        error = await refused(writer.delete_consumer_group("g"), "Insufficient permissions")
        same(status(error), 403)
        same((await admin.queue(queue).delete())["existed"], True)


@flow
async def a_message_says_who_pushed_it_whatever_way_it_came(_queen):
    source, moved, sink = name(), name(), name()
    async with known_as("read-write") as ada, known_as("admin") as grace:
        await ada.queue(source).push([{"data": {"producerSub": "eve"}}])
        message = (await grace.queue(source).pop())[0]
        same(message["producerSub"], "ada")
        await grace.transaction().ack(message).queue(moved).push([{"data": 1}]).commit()
        same((await ada.queue(moved).pop())[0]["producerSub"], "grace", "who commits it")
        await ada.queue(source).push([{"data": 2}])
        stream = Stream.from_(grace.queue(source)).map(lambda m: m["data"]).to(grace.queue(sink))
        options = {"url": BASE, "bearer_token": TOKENS["admin"], "max_wait_millis": 100}
        runner = await stream.run(query_id=name(), **options)
        try:
            messages = await ada.queue(sink).timeout_millis(30000).pop()
            same({it["producerSub"] for it in messages}, {"grace"}, messages)
        finally:
            await runner.stop()
        one = await ada.admin.get_message(message["partitionId"], message["transactionId"])
        same(one["producerSub"], "ada")


run()
