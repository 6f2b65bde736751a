// What moves in a report: theme, threshold slider, table sort, dividers. All of it works by keyboard.
"use strict";

function setUpTheme() {
  const button = document.getElementById("theme"), root = document.documentElement;
  const dark = () => root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  const show = () => { button.textContent = dark() ? "Light" : "Dark"; button.setAttribute("aria-label", `Switch to ${button.textContent.toLowerCase()} colours`); };
  button.hidden = false;
  button.addEventListener("click", () => { root.dataset.theme = dark() ? "light" : "dark"; show(); });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", show);
  show();
}

function setUpSlider() {
  const slider = document.getElementById("threshold");
  if (!slider) return;
  const found = report.thresholds, outcome = document.getElementById("outcome");
  const box = document.querySelector('[data-chart="histogram"]');
  // The row where the chosen rate is; the last one, which nothing reaches, where it flags nothing.
  const chosen = report.threshold == null ? found.threshold.length - 1 : found.threshold.findIndex((t) => t >= report.threshold);
  const show = () => {
    const i = +slider.value, threshold = found.threshold[i];
    const caught = found.anomalous[i], alarms = found.normal[i], { normal, anomalous } = report.images;
    state.threshold = threshold;
    const text = `score ≥ ${threshold.toFixed(3)} (${i === chosen && report.threshold != null ? `false-alarm rate ${report.fpr}` : found.fpr[i] ? `false-alarm rate ${Math.ceil(1e5 * found.fpr[i] - 1e-3) / 1e5}` : "no false-alarm rate"}): ${count(caught)} of ${count(anomalous)} anomalous caught (${percent(caught / anomalous)}), `
      + `${count(anomalous - caught)} missed, ${count(alarms)} of ${count(normal)} normal flagged (${percent(alarms / normal)} false alarms)`;
    outcome.textContent = text;
    slider.setAttribute("aria-valuetext", text);
    draw(box);
  };
  slider.addEventListener("input", show);
  document.getElementById("chosen").addEventListener("click", () => { slider.value = chosen; show(); });
  document.getElementById("slider").hidden = false;
  slider.value = chosen;
  show();
}

function sortKey(row, column) {
  const cell = row.cells[column], text = cell.textContent.trim();
  const number = cell.classList.contains("number") ? parseFloat(text.replace(/,/g, "")) : NaN;
  return Number.isNaN(number) ? text.toLowerCase() : number;
}

function setUpSorting(table) {
  table.querySelectorAll("thead th").forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const rising = head.getAttribute("aria-sort") === "descending";
      table.querySelectorAll("thead th").forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", rising ? "ascending" : "descending");
      const body = table.tBodies[0], rows = [...body.rows];
      const compare = (a, b) => {
        const [x, y] = [sortKey(a, column), sortKey(b, column)];
        if (typeof x !== typeof y) return typeof x === "number" ? -1 : 1; // what has no number goes last
        return (x < y ? -1 : x > y ? 1 : 0) * (rising ? 1 : -1);
      };
      body.append(...rows.sort(compare));
    });
  });
}

function setUpDivider(box) {
  const stack = box.querySelector(".stack"), at = box.querySelector("input.at"), zoom = box.querySelector("input.zoom");
  const show = () => { stack.style.setProperty("--at", `${at.value}%`); stack.style.setProperty("--zoom", zoom.value); };
  const drag = (event) => {
    const edges = stack.getBoundingClientRect();
    at.value = (100 * (event.clientX - edges.left)) / edges.width;
    show();
  };
  const line = box.querySelector(".line");
  line.addEventListener("pointerdown", (event) => { line.setPointerCapture(event.pointerId); drag(event); });
  line.addEventListener("pointermove", (event) => { if (line.hasPointerCapture(event.pointerId)) drag(event); });
  at.addEventListener("input", show);
  zoom.addEventListener("input", show);
  show();
}

setUpTheme();
setUpSlider();
document.querySelectorAll("table.sortable").forEach(setUpSorting);
document.querySelectorAll(".compare:has(.stack)").forEach(setUpDivider);
drawAll();
let waiting = 0, drawnAt = innerWidth;
addEventListener("resize", () => {
  clearTimeout(waiting);
  waiting = setTimeout(() => { if (innerWidth !== drawnAt) { drawnAt = innerWidth; drawAll(); } }, 150);
});
