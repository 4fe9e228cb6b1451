"""What all flows share. A file of flows is run as `FILE.py <base url>` and imports this.

Each flow is one function that is given a client; one that fails prints what it saw and ends the run with
status 1.
"""

import asyncio
import sys
import uuid

from queen import Queen

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


def data(messages):
    return [message["data"] for message in messages]


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


async def eventually(condition, what):
    """Waits until a condition holds."""
    for _ in range(600):
        if condition():
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"never: {what}")


async def refused(call, text, kind=Exception):
    """The error that a call raises, which must say `text`."""
    try:
        answer = await call
    except kind as error:
        if text not in str(error):
            raise AssertionError(f"expected {text!r}, saw {error!r}")
        return error
    raise AssertionError(f"expected {text!r}, got the answer {answer!r}")


async def run_all():
    async with Queen(BASE) as queen:
        for function in FLOWS:
            title = function.__name__.replace("_", " ")
            await asyncio.wait_for(function(queen), 120)
            print(f"ok: {title}", flush=True)


def run():
    asyncio.run(run_all())
