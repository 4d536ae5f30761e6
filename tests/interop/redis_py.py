"""Python's `redis`: a foreign program on the channel. Publishes what it is told, and ends when it has heard the answer.

Arguments: the URL of Redis, the channel, text, answer.
"""

import sys
import time

import redis

url, channel, text, answer = sys.argv[1:]
client = redis.Redis.from_url(url)
heard = client.pubsub(ignore_subscribe_messages=True)
heard.subscribe(channel)
# Its first reply says that the subscription is there; only then can the answer not be missed.
heard.get_message(timeout=5)
client.publish(channel, text)
waiting_for = {text.encode(), answer.encode()}
deadline = time.monotonic() + 10
while waiting_for and time.monotonic() < deadline:
    message = heard.get_message(timeout=1)
    if message:
        waiting_for.discard(message["data"])
if waiting_for:
    sys.exit(f"did not hear {waiting_for}")
