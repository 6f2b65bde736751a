// Marks of a person on the images of a batch: by key or click, taken back, kept over a reload, saved as a table.
"use strict";

const KEYS = { n: "normal", d: "defect", "?": "unsure" };

function setUpReview() {
  const section = document.getElementById("review");
  if (!section) return;
  const items = report.review.items, cards = [...section.querySelectorAll("[data-review]")];
  const place = `vaeguard review ${report.title} ${report.made ? report.made.date : ""} ${items.map((item) => item.path).join("\n")}`;
  let marks = [], done = [];  // done: the earlier mark of each image that was marked, in order

  const show = () => {
    cards.forEach((card, at) => {
      if (marks[at]) card.dataset.mark = marks[at]; else delete card.dataset.mark;
      card.querySelectorAll("button").forEach((button) => button.setAttribute("aria-pressed", button.value === marks[at]));
    });
    const counts = Object.values(KEYS).map((label) => `${marks.filter((mark) => mark === label).length} ${label}`);
    const marked = marks.filter(Boolean).length, last = marked === items.length ? "; save labels.csv" : "";
    document.getElementById("marked").textContent = `${count(marked)} of ${count(items.length)} marked: ${counts.join(", ")}${last}`;
    document.getElementById("undo").disabled = !done.length;
    document.getElementById("save").disabled = !marks.some(Boolean);
  };
  const keep = () => { try { localStorage.setItem(place, JSON.stringify({ marks, done })); } catch { /* a browser may keep nothing */ } show(); };
  const go = (at) => { if (cards[at]) cards[at].focus(); };
  const current = () => cards.findIndex((card) => card.contains(document.activeElement));
  const mark = (at, label) => { done.push([at, marks[at] || null]); marks[at] = label; keep(); };
  const undo = () => {
    if (!done.length) return;
    const [at, before] = done.pop();
    marks[at] = before;
    keep();
    go(at);
  };
  const next = (at) => {
    const after = cards.findIndex((_, other) => other > at && !marks[other]);
    const open = after < 0 ? cards.findIndex((_, other) => !marks[other]) : after;
    if (open < 0) document.activeElement.blur();  // all are marked: a further key must not change the last mark
    else go(open);
  };

  section.addEventListener("click", (event) => {
    const button = event.target.closest("[data-review] button");
    if (button) mark(cards.findIndex((card) => card.contains(button)), button.value);
  });
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input, select, textarea")) return;
    const key = event.key.toLowerCase(), at = current();
    if (KEYS[key] && at < 0) return next(-1);  // the first press shows which image is meant
    if (KEYS[key]) { mark(at, KEYS[key]); next(at); } else if (key === "u") undo();
    else if (key === "j") go(at + 1);
    else if (key === "k") go(Math.max(at - 1, 0));
    else return;
    event.preventDefault();
  });
  document.getElementById("undo").addEventListener("click", undo);
  document.getElementById("save").addEventListener("click", () => {
    const cell = (text) => /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
    const batch = { true: report.anomalies.count, false: report.images - report.anomalies.count };
    const rows = items.flatMap((item, at) => marks[at] ? [[cell(item.path), marks[at], +item.flagged, +item.audit, batch[item.flagged]].join(",")] : []);
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([["path,label,flagged,audit,batch", ...rows, ""].join("\n")], { type: "text/csv" }));
    link.download = "labels.csv";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60000);
  });
  try { ({ marks, done } = JSON.parse(localStorage.getItem(place)) || { marks, done }); } catch { /* nothing was kept */ }
  section.querySelectorAll("[hidden]").forEach((element) => { element.hidden = false; });
  show();
}

setUpReview();
