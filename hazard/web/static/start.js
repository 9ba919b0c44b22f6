// The start page: give videos, see those that were given.
import {ask} from "./api.js";
import {historyList} from "./history.js";
import {byId, counted, percent, readable} from "./text.js";
import {uploader} from "./uploads.js";
import {bytes} from "./words.js";

const area = byId("ask"), choice = byId("model"), maxBytes = Number(area.dataset.maxBytes);
const says = (text) => { byId("says").textContent = text; };
const failed = (text) => { byId("page-error").textContent = text; };
byId("largest").textContent = bytes(maxBytes);

const known = new Map(); // models by their names
const history = historyList({list: byId("history"), nothing: byId("nothing"), more: byId("more"), title: byId("history-title"), failed, says,
  isAlarm: (job) => known.get(job.model)?.positive_label === job.label});
let isSingle = false;
const uploads = uploader({
  list: byId("uploads"), maxBytes, says, model: () => choice.value,
  arrived(job, {isLast}) {
    if (isSingle && isLast) location.assign(job.links.page);
    else history.refresh();
  },
});
function give(files) {
  if (!files.length) return;
  isSingle = files.length === 1 && !uploads.busy(); // of several the list says how far each is
  uploads.add(files);
}
byId("files").addEventListener("change", (event) => { give(event.target.files); event.target.value = ""; });

// The whole page takes what is dropped: a file that misses the frame would otherwise be opened instead of the page.
let depth = 0;
const carriesFiles = (event) => event.dataTransfer?.types.includes("Files");
addEventListener("dragenter", (event) => { if (carriesFiles(event)) { depth += 1; area.classList.add("over"); } });
addEventListener("dragleave", () => { depth = Math.max(0, depth - 1); if (!depth) area.classList.remove("over"); });
addEventListener("dragover", (event) => { if (carriesFiles(event)) event.preventDefault(); });
addEventListener("drop", (event) => {
  if (!carriesFiles(event)) return;
  event.preventDefault();
  depth = 0;
  area.classList.remove("over");
  give(event.dataTransfer.files);
});

const address = byId("address"), problem = byId("address-error");
function complain(text) {
  problem.textContent = text;
  if (text) address.setAttribute("aria-invalid", "true");
  else address.removeAttribute("aria-invalid");
}
// What is typed is still there when one comes back, as far as the tab goes.
address.value = kept(() => sessionStorage.getItem("address")) ?? "";
address.addEventListener("input", () => { complain(""); kept(() => sessionStorage.setItem("address", address.value)); });
byId("by-address").addEventListener("submit", async (event) => {
  event.preventDefault();
  const url = address.value.trim(), button = event.target.querySelector("button");
  complain(url ? /^https?:\/\/[^/]/i.test(url) ? "" : "An address begins with https:// or http://." : "Paste the address of a video first.");
  if (problem.textContent) { address.focus(); return; }
  button.disabled = true;
  try {
    const job = await ask("/jobs", {method: "POST", body: JSON.stringify({url, ...(choice.value ? {model: choice.value} : {})})});
    address.value = "";
    kept(() => sessionStorage.removeItem("address"));
    location.assign(job.links.page);
  } catch (error) {
    complain(error.message);
    address.focus();
  } finally {
    button.disabled = false;
  }
});

async function aboutModels() {
  for (const model of (await ask("/models")).models) known.set(model.name, model);
  history.redraw();
  const show = () => {
    const model = known.get(choice.value);
    byId("model-about").textContent = model ? about(model) : "";
  };
  choice.addEventListener("change", () => { show(); kept(() => localStorage.setItem("model", choice.value)); });
  const last = kept(() => localStorage.getItem("model"));
  if (known.has(last)) choice.value = last;
  show();
}
function about(model) {
  const labels = model.labels.slice(0, 4).map(readable).join(", ") + (model.labels.length > 4 ? `, … (${counted(model.labels.length, "label")})` : "");
  const alarm = model.positive_label ? `; says ${readable(model.positive_label)} from ${percent(model.threshold)} on` : "";
  return `Knows ${labels}${alarm}.`;
}
// A browser may refuse to keep anything: then this page alone knows it.
function kept(access) { try { return access(); } catch { return null; } }
aboutModels().catch((error) => failed(error.message));
addEventListener("pageshow", (event) => { if (event.persisted) history.refresh(); });
