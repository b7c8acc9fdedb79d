// Show the player as soon as something can be played, and the set of rungs unless somebody watches.
"use strict";
document.addEventListener("htmx:after:swap", () => {
  const formats = document.getElementById("formats");
  const section = formats && formats.querySelector("[data-playable]");
  if (!section || section.dataset.playable === formats.dataset.player) return;
  const video = document.getElementById("player");
  const watching = video && (!video.paused || video.currentTime > 0);
  if (section.dataset.playable !== "none" && !watching) location.reload();
});
