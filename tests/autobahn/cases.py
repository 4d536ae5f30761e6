"""The Autobahn conformance cases of sections 1 to 10, on an echo server and on Fanfare's instances.

Arguments: the echo server's binary, which takes its address as first argument, and the instances' binaries.

An instance echoes as well: a client alone in its room hears what it says, by way of the bus. Each case gets
a room of its own, so that nothing of one is heard in the next.
"""

import asyncio
import collections
import contextlib
import os
import re
import subprocess
import sys

from kosoku import FailureError, run_fuzzingclient

# Compression, which no server here offers. There are no sections 8 and 11.
EXCLUDED = ["12.*", "13.*"]
CASES = 301
# Some cases wait for a second and some keep a core busy: a few at a time are quickest and still keep their deadlines.
AT_A_TIME = 4

# What the suite only reports: a Close behind messages that are not answered yet, and close codes that RFC 6455 leaves
# undefined.
INFORMATIONAL = {"7.1.6", "7.13.1", "7.13.2"}
# A message with a violation right behind it. The suite likes best that the message is echoed first. Here its echo comes
# from the bus, and finds a session that has failed; such a session gets nothing more (RFC 6455 section 7.1.7).
ECHO_TOO_LATE = {"3.2", "3.3", "3.4", "4.1.3", "4.1.4", "4.1.5", "4.2.3", "4.2.4", "4.2.5", "5.15"}
# Those that send binary messages, which need a route of that type.
BINARY = re.compile(r"1\.2\.|9\.[2468]\.")

# The largest message of the suite is 16 MiB, and so are its echo and the publish between them. The suite itself ends a
# message of 65,536 fragments by an empty one.
SERVER_FLAGS = """--host 127.0.0.1 --port 0 --workers 1 --log-level warn --no-chat
    --route /text/{id}=text:{id} --route /binary/{id}=binary:{id},binary
    --max-message 16MiB --max-fragments 65537
    --max-queue 32MiB --max-publish-queue 32MiB --max-mailbox 32MiB""".split()


async def main(echo, servers):
    failed = 0
    with listening([echo, "127.0.0.1:0"]) as address:
        results = await run(f"ws://{address}/", None)
        failed += report(echo, results, set())
    cases = [result.case_id for result in results]
    for server in servers:
        with listening([server, *SERVER_FLAGS]) as address:
            results = await in_rooms(address, cases)
            failed += report(server, results, ECHO_TOO_LATE)
    print(f"{CASES * (1 + len(servers)) - failed} passed, {failed} failed, 0 skipped")
    return failed == 0


async def in_rooms(address, cases):
    turns = asyncio.Semaphore(AT_A_TIME)

    async def one(case):
        route = "binary" if BINARY.match(case) else "text"
        async with turns:
            return await run(f"ws://{address}/{route}/{case}", [case])

    return [result for results in await asyncio.gather(*map(one, cases)) for result in results]


async def run(url, cases):
    try:
        return await run_fuzzingclient(url, cases, EXCLUDED, concurrency=AT_A_TIME)
    except FailureError as failure:
        return failure.results


def report(program, results, non_strict):
    """Prints what is not as it must be, and says how many cases that are; a case that did not run is one of them."""
    bad = [result for result in results if not is_good(result, non_strict)]
    for result in bad:
        verdict = f"{' and '.join(verdicts(result))}, clean {result.was_clean}"
        print(f"{result.case_id}: {verdict}. {result.result} {result.result_close}")
    counts = collections.Counter(result.behavior.value for result in results)
    table = ", ".join(f"{count} {behavior}" for behavior, count in counts.most_common())
    print(f"{os.path.basename(program)}: {len(results)} of {CASES} cases: {table}; {len(bad)} wrong")
    return len(bad) + CASES - len(results)


def is_good(result, non_strict):
    if result.case_id in INFORMATIONAL:
        expected = verdicts(result) == ("INFORMATIONAL", "INFORMATIONAL")
    else:
        allowed = ("OK", "NON-STRICT") if result.case_id in non_strict else ("OK",)
        expected = result.behavior.value in allowed and result.behavior_close.value == "OK"
    return expected and result.was_clean


def verdicts(result):
    """On the messages, and on the closing handshake."""
    return result.behavior.value, result.behavior_close.value


@contextlib.contextmanager
def listening(command):
    """A server with no settings but those of its command; gives its host and port."""
    ours = lambda name: name.startswith("FANFARE_") or name in ("PORT", "HOST", "REDIS_URL")
    env = {name: value for name, value in os.environ.items() if not ours(name)}
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) as process:
        try:
            address = next(filter(None, (re.search(r"listening on http://([^/]+)/", line) for line in process.stdout)))
            yield address[1]
        finally:
            process.terminate()


if __name__ == "__main__":
    sys.exit(0 if asyncio.run(main(sys.argv[1], sys.argv[2:])) else 1)
