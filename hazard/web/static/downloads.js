// The downloads of a result. The annotated video is made on request.
import {Failure, ask, poll} from "./api.js";
import {icon, progressBar, setProgress, percentText} from "./format.js";
import {h, readable} from "./text.js";

export function downloads(job, announce) {
  const path = `${job.links.self}/annotated`, name = fileStem(job.name), errorLine = h("p", {class: "error", role: "alert"});
  const bar = progressBar(NaN, "Making the annotated video"), label = h("span", {class: "fine soft"}, "Rendering");
  const progress = h("div", {class: "making", hidden: true}, label, bar);
  const fileLink = (href, fileName, ...text) => h("a", {class: "button", href, download: fileName}, icon("down"), ...text);
  const videoLink = () => fileLink(path, `${name}.annotated.mp4`, "Annotated video");
  const makeButton = h("button", {type: "button", class: "button", click: request}, icon("film"), "Make annotated video");
  const place = h("span", {class: "slot"}, job.has_annotated ? videoLink() : makeButton);

  async function request() {
    errorLine.textContent = "";
    makeButton.disabled = true;
    progress.hidden = false;
    announce("Making the annotated video");
    try {
      await ask(path, {method: "POST"});
    } catch (error) {
      return showError(error);
    }
    pollProgress();
  }
  function pollProgress() {
    poll(async () => {
      try {
        const now = await ask(job.links.self);
        if (now.has_annotated) { showReady(); return true; }
        if (typeof now.annotating !== "number") throw new Failure(`The annotated video could not be made${now.annotate_reason ? `: ${readable(now.annotate_reason)}` : "."}`);
        setProgress(bar, now.annotating);
        label.textContent = `Rendering, ${percentText(now.annotating)}`;
      } catch (error) {
        if (!(error instanceof Failure)) throw error;
        showError(error);
        return true;
      }
      return false;
    }, {first: 300, most: 1500});
  }
  function showReady() {
    const hadFocus = document.activeElement === makeButton || document.activeElement === document.body;
    progress.hidden = true;
    place.replaceChildren(videoLink());
    if (hadFocus) place.firstElementChild.focus({preventScroll: true});
    announce("The annotated video is ready");
  }
  function showError(error) {
    progress.hidden = true;
    makeButton.disabled = false;
    errorLine.textContent = error.message;
  }
  if (typeof job.annotating === "number") { // requested before the page was loaded
    makeButton.disabled = true;
    progress.hidden = false;
    pollProgress();
  }
  return h("section", {class: "card downloads-card"}, h("h2", null, "Download"),
    h("div", {class: "takes"}, place, fileLink(job.links.result, `${name}.json`, "JSON"), fileLink(job.links.csv, `${name}.csv`, "CSV")), progress, errorLine);
}
function fileStem(name) {
  return name.replace(/\.[^.]{1,5}$/, "").replace(/[^\p{L}\p{N}._ -]+/gu, "_").slice(0, 80) || "video";
}
