// Uploads: two at a time, the others wait. Each has a row until the server has received it.
import {makeOfflineError, parseAnswer} from "./api.js";
import {formatBytes, icon, progressBar, setProgress, percentText} from "./format.js";
import {h, marked, readable} from "./text.js";

const MAX_SIMULTANEOUS = 2;

export function uploader({list, maxBytes, model, onUploaded, announce}) {
  const waiting = [], going = new Set();

  function add(files) {
    const fresh = Array.from(files, (file) => makeEntry(file));
    for (const each of fresh) {
      list.append(each.row);
      if (each.file.size > maxBytes) showRejected(each, `The file is too large: ${formatBytes(each.file.size)}. The limit is ${formatBytes(maxBytes)}.`);
      else if (!each.file.size) showRejected(each, "The file is empty.");
      else waiting.push(each);
    }
    announce(fresh.length === 1 ? `Uploading ${readable(fresh[0].file.name)}` : `Uploading ${fresh.length} videos`);
    next();
    return fresh;
  }
  function makeEntry(file) {
    const each = {file, model: model(), row: h("li", {class: "row-card sending"}), request: null};
    each.bar = progressBar(0, `Uploading ${readable(file.name)}`);
    each.stateLine = h("p", {class: "state soft"}, "Waiting");
    each.stop = h("button", {type: "button", class: "icon", "aria-label": `Stop uploading ${readable(file.name)}`, title: "Stop", click: () => stop(each)}, icon("cross"));
    each.row.append(h("span", {class: "thumb"}, icon("film")),
      h("div", {class: "what"}, h("p", {class: "name"}, marked(file.name)), h("p", {class: "fine soft"}, formatBytes(file.size))),
      h("div", {class: "outcome"}, each.stateLine, each.bar), each.stop);
    return each;
  }
  function next() {
    while (going.size < MAX_SIMULTANEOUS && waiting.length) send(waiting.shift());
  }
  function send(each) {
    const request = each.request = new XMLHttpRequest(), form = new FormData();
    going.add(each);
    if (each.model) form.append("model", each.model);
    form.append("video", each.file);
    request.open("POST", "/jobs");
    request.setRequestHeader("Accept", "application/json");
    request.upload.onprogress = (event) => {
      const sent = event.lengthComputable ? event.loaded / event.total : 0;
      setProgress(each.bar, sent);
      each.stateLine.textContent = sent < 1 ? `Uploading, ${percentText(sent)}` : "Waiting for the server";
    };
    request.onload = () => finish(each, () => parseAnswer(request.status, request.responseText));
    request.onerror = () => finish(each, () => { throw makeOfflineError(); });
    each.stateLine.textContent = "Uploading";
    request.send(form);
  }
  function finish(each, answer) {
    going.delete(each);
    let job;
    try {
      job = answer();
    } catch (error) {
      showRejected(each, error.message, true);
    }
    if (job) {
      each.row.remove();
      onUploaded(job, {isLast: !busy()});
    }
    next();
  }
  function showRejected(each, reason, canRetry = false) {
    const again = canRetry && h("button", {type: "button", class: "link", click: () => {
      each.row.replaceWith((() => { const fresh = makeEntry(each.file); waiting.push(fresh); return fresh.row; })());
      next();
    }}, "Try again");
    each.row.classList.add("failed");
    each.bar.remove();
    each.stateLine.replaceWith(h("p", {class: "reason", role: "alert"}, marked(reason), again ? " " : null, again));
    each.stop.setAttribute("aria-label", `Remove ${readable(each.file.name)} from the list`);
    each.stop.title = "Remove";
  }
  function stop(each) {
    const place = waiting.indexOf(each);
    if (place >= 0) waiting.splice(place, 1);
    each.request?.abort();
    going.delete(each);
    each.row.remove();
    next();
  }
  const busy = () => going.size + waiting.length > 0;
  // Leaving the page would stop the uploads. What the server has received is safe.
  addEventListener("beforeunload", (event) => { if (busy()) event.preventDefault(); });
  return {add, busy};
}
