// The video with what is seen at each moment written over it.
import {badge, icon, share} from "./words.js";
import {h, readable} from "./text.js";

// `segmentAt(time)` and `eventAt(time)` say what holds; `moved(time)` is told where the film stands, frame by frame.
export function player({answer, source, segmentAt, eventAt, kindOf, moved, says}) {
  const video = h("video", {src: source, controls: true, playsinline: true, preload: "auto", controlslist: "nofullscreen nodownload",
                            disablepictureinpicture: true, "aria-label": `The video ${readable(answer.name)}`});
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
      overlay.replaceChildren(...(segment ? written(segment, event) : [h("span", {class: "badge plain"}, "not judged")]));
      stage.classList.toggle("in-event", Boolean(event));
      stage.classList.toggle("hot", Boolean(event) && kindOf(event.label) === "hot");
      tell(segment, event);
    }
    moved(time);
  }
  function written(segment, event) {
    const kind = kindOf(event?.label ?? segment.label);
    return [badge(segment.label, kindOf(segment.label)), h("b", null, share(segment.confidence)),
      event ? h("span", {class: `in ${kind}`}, event.label === segment.label ? "event" : `event: ${readable(event.label)}`) : null].filter(Boolean);
  }
  let told = null;
  function tell(segment, event) { // a screen reader hears what changes, not each number
    const text = event ? `Event: ${readable(event.label)}` : segment ? readable(segment.label) : "";
    if (text !== told && !video.seeking && told !== null) says(text);
    told = text;
  }
  // A film that plays is where its frame is; one that stands is where somebody went, though that frame began before.
  if (video.requestVideoFrameCallback) {
    const each = (_, frame) => { if (!video.seeking) show(video.paused ? video.currentTime : frame.mediaTime); video.requestVideoFrameCallback(each); };
    video.requestVideoFrameCallback(each);
  } else {
    const each = () => { show(video.currentTime); if (!video.paused) requestAnimationFrame(each); };
    video.addEventListener("play", each);
  }
  for (const name of ["loadedmetadata", "seeking", "seeked", "ended"]) video.addEventListener(name, () => show(video.currentTime));
  const unplayable = (text) => { stage.hidden = true; problem.textContent = text; };
  video.addEventListener("error", () => unplayable("This browser cannot play the video. The events, the curve and the downloads are complete."));
  if (!source) unplayable("Browsers do not play this kind of video: a copy that they play is being made. The events, the curve and the downloads are complete.");
  function play(from) {
    const time = Number(stage.dataset.time); // where one has clicked meanwhile
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
