// The player: HLS by hls.js where the browser can, else natively; controls by Plyr.
"use strict";
// Plyr inserts a track's name as HTML, and the name comes from the uploaded file.
for (const name of ["label", "language"]) {
  const { get } = Object.getOwnPropertyDescriptor(TextTrack.prototype, name);
  Object.defineProperty(TextTrack.prototype, name, {
    get() { return get.call(this).replaceAll("<", "‹"); },
  });
}
const video = document.getElementById("player");
const playlist = video.dataset.playlist;
const options = {
  iconUrl: video.dataset.icons,
  blankVideo: "",
  loadSprite: true,
  controls: ["play-large", "play", "progress", "current-time", "duration", "mute", "volume", "captions", "settings", "pip", "airplay", "fullscreen"],
  settings: ["captions", "speed"], // a hidden third entry would break the arrow keys
  captions: { active: false, language: "auto", update: true },
  storage: { enabled: false },
};
if (video.dataset.storyboard) {
  options.previewThumbnails = { enabled: true, src: video.dataset.storyboard };
}
// Before hls.js: Plyr moves the element, after which a browser would reload its address.
window.plyr = new Plyr(video, options);
if (playlist && window.Hls && Hls.isSupported()) {
  const hls = new Hls({ capLevelToPlayerSize: true, workerPath: video.dataset.worker });
  hls.loadSource(playlist);
  hls.attachMedia(video);
} else if (playlist && video.canPlayType("application/vnd.apple.mpegurl")) {
  video.src = playlist;
}
const last = video.querySelector("source:last-of-type");
const unplayable = () => {
  document.getElementById("unplayable").hidden = false;
  video.closest(".plyr").hidden = true;
  document.querySelector(".player").classList.add("without");
};
if (last && !playlist) last.addEventListener("error", unplayable);
const chapters = document.getElementById("chapters");
if (chapters) {
  const marks = [...chapters.querySelectorAll("button")];
  for (const mark of marks) {
    mark.addEventListener("click", () => {
      video.currentTime = Number(mark.dataset.start);
      video.play().catch(() => {}); // a browser may refuse to play; the position is right anyway
    });
  }
  video.addEventListener("timeupdate", () => {
    const now = marks.filter((mark) => Number(mark.dataset.start) <= video.currentTime + 0.05).pop();
    for (const mark of marks) mark.setAttribute("aria-current", mark === now ? "true" : "false");
  });
  chapters.hidden = false;
}
