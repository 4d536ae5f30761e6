// Node's `ws`: says what it is told, and ends when it has heard both that and the answer. Arguments: URL, text, answer.
import WebSocket from "ws";

const [url, text, answer] = process.argv.slice(2);
const waitingFor = new Set([text, answer]);
const socket = new WebSocket(url);
socket.on("open", () => socket.send(text));
socket.on("message", (data, isBinary) => {
  if (!isBinary) waitingFor.delete(data.toString());
  if (waitingFor.size === 0) socket.close(1000);
});
socket.on("close", (code) => process.exit(waitingFor.size === 0 && code === 1000 ? 0 : 1));
