// The page of one video: the progress of the analysis, then the result.
import {Failure, ask, poll} from "./api.js";
import {downloads} from "./downloads.js";
import {player} from "./player.js";
import {eventTable, topFive, verdict} from "./result.js";
import {indexAnswer} from "./answer.js";
import {timeline} from "./timeline.js";
import {byId, h, marked, readable} from "./text.js";
import {joinWithDots, isOver, durationText, progressBar, toSentence, setProgress, stateText, timeElement, withPeriod} from "./format.js";

const article = byId("job"), view = byId("view"), self = `/jobs/${article.dataset.id}`;
const announce = (text) => { byId("says").textContent = text; };
let bar = null, stateLine = null, errorLine = null, state = "";

function showFacts(job) {
  byId("about").replaceChildren(...joinWithDots(h("span", null, marked(job.model)), durationText(job), timeElement(job.created), expiryText(job)));
}
function expiryText(job) {
  const hours = (new Date(job.expires) - Date.now()) / 3600e3;
  return Number.isFinite(hours) ? `will be deleted in ${hours < 1 ? "less than an hour" : hours < 48 ? `${Math.round(hours)} h` : `${Math.round(hours / 24)} days`}` : "";
}
function showProgress(job) {
  if (!bar) {
    bar = progressBar(0, "Analysis progress");
    stateLine = h("p", {class: "big"});
    errorLine = h("p", {class: "error", role: "alert"});
    const stop = h("button", {type: "button", click: remove}, "Stop and delete");
    view.replaceChildren(h("section", {class: "card waiting", "aria-label": "Progress"}, stateLine, bar,
      h("p", {class: "fine soft"}, "You can leave this page. The analysis continues, and the video stays in the list on the start page."), errorLine, h("p", {class: "buttons"}, stop)));
  }
  stateLine.textContent = stateText(job);
  setProgress(bar, job.state === "queued" ? 0 : job.progress);
  bar.classList.toggle("idle", job.state === "queued");
  const quarter = Math.floor(job.progress * 4); // screen readers announce each quarter
  if (state !== job.state + quarter) { state = job.state + quarter; announce(stateText(job)); }
}
function showFailure(job) {
  announce(`Analysis failed: ${readable(job.reason)}`);
  view.replaceChildren(h("section", {class: "card broken"}, h("h2", null, "This video could not be analysed"),
    h("p", {class: "error"}, marked(toSentence(job.reason || "The server gave no reason."))),
    h("p", {class: "buttons"}, h("a", {class: "button strong", href: "/"}, "Try another video"), h("button", {type: "button", click: remove}, "Delete"))));
}
async function showResult(job) {
  const answer = await ask(job.links.result);
  if (answer.status === "failed") return showFailure({...job, reason: answer.reason});
  const index = indexAnswer(answer), table = eventTable(index.events, index.kindOf, (time) => film.seek(time)), bars = topFive(index.kindOf);
  let now = 0, pointed = null, line = null;
  const light = () => { const time = pointed ?? now; bars.show(index.segmentAt(time), pointed === null); };
  const film = player({answer, source: job.links.video, ...index, announce,
    onTime(time) { now = time; line?.place(time); table.mark(index.eventAt(time)); light(); }});
  line = timeline({answer: {...answer, segment_predictions: index.segments, events: index.events}, ...index, seek: film.seek, toggle: film.toggle, pointed(time) { pointed = time; light(); }});
  light();
  view.replaceChildren(h("div", {class: "result-grid"},
    h("div", {class: "broad"}, h("section", {class: "card film-card", "aria-label": "Video"}, film.figure),
      h("section", {class: "card chart-card"}, h("h2", null, "Over time"), line.figure), table.section),
    h("div", {class: "side"}, h("section", {class: "card verdict-card"}, h("h2", null, "Result"), verdict(answer, index.kindOf)),
      bars.section, downloads(job, announce))));
  announce(`Done: ${readable(answer.label)}`);
  if (!job.links.video) waitForPreview(film);
}
function waitForPreview(film) {
  const until = Date.now() + 15 * 60e3; // some previews cannot be made
  poll(async () => {
    const {links} = await ask(self).catch(() => ({links: {}}));
    if (links.video) film.play(links.video);
    return Boolean(links.video) || Date.now() > until;
  }, {first: 500, most: 5000});
}
async function remove() {
  try {
    await ask(self, {method: "DELETE"});
    location.assign("/");
  } catch (error) {
    (errorLine ?? view.appendChild(h("p", {class: "error", role: "alert"}))).textContent = error.message;
  }
}
function showGone(reason) {
  view.replaceChildren(h("section", {class: "card broken"}, h("p", {class: "error", role: "alert"}, reason), h("p", {class: "buttons"}, h("a", {class: "button strong", href: "/"}, "Go to the start page"))));
}

poll(async (quickly) => {
  try {
    const job = await ask(self);
    showFacts(job);
    if (errorLine) errorLine.textContent = "";
    if (job.state === "failed") showFailure(job);
    else if (job.state === "done") await showResult(job);
    else { showProgress(job); if (job.place === 0) quickly(); }
    return isOver(job);
  } catch (error) {
    if (!(error instanceof Failure)) throw error;
    if ([401, 404, 410].includes(error.status)) { showGone(error.status === 404 ? "This video no longer exists. It was deleted, or its retention time ended." : error.message); return true; }
    if (errorLine) errorLine.textContent = `${withPeriod(error.message)} Retrying.`;
    else view.replaceChildren(h("p", {class: "error", role: "alert"}, `${withPeriod(error.message)} Retrying.`));
    return false;
  }
}, {first: 300, most: 2000});
