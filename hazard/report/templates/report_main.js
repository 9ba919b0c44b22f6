// The address chooses the view: #clip=12 opens a clip, anything else the overview.
const root = document.documentElement;
const overview = byId("overview"), detailView = byId("detail");
let returnTo = null, lastList = "clips", openChart = null;
history.scrollRestoration = "manual";

function clipInAddress() {
  const found = /^#clip=(\d+)$/.exec(location.hash);
  return found ? clipByNumber.get(+found[1]) : undefined;
}
function route() {
  const clip = clipInAddress();
  if (clip) openClip(clip);
  else if (!detailView.hidden) closeClip();
}
function openClip(clip) {
  returnTo = {y: detailView.hidden ? scrollY : returnTo.y, number: clip.number};
  overview.hidden = true;
  detailView.hidden = false;
  root.classList.add("on-detail");
  const width = Math.max(280, detailView.clientWidth - 34);
  const {page, title, chart} = detailPage(clip, {width: Math.min(width, chartWidth())});
  openChart = chart;
  detailView.replaceChildren(clipNavigation(clip), page);
  chart?.draw(chart.figure.clientWidth || width);
  document.title = `${readable(clip.name)} – ${meta.title}`;
  scrollTo(0, 0);
  title.focus({preventScroll: true});
}
function chartWidth() {
  return innerWidth > 1000 ? 760 : innerWidth - 60;
}
function closeClip() {
  detailView.hidden = true;
  detailView.replaceChildren();
  openChart = null;
  overview.hidden = false;
  root.classList.remove("on-detail");
  document.title = meta.title;
  showRows();
  if (location.hash.length > 1 && byId(location.hash.slice(1))) byId(location.hash.slice(1)).scrollIntoView();
  else if (returnTo) {
    scrollTo(0, returnTo.y);
    const link = byId(lastList)?.querySelector(`[data-number="${returnTo.number}"] a`);
    (link ?? byId("list-title")).focus({preventScroll: true});
  }
}
function clipNavigation(clip) {
  const position = view.shown.indexOf(clip), step = (by, text, sign) => {
    const other = position < 0 ? undefined : view.shown[position + by];
    return other ? h("a", {href: `#clip=${other.number}`, class: "step", rel: by < 0 ? "prev" : "next", title: readable(other.path)}, ...(by < 0 ? [sign, " ", text] : [text, " ", sign]))
      : h("span", {class: "step off"}, ...(by < 0 ? [sign, " ", text] : [text, " ", sign]));
  };
  return h("nav", {class: "around", "aria-label": "Clips"},
    h("a", {href: "#", class: "step", click: (clicked) => { clicked.preventDefault(); goBack(); }}, "← All clips"),
    h("span", {class: "place"}, position < 0 ? "" : `${(position + 1).toLocaleString("en")} of ${view.shown.length.toLocaleString("en")}`),
    step(-1, "Previous", "‹"), step(1, "Next", "›"));
}
function goBack() {
  location.hash = "";
}

overview.addEventListener("click", (clicked) => {
  const list = clicked.target.closest("table[id], ul[id]");
  if (list) lastList = list.id;
}, true);
function startOverview() {
  for (const header of byId("clips").tHead.querySelectorAll("[data-sort] button"))
    header.addEventListener("click", () => sortBy(header.parentElement.dataset.sort));
  for (const id of ["filter-text", "filter-label", "filter-show"]) byId(id).addEventListener("input", refresh);
  byId("phone-sort").addEventListener("input", (changed) => {
    view.sort = changed.target.value.slice(0, -1);
    view.isDescending = changed.target.value.endsWith("-");
    view.page = 0;
    sortClips();
    showRows();
  });
  byId("clear").addEventListener("click", () => {
    for (const id of ["filter-text", "filter-label", "filter-show"]) byId(id).value = "";
    refresh();
    byId("filter-text").focus();
  });
  byId("page-back").addEventListener("click", () => turnPage(-1));
  byId("page-on").addEventListener("click", () => turnPage(1));
  for (const table of overview.querySelectorAll("table.rows")) table.addEventListener("click", openRow);
  refresh();
}
function openRow(clicked) {
  const row = clicked.target.closest("tr[data-number]");
  if (row && !clicked.target.closest("a, button, input, select, label") && !String(getSelection())) location.hash = `clip=${row.dataset.number}`;
}
if (clips.length) startOverview();
if (allEvents.length) {
  byId("more-events").addEventListener("click", () => { eventsShown += MORE_EVENTS; showEvents(); });
  byId("event-order").addEventListener("input", showEvents);
  showEvents();
}
if (meta.failed) {
  byId("more-failures").addEventListener("click", () => { failuresShown = meta.failures.length; showFailures(); });
  showFailures();
}
showMistakes();
showMarks();
byId("review-download").addEventListener("click", downloadCorrections);
byId("review-clear").addEventListener("click", clearMarks);
addEventListener("marks-cleared", () => { if (clipInAddress()) openClip(clipInAddress()); else if (clips.length) showRows(); });
addEventListener("hashchange", route);
addEventListener("resize", () => { if (openChart) openChart.draw(openChart.figure.clientWidth); });
addEventListener("beforeprint", preparePrint);
addEventListener("afterprint", afterPrint);
root.classList.add("scripted");
route();
root.dataset.readyMs = performance.now().toFixed(0);
