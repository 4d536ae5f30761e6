"""Python's `websockets`: says what it is told, and ends when it has heard both that and the answer.

Arguments: URL, text, answer.
"""

import sys

from websockets.sync.client import connect

url, text, answer = sys.argv[1:]
with connect(url) as socket:
    socket.send(text)
    heard = {socket.recv(timeout=10), socket.recv(timeout=10)}
if heard != {text, answer}:
    sys.exit(f"heard {heard}")
