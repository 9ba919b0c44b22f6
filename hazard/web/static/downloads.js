// What can be taken along. The annotated video is made when somebody asks for it.
import {Failure, ask, repeat} from "./api.js";
import {icon, progressBar, setProgress, share} from "./words.js";
import {h, readable} from "./text.js";

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
    watch();
  }
  function watch() {
    repeat(async () => {
      try {
        const now = await ask(job.links.self);
        if (now.has_annotated) { done(); return true; }
        if (typeof now.annotating !== "number") throw new Failure(`The annotated video could not be made${now.annotate_reason ? `: ${readable(now.annotate_reason)}` : "."}`);
        setProgress(bar, now.annotating);
        words.textContent = `Making it, ${share(now.annotating)}`;
      } catch (error) {
        if (!(error instanceof Failure)) throw error;
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
  if (typeof job.annotating === "number") { // somebody asked for it before the page was loaded
    make.disabled = true;
    making.hidden = false;
    watch();
  }
  return h("section", {class: "card downloads-card"}, h("h2", null, "Download"),
    h("div", {class: "takes"}, place, file(job.links.result, `${name}.json`, "JSON"), file(job.links.csv, `${name}.csv`, "CSV")), making, line);
}
function stem(name) {
  return name.replace(/\.[^.]{1,5}$/, "").replace(/[^\p{L}\p{N}._ -]+/gu, "_").slice(0, 80) || "video";
}
