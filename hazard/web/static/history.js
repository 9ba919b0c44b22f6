// The list of the server's videos, newest first. Only changed rows are drawn again, so that the focus stays.
import {Failure, ask, poll} from "./api.js";
import {badge, joinWithDots, icon, isOver, durationText, progressBar, toSentence, percentText, stateText, timeElement} from "./format.js";
import {h, marked, readable} from "./text.js";

const PAGE_SIZE = 30;

export function historyList({list, nothing, more, title, isAlarm, showError, announce}) {
  const rows = new Map(); // id → {row, text}
  let jobs = null, shown = PAGE_SIZE, stateById = new Map();

  const polling = poll(async (quickly) => {
    try {
      update((await ask("/jobs")).jobs, quickly);
      showError("");
    } catch (error) {
      if (!(error instanceof Failure)) throw error;
      showError(error.message);
      return error.status === 401;
    }
    return false;
  }, {first: 500, most: 5000});

  function update(fresh, quickly) {
    for (const job of fresh) {
      const before = stateById.get(job.id);
      if (before && before !== job.state && isOver(job)) announce(`${readable(job.name)}: ${job.state === "done" ? readable(job.label || "done") : job.reason}`);
      if (!isOver(job) || before !== job.state) quickly();
    }
    stateById = new Map(fresh.map((job) => [job.id, job.state]));
    jobs = fresh;
    show();
  }
  function show() {
    const visible = jobs.slice(0, shown);
    for (const [id, {row}] of rows) if (!visible.some((job) => job.id === id)) { row.remove(); rows.delete(id); }
    visible.forEach((job, i) => {
      const text = JSON.stringify(job), known = rows.get(job.id);
      let row = known?.row;
      if (known?.text !== text && !known?.row.querySelector(".really")) {
        row = rowOf(job);
        if (known) exchange(known.row, row);
        rows.set(job.id, {row, text});
      }
      if (list.children[i] !== row) list.insertBefore(row, list.children[i] ?? null);
    });
    nothing.hidden = jobs.length > 0;
    more.hidden = jobs.length <= shown;
    more.textContent = `Show ${Math.min(PAGE_SIZE, jobs.length - shown)} more`;
  }
  function exchange(old, row) {
    const part = old.contains(document.activeElement) ? document.activeElement.dataset.part : null;
    old.replaceWith(row);
    if (part) row.querySelector(`[data-part="${part}"]`)?.focus({preventScroll: true});
  }
  function rowOf(job) {
    const name = readable(job.name);
    return h("li", {class: `row-card ${job.state}`, "data-id": job.id},
      job.state === "done" ? poster(job) : h("span", {class: "thumb"}, icon("film")),
      h("div", {class: "what"},
        h("p", {class: "name"}, h("a", {href: job.links.page, "data-part": "link"}, marked(job.name))),
        h("p", {class: "fine soft"}, joinWithDots(timeElement(job.created), durationText(job), marked(job.model)))),
      h("div", {class: "outcome"}, outcome(job)),
      h("button", {type: "button", class: "icon", "data-part": "bin", "aria-label": `Delete ${name}`, title: "Delete", click: () => askFirst(job)}, icon("bin")));
  }
  function poster(job) {
    const empty = h("span", {class: "thumb"}, icon("film"));
    const image = h("img", {class: "thumb", src: `${job.links.self}/picture`, alt: "", loading: "lazy", decoding: "async", error: () => image.replaceWith(empty)});
    return image;
  }
  function outcome(job) {
    if (job.state === "failed") return [h("p", {class: "state"}, stateText(job)), h("p", {class: "reason fine"}, marked(toSentence(job.reason)))];
    if (!isOver(job)) return [h("p", {class: "state soft"}, stateText(job)), progressBar(job.progress, `Analysis progress of ${readable(job.name)}`)];
    const kind = isAlarm(job) ? "hot" : "cool";
    return h("p", {class: "says"}, badge(job.label || "done", kind), Number.isFinite(job.confidence) && job.confidence !== null ? h("b", null, percentText(job.confidence)) : null,
      job.is_unknown ? h("span", {class: "tag odd", title: "The video is unlike the training videos, so the label is not reliable."}, "unknown") : null,
      job.reason ? h("span", {class: "tag", title: readable(job.reason)}, "partly read") : null);
  }
  function askFirst(job) {
    const {row} = rows.get(job.id), bin = row.querySelector("[data-part=bin]");
    const back = () => { question.remove(); bin.hidden = false; bin.focus(); };
    const sure = h("button", {type: "button", class: "danger", click: () => remove(job, question, back)}, "Delete");
    const question = h("span", {class: "really", role: "group", "aria-label": `Delete ${readable(job.name)}?`,
                                keydown: (pressed) => { if (pressed.key === "Escape") back(); }}, sure, h("button", {type: "button", click: back}, "Keep"));
    bin.hidden = true;
    row.append(question);
    sure.focus();
  }
  async function remove(job, question, back) {
    try {
      await ask(job.links.self, {method: "DELETE"});
    } catch (error) {
      if (error.status !== 404) { back(); showError(error.message); return; }
    }
    const place = jobs.findIndex((each) => each.id === job.id), after = jobs[place + 1] ?? jobs[place - 1];
    question.remove();
    jobs = jobs.filter((each) => each.id !== job.id);
    show();
    (rows.get(after?.id)?.row.querySelector("a") ?? title).focus();
    announce(`${readable(job.name)} deleted`);
  }
  more.addEventListener("click", () => { shown += PAGE_SIZE; show(); });
  return {refresh: polling.now, redraw() { rows.forEach((known) => { known.text = ""; }); if (jobs) show(); }};
}
