// Text for people. Foreign names only become text nodes, and hidden characters in them are written as escapes.
const HIDDEN = /[\p{Cc}\p{Cf}\p{Cs}\p{Co}\p{Zl}\p{Zp}]/u;
const JOINERS = "\u200c\u200d"; // invisible, but part of how Persian, Hindi and emoji are written
const SHORT = {"\t": "\\t", "\n": "\\n", "\r": "\\r"};

function isHidden(character) {
  return HIDDEN.test(character) && !JOINERS.includes(character);
}
function writtenOut(character) {
  const code = character.codePointAt(0), hex = (digits) => code.toString(16).padStart(digits, "0");
  return SHORT[character] ?? (code < 0x100 ? `\\x${hex(2)}` : code < 0x10000 ? `\\u${hex(4)}` : `\\U${hex(8)}`);
}
function readable(text) {
  return HIDDEN.test(text) ? Array.from(text, (c) => isHidden(c) ? writtenOut(c) : c).join("") : text;
}
function marked(text) {
  const name = document.createElement("bdi");
  if (!HIDDEN.test(text)) { name.textContent = text; return name; }
  let plain = "";
  for (const character of text) {
    if (!isHidden(character)) { plain += character; continue; }
    if (plain) name.append(plain);
    plain = "";
    name.append(h("span", {class: "code"}, writtenOut(character)));
  }
  name.append(plain);
  return name;
}

// An HTML element. Attributes that are null or false are left out, functions become listeners, strings become text.
function h(tag, attributes, ...children) {
  const node = document.createElement(tag);
  set(node, attributes);
  node.append(...children.flat().filter((child) => child || child === 0));
  return node;
}
function s(tag, attributes, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  set(node, attributes);
  node.append(...children);
  return node;
}
function set(node, attributes) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") node.addEventListener(name, value);
    else if (name.startsWith("--")) node.style.setProperty(name, value);
    else node.setAttribute(name, value === true ? "" : value);
  }
}
const byId = (id) => document.getElementById(id);

function percent(share) {
  if (share > 0 && share < 0.01) return "<1 %";
  if (share > 0.99 && share < 1) return ">99 %";
  return `${Math.round(100 * share)} %`;
}
function clock(seconds) {
  if (seconds < 59.95) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds), pad = (number) => String(number).padStart(2, "0");
  const minutes = Math.floor(whole / 60), rest = pad(whole % 60);
  return minutes < 60 ? `${minutes}:${rest}` : `${Math.floor(minutes / 60)}:${pad(minutes % 60)}:${rest}`;
}
function span(start, end) {
  const short = end < 59.95 ? start.toFixed(1) : clock(start);
  return `${short} – ${clock(end)}`;
}
function counted(number, word) {
  return `${number.toLocaleString("en")} ${word}${number === 1 ? "" : "s"}`;
}
