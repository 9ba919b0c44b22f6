// Marks: what a clip or an event truly shows, according to the reader. They are stored in the browser.
const STORAGE_KEY = `hazard-review-${meta.report}`;
const LEAVE_OUT = "";
const FORMULA = /^'*[=+\-@\t\r\n＝＋－＠]/;
const marks = new Map();
let isStorageAvailable = true;

try {
  for (const mark of JSON.parse(localStorage.getItem(STORAGE_KEY) ?? "[]")) marks.set(markKey(mark), mark);
} catch { isStorageAvailable = false; } // some browsers offer no storage to local files

// A mark: {path, start, end, said, truth}; start and end are null for a whole clip; truth "" leaves it out.
function markKey(mark) {
  return JSON.stringify([mark.path, mark.start, mark.end, mark.start === null ? "" : mark.said]);
}
function markTarget(clip, event) {
  return {path: clip.path, start: event ? event.start : null, end: event ? event.end : null,
          said: event ? event.label : clip.label};
}
function markOf(clip, event) {
  return marks.get(markKey(markTarget(clip, event)));
}
function isMarked(clip) {
  return markOf(clip) || clip.events.some((event) => markOf(clip, event));
}
function setMark(target, truth) {
  if (truth === null) marks.delete(markKey(target));
  else marks.set(markKey(target), {...target, truth});
  storeMarks();
  showMarks();
}
function storeMarks() {
  try {
    if (marks.size) localStorage.setItem(STORAGE_KEY, JSON.stringify([...marks.values()]));
    else localStorage.removeItem(STORAGE_KEY);
  } catch { isStorageAvailable = false; }
}

// A row of a manifest. A part of a video, such as a.mp4#t=12,15.5, becomes its video with start and end.
function correctionRow(mark) {
  const part = /^([^]*)#t=(\d+(?:\.\d+)?)(?:,(\d+(?:\.\d+)?))?$/.exec(mark.path);
  const offset = part ? +part[2] : 0, path = part ? part[1] : mark.path;
  const at = (seconds) => String(+(offset + seconds).toFixed(6));
  if (mark.start !== null) return [path, mark.truth, at(mark.start), at(mark.end)];
  return [path, mark.truth, part ? part[2] : "", part?.[3] ?? ""];
}
function csvCell(text) {
  const escaped = Array.from(text, (c) => /\p{Cs}/u.test(c) ? writtenOut(c) : c).join("");
  const safe = FORMULA.test(escaped) ? "'" + escaped : escaped;
  return /[",;\t\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}
function correctionsCsv() {
  const sorted = [...marks.values()].sort((a, b) => (
    a.path < b.path ? -1 : a.path > b.path ? 1 : (a.start ?? -1) - (b.start ?? -1)));
  const rows = sorted.map((mark) => correctionRow(mark).map(csvCell).join(",") + "\n");
  return "path,label,start,end\n" + rows.join("");
}
function downloadCorrections() {
  const address = URL.createObjectURL(new Blob([correctionsCsv()], {type: "text/csv"}));
  const link = h("a", {href: address, download: "corrections.csv", hidden: true});
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(address), 10000);
}

function showMarks() {
  const all = [...marks.values()], wrong = all.filter((mark) => mark.truth !== mark.said).length;
  byId("review-bar").hidden = !all.length;
  byId("review-count").textContent = `${all.length} marked, ${wrong} of them wrong` + (
    isStorageAvailable ? "" : " – this browser does not store marks: download them before you close the page");
}
function clearMarks() {
  if (!confirm(`Delete all ${counted(marks.size, "mark")}?`)) return;
  marks.clear();
  storeMarks();
  showMarks();
  dispatchEvent(new Event("marks-cleared"));
}

// The choices "right" and "wrong" and, for "wrong", the true label. `name` groups the radio buttons.
function reviewControls(clip, event, name, question, onChange) {
  const target = markTarget(clip, event), old = markOf(clip, event);
  const defaultTruth = LABELS.length === 2 ? LABELS.find((label) => label !== target.said) : LEAVE_OUT;
  const truth = h("select", {"aria-label": `True label: ${question}`}, [
    ...LABELS.filter((label) => label !== target.said), LEAVE_OUT,
  ].map((label) => {
    const option = h("option", {value: label}, label === LEAVE_OUT ? "leave out" : readable(label));
    option.selected = label === (old && old.truth !== target.said ? old.truth : defaultTruth);
    return option;
  }));
  const choice = (value, text) => {
    const input = h("input", {type: "radio", name, value, change: update});
    input.checked = old ? (old.truth === target.said) === (value === "right") : false;
    return [input, h("label", {class: `choice ${value}`}, input, h("span", null, text))];
  };
  const [right, rightLabel] = choice("right", "✓ Right"), [wrong, wrongLabel] = choice("wrong", "✗ Wrong");
  const undo = h("button", {type: "button", class: "quiet", click: () => {
    right.checked = wrong.checked = false;
    update();
    right.focus();
  }}, "Undo");
  const truthChoice = h("label", {class: "really"}, h("span", null, "True label"), truth);
  function update(cause) {
    const marked = right.checked || wrong.checked;
    truthChoice.hidden = !wrong.checked;
    undo.hidden = !marked;
    if (cause !== "init") {
      setMark(target, right.checked ? target.said : wrong.checked ? truth.value : null);
      onChange?.();
    }
  }
  truth.addEventListener("change", () => update());
  update("init");
  return h("fieldset", {class: "review"}, h("legend", {class: event ? "sr" : null}, question),
           rightLabel, wrongLabel, truthChoice, undo);
}
