// An index of an answer: segments and events by time, colours by label, curves.

// Curves: the positive label's, or without one those of the most frequent labels. If there are more labels than an answer
// has probabilities for, only the most likely label's, because the others would have gaps.
const MAX_LABELS = 5, LINES = ["solid", "dash", "dot"];
export function indexAnswer(answer) {
  const segments = answer.segment_predictions.map((segment, index) => ({...segment, index}));
  const events = answer.events.map((event, index) => ({...event, index}));
  const whole = Math.max(answer.duration || 0, segments.at(-1)?.end ?? 0, 0.1);
  const alarming = new Set([answer.positive_label, ...events.map((event) => event.label)].filter(Boolean));
  const count = new Map();
  for (const {label, start, end} of segments) count.set(label, (count.get(label) ?? 0) + end - start);
  const common = [...count.keys()].sort((a, b) => count.get(b) - count.get(a));
  const others = common.filter((label) => !alarming.has(label)), order = [...alarming, ...others];
  const tones = (label) => alarming.has(label) ? ["hot", "hot2"][Math.min(1, [...alarming].indexOf(label))] : `t${others.indexOf(label) % 4}`;
  const drawn = answer.positive_label ? [answer.positive_label] : answer.labels.length <= MAX_LABELS ? order.slice(0, LINES.length) : [null];
  return {
    segments, events, whole, tones,
    segmentAt: (time) => findSegment(segments, Math.min(time, whole - 1e-6)),
    eventAt: (time) => events.find((event) => event.start <= time && time < event.end),
    kindOf: (label) => alarming.has(label) ? "hot" : "cool",
    curves: drawn.map((label, i) => ({label, tone: label === null ? "best" : tones(label), line: LINES[i], parts: curveParts(segments, label, whole)})),
  };
}
function findSegment(segments, time) {
  let low = 0, high = segments.length - 1;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (segments[middle].start <= time) low = middle;
    else high = middle - 1;
  }
  const segment = segments[low];
  return segment && segment.start <= time && time < segment.end + 1e-6 ? segment : undefined;
}
function curveParts(segments, label, whole) {
  const drawn = [[]];
  segments.forEach((segment, i) => {
    const p = (label === null ? segment.top5[0] : segment.top5.find((one) => one.label === label))?.confidence;
    if (p === undefined) { if (drawn.at(-1).length) drawn.push([]); return; }
    if (drawn.at(-1).length && segment.start - segments[i - 1].end > 1e-3) drawn.push([]);
    const part = drawn.at(-1);
    if (i === 0) part.push([segment.start, p]);
    part.push([(segment.start + segment.end) / 2, p]);
    if (i === segments.length - 1) part.push([Math.min(segment.end, whole), p]);
  });
  return drawn.filter((part) => part.length > 1);
}
