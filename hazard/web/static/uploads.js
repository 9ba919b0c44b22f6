// Files on their way to the server: two at a time, the others wait. Each has a row until the server has it.
import {offline, understood} from "./api.js";
import {bytes, icon, progressBar, setProgress, share} from "./words.js";
import {h, marked, readable} from "./text.js";

const AT_ONCE = 2;

export function uploader({list, maxBytes, model, arrived, says}) {
  const waiting = [], going = new Set();

  function add(files) {
    const fresh = Array.from(files, (file) => entry(file));
    for (const each of fresh) {
      list.append(each.row);
      if (each.file.size > maxBytes) refused(each, `It has ${bytes(each.file.size)}; this server takes up to ${bytes(maxBytes)}.`);
      else if (!each.file.size) refused(each, "The file is empty.");
      else waiting.push(each);
    }
    says(fresh.length === 1 ? `Sending ${readable(fresh[0].file.name)}` : `Sending ${fresh.length} videos`);
    next();
    return fresh;
  }
  function entry(file) {
    const each = {file, model: model(), row: h("li", {class: "row-card sending"}), request: null};
    each.bar = progressBar(0, `Sending ${readable(file.name)}`);
    each.words = h("p", {class: "state soft"}, "Waiting to be sent");
    each.stop = h("button", {type: "button", class: "icon", "aria-label": `Stop sending ${readable(file.name)}`, title: "Stop", click: () => stop(each)}, icon("cross"));
    each.row.append(h("span", {class: "thumb"}, icon("film")),
      h("div", {class: "what"}, h("p", {class: "name"}, marked(file.name)), h("p", {class: "fine soft"}, bytes(file.size))),
      h("div", {class: "outcome"}, each.words, each.bar), each.stop);
    return each;
  }
  function next() {
    while (going.size < AT_ONCE && waiting.length) send(waiting.shift());
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
      each.words.textContent = sent < 1 ? `Sending, ${share(sent)}` : "The server is looking at it";
    };
    request.onload = () => ended(each, () => understood(request.status, request.responseText));
    request.onerror = () => ended(each, () => { throw offline(); });
    each.words.textContent = "Sending";
    request.send(form);
  }
  function ended(each, answer) {
    going.delete(each);
    let job;
    try {
      job = answer();
    } catch (error) {
      refused(each, error.message, true);
    }
    if (job) {
      each.row.remove();
      arrived(job, {isLast: !busy()});
    }
    next();
  }
  function refused(each, reason, canRetry = false) {
    const again = canRetry && h("button", {type: "button", class: "link", click: () => {
      each.row.replaceWith((() => { const fresh = entry(each.file); waiting.push(fresh); return fresh.row; })());
      next();
    }}, "Try again");
    each.row.classList.add("failed");
    each.bar.remove();
    each.words.replaceWith(h("p", {class: "reason", role: "alert"}, marked(reason), again ? " " : null, again));
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
  // Leaving would lose what is on its way; what the server has is safe.
  addEventListener("beforeunload", (event) => { if (busy()) event.preventDefault(); });
  return {add, busy};
}
