// The page of one video: first how far the work is, then, in the same place, what was seen.
import {Failure, ask, repeat} from "./api.js";
import {downloads} from "./downloads.js";
import {player} from "./player.js";
import {eventTable, topFive, verdict} from "./result.js";
import {seenIn} from "./seen.js";
import {timeline} from "./timeline.js";
import {byId, h, marked, readable} from "./text.js";
import {dotted, isOver, lasting, progressBar, sentence, setProgress, stateWords, when} from "./words.js";

const article = byId("job"), view = byId("view"), self = `/jobs/${article.dataset.id}`;
const says = (text) => { byId("says").textContent = text; };
let bar = null, words = null, lost = null, state = "";

function about(job) {
  byId("about").replaceChildren(...dotted(h("span", null, marked(job.model)), lasting(job), when(job.created), expiry(job)));
}
function expiry(job) {
  const hours = (new Date(job.expires) - Date.now()) / 3600e3;
  return Number.isFinite(hours) ? `kept for ${hours < 1 ? "less than an hour" : hours < 48 ? `${Math.round(hours)} h` : `${Math.round(hours / 24)} days`} more` : "";
}
function going(job) {
  if (!bar) {
    bar = progressBar(0, "Work on this video");
    words = h("p", {class: "big"});
    lost = h("p", {class: "error", role: "alert"});
    const stop = h("button", {type: "button", click: remove}, "Stop and delete");
    view.replaceChildren(h("section", {class: "card waiting", "aria-label": "Progress"}, words, bar,
      h("p", {class: "fine soft"}, "You may leave this page: the work goes on, and the video is in the list on the start page."), lost, h("p", {class: "buttons"}, stop)));
  }
  words.textContent = stateWords(job);
  setProgress(bar, job.state === "queued" ? 0 : job.progress);
  bar.classList.toggle("idle", job.state === "queued");
  const tenth = Math.floor(job.progress * 4); // a screen reader hears quarters
  if (state !== job.state + tenth) { state = job.state + tenth; says(stateWords(job)); }
}
function failed(job) {
  says(`Could not be analysed: ${readable(job.reason)}`);
  view.replaceChildren(h("section", {class: "card broken"}, h("h2", null, "This video could not be analysed"),
    h("p", {class: "error"}, marked(sentence(job.reason || "No reason is known."))),
    h("p", {class: "buttons"}, h("a", {class: "button strong", href: "/"}, "Try another video"), h("button", {type: "button", click: remove}, "Delete"))));
}
async function done(job) {
  const answer = await ask(job.links.result);
  if (answer.status === "failed") return failed({...job, reason: answer.reason});
  const seen = seenIn(answer), table = eventTable(seen.events, seen.kindOf, (time) => film.seek(time)), bars = topFive(seen.kindOf);
  let now = 0, pointed = null, line = null;
  const light = () => { const time = pointed ?? now; bars.show(seen.segmentAt(time), pointed === null); };
  const film = player({answer, source: job.links.video, ...seen, says,
    moved(time) { now = time; line?.place(time); table.mark(seen.eventAt(time)); light(); }});
  line = timeline({answer: {...answer, segment_predictions: seen.segments, events: seen.events}, ...seen, seek: film.seek, toggle: film.toggle, pointed(time) { pointed = time; light(); }});
  light();
  view.replaceChildren(h("div", {class: "result-grid"},
    h("div", {class: "broad"}, h("section", {class: "card film-card", "aria-label": "Video"}, film.figure),
      h("section", {class: "card chart-card"}, h("h2", null, "Over time"), line.figure), table.section),
    h("div", {class: "side"}, h("section", {class: "card verdict-card"}, h("h2", null, "Verdict"), verdict(answer, seen.kindOf)),
      bars.section, downloads(job, says))));
  says(`Done: ${readable(answer.label)}`);
  if (!job.links.video) playLater(film);
}
function playLater(film) {
  const until = Date.now() + 15 * 60e3; // some cannot be made at all
  repeat(async () => {
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
    (lost ?? view.appendChild(h("p", {class: "error", role: "alert"}))).textContent = error.message;
  }
}
function gone(reason) {
  view.replaceChildren(h("section", {class: "card broken"}, h("p", {class: "error", role: "alert"}, reason), h("p", {class: "buttons"}, h("a", {class: "button strong", href: "/"}, "To the start page"))));
}

repeat(async (quickly) => {
  try {
    const job = await ask(self);
    about(job);
    if (lost) lost.textContent = "";
    if (job.state === "failed") failed(job);
    else if (job.state === "done") await done(job);
    else { going(job); if (job.place === 0) quickly(); }
    return isOver(job);
  } catch (error) {
    if (!(error instanceof Failure)) throw error;
    if ([401, 404, 410].includes(error.status)) { gone(error.status === 404 ? "This video is not here any more: it was deleted, or its time was over." : error.message); return true; }
    if (lost) lost.textContent = `${error.message} Trying again.`;
    else view.replaceChildren(h("p", {class: "error", role: "alert"}, `${error.message} Trying again.`));
    return false;
  }
}, {first: 300, most: 2000});
