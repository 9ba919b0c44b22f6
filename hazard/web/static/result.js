// What was seen in words, bars and a table.
import {badge, chance, share, stretch} from "./words.js";
import {clock, counted, h, marked, readable} from "./text.js";

export function verdict(answer, kindOf) {
  const notes = [h("p", {class: "says"}, badge(answer.label, kindOf(answer.label)), answer.confidence === null ? null : h("b", null, share(answer.confidence)))];
  const positive = answer.positive_label, peak = positive ? peakOf(answer, positive) : null;
  if (peak !== null) notes.push(h("p", {class: "soft"}, `At its most telling moment `, marked(positive), ` has ${chance(peak, answer.threshold)}, ${peak >= answer.threshold ? "at or above" : "below"} the threshold of ${share(answer.threshold)}.`));
  else if (!positive && answer.segment_predictions.length > 1) notes.push(h("p", {class: "soft"}, "On average over the whole video."));
  if (answer.events.length) {
    const top = answer.events.reduce((a, b) => b.peak > a.peak ? b : a), which = answer.events.length === 1 ? "An event" : `${counted(answer.events.length, "event")}, the strongest`;
    notes.push(h("p", null, `${which} of `, marked(top.label), ` at ${stretch(top.start, top.end)}, up to ${share(top.peak)}.`));
  }
  if (answer.is_unknown) notes.push(unknown(answer));
  else if (answer.zero_shot?.length) notes.push(zeroShot(answer));
  if (answer.status === "partial") notes.push(h("div", {class: "callout"}, h("p", null, h("b", null, "Read only in part. "), marked(answer.reason), " What could not be read was not judged.")));
  else if (answer.reason) notes.push(h("p", {class: "soft"}, marked(answer.reason)));
  return notes;
}
function peakOf(answer, label) {
  const all = answer.segment_predictions.flatMap((segment) => segment.top5.filter((one) => one.label === label).map((one) => one.confidence));
  return all.length ? Math.max(...all) : null;
}
function unknown(answer) {
  return h("div", {class: "callout odd"}, h("p", null, h("b", null, "Not known to the model. "), "The video is unlike all that it was trained on: its label means little here."),
    answer.zero_shot?.length ? zeroShot(answer) : null);
}
function zeroShot(answer) {
  return h("p", null, "CLIP, zero-shot, says: ", answer.zero_shot.slice(0, 5).flatMap(({label, confidence}, i) => [i ? ", " : null, marked(label), ` ${share(confidence)}`]), ".");
}

// The five likeliest labels of a segment; the same bars change, so that one sees them grow.
export function topFive(kindOf) {
  const title = h("h2", null, "Likeliest labels"), where = h("p", {class: "fine soft"}), list = h("ul", {class: "bars"});
  let shown = null;
  function show(segment, isHere) {
    where.textContent = segment ? `${stretch(segment.start, segment.end)}, ${isHere ? "where the film is" : "where you point"}` : "This stretch was not judged.";
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
      value.textContent = share(confidence);
    });
  }
  return {section: h("section", {class: "card bars-card"}, title, where, list), show};
}
export function eventTable(events, kindOf, seek) {
  const rows = events.map((event) => h("tr", {"data-index": event.index},
    h("th", {scope: "row"}, h("button", {type: "button", class: "link", "aria-label": `Go to the event of ${readable(event.label)} at ${stretch(event.start, event.end)}`, click: () => seek(event.start + 0.001)}, stretch(event.start, event.end))),
    h("td", null, badge(event.label, kindOf(event.label))), h("td", null, clock(event.end - event.start)), h("td", null, share(event.peak)), h("td", null, share(event.mean))));
  const heads = ["When", "Label", "Length", "Peak", "Mean"];
  const table = h("table", {class: "small events"}, h("thead", null, h("tr", null, heads.map((text) => h("th", {scope: "col"}, text)))), h("tbody", null, rows));
  let now;
  const mark = (event) => {
    if (now === event?.index) return;
    now = event?.index;
    rows.forEach((row, i) => { if (i === now) row.setAttribute("aria-current", "true"); else row.removeAttribute("aria-current"); });
  };
  return {section: h("section", {class: "card events-card"}, h("h2", null, "Events"), events.length ? h("div", {class: "scroll"}, table) : h("p", {class: "soft"}, "No events were found.")), mark};
}
