"""A service that hands work to a grid over NATS and waits for its result: it needs a NATS client (nats-py) and nothing of rgrid.

The subjects, the submission and the format of logs are described in docs/events.md.
"""

import asyncio
import json
import os
import struct
import sys

import nats

SCRIPT = """
import os
total = sum(int(word) for word in os.environ["AMOUNTS"].split())
print(f"order {os.environ['ORDER']}: {total} cents")
"""
ENDS = {"job.finished.v1", "job.cancelled.v1", "job.died.v1"}


def text_of(frames):
    """The output in a message of a job's log: frames of stream (1 byte), time (8 bytes), length (4 bytes) and content."""
    text, at = b"", 0
    while at < len(frames):
        _stream, _time, length = struct.unpack_from(">BQI", frames, at)
        at += 13
        text += frames[at : at + length]
        at += length
    return text.decode()


async def main(order, amounts):
    client = await nats.connect(os.environ["RGRID_NATS"])
    jetstream = client.jetstream()
    # Subscribe before the submission, so that no event is missed.
    events = await client.subscribe("rgrid.fact.default.job.>")
    answers = await client.subscribe(inbox := client.new_inbox())

    submission = {
        "command": ["total.py"],
        "runtime": "python",
        "files": [{"path": "total.py", "content": SCRIPT}],
        "env": {"ORDER": order, "AMOUNTS": " ".join(amounts)},
    }
    # The same message id is the same job, so a submission may be repeated after an error.
    headers = {"Nats-Msg-Id": f"order-{order}", "Rgrid-Reply-To": inbox}
    await jetstream.publish("rgrid.submit.default.default", json.dumps(submission).encode(), headers=headers)
    answer = json.loads((await answers.next_msg(timeout=30)).data)
    if "id" not in answer:
        sys.exit(f"the grid refused the order: {answer['detail']}")
    job = answer["id"]

    async for message in events.messages:
        event = json.loads(message.data)
        if message.subject.split(".")[4] == job and event["type"] in ENDS:
            break
    if event["type"] != "job.finished.v1" or event["data"]["outcome"]["kind"] != "succeeded":
        sys.exit(f"order {order} failed: rgrid status {job}")

    attempt = event["data"]["attempt"]
    log = await jetstream.subscribe(f"rgrid.log.default.{job}.{attempt}", ordered_consumer=True)
    async for message in log.messages:
        print(text_of(message.data), end="")
        if (message.headers or {}).get("Rgrid-Log") == "end":
            break
    await client.close()


asyncio.run(main(sys.argv[1], sys.argv[2:]))
