// The embedded clips. Rows are read at once, details and pictures where they are looked at. Keys: hazard/report/page_data.py.
const meta = JSON.parse(byId("meta").textContent);
const LABELS = meta.labels;

function blockLines(letter, block) {
  return byId(letter + block).textContent.split("\n");
}
// What an alarm is for: the positive label, and each that events are found of.
function isAlarming(l) {
  return l === meta.positive || l in meta.enter;
}
// From where on a label is given, or an event of it begins; undefined for a label that is none of that.
function thresholdOf(l) {
  return l === meta.positive ? meta.threshold : meta.enter[l];
}
const clips = [];
for (let block = 0; byId("r" + block); block++) {
  for (const [place, row] of JSON.parse(`[${blockLines("r", block).join(",")}]`).entries()) {
    const cut = row.p.lastIndexOf("/") + 1;
    clips.push({
      number: row.i, path: row.p, folder: row.p.slice(0, cut), name: row.p.slice(cut), block, place,
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

const opened = {d: new Map(), p: new Map()};
function line(letter, clip) {
  const known = opened[letter];
  if (!known.has(clip.block)) {
    if (known.size > 24) known.delete(known.keys().next().value); // a block of pictures takes some 300 kB
    known.set(clip.block, blockLines(letter, clip.block));
  }
  return known.get(clip.block)[clip.place];
}
function detailOf(clip) {
  const found = JSON.parse(line("d", clip));
  return {
    bars: found.b.map(([l, p]) => ({label: LABELS[l], isAlarm: isAlarming(l), p})),
    pictureTimes: found.k ?? [], attention: found.a ?? [],
    zeroShot: found.z ?? [], unknownScore: found.u ?? null,
    times: (found.t ?? []).map((hundredths) => hundredths / 100),
    curves: (found.c ?? []).map(([l, values]) => (
      {label: LABELS[l], isAlarm: isAlarming(l), values: values.map((v) => v / 10000)})),
    windows: found.n ?? 1, windowSeconds: found.w ?? clip.duration, drawn: found.q ?? 0, video: found.v ?? "",
  };
}
function picturesOf(clip) {
  const text = line("p", clip);
  return text ? text.split(",").map((jpeg) => "data:image/jpeg;base64," + jpeg) : [];
}
// A probability; one that would read like the threshold without being it has as many digits as tell them apart.
function chance(p) {
  if (meta.positive < 0 || p === meta.threshold || Math.round(100 * p) !== Math.round(100 * meta.threshold)) return percent(p);
  const digits = [1, 2].find((n) => (100 * p).toFixed(n) !== (100 * meta.threshold).toFixed(n)) ?? 3;
  return `${(100 * p).toFixed(digits)} %`;
}
function evenly(count, most) {
  if (count <= most) return [...Array(count).keys()];
  return [...Array(most).keys()].map((i) => Math.round(most === 1 ? (count - 1) / 2 : i * (count - 1) / (most - 1)));
}
function nearest(times, time) {
  let best = 0;
  for (let i = 1; i < times.length; i++)
    if (Math.abs(times[i] - time) < Math.abs(times[best] - time)) best = i;
  return best;
}
