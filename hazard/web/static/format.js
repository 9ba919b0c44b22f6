// Texts for states, times, sizes and probabilities.
import {clock, h, marked, percent, s, span} from "./text.js";

// Keeps a number and its unit on the same line.
const keepUnits = (text) => text.replace(/(\d) (?=%|s\b)/g, "$1\u00a0");
export const percentText = (p) => keepUnits(percent(p));
// A probability. If it would read like the threshold without being equal, it gets the digits that tell them apart.
export function probabilityText(p, threshold) {
  if (threshold === null || p === threshold || Math.round(100 * p) !== Math.round(100 * threshold)) return percentText(p);
  const digits = [1, 2].find((n) => (100 * p).toFixed(n) !== (100 * threshold).toFixed(n)) ?? 3;
  return `${(100 * p).toFixed(digits)}\u00a0%`;
}
export const timeSpan = (from, to) => keepUnits(span(from, to));
// The server's messages begin in lower case, as on a command line. The page shows them as sentences.
const STAGES = {open: "The video could not be opened", fetch: "The video could not be downloaded", decode: "The video could not be read", server: "The server failed"};
export function toSentence(text) {
  const [, stage, reason] = /^([a-z]+): (.*)$/s.exec(text) ?? [];
  if (STAGES[stage]) return `${STAGES[stage]}: ${reason}`;
  return /^[a-z]+ /.test(text) ? text[0].toUpperCase() + text.slice(1) : text;
}

export const withPeriod = (text) => /[.!?]$/.test(text) ? text : `${text}.`;
export const isOver = (job) => job.state === "done" || job.state === "failed";

export function stateText(job) {
  switch (job.state) {
    case "queued": return job.place > 1 ? `Queued, ${job.place - 1} ahead` : job.place === 1 ? "Next in the queue" : "Queued";
    case "fetching": return `Downloading the video, ${percentText(job.progress)}`;
    case "decoding": return `Analysing, ${percentText(job.progress)}`;
    case "failed": return "Analysis failed";
    default: return "Done";
  }
}
export function badge(label, kind) {
  const shape = kind === "hot" ? s("path", {d: "M5 .8 9.6 9.2H.4z"}) : s("circle", {cx: 5, cy: 5, r: 3.6});
  return h("span", {class: `badge ${kind}`}, s("svg", {viewBox: "0 0 10 10", "aria-hidden": "true"}, shape), marked(label));
}
export function progressBar(part, name) {
  const known = Number.isFinite(part);
  return h("div", {class: "progress", role: "progressbar", "aria-label": name, "aria-valuemin": "0", "aria-valuemax": "100",
                   "aria-valuenow": known ? Math.round(100 * part) : null}, h("i", {"--p": known ? part : 0}));
}
export function setProgress(bar, part) {
  bar.setAttribute("aria-valuenow", Math.round(100 * part));
  bar.firstElementChild.style.setProperty("--p", part);
}
export function formatBytes(number) {
  for (const [unit, size] of [["GB", 1e9], ["MB", 1e6], ["kB", 1e3]])
    if (number >= size) return `${(number / size).toFixed(number < 10 * size && number % size ? 1 : 0)} ${unit}`;
  return `${number} bytes`;
}
const day = new Intl.DateTimeFormat(undefined, {day: "numeric", month: "short", hour: "2-digit", minute: "2-digit"});
const hour = new Intl.DateTimeFormat(undefined, {hour: "2-digit", minute: "2-digit"});
export function timeElement(text) {
  const time = new Date(text), seconds = (Date.now() - time) / 1000;
  if (Number.isNaN(+time)) return "";
  const shown = seconds < 60 ? "just now" : seconds < 3600 ? `${Math.floor(seconds / 60)} min ago`
    : time.toDateString() === new Date().toDateString() ? `today, ${hour.format(time)}` : day.format(time);
  return h("time", {datetime: text, title: time.toLocaleString()}, shown);
}
export function durationText(job) {
  return Number.isFinite(job.seconds) && job.seconds !== null ? clock(job.seconds) : "";
}
// Joins parts with dots. Empty parts are left out.
export function joinWithDots(...parts) {
  return parts.filter(Boolean).flatMap((part, i) => i ? [" · ", part] : [part]);
}
const ICONS = {
  bin: "M4 7h16M9.5 7V4.5h5V7M6.5 7l.8 12.5h9.4L17.5 7M10 10.5v6M14 10.5v6",
  film: "M4 5h16v14H4zM8 5v14M16 5v14M4 9.7h4M4 14.3h4M16 9.7h4M16 14.3h4",
  down: "M12 4v11m0 0-4.5-4.5M12 15l4.5-4.5M5 19.5h14",
  wide: "M4 9V4h5M20 9V4h-5M4 15v5h5M20 15v5h-5",
  cross: "M6 6l12 12M18 6 6 18",
};
export function icon(name) {
  return s("svg", {viewBox: "0 0 24 24", "aria-hidden": "true", class: "glyph"}, s("path", {d: ICONS[name]}));
}
