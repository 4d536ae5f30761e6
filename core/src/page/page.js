// The chat page: one room, one WebSocket, every message shown as the plain text that it is.

const KEEP = 500; // messages on the page; up to twice as many while the reader looks back
const KEEP_CHARACTERS = 1 << 20; // the same bound for long messages
const MESSAGE_BYTES = 64 << 10; // the server's default limit
const BUFFERED_BYTES = 256 << 10; // more than this unsent, and the network is too slow to take another
const UNSEEN = 20; // own messages remembered until they come back
const LOUD = 10; // messages in a second that a screen reader can still follow
const PATIENCE = 3; // failed connections in a row that are nothing to explain

// Times in milliseconds.
const RETRY_BASE = 500;
const RETRY_CAP = 5_000;
const DIAL_TIME = 10_000;
const STABLE_TIME = 5_000;
const ECHO_TIME = 3_000;
const CALM_TIME = 5_000;

const NOTES = "fanfare.notes"; // the subprotocol in which the server says what it could not deliver
const MISSING = "Messages may be missing here";
const ON_ITS_WAY = "On its way…";
const NO_ANSWER = "The server is away, or it refuses this room.";

const byId = (id) => document.getElementById(id);
const [chat, msg, status, note, count, newer, hush] =
  ["chat", "msg", "status", "note", "count", "newer", "hush"].map(byId);

const room = new URLSearchParams(location.search).get("room") ?? "";
const roomName = room || "Chat";
const address = new URL(room ? `chat/${encodeURIComponent(room)}` : "chat", document.baseURI);
address.protocol = address.protocol.replace("http", "ws");

function start() {
  byId("name").textContent = roomName;
  document.title = `${roomName} · Fanfare`;
  byId("send").addEventListener("submit", (event) => {
    event.preventDefault();
    send();
  });
  byId("go").addEventListener("submit", goToRoom);
  // For the panel when it opens. In the markup it would ask for the focus of the whole page.
  byId("room").autofocus = true;
  msg.addEventListener("input", keepTyping);
  chat.addEventListener("scroll", noticeScroll, { passive: true });
  newer.addEventListener("click", () => {
    follow();
    msg.focus();
  });
  new ResizeObserver(() => following && toBottom()).observe(chat);
  visualViewport?.addEventListener("resize", fitAboveKeyboard);
  addEventListener("online", connect);
  document.addEventListener("visibilitychange", () => {
    render();
    if (!document.hidden) connect();
  });
  // Where there is no touch keyboard to pop up, typing can begin at once.
  if (matchMedia("(hover: hover) and (pointer: fine)").matches) msg.focus();
  connect();
}

// ---- The connection ----

let socket = null; // from dial to close
let openedAt = 0; // 0 while not open
let failures = 0; // in a row
let retry = 0;

function connect() {
  if (socket) return;
  clearTimeout(retry);
  socket = new WebSocket(address, NOTES);
  socket.binaryType = "arraybuffer";
  const dial = setTimeout(() => socket.close(), DIAL_TIME);
  socket.addEventListener("open", () => {
    clearTimeout(dial);
    openedAt = performance.now();
    say("open", "Connected");
    // What was said while nobody was connected did not come.
    if (received > 0) markMissing(MISSING);
    untell(NO_ANSWER);
    if (sendOnceOpen) send();
  });
  socket.addEventListener("message", ({ data }) => (typeof data === "string" ? receive(data) : hearNote(data)));
  socket.addEventListener("close", ({ code, reason }) => {
    clearTimeout(dial);
    disconnected(code, reason);
  });
}

function disconnected(code, reason) {
  // A server that accepts and at once closes again must not be dialled at full speed.
  const stable = openedAt && performance.now() - openedAt > STABLE_TIME;
  failures = stable ? 1 : failures + 1;
  socket = null;
  openedAt = 0;
  // Full jitter: when a server comes back, its clients do not all come in the same moment.
  retry = setTimeout(connect, Math.random() * Math.min(RETRY_CAP, RETRY_BASE * 2 ** failures));
  say("closed", whyClosed(code));
  const refused = code === 1003 || (code >= 1007 && code <= 1009);
  const why = refused ? `The server ended the connection: ${reason || `code ${code}`}.` : "";
  const lost = giveBackUnseen();
  if (why || lost) tell(`${why} ${lost}`.trim());
  else if (failures > PATIENCE && note.textContent === "") tell(NO_ANSWER);
}

function whyClosed(code) {
  if (!navigator.onLine) return "Disconnected: no network";
  if (failures > PATIENCE) return "Cannot connect, still trying…";
  if (code === 1013) return "Server busy, reconnecting…";
  return "Disconnected, reconnecting…";
}

function say(state, text) {
  status.dataset.state = state;
  if (status.textContent !== text) status.textContent = text;
}

// ---- Sending ----

const encoder = new TextEncoder();
const decoder = new TextDecoder();
const unseen = []; // own messages that have not come back yet
let sendOnceOpen = false;
let echo = 0;

function send() {
  const text = msg.value;
  sendOnceOpen = false;
  if (text.trim() === "") return;
  const bytes = encoder.encode(text).length;
  if (bytes > MESSAGE_BYTES) {
    tell(`Too long to send: ${number(bytes)} bytes, and ${number(MESSAGE_BYTES)} is the most.`);
  } else if (!openedAt || socket.readyState !== WebSocket.OPEN) {
    sendOnceOpen = true;
    tell("Not connected. This will be sent as soon as the connection is back.");
  } else if (socket.bufferedAmount > BUFFERED_BYTES) {
    tell("The network is slow. Please try again in a moment.");
  } else {
    socket.send(text);
    unseen.push(text);
    if (unseen.length > UNSEEN) unseen.shift();
    clearTimeout(echo);
    echo = setTimeout(() => tell(ON_ITS_WAY), ECHO_TIME);
    msg.value = "";
    tell("");
    follow();
  }
}

function keepTyping() {
  sendOnceOpen = false;
  tell("");
}

// A message is known to have arrived when the server hands it back, as it does to everybody in the room.
function markSeen(text) {
  const at = unseen.indexOf(text);
  if (at < 0) return;
  unseen.splice(at, 1);
  if (unseen.length > 0) return;
  clearTimeout(echo);
  untell(ON_ITS_WAY);
}

function giveBackUnseen() {
  clearTimeout(echo);
  if (unseen.length === 0) return "";
  const lost = unseen.splice(0);
  if (msg.value === "") msg.value = lost.at(-1);
  return lost.length === 1
    ? "Your last message may not have arrived."
    : `Your last ${lost.length} messages may not have arrived.`;
}

function tell(text) {
  if (note.textContent !== text) note.textContent = text;
}

// Takes back what no longer holds, and leaves alone what was said since.
function untell(text) {
  if (note.textContent === text) tell("");
}

// ---- Showing messages, at most one change of the page per frame ----

const pending = []; // received, not yet on the page
let pendingCharacters = 0;
let shownCharacters = 0;
let received = 0;
let shown = 0;
let skipped = 0; // fell out of `pending` and were never shown
let unread = 0;
let lastTime = "";
let scheduled = false;

function receive(text) {
  markSeen(text);
  quietenFlood();
  received += 1;
  if (!following || document.hidden) unread += 1;
  show({ text, time: new Date().toTimeString().slice(0, 5) });
}

// The room is text, so that what is not is a note, of JSON: what the server says of messages that are not coming.
function hearNote(data) {
  let note;
  try {
    note = JSON.parse(decoder.decode(data));
  } catch {
    return;
  }
  if (note?.type === "gap") markMissing(MISSING);
  else if (note?.type === "dropped") markMissing(howMany(note.messages));
}

function howMany(messages) {
  if (!Number.isSafeInteger(messages) || messages < 1) return MISSING;
  return messages === 1 ? "1 message is missing here" : `${number(messages)} messages are missing here`;
}

// One mark stands for all that is missing between two messages.
function markMissing(text) {
  const last = pending.length > 0 ? pending.at(-1).missing : chat.lastElementChild?.classList.contains("missing");
  if (!last) show({ text, missing: true });
}

function show(item) {
  pending.push(item);
  pendingCharacters += item.text.length;
  while (pending.length > KEEP || pendingCharacters > KEEP_CHARACTERS) {
    const left = pending.shift();
    pendingCharacters -= left.text.length;
    if (left.missing) continue;
    skipped += 1;
  }
  if (scheduled) return;
  scheduled = true;
  // A hidden tab gets no frames, but what it shows and its title stay up to date.
  if (document.hidden) setTimeout(render, 100);
  else requestAnimationFrame(render);
}

function render() {
  scheduled = false;
  const batch = document.createDocumentFragment();
  // Nothing that the reader looks back at is taken away: the page grows a while, then new messages wait.
  const factor = following ? Infinity : 2;
  const fits = () =>
    chat.childElementCount + batch.childElementCount < factor * KEEP && shownCharacters < factor * KEEP_CHARACTERS;
  if (skipped > 0 && fits()) {
    batch.append(paragraph(`${number(skipped)} messages came too fast to show`, "skipped"));
    skipped = 0;
  }
  while (pending.length > 0 && fits()) batch.append(element(pending.shift()));
  chat.append(batch);
  if (following) {
    while (chat.childElementCount > KEEP || shownCharacters > KEEP_CHARACTERS) removeOldest();
    toBottom();
    if (!document.hidden) unread = 0;
  }
  renderCounts();
}

function element({ text, time, missing }) {
  pendingCharacters -= text.length;
  if (missing) return paragraph(text, "missing");
  const message = paragraph(text, time === lastTime ? "" : "minute");
  message.dir = "auto";
  message.dataset.time = time;
  lastTime = time;
  shown += 1;
  return message;
}

function paragraph(text, className) {
  const element = document.createElement("p");
  element.className = className;
  element.textContent = text;
  shownCharacters += text.length;
  return element;
}

function removeOldest() {
  const oldest = chat.firstElementChild;
  shownCharacters -= oldest.textContent.length;
  if (oldest.dataset.time) shown -= 1;
  oldest.remove();
}

function renderCounts() {
  newer.hidden = following || unread === 0;
  newer.textContent = unread === 1 ? "1 new message" : `${number(unread)} new messages`;
  const waiting = pending.filter(({ missing }) => !missing).length;
  count.textContent = received > shown + waiting ? `${number(shown)} of ${number(received)} messages` : "";
  document.title = `${unread > 0 ? `(${number(unread)}) ` : ""}${roomName} · Fanfare`;
}

function number(n) {
  return n.toLocaleString("en");
}

// ---- Following the newest message, unless the reader looks back ----

let following = true;

function noticeScroll() {
  // Scroll positions are fractional where the display is scaled.
  following = chat.scrollHeight - chat.scrollTop - chat.clientHeight < 2;
  if (following && unread > 0) render();
}

function follow() {
  following = true;
  render();
}

function toBottom() {
  chat.scrollTop = chat.scrollHeight;
}

// ---- The page around the messages ----

let second = 0;
let inSecond = 0;
let calm = 0;

// A screen reader would still be reading a flood when it is long over.
function quietenFlood() {
  const now = Math.floor(performance.now() / 1000);
  if (now !== second) [second, inSecond] = [now, 0];
  inSecond += 1;
  if (inSecond !== LOUD + 1) return;
  chat.setAttribute("aria-live", "off");
  hush.textContent = "Many messages at once: they are not read aloud until it is calmer.";
  clearTimeout(calm);
  calm = setTimeout(() => {
    chat.setAttribute("aria-live", "polite");
    hush.textContent = "";
  }, CALM_TIME);
}

function goToRoom(event) {
  event.preventDefault();
  const name = byId("room").value.trim();
  location.assign(name === "" ? "./" : `./?room=${encodeURIComponent(name)}`);
}

// Some phones lay their keyboard over the page instead of making it smaller.
function fitAboveKeyboard() {
  if (visualViewport.scale > 1.01) return;
  document.body.style.height = `${visualViewport.height}px`;
  scrollTo(0, 0);
}

start();
