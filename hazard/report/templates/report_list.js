// The overview: events, the table of clips, failed clips and the worst mistakes.
const PAGE_ROWS = matchMedia("(max-width: 760px)").matches ? 20 : 50;
const FIRST_EVENTS = 10, MORE_EVENTS = 50, FIRST_FAILURES = 50;
const STRIP_FRAMES = 3;
const collator = new Intl.Collator("en", {numeric: true});
const view = {sort: "score", isDescending: true, page: 0, shown: clips};

function badge(label, isAlarm) {
  const shape = isAlarm ? s("path", {d: "M5 .8 9.6 9.2H.4z"}) : s("circle", {cx: 5, cy: 5, r: 3.6});
  return h("span", {class: `badge ${isAlarm ? "hot" : "cool"}`},
           s("svg", {viewBox: "0 0 10 10", "aria-hidden": "true"}, shape), marked(label));
}
function nameOf(clip) {
  return h("span", {class: "name"}, clip.folder && h("span", {class: "folder"}, marked(clip.folder)),
           h("b", null, marked(clip.name)));
}
function linkTo(clip, ...children) {
  return h("a", {href: `#clip=${clip.number}`}, ...children);
}
function truthNote(clip) {
  if (clip.isRight) return h("span", {class: "result"}, "✓ right");
  if (clip.isWrong) return h("span", {class: "result wrong"}, "✗ wrong, true label: ", marked(clip.truth));
  return null;
}
function unknownNote(clip) {
  if (!clip.isUnknown) return null;
  return h("span", {class: "unknown"}, h("b", null, "? not known to the model"),
           clip.zeroShot && h("span", null, "CLIP (zero-shot): ", marked(clip.zeroShot)));
}
function markNote(clip) {
  const mark = markOf(clip);
  if (!mark) return null;
  return h("span", {class: "result"}, mark.truth === mark.said ? "marked right" : "marked wrong");
}
function bar(p, label) {
  const l = LABELS.indexOf(label), at = thresholdOf(l);
  return h("span", {class: `track${isAlarming(l) ? " hot" : ""}`, "aria-hidden": "true"}, h("i", {"--p": p}),
           at !== undefined && h("span", {class: "mark", "--at": at}));
}
function timeline(clip) {
  const duration = Math.max(clip.duration, ...clip.events.map((event) => event.end), 1e-6);
  return h("span", {class: "timeline", "aria-hidden": "true"}, clip.events.map((event) => h("i", {
    class: event.isAlarm ? "hot" : "cool", "--from": event.start / duration, "--to": event.end / duration})));
}
function eventsCell(clip) {
  if (!clip.events.length) return h("span", {class: "soft"}, "none");
  const [first] = clip.events;
  return [h("span", null, counted(clip.allEvents, "event"),
            h("span", {class: "soft"}, clip.allEvents === 1 ? ` at ${clock(first.start)}` : `, first at ${clock(first.start)}`)),
          timeline(clip)];
}
function frameImage(source, time, extra) {
  return h("img", {src: source, alt: `Frame at ${clock(time)}`, decoding: "async", ...extra});
}
function smallStrip(clip, maxFrames) {
  const frames = framesOf(clip), times = frames.length ? detailOf(clip).frameTimes : [];
  return spreadIndices(frames.length, maxFrames).map((i) => frameImage(frames[i], times[i]));
}
function rowElement(clip, withFrames = true) {
  return h("tr", {role: "row", class: clip.isAlarm ? "hot" : null, "data-number": clip.number},
    h("th", {role: "rowheader", scope: "row", class: "clip"}, linkTo(clip, nameOf(clip)),
      clip.isPartial && h("span", {class: "tag"}, "partly read"),
      clip.reason && h("span", {class: "note"}, marked(clip.reason))),
    h("td", {role: "cell", class: "verdict"}, badge(clip.label, clip.isAlarm), unknownNote(clip), truthNote(clip), markNote(clip)),
    h("td", {role: "cell", class: "score"}, bar(clip.score, LABELS[meta.positive] ?? clip.label), h("span", {class: "value"}, formatProbability(clip.score))),
    h("td", {role: "cell", class: "happened"}, eventsCell(clip)),
    h("td", {role: "cell", class: "length"}, clock(clip.duration)),
    h("td", {role: "cell", class: "frames"}, withFrames && h("div", null, smallStrip(clip, STRIP_FRAMES))));
}

const FILTERS = {
  "": () => true,
  events: (clip) => clip.events.length > 0,
  unknown: (clip) => clip.isUnknown,
  partial: (clip) => clip.isPartial,
  ok: (clip) => !clip.isPartial,
  right: (clip) => clip.isRight,
  wrong: (clip) => clip.isWrong,
  marked: isMarked,
  unmarked: (clip) => !isMarked(clip),
};
const COMPARISONS = {
  name: (a, b) => collator.compare(a.path, b.path),
  label: (a, b) => collator.compare(a.label, b.label) || b.score - a.score,
  score: (a, b) => a.score - b.score,
  events: (a, b) => a.allEvents - b.allEvents || a.score - b.score,
  duration: (a, b) => a.duration - b.duration,
};
function filterClips() {
  const words = byId("filter-text").value.trim().toLowerCase().split(/\s+/);
  const label = byId("filter-label").value, passes = FILTERS[byId("filter-show").value];
  view.shown = clips.filter((clip) => (!label || clip.label === label) && passes(clip)
    && words.every((word) => clip.text.includes(word)));
  sortClips();
}
function sortClips() {
  const compare = COMPARISONS[view.sort], sign = view.isDescending ? -1 : 1;
  view.shown.sort((a, b) => sign * compare(a, b) || a.order - b.order);
  for (const header of byId("clips").tHead.rows[0].cells) {
    const isKey = header.dataset.sort === view.sort;
    if (isKey) header.setAttribute("aria-sort", view.isDescending ? "descending" : "ascending");
    else header.removeAttribute("aria-sort");
  }
  const order = byId("phone-sort");
  order.value = view.sort + (view.isDescending ? "-" : "+");
}
function showRows() {
  const pages = Math.max(1, Math.ceil(view.shown.length / PAGE_ROWS)), total = clips.length;
  view.page = Math.min(view.page, pages - 1);
  const first = view.page * PAGE_ROWS, rows = view.shown.slice(first, first + PAGE_ROWS);
  byId("clips").tBodies[0].replaceChildren(...rows.map((clip) => rowElement(clip)));
  byId("clips").hidden = !rows.length;
  byId("no-match").hidden = rows.length > 0;
  byId("count").textContent = view.shown.length === total ? counted(total, "clip") : `${view.shown.length.toLocaleString("en")} of ${counted(total, "clip")}`;
  byId("pager").hidden = pages === 1;
  byId("page-of").textContent = `${(first + 1).toLocaleString("en")} – ${(first + rows.length).toLocaleString("en")} of ${view.shown.length.toLocaleString("en")}`;
  byId("page-back").disabled = view.page === 0;
  byId("page-on").disabled = view.page === pages - 1;
}
function refresh() {
  const began = performance.now();
  view.page = 0;
  filterClips();
  showRows();
  requestAnimationFrame(() => setTimeout(() => { // after painting
    document.documentElement.dataset.filterMs = (performance.now() - began).toFixed(0);
  }));
}
function turnPage(by) {
  view.page += by;
  showRows();
  byId("list").scrollIntoView();
  byId("clips").querySelector("a")?.focus({preventScroll: true});
}
function sortBy(key) {
  const isNumber = ["score", "events", "duration"].includes(key);
  view.isDescending = view.sort === key ? !view.isDescending : isNumber;
  view.sort = key;
  view.page = 0;
  sortClips();
  showRows();
}

// The events of all clips, the highest peak first.
const allEvents = clips.flatMap((clip) => clip.events.map((event) => ({clip, event})));
let eventsShown = FIRST_EVENTS;
function eventRow({clip, event}) {
  const frames = framesOf(clip);
  const times = frames.length ? detailOf(clip).frameTimes : [];
  const i = nearestIndex(times, (event.start + event.end) / 2), isOutside = times[i] < event.start - 1 || times[i] > event.end + 1;
  return h("tr", {role: "row", "data-number": clip.number},
    h("td", {role: "cell", class: "frame"}, frames.length && [frameImage(frames[i], times[i]), isOutside && h("span", null, `at ${clock(times[i])}`)]),
    h("th", {role: "rowheader", scope: "row", class: "clip"}, linkTo(clip, nameOf(clip)),
      clip.isUnknown && h("span", {class: "tag"}, "? not known to the model")),
    h("td", {role: "cell", class: "verdict"}, badge(event.label, event.isAlarm)),
    h("td", {role: "cell", class: "when"}, span(event.start, event.end)),
    h("td", {role: "cell", class: "score"}, bar(event.peak, event.label), h("span", {class: "value"}, formatProbability(event.peak))));
}
function showEvents() {
  if (!allEvents.length) return;
  const byTime = byId("event-order").value === "time";
  allEvents.sort((a, b) => byTime ? a.clip.order - b.clip.order || a.event.start - b.event.start
    : b.event.peak - a.event.peak || a.clip.order - b.clip.order);
  byId("event-table").tBodies[0].replaceChildren(...allEvents.slice(0, eventsShown).map(eventRow));
  const remaining = allEvents.length - eventsShown;
  byId("more-events").hidden = remaining <= 0;
  byId("more-events").textContent = `Show ${Math.min(remaining, MORE_EVENTS)} more of ${allEvents.length.toLocaleString("en")}`;
}

let failuresShown = FIRST_FAILURES;
function showFailures() {
  if (!meta.failed) return;
  byId("failure-list").replaceChildren(...meta.failures.slice(0, failuresShown).map(([path, reason]) => h("li", null,
    h("b", {class: "name"}, marked(path)), h("span", {class: "why"}, marked(reason)))));
  byId("more-failures").hidden = failuresShown >= meta.failures.length;
  byId("more-failures").textContent = `Show all ${meta.failures.length.toLocaleString("en")}`;
}

// The worst mistakes: cards that link to their clips.
function mistakeCard(entry, ...text) {
  const clip = clipByPath.get(entry.path);
  const frames = clip ? smallStrip(clip, STRIP_FRAMES) : [];
  const content = [frames.length ? h("span", {class: "thumbs"}, frames) : null,
    clip ? nameOf(clip) : h("b", {class: "name"}, marked(entry.path)), h("span", {class: "note"}, text)];
  return h("li", {class: "card", "data-number": clip?.number}, clip ? linkTo(clip, ...content) : content);
}
function showMistakes() {
  const eventTimes = (entry) => entry.end === null ? `${clock(entry.start)} – end` : span(entry.start, entry.end);
  const fill = (id, entries, text) => byId(id)?.replaceChildren(...entries.map((entry) => mistakeCard(entry, ...text(entry))));
  fill("worst", meta.worst, (entry) => ["predicted ", marked(entry.label), ` ${percent(entry.probability ?? 0)}, true label: `, marked(entry.truth)]);
  fill("missed", meta.missed, (entry) => [marked(entry.label), ` missed, ${eventTimes(entry)}`]);
  fill("false-events", meta.false, (entry) => [marked(entry.label), ` without a true event, ${eventTimes(entry)}, peak ${percent(entry.peak ?? 0)}`]);
}
