// Requests to the server's JSON API. Every failure becomes one sentence for the page.
import {toSentence} from "./format.js";

export class Failure extends Error {
  constructor(message, status = 0) {
    super(message);
    this.status = status;
  }
}
const TIMEOUT_MS = 20000;
const OFFLINE = "The server does not answer. It may have stopped, or the connection was lost.";
const STATUS_MESSAGES = {401: "You are signed out. Reload the page to sign in.", 413: "The video is larger than this server accepts.", 429: "Too many requests. Try again in a moment.", 503: "The server is busy. Try again in a moment."};

export async function ask(path, options = {}) {
  const controller = new AbortController(), timer = setTimeout(() => controller.abort(), TIMEOUT_MS); // the server or the network may hang
  let status, text;
  try {
    const answer = await fetch(path, {headers: {Accept: "application/json", ...(options.body ? {"Content-Type": "application/json"} : {})}, ...options, signal: controller.signal});
    status = answer.status;
    text = await answer.text();
  } catch {
    throw new Failure(OFFLINE);
  } finally {
    clearTimeout(timer);
  }
  return parseAnswer(status, text);
}
// Returns the JSON of an answer or throws its error. Text that is not JSON is never shown.
export function parseAnswer(status, text) {
  let content = null;
  try { content = text ? JSON.parse(text) : null; } catch { /* not from this server, for example a proxy's page */ }
  if (status >= 200 && status < 300) return content;
  throw new Failure(toSentence((typeof content?.error === "string" && content.error) || STATUS_MESSAGES[status] || (status ? `The server answered with status ${status}.` : "The server did not answer.")), status);
}
export const makeOfflineError = () => new Failure(OFFLINE);

// Calls `step` until it returns true: less often while nothing changes, and at once when the page becomes visible again.
export function poll(step, {first = 250, most = 2500} = {}) {
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
  const runNow = () => { if (!document.hidden) { wait = first; turn(); } };
  document.addEventListener("visibilitychange", runNow);
  turn();
  return {stop() { isOver = true; clearTimeout(timer); document.removeEventListener("visibilitychange", runNow); }, now: runNow};
}
