// The charts of every kind of report, drawn with Observable Plot from the JSON in the page.
"use strict";
const report = JSON.parse(document.getElementById("data").textContent);
const state = { threshold: null };

const NORMAL = "var(--normal)", ANOMALOUS = "var(--anomalous)", OTHER = "var(--other)", INK = "var(--ink)";
const CHARACTER = 7;  // about the width of a character of an axis, in pixels
const percent = (value) => `${(100 * value).toFixed(value < 0.1 ? 1 : 0)} %`;
const plot = (width, options) =>
  Plot.plot({ width, height: 320, marginLeft: 52, marginBottom: 42, style: { background: "none", fontSize: "12px" }, ...options });
const grid = { grid: true, nice: false };

// Ticks at 1, 2 and 5 times powers of ten inside the domain; at the powers alone where there is no room for all.
function logTicks([low, high], room) {
  const powers = d3.range(Math.floor(Math.log10(low)), Math.ceil(Math.log10(high)) + 1);
  const inside = (steps) => powers.flatMap((power) => steps.map((step) => +`${step}e${power}`)).filter((tick) => tick >= low && tick <= high);
  const all = inside([1, 2, 5]), few = inside([1]);
  return all.length * 7 * CHARACTER > room && few.length > 1 ? few : all;
}

// An axis of names down the left side, with as much margin as they need, at most 45 % of the width; longer names are cut.
function namedRows(width, names) {
  const marginLeft = Math.ceil(Math.min(0.45 * width, 16 + CHARACTER * d3.max(names, (name) => name.length)));
  const most = Math.floor((marginLeft - 16) / CHARACTER);
  return { marginLeft, y: { type: "point", domain: names, label: null, tickFormat: (name) => name.length > most ? `${name.slice(0, most - 1)}…` : name } };
}

function scoreScale(found) {
  const domain = [found.edges[0], found.edges[found.edges.length - 1]];
  const base = { label: "score (higher = more anomalous) →", domain };
  if (found.scale === "linear") return base;
  const ticks = d3.range(0, 10).flatMap((power) => [1, 2, 5].map((step) => step * 10 ** power));
  const shown = [0, ...ticks.filter((tick) => tick <= domain[1])];
  return { ...base, type: "symlog", constant: 2, ticks: shown.length > 12 ? shown.filter((t) => t === 0 || Number.isInteger(Math.log10(t))) : shown, tickFormat: (t) => `${t}` };
}

// Share of each kind per bin, so that a few anomalies are seen beside many normal images.
function bins(found, kind) {
  const counts = found.counts[kind], total = d3.sum(counts) || 1;
  return counts.map((count, i) => ({ x1: found.edges[i], x2: found.edges[i + 1], share: count / total, count, kind }));
}

function overlaid(width, found, kinds, line) {
  const marks = [Plot.ruleY([0])];
  for (const [kind, colour] of kinds) {
    const some = bins(found, kind);
    marks.push(Plot.rectY(some, { x1: "x1", x2: "x2", y: "share", fill: colour, fillOpacity: 0.45, inset: 0,
      title: (d) => `${kind}: ${d.count} images (${percent(d.share)}), score ${d.x1.toPrecision(3)} to ${d.x2.toPrecision(3)}`, tip: false }));
    marks.push(Plot.line(some.flatMap((d) => [[d.x1, d.share], [d.x2, d.share]]), { stroke: colour, strokeWidth: 1.6 }));
  }
  if (line != null) {
    marks.push(Plot.ruleX([line], { stroke: INK, strokeWidth: 2, strokeDasharray: "6,4" }));
    marks.push(Plot.text([line], { x: (d) => d, frameAnchor: "top", dy: -10, text: () => "threshold", fill: INK, fontWeight: 600 }));
  }
  return plot(width, { x: scoreScale(found), y: { label: "↑ share of the images of a kind", tickFormat: percent, ...grid }, marks, marginTop: 40 });
}

function legend(entries) {
  const box = document.createElement("div");
  box.className = "legend";
  for (const [name, colour, dash] of entries) {
    const entry = document.createElement("span"), patch = document.createElement("i");
    patch.style.background = dash ? `repeating-linear-gradient(90deg, ${colour} 0 4px, transparent 4px 6px)` : colour;
    entry.append(patch, name);
    box.append(entry);
  }
  return box;
}

const count = (value) => value.toLocaleString("en-US");
const KIND_COLOURS = [["normal", NORMAL], ["anomalous", ANOMALOUS]];
const RUNS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#8a6d00", "#56b4e9", "#7f7f7f"];
const DASHES = [null, "7,3", "2,3", "9,3,2,3"];

// The best terms by themselves are named; the others are a thin crowd.
const TERM_COLOURS = ["#009e73", "#b5651d", "#a0569b"];
const bestTerms = report.kind === "evaluation" ? report.metrics.slice(1).sort((a, b) => b.roc_auc - a.roc_auc).slice(0, 3).map((row) => row.name) : [];
const curveLegend = () => legend([["score", "var(--accent)"], ...bestTerms.map((name, i) => [name, TERM_COLOURS[i], DASHES[i + 1]]), ["other terms", OTHER]]);

function curveMarks(x, y) {
  const names = Object.keys(report.curves);
  const points = (name) => d3.zip(report.curves[name][x], report.curves[name][y]);
  const others = names.filter((name) => name !== "score" && !bestTerms.includes(name));
  const terms = others.flatMap((name) => points(name).map(([a, b]) => ({ name, a, b })));
  return [
    Plot.line(terms, { x: "a", y: "b", z: "name", stroke: OTHER, strokeWidth: 1, strokeOpacity: 0.6, title: "name" }),
    ...bestTerms.map((name, i) => Plot.line(points(name), { stroke: TERM_COLOURS[i], strokeWidth: 1.8, strokeDasharray: DASHES[i + 1], title: () => name })),
    Plot.line(points("score"), { stroke: "var(--accent)", strokeWidth: 3, title: () => "score" }),
  ];
}

const example = () => report.model.patch ? "patch" : report.model.features ? "cell" : report.model.vectors ? "row" : "image";

function trainingPanel(width, name, label) {
  const history = report.history, marks = [];
  for (const [prefix, dash, what, colour] of [["", "5,3", "training", NORMAL], ["valid_", null, "validation", ANOMALOUS]]) {
    const rows = history.filter((row) => row[prefix + name] != null);
    if (rows.length) marks.push(Plot.line(rows, { x: "epoch", y: prefix + name, stroke: colour, strokeWidth: 1.8, strokeDasharray: dash, clip: true, title: () => what }));
  }
  if (report.best_epoch.epoch) marks.push(Plot.ruleX([report.best_epoch.epoch], { stroke: INK, strokeDasharray: "2,3" }));
  // The first epochs of a loss dwarf all the others.
  const valuesOf = (rows) => rows.flatMap((row) => [row[name], row["valid_" + name]]).filter((v) => v != null);
  const values = valuesOf(history), clipped = values.length > 20 && name !== "active_units";
  const late = valuesOf(history.slice(Math.min(2, history.length - 1)));
  const domain = name === "active_units" ? [0, d3.max(values)] : d3.extent(clipped ? late : values);
  return plot(width, { height: 240, x: { label: "epoch →", domain: d3.extent(history.map((row) => row.epoch)) },
    y: { label: `↑ ${label}`, ...grid, domain: domain[0] === domain[1] ? [domain[0] - 1, domain[1] + 1] : domain }, marks });
}

function stepChart(width, name, label) {
  return plot(width, { height: 240, x: { label: "step →" }, y: { label: `↑ ${label}`, ...grid }, marks: [Plot.line(report.history, { x: "step", y: name, stroke: NORMAL, strokeWidth: 1.8 })] });
}

// Classes beyond the colours come round again with another symbol.
const SYMBOLS = ["circle", "triangle", "square", "star", "diamond"], LETTERS = ["●", "▲", "■", "★", "◆"];
const classColour = (number) => d3.schemeTableau10[number % 10];
const planeAxes = { x: { label: null, ticks: 5 }, y: { label: null, ticks: 5, grid: true } };
const pointRows = () => report.points.x.map((x, at) => ({ at, x, y: report.points.y[at], class: report.points.class ? report.points.class[at] : null, path: report.points.path[at] }));

function simpleMeasure(width, name) {
  const found = report.simple_measures;
  const rows = found.score.map((score, i) => ({ score, value: found[name].values[i], anomalous: found.anomalous[i] }));
  const y = { ...scoreScale(report.histogram), label: "↑ score", grid: true };
  return plot(width, { height: 280, x: { label: `${name} →` }, y, marks: [
    Plot.dot(rows.filter((row) => !row.anomalous), { x: "value", y: "score", r: 2.5, fill: NORMAL, fillOpacity: 0.55 }),
    Plot.dot(rows.filter((row) => row.anomalous), { x: "value", y: "score", r: 3.5, symbol: "triangle", fill: ANOMALOUS, fillOpacity: 0.8 }),
  ] });
}

const charts = {
  histogram: (width) => {
    const sum = (kind) => d3.sum(report.histogram.counts[kind]);
    return [overlaid(width, report.histogram, KIND_COLOURS, state.threshold ?? report.threshold),
      legend(KIND_COLOURS.map(([kind, colour]) => [`${kind} (${count(sum(kind))} images)`, colour]))];
  },
  roc: (width) => [plot(width, { height: 360, x: { label: "false-positive rate →", domain: [0, 1] }, y: { label: "↑ true-positive rate", domain: [0, 1], ...grid },
    marks: [Plot.line([[0, 0], [1, 1]], { stroke: INK, strokeDasharray: "2,4" }), ...curveMarks("fpr", "tpr")] }), curveLegend()],
  precision_recall: (width) => [plot(width, { height: 360, x: { label: "recall →", domain: [0, 1] }, y: { label: "↑ precision", domain: [0, 1], ...grid },
    marks: [Plot.ruleY([report.metrics[0].no_skill_precision], { stroke: INK, strokeDasharray: "2,4" }), ...curveMarks("recall", "precision")] }), curveLegend()],
  calibration: (width) => {
    const top = 1.15 * d3.max(report.calibration, (row) => Math.max(row.high, row.stated));
    const least = 0.6 * d3.min(report.calibration, (row) => Math.min(row.low || row.stated, row.stated));
    const floor = (value) => Math.max(value, least);
    const axis = (domain, room) => ({ type: "log", domain, ticks: logTicks(domain, room), tickFormat: (value) => `${+(100 * value).toPrecision(2)} %` });
    const stated = [0.7 * report.calibration[0].stated, top];
    return [plot(width, { x: { ...axis(stated, width), label: "stated false-alarm rate →" }, y: { ...axis([least, top], 320), label: "↑ realised", ...grid }, marks: [
      Plot.line([[least, least], [top, top]], { stroke: INK, strokeDasharray: "2,4", clip: true }),
      ...(report.expected_false_alarms ? [Plot.areaY(report.calibration, { x: "stated", y1: (row) => floor(row.expected.low), y2: (row) => floor(row.expected.high), fill: OTHER, fillOpacity: 0.25 })] : []),
      Plot.ruleX(report.calibration, { x: "stated", y1: (row) => floor(row.low), y2: "high", stroke: NORMAL, strokeWidth: 2 }),
      Plot.dot(report.calibration, { x: "stated", y: (row) => floor(row.value), fill: NORMAL, r: 5, title: (row) => `stated ${row.stated}, realised ${row.value.toPrecision(3)}` }),
    ] })];
  },
  brightness: (width) => [simpleMeasure(width, "brightness"), legend(KIND_COLOURS)],
  complexity: (width) => [simpleMeasure(width, "complexity"), legend(KIND_COLOURS)],
  loss: (width) => [trainingPanel(width, "loss", `loss, nats per ${report.training.reduction === "mean" ? "pixel and latent unit" : example()}`)],
  distortion: (width) => [trainingPanel(width, "distortion", `distortion, nats per ${example()}`)],
  rate: (width) => [trainingPanel(width, "rate", `rate (KL), nats per ${example()}`)],
  active_units: (width) => [trainingPanel(width, "active_units", "active latent units")],
  direct_loss: (width) => [stepChart(width, "direct_loss", "loss of the direct network")],
  ladder_elbo: (width) => [stepChart(width, "neg_elbo", "negative ELBO of the ladder VAE, nats per pixel")],
  latents: (width) => [plot(width, { height: 220, marginLeft: 52, x: { label: "latent unit, by rate →", axis: null }, y: { label: "↑ rate (KL), nats", ...grid }, marks: [
    Plot.barY(report.latents.units, { x: (_, i) => i, y: "rate", fill: (unit) => unit.active ? NORMAL : OTHER, title: (unit) => `unit ${unit.unit}: ${unit.rate.toFixed(3)} nats` }), Plot.ruleY([0])] }),
    legend([["active", NORMAL], ["inactive", OTHER]])],
  bounds: (width) => {
    const found = report.histogram, total = d3.sum(found.counts) || 1;
    const rows = found.counts.map((each, i) => ({ x1: found.edges[i], x2: found.edges[i + 1], share: each / total }));
    return [plot(width, { height: 240, x: { label: "−log p(x), nats per image, at most →" }, y: { label: "↑ share of images", tickFormat: percent, ...grid }, marks: [
      Plot.rectY(rows, { x1: "x1", x2: "x2", y: "share", fill: NORMAL, fillOpacity: 0.6 }), Plot.ruleY([0])] })];
  },
  correlation: (width) => {
    const found = report.latents.correlated, side = Math.min(width, 460);
    const cells = found.values.flatMap((row, i) => row.map((value, j) => ({ x: `${found.units[j]}`, y: `${found.units[i]}`, value })));
    const names = found.units.map((unit) => `${unit}`);
    const every = Math.ceil((16 * names.length) / (side - 94)); // units with a name, so that names do not overlap
    const axis = { label: "unit", domain: names, ticks: names.filter((_, i) => i % every === 0) };
    return [plot(side, { height: side, marginBottom: 52, padding: 0, x: { ...axis, tickRotate: -90 }, y: axis,
      color: { type: "diverging", scheme: "PuOr", domain: [-1, 1] },
      marks: [Plot.cell(cells, { x: "x", y: "y", fill: "value", title: (d) => `units ${d.y} and ${d.x}: ${d.value.toFixed(2)}` })] })];
  },
  points: (width) => {
    const rows = pointRows(), names = report.classes;
    const colour = (row) => names.length ? classColour(row.class) : NORMAL;
    return [plot(width, { height: Math.min(640, width), ...planeAxes, marks: [
      Plot.dot(rows, { x: "x", y: "y", r: 2.5, fill: colour, fillOpacity: 0.75, symbol: (row) => SYMBOLS[Math.floor((row.class ?? 0) / 10) % SYMBOLS.length], title: (row) => names.length ? `${names[row.class]}: ${row.path}` : row.path })] }),
      ...(names.length ? [legend(names.map((name, i) => [names.length > 10 ? `${LETTERS[Math.floor(i / 10) % LETTERS.length]} ${name}` : name, classColour(i)]))] : [])];
  },
  point_pictures: (width) => {
    const rows = pointRows().filter((_, i) => report.pictured.includes(i)), size = Math.max(16, Math.min(32, width / 28));
    const sources = [...document.querySelectorAll("[data-point]")];
    return [plot(width, { height: Math.min(640, width), ...planeAxes, marks: [
      Plot.image(rows, { x: "x", y: "y", width: size, height: size, src: (row) => (sources.find((image) => image.dataset.point === `${row.at}`) || {}).src, title: "path" })] })];
  },
  batch: (width) => {
    const kinds = report.histogram.counts.calibration ? [["calibration", NORMAL], ["batch", ANOMALOUS]] : [["batch", ANOMALOUS]];
    return [overlaid(width, report.histogram, kinds, report.threshold), legend(kinds.map(([kind, colour]) => [`${kind === "batch" ? "this batch" : "normal calibration images"} (${count(d3.sum(report.histogram.counts[kind]))})`, colour]))];
  },
  p_values: (width) => {
    const found = report.p_values, total = d3.sum(found.counts) || 1;
    const rows = found.counts.map((each, i) => ({ x1: found.edges[i], x2: found.edges[i + 1], share: each / total }));
    return [plot(width, { x: { label: "p-value →", domain: [0, 1] }, y: { label: "↑ share of images", tickFormat: percent, ...grid }, marks: [
      Plot.rectY(rows, { x1: "x1", x2: "x2", y: "share", fill: ANOMALOUS, fillOpacity: 0.6 }), Plot.ruleY([0]),
      Plot.ruleY([1 / rows.length], { stroke: NORMAL, strokeWidth: 2, strokeDasharray: "6,4" })] }),
      legend([["this batch", ANOMALOUS], ["expected of normal images", NORMAL]])];
  },
  changes: (width) => [plot(width, { height: 240, x: { label: "noise found, grey levels of 0 to 255 →" }, y: { label: "↑ mean change, grey levels", ...grid }, marks: [
    Plot.dot(report.table, { x: "noise", y: "change", fill: (row) => row.reverted ? ANOMALOUS : NORMAL, symbol: (row) => row.reverted ? "triangle" : "circle", r: 4, title: (row) => `${row.path}, page ${row.page}` })] }),
    legend([["nothing put back", NORMAL], ["something put back", ANOMALOUS]])],
  compared_roc: (width) => [plot(width, { height: 380, x: { label: "false-positive rate →", domain: [0, 1] }, y: { label: "↑ true-positive rate", domain: [0, 1], ...grid }, marks: [
    Plot.line([[0, 0], [1, 1]], { stroke: INK, strokeDasharray: "2,4" }),
    ...report.runs.map((run, i) => Plot.line(d3.zip(run.curve.fpr, run.curve.tpr), { stroke: RUNS[i % RUNS.length], strokeDasharray: DASHES[i % DASHES.length], strokeWidth: 2.2, title: () => run.name }))] }),
    legend(report.runs.map((run, i) => [run.name, RUNS[i % RUNS.length], DASHES[i % DASHES.length]]))],
  spread: (width, data) => benchmarkSpread(width, data),
  objective: (width) => objectiveByTrial(width),
  setting: (width, name) => objectiveBySetting(width, name),
};

// One dot for each seed of the mean over the cases, a tick for each case: the spread that a table hides.
function benchmarkSpread(width, data) {
  const methods = report.comparison[+data].methods.filter((row) => row.part !== "published");
  const cases = methods.flatMap((row) => row.cells.filter((cell) => cell).map((cell) => ({ name: row.name, value: cell.mean, label: cell.case })));
  const seeds = methods.flatMap((row) => (row.mean ? row.mean.values : []).map((value) => ({ name: row.name, value })));
  const published = report.comparison[+data].methods.filter((row) => row.part === "published" && row.mean);
  const names = methods.map((row) => row.name);
  const { marginLeft, y } = namedRows(width, names);
  return [plot(width, { height: 60 + 30 * names.length, marginLeft, marginTop: 20,
    x: { label: "ROC-AUC →", grid: true, domain: [Math.min(0.5, d3.min(cases, (d) => d.value)), 1] }, y: { ...y, type: "band" },
    marks: [
      Plot.ruleX([0.5], { stroke: INK, strokeDasharray: "2,4" }),
      ...(published.length ? [Plot.ruleX([d3.max(published, (row) => row.mean.mean)], { stroke: OTHER, strokeDasharray: "6,4" })] : []),
      Plot.tickX(cases, { x: "value", y: "name", stroke: OTHER, strokeWidth: 1.5, inset: 6, title: (d) => `${d.label}: ${d.value.toFixed(3)}` }),
      Plot.dot(seeds, { x: "value", y: "name", r: 5, fill: (d) => methods.find((row) => row.name === d.name).part === "ours" ? ANOMALOUS : NORMAL, fillOpacity: 0.8, title: (d) => d.value.toFixed(3) }),
    ] })];
}

const measuredTrials = () => report.trials.filter((trial) => trial.objective != null);
const trialTitle = (trial) => `trial ${trial.number}: ${trial.objective.toFixed(3)}`;

function objectiveByTrial(width) {
  const rows = measuredTrials(), best = [];
  for (const row of rows) best.push({ number: row.number, objective: Math.max(row.objective, best.length ? best[best.length - 1].objective : 0) });
  return [plot(width, { height: 280, inset: 8, x: { label: "trial →", tickFormat: (d) => Number.isInteger(d) ? `${d}` : "" }, y: { label: "↑ mean ROC-AUC", ...grid }, marks: [
    Plot.line(best, { x: "number", y: "objective", stroke: ANOMALOUS, strokeWidth: 2, curve: "step-after" }),
    Plot.dot(rows, { x: "number", y: "objective", r: 4, fill: NORMAL, title: trialTitle })] }),
    legend([["trial", NORMAL], ["best so far", ANOMALOUS]])];
}

function objectiveBySetting(width, name) {
  const rows = measuredTrials(), value = (trial) => trial.settings[name], scale = report.searched[name];
  const categories = scale === "category";
  const channels = categories ? { x: "objective", y: (trial) => `${value(trial)}` } : { x: value, y: "objective" };
  const marked = (number, symbol) => Plot.dot(rows.filter((trial) => trial.number === number), { ...channels, r: 7, symbol, fill: ANOMALOUS, title: trialTitle });
  const marks = [Plot.dot(rows, { ...channels, r: 4, fill: NORMAL, fillOpacity: 0.7, title: trialTitle }), marked(0, "diamond"), marked(report.best, "star")];
  const objective = "mean ROC-AUC", height = 240, inset = 10;
  if (categories) { // their names need room, so they stand in rows
    const { marginLeft, y } = namedRows(width, [...new Set(rows.map((trial) => `${value(trial)}`))].sort(d3.ascending));
    return [plot(width, { height, inset, marginLeft, x: { label: `${objective} by ${name} →`, ticks: Math.max(2, width / 100), ...grid }, y, marks })];
  }
  const x = scale === "log" ? { type: "log", ticks: logTicks(d3.extent(rows, value), width), tickFormat: "~g" } : { ticks: Math.max(2, width / 80) };
  return [plot(width, { height, inset, x: { label: `${name} →`, ...x }, y: { label: `↑ ${objective}`, ...grid }, marks })];
}

function draw(box) {
  const width = Math.max(260, Math.floor(box.getBoundingClientRect().width));
  const name = box.dataset.chart;
  const [chart, what] = name.split(":");
  const parts = charts[chart](width, what);
  // The picture is described by the label of the box; its parts would only be noise to a screen reader.
  for (const part of parts) part.setAttribute("aria-hidden", "true");
  box.replaceChildren(...parts);
}

function drawAll() {
  document.querySelectorAll("[data-chart]").forEach(draw);
}
