// Stabiliser lab: what smoothing, warm-up and a floor make of a noisy stream of norms.

import { byId, h, onceAFrame, say } from "../dom.js";
import { multiplierText, percent, short, timesText, typedText, weightText, whole } from "../numbers.js";
import { timeplot } from "../timeplot.js";
import { BOUND, LINEAR, LOG, choice, presets, slider } from "./controls.js";
import { normStream, run, stepResponse, summary } from "./simulate.js";
import { FIRST_RATE } from "./stabilisers.js";

const STREAM_STEPS = 2000;
/** Positions of the decay: decades of 1/(1 − d), so that 0.9, 0.99 and 0.999 are equally far apart. */
const DECAY = { at: (x) => (x <= 0 ? 0 : 1 - 10 ** -x), from: (d) => -Math.log10(1 - d) };
/** Factors a step up to 10, and none at all at the end of the track. */
const RISE = { at: (x) => (x >= 1 ? Infinity : 10 ** x), from: (factor) => Math.min(1, Math.log10(factor)) };

const PAPER = {
  ratio: 500, noise: 0, drift: 0, bursts: 0,
  smoothing: "weights", decay: 0.99, floorAt: 0.05, floorMode: "renormalise", warmupSteps: 100, scale: "simplex", limit: Infinity, recover: Infinity, rising: Infinity,
};
const NOISY_PAPER = { ...PAPER, noise: 0.5, bursts: 5 };
const DEFAULT = { ...NOISY_PAPER, smoothing: "belief", floorAt: 0, warmupSteps: 0, scale: "sum", limit: 64, recover: 8, rising: 1.2 };
const SCENES = [
  ["paper", PAPER],
  ["paper, noisy", NOISY_PAPER],
  ["gaba", DEFAULT],
  ["inverse, no stabiliser", { ...DEFAULT, smoothing: "none", limit: Infinity, recover: Infinity, rising: Infinity }],
  ["gaba, a drift that crosses over", { ...DEFAULT, ratio: 30, noise: 0.4, drift: -3 }],
];

/** The norms of the lab's settings. */
function stream(state) {
  const root = Math.sqrt(state.ratio);
  const start = state.ratio === 500 ? [5, 0.01] : [root, 1 / root];
  return normStream({ start, noise: state.noise, drift: state.drift, bursts: state.bursts, steps: STREAM_STEPS, seed: state.seed });
}

export function lab() {
  const state = { ...NOISY_PAPER, seed: 1 };
  let rows = [];
  let reached = 0;

  const number = (key, options) => {
    const made = slider({ id: `lab-${key}`, value: state[key], ...options, change: (value) => {
      state[key] = value;
      refresh();
    } });
    return [key, made];
  };
  const controls = new Map([
    number("ratio", { label: "Norm ratio at the start, g₁/g₂", min: 0, max: 4, scale: LOG, format: typedText }),
    number("noise", { label: "Noise (standard deviation of log norm)", min: 0, max: 1.5, step: 0.05, scale: LINEAR, format: (v) => v.toFixed(2) }),
    number("drift", { label: "Drift of the ratio (decades in the run)", min: -4, max: 4, step: 0.1, format: (v) => `${v > 0 ? "+" : v < 0 ? "−" : ""}${Math.abs(v).toFixed(1)}` }),
    number("bursts", { label: "Bursts (in a thousand steps, 30× each)", min: 0, max: 50, step: 1, format: (v) => String(v) }),
    number("decay", { label: "Decay d", min: 0, max: 3, step: 0.01, scale: DECAY, format: (v) => v.toFixed(4).replace(/0+$/, "").replace(/\.$/, "") || "0" }),
    number("floorAt", { label: "Floor m", min: 0, max: 0.4, step: 0.005, format: (v) => (v === 0 ? "none" : String(Number(v.toFixed(3)))) }),
    number("warmupSteps", { label: "Warm-up (steps)", min: 0, max: 500, step: 10, format: (v) => String(v) }),
    number("limit", { label: "Limit L", min: 0, max: 4, scale: BOUND, format: boundText }),
    number("recover", { label: "Recovery R", min: 0, max: 4, scale: BOUND, format: boundText }),
    number("rising", { label: "Rise of a multiplier in one step", min: 0.01, max: 1, scale: RISE, format: riseText }),
  ]);
  const pick = (key, options) => [key, choice({ name: `lab-${key}-kind`, value: state[key], ...options, change: (value) => {
    state[key] = value;
    refresh();
  } })];
  const choices = new Map([
    pick("smoothing", { label: "What is smoothed", options: [["belief", "Belief"], ["norms", "Log-norms"], ["weights", "Weights"], ["none", "Nothing"]] }),
    pick("floorMode", { label: "How the floor is kept", options: [["renormalise", "Renormalise"], ["project", "Project"]] }),
    pick("scale", { label: "Scale", options: [["sum", "Sum"], ["simplex", "Simplex"]] }),
  ]);
  byId("lab-stream").append(...["ratio", "noise", "drift", "bursts"].map((key) => controls.get(key).element),
    h("button", { type: "button", class: "button", onclick: () => {
      state.seed += 1;
      refresh();
    } }, "Draw other noise"));
  byId("lab-settings").append(choices.get("smoothing").element, controls.get("decay").element,
    controls.get("warmupSteps").element, controls.get("floorAt").element, choices.get("floorMode").element,
    choices.get("scale").element, controls.get("limit").element, controls.get("recover").element,
    controls.get("rising").element);
  byId("lab-presets").append(presets("Presets of the stabiliser lab", SCENES.map(([name, scene]) => [name, () => {
    Object.assign(state, scene);
    for (const [key, one] of [...controls, ...choices]) one.set(state[key]);
    refresh();
  }])));

  const hover = (_plot, i) => byId("lab-readout").replaceChildren(i !== null && rows[i] ? readout(rows[i], i) : "Move over a plot to read a step.");
  const both = ["--task-1", "--task-2"].map((token) => ({ token }));
  const shared = { hover, sync: "lab", shades: [{ token: "--saturated", inside: (i) => rows[i]?.saturated }] };
  const plots = {
    norms: timeplot(byId("lab-norms"), { ...shared, series: both, height: 168, yLabel: "norm" }),
    multipliers: timeplot(byId("lab-multipliers"), { ...shared, series: both, height: 188, yLabel: "multiplier" }),
    weights: timeplot(byId("lab-weights"), { ...shared, series: both, height: 188, range: [0, 1], yLabel: "weight λ" }),
    imbalance: timeplot(byId("lab-imbalance"), { ...shared, series: [{ token: "--line-strong", width: 1 }, { token: "--task-5" }], height: 168, yLabel: "ratio (1: balanced)" }),
    response: timeplot(byId("lab-response"), {
      series: [{ token: "--task-3", width: 2.2 }], height: 188, range: [0, 1.05], yLabel: "part of the way",
      marks: () => [{ y: 1 - Math.exp(-1) }, ...(reached ? [{ x: reached }] : [])],
    }),
  };

  const refresh = onceAFrame(() => {
    rows = run(stream(state), state);
    const facts = summary(rows);
    const steps = rows.map((_, i) => i + 1);
    const pair = (name) => [steps, ...[0, 1].map((k) => rows.map((row) => row[name][k]))];
    const over = `over ${whole(STREAM_STEPS)} steps`;
    plots.norms.show(pair("norms"), true, `The norms of both tasks ${over}, logarithmic.`);
    plots.multipliers.show(pair("multipliers"), true, `The multipliers of both tasks ${over}, logarithmic.`);
    plots.weights.show(pair("weights"), false, `The weights of both tasks ${over}; ${saturationText(facts)}`);
    plots.imbalance.show([steps, rows.map((row) => ratioOf(row.norms)), rows.map((row) => row.imbalance)], true,
      `The imbalance ${over}: ${timesText(facts.remaining)} in the median of the last 500, ${timesText(facts.before)} under equal weights.`);
    const window = state.smoothing === "none" ? 20 : Math.max(20, Math.min(6000, Math.ceil(5 / (1 - state.decay))));
    const answer = stepResponse(norms0(state), state, { steps: window });
    reached = answer.reached;
    plots.response.show([answer.path.map((_, i) => i + 1), answer.path], false, responseText(answer));
    hover(null, null);
    report(state, facts, answer);
  });
  refresh();
}

const norms0 = (state) => [Math.sqrt(state.ratio), 1 / Math.sqrt(state.ratio)];
const ratioOf = ([a, b]) => Math.max(a / b, b / a);

const boundText = (value) => (value === Infinity ? "none" : value < 100 ? typedText(value) : whole(value));
const riseText = (factor) => (factor === Infinity ? "at once" : `${factor.toFixed(2)}×`);
const stepsText = (n) => `${n} ${n === 1 ? "step" : "steps"}`;

function saturationText({ saturated, firstSaturated }) {
  return saturated ? `saturated in ${percent(saturated)} of the steps, first in step ${firstSaturated}.` : "never saturated.";
}

function responseText({ reached }) {
  if (!reached) return "The weights do not get 63 % of the way: they are held.";
  return `The weights are 63 % of the way after ${stepsText(reached)}.`;
}

function readout(row, i) {
  const pair = (values, text) => values.map(text).join(" / ");
  const parts = [
    `norms ${pair(row.norms, short)}`, `multipliers ${pair(row.multipliers, multiplierText)}`,
    `weights ${pair(row.weights, weightText)}`, `imbalance ${timesText(row.imbalance)}`,
  ];
  return `step ${i + 1}: ${parts.join(", ")}${row.saturated ? ", saturated" : ""}`;
}

function report(state, facts, answer) {
  say(byId("lab-fact-saturated"), percent(facts.saturated));
  say(byId("lab-fact-first"), facts.firstSaturated ? `first in step ${facts.firstSaturated}` : "no step");
  say(byId("lab-fact-remaining"), timesText(facts.remaining));
  say(byId("lab-fact-before"), `${timesText(facts.before)} under equal weights`);
  say(byId("lab-fact-reached"), answer.reached ? stepsText(answer.reached) : "never");
  say(byId("lab-fact-tau"), memoryText(state));
  say(byId("lab-fact-jump"), `${(100 * facts.jump).toFixed(facts.jump < 0.1 ? 2 : 0)} %`);
  say(byId("lab-verdict"), advice(state, facts));
}

function memoryText({ smoothing, decay }) {
  if (smoothing === "belief") return `adapts: noise is averaged over up to ${Math.max(1 / FIRST_RATE, 1 / (1 - decay)).toFixed(0)} steps`;
  return smoothing === "none" || decay === 0 ? "nothing is smoothed" : `time constant −1/ln d = ${(-1 / Math.log(decay)).toFixed(1)} steps`;
}

/** The median ratio of two log-normal norms that are equal but for their noise. */
function noiseAlone(noise) {
  return Math.exp(0.6745 * Math.SQRT2 * noise);
}

function advice(state, { saturated, last, jump, remaining }) {
  if (saturated > 0.5 && last.saturated === "limit") {
    return `The limit binds: no loss is multiplied or divided by more than ${boundText(state.limit)}. What is left of the imbalance is up to you: raise the limit, or scale the loss.`;
  }
  if (saturated > 0.5) {
    const m = state.floorAt;
    const cap = state.floorMode === "project" ? (1 - m) / m : 1 / m;
    return `The floor binds: a weight stands at ${weightText(Math.min(...last.weights))}, so the method is now a fixed weighting. A floor of ${m} takes at most a factor of ${timesText(cap, 1)} from the imbalance.`;
  }
  if (jump > 0.1) return `The weights are noisy: they jump by ${(100 * jump).toFixed(0)} % from one step to the next. Smooth the norms (decay 0.99).`;
  if (remaining > 5 && state.smoothing === "weights") return "Smoothed weights stay too close to uniform: the average of the weights is not the weight of the average norms, and the smaller weight ends up too large.";
  if (remaining > 3 * noiseAlone(state.noise) && state.recover < Infinity) return "The recovery holds a task back: its norm fell below its peak, and it is boosted by no more than R for that.";
  return `The weights follow the norms and let the noise pass.${state.noise > 0 ? " What remains is the noise of single batches, which no weights should follow." : ""}`;
}
