"""Flows of what stands beside messages: queues, figures, traces, single messages."""

import asyncio
import uuid

from runner import flow, name, refused, run, same


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


@flow
async def what_consumers_and_figures_are_asked_for_is_there(queen):
    queue, group = name(), name()
    await queen.queue(queue).push([{"data": 1}])
    messages = await queen.queue(queue).group(group).pop()
    same((await queen.ack(messages, True, {"group": group}))["success"], True)
    page = await queen.admin.list_messages(queue=queue, limit=1, offset=0)
    same([it["status"] for it in page["messages"]], ["completed"])
    metrics = await queen.admin.metrics()
    same(metrics["push"]["total"] > 0, True, metrics)
    same(metrics["messages"]["pushed"] > 0 and metrics["requests"]["ack"] > 0, True, metrics)
    one = await queen.admin.get_message(messages[0]["partitionId"], messages[0]["transactionId"])
    same(one["data"], 1, one)
    for call in (queen.admin.clear_queue(queue), queen.admin.move_message_to_dlq("p", "t")):
        # The client refuses these itself; the routes are here.
        await refused(call, "", NotImplementedError)


run()
