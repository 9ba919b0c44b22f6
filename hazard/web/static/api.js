// The server's JSON, with every failure as one line for people.
import {sentence} from "./words.js";

export class Failure extends Error {
  constructor(message, status = 0) {
    super(message);
    this.status = status;
  }
}
const PATIENCE_MS = 20000;
const OFFLINE = "The server does not answer. It may have been stopped, or the connection is gone.";
const USUAL = {401: "You are signed out. Load the page again to sign in.", 413: "The video is larger than this server takes.", 429: "Too much at once. Try again in a moment.", 503: "The server is busy. Try again in a moment."};

export async function ask(path, options = {}) {
  const ends = new AbortController(), timer = setTimeout(() => ends.abort(), PATIENCE_MS); // a server may hang, or a line break, without a word
  let status, text;
  try {
    const answer = await fetch(path, {headers: {Accept: "application/json", ...(options.body ? {"Content-Type": "application/json"} : {})}, ...options, signal: ends.signal});
    status = answer.status;
    text = await answer.text();
  } catch {
    throw new Failure(OFFLINE);
  } finally {
    clearTimeout(timer);
  }
  return understood(status, text);
}
// What the server said, from its status and text; what is no JSON is never shown.
export function understood(status, text) {
  let said = null;
  try { said = text ? JSON.parse(text) : null; } catch { /* not ours: a proxy's page, say */ }
  if (status >= 200 && status < 300) return said;
  throw new Failure(sentence((typeof said?.error === "string" && said.error) || USUAL[status] || `The server says: ${status || "nothing"}.`), status);
}
export const offline = () => new Failure(OFFLINE);

// Calls `step` again and again until it returns true; slower while nothing changes, at once when the page is looked at again.
export function repeat(step, {first = 250, most = 2500} = {}) {
  let wait = first, timer = 0, isOver = false, isRunning = false;
  async function turn() {
    if (isOver || isRunning) return;
    isRunning = true;
    clearTimeout(timer);
    const before = wait;
    try {
      isOver = await step(() => { wait = first; }) === true;
    } finally {
      isRunning = false;
    }
    wait = Math.min(most, (wait === first && before !== first ? first : wait) * 1.3);
    if (!isOver) timer = setTimeout(turn, document.hidden ? most * 4 : wait);
  }
  const seen = () => { if (!document.hidden) { wait = first; turn(); } };
  document.addEventListener("visibilitychange", seen);
  turn();
  return {stop() { isOver = true; clearTimeout(timer); document.removeEventListener("visibilitychange", seen); }, now: seen};
}
