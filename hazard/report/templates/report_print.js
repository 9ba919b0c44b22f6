// On paper: every clip that the filters leave, and the details of those with events.
const PRINTED_DETAILS = 60, PRINTED_PICTURES = 400;

function preparePrint() {
  const paper = byId("paper");
  if (document.documentElement.classList.contains("on-detail")) {
    const clip = routed();
    if (clip) paper.replaceChildren(detailPage(clip, {forPrint: true, wide: 660}).page);
    return;
  }
  eventsShown = Math.max(eventsShown, 200);
  failuresShown = meta.failures.length;
  showEvents();
  showFailures();
  const table = byId("clips").cloneNode(true), withPictures = view.shown.length <= PRINTED_PICTURES;
  table.removeAttribute("id");
  for (const header of table.tHead.rows[0].cells) header.textContent = header.textContent; // buttons are not repeated on each sheet
  table.hidden = !view.shown.length;
  table.tBodies[0].replaceChildren(...view.shown.map((clip) => rowElement(clip, withPictures)));
  const withEvents = view.shown.filter((clip) => clip.events.length), told = withEvents.slice(0, PRINTED_DETAILS);
  byId("paper-table").replaceChildren(h("p", {class: "soft"}, filterWords()), table);
  paper.replaceChildren(...(told.length ? [h("h2", null, "Clips with events"),
    withEvents.length > told.length ? h("p", {class: "soft"}, `The first ${told.length} of ${withEvents.length} clips with events, in the order of the table.`) : "",
    ...told.map((clip) => detailPage(clip, {forPrint: true, wide: 660}).page)] : []));
}
function filterWords() {
  const kept = ["filter-label", "filter-show"].map(byId).filter((select) => select.value).map((select) => select.selectedOptions[0].textContent);
  const text = byId("filter-text").value.trim();
  if (text) kept.unshift(`“${readable(text)}”`);
  return kept.length ? `${byId("count").textContent}: ${kept.join(", ")}` : byId("count").textContent;
}
function afterPrint() {
  byId("paper").replaceChildren();
  byId("paper-table")?.replaceChildren();
}
