// The video player. The label of each moment is shown over the video.
import {badge, icon, percentText} from "./format.js";
import {h, readable} from "./text.js";

// `segmentAt(time)` and `eventAt(time)` look up the answer; `onTime(time)` is called for each shown frame.
export function player({answer, source, segmentAt, eventAt, kindOf, onTime, announce}) {
  const video = h("video", {src: source, controls: true, playsinline: true, preload: "auto", controlslist: "nofullscreen nodownload",
                            disablepictureinpicture: true, "aria-label": `Video ${readable(answer.name)}`});
  const overlay = h("div", {class: "overlay", "aria-hidden": "true"});
  const problem = h("p", {class: "error", role: "alert"});
  const wide = h("button", {type: "button", class: "icon wide", "aria-label": "Full screen", title: "Full screen", click: toggleWide}, icon("wide"));
  const stage = h("div", {class: "stage"}, video, overlay, document.fullscreenEnabled ? wide : null);
  let shown = null;

  function show(time) {
    const segment = segmentAt(time), event = eventAt(time);
    const key = `${segment?.index}/${event?.index}`;
    stage.dataset.time = time.toFixed(3);
    if (key !== shown) {
      shown = key;
      overlay.dataset.segment = segment?.index ?? "";
      overlay.replaceChildren(...(segment ? overlayContent(segment, event) : [h("span", {class: "badge plain"}, "not analysed")]));
      stage.classList.toggle("in-event", Boolean(event));
      stage.classList.toggle("hot", Boolean(event) && kindOf(event.label) === "hot");
      announceChange(segment, event);
    }
    onTime(time);
  }
  function overlayContent(segment, event) {
    const kind = kindOf(event?.label ?? segment.label);
    return [badge(segment.label, kindOf(segment.label)), h("b", null, percentText(segment.confidence)),
      event ? h("span", {class: `in ${kind}`}, event.label === segment.label ? "event" : `event: ${readable(event.label)}`) : null].filter(Boolean);
  }
  let lastAnnounced = null;
  function announceChange(segment, event) { // screen readers announce changes of the label, not each number
    const text = event ? `Event: ${readable(event.label)}` : segment ? readable(segment.label) : "";
    if (text !== lastAnnounced && !video.seeking && lastAnnounced !== null) announce(text);
    lastAnnounced = text;
  }
  // While playing, the time is that of the shown frame. While paused, it is where the user went, even if that frame began earlier.
  if (video.requestVideoFrameCallback) {
    const each = (_, frame) => { if (!video.seeking) show(video.paused ? video.currentTime : frame.mediaTime); video.requestVideoFrameCallback(each); };
    video.requestVideoFrameCallback(each);
  } else {
    const each = () => { show(video.currentTime); if (!video.paused) requestAnimationFrame(each); };
    video.addEventListener("play", each);
  }
  for (const name of ["loadedmetadata", "seeking", "seeked", "ended"]) video.addEventListener(name, () => show(video.currentTime));
  const showUnplayable = (text) => { stage.hidden = true; problem.textContent = text; };
  video.addEventListener("error", () => showUnplayable("This browser cannot play the video. Events, curve and downloads are complete."));
  if (!source) showUnplayable("Browsers cannot play this kind of video. A playable copy is being made. Events, curve and downloads are complete.");
  function play(from) {
    const time = Number(stage.dataset.time); // where the user clicked meanwhile
    stage.hidden = false;
    problem.textContent = "";
    video.src = from;
    video.currentTime = time;
  }
  function toggleWide() {
    if (document.fullscreenElement) document.exitFullscreen();
    else stage.requestFullscreen().catch(() => {});
  }
  show(0);
  return {play, figure: h("div", {class: "player"}, stage, problem), video, seek(time) { video.currentTime = Math.max(0, Math.min(time, video.duration || time)); show(time); },
          toggle() { if (video.paused) video.play().catch(() => {}); else video.pause(); }};
}
