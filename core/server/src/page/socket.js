// One WebSocket that is wanted for as long as the page is open: dialled, watched, dialled again.

// Times in milliseconds.
const RETRY_BASE = 500;
const RETRY_CAP = 30_000;
const DIAL_TIME = 10_000;
const STABLE_TIME = 5_000;
const ANSWER_TIME = 3_000;
const REQUEST_TIME = 5_000;

const NOTES = "fanfare.notes"; // the subprotocol in which the server says how the connection is
const QUESTION = new Uint8Array(0); // in that subprotocol, what the server answers at once
const SAID = 200; // characters of an answer that are shown

const decoder = new TextDecoder();

// Calls `on.opened(hasNotes, away)`, with the milliseconds since something came last through an earlier connection or 0,
// `on.message(text)`, `on.note(object)`, `on.closed({code, reason, failures})` and, when a dial has failed and somebody
// can say why, `on.refused(sentence)`.
export function keepConnected(address, on) {
  let socket = null; // from dial to end
  let openedAt = 0; // 0 while not open
  let offersNotes = true;
  let failures = 0; // in a row
  let heard = 0; // when something came last
  let period = 0; // within which the server has promised to say something; 0 without a promise
  let retry = 0;
  let watch = 0;
  let proof = 0;

  function dial() {
    if (socket) return;
    clearTimeout(retry);
    const mine = new WebSocket(address, offersNotes ? NOTES : []);
    socket = mine;
    mine.binaryType = "arraybuffer";
    const late = setTimeout(() => end(mine), DIAL_TIME);
    mine.addEventListener("open", () => {
      clearTimeout(late);
      if (mine !== socket) return;
      openedAt = performance.now();
      const away = heard ? Date.now() - heard : 0;
      hear();
      on.opened(mine.protocol === NOTES, away);
    });
    mine.addEventListener("message", ({ data }) => {
      if (mine !== socket) return;
      hear();
      if (typeof data === "string") on.message(data);
      else readNote(data);
    });
    mine.addEventListener("close", (close) => {
      clearTimeout(late);
      end(mine, close);
    });
  }

  // The end of `mine` for the page. What is left of a dead connection may take minutes to close.
  function end(mine, { code = 1006, reason = "" } = {}) {
    if (mine !== socket || !mine) return;
    const wasOpen = openedAt > 0;
    // A server that accepts and at once closes again must not be dialled at full speed.
    const wasStable = wasOpen && performance.now() - openedAt > STABLE_TIME;
    failures = wasStable ? 1 : failures + 1;
    [socket, openedAt, period] = [null, 0, 0];
    clearTimeout(watch);
    clearTimeout(proof);
    mine.close();
    // Random, so that the clients of a server that comes back do not all come at once, and never at once.
    const longest = Math.min(RETRY_CAP, RETRY_BASE * 2 ** failures);
    retry = setTimeout(dial, (longest * (1 + Math.random())) / 2);
    on.closed({ code, reason, failures });
    // While a server is away it is not asked twice for each dial.
    if (!wasOpen && Number.isInteger(Math.log2(failures))) findOutWhy(failures);
  }

  function redial() {
    end(socket);
    dial();
  }

  // ---- Whether a connection that seems to be open is ----

  function hear() {
    heard = Date.now();
  }

  // The room is text, so that what is not is a note, of JSON.
  function readNote(data) {
    let note;
    try {
      note = JSON.parse(decoder.decode(data));
    } catch {
      return;
    }
    if (note?.type === "alive" && note.seconds > 0) {
      period = note.seconds * 1000;
      watchSilence();
    }
    if (typeof note === "object" && note) on.note(note);
  }

  // The clock of the wall goes on while a computer sleeps, other clocks may not.
  function watchSilence() {
    clearTimeout(watch);
    const left = heard + 2 * period - Date.now();
    if (left > 0) watch = setTimeout(watchSilence, left);
    else redial();
  }

  // After a sleep, or whatever else may have cut the wire without a sound.
  function prove() {
    if (!socket) return dial();
    if (!openedAt || !period) return;
    const asked = Date.now();
    if (asked - heard > 2 * period) return redial();
    clearTimeout(proof);
    proof = setTimeout(() => heard < asked && redial(), ANSWER_TIME);
    socket.send(QUESTION);
  }

  // The network is another one, as far as anybody knows.
  addEventListener("online", () => (openedAt ? redial() : dial()));
  addEventListener("pageshow", prove);
  document.addEventListener("visibilitychange", () => document.hidden || prove());

  // ---- Why a dial has failed, of which browsers tell nothing ----

  async function findOutWhy(failure) {
    const answer = await get(address);
    const readiness = answer?.status === 426 ? await get(new URL("ready", document.baseURI)) : null;
    if (openedAt || failures !== failure) return;
    // Perhaps something in between drops the subprotocol, without which a browser gives up.
    const isReady = !readiness?.said.startsWith("not ready");
    if (answer?.status === 426 && isReady) offersNotes = !offersNotes;
    else offersNotes = true;
    on.refused(isReady ? reasonOf(answer) : `The server is ${readiness.said}.`);
  }

  dial();
  return {
    dial,
    isOpen: () => openedAt > 0 && socket.readyState === WebSocket.OPEN,
    unsentBytes: () => socket.bufferedAmount,
    send: (text) => socket.send(text),
  };
}

async function get(url) {
  const plain = new URL(url);
  plain.protocol = plain.protocol.replace("ws", "http");
  const signal = AbortSignal.timeout(REQUEST_TIME);
  try {
    const answer = await fetch(plain, { cache: "no-store", redirect: "manual", signal });
    const isText = answer.headers.get("content-type")?.startsWith("text/plain");
    const said = isText ? (await answer.text()).trim().replace(/\.$/, "").slice(0, SAID) : "";
    return { status: answer.status, said };
  } catch {
    return null;
  }
}

function reasonOf(answer) {
  if (!answer) return "The server cannot be reached.";
  const { status, said } = answer;
  const text = said ? `: ${said}` : "";
  switch (status) {
    case 0:
      return "Something in between sends the WebSocket elsewhere, to a login perhaps.";
    case 400:
      return `The server refuses this room (400)${text}.`;
    case 401:
      return "The server wants a login first (401).";
    case 403:
      return `The server refuses this page (403)${text}.`;
    case 404:
      return `The server has no such room (404)${text}.`;
    case 426:
      return "The server is there and refuses the WebSocket (426). A proxy must pass on Upgrade, and Host as it came.";
    case 502:
    case 504:
      return `A proxy is there, and the server behind it is not (${status}).`;
    case 503:
      return `The server takes nobody for now (503)${text}.`;
    default:
      return `Something else than a WebSocket answers for this room (${status})${text}.`;
  }
}
