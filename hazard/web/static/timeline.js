// Events, segments and probability over time on one axis. Clicks and keys seek in the video.
import {LANE, frame, mergeSegments, scales, downsample} from "./axis.js";
import {clock, h, marked, readable, s} from "./text.js";
import {percentText} from "./format.js";

export function timeline({answer, whole, tones, curves, segmentAt, eventAt, seek, toggle, pointed}) {
  const segments = answer.segment_predictions, plot = h("div", {
    class: "plot", tabindex: "0", role: "slider", "aria-label": "Position in the video. Arrow keys move between segments, Page Up and Page Down between events",
    "aria-orientation": "horizontal", "aria-valuemin": "0", "aria-valuemax": whole, "aria-valuenow": "0", "aria-valuetext": ""});
  const readout = h("p", {class: "readout", "aria-hidden": "true"});
  let at = 0, over = null, scale, cursor, ghost, lit;

  function draw(wide) {
    scale = scales(whole, wide);
    const {x, y, events, floor, plot: top} = scale, drawing = s("svg", {viewBox: `0 0 ${wide} ${scale.high}`, width: wide, height: scale.high, "aria-hidden": "true"});
    lit = s("rect", {class: "lit", y: scale.segments - 3, height: floor - scale.segments + 3, visibility: "hidden"});
    drawing.append(lit);
    for (const event of answer.events) {
      const from = x(event.start), width = Math.max(3, x(event.end) - from), tone = tones(event.label);
      drawing.append(s("rect", {class: `band ${tone}`, x: from, y: top, width, height: floor - top}), s("rect", {class: `bar ${tone}`, x: from, y: events, width, height: LANE.events, rx: 4}));
    }
    if (!answer.events.length) drawing.append(s("text", {class: "none", x: scale.left + 7, y: events + 12}, "no events"));
    for (const run of mergeSegments(segments)) drawing.append(...segmentBar(run));
    drawing.append(...frame(scale));
    if (answer.positive_label) drawing.append(s("line", {class: "threshold", x1: scale.left, x2: scale.right, y1: y(answer.threshold), y2: y(answer.threshold)}));
    curves.forEach((curve) => {
      for (const part of curve.parts)
        drawing.append(s("polyline", {class: `curve ${curve.tone} ${curve.line}`, points: downsample(part, wide).map(([time, p]) => `${x(time).toFixed(1)},${y(p).toFixed(1)}`).join(" ")}));
    });
    ghost = s("line", {class: "ghost", y1: events, y2: floor, visibility: "hidden"});
    cursor = s("g", {class: "cursor"}, s("line", {y1: events - 4, y2: floor}), s("path", {d: "M-5 0h10l-5 7z"}));
    drawing.append(ghost, cursor);
    plot.replaceChildren(drawing);
    place(at);
  }
  function segmentBar({label, start, end}) {
    const from = scale.x(start), width = Math.max(1, scale.x(end) - from - 1), text = readable(label);
    const bar = s("rect", {class: `bar ${tones(label)}`, x: from, y: scale.segments, width, height: LANE.segments, rx: 4});
    return width > 8 * text.length + 14 ? [bar, s("text", {class: "on-bar", x: from + 7, y: scale.segments + 15}, text)] : [bar];
  }
  function words(time) {
    const segment = segmentAt(time), event = eventAt(time);
    return `${clock(time)}: ${segment ? `${readable(segment.label)} ${percentText(segment.confidence)}` : "not analysed"}${event ? `, event ${readable(event.label)}` : ""}`;
  }
  function place(time) {
    at = time;
    cursor.setAttribute("transform", `translate(${scale.x(time).toFixed(1)} 0)`);
    cursor.lastElementChild.setAttribute("transform", `translate(0 ${scale.events - 8})`);
    plot.setAttribute("aria-valuenow", time.toFixed(2));
    plot.setAttribute("aria-valuetext", words(time));
    if (over === null) light(segmentAt(time), time);
  }
  function light(segment, time) {
    lit.setAttribute("visibility", segment ? "visible" : "hidden");
    if (segment) {
      lit.setAttribute("x", scale.x(segment.start));
      lit.setAttribute("width", Math.max(2, scale.x(segment.end) - scale.x(segment.start)));
    }
    readout.textContent = words(time);
  }
  function hover(time) {
    over = time;
    ghost.setAttribute("visibility", time === null ? "hidden" : "visible");
    if (time !== null) { ghost.setAttribute("x1", scale.x(time)); ghost.setAttribute("x2", scale.x(time)); }
    light(segmentAt(time ?? at), time ?? at);
    pointed(time);
  }
  const timeOf = (pointer) => scale.timeAt(pointer.clientX - plot.getBoundingClientRect().left);
  plot.addEventListener("pointermove", (pointer) => { if (pointer.pointerType === "mouse" || pointer.buttons) hover(timeOf(pointer)); if (pointer.buttons & 1 && plot.hasPointerCapture(pointer.pointerId)) seek(timeOf(pointer)); });
  plot.addEventListener("pointerdown", (pointer) => { if (pointer.button) return; plot.setPointerCapture(pointer.pointerId); seek(timeOf(pointer)); });
  plot.addEventListener("pointerup", (pointer) => { if (pointer.pointerType !== "mouse") hover(null); });
  for (const name of ["pointerleave", "pointercancel"]) plot.addEventListener(name, () => hover(null));

  const NUDGE = 0.001; // a segment begins where the previous one ends
  const step = (by) => {
    const i = segments.findLastIndex((each) => each.start <= at + NUDGE), next = segments[Math.max(0, Math.min(segments.length - 1, i + by))];
    if (next) seek(next.start + (next.start ? NUDGE : 0));
  };
  const event = (way) => {
    const next = way > 0 ? answer.events.find((each) => each.start > at + 2 * NUDGE) : answer.events.findLast((each) => each.start < at - 2 * NUDGE);
    if (next) seek(next.start + NUDGE);
  };
  const keys = {ArrowRight: () => step(1), ArrowUp: () => step(1), ArrowLeft: () => step(-1), ArrowDown: () => step(-1), Home: () => seek(0), End: () => seek(whole),
                PageDown: () => event(1), PageUp: () => event(-1), " ": toggle};
  plot.addEventListener("keydown", (pressed) => {
    if (!keys[pressed.key] || pressed.ctrlKey || pressed.metaKey || pressed.altKey) return;
    pressed.preventDefault();
    keys[pressed.key]();
  });
  const figure = h("figure", {class: "chart"}, legend(answer, curves), plot, readout);
  const observer = new ResizeObserver(() => { if (plot.clientWidth && plot.clientWidth !== scale?.wide) draw(plot.clientWidth); });
  draw(760);
  observer.observe(plot);
  return {figure, place};
}
function legend(answer, curves) {
  const lines = curves.map((curve) => h("span", {class: "key"}, h("i", {class: `${curve.tone} ${curve.line}`}), h("span", null, "probability of ", curve.label === null ? "the most likely label" : marked(curve.label))));
  const line = answer.positive_label ? h("span", {class: "key"}, h("i", {class: "threshold"}), `threshold ${percentText(answer.threshold)}`) : null;
  return h("p", {class: "legend"}, lines, line);
}
