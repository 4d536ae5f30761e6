// The messages on the page, at most one change of it per frame.

const KEEP = 500; // messages on the page; up to twice as many while the reader looks back
const KEEP_CHARACTERS = 1 << 20; // the same bound for long messages
const LOUD = 10; // messages in a second that a screen reader can still follow
const CALM_TIME = 5_000; // milliseconds
const LINKS = 100; // in one message

const byId = (id) => document.getElementById(id);
const [chat, count, newer, hush] = ["chat", "count", "newer", "hush"].map(byId);

const pending = []; // received, not yet on the page
let pendingCharacters = 0;
let shownCharacters = 0;
let received = 0;
let shown = 0;
let skipped = 0; // fell out of `pending` and were never shown
let unread = 0;
let lastTime = "";
let scheduled = false;
let following = true; // the newest message, unless the reader looks back
let title = "";

export function openLog(name) {
  title = name;
  chat.addEventListener("scroll", noticeScroll, { passive: true });
  newer.addEventListener("click", follow);
  new ResizeObserver(() => following && toBottom()).observe(chat);
  document.addEventListener("visibilitychange", render);
  renderCounts();
}

export function addMessage(text, isOwn) {
  quietenFlood();
  received += 1;
  if (!following || document.hidden) unread += 1;
  show({ text, isOwn, time: new Date().toTimeString().slice(0, 5) });
}

// One mark stands for all that is missing between two messages.
export function markMissing(text, detail = "") {
  const last = pending.length > 0 ? pending.at(-1).missing : chat.lastElementChild?.classList.contains("missing");
  if (!last) show({ text, detail, missing: true });
}

export function follow() {
  following = true;
  render();
}

export function number(n) {
  return n.toLocaleString("en");
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
    batch.append(paragraph([`${number(skipped)} messages came too fast to show`], "skipped"));
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

function element({ text, isOwn, time, detail, missing }) {
  pendingCharacters -= text.length;
  if (missing) {
    const mark = paragraph([text], "missing");
    if (detail) mark.dataset.detail = detail;
    return mark;
  }
  const message = paragraph(withLinks(text), isOwn ? "own" : "");
  if (time !== lastTime) message.classList.add("minute");
  message.dir = "auto";
  message.dataset.time = time;
  lastTime = time;
  shown += 1;
  return message;
}

function paragraph(parts, className) {
  const element = document.createElement("p");
  element.className = className;
  element.append(...parts);
  shownCharacters += element.textContent.length;
  return element;
}

// The text in parts, of which some are links: the text of all together is what it was.
function withLinks(text) {
  const parts = [];
  let at = 0;
  for (const { 0: found, index } of text.matchAll(/\bhttps?:\/\/[^\s<>"]+/gi)) {
    // What ends a sentence or closes a bracket around the link is none of it.
    let link = found.replace(/[.,:;!?'’”*_]+$/, "");
    if (link.endsWith(")") && !link.includes("(")) link = link.slice(0, -1);
    if (parts.length > 2 * LINKS || !URL.canParse(link)) continue;
    parts.push(text.slice(at, index), anchor(link));
    at = index + link.length;
  }
  return [...parts, text.slice(at)];
}

function anchor(link) {
  const element = document.createElement("a");
  element.href = link;
  element.target = "_blank";
  element.rel = "noopener noreferrer";
  element.textContent = link;
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
  document.title = `${unread > 0 ? `(${number(unread)}) ` : ""}${title} · Fanfare`;
}

function noticeScroll() {
  // Scroll positions are fractional where the display is scaled.
  following = chat.scrollHeight - chat.scrollTop - chat.clientHeight < 2;
  if (following && unread > 0) render();
}

function toBottom() {
  chat.scrollTop = chat.scrollHeight;
}

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
