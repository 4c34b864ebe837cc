"""A service of another language, with a stock NATS client and nothing of rgrid.

Reads one command as JSON from each line of standard input, and writes one JSON answer for each.
"""

import asyncio
import json
import sys

import nats


async def main(url):
    connection = await nats.connect(url)
    stream = connection.jetstream()

    async def submit(subject, body, headers=None, wait=True):
        """Publishes as JetStream is to be published to, and waits for what rgrid answers."""
        inbox = connection.new_inbox()
        answers = await connection.subscribe(inbox)
        headers = {**(headers or {}), "Rgrid-Reply-To": inbox}
        ack = await stream.publish(subject, body.encode(), headers=headers)
        # A duplicate is not stored, so nobody takes it and nobody answers.
        wait = wait and not ack.duplicate
        answer = json.loads((await answers.next_msg(timeout=30)).data) if wait else None
        await answers.unsubscribe()
        return {"stream": ack.stream, "duplicate": bool(ack.duplicate), "answer": answer}

    async def follow(subject, count):
        """The first messages of a subject's stream, read from its beginning, as they come."""
        messages = await stream.subscribe(subject, ordered_consumer=True)
        found = [await messages.next_msg(timeout=30) for _ in range(count)]
        await messages.unsubscribe()
        return [{"subject": m.subject, "text": m.data.decode("latin-1"), "headers": dict(m.headers or {})} for m in found]

    heard = {}

    async def listen(subject):
        """Begins to hear what is told on a subject."""
        heard[subject] = await connection.subscribe(subject)
        await connection.flush()

    async def hear(subject, count):
        """What was told there since."""
        found = [await heard[subject].next_msg(timeout=30) for _ in range(count)]
        return [{"subject": m.subject, "event": json.loads(m.data)} for m in found]

    commands = {"submit": submit, "follow": follow, "listen": listen, "hear": hear}
    while line := await asyncio.to_thread(sys.stdin.readline):
        command = json.loads(line)
        answer = await commands[command.pop("do")](**command)
        print(json.dumps(answer), flush=True)
    await connection.close()


asyncio.run(main(sys.argv[1]))
