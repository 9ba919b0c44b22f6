// The result as text, bars and a table.
import {badge, probabilityText, percentText, timeSpan} from "./format.js";
import {clock, counted, h, marked, readable} from "./text.js";

export function verdict(answer, kindOf) {
  const notes = [h("p", {class: "says"}, badge(answer.label, kindOf(answer.label)), answer.confidence === null ? null : h("b", null, percentText(answer.confidence)))];
  const positive = answer.positive_label, peak = positive ? peakOf(answer, positive) : null;
  if (peak !== null) notes.push(h("p", {class: "soft"}, "Highest probability of ", marked(positive), `: ${probabilityText(peak, answer.threshold)}, ${peak >= answer.threshold ? "at or above" : "below"} the threshold of ${percentText(answer.threshold)}.`));
  else if (!positive && answer.segment_predictions.length > 1) notes.push(h("p", {class: "soft"}, "Averaged over the whole video."));
  if (answer.events.length) {
    const top = answer.events.reduce((a, b) => b.peak > a.peak ? b : a), which = answer.events.length === 1 ? "1 event" : `${counted(answer.events.length, "event")}, the strongest`;
    notes.push(h("p", null, `${which}: `, marked(top.label), ` at ${timeSpan(top.start, top.end)}, peak ${percentText(top.peak)}.`));
  }
  if (answer.is_unknown) notes.push(unknown(answer));
  else if (answer.zero_shot?.length) notes.push(zeroShot(answer));
  if (answer.status === "partial") notes.push(h("div", {class: "callout"}, h("p", null, h("b", null, "Partly read. "), marked(answer.reason), " The rest was not analysed.")));
  else if (answer.reason) notes.push(h("p", {class: "soft"}, marked(answer.reason)));
  return notes;
}
function peakOf(answer, label) {
  const all = answer.segment_predictions.flatMap((segment) => segment.top5.filter((one) => one.label === label).map((one) => one.confidence));
  return all.length ? Math.max(...all) : null;
}
function unknown(answer) {
  return h("div", {class: "callout odd"}, h("p", null, h("b", null, "Not known to the model. "), "The video is unlike the training videos, so the label is not reliable."),
    answer.zero_shot?.length ? zeroShot(answer) : null);
}
function zeroShot(answer) {
  return h("p", null, "CLIP (zero-shot): ", answer.zero_shot.slice(0, 5).flatMap(({label, confidence}, i) => [i ? ", " : null, marked(label), ` ${percentText(confidence)}`]), ".");
}

// The five most likely labels of a segment. The bars are reused, so that they grow visibly.
export function topFive(kindOf) {
  const title = h("h2", null, "Most likely labels"), where = h("p", {class: "fine soft"}), list = h("ul", {class: "bars"});
  let shown = null;
  function show(segment, isHere) {
    where.textContent = segment ? `${timeSpan(segment.start, segment.end)}, ${isHere ? "at the playback position" : "at the pointer"}` : "This part was not analysed.";
    if (shown === (segment?.index ?? -1)) return;
    shown = segment?.index ?? -1;
    const rows = (segment?.top5 ?? []).slice(0, 5);
    while (list.children.length > rows.length) list.lastElementChild.remove();
    while (list.children.length < rows.length) list.append(h("li", null, h("span", {class: "label-of"}), h("span", {class: "track", "aria-hidden": "true"}, h("i")), h("span", {class: "value"})));
    rows.forEach(({label, confidence}, i) => {
      const [name, track, value] = list.children[i].children;
      name.replaceChildren(marked(label));
      name.title = readable(label);
      track.className = `track ${kindOf(label)}`;
      track.firstElementChild.style.setProperty("--p", confidence);
      value.textContent = percentText(confidence);
    });
  }
  return {section: h("section", {class: "card bars-card"}, title, where, list), show};
}
export function eventTable(events, kindOf, seek) {
  const rows = events.map((event) => h("tr", {"data-index": event.index},
    h("th", {scope: "row"}, h("button", {type: "button", class: "link", "aria-label": `Go to event ${readable(event.label)} at ${timeSpan(event.start, event.end)}`, click: () => seek(event.start + 0.001)}, timeSpan(event.start, event.end))),
    h("td", null, badge(event.label, kindOf(event.label))), h("td", null, clock(event.end - event.start)), h("td", null, percentText(event.peak)), h("td", null, percentText(event.mean))));
  const heads = ["Time", "Label", "Duration", "Peak", "Mean"];
  const table = h("table", {class: "small events"}, h("thead", null, h("tr", null, heads.map((text) => h("th", {scope: "col"}, text)))), h("tbody", null, rows));
  let now;
  const mark = (event) => {
    if (now === event?.index) return;
    now = event?.index;
    rows.forEach((row, i) => { if (i === now) row.setAttribute("aria-current", "true"); else row.removeAttribute("aria-current"); });
  };
  return {section: h("section", {class: "card events-card"}, h("h2", null, "Events"), events.length ? h("div", {class: "scroll"}, table) : h("p", {class: "soft"}, "No events were found.")), mark};
}
