// What can be taken along. The annotated video is made when somebody asks for it.
import {Failure, ask, repeat, understood} from "./api.js";
import {icon, progressBar, setProgress, share} from "./words.js";
import {h} from "./text.js";

export function downloads(job, says) {
  const path = `${job.links.self}/annotated`, name = stem(job.name), line = h("p", {class: "error", role: "alert"});
  const bar = progressBar(NaN, "Making the annotated video"), words = h("span", {class: "fine soft"}, "Making it");
  const making = h("div", {class: "making", hidden: true}, words, bar);
  const file = (href, saved, ...text) => h("a", {class: "button", href, download: saved}, icon("down"), ...text);
  const video = () => file(path, `${name}.annotated.mp4`, "Annotated video");
  const make = h("button", {type: "button", class: "button", click: begin}, icon("film"), "Make annotated video");
  const place = h("span", {class: "slot"}, job.has_annotated ? video() : make);

  async function begin() {
    line.textContent = "";
    make.disabled = true;
    making.hidden = false;
    says("Making the annotated video");
    try {
      await ask(path, {method: "POST"});
    } catch (error) {
      return failed(error);
    }
    repeat(async () => {
      try {
        const state = await look(path);
        if (state === true) { done(); return true; }
        if (Number.isFinite(state.progress)) { setProgress(bar, state.progress); words.textContent = `Making it, ${share(state.progress)}`; }
      } catch (error) {
        failed(error);
        return true;
      }
      return false;
    }, {first: 300, most: 1500});
  }
  function done() {
    const had = document.activeElement === make || document.activeElement === document.body;
    making.hidden = true;
    place.replaceChildren(video());
    if (had) place.firstElementChild.focus({preventScroll: true});
    says("The annotated video is ready");
  }
  function failed(error) {
    making.hidden = true;
    make.disabled = false;
    line.textContent = error.message;
  }
  return h("section", {class: "card downloads-card"}, h("h2", null, "Download"),
    h("div", {class: "takes"}, place, file(job.links.result, `${name}.json`, "JSON"), file(job.links.csv, `${name}.csv`, "CSV")), making, line);
}
// Its first byte tells whether it is there; true, or how far the work is.
async function look(path) {
  let answer;
  try {
    answer = await fetch(path, {headers: {Range: "bytes=0-0", Accept: "application/json"}, cache: "no-store"});
  } catch {
    throw new Failure("The server does not answer.");
  }
  if (answer.status === 200 || answer.status === 206) { answer.body?.cancel(); return true; }
  return understood(answer.status, await answer.text()) ?? {};
}
function stem(name) {
  return name.replace(/\.[^.]{1,5}$/, "").replace(/[^\p{L}\p{N}._ -]+/gu, "_").slice(0, 80) || "video";
}
