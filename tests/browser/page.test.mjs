// The chat page: what it shows, and how it can be used. See helpers.mjs for how to run this against instances of yours.

import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { randomUUID } from "node:crypto";
import { once } from "node:events";
import { test } from "node:test";
import {
  FANFARE_A,
  FANFARE_B,
  FANFARE_REDIS,
  FANFARE_RESTART_A,
  IN_CHROMIUM,
  NARROW,
  WIDE,
  atBottom,
  checkAccessibility,
  checkLayout,
  connected,
  disconnected,
  flood,
  launch,
  log,
  messages,
  newRoom,
  numbered,
  open,
  relay,
  say,
  redisConnection,
  shoot,
  shows,
  toRedis,
  useBrowser,
  write,
} from "./helpers.mjs";

const KEEP = 500; // as in log.js

useBrowser();

test("two tabs on two instances see each other's messages, each once", async (t) => {
  const room = newRoom();
  const one = await open(t, FANFARE_A, { room });
  const two = await open(t, FANFARE_B, { room });
  await say(one, "from the first");
  await shows(two, "from the first");
  await say(two, "from the second");
  await say(one, "over");
  for (const page of [one, two]) {
    await shows(page, "over");
    assert.deepEqual(await messages(page), ["from the first", "from the second", "over"]);
  }
});

test("without a room in the address, tabs meet in the main room", async (t) => {
  const one = await open(t, FANFARE_A, { room: "" });
  const two = await open(t, FANFARE_B, { room: "" });
  const text = `main ${randomUUID()}`;
  await say(one, text);
  await shows(two, text);
});

test("text that looks like HTML stays text", async (t) => {
  const page = await open(t, FANFARE_A);
  const hostile = [
    "<b>bold</b> &amp; <img src=x onerror=document.title='taken'>",
    "<script>document.title='taken'</script>",
    "</p></div><style>*{display:none}</style>",
    "javascript:alert(1) ${7*7} {{7*7}}",
  ];
  for (const text of hostile) await say(page, text);
  await shows(page, hostile.at(-1));
  assert.deepEqual(await messages(page), hostile);
  assert.equal(await page.locator("#chat *:not(p)").count(), 0);
  assert.doesNotMatch(await page.title(), /taken/);
});

test("a message is shown exactly as it was sent, whatever it is made of", async (t) => {
  const room = newRoom();
  const page = await open(t, FANFARE_A, { room });
  const sent = ["", " ", "two\r\nlines", "🎺👩‍👩‍👧‍👦", "مرحبا", "$3\r\nfoo\r\n", "x".repeat(65_536), "end"];
  await flood(page, room, sent);
  await shows(page, "end");
  assert.deepEqual(await messages(page), sent);
  const wide = await page.evaluate(() => document.querySelector("#chat").scrollWidth - innerWidth);
  assert.ok(wide <= 0, "a word without spaces must wrap");
});

test("the room in the address separates, whatever its name", async (t) => {
  const names = ["tea", "Tee & Kuchen/50 % ☕?#", "שלום"].map((name) => `${name} ${randomUUID()}`);
  const pages = await Promise.all(names.map((room) => open(t, FANFARE_A, { room })));
  for (const [i, page] of pages.entries()) await say(page, `only ${i}`);
  for (const [i, page] of pages.entries()) {
    await shows(page, `only ${i}`);
    assert.deepEqual(await messages(page), [`only ${i}`]);
    assert.equal(await page.locator("h1").textContent(), names[i]);
  }
});

test("several lines are written with Shift and Enter, and Enter sends them as one message", async (t) => {
  const page = await open(t, FANFARE_A);
  await page.locator("#msg").focus();
  const low = await page.locator("#msg").evaluate((field) => field.offsetHeight);
  await page.keyboard.type("one");
  await page.keyboard.press("Shift+Enter");
  await page.keyboard.type("two");
  assert.ok((await page.locator("#msg").evaluate((field) => field.offsetHeight)) > low, "the field grows");
  await page.keyboard.press("Enter");
  await shows(page, "one\ntwo");
  assert.equal(await page.inputValue("#msg"), "");
  assert.equal(await page.locator("#msg").evaluate((field) => field.offsetHeight), low);
});

test("own messages are told from others', and each has its time where nobody can hover", async (t) => {
  const room = newRoom();
  const page = await open(t, FANFARE_A, { room, context: NARROW });
  const other = await open(t, FANFARE_B, { room });
  await say(page, "mine");
  await shows(other, "mine");
  await say(other, "theirs");
  for (const tab of [page, other]) await shows(tab, "theirs");
  const own = (tab) => tab.locator("#chat p").evaluateAll((all) => all.map((p) => p.classList.contains("own")));
  assert.deepEqual([await own(page), await own(other)], [[true, false], [false, true]]);
  const looks = await page.locator("#chat p").evaluateAll((all) =>
    all.map((p) => [getComputedStyle(p, "::before").visibility, /\d\d:\d\d/.test(p.dataset.time), getComputedStyle(p).backgroundImage]),
  );
  assert.deepEqual(looks.map(([visibility, time]) => [visibility, time]), [["visible", true], ["visible", true]]);
  assert.notEqual(looks[0][2], looks[1][2]);
});

test("addresses are links, and nothing else is", async (t) => {
  const page = await open(t, FANFARE_A);
  const text = "see https://example.org/a_(b)?c=d#e, (http://example.org/) and javascript:alert(1) ftp://a http:// https://user@[::";
  await say(page, text);
  await shows(page, text);
  const links = await page.locator("#chat a").evaluateAll((all) => all.map(({ href, rel, target, textContent }) => [textContent, href, rel, target]));
  assert.deepEqual(links, [
    ["https://example.org/a_(b)?c=d#e", "https://example.org/a_(b)?c=d#e", "noopener noreferrer", "_blank"],
    ["http://example.org/", "http://example.org/", "noopener noreferrer", "_blank"],
  ]);
});

test("an empty page names Fanfare, its socket and a command that can be copied", async (t) => {
  const room = `it's (${newRoom()})!`;
  const page = await open(t, FANFARE_A, { room });
  assert.equal(await page.locator("header .names p").textContent(), "Fanfare");
  const url = await page.locator("#address").textContent();
  assert.equal(decodeURIComponent(url), `${FANFARE_A.replace("http", "ws")}/chat/${room}`);
  assert.match(url, /^[\w:/.%-]+$/, "one word of a shell");
  assert.equal(await page.locator("#command").textContent(), `npx wscat -c ${url}`);
  const opened = await page.evaluate((url) => new Promise((done) => (new WebSocket(url).onopen = () => done(true))), url);
  assert.ok(opened);
  await page.locator("#copy").click();
  await page.locator("#copy", { hasText: "Copied" }).waitFor();
  await say(page, "no longer empty");
  await page.locator("#command").waitFor({ state: "hidden" });
});

test("no shell reads more than one word in the command, whatever path a proxy serves the page at", async (t) => {
  // A URL leaves all of these as they are.
  const path = "/a;b&$(exit)c*[d]=~'e'!/";
  const wire = await relay(t, FANFARE_A, (head) => head.replace(path, "/"));
  const page = await open(t, `${wire.url}${path}`);
  const url = await page.locator("#address").textContent();
  assert.equal(decodeURIComponent(new URL(url).pathname).startsWith(path), true, url);
  const command = await page.locator("#command").textContent();
  const words = execFileSync("sh", ["-c", command.replace(/^npx/, "printf '%s\\n'")], { encoding: "utf8" });
  assert.deepEqual(words.split("\n"), ["wscat", "-c", url, ""]);
});

test("without JavaScript the page says so and nothing else", async (t) => {
  const other = await launch({ "javascript.enabled": false });
  t.after(() => other.close());
  const page = await (await other.newContext({ javaScriptEnabled: false })).newPage();
  await page.goto(FANFARE_A);
  await page.locator("noscript p", { hasText: "This page needs JavaScript." }).waitFor();
  for (const part of ["header", "main", "footer", "#elsewhere"]) assert.ok(await page.locator(part).isHidden(), part);
});

test("another room is a few keys away", async (t) => {
  const page = await open(t, FANFARE_A);
  const name = newRoom();
  await page.locator("#rooms").focus();
  await page.keyboard.press("Enter");
  await page.keyboard.type(name);
  await page.keyboard.press("Enter");
  await page.waitForURL((url) => url.searchParams.get("room") === name);
  await connected(page);
});

test("after a reload the page is connected again", async (t) => {
  const page = await open(t, FANFARE_A);
  await page.reload();
  await connected(page);
  await say(page, "again");
  await shows(page, "again");
});

test("after a restart of the instance the page reconnects, and typed text survives", {
  skip: FANFARE_RESTART_A ? false : "FANFARE_RESTART_A is not set",
}, async (t) => {
  const room = newRoom();
  const page = await open(t, FANFARE_A, { room, mayFail: true });
  const other = await open(t, FANFARE_B, { room });
  await write(page, "half a sent");
  const lost = disconnected(page);
  const [status] = await once(spawn("sh", ["-c", FANFARE_RESTART_A], { stdio: "ignore" }), "exit");
  assert.equal(status, 0, "FANFARE_RESTART_A failed");
  await lost;
  await connected(page);
  assert.equal(await page.inputValue("#msg"), "half a sent");
  assert.deepEqual(await messages(page), []);
  await say(other, "welcome back");
  await shows(page, "welcome back");
});

test("what is entered while disconnected stays in the field and is sent once, when the connection is back", async (t) => {
  const room = newRoom();
  const wire = await relay(t, FANFARE_A);
  const page = await open(t, wire.url, { room, mayFail: true });
  const other = await open(t, FANFARE_B, { room });
  wire.cut();
  await disconnected(page);
  await say(page, "do not lose me");
  assert.equal(await page.inputValue("#msg"), "do not lose me");
  assert.match(await page.locator("#note").textContent(), /not connected/i);
  wire.mend();
  await shows(other, "do not lose me");
  await say(page, "after");
  await shows(other, "after");
  assert.deepEqual(await messages(other), ["do not lose me", "after"]);
});

test("what was entered while disconnected and then changed waits for its writer", async (t) => {
  const wire = await relay(t, FANFARE_A);
  const page = await open(t, wire.url, { mayFail: true });
  wire.cut();
  await disconnected(page);
  await say(page, "first thought");
  await page.locator("#msg").pressSequentially(", second");
  wire.mend();
  await connected(page);
  assert.equal(await page.inputValue("#msg"), "first thought, second");
  assert.deepEqual(await messages(page), []);
});

test("a message that was sent but never came back is given back", async (t) => {
  const wire = await relay(t, FANFARE_A);
  const page = await open(t, wire.url, { mayFail: true });
  wire.swallow();
  await say(page, "into the void");
  assert.equal(await page.inputValue("#msg"), "");
  wire.cut();
  await disconnected(page);
  assert.equal(await page.inputValue("#msg"), "into the void");
  assert.match(await page.locator("#note").textContent(), /may not have arrived/);
});

test("every close code leads to a new connection, and a refusal is explained", async (t) => {
  for (const [code, reason, told] of [
    [1000, "", ""],
    [1001, "", ""],
    [1012, "", ""],
    [1013, "", ""],
    [1008, "this room is closed", /this room is closed/],
    [1003, "", /1003/],
  ]) {
    let close;
    const page = await open(t, FANFARE_A, {
      prepare: (page) =>
        page.routeWebSocket(/\/chat\//, (socket) => {
          socket.connectToServer();
          close = () => socket.close({ code, reason });
        }),
    });
    const lost = disconnected(page);
    close();
    await lost;
    await connected(page);
    const note = await page.locator("#note").textContent();
    if (told === "") assert.equal(note, "", `after ${code}`);
    else assert.match(note, told);
  }
});

test("after a gap the page says that messages may be missing, and who wants no notes sees none", {
  skip: FANFARE_REDIS ? false : "FANFARE_REDIS is not set",
}, async (t) => {
  const room = newRoom();
  const page = await open(t, FANFARE_A, { room });
  const other = await open(t, FANFARE_B, { room });
  const plain = await page.evaluate((room) => {
    globalThis.heard = [];
    const socket = new WebSocket(`${location.origin.replace("http", "ws")}/chat/${room}`);
    socket.onmessage = ({ data }) => globalThis.heard.push(data);
    return new Promise((done) => (socket.onopen = () => done(socket.protocol)));
  }, room);
  assert.equal(plain, "");
  await say(page, "before");
  await shows(other, "before");
  await toRedis(redisConnection(t), "CLIENT KILL TYPE pubsub");
  for (const tab of [page, other]) await tab.locator("#chat p.missing").waitFor();
  await say(page, "after");
  for (const tab of [page, other]) {
    await shows(tab, "after");
    assert.deepEqual(await log(tab), ["before", "Messages may be missing here", "after"]);
    assert.equal(await tab.locator("#count").textContent(), "", "a mark is no message");
  }
  assert.deepEqual(await page.evaluate(() => globalThis.heard), ["before", "after"]);
});

test("what the server could not deliver is marked in its place, once, and no unknown note disturbs", async (t) => {
  let server;
  const page = await open(t, FANFARE_A, {
    prepare: (page) => page.routeWebSocket(/\/chat\//, (socket) => (server = socket)),
  });
  const note = (what) => server.send(Buffer.from(typeof what === "string" ? what : JSON.stringify(what)));
  note({ type: "dropped", messages: 1 });
  server.send("one");
  note({ type: "dropped", messages: 1234 });
  note({ type: "gap", seconds: 1.5, epoch: 3 });
  server.send("two");
  for (const odd of ["", "{", "null", "[]", "7", { type: "weather" }, {}]) note(odd);
  server.send("three");
  note({ type: "gap", messages: 7 });
  note({ type: "dropped", messages: "<b>many</b>" });
  server.send("four");
  await shows(page, "four");
  assert.deepEqual(await log(page), [
    "1 message is missing here",
    "one",
    "1,234 messages are missing here",
    "two",
    "three",
    "Messages may be missing here",
    "four",
  ]);
  assert.equal(await page.locator("#chat[aria-live=polite][role=log] p.missing").count(), 3);
  for (const text of numbered(3_000)) {
    note({ type: "gap" });
    server.send(text);
  }
  await shows(page, "2999");
  assert.ok((await page.locator("#chat > *").count()) <= KEEP);
  await checkAccessibility(page, "missing");
});

test("after a reconnect the page says that messages may be missing", async (t) => {
  const wire = await relay(t, FANFARE_A);
  const page = await open(t, wire.url, { mayFail: true });
  await say(page, "before");
  await shows(page, "before");
  wire.cut();
  await disconnected(page);
  wire.mend();
  await connected(page);
  await say(page, "after");
  await shows(page, "after");
  assert.deepEqual(await log(page), ["before", "Messages may be missing here", "after"]);
});

test("nothing empty and nothing over 64 KiB is sent", async (t) => {
  const page = await open(t, FANFARE_A);
  await say(page, "");
  await say(page, "   ");
  await say(page, "é".repeat(32_768));
  await shows(page, "é".repeat(32_768));
  await say(page, `${"é".repeat(32_768)}x`);
  assert.match(await page.locator("#note").textContent(), /65,537 bytes/);
  assert.equal((await page.inputValue("#msg")).length, 32_769);
  await say(page, "end");
  await shows(page, "end");
  assert.equal((await messages(page)).length, 2);
});

test("the page is served with a strict policy and asks nobody else for anything", async (t) => {
  const asked = [];
  const page = await open(t, FANFARE_A, {
    prepare: (page) => {
      page.on("request", (request) => asked.push(request.url()));
      page.on("websocket", (socket) => asked.push(socket.url().replace(/^ws/, "http")));
    },
  });
  assert.ok(asked.length >= 4);
  for (const url of asked) assert.equal(new URL(url).origin, new URL(FANFARE_A).origin);
  for (const path of ["/", "/page.css", "/noscript.css", "/page.js", "/log.js", "/socket.js", "/icon.svg"]) {
    const answer = await page.request.get(new URL(path, FANFARE_A).href);
    assert.equal(answer.status(), 200, path);
    const policy = answer.headers()["content-security-policy"];
    assert.match(policy, /default-src 'none'/, path);
    assert.match(policy, /frame-ancestors 'none'/, path);
    assert.doesNotMatch(policy, /unsafe|\*/, path);
    assert.equal(answer.headers()["x-content-type-options"], "nosniff", path);
    assert.equal(answer.headers()["referrer-policy"], "no-referrer", path);
  }
});

test("the policy holds: nothing inline, nothing from elsewhere, no text made into markup", async (t) => {
  const page = await open(t, FANFARE_A, { mayFail: true });
  const violated = await page.evaluate(async (elsewhere) => {
    const directives = new Set();
    addEventListener("securitypolicyviolation", ({ effectiveDirective }) => directives.add(effectiveDirective));
    const attempts = [
      () => new WebSocket(elsewhere.replace("http", "ws")),
      () => (new Image().src = elsewhere),
      () => document.head.append(Object.assign(document.createElement("style"), { textContent: "p { color: red }" })),
      () => (document.querySelector("#chat").innerHTML = "<p>markup</p>"),
    ];
    for (const attempt of attempts) {
      try {
        attempt();
      } catch {
        // Some are refused by an exception as well; the events tell.
      }
    }
    await new Promise((done) => setTimeout(done, 200));
    return [...directives].sort();
  }, FANFARE_B);
  assert.deepEqual(violated, ["connect-src", "img-src", "require-trusted-types-for", "style-src-elem"]);
});

test("a flood leaves the page small, counts what it leaves out, and ends with the newest message", async (t) => {
  const room = newRoom();
  const page = await open(t, FANFARE_A, { room });
  const sender = await open(t, FANFARE_B, { room });
  await flood(sender, room, numbered(5_000));
  await shows(page, "4999");
  assert.ok((await page.locator("#chat > *").count()) <= KEEP);
  assert.match(await page.locator("#count").textContent(), /^\d+ of 5,000 messages$/);
  assert.ok(await atBottom(page));
  assert.equal(await page.locator("#newer").isVisible(), false);
  assert.equal(await page.locator("#chat").getAttribute("aria-live"), "off");
  await page.locator("#chat[aria-live=polite]").waitFor();
});

test("a flood does not move what the reader looks back at", async (t) => {
  const room = newRoom();
  const page = await open(t, FANFARE_A, { room });
  const sender = await open(t, FANFARE_B, { room });
  await flood(sender, room, numbered(100));
  await shows(page, "99");
  const anchor = page.locator("#chat p").nth(40);
  await anchor.evaluate((p) => p.scrollIntoView({ block: "start" }));
  const place = () => anchor.evaluate((p) => [p.textContent, Math.round(p.getBoundingClientRect().top)]);
  const before = await place();
  await page.locator("#chat").dispatchEvent("scroll");

  await flood(sender, room, numbered(5_000));
  await page.locator("#newer", { hasText: "5,000 new messages" }).waitFor();
  assert.deepEqual(await place(), before);
  assert.ok((await page.locator("#chat > *").count()) <= 2 * KEEP);

  await page.locator("#newer").click();
  await shows(page, "4999");
  assert.ok(await atBottom(page));
  assert.ok((await page.locator("#chat > *").count()) <= KEEP);
  assert.equal(await page.locator("#newer").isVisible(), false);
  assert.match(await page.locator("#count").textContent(), /of 5,100 messages/);
});

test("long messages are bounded together, not only counted", async (t) => {
  const room = newRoom();
  const page = await open(t, FANFARE_A, { room });
  const long = numbered(60).map((i) => i.padEnd(60_000, "."));
  await flood(page, room, [...long, "end"]);
  await shows(page, "end");
  const characters = (await messages(page)).join("").length;
  assert.ok(characters <= 1 << 20, `${characters} characters`);
});

test("everything can be done with the keyboard, and what has the focus can be seen", async (t) => {
  const page = await open(t, FANFARE_A);
  // Where there is a mouse the field has the focus already.
  if (!IN_CHROMIUM) await page.locator("#msg").focus();
  await page.keyboard.type("no mouse needed");
  await page.keyboard.press("Enter");
  await shows(page, "no mouse needed");
  const visited = new Set();
  // Not out of the page, from where Firefox does not come back by itself.
  for (const key of ["Tab", ...Array(3).fill("Shift+Tab")]) {
    await page.keyboard.press(key);
    const focus = await page.evaluate(() => {
      const { outlineStyle, outlineWidth } = getComputedStyle(document.activeElement);
      return { id: document.activeElement.id || document.activeElement.tagName, outlineStyle, outlineWidth };
    });
    assert.equal(focus.outlineStyle, "solid", `outline of ${focus.id}`);
    assert.notEqual(focus.outlineWidth, "0px", `outline of ${focus.id}`);
    visited.add(focus.id);
  }
  assert.deepEqual([...visited].sort(), ["BUTTON", "chat", "msg", "rooms"]);
  await page.locator("#rooms").press("Enter");
  assert.ok(await page.locator("#elsewhere").isVisible());
  await page.keyboard.press("Escape");
  assert.equal(await page.locator("#elsewhere").isVisible(), false);
  assert.equal(await page.evaluate(() => document.activeElement.id), "rooms");
});

test("a long room name is cut, and nothing leaves a small or a low window", async (t) => {
  for (const viewport of [{ width: 320, height: 480 }, { width: 740, height: 330 }]) {
    const room = `${newRoom()} and a name that is much longer than it should be`;
    const page = await open(t, FANFARE_A, { room, context: { viewport } });
    await checkLayout(page, `${viewport.width} wide`);
  }
});

for (const [size, viewport] of Object.entries({ wide: WIDE, narrow: NARROW })) {
  for (const colorScheme of ["light", "dark"]) {
    test(`accessible and within its bounds in every state, ${size} and ${colorScheme}`, async (t) => {
      const room = newRoom();
      const wire = await relay(t, FANFARE_A);
      const page = await open(t, wire.url, { room, mayFail: true, context: { ...viewport, colorScheme } });
      const look = async (state) => {
        await checkLayout(page, state);
        await checkAccessibility(page, state);
        await shoot(page, `${size}-${colorScheme}-${state}`);
      };
      await look("empty");
      await flood(page, room, ["hello", "<b>text</b>", "", "مرحبا بالجميع", "long".repeat(60), "two\nlines", "last"]);
      await shows(page, "last");
      await look("messages");
      await page.locator("#rooms").click();
      await look("rooms");
      await page.keyboard.press("Escape");
      await flood(page, room, numbered(2_000));
      await shows(page, "1999");
      await page.locator("#chat").evaluate((chat) => (chat.scrollTop -= 300));
      await flood(page, room, numbered(1_500));
      await page.locator("#newer", { hasText: "1,500" }).waitFor();
      await look("flood");
      wire.cut();
      await disconnected(page);
      await say(page, "kept");
      await look("disconnected");
    });
  }
}

