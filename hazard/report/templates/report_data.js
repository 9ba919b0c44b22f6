// The embedded clips. Rows are parsed at once, details and frames when they are shown. Keys: hazard/report/page_data.py.
const meta = JSON.parse(byId("meta").textContent);
const LABELS = meta.labels;

function blockLines(letter, block) {
  return byId(letter + block).textContent.split("\n");
}
// True for labels that raise alarms: the positive label, and all labels with an event rule.
function isAlarming(l) {
  return l === meta.positive || l in meta.enter;
}
// The lowest probability for the label, or for the start of its events; undefined for other labels.
function thresholdOf(l) {
  return l === meta.positive ? meta.threshold : meta.enter[l];
}
const clips = [];
for (let block = 0; byId("r" + block); block++) {
  for (const [index, row] of JSON.parse(`[${blockLines("r", block).join(",")}]`).entries()) {
    const nameStart = row.p.lastIndexOf("/") + 1;
    clips.push({
      number: row.i, path: row.p, folder: row.p.slice(0, nameStart), name: row.p.slice(nameStart), block, index,
      label: LABELS[row.l], isAlarm: isAlarming(row.l), score: row.s, duration: row.d,
      events: (row.e ?? []).map(([l, start, end, peak, mean]) => (
        {label: LABELS[l], isAlarm: isAlarming(l), start, end, peak, mean})),
      allEvents: row.m || (row.e ?? []).length, isPartial: !!row.h, reason: row.r ?? "", truth: row.t ?? "",
      isWrong: !!row.w, isRight: !!row.k && !row.w, isUnknown: !!row.u, zeroShot: row.z ?? "",
      order: clips.length,
    });
  }
}
const clipByNumber = new Map(clips.map((clip) => [clip.number, clip]));
const clipByPath = new Map(clips.map((clip) => [clip.path, clip]));
for (const clip of clips)
  clip.text = readable([clip.path, clip.label, clip.truth, clip.zeroShot, clip.reason].join(" ")).toLowerCase();

const blockCache = {d: new Map(), p: new Map()};
function readLine(letter, clip) {
  const cache = blockCache[letter];
  if (!cache.has(clip.block)) {
    if (cache.size > 24) cache.delete(cache.keys().next().value); // a block of frames takes about 300 kB
    cache.set(clip.block, blockLines(letter, clip.block));
  }
  return cache.get(clip.block)[clip.index];
}
function detailOf(clip) {
  const data = JSON.parse(readLine("d", clip));
  return {
    bars: data.b.map(([l, p]) => ({label: LABELS[l], isAlarm: isAlarming(l), p})),
    frameTimes: data.k ?? [], attention: data.a ?? [],
    zeroShot: data.z ?? [], unknownScore: data.u ?? null,
    times: (data.t ?? []).map((hundredths) => hundredths / 100),
    curves: (data.c ?? []).map(([l, values]) => (
      {label: LABELS[l], isAlarm: isAlarming(l), values: values.map((v) => v / 10000)})),
    windows: data.n ?? 1, windowSeconds: data.w ?? clip.duration, drawnWindows: data.q ?? 0, video: data.v ?? "",
  };
}
function framesOf(clip) {
  const text = readLine("p", clip);
  return text ? text.split(",").map((jpeg) => "data:image/jpeg;base64," + jpeg) : [];
}
// A probability. One that would round to the threshold without being equal gets enough digits to tell them apart.
function formatProbability(p) {
  if (meta.positive < 0 || p === meta.threshold || Math.round(100 * p) !== Math.round(100 * meta.threshold)) return percent(p);
  const digits = [1, 2].find((n) => (100 * p).toFixed(n) !== (100 * meta.threshold).toFixed(n)) ?? 3;
  return `${(100 * p).toFixed(digits)} %`;
}
// At most `max` indices below `count`, evenly spread.
function spreadIndices(count, max) {
  if (count <= max) return [...Array(count).keys()];
  return [...Array(max).keys()].map((i) => Math.round(max === 1 ? (count - 1) / 2 : i * (count - 1) / (max - 1)));
}
function nearestIndex(times, time) {
  let best = 0;
  for (let i = 1; i < times.length; i++)
    if (Math.abs(times[i] - time) < Math.abs(times[best] - time)) best = i;
  return best;
}
