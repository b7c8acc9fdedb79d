// The week's grid by keyboard: one Tab stop, arrows between hours, a day's name toggles the day.
"use strict";
const grid = document.querySelector(".week tbody");
if (grid) {
  const boxes = [...grid.querySelectorAll("input")];
  const focusOnly = (chosen) => boxes.forEach((box) => { box.tabIndex = box === chosen ? 0 : -1; });
  const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -24, ArrowDown: 24 };
  focusOnly(boxes[0]);
  grid.addEventListener("focusin", (event) => {
    focusOnly(boxes.includes(event.target) ? event.target : event.target.closest("tr").querySelector("input"));
  });
  grid.addEventListener("keydown", (event) => {
    const at = boxes.indexOf(event.target);
    if (at < 0 || !(event.key in steps)) return;
    event.preventDefault();
    boxes[(at + steps[event.key] + boxes.length) % boxes.length].focus();
  });
  grid.addEventListener("click", (event) => {
    const name = event.target.closest("button");
    if (!name) return;
    const own = [...name.closest("tr").querySelectorAll("input")];
    const all = own.every((box) => box.checked);
    own.forEach((box) => { box.checked = !all; });
  });
}
