// The time axis and the shapes along it: scales, grid, merged segments, thinned curves.
import {clock, s} from "./text.js";

export const LANE = {events: 16, segments: 22, gap: 7};
const TOP = 10, PLOT = 132, BOTTOM = 24, RIGHT = 14;
const STEPS = [0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400];

export function scales(whole, wide) {
  const left = wide < 560 ? 42 : 82, events = TOP, segments = events + LANE.events + LANE.gap;
  const plot = segments + LANE.segments + LANE.gap + 8, floor = plot + PLOT, high = floor + BOTTOM;
  return {whole, wide, left, right: wide - RIGHT, events, segments, plot, floor, high,
          x: (time) => left + (wide - left - RIGHT) * Math.max(0, Math.min(1, time / whole)), y: (p) => floor - PLOT * p,
          timeAt: (px) => Math.max(0, Math.min(whole, (px - left) / (wide - left - RIGHT) * whole))};
}
export function frame({whole, wide, left, right, events, segments, floor, x, y, high}) {
  const drawn = [], step = STEPS.find((each) => whole / each * 84 <= wide - left) ?? Math.ceil(whole / 6);
  if (wide >= 560) drawn.push(s("text", {class: "lane", x: 0, y: events + 12}, "Events"), s("text", {class: "lane", x: 0, y: segments + 15}, "Segments"));
  for (const p of [0, 0.5, 1])
    drawn.push(s("line", {class: "grid", x1: left, x2: right, y1: y(p), y2: y(p)}), s("text", {x: left - 7, y: y(p) + 4, "text-anchor": "end"}, `${100 * p} %`));
  for (let time = 0; time <= whole + 1e-9; time += step) {
    const anchor = time === 0 ? "start" : x(time) > right - 18 ? "end" : "middle";
    drawn.push(s("line", {class: "tick", x1: x(time), x2: x(time), y1: floor, y2: floor + 4}), s("text", {x: x(time), y: high - 5, "text-anchor": anchor}, tickText(time, step)));
  }
  return drawn;
}
function tickText(time, step) {
  if (step < 1) return `${time.toFixed(1)} s`;
  return time < 60 && step < 60 ? `${time} s` : clock(Math.max(time, 60)).replace(/^1:00$/, time < 60 ? "0:00" : "1:00");
}
// Merges neighbouring segments of the same label into one bar: an hour has thousands of segments.
export function mergeSegments(segments) {
  const found = [];
  for (const segment of segments) {
    const last = found.at(-1);
    if (last && last.label === segment.label && segment.start - last.end < 1e-6) last.end = segment.end;
    else found.push({label: segment.label, start: segment.start, end: segment.end});
  }
  return found;
}
// Keeps the lowest and the highest point of each pixel.
export function downsample(points, wide) {
  if (points.length <= 3 * wide) return points;
  const size = Math.ceil(points.length / wide), kept = [];
  for (let i = 0; i < points.length; i += size) {
    const part = points.slice(i, i + size), low = part.reduce((a, b) => b[1] < a[1] ? b : a), top = part.reduce((a, b) => b[1] > a[1] ? b : a);
    kept.push(...(low[0] < top[0] ? [low, top] : [top, low]));
  }
  return kept;
}
