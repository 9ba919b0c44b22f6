// The page of cameras: the list refreshes itself, events open in a dialog over it, the keys y and n mark them.
const REFRESH_MS = 3000, TIMEOUT_MS = 10000, MAX_EVENTS = 500;
const live = document.getElementById("live"), dialog = document.getElementById("window"), inside = document.getElementById("inside");
const news = document.getElementById("news"), status = document.getElementById("said"), lost = document.getElementById("lost");
const served = new WeakMap(); // elements of a keyed list → their HTML as the server sent it
let zone = "";
try { zone = Intl.DateTimeFormat().resolvedOptions().timeZone || ""; } catch { /* the times of the server's zone stay */ }

// Times in the browser's zone, in the server's format.
const MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
const twoDigits = (number) => String(number).padStart(2, "0");
function showLocalTimes(root) {
  for (const time of root.querySelectorAll("time")) {
    const at = new Date(time.dateTime);
    if (!isNaN(at)) time.textContent = `${at.getDate()} ${MONTHS[at.getMonth()]}${at.getFullYear() === new Date().getFullYear() ? "" : ` ${at.getFullYear()}`}, ${twoDigits(at.getHours())}:${twoDigits(at.getMinutes())}:${twoDigits(at.getSeconds())}`;
  }
}

function parseHtml(html) {
  return new DOMParser().parseFromString(html, "text/html").body;
}

async function fetchText(url, options) { // the server or the network may hang
  const controller = new AbortController(), timer = setTimeout(() => controller.abort(), TIMEOUT_MS);
  try {
    const answer = await fetch(url, { ...options, signal: controller.signal });
    return { answer, text: await answer.text() };
  } catch {
    throw new Error("The server does not answer.");
  } finally {
    clearTimeout(timer);
  }
}

async function fetchPart(url, tag) {
  const { answer, text } = await fetchText(url, { headers: tag ? { "If-None-Match": tag } : {}, cache: "no-store" });
  if (answer.status === 304) return null;
  if (answer.redirected && answer.url.includes("/login")) { location.reload(); return null; }
  if (!answer.ok) throw new Error(answer.status === 404 ? "This event no longer exists." : `The server answered with status ${answer.status}.`);
  return { html: text, tag: answer.headers.get("ETag") };
}

// The list.

let tag = "", limit = 0, timer = 0, isAsking = false;

function rememberHtml(root) {
  for (const list of root.querySelectorAll("[data-keyed]")) for (const item of list.children) served.set(item, item.outerHTML);
}

function listUrl() {
  const query = new URLSearchParams(location.search);
  query.set("part", "1");
  if (limit) query.set("limit", limit);
  return `/cameras?${query}`;
}

function merge(old, fresh) { // unchanged rows stay, with their focus and images
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
    showLocalTimes(item);
    if (!known) { old.insertBefore(item, place); continue; }
    const hadFocus = known.contains(document.activeElement);
    if (known === place) place = place.nextElementSibling;
    known.replaceWith(item);
    if (hadFocus) item.querySelector("a")?.focus();
  }
  for (const item of held.values()) item.remove();
}

function show(html) {
  const fresh = parseHtml(html), before = new Set(rows().map((row) => row.dataset.key)), newest = rows()[0]?.dataset.at ?? "";
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

function announceNew(newRows) {
  if (!newRows.length || new URLSearchParams(location.search).has("cursor")) return;
  news.textContent = newRows.length === 1 ? `New event: ${newRows[0].dataset.says}` : `${newRows.length} new events`;
}

async function refresh() {
  clearTimeout(timer);
  if (!isAsking && !document.hidden) {
    isAsking = true;
    try {
      const got = await fetchPart(listUrl(), tag);
      if (got && !dialog.open) { tag = got.tag; announceNew(show(got.html)); } // nothing moves behind an open dialog
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
  const got = await fetchPart(listUrl(), "");
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
    const got = await fetchPart(`/cameras/events/${wanted}?part=1${zone ? `&zone=${encodeURIComponent(zone)}` : ""}`);
    if (!got || wanted !== key) return;
    const fresh = parseHtml(got.html).firstElementChild, old = inside.querySelector(".seen");
    showLocalTimes(fresh);
    const isSame = quietly && old?.dataset.key === wanted && old.dataset.clip === fresh.dataset.clip;
    if (isSame) { // the clip plays on
      for (const name of [".states", ".facts"]) old.querySelector(name).replaceWith(fresh.querySelector(name));
      showMark(old, fresh.dataset.mark);
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

function showMark(seen, mark) {
  seen.dataset.mark = mark;
  for (const button of seen.querySelectorAll("[data-word]")) {
    if (button.dataset.word) button.setAttribute("aria-pressed", String(button.dataset.word === mark));
    else button.disabled = !mark;
  }
}

function play(root) {
  const video = root.querySelector("video");
  if (video && !matchMedia("(prefers-reduced-motion: reduce)").matches) video.play().catch(() => { /* it plays on a click */ });
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
    await more(Math.min(MAX_EVENTS, Number(live.querySelector("#more").dataset.limit)));
    const known = new Set(order);
    order.push(...rows().map((row) => row.dataset.key).filter((one) => !known.has(one)));
    next = order[order.indexOf(key) + step];
  }
  if (next) await open(next);
  else status.textContent = step > 0 ? "This is the oldest event." : "This is the newest event.";
}

function errorOf(text) {
  try { return JSON.parse(text).error; } catch { return null; }
}

let isMarking = false;
async function mark(word) {
  const seen = inside.querySelector(".seen"), problem = inside.querySelector(".error");
  if (!seen || isMarking) return;
  isMarking = true;
  const label = word === "wrong" ? seen.querySelector("#was")?.value ?? "" : "";
  try {
    const { answer, text } = await fetchText(`/api/events/${seen.dataset.key}/mark`, {
      method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ mark: word, label }),
    });
    if (!answer.ok) throw new Error(errorOf(text) ?? `The server answered with status ${answer.status}.`);
    problem.textContent = "";
    showMark(seen, word);
    status.textContent = `${seen.dataset.says}: ${word ? `marked ${word}` : "mark removed"}.`;
    if (dialog && word) await go(1);
    if (!dialog || key === seen.dataset.key) await load({ quietly: true });
  } catch (error) {
    problem.textContent = `The mark was not saved: ${error.message}`;
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

function waitForClip() { // refreshes an open event until its clip exists
  const state = inside?.querySelector(".seen")?.dataset.clip;
  if (state === "coming" && !document.hidden && (!dialog || dialog.open)) load({ quietly: true });
  setTimeout(waitForClip, REFRESH_MS);
}

if (dialog && live) {
  prepareList();
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
  showLocalTimes(document);
}
waitForClip();

function prepareList() {
  rememberHtml(live);
  showLocalTimes(live);
  prepare();
}
