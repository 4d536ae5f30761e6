// The chat page: one room, one WebSocket, every message shown as the plain text that it is.

import { addMessage, follow, markMissing, number, openLog } from "./log.js";
import { keepConnected } from "./socket.js";

const MESSAGE_BYTES = 64 << 10; // the server's default limit
const ROOM_BYTES = 250; // a channel's name has 255 by default, of which 5 are `chat:`
const BUFFERED_BYTES = 256 << 10; // more than this unsent, and the network is too slow to take another
const UNSEEN = 500; // own messages that may be on their way
const UNSEEN_CHARACTERS = 1 << 20; // the same bound for long messages
const PATIENCE = 2; // failed connections in a row that are nothing to explain

// Times in milliseconds.
const ECHO_TIME = 3_000;
const LOST_TIME = 90_000; // longer than the server lets a message wait for Redis, by default
const COPIED_TIME = 2_000;

const MISSING = "Messages may be missing here";
const ON_ITS_WAY = "On its way…";
const WAITS = "The server has lost Redis. What you send waits there.";
const PLAIN = "Something in between drops Sec-WebSocket-Protocol: this page cannot tell what is missing.";

const byId = (id) => document.getElementById(id);
const [msg, status, note] = ["msg", "status", "note"].map(byId);

const room = cleanName(new URLSearchParams(location.search).get("room") ?? "");
const address = new URL(room ? `chat/${encodeURIComponent(room)}` : "chat", document.baseURI);
address.protocol = address.protocol.replace("http", "ws");
let connection = null;

function start() {
  byId("name").textContent = room || "Chat";
  openLog(room || "Chat");
  byId("go").addEventListener("submit", goToRoom);
  // For the panel when it opens. In the markup it would ask for the focus of the whole page.
  byId("room").autofocus = true;
  visualViewport?.addEventListener("resize", fitAboveKeyboard);
  const wrong = whyNoRoom(room);
  if (wrong) return refuseRoom(wrong);
  byId("send").addEventListener("submit", (event) => {
    event.preventDefault();
    send();
  });
  msg.addEventListener("input", keepTyping);
  msg.addEventListener("keydown", sendByEnter);
  byId("newer").addEventListener("click", () => msg.focus());
  showCommand();
  // Where there is no touch keyboard to pop up, typing can begin at once.
  if (matchMedia("(hover: hover) and (pointer: fine)").matches) msg.focus();
  connection = keepConnected(address, { opened, message: receive, note: hearNote, closed, refused });
}

// ---- The connection ----

let hasNotes = false;
let isCut = false; // the server itself, from Redis
let refusal = ""; // as it was told last

function opened(withNotes, away) {
  [hasNotes, isCut, sent] = [withNotes, false, 0];
  say("open", "Connected");
  // What was said while nobody was connected did not come.
  if (away > 0) markMissing(MISSING, lasted(away / 1000));
  untell(refusal);
  if (!hasNotes) tell(PLAIN);
  if (sendOnceOpen) send();
}

function closed({ code, reason, failures }) {
  say("closed", whyClosed(code, failures));
  untell(PLAIN);
  const isRefused = code === 1003 || (code >= 1007 && code <= 1009);
  const why = isRefused ? `The server ended the connection: ${reason || `code ${code}`}.` : "";
  const lost = giveBack(unseen.splice(0));
  if (why || lost) tell(`${why} ${lost}`.trim());
}

function whyClosed(code, failures) {
  if (!navigator.onLine) return "Disconnected: no network";
  if (failures > PATIENCE) return "Cannot connect, still trying…";
  if (code === 1013) return "Server busy, reconnecting…";
  return "Disconnected, reconnecting…";
}

function refused(sentence) {
  if (note.textContent === "" || note.textContent === refusal) tell(sentence);
  refusal = sentence;
}

// What the server says beside the messages. Whatever is not known here is left alone.
function hearNote({ type, messages, received, seconds, epoch }) {
  if (type === "alive") markTaken(received);
  else if (type === "dropped") markMissing(howMany(messages));
  else if (type === "gap_began") cut(true);
  else if (type === "gap") {
    // A gap that has a number ends the one that began. One without is messages that the server dropped.
    if (epoch) cut(false);
    markMissing(MISSING, lasted(seconds));
  }
}

function cut(now) {
  if (isCut === now) return;
  isCut = now;
  if (now) say("cut", "Server has lost Redis");
  else say("open", "Connected");
}

function say(state, text) {
  status.dataset.state = state;
  if (status.textContent !== text) status.textContent = text;
}

function howMany(messages) {
  if (!Number.isSafeInteger(messages) || messages < 1) return MISSING;
  return messages === 1 ? "1 message is missing here" : `${number(messages)} messages are missing here`;
}

function lasted(seconds) {
  if (!(seconds >= 1)) return "";
  if (seconds < 100) return `${Math.round(seconds)}\u00a0s`;
  return seconds < 6_000 ? `${Math.round(seconds / 60)}\u00a0min` : `${Math.round(seconds / 3_600)}\u00a0h`;
}

// ---- Sending ----

const encoder = new TextEncoder();
const unseen = []; // own messages that have not come back yet, oldest first
let sent = 0; // through this connection
let sendOnceOpen = false;
let echo = 0;

function send() {
  // What is half of a character arrives as the sign for that.
  const text = msg.value.toWellFormed();
  sendOnceOpen = false;
  if (text.trim() === "") return;
  const bytes = encoder.encode(text).length;
  if (bytes > MESSAGE_BYTES) {
    tell(`Too long to send: ${number(bytes)} bytes, and ${number(MESSAGE_BYTES)} is the most.`);
  } else if (!connection?.isOpen()) {
    sendOnceOpen = true;
    tell("Not connected. This will be sent as soon as the connection is back.");
    connection?.dial();
  } else if (connection.unsentBytes() > BUFFERED_BYTES) {
    tell("The network is slow. Please try again in a moment.");
  } else if (unseen.length >= UNSEEN || unseenCharacters() > UNSEEN_CHARACTERS) {
    tell("Much is on its way already. Please try again in a moment.");
  } else {
    connection.send(text);
    sent += 1;
    // Without notes nobody says what the server has taken.
    unseen.push({ text, number: sent, at: Date.now(), isTaken: !hasNotes });
    watchUnseen();
    write("");
    tell("");
    follow();
  }
}

function sendByEnter(event) {
  // While a character is being composed, Enter is a part of that.
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  send();
}

function keepTyping() {
  sendOnceOpen = false;
  tell("");
  fitField();
}

function receive(text) {
  addMessage(text, isOwn(text));
}

// Anybody may say the same. A message is our own if its text comes back, as it does to everybody in the room, once the
// server has said that it took ours.
function isOwn(text) {
  const at = unseen.findIndex((own) => own.isTaken && own.text === text);
  if (at < 0) return false;
  unseen.splice(at, 1);
  watchUnseen();
  return true;
}

// The server takes messages in order, and counts those of this connection.
function markTaken(received) {
  for (const own of unseen) own.isTaken ||= own.number <= received;
}

function unseenCharacters() {
  return unseen.reduce((sum, { text }) => sum + text.length, 0);
}

function watchUnseen() {
  clearTimeout(echo);
  const lost = unseen.filter(({ at }) => at + LOST_TIME < Date.now());
  if (lost.length > 0) tell(giveBack(unseen.splice(0, lost.length)));
  if (unseen.length === 0) {
    untell(ON_ITS_WAY);
    untell(WAITS);
    return;
  }
  if (unseen[0].at + ECHO_TIME <= Date.now()) {
    const text = isCut ? WAITS : ON_ITS_WAY;
    if (["", ON_ITS_WAY, WAITS].includes(note.textContent)) tell(text);
  }
  echo = setTimeout(watchUnseen, ECHO_TIME);
}

// Puts messages that may be lost back into the field, all of them. Says so.
function giveBack(lost) {
  if (unseen.length === 0) clearTimeout(echo);
  if (lost.length === 0) return "";
  write([...lost.map(({ text }) => text), msg.value].filter((text) => text !== "").join("\n"));
  return lost.length === 1
    ? "Your last message may not have arrived. Here it is again."
    : `Your last ${number(lost.length)} messages may not have arrived. Here they are again.`;
}

function write(text) {
  msg.value = text;
  fitField();
}

// The field grows with what is written, to a third of the window.
function fitField() {
  msg.style.height = "auto";
  msg.style.height = `${msg.scrollHeight + msg.offsetHeight - msg.clientHeight}px`;
}

function tell(text) {
  if (note.textContent !== text) note.textContent = text;
}

// Takes back what no longer holds, and leaves alone what was said since.
function untell(text) {
  if (note.textContent === text) tell("");
}

// ---- Rooms ----

// Names that look alike are one room.
function cleanName(name) {
  return name.toWellFormed().normalize("NFC").trim();
}

// What is wrong with the name, or nothing.
function whyNoRoom(name) {
  const bytes = encoder.encode(name).length;
  if (name === "." || name === "..") return "Browsers take “.” and “..” for steps in a path, never for names.";
  if (/\p{Cc}/u.test(name)) return "The name has a control character, such as a tab or the end of a line.";
  if (bytes > ROOM_BYTES) return `The name is too long: ${number(bytes)} bytes, and ${ROOM_BYTES} is the most.`;
  return "";
}

function goToRoom(event) {
  event.preventDefault();
  const name = cleanName(byId("room").value);
  const wrong = whyNoRoom(name);
  byId("wrong").textContent = wrong;
  if (!wrong) location.assign(name === "" ? "./" : `./?room=${encodeURIComponent(name)}`);
}

function refuseRoom(wrong) {
  say("closed", "Not a room");
  byId("welcome").replaceChildren(...["This cannot be a room.", wrong].map(paragraph));
  for (const control of byId("send").elements) control.disabled = true;
}

function paragraph(text) {
  return Object.assign(document.createElement("p"), { textContent: text });
}

// ---- The page around the messages ----

function showCommand() {
  const url = address.href.replace(/[!'()*]/g, (c) => `%${c.charCodeAt(0).toString(16)}`);
  byId("address").textContent = url;
  byId("command").textContent = `npx wscat -c ${shellWord(url)}`;
  byId("copy").addEventListener("click", copyCommand);
}

// Host and path are the server's or a proxy's, and no shell may read more than one word in them. Without need for quotes
// there are none, since not every shell knows the same.
function shellWord(url) {
  return /^[\w:/.%@+~-]+$/.test(url) ? url : `'${url}'`;
}

async function copyCommand() {
  const [command, copy] = [byId("command"), byId("copy")];
  try {
    await navigator.clipboard.writeText(command.textContent);
  } catch {
    // Only pages that came by HTTPS or from this machine have a clipboard to write to.
    getSelection().selectAllChildren(command);
    document.execCommand("copy");
  }
  copy.textContent = "Copied";
  setTimeout(() => (copy.textContent = "Copy"), COPIED_TIME);
}

// Some phones lay their keyboard over the page instead of making it smaller.
function fitAboveKeyboard() {
  if (visualViewport.scale > 1.01) return;
  document.body.style.height = `${visualViewport.height}px`;
  scrollTo(0, 0);
}

start();
