// One clip's own page.
function detailPage(clip, {forPrint = false, wide = 0} = {}) {
  const detail = detailOf(clip), pictures = picturesOf(clip);
  const items = pictures.map((source, i) => h("li", null,
    picture(source, detail.pictureTimes[i]), h("span", {"aria-hidden": "true"}, clock(detail.pictureTimes[i]))));
  const light = (time) => items.forEach((item, i) => item.classList.toggle("now", i === nearest(detail.pictureTimes, time)));
  const chart = detail.curves.length && detail.times.length > 1 ? curveFigure(clip, detail, wide || 640, forPrint ? null : light) : null;
  const title = h(forPrint ? "h3" : "h2", {tabindex: "-1", class: "clip-title"}, nameOf(clip));
  const head = h("div", {class: "head"}, title, h("p", {class: "soft"}, aboutClip(clip, detail),
    detail.video && !forPrint ? [" · ", h("a", {href: detail.video}, "Watch it with what was seen drawn in")] : null));
  const broad = h("div", {class: "broad"},
    pictures.length ? card("Frames", "frames-card", h("ul", {class: "strip"}, items), picturesNote(clip, detail)) : null,
    chart ? card("Probability over time", "chart-card", legend(clip, detail), chart.figure, curveNote(detail)) : null,
    clip.events.length ? card("Events", "events-card", eventTable(clip, forPrint ? null : chart, forPrint)) : null,
    detail.attention.length ? card("Attention over frames", "attention-card", attentionFigure(detail),
      h("p", {class: "soft"}, detail.windows > 1 ? "How much each moment of the most telling window weighed." : "How much each moment of the clip weighed.")) : null);
  const side = h("div", {class: "side"},
    card("Verdict", "verdict-card", verdict(clip, detail)),
    card(detail.bars.length < LABELS.length ? `The likeliest ${detail.bars.length} of ${LABELS.length} labels` : "All labels", "bars-card", bars(clip, detail)),
    forPrint ? null : card("Your review", "review-card", reviewControls(clip, null, "clip-review", `Is “${readable(clip.label)}” right for the whole clip?`),
      h("p", {class: "soft"}, "Marks are kept in this browser; “Download corrections.csv” makes them training labels.")));
  return {page: h("div", {class: "detail-grid"}, head, broad, side), title, chart};
}
function card(title, kind, ...children) {
  return h("section", {class: `card ${kind}`}, h("h3", null, title), ...children);
}
function aboutClip(clip, detail) {
  const facts = [clock(clip.duration), detail.windows > 1 ? `${counted(detail.windows, "window")} of ${clock(detail.windowSeconds)}` : "judged as a whole"];
  return facts.join(" · ");
}
function verdict(clip, detail) {
  const own = detail.bars.find((bar) => bar.label === clip.label), notes = [];
  notes.push(h("p", {class: "says"}, badge(clip.label, clip.isAlarm), own && h("b", null, chance(own.p))));
  if (meta.positive >= 0) notes.push(h("p", {class: "soft"}, thresholdWords(clip, detail)));
  else if (detail.windows > 1) notes.push(h("p", {class: "soft"}, "On average over all its windows."));
  if (clip.events.length) notes.push(h("p", null, strongestWords(clip)));
  if (clip.isRight) notes.push(h("p", null, "✓ Right: the true label is ", marked(clip.truth), "."));
  if (clip.isWrong) notes.push(h("p", {class: "wrong"}, "✗ Wrong: the true label is ", marked(clip.truth), "."));
  if (!clip.isRight && !clip.isWrong && clip.truth) notes.push(h("p", null, "The true label, ", marked(clip.truth), ", is none that the model knows."));
  if (clip.isUnknown) notes.push(h("div", {class: "callout unknown"},
    h("p", null, h("b", null, "? Not known to the model."), " The clip is unlike all that it was trained on: its label means little here."),
    detail.zeroShot.length ? h("p", null, "CLIP, zero-shot, says: ", detail.zeroShot.flatMap(([name, p], i) => [i ? ", " : "", marked(name), ` ${percent(p)}`]), ".") : null));
  if (clip.isPartial) notes.push(h("div", {class: "callout"}, h("p", null, h("b", null, "Read only in part."), " ", clip.reason ? marked(clip.reason) : "", " What could not be read was not judged.")));
  else if (clip.reason) notes.push(h("p", {class: "soft"}, marked(clip.reason)));
  return notes;
}
function thresholdWords(clip, detail) {
  const name = readable(LABELS[meta.positive]), side = clip.score >= meta.threshold ? "at or above" : "below";
  const where = detail.windows > 1 ? "At its most telling moment" : "Here";
  return `${where} ${name} has ${chance(clip.score)}, ${side} the threshold of ${percent(meta.threshold)}.`;
}
function strongestWords(clip) {
  const top = clip.events.reduce((a, b) => b.peak > a.peak ? b : a);
  const which = clip.allEvents === 1 ? "An event" : `${counted(clip.allEvents, "event")}, the strongest`;
  return `${which} of ${readable(top.label)} at ${span(top.start, top.end)}, up to ${chance(top.peak)}.`;
}
function bars(clip, detail) {
  return h("ul", {class: "bars"}, detail.bars.map(({label, p}) => h("li", {class: label === clip.label ? "first" : null},
    marked(label), bar(p, label), h("span", {class: "value"}, chance(p)))));
}
function picturesNote(clip, detail) {
  return detail.pictureTimes.length === 1 && clip.duration > 2 ? h("p", {class: "soft"}, "The page has room for one frame of this clip.") : null;
}
function curveNote(detail) {
  return detail.drawn ? h("p", {class: "soft"}, `Drawn from ${detail.drawn.toLocaleString("en")} of ${detail.windows.toLocaleString("en")} windows; every stretch keeps its peak. windows.csv has all.`) : null;
}
function eventTable(clip, chart, forPrint) {
  const cell = (name, ...inside) => h("td", {role: "cell", "data-name": name}, ...inside);
  const rows = clip.events.map((event, i) => h("tr", {role: "row"},
    h("th", {scope: "row", role: "rowheader"}, chart ? h("button", {type: "button", class: "link", click: () => chart.toTime((event.start + event.end) / 2)}, span(event.start, event.end)) : span(event.start, event.end)),
    cell("Label", badge(event.label, event.isAlarm)), cell("Peak", chance(event.peak)), cell("Mean", chance(event.mean)),
    forPrint ? null : cell("Review", reviewControls(clip, event, `event-${i}`, `Event of ${readable(event.label)}, ${span(event.start, event.end)}`))));
  const heads = ["When", "Label", "Peak", "Mean", ...(forPrint ? [] : ["Review"])];
  const more = clip.allEvents > clip.events.length ? h("p", {class: "soft"}, `The strongest ${clip.events.length} of ${counted(clip.allEvents, "event")}; events.csv has all.`) : null;
  return h("div", {class: "scroll"}, h("table", {class: "small reviewed", role: "table"}, h("thead", {role: "rowgroup"}, h("tr", {role: "row"}, heads.map((text) => h("th", {scope: "col", role: "columnheader"}, text)))), h("tbody", {role: "rowgroup"}, rows)), more);
}
