"use strict";
// Points of a chart can be looked up by pointer or finger, series switched off; a printed page shows all.
const tip = document.getElementById("tip");

function nearest(plot, event) {
  const matrix = plot.querySelector("svg").getScreenCTM();
  const reach = 30 / matrix.a; // of the pointer, in the chart's units
  const x = (event.clientX - matrix.e) / matrix.a, y = (event.clientY - matrix.f) / matrix.d;
  let best = null, least = reach * reach;
  for (const line of plot.lines) {
    if (line.off) continue;
    for (const [px, py, text] of line.points) {
      const distance = (px - x) ** 2 + (py - y) ** 2;
      if (distance < least) [best, least] = [{ px, py, text, name: line.name, matrix }, distance];
    }
  }
  return best;
}

function show(plot, event) {
  const found = nearest(plot, event);
  tip.hidden = !found;
  plot.mark.setAttribute("visibility", found ? "visible" : "hidden");
  if (!found) return;
  plot.mark.setAttribute("cx", found.px);
  plot.mark.setAttribute("cy", found.py);
  tip.textContent = `${found.name}: ${found.text}`;
  const left = found.matrix.e + found.px * found.matrix.a, top = found.matrix.f + found.py * found.matrix.d;
  const widest = document.documentElement.clientWidth - tip.offsetWidth - 8;
  tip.style.left = `${window.scrollX + Math.max(8, Math.min(left - tip.offsetWidth / 2, widest))}px`;
  tip.style.top = `${window.scrollY + top - tip.offsetHeight - 12}px`;
}

for (const plot of document.querySelectorAll(".plot")) {
  plot.lines = JSON.parse(plot.dataset.lines);
  plot.mark = document.createElementNS("http://www.w3.org/2000/svg", "circle");
  plot.mark.setAttribute("class", "mark");
  plot.mark.setAttribute("r", 4);
  plot.mark.setAttribute("visibility", "hidden");
  plot.querySelector("svg").append(plot.mark);
  for (const kind of ["pointermove", "pointerdown"]) plot.addEventListener(kind, (event) => show(plot, event));
  plot.addEventListener("pointerleave", () => {
    tip.hidden = true;
    plot.mark.setAttribute("visibility", "hidden");
  });
}

for (const button of document.querySelectorAll(".legend button")) {
  button.addEventListener("click", () => {
    const on = button.getAttribute("aria-pressed") !== "true", series = button.dataset.series;
    button.setAttribute("aria-pressed", on);
    for (const plot of document.querySelectorAll("#curves .plot, #cost .plot")) {
      for (const line of plot.lines) if (line.series === Number(series)) line.off = !on;
      for (const part of plot.querySelectorAll(`[id*="-series-${series}-"]`)) part.classList.toggle("off", !on);
    }
  });
}

window.addEventListener("beforeprint", () => {
  for (const closed of document.querySelectorAll("details:not([open])")) {
    closed.open = true;
    closed.dataset.opened = "";
  }
});
window.addEventListener("afterprint", () => {
  for (const opened of document.querySelectorAll("details[data-opened]")) {
    opened.open = false;
    delete opened.dataset.opened;
  }
});
