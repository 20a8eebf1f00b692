// Stabiliser lab: what smoothing, warm-up and a floor make of a noisy stream of norms.

import { LINEAR, LOG, choice, presets, slider } from "./controls.js";
import { byId, h, normText, onceAFrame, say, timesText, weightText } from "./dom.js";
import { normStream, run, stepResponse, summary } from "./simulate.js";
import { timeplot } from "./timeplot.js";

const STEPS = 2000;
/** Positions of the decay: decades of 1/(1 − d), so that .9, .99 and .999 are equally far apart. */
const DECAY = { at: (x) => (x <= 0 ? 0 : 1 - 10 ** -x), from: (d) => -Math.log10(1 - d) };

const PAPER = {
  ratio: 500, noise: 0, drift: 0, bursts: 0,
  smoothing: "weights", decay: 0.99, floorAt: 0.05, floorMode: "renormalise", warmupSteps: 100,
};
const SCENES = [
  ["The paper's preset", PAPER],
  ["The paper's, with noise", { ...PAPER, noise: 0.5, bursts: 5 }],
  ["The default of gaba", { ...PAPER, noise: 0.5, bursts: 5, smoothing: "norms", floorAt: 0, warmupSteps: 0 }],
  ["No stabiliser", { ...PAPER, noise: 0.5, bursts: 5, smoothing: "none", floorAt: 0, warmupSteps: 0 }],
  ["A drift that crosses over", { ...PAPER, ratio: 30, noise: 0.4, drift: -3, smoothing: "norms", floorAt: 0, warmupSteps: 0 }],
];

/** The settings of the lab as what the simulation takes. */
export function stream(state) {
  const root = Math.sqrt(state.ratio);
  const start = state.ratio === 500 ? [5, 0.01] : [root, 1 / root];
  return normStream({ start, noise: state.noise, drift: state.drift, bursts: state.bursts, steps: STEPS, seed: state.seed });
}

export function lab() {
  const state = { ...PAPER, noise: 0.5, bursts: 5, seed: 1 };
  let rows = [];
  let stretches = [];
  let reached = 0;

  const number = (key, options) => {
    const made = slider({ id: `lab-${key}`, value: state[key], ...options, change: (value) => {
      state[key] = value;
      refresh();
    } });
    return [key, made];
  };
  const controls = new Map([
    number("ratio", { label: "Norm ratio at the start, g₁/g₂", min: 0, max: 4, scale: LOG, format: normText }),
    number("noise", { label: "Noise (standard deviation of log norm)", min: 0, max: 1.5, step: 0.05, scale: LINEAR, format: (v) => v.toFixed(2) }),
    number("drift", { label: "Drift of the ratio (decades in the run)", min: -4, max: 4, step: 0.1, format: (v) => `${v > 0 ? "+" : v < 0 ? "−" : ""}${Math.abs(v).toFixed(1)}` }),
    number("bursts", { label: "Bursts (in a thousand steps, 30× each)", min: 0, max: 50, step: 1, format: (v) => String(v) }),
    number("decay", { label: "Decay d", min: 0, max: 3, step: 0.01, scale: DECAY, format: (v) => v.toFixed(4).replace(/0+$/, "").replace(/\.$/, "") || "0" }),
    number("floorAt", { label: "Floor m", min: 0, max: 0.4, step: 0.005, format: (v) => (v === 0 ? "none" : String(Number(v.toFixed(3)))) }),
    number("warmupSteps", { label: "Warm-up (steps)", min: 0, max: 500, step: 10, format: (v) => String(v) }),
  ]);
  const pick = (key, options) => [key, choice({ name: `lab-${key}-kind`, value: state[key], ...options, change: (value) => {
    state[key] = value;
    refresh();
  } })];
  const choices = new Map([
    pick("smoothing", { label: "What is smoothed", options: [["norms", "Log-norms"], ["weights", "Weights"], ["none", "Nothing"]] }),
    pick("floorMode", { label: "How the floor is kept", options: [["renormalise", "Renormalise"], ["project", "Project"]] }),
  ]);
  byId("lab-stream").append(...["ratio", "noise", "drift", "bursts"].map((key) => controls.get(key).element),
    h("button", { type: "button", class: "button", onclick: () => {
      state.seed += 1;
      refresh();
    } }, "Draw other noise"));
  byId("lab-settings").append(choices.get("smoothing").element, controls.get("decay").element,
    controls.get("warmupSteps").element, controls.get("floorAt").element, choices.get("floorMode").element);
  byId("lab-presets").append(presets("Presets of the stabiliser lab", SCENES.map(([name, scene]) => [name, () => {
    Object.assign(state, scene);
    for (const [key, one] of [...controls, ...choices]) one.set(state[key]);
    refresh();
  }])));

  const shade = () => stretches;
  const hover = (i) => byId("lab-readout").replaceChildren(i === null || !rows[i] ? "Move over a plot to read a step." : readout(rows[i], i));
  const both = [{ name: "task 1", token: "--task-1" }, { name: "task 2", token: "--task-2" }];
  const shared = { shade, hover, sync: "lab" };
  const plots = {
    norms: timeplot(byId("lab-norms"), { ...shared, series: both, log: true, height: 150 }),
    weights: timeplot(byId("lab-weights"), { ...shared, series: both.map((one) => ({ ...one, width: 2 })), height: 190, range: [0, 1] }),
    imbalance: timeplot(byId("lab-imbalance"), {
      ...shared, log: true, height: 170,
      series: [{ name: "uniform weights", token: "--line-strong", width: 1 }, { name: "these weights", token: "--task-5", width: 1.8 }],
    }),
    response: timeplot(byId("lab-response"), {
      series: [{ name: "part of the way", token: "--task-3", width: 2.2 }], height: 170, range: [0, 1.05],
      marks: () => [{ y: 1 - Math.exp(-1) }, ...(reached ? [{ x: reached }] : [])],
    }),
  };

  const refresh = onceAFrame(() => {
    const norms = stream(state);
    rows = run(norms, state);
    stretches = stretchesOf(rows);
    const facts = summary(rows);
    const steps = rows.map((_, i) => i + 1);
    const column = (f) => rows.map(f);
    plots.norms.show([steps, column((r) => r.norms[0]), column((r) => r.norms[1])], "The norms of both tasks over 2000 steps, logarithmic.");
    plots.weights.show([steps, column((r) => r.weights[0]), column((r) => r.weights[1])], `The weights of both tasks over 2000 steps; ${saturationText(facts)}`);
    plots.imbalance.show([steps, column((r) => ratioOf(r.norms)), column((r) => r.imbalance)],
      `The imbalance over 2000 steps: ${timesText(facts.remaining)} in the median of the last 500, ${timesText(facts.before)} under uniform weights.`);
    const window = state.smoothing === "none" ? 20 : Math.max(20, Math.min(6000, Math.ceil(5 / (1 - state.decay))));
    const answer = stepResponse(norms0(state), state, { steps: window });
    reached = answer.reached;
    plots.response.show([answer.path.map((_, i) => i + 1), answer.path], responseText(state, answer, facts));
    hover(null);
    report(state, facts, answer);
  });
  document.addEventListener("themechange", refresh);
  refresh();
}

const norms0 = (state) => [Math.sqrt(state.ratio), 1 / Math.sqrt(state.ratio)];
const ratioOf = ([a, b]) => Math.max(a / b, b / a);

/** The stretches of saturated steps, as [first, last] step numbers from 1 on. */
export function stretchesOf(rows) {
  const found = [];
  rows.forEach((row, i) => {
    if (!row.saturated) return;
    if (found.length && found.at(-1)[1] === i) found.at(-1)[1] = i + 1;
    else found.push([i + 1, i + 1]);
  });
  return found;
}

function saturationText({ saturated, firstSaturated }) {
  if (!saturated) return "never saturated.";
  return `saturated in ${(100 * saturated).toFixed(1)} % of the steps, first in step ${firstSaturated}.`;
}

function responseText(state, { reached }) {
  if (!reached) return "The weights do not get 63 % of the way: the floor holds them.";
  return `The weights are 63 % of the way after ${reached} ${reached === 1 ? "step" : "steps"}.`;
}

function readout({ norms, weights, imbalance, saturated }, i) {
  return `step ${i + 1}: norms ${norms.map(normText).join(" / ")}, weights ${weights.map(weightText).join(" / ")}, imbalance ${timesText(imbalance)}${saturated ? ", saturated" : ""}`;
}

function report(state, facts, answer) {
  say(byId("lab-fact-saturated"), `${(100 * facts.saturated).toFixed(1)} %`);
  say(byId("lab-fact-first"), facts.firstSaturated ? `first in step ${facts.firstSaturated}` : "no step");
  say(byId("lab-fact-remaining"), timesText(facts.remaining));
  say(byId("lab-fact-before"), `${timesText(facts.before)} under uniform weights`);
  say(byId("lab-fact-reached"), answer.reached ? `${answer.reached} ${answer.reached === 1 ? "step" : "steps"}` : "never");
  const smooths = state.smoothing !== "none" && state.decay > 0;
  say(byId("lab-fact-tau"), smooths ? `time constant −1/ln d = ${(-1 / Math.log(state.decay)).toFixed(1)} steps` : "nothing is smoothed");
  say(byId("lab-fact-jump"), `${(100 * facts.jump).toFixed(facts.jump < 0.1 ? 2 : 0)} %`);
  say(byId("lab-verdict"), advice(state, facts));
}

function advice(state, facts) {
  const m = state.floorAt;
  if (facts.saturated > 0.5) {
    const cap = state.floorMode === "project" ? (1 - m) / m : 1 / m;
    const stuck = Math.min(...facts.last);
    return `The floor binds: a weight stands at ${weightText(stuck)} and the method has become a fixed weighting. A floor of ${m} can take at most a factor of ${timesText(cap, 1)} from the imbalance.`;
  }
  if (facts.jump > 0.1) return `The weights are noisy: they jump by ${(100 * facts.jump).toFixed(0)} % from one step to the next. Smooth the norms (decay 0.99).`;
  const own = state.noise > 0 ? " What remains is the noise of single batches, which no weights should follow." : "";
  if (facts.remaining > 5 && state.smoothing === "weights") return "Smoothed weights stay on the safe side of uniform: averaging weights is not averaging norms, and the smaller weight ends up too large.";
  return `The weights follow the norms and let the noise pass by.${own}`;
}
