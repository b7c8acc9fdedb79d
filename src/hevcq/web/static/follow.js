// Show the player as soon as the first format can be played.
"use strict";
document.addEventListener("htmx:after:swap", () => {
  const formats = document.getElementById("formats");
  const section = formats && formats.querySelector("[data-playable]");
  if (formats && section && formats.dataset.player === "no" && section.dataset.playable === "yes") {
    location.reload();
  }
});
