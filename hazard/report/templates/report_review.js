// Marks of a person: what a clip or an event truly shows. They stay in this browser until they are downloaded.
const KEPT_AS = `hazard-review-${meta.report}`;
const LEAVE_OUT = "";
const FORMULA = /^'*[=+\-@\t\r\n＝＋－＠]/;
const marks = new Map();
let marksAreKept = true;

try {
  for (const mark of JSON.parse(localStorage.getItem(KEPT_AS) ?? "[]")) marks.set(keyOf(mark), mark);
} catch { marksAreKept = false; } // some browsers refuse storage to files

// A mark: {path, start, end, said, truth}; start and end are null for a whole clip; truth "" leaves it out.
function keyOf(mark) {
  return JSON.stringify([mark.path, mark.start, mark.end, mark.start === null ? "" : mark.said]);
}
function thingOf(clip, event) {
  return {path: clip.path, start: event ? event.start : null, end: event ? event.end : null,
          said: event ? event.label : clip.label};
}
function markOf(clip, event) {
  return marks.get(keyOf(thingOf(clip, event)));
}
function isMarked(clip) {
  return markOf(clip) || clip.events.some((event) => markOf(clip, event));
}
function setMark(thing, truth) {
  if (truth === null) marks.delete(keyOf(thing));
  else marks.set(keyOf(thing), {...thing, truth});
  keepMarks();
  showMarks();
}
function keepMarks() {
  try {
    if (marks.size) localStorage.setItem(KEPT_AS, JSON.stringify([...marks.values()]));
    else localStorage.removeItem(KEPT_AS);
  } catch { marksAreKept = false; }
}

// Rows of a manifest: a part of a video, such as a.mp4#t=12,15.5, is its video with start and end.
function correctionRow(mark) {
  const part = /^([^]*)#t=(\d+(?:\.\d+)?)(?:,(\d+(?:\.\d+)?))?$/.exec(mark.path);
  const offset = part ? +part[2] : 0, path = part ? part[1] : mark.path;
  const at = (seconds) => String(+(offset + seconds).toFixed(6));
  if (mark.start !== null) return [path, mark.truth, at(mark.start), at(mark.end)];
  return [path, mark.truth, part ? part[2] : "", part?.[3] ?? ""];
}
function csvCell(text) {
  const whole = Array.from(text, (c) => /\p{Cs}/u.test(c) ? writtenOut(c) : c).join("");
  const safe = FORMULA.test(whole) ? "'" + whole : whole;
  return /[",;\t\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}
function correctionsCsv() {
  const things = [...marks.values()].sort((a, b) => (
    a.path < b.path ? -1 : a.path > b.path ? 1 : (a.start ?? -1) - (b.start ?? -1)));
  const rows = things.map((mark) => correctionRow(mark).map(csvCell).join(",") + "\n");
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
    marksAreKept ? "" : " – this browser does not keep marks: download them before you close the page");
}
function clearMarks() {
  if (!confirm(`Forget all ${counted(marks.size, "mark")}?`)) return;
  marks.clear();
  keepMarks();
  showMarks();
  dispatchEvent(new Event("marks-cleared"));
}

// Two choices and, where it is wrong, what it truly is. `name` keeps the radio buttons of one thing together.
function reviewControls(clip, event, name, question, changed) {
  const thing = thingOf(clip, event), old = markOf(clip, event);
  const wrongAtFirst = LABELS.length === 2 ? LABELS.find((label) => label !== thing.said) : LEAVE_OUT;
  const truth = h("select", {"aria-label": `What it truly shows: ${question}`}, [
    ...LABELS.filter((label) => label !== thing.said), LEAVE_OUT,
  ].map((label) => {
    const option = h("option", {value: label}, label === LEAVE_OUT ? "leave out" : readable(label));
    option.selected = label === (old && old.truth !== thing.said ? old.truth : wrongAtFirst);
    return option;
  }));
  const choice = (value, text) => {
    const input = h("input", {type: "radio", name, value, change: update});
    input.checked = old ? (old.truth === thing.said) === (value === "right") : false;
    return [input, h("label", {class: `choice ${value}`}, input, h("span", null, text))];
  };
  const [right, rightLabel] = choice("right", "✓ Right"), [wrong, wrongLabel] = choice("wrong", "✗ Wrong");
  const undo = h("button", {type: "button", class: "quiet", click: () => {
    right.checked = wrong.checked = false;
    update();
    right.focus();
  }}, "Undo");
  const really = h("label", {class: "really"}, h("span", null, "It is"), truth);
  function update(happened) {
    const marked = right.checked || wrong.checked;
    really.hidden = !wrong.checked;
    undo.hidden = !marked;
    if (happened !== "at first") {
      setMark(thing, right.checked ? thing.said : wrong.checked ? truth.value : null);
      changed?.();
    }
  }
  truth.addEventListener("change", () => update());
  update("at first");
  return h("fieldset", {class: "review"}, h("legend", {class: event ? "sr" : null}, question),
           rightLabel, wrongLabel, really, undo);
}
