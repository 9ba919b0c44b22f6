// The page of one clip.
function detailPage(clip, {forPrint = false, width = 0} = {}) {
  const detail = detailOf(clip), frames = framesOf(clip);
  const items = frames.map((source, i) => h("li", null,
    frameImage(source, detail.frameTimes[i]), h("span", {"aria-hidden": "true"}, clock(detail.frameTimes[i]))));
  const highlightFrame = (time) => items.forEach((item, i) => item.classList.toggle("now", i === nearestIndex(detail.frameTimes, time)));
  const chart = detail.curves.length && detail.times.length > 1 ? curveFigure(clip, detail, width || 640, forPrint ? null : highlightFrame) : null;
  const title = h(forPrint ? "h3" : "h2", {tabindex: "-1", class: "clip-title"}, nameOf(clip));
  const head = h("div", {class: "head"}, title, h("p", {class: "soft"}, clipFacts(clip, detail),
    detail.video && !forPrint ? [" · ", h("a", {href: detail.video}, "Watch the annotated video")] : null));
  const broad = h("div", {class: "broad"},
    frames.length ? card("Frames", "frames-card", h("ul", {class: "strip"}, items), framesNote(clip, detail)) : null,
    chart ? card("Probability over time", "chart-card", legend(clip, detail), chart.figure, curveNote(detail)) : null,
    clip.events.length ? card("Events", "events-card", eventTable(clip, forPrint ? null : chart, forPrint)) : null,
    detail.attention.length ? card("Attention over frames", "attention-card", attentionFigure(detail),
      h("p", {class: "soft"}, detail.windows > 1 ? "The attention weight of each step of the window with the highest score." : "The attention weight of each step of the clip.")) : null);
  const side = h("div", {class: "side"},
    card("Prediction", "verdict-card", predictionNotes(clip, detail)),
    card(detail.bars.length < LABELS.length ? `The ${detail.bars.length} most probable of ${LABELS.length} labels` : "All labels", "bars-card", bars(clip, detail)),
    forPrint ? null : card("Your review", "review-card", reviewControls(clip, null, "clip-review", `Is “${readable(clip.label)}” right for the whole clip?`),
      h("p", {class: "soft"}, "Marks are stored in this browser. “Download corrections.csv” saves them as labels for training.")));
  return {page: h("div", {class: "detail-grid"}, head, broad, side), title, chart};
}
function card(title, kind, ...children) {
  return h("section", {class: `card ${kind}`}, h("h3", null, title), ...children);
}
function clipFacts(clip, detail) {
  const facts = [clock(clip.duration), detail.windows > 1 ? `${counted(detail.windows, "window")} of ${clock(detail.windowSeconds)}` : "analysed as a whole"];
  return facts.join(" · ");
}
function predictionNotes(clip, detail) {
  const own = detail.bars.find((bar) => bar.label === clip.label), notes = [];
  notes.push(h("p", {class: "says"}, badge(clip.label, clip.isAlarm), own && h("b", null, formatProbability(own.p))));
  if (meta.positive >= 0) notes.push(h("p", {class: "soft"}, thresholdText(clip, detail)));
  else if (detail.windows > 1) notes.push(h("p", {class: "soft"}, "This is the average over all windows."));
  if (clip.events.length) notes.push(h("p", null, strongestEventText(clip)));
  if (clip.isRight) notes.push(h("p", null, "✓ Right: the true label is ", marked(clip.truth), "."));
  if (clip.isWrong) notes.push(h("p", {class: "wrong"}, "✗ Wrong: the true label is ", marked(clip.truth), "."));
  if (!clip.isRight && !clip.isWrong && clip.truth) notes.push(h("p", null, "The true label is ", marked(clip.truth), ". The model does not know it."));
  if (clip.isUnknown) notes.push(h("div", {class: "callout unknown"},
    h("p", null, h("b", null, "? Not known to the model."), " The clip is unlike all training clips, so its label is not reliable."),
    detail.zeroShot.length ? h("p", null, "CLIP (zero-shot): ", detail.zeroShot.flatMap(([name, p], i) => [i ? ", " : "", marked(name), ` ${percent(p)}`]), ".") : null));
  if (clip.isPartial) notes.push(h("div", {class: "callout"}, h("p", null, h("b", null, "Partly read."), " ", clip.reason ? [marked(clip.reason), ". "] : "", "The rest of the video was not analysed.")));
  else if (clip.reason) notes.push(h("p", {class: "soft"}, marked(clip.reason)));
  return notes;
}
function thresholdText(clip, detail) {
  const name = readable(LABELS[meta.positive]), side = clip.score >= meta.threshold ? "at or above" : "below";
  const which = detail.windows > 1 ? "The highest probability" : "The probability";
  return `${which} of ${name} is ${formatProbability(clip.score)}, ${side} the threshold of ${percent(meta.threshold)}.`;
}
function strongestEventText(clip) {
  const top = clip.events.reduce((a, b) => b.peak > a.peak ? b : a);
  const which = clip.allEvents === 1 ? "One event" : `${counted(clip.allEvents, "event")}, the strongest`;
  return `${which} of ${readable(top.label)} at ${span(top.start, top.end)}, with a peak of ${formatProbability(top.peak)}.`;
}
function bars(clip, detail) {
  return h("ul", {class: "bars"}, detail.bars.map(({label, p}) => h("li", {class: label === clip.label ? "first" : null},
    marked(label), bar(p, label), h("span", {class: "value"}, formatProbability(p)))));
}
function framesNote(clip, detail) {
  return detail.frameTimes.length === 1 && clip.duration > 2 ? h("p", {class: "soft"}, "The page has room for only one frame of this clip.") : null;
}
function curveNote(detail) {
  return detail.drawnWindows ? h("p", {class: "soft"}, `Drawn from ${detail.drawnWindows.toLocaleString("en")} of ${detail.windows.toLocaleString("en")} windows; all peaks are kept. windows.csv has all windows.`) : null;
}
function eventTable(clip, chart, forPrint) {
  const cell = (name, ...inside) => h("td", {role: "cell", "data-name": name}, ...inside);
  const rows = clip.events.map((event, i) => h("tr", {role: "row"},
    h("th", {scope: "row", role: "rowheader"}, chart ? h("button", {type: "button", class: "link", click: () => chart.toTime((event.start + event.end) / 2)}, span(event.start, event.end)) : span(event.start, event.end)),
    cell("Label", badge(event.label, event.isAlarm)), cell("Peak", formatProbability(event.peak)), cell("Mean", formatProbability(event.mean)),
    forPrint ? null : cell("Review", reviewControls(clip, event, `event-${i}`, `Event of ${readable(event.label)}, ${span(event.start, event.end)}`))));
  const headings = ["When", "Label", "Peak", "Mean", ...(forPrint ? [] : ["Review"])];
  const more = clip.allEvents > clip.events.length ? h("p", {class: "soft"}, `The strongest ${clip.events.length} of ${counted(clip.allEvents, "event")}. events.csv has all events.`) : null;
  return h("div", {class: "scroll"}, h("table", {class: "small reviewed", role: "table"}, h("thead", {role: "rowgroup"}, h("tr", {role: "row"}, headings.map((text) => h("th", {scope: "col", role: "columnheader"}, text)))), h("tbody", {role: "rowgroup"}, rows)), more);
}
