// Printing: all clips that pass the filters, and the details of those with events.
const PRINTED_DETAILS = 60, PRINTED_FRAMES = 400;

function preparePrint() {
  const paper = byId("paper");
  if (document.documentElement.classList.contains("on-detail")) {
    const clip = clipInAddress();
    if (clip) paper.replaceChildren(detailPage(clip, {forPrint: true, width: 660}).page);
    return;
  }
  eventsShown = Math.max(eventsShown, 200);
  failuresShown = meta.failures.length;
  showEvents();
  showFailures();
  const table = byId("clips").cloneNode(true), withFrames = view.shown.length <= PRINTED_FRAMES;
  table.removeAttribute("id");
  for (const header of table.tHead.rows[0].cells) header.textContent = header.textContent; // buttons are not repeated on each page
  table.hidden = !view.shown.length;
  table.tBodies[0].replaceChildren(...view.shown.map((clip) => rowElement(clip, withFrames)));
  const withEvents = view.shown.filter((clip) => clip.events.length), printed = withEvents.slice(0, PRINTED_DETAILS);
  byId("paper-table").replaceChildren(h("p", {class: "soft"}, filterText()), table);
  paper.replaceChildren(...(printed.length ? [h("h2", null, "Clips with events"),
    withEvents.length > printed.length ? h("p", {class: "soft"}, `The first ${printed.length} of ${withEvents.length} clips with events, in the order of the table.`) : "",
    ...printed.map((clip) => detailPage(clip, {forPrint: true, width: 660}).page)] : []));
}
function filterText() {
  const active = ["filter-label", "filter-show"].map(byId).filter((select) => select.value).map((select) => select.selectedOptions[0].textContent);
  const text = byId("filter-text").value.trim();
  if (text) active.unshift(`“${readable(text)}”`);
  return active.length ? `${byId("count").textContent}: ${active.join(", ")}` : byId("count").textContent;
}
function afterPrint() {
  byId("paper").replaceChildren();
  byId("paper-table")?.replaceChildren();
}
