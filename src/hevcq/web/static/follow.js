// Reload once something new can be played, unless somebody is watching.
"use strict";
document.addEventListener("htmx:after:swap", () => {
  const formats = document.getElementById("formats");
  const section = formats && formats.querySelector("[data-playable]");
  if (!section || section.dataset.playable === formats.dataset.player) return;
  const video = document.getElementById("player");
  const watching = video && (!video.paused || video.currentTime > 0);
  if (section.dataset.playable !== "none" && !watching) location.reload();
});
