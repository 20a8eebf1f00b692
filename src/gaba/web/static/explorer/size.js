// Update-size lab: what the length of the combined update is under each scale, for SGD and Adam.

import { LOG, slider } from "./controls.js";
import { byId, h, normText, onceAFrame, say, timesText } from "./dom.js";
import { descent, updateLength } from "./simulate.js";
import { timeplot } from "./timeplot.js";

const SCALES = [
  ["uniform", "uniform weights", "the yardstick", "--line-strong"],
  ["simplex", 'scale="simplex"', "weights sum to 1 (the paper)", "--task-8"],
  ["mean", 'scale="mean"', "Σ λₖgₖ = mean g (default)", "--task-3"],
  ["max", 'scale="max"', "contributions as large as the largest norm", "--task-5"],
  ["anchor", 'anchor="task 1"', "task 1 keeps weight 1", "--task-6"],
];
const STEPS = 300;

export function size() {
  const state = { ratio: 500, cosine: 0, way: 0.03 };
  const control = (key, options) => slider({ id: `size-${key}`, value: state[key], ...options, change: (value) => {
    state[key] = value;
    refresh();
  } });
  byId("size-controls").append(
    control("ratio", { label: "Norm ratio, g₁/g₂", min: 0, max: 4, scale: LOG, format: normText }).element,
    control("cosine", { label: "Cosine between the two gradients", min: -1, max: 1, step: 0.05, format: (v) => v.toFixed(2).replace("-", "−") }).element,
    control("way", { label: "Learning rate: part of the way in one step, as tuned under uniform weights", min: 0.005, max: 0.2, step: 0.005, format: (v) => `${(100 * v).toFixed(1)} %` }).element,
  );
  const series = SCALES.slice(0, 3).map(([, name, , token], i) => ({ name, token, width: i ? 2.2 : 4, dash: i === 2 ? [7, 5] : undefined }));
  const plots = Object.fromEntries(["sgd", "adam"].map((optimizer) => [
    optimizer, timeplot(byId(`size-${optimizer}`), { series, log: true, height: 210 }),
  ]));

  const refresh = onceAFrame(() => {
    const norms = [Math.sqrt(state.ratio), 1 / Math.sqrt(state.ratio)];
    const steps = Array.from({ length: STEPS + 1 }, (_, i) => i);
    const runs = {};
    const lengths = {};
    for (const optimizer of ["sgd", "adam"]) {
      const lr = optimizer === "sgd" ? sgdRate(norms, state.way) : state.way;
      lengths[optimizer] = relativeLengths(optimizer, norms, state.cosine, lr);
      runs[optimizer] = SCALES.slice(0, 3).map(([scale]) => descent({ optimizer, scale, norms, lr, steps: STEPS }));
      const [, simplex, mean] = runs[optimizer].map((path) => 100 * path.at(-1));
      plots[optimizer].show([steps, ...runs[optimizer].map((path) => path.map((v) => Math.max(v, 1e-6)))],
        `Distance from the optimum over ${STEPS} steps of ${optimizer === "sgd" ? "SGD" : "Adam"}: ${simplex.toPrecision(3)} % of the start is left with simplex, ${mean.toPrecision(3)} % with mean.`);
    }
    table(lengths);
    say(byId("size-verdict"), verdict(lengths, runs));
  });
  refresh();
}

/** The rate at which SGD goes that part of the way to the optimum in one step, weights uniform. */
export function sgdRate(norms, way) {
  const slope = norms.reduce((a, b) => a + b, 0) / norms.length;
  return (way / slope) * Math.sqrt(8); // descent() starts √8 from the optimum
}

/** The length of an update under each scale, over that under uniform weights. */
export function relativeLengths(optimizer, norms, cosine, lr) {
  const all = SCALES.map(([scale]) => updateLength({ optimizer, scale, norms, cosine, lr }));
  return all.map((one) => one / all[0]);
}

function table(lengths) {
  const most = Math.max(...lengths.sgd, ...lengths.adam);
  const cell = (value, name, optimizer) =>
    h("td", {},
      h("span", { class: "cell" },
        h("span", { class: "bar-track", "aria-hidden": "true" },
          h("span", { class: "bar", style: { width: `${Math.max(0.6, 100 * logPart(value, most))}%`, background: optimizer === "SGD" ? "var(--task-1)" : "var(--task-2)" } })),
        h("span", { class: "num" }, timesText(value, value < 0.1 ? 4 : 2))));
  byId("size-lengths").replaceChildren(...SCALES.map(([key, name, says], i) =>
    h("tr", { "data-scale": key }, h("th", { scope: "row" }, h("code", {}, name), h("span", { class: "small muted" }, says)),
      cell(lengths.sgd[i], name, "SGD"), cell(lengths.adam[i], name, "Adam"))));
}

/** Bars on a logarithmic scale from 1e-4 of uniform to the largest. */
function logPart(value, most) {
  return Math.max(0, Math.min(1, Math.log10(value / 1e-4) / Math.log10(Math.max(most, 1) / 1e-4)));
}

function verdict(lengths, runs) {
  const [sgd, adam] = [lengths.sgd[1], lengths.adam[1]];
  const left = 100 * runs.sgd[1].at(-1);
  if (sgd > 0.5) return "At this ratio the simplex scale costs SGD less than a factor of two.";
  return `On the simplex scale an SGD update is ${timesText(1 / sgd, 1)} shorter than under uniform weights: after ${STEPS} steps ${left.toFixed(left > 99 ? 1 : 0)} % of the way is still left. Adam divides a steady factor out (${timesText(adam)}). scale="mean" gives SGD its length back.`;
}
