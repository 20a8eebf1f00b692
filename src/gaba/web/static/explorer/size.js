// Update-size lab: what the length of the combined update is under each scale, for SGD and Adam.

import { byId, h, onceAFrame, say } from "../dom.js";
import { timesText, typedText } from "../numbers.js";
import { timeplot } from "../timeplot.js";
import { LOG, slider } from "./controls.js";
import { sum } from "./rules.js";
import { descent, updateLength } from "./simulate.js";

const SCALES = [
  ["plain", "sum of the losses", "the yardstick: m = 1", "--line-strong"],
  ["simplex", 'scale="simplex"', "Σ mₖ = 1 (the paper)", "--task-8"],
  ["sum", 'scale="sum"', "Σ mₖgₖ = Σ gₖ (default)", "--task-3"],
  ["geometric", 'scale="geometric"', "the geometric mean of m is 1", "--task-4"],
  ["max", 'scale="max"', "the largest contribution equals the largest norm", "--task-5"],
  ["anchor", 'anchor="task 1"', "task 1 keeps the multiplier 1", "--task-6"],
];
const DESCENT_STEPS = 300;

export function size() {
  const state = { ratio: 500, cosine: 0, way: 0.03 };
  const control = (key, options) => slider({ id: `size-${key}`, value: state[key], ...options, change: (value) => {
    state[key] = value;
    refresh();
  } });
  byId("size-controls").append(
    control("ratio", { label: "Norm ratio, g₁/g₂", min: 0, max: 4, scale: LOG, format: typedText }).element,
    control("cosine", { label: "Cosine between the two gradients", min: -1, max: 1, step: 0.05, format: (v) => v.toFixed(2).replace("-", "−") }).element,
    control("way", { label: "Learning rate: part of the way in one step, as tuned for the sum of the losses", min: 0.005, max: 0.2, step: 0.005, format: (v) => `${(100 * v).toFixed(1)} %` }).element,
  );
  const series = SCALES.slice(0, 3).map(([, , , token], i) => ({ token, width: i ? 2.2 : 4, dash: i === 2 ? [7, 5] : undefined }));
  const plots = Object.fromEntries(["sgd", "adam"].map((optimizer) => [
    optimizer, timeplot(byId(`size-${optimizer}`), { series, height: 228, yLabel: "part of the start" }),
  ]));

  const refresh = onceAFrame(() => {
    const norms = [Math.sqrt(state.ratio), 1 / Math.sqrt(state.ratio)];
    const steps = Array.from({ length: DESCENT_STEPS + 1 }, (_, i) => i);
    const runs = {};
    const lengths = {};
    for (const optimizer of ["sgd", "adam"]) {
      const lr = optimizer === "sgd" ? sgdRate(norms, state.way) : state.way;
      lengths[optimizer] = relativeLengths(optimizer, norms, state.cosine, lr);
      runs[optimizer] = SCALES.slice(0, 3).map(([scale]) => descent({ optimizer, scale, norms, lr, steps: DESCENT_STEPS }));
      const [, simplex, whole] = runs[optimizer].map((path) => 100 * path.at(-1));
      plots[optimizer].show([steps, ...runs[optimizer].map((path) => path.map((v) => Math.max(v, 1e-6)))], true,
        `Distance from the optimum over ${DESCENT_STEPS} steps of ${optimizer === "sgd" ? "SGD" : "Adam"}: ${simplex.toPrecision(3)} % of the start is left with simplex, ${whole.toPrecision(3)} % with sum.`);
    }
    table(lengths);
    say(byId("size-verdict"), lengthVerdict(lengths, runs));
  });
  refresh();
}

/** The rate at which SGD on the sum of the losses goes that part of the way in one step. */
function sgdRate(norms, way) {
  return (way / sum(norms)) * Math.sqrt(8); // descent() starts √8 from the optimum
}

/** The length of an update under each scale, over that of the sum of the losses. */
function relativeLengths(optimizer, norms, cosine, lr) {
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

/** Bars on a logarithmic scale, from 1e-4 of the yardstick to the largest. */
function logPart(value, most) {
  return Math.max(0, Math.min(1, Math.log10(value / 1e-4) / Math.log10(Math.max(most, 1) / 1e-4)));
}

function lengthVerdict(lengths, runs) {
  const [sgd, adam] = [lengths.sgd[1], lengths.adam[1]];
  const left = 100 * runs.sgd[1].at(-1);
  if (sgd > 0.4) return "At this ratio the simplex scale only halves the update of SGD: two multipliers that sum to 1 are ½ each.";
  return `On the simplex scale an SGD update is ${timesText(1 / sgd, 1)} shorter than that of the sum: after ${DESCENT_STEPS} steps ${left.toFixed(left > 99 ? 1 : 0)} % of the way is left. Adam divides a steady factor out (${timesText(adam)}). scale="sum" gives SGD its length back.`;
}
