// The start page: upload videos or paste a URL, and see the list of videos.
import {ask} from "./api.js";
import {historyList} from "./history.js";
import {byId, counted, percent, readable} from "./text.js";
import {uploader} from "./uploads.js";
import {formatBytes} from "./format.js";

const area = byId("ask"), choice = byId("model"), maxBytes = Number(area.dataset.maxBytes);
const announce = (text) => { byId("says").textContent = text; };
const showError = (text) => { byId("page-error").textContent = text; };
byId("largest").textContent = formatBytes(maxBytes);

const known = new Map(); // models by their names
const history = historyList({list: byId("history"), nothing: byId("nothing"), more: byId("more"), title: byId("history-title"), showError, announce,
  isAlarm: (job) => known.get(job.model)?.positive_label === job.label});
let isSingle = false;
const uploads = uploader({
  list: byId("uploads"), maxBytes, announce, model: () => choice.value,
  onUploaded(job, {isLast}) {
    if (isSingle && isLast) location.assign(job.links.page);
    else history.refresh();
  },
});
function addFiles(files) {
  if (!files.length) return;
  isSingle = files.length === 1 && !uploads.busy(); // for several videos, the list shows the progress
  uploads.add(files);
}
byId("files").addEventListener("change", (event) => { addFiles(event.target.files); event.target.value = ""; });

// Files can be dropped anywhere on the page. Without this, a file dropped beside the box would replace the page.
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
  addFiles(event.dataTransfer.files);
});

const address = byId("address"), problem = byId("address-error");
function showUrlError(text) {
  problem.textContent = text;
  if (text) address.setAttribute("aria-invalid", "true");
  else address.removeAttribute("aria-invalid");
}
// The typed URL is kept in the tab, for when the user comes back.
address.value = tryStorage(() => sessionStorage.getItem("address")) ?? "";
address.addEventListener("input", () => { showUrlError(""); tryStorage(() => sessionStorage.setItem("address", address.value)); });
byId("by-address").addEventListener("submit", async (event) => {
  event.preventDefault();
  const url = address.value.trim(), button = event.target.querySelector("button");
  showUrlError(url ? /^https?:\/\/[^/]/i.test(url) ? "" : "A URL begins with https:// or http://." : "Paste the URL of a video first.");
  if (problem.textContent) { address.focus(); return; }
  button.disabled = true;
  try {
    const job = await ask("/jobs", {method: "POST", body: JSON.stringify({url, ...(choice.value ? {model: choice.value} : {})})});
    address.value = "";
    tryStorage(() => sessionStorage.removeItem("address"));
    location.assign(job.links.page);
  } catch (error) {
    showUrlError(error.message);
    address.focus();
  } finally {
    button.disabled = false;
  }
});

async function loadModels() {
  for (const model of (await ask("/models")).models) known.set(model.name, model);
  history.redraw();
  const show = () => {
    const model = known.get(choice.value);
    byId("model-about").textContent = model ? describeModel(model) : "";
  };
  choice.addEventListener("change", () => { show(); tryStorage(() => localStorage.setItem("model", choice.value)); });
  const last = tryStorage(() => localStorage.getItem("model"));
  if (known.has(last)) choice.value = last;
  show();
}
function describeModel(model) {
  const labels = model.labels.slice(0, 4).map(readable).join(", ") + (model.labels.length > 4 ? `, … (${counted(model.labels.length, "label")})` : "");
  const alarm = model.positive_label ? ` Flagged at ${percent(model.threshold)} or more: ${readable(model.positive_label)}.` : "";
  return `Labels: ${labels}.${alarm}`;
}
// Browsers may block storage. Then the value lasts only as long as this page.
function tryStorage(access) { try { return access(); } catch { return null; } }
loadModels().catch((error) => showError(error.message));
addEventListener("pageshow", (event) => { if (event.persisted) history.refresh(); });
