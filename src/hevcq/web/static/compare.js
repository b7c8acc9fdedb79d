// Overlay the rendition on its original with a slider, and step through frames one by one.
"use strict";
function lay(figure) {
  const pair = figure.querySelector(".pair");
  if (pair.classList.contains("sliding")) return;
  pair.classList.add("sliding");
  const slider = document.createElement("input");
  slider.type = "range";
  slider.value = "50";
  slider.setAttribute("aria-label", `${figure.dataset.pair}: share of the original`);
  slider.addEventListener("input", () => pair.style.setProperty("--cut", `${slider.value}%`));
  figure.querySelector(".sides").after(slider);
}
function step(section) {
  if (section.dataset.steps) return;
  section.dataset.steps = "on";
  const figures = [...section.querySelectorAll("[data-pair]")];
  const bar = document.createElement("div");
  bar.className = "row";
  let shown = 0;
  const show = (number) => {
    shown = Math.min(Math.max(number, 0), figures.length - 1);
    figures.forEach((figure, place) => { figure.hidden = place !== shown; });
    buttons[0].disabled = shown === 0;
    buttons[1].disabled = shown === figures.length - 1;
    said.textContent = `Frame ${shown + 1} of ${figures.length}`;
  };
  const buttons = [["Previous frame", -1, ","], ["Next frame", 1, "."]].map(([name, by, key]) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = name;
    button.setAttribute("aria-keyshortcuts", key);
    button.addEventListener("click", () => show(shown + by));
    document.addEventListener("keydown", (event) => {
      const typing = event.target.matches("input:not([type=range]), textarea, select");
      if (event.key === key && !typing && !event.ctrlKey && !event.metaKey && !event.altKey) show(shown + by);
    });
    return button;
  });
  const said = document.createElement("p");
  said.setAttribute("role", "status");
  said.className = "hint";
  bar.append(...buttons, said);
  section.querySelector("h2").after(bar);
  for (const figure of figures) for (const image of figure.querySelectorAll("img")) image.loading = "eager";
  show(0);
}
function enhance() {
  const now = document.getElementById("now");
  // A finished comparison is not polled again: that would reset the slider.
  if (now && now.hasAttribute("hx-get") && now.querySelector("[data-pair]")) now.replaceWith(...now.childNodes);
  document.querySelectorAll("[data-pair]").forEach(lay);
  document.querySelectorAll("[data-steps]").forEach(step);
}
document.addEventListener("htmx:after:swap", enhance);
enhance();
