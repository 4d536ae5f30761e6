// What the tests of the page share: a browser, pages in it, wires that can be cut.
//
// FANFARE_A, FANFARE_B  the addresses of two instances that share one Redis
// FANFARE_RESTART_A     a shell command that restarts the first instance; without it that test is skipped
// FANFARE_REDIS         host and port of that Redis; without it the tests that disturb it are skipped
// FANFARE_SHOTS         a directory for screenshots; without it none are kept
// BROWSER               chromium or firefox; CHROMIUM and FIREFOX are their programs, Debian's by default

import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { once } from "node:events";
import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { connect, createServer } from "node:net";
import { join } from "node:path";
import { after, before } from "node:test";
import { chromium, firefox } from "playwright-core";

export const { FANFARE_A, FANFARE_B, FANFARE_RESTART_A, FANFARE_REDIS } = process.env;
const { FANFARE_SHOTS, BROWSER = "chromium" } = process.env;
const { CHROMIUM = "/usr/bin/chromium", FIREFOX = "/usr/bin/firefox-esr" } = process.env;
assert.ok(FANFARE_A && FANFARE_B, "FANFARE_A and FANFARE_B must be the addresses of two instances");

export const IN_CHROMIUM = BROWSER === "chromium";
export const WIDE = { viewport: { width: 1280, height: 800 } };
export const NARROW = { viewport: { width: 390, height: 780 }, isMobile: true, hasTouch: true, deviceScaleFactor: 2 };

const LIGHT_ARGUMENTS = [
  "--headless",
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];

let browser;

// Starts the browser before the tests of a file and ends it after them.
export function useBrowser() {
  before(async () => {
    browser = await launch();
  });
  after(() => browser?.close());
}

// Debian's Firefox is driven by WebDriver BiDi, as the channel says.
export function launch(firefoxUserPrefs = {}) {
  return IN_CHROMIUM
    ? chromium.launch({ executablePath: CHROMIUM, args: LIGHT_ARGUMENTS })
    : firefox.launch({ channel: "moz-firefox", executablePath: FIREFOX, firefoxUserPrefs });
}

export function newRoom() {
  return `r${randomUUID().slice(0, 8)}`;
}

export function numbered(n) {
  return Array.from({ length: n }, (_, i) => String(i));
}

// Opens the page in a context of its own and waits until it is connected, unless that is not wanted. Errors on its console fail the test,
// unless the test cuts connections, which the console reports as errors too.
export async function open(t, base, { room = newRoom(), mayFail = false, waits = true, context = WIDE, prepare } = {}) {
  const isolated = await browser.newContext(context);
  const page = await isolated.newPage();
  const errors = [];
  page.on("console", (message) => message.type() === "error" && errors.push(message.text()));
  page.on("pageerror", (error) => errors.push(String(error)));
  t.after(async () => {
    await isolated.close();
    if (!mayFail) assert.deepEqual(errors, []);
  });
  // The page waits a random time before it connects again: here always half of the longest, long enough to be seen.
  await page.addInitScript(() => (Math.random = () => 0.5));
  await prepare?.(page);
  const url = new URL(base);
  if (room) url.searchParams.set("room", room);
  await page.goto(url.href);
  if (waits) await connected(page);
  return page;
}

export async function say(page, text) {
  await write(page, text);
  await page.press("#msg", "Enter");
}

// As `fill` does where it types nothing: Firefox would get a key for each character, and Enter for each end of a line.
export function write(page, text) {
  return page.locator("#msg").evaluate((field, text) => {
    field.focus();
    field.value = text;
    field.dispatchEvent(new InputEvent("input", { bubbles: true }));
  }, text);
}

export function messages(page) {
  return page.locator("#chat p:not(.skipped, .missing)").evaluateAll((all) => all.map((p) => p.textContent));
}

// Messages and what is said between them.
export function log(page) {
  return page.locator("#chat p").evaluateAll((all) => all.map((p) => p.textContent));
}

// Waits until the newest message is `text`.
export function shows(page, text) {
  return page.waitForFunction((text) => document.querySelector("#chat")?.lastElementChild?.textContent === text, text);
}

export function connected(page) {
  return page.locator("#status", { hasText: /^Connected$/ }).waitFor();
}

export function disconnected(page) {
  return page.locator("#status[data-state=closed]").waitFor();
}

export function atBottom(page) {
  return page.locator("#chat").evaluate((chat) => chat.scrollHeight - chat.scrollTop - chat.clientHeight < 2);
}

// Publishes through a connection of its own, as a program would that is no page; never far ahead of what comes back,
// so that the server has no reason to close it as too slow.
export function flood(page, room, texts) {
  return page.evaluate(
    ([room, texts]) =>
      new Promise((done, fail) => {
        const socket = new WebSocket(`${location.origin.replace("http", "ws")}/chat/${room}`);
        let sent = 0;
        let back = 0;
        let ahead = 0;
        const pump = () => {
          while (sent < texts.length && ahead < 1 << 18) {
            ahead += texts[sent].length;
            socket.send(texts[sent++]);
          }
        };
        socket.onopen = pump;
        socket.onmessage = ({ data }) => {
          back += 1;
          ahead -= data.length;
          pump();
          if (back < texts.length) return;
          socket.onclose = done;
          socket.close();
        };
        socket.onclose = ({ code }) => fail(new Error(`closed with ${code} after ${back} messages`));
      }),
    [room, texts],
  );
}

// A command to Redis, which must take it.
export async function toRedis(redis, command) {
  redis.write(`${command}\r\n`);
  const [answer] = await once(redis, "data");
  assert.doesNotMatch(String(answer), /^-/, command);
}

// `last` is said at the end of the test, whatever becomes of it.
export function redisConnection(t, last = "PING") {
  const [host, port] = FANFARE_REDIS.split(":");
  const redis = connect(Number(port), host);
  t.after(() => redis.resume().end(`${last}\r\n`));
  return redis;
}

// A wire to an instance that can be cut and mended, swallow what the browser sends, or fall silent without an end. It
// notes when WebSockets were asked for, and lets `rewrite` change what a request says, or answer it by itself.
export async function relay(t, base, rewrite = (head) => head) {
  const { hostname, port } = new URL(base);
  const sockets = new Set();
  const dials = [];
  const server = createServer((near) => {
    const far = connect(Number(port), hostname);
    near.once("data", (head) => {
      if (/^upgrade: websocket/im.test(head)) dials.push(Date.now());
      const { answer, ask } = asked(rewrite(head.toString("latin1")));
      if (answer !== undefined) return near.end(answer);
      far.write(ask, "latin1");
      near.pipe(far).pipe(near);
    });
    for (const [socket, other] of [[near, far], [far, near]]) {
      sockets.add(socket);
      socket.on("error", () => {});
      socket.on("close", () => {
        sockets.delete(socket);
        if (!socket.isHushed) other.destroy();
      });
    }
    near.far = far;
  });
  const listen = (at) => new Promise((done) => server.listen(at, "localhost", done));
  await listen(0);
  const own = server.address().port;
  const cut = () => {
    server.close();
    for (const socket of sockets) socket.destroy();
  };
  t.after(cut);
  return {
    url: `http://localhost:${own}`,
    dials,
    cut,
    mend: () => listen(own),
    swallow: () => {
      for (const socket of sockets) if (socket.far) socket.unpipe(socket.far).resume();
    },
    hush: () => {
      for (const socket of sockets) Object.assign(socket.unpipe().resume(), { isHushed: true });
    },
  };
}

function asked(rewritten) {
  return typeof rewritten === "string" ? { ask: rewritten } : rewritten;
}

export async function shoot(page, name) {
  // To hide the caret would take a style that the page's policy forbids.
  if (FANFARE_SHOTS) await page.screenshot({ path: join(FANFARE_SHOTS, `${BROWSER}-${name}.png`), caret: "initial" });
}

export async function checkLayout(page, state) {
  const outside = await page.evaluate(() =>
    [...document.querySelectorAll("header, h1, #rooms, #status, #chat, #msg, #send button, #note, #newer, #elsewhere")]
      .map((element) => ({ id: element.id || element.tagName, box: element.getBoundingClientRect() }))
      .filter(({ box }) => box.left < 0 || box.top < 0 || box.right > innerWidth + 0.5 || box.bottom > innerHeight + 0.5)
      .map(({ id }) => id),
  );
  assert.deepEqual(outside, [], `outside the window (${state})`);
}

export async function checkAccessibility(page, state) {
  const axe = await readFile(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
  await page.evaluate(axe);
  const { violations } = await page.evaluate(() => globalThis.axe.run());
  const found = violations.map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html).join(" ")}`);
  assert.deepEqual(found, [], `accessibility (${state})`);
}
