// What cameras saw: the list follows by itself, events open in a window over it, y and n say whether they were right.
const REFRESH_MS = 3000, PATIENCE_MS = 10000, MOST = 500;
const live = document.getElementById("live"), dialog = document.getElementById("window"), inside = document.getElementById("inside");
const news = document.getElementById("news"), said = document.getElementById("said"), lost = document.getElementById("lost");
const served = new WeakMap(); // elements of a keyed list → their HTML as it came
let zone = "";
try { zone = Intl.DateTimeFormat().resolvedOptions().timeZone || ""; } catch { /* the server's times stay */ }

// Times, as the server writes them, in the browser's zone.
const MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
const two = (number) => String(number).padStart(2, "0");
function localise(root) {
  for (const time of root.querySelectorAll("time")) {
    const at = new Date(time.dateTime);
    if (!isNaN(at)) time.textContent = `${at.getDate()} ${MONTHS[at.getMonth()]}${at.getFullYear() === new Date().getFullYear() ? "" : ` ${at.getFullYear()}`}, ${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`;
  }
}

function parsed(html) {
  return new DOMParser().parseFromString(html, "text/html").body;
}

async function fetched(address, options) { // a server may hang, or a line break, without a word
  const ends = new AbortController(), timer = setTimeout(() => ends.abort(), PATIENCE_MS);
  try {
    const answer = await fetch(address, { ...options, signal: ends.signal });
    return { answer, text: await answer.text() };
  } catch {
    throw new Error("The server does not answer.");
  } finally {
    clearTimeout(timer);
  }
}

async function part(address, tag) {
  const { answer, text } = await fetched(address, { headers: tag ? { "If-None-Match": tag } : {}, cache: "no-store" });
  if (answer.status === 304) return null;
  if (answer.redirected && answer.url.includes("/login")) { location.reload(); return null; }
  if (!answer.ok) throw new Error(answer.status === 404 ? "This event is not known any more." : `The server answered ${answer.status}.`);
  return { html: text, tag: answer.headers.get("ETag") };
}

// The list.

let tag = "", limit = 0, timer = 0, isAsking = false;

function remember(root) {
  for (const list of root.querySelectorAll("[data-keyed]")) for (const item of list.children) served.set(item, item.outerHTML);
}

function listAddress() {
  const query = new URLSearchParams(location.search);
  query.set("part", "1");
  if (limit) query.set("limit", limit);
  return `/cameras?${query}`;
}

function merge(old, fresh) { // rows that are the same stay: focus and pictures with them
  const held = new Map([...old.children].map((item) => [item.dataset.key, item]));
  let place = old.firstElementChild;
  for (const item of [...fresh.children]) {
    const html = item.outerHTML, known = held.get(item.dataset.key);
    held.delete(item.dataset.key);
    if (known && served.get(known) === html) {
      if (known === place) place = place.nextElementSibling;
      else old.insertBefore(known, place);
      continue;
    }
    served.set(item, html);
    localise(item);
    if (!known) { old.insertBefore(item, place); continue; }
    const hadFocus = known.contains(document.activeElement);
    if (known === place) place = place.nextElementSibling;
    known.replaceWith(item);
    if (hadFocus) item.querySelector("a")?.focus();
  }
  for (const item of held.values()) item.remove();
}

function show(html) {
  const fresh = parsed(html), before = new Set(rows().map((row) => row.dataset.key)), newest = rows()[0]?.dataset.at ?? "";
  const olds = [...live.querySelectorAll("[data-keyed]")], lists = [...fresh.querySelectorAll("[data-keyed]")];
  lists.forEach((list, i) => merge(olds[i], list));
  const now = rows().filter((row) => !before.has(row.dataset.key) && row.dataset.at >= newest);
  for (const row of now) row.classList.add("fresh");
  for (const name of ["#count", ".pages", ".get"]) {
    const was = live.querySelector(name), is = fresh.querySelector(name);
    if (was && is && was.innerHTML !== is.innerHTML) was.replaceWith(is);
  }
  const wasEmpty = live.querySelector(".empty"), isEmpty = fresh.querySelector(".empty");
  if (wasEmpty && !isEmpty) wasEmpty.remove();
  if (!wasEmpty && isEmpty) live.querySelector(".pages").before(isEmpty);
  const button = live.querySelector("#mark-all"), isNeeded = fresh.querySelector("#mark-all");
  if (button && !isNeeded) button.remove();
  if (!button && isNeeded) live.querySelector(".get").before(isNeeded);
  prepare();
  return now;
}

function tell(rowsOf) {
  if (!rowsOf.length || new URLSearchParams(location.search).has("cursor")) return;
  news.textContent = rowsOf.length === 1 ? `New event: ${rowsOf[0].dataset.says}` : `${rowsOf.length} new events`;
}

async function refresh() {
  clearTimeout(timer);
  if (!isAsking && !document.hidden) {
    isAsking = true;
    try {
      const got = await part(listAddress(), tag);
      if (got && !dialog.open) { tag = got.tag; tell(show(got.html)); } // behind an open window nothing moves
      lost.hidden = true;
    } catch { lost.hidden = false; }
    isAsking = false;
  }
  clearTimeout(timer);
  timer = setTimeout(refresh, REFRESH_MS);
}

const rows = () => [...live.querySelectorAll(".events > li")];

function prepare() {
  const button = live.querySelector("#mark-all"), filter = live.querySelector("input[name=zone]");
  if (button) button.hidden = false;
  if (filter && zone && zone !== live.dataset.zone) { filter.value = zone; filter.disabled = false; }
}

async function more(count) {
  limit = count;
  tag = "";
  const got = await part(listAddress(), "");
  if (got) { tag = got.tag; show(got.html); }
}

// One event.

let order = [], key = "", page = null;

async function open(next, { push = false } = {}) {
  key = next;
  const wasPlaying = inside.querySelector("video");
  wasPlaying?.pause();
  if (!dialog.open) { order = rows().map((row) => row.dataset.key); dialog.showModal(); }
  if (push) history.pushState({ key }, "", `/cameras/events/${key}`);
  else history.replaceState({ key }, "", `/cameras/events/${key}`);
  await load();
  inside.querySelector("#event-title")?.focus();
}

async function load({ quietly = false } = {}) {
  const wanted = key;
  try {
    const got = await part(`/cameras/events/${wanted}?part=1${zone ? `&zone=${encodeURIComponent(zone)}` : ""}`);
    if (!got || wanted !== key) return;
    const fresh = parsed(got.html).firstElementChild, old = inside.querySelector(".seen");
    localise(fresh);
    const isSame = quietly && old?.dataset.key === wanted && old.dataset.clip === fresh.dataset.clip;
    if (isSame) { // what plays goes on
      for (const name of [".states", ".facts"]) old.querySelector(name).replaceWith(fresh.querySelector(name));
      pressed(old, fresh.dataset.mark);
    } else {
      inside.replaceChildren(fresh);
      play(fresh);
    }
  } catch (error) {
    const message = document.createElement("p");
    message.className = "error";
    message.setAttribute("role", "alert");
    message.textContent = error.message;
    inside.replaceChildren(message);
  }
  if (page === null) showPlace();
}

function pressed(seen, mark) {
  seen.dataset.mark = mark;
  for (const button of seen.querySelectorAll("[data-word]")) {
    if (button.dataset.word) button.setAttribute("aria-pressed", String(button.dataset.word === mark));
    else button.disabled = !mark;
  }
}

function play(root) {
  const video = root.querySelector("video");
  if (video && !matchMedia("(prefers-reduced-motion: reduce)").matches) video.play().catch(() => { /* on a click */ });
}

function showPlace() {
  const at = order.indexOf(key);
  document.getElementById("place").textContent = at < 0 ? "" : `${at + 1} of ${order.length}${live.querySelector("#more") ? "+" : ""}`;
  for (const button of dialog.querySelectorAll("[data-go]")) button.disabled = at < 0 || !(order[at + Number(button.dataset.go)] || (button.dataset.go === "1" && canGrow()));
}

const canGrow = () => Number(live.querySelector("#more")?.dataset.limit) > 0;

async function go(step) {
  let next = order[order.indexOf(key) + step];
  if (!next && step > 0 && canGrow()) {
    await more(Math.min(MOST, Number(live.querySelector("#more").dataset.limit)));
    const known = new Set(order);
    order.push(...rows().map((row) => row.dataset.key).filter((one) => !known.has(one)));
    next = order[order.indexOf(key) + step];
  }
  if (next) await open(next);
  else said.textContent = step > 0 ? "This is the last event." : "This is the newest event.";
}

function reason(text) {
  try { return JSON.parse(text).error; } catch { return null; }
}

let isMarking = false;
async function mark(word) {
  const seen = inside.querySelector(".seen"), problem = inside.querySelector(".error");
  if (!seen || isMarking) return;
  isMarking = true;
  const label = word === "wrong" ? seen.querySelector("#was")?.value ?? "" : "";
  try {
    const { answer, text } = await fetched(`/api/events/${seen.dataset.key}/mark`, {
      method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ mark: word, label }),
    });
    if (!answer.ok) throw new Error(reason(text) ?? `The server answered ${answer.status}.`);
    problem.textContent = "";
    pressed(seen, word);
    said.textContent = `${seen.dataset.says}: ${word ? `marked ${word}` : "mark taken back"}.`;
    if (dialog && word) await go(1);
    if (!dialog || key === seen.dataset.key) await load({ quietly: true });
  } catch (error) {
    problem.textContent = `Not marked: ${error.message}`;
  }
  isMarking = false;
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-word]");
  if (button) mark(button.dataset.word);
});

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("select, input, textarea")) return;
  if (!inside?.querySelector(".seen") || (dialog && !dialog.open)) return;
  const word = { y: "right", n: "wrong", u: "" }[event.key.toLowerCase()];
  if (word !== undefined) { event.preventDefault(); if (!event.repeat) mark(word); return; }
  const step = { ArrowRight: 1, ArrowDown: 0, ArrowLeft: -1 }[event.key];
  if (dialog && step && event.target.tagName !== "VIDEO") { event.preventDefault(); go(step); }
});

function waitForClip() { // of an event that is open
  const state = inside?.querySelector(".seen")?.dataset.clip;
  if (state === "coming" && !document.hidden && (!dialog || dialog.open)) load({ quietly: true });
  setTimeout(waitForClip, REFRESH_MS);
}

if (dialog && live) {
  localiseAll();
  const list = location.pathname + location.search;
  live.addEventListener("click", (event) => {
    const link = event.target.closest("a.event, a.picture"), plain = !(event.ctrlKey || event.metaKey || event.shiftKey);
    if (link && plain) { event.preventDefault(); open(link.pathname.split("/").pop(), { push: true }); }
    if (event.target.closest("#mark-all")) open(rows().find((row) => !row.dataset.mark)?.dataset.key ?? rows()[0].dataset.key, { push: true });
    const older = event.target.closest("#more");
    if (older && plain && Number(older.dataset.limit)) { event.preventDefault(); more(Number(older.dataset.limit)); }
  });
  live.addEventListener("change", (event) => { if (event.target.closest(".filters select")) event.target.form.requestSubmit(); });
  dialog.addEventListener("click", (event) => {
    const button = event.target.closest("[data-go]");
    if (button) go(Number(button.dataset.go));
    if (event.target.closest("[data-close]") || event.target === dialog) dialog.close();
  });
  dialog.addEventListener("close", () => {
    inside.querySelector("video")?.pause();
    if (history.state?.key) history.back();
    const row = rows().find((one) => one.dataset.key === key);
    inside.replaceChildren();
    row?.querySelector("a").focus();
    tag = "";
    refresh();
  });
  addEventListener("popstate", (event) => { if (!event.state?.key && dialog.open) dialog.close(); else if (event.state?.key) open(event.state.key); });
  document.addEventListener("visibilitychange", () => { if (!document.hidden) refresh(); });
  if (history.state?.key) history.replaceState(null, "", list);
  timer = setTimeout(refresh, REFRESH_MS);
} else if (inside) {
  page = inside;
  key = inside.querySelector(".seen").dataset.key;
  localise(document);
}
waitForClip();

function localiseAll() {
  remember(live);
  localise(live);
  prepare();
}
