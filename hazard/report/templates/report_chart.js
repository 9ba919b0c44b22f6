// The chart of probability over time: curves, threshold, bands for events, and a cursor for pointer and keyboard.
const HEIGHT = 190, LEFT = 42, RIGHT = 12, TOP = 14, BOTTOM = 26;
const TICK_STEPS = [0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400];

function drawCurves(clip, detail, width) {
  const duration = Math.max(clip.duration, detail.times.at(-1) ?? 0, 0.1);
  const x = (time) => LEFT + (width - LEFT - RIGHT) * time / duration, y = (p) => TOP + (HEIGHT - TOP - BOTTOM) * (1 - p);
  const right = width - RIGHT, floor = y(0);
  const step = TICK_STEPS.find((each) => duration / each * 84 <= width - LEFT) ?? Math.ceil(duration / 6);
  const drawing = s("svg", {viewBox: `0 0 ${width} ${HEIGHT}`, width, height: HEIGHT, "aria-hidden": "true"});
  for (const event of clip.events) {
    const from = x(Math.max(0, event.start)), bandWidth = Math.max(3, x(Math.min(duration, event.end)) - from);
    drawing.append(s("rect", {class: `band ${event.isAlarm ? "hot" : "cool"}`, x: from, y: TOP, width: bandWidth, height: floor - TOP}),
      s("rect", {class: `cap ${event.isAlarm ? "hot" : "cool"}`, x: from, y: TOP - 6, width: bandWidth, height: 5, rx: 2}));
  }
  for (const p of [0, 0.5, 1]) {
    drawing.append(s("line", {class: "grid", x1: LEFT, x2: right, y1: y(p), y2: y(p)}),
      s("text", {x: LEFT - 6, y: y(p) + 4, "text-anchor": "end"}, `${100 * p} %`));
  }
  for (let time = 0; time <= duration + 1e-9; time += step) {
    const anchor = time === 0 ? "start" : x(time) > right - 18 ? "end" : "middle";
    drawing.append(s("line", {class: "tick", x1: x(time), x2: x(time), y1: floor, y2: floor + 4}),
      s("text", {x: x(time), y: HEIGHT - 8, "text-anchor": anchor}, tickText(time, step)));
  }
  if (meta.positive >= 0)
    drawing.append(s("line", {class: "threshold", x1: LEFT, x2: right, y1: y(meta.threshold), y2: y(meta.threshold)}));
  detail.curves.forEach((curve, i) => {
    const points = curve.values.map((p, k) => `${x(detail.times[k]).toFixed(1)},${y(p).toFixed(1)}`);
    drawing.append(s("polyline", {class: `curve ${curveClass(detail, i)}`, points: points.join(" ")}));
  });
  const cursor = s("g", {class: "cursor", visibility: "hidden"}, s("line", {y1: TOP, y2: floor}), s("circle", {r: 4}));
  drawing.append(cursor);
  return {drawing, x, y, cursor, timeAt: (px) => (px - LEFT) / (width - LEFT - RIGHT) * duration};
}
function curveClass(detail, i) { // the first curve of an alarm is solid, in the warning color
  return `c${detail.curves[0].isAlarm ? i : i + 1}`;
}
function tickText(time, step) {
  if (step < 1) return `${time.toFixed(1)} s`;
  return time < 60 && step < 60 ? `${time} s` : clock(Math.max(time, 60)).replace(/^1:00$/, time < 60 ? "0:00" : "1:00");
}

// The chart with its cursor; calls `onMove(time)` when the cursor moves. Returns the figure, `draw` and `toTime`.
function curveFigure(clip, detail, initialWidth, onMove) {
  const plot = h("div", {class: "plot", tabindex: "0", role: "slider", "aria-label": "Probability over time. Arrow keys move through the clip, Page Up and Page Down go from event to event",
                         "aria-orientation": "horizontal", "aria-valuemin": "0", "aria-valuemax": clip.duration});
  const readout = h("p", {class: "readout", "aria-hidden": "true"});
  let chart = null, at = null;
  function draw(width) {
    chart = drawCurves(clip, detail, width);
    plot.replaceChildren(chart.drawing);
    if (at !== null) place(at);
  }
  function place(i) {
    at = Math.max(0, Math.min(detail.times.length - 1, i));
    const time = detail.times[at], values = detail.curves.map((curve) => `${readable(curve.label)} ${formatProbability(curve.values[at])}`);
    const event = clip.events.find((each) => each.start <= time && time <= each.end);
    const text = `${clock(time)}: ${values.join(", ")}${event ? `, event ${readable(event.label)}` : ""}`;
    chart.cursor.setAttribute("visibility", "visible");
    const [stem, dot] = chart.cursor.children;
    set(stem, {x1: chart.x(time), x2: chart.x(time)});
    set(dot, {cx: chart.x(time), cy: chart.y(detail.curves[0].values[at])});
    readout.textContent = text;
    plot.setAttribute("aria-valuenow", time);
    plot.setAttribute("aria-valuetext", text);
    onMove?.(time);
  }
  const toTime = (time) => place(nearestIndex(detail.times, time));
  const toEvent = (direction) => {
    const now = at === null ? -1 : detail.times[at];
    const next = direction > 0 ? clip.events.find((event) => event.start > now) : clip.events.findLast((event) => event.end < now);
    if (next) toTime((next.start + next.end) / 2);
  };
  const keys = {
    ArrowRight: () => place((at ?? -1) + 1), ArrowUp: () => place((at ?? -1) + 1),
    ArrowLeft: () => place((at ?? 1) - 1), ArrowDown: () => place((at ?? 1) - 1),
    Home: () => place(0), End: () => place(detail.times.length - 1),
    PageDown: () => toEvent(1), PageUp: () => toEvent(-1),
  };
  plot.addEventListener("keydown", (pressed) => {
    if (!keys[pressed.key]) return;
    pressed.preventDefault();
    keys[pressed.key]();
  });
  const point = (pointer) => toTime(chart.timeAt(pointer.clientX - plot.getBoundingClientRect().left));
  plot.addEventListener("pointermove", point);
  plot.addEventListener("pointerdown", point);
  draw(initialWidth);
  readout.textContent = "Point at the curve or use the arrow keys to read values.";
  return {figure: h("figure", {class: "chart"}, plot, readout), draw, toTime};
}
function legend(clip, detail) {
  const curves = detail.curves.map((curve, i) => h("span", {class: "key"}, h("i", {class: curveClass(detail, i)}), marked(curve.label)));
  const band = clip.events.length ? h("span", {class: "key"}, h("i", {class: `bandkey ${clip.events[0].isAlarm ? "hot" : "cool"}`}), "event") : null;
  const line = meta.positive >= 0 ? h("span", {class: "key"}, h("i", {class: "threshold"}), `threshold ${percent(meta.threshold)}`) : null;
  return h("p", {class: "legend"}, curves, line, band);
}
function attentionFigure(detail) {
  const highest = Math.max(...detail.attention.map(([, weight]) => weight), 1e-9);
  const top = detail.attention.reduce((a, b) => b[1] > a[1] ? b : a);
  return h("figure", {class: "attention"},
    h("div", {class: "steps", role: "img", "aria-label": `Attention weight of each step. The highest is ${percent(top[1])} at ${clock(top[0])}`},
      detail.attention.map(([time, weight]) => h("i", {"--p": weight / highest, class: weight === top[1] ? "top" : null, title: `${clock(time)}: ${percent(weight)}`}))),
    h("p", {class: "axis", "aria-hidden": "true"}, h("span", null, clock(detail.attention[0][0])), h("span", null, clock(detail.attention.at(-1)[0]))));
}
