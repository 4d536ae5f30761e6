// The chat page and its connection: silence, outages, refusals, and what becomes of messages meanwhile. See helpers.mjs.

import assert from "node:assert/strict";
import { test } from "node:test";
import {
  FANFARE_A,
  FANFARE_B,
  FANFARE_REDIS,
  checkAccessibility,
  connected,
  disconnected,
  log,
  messages,
  newRoom,
  open,
  redisConnection,
  relay,
  say,
  shoot,
  shows,
  toRedis,
  useBrowser,
  write,
} from "./helpers.mjs";

useBrowser();

const needsRedis = { skip: FANFARE_REDIS ? false : "FANFARE_REDIS is not set" };

test("a connection that falls silent without an end is replaced, without a word from anybody", async (t) => {
  const room = newRoom();
  const wire = await relay(t, FANFARE_A);
  const page = await open(t, wire.url, { room, mayFail: true });
  const other = await open(t, FANFARE_B, { room });
  await page.waitForTimeout(5_000);
  assert.equal(wire.dials.length, 1, "as long as the server is heard");
  wire.hush();
  await say(page, "into the silence");
  // The first instance is started with --ping-interval 2s.
  await until(() => wire.dials.length === 2, 10_000);
  await connected(page);
  assert.equal(await page.inputValue("#msg"), "into the silence");
  await say(other, "found again");
  await shows(page, "found again");
});

test("a connection that may be dead is tried as soon as the network or the reader is back", async (t) => {
  for (const [target, name, most] of [["window", "online", 1_000], ["document", "visibilitychange", 6_000], ["window", "pageshow", 6_000]]) {
    const wire = await relay(t, FANFARE_B);
    const page = await open(t, wire.url, { mayFail: true });
    if (name !== "online") {
      await dispatch(page, target, name);
      await page.waitForTimeout(4_000);
      assert.equal(wire.dials.length, 1, `${name} on a living connection`);
    }
    wire.hush();
    await dispatch(page, target, name);
    await until(() => wire.dials.length === 2, most);
    await connected(page);
    await say(page, name);
    await shows(page, name);
  }
});

test("what waits for Redis is said as long as Redis is away, and what was missed afterwards", needsRedis, async (t) => {
  const room = newRoom();
  const page = await open(t, FANFARE_A, { room });
  const other = await open(t, FANFARE_B, { room });
  const redis = redisConnection(t, "ACL SETUSER default on");
  // Whoever is connected stays; who comes is refused.
  await toRedis(redis, "ACL SETUSER default off");
  await toRedis(redis, "CLIENT KILL TYPE pubsub");
  await page.locator("#status[data-state=cut]", { hasText: "lost Redis" }).waitFor();
  await say(page, "in the outage");
  await page.locator("#note", { hasText: "waits" }).waitFor();
  await checkAccessibility(page, "outage");
  await toRedis(redis, "ACL SETUSER default on");
  for (const tab of [page, other]) {
    await shows(tab, "in the outage");
    assert.deepEqual(await log(tab), ["Messages may be missing here", "in the outage"]);
    assert.match(await tab.locator("#chat .missing").getAttribute("data-detail"), /^\d+\s(s|min)$/u);
    await connected(tab);
  }
  assert.equal(await page.locator("#note").textContent(), "");
});

test("connected, connecting, cut off and disconnected are told apart by words, shapes and colours", async (t) => {
  let server;
  const page = await open(t, FANFARE_A, {
    prepare: (page) => page.routeWebSocket(/\/chat\//, (socket) => (server = socket)),
  });
  const looks = new Map();
  const look = async (state) => {
    await page.locator(`#status[data-state=${state}]`).waitFor();
    looks.set(state, await page.locator("#status").evaluate((status) => {
      const [own, sign] = [getComputedStyle(status), getComputedStyle(status, "::before")];
      return [status.textContent, sign.backgroundImage + sign.backgroundColor, own.color + own.backgroundColor];
    }));
  };
  await look("open");
  server.send(Buffer.from(JSON.stringify({ type: "gap_began", epoch: 1 })));
  await look("cut");
  server.send(Buffer.from(JSON.stringify({ type: "gap", messages: 7 })));
  await look("cut");
  server.send(Buffer.from(JSON.stringify({ type: "gap", seconds: 2.5, epoch: 1 })));
  await look("open");
  await page.locator("#status").evaluate((status) => (status.dataset.state = "connecting"));
  await look("connecting");
  server.close({ code: 1001 });
  await look("closed");
  const [words, signs, colours] = [0, 1, 2].map((at) => new Set([...looks.values()].map((look) => look[at])));
  assert.deepEqual([looks.size, words.size >= 3, signs.size >= 3, colours.size >= 3], [4, true, true, true]);
});

test("a server that stays away is dialled at longer and longer intervals, until it is back", async (t) => {
  let isAway = false;
  const wire = await relay(t, FANFARE_A, (head) => (isAway ? { answer: "" } : head));
  const page = await open(t, wire.url, { mayFail: true });
  wire.dials.length = 0;
  isAway = true;
  wire.hush();
  await dispatch(page, "window", "online");
  await page.locator("#status", { hasText: "Cannot connect" }).waitFor();
  await page.locator("#note", { hasText: "cannot be reached" }).waitFor();
  await until(() => wire.dials.length >= 4, 10_000);
  const waits = wire.dials.slice(1).map((at, i) => at - wire.dials[i]);
  assert.ok(waits[0] >= 500 && waits[1] > 1.4 * waits[0] && waits[2] > 1.4 * waits[1], waits.join(" "));
  isAway = false;
  await connected(page);
  assert.equal(await page.locator("#note").textContent(), "");
});

test("why the socket is refused is said in words", async (t) => {
  for (const [status, words] of [
    [403, /refuses this page \(403\): not from there/],
    [404, /no such room \(404\)/],
    [426, /refuses the WebSocket \(426\).*proxy.*Host/],
    [503, /nobody for now \(503\)/],
    [502, /proxy.*\(502\)/],
    [302, /login/],
  ]) {
    const more = status === 302 ? "Location: /elsewhere\r\n" : "";
    const said = `HTTP/1.1 ${status} No\r\n${more}Content-Type: text/plain\r\nContent-Length: 15\r\nConnection: close\r\n\r\nnot from there.`;
    const wire = await relay(t, FANFARE_A, (head) => (head.startsWith("GET /chat") ? { answer: said } : head));
    const page = await open(t, wire.url, { mayFail: true, waits: false });
    await page.locator("#note", { hasText: words }).waitFor();
    await page.locator("#status[data-state=closed]").waitFor();
    await shoot(page, `refused-${status}`);
  }
});

test("a server that has no Redis yet says so", async (t) => {
  const answers = [["GET /ready", 503, "not ready: no connection to Redis"], ["GET /chat", 426, "a WebSocket"]];
  const wire = await relay(t, FANFARE_A, (head) => {
    const [, status, text] = answers.find(([start]) => head.startsWith(start)) ?? [];
    if (!status) return head;
    return { answer: `HTTP/1.1 ${status} No\r\nContent-Type: text/plain\r\nContent-Length: ${text.length}\r\n\r\n${text}` };
  });
  const page = await open(t, wire.url, { mayFail: true, waits: false });
  await page.locator("#note", { hasText: "The server is not ready: no connection to Redis." }).waitFor();
});

test("where something in between drops the subprotocol, the page connects without notes and says so", async (t) => {
  const room = newRoom();
  const wire = await relay(t, FANFARE_A, (head) => head.replace(/^sec-websocket-protocol:.*\r\n/im, ""));
  const page = await open(t, wire.url, { room, mayFail: true });
  assert.match(await page.locator("#note").textContent(), /Sec-WebSocket-Protocol/);
  await say(page, "plain");
  await shows(page, "plain");
  assert.equal(await page.locator("#chat p.own").count(), 1);
});

test("three messages that were lost all come back, before what is being written", async (t) => {
  const wire = await relay(t, FANFARE_A);
  const page = await open(t, wire.url, { mayFail: true });
  wire.swallow();
  for (const text of ["one", "two", "three"]) await say(page, text);
  await write(page, "four");
  wire.cut();
  await disconnected(page);
  assert.equal(await page.inputValue("#msg"), "one\ntwo\nthree\nfour");
  assert.match(await page.locator("#note").textContent(), /Your last 3 messages may not have arrived/);
});

test("what somebody else says is not taken for our own of the same text, which is lost", async (t) => {
  const room = newRoom();
  const wire = await relay(t, FANFARE_A);
  const page = await open(t, wire.url, { room, mayFail: true });
  const other = await open(t, FANFARE_B, { room });
  await say(page, "ok");
  await shows(page, "ok");
  wire.swallow();
  await say(page, "ok");
  await say(other, "ok");
  await page.waitForFunction(() => document.querySelectorAll("#chat p").length === 2);
  assert.deepEqual(await page.locator("#chat p").evaluateAll((all) => all.map((p) => p.className.includes("own"))), [true, false]);
  wire.cut();
  await disconnected(page);
  assert.equal(await page.inputValue("#msg"), "ok");
  assert.match(await page.locator("#note").textContent(), /may not have arrived/);
});

test("half of a character is sent as the sign for it, and recognised", async (t) => {
  const page = await open(t, FANFARE_A);
  await page.locator("#msg").evaluate((field) => (field.value = "cut \ud83d emoji"));
  await page.press("#msg", "Enter");
  await shows(page, "cut \ufffd emoji");
  assert.equal(await page.locator("#chat p.own").count(), 1);
  await page.locator("#room").evaluate((field) => (field.value = "half \ud83d"));
  await page.locator("#go").evaluate((form) => form.requestSubmit());
  await page.waitForURL((url) => url.searchParams.get("room") === "half \ufffd");
  await connected(page);
});

test("what was missed before the first message is marked", needsRedis, async (t) => {
  const wire = await relay(t, FANFARE_A);
  const page = await open(t, wire.url, { mayFail: true });
  await toRedis(redisConnection(t), "CLIENT KILL TYPE pubsub");
  await page.locator("#chat p.missing").waitFor();
  const second = await open(t, wire.url, { mayFail: true });
  wire.cut();
  await disconnected(second);
  await wire.mend();
  await connected(second);
  assert.deepEqual(await log(second), ["Messages may be missing here"]);
  assert.deepEqual(await messages(second), []);
});

test("a name that cannot be a room is refused at once, in words, and nobody is dialled", async (t) => {
  const names = [[".", /steps in a path/], ["..", /steps in a path/], ["tea\u0007", /control character/], ["é".repeat(126), /252 bytes/]];
  for (const [name, words] of names) {
    const wire = await relay(t, FANFARE_A);
    const page = await open(t, wire.url, { room: name, waits: false });
    await page.locator("#welcome", { hasText: words }).waitFor();
    assert.ok(await page.locator("#msg").isDisabled());
    assert.equal(wire.dials.length, 0);
    const form = await open(t, wire.url);
    await form.locator("#room").evaluate((field, name) => (field.value = name), name);
    await form.locator("#go").evaluate((form) => form.requestSubmit());
    await form.locator("#wrong", { hasText: words }).waitFor({ state: "attached" });
    assert.equal(wire.dials.length, 1);
  }
});

test("names that look alike are one room", async (t) => {
  const name = `caf\u00e9 ${newRoom()}`;
  const pages = [];
  for (const room of [name, ` ${name}`, `\ufeff${name}`, name.normalize("NFD")]) pages.push(await open(t, FANFARE_A, { room }));
  await say(pages[0], "here");
  for (const page of pages) await shows(page, "here");
});

function dispatch(page, target, name) {
  return page.evaluate(([target, name]) => globalThis[target].dispatchEvent(new Event(name)), [target, name]);
}

async function until(condition, most) {
  const end = Date.now() + most;
  while (!condition()) {
    assert.ok(Date.now() < end, `not within ${most} ms: ${condition}`);
    await new Promise((done) => setTimeout(done, 20));
  }
}
