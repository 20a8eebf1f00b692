// Equal contribution for two tasks: the rising and the falling line, and where they cross.

import { axes, path, roundTicks, scaleOf } from "./axes.js";
import { bars } from "./bars.js";
import { LOG, ODDS, choice, presets, slider } from "./controls.js";
import { byId, h, onWidth, onceAFrame, s, say, swap, taskColour } from "../dom.js";
import { decadeTicks, multiplierText, pullText, sub, tickText, timesText, typedText, weightText } from "../numbers.js";
import { multipliers } from "./multipliers.js";
import { contributions, imbalance, inverseNorm, isBalanced, uniform } from "./rules.js";

const NAMES = ["task 1", "task 2"];
const PAIR_RULES = [
  { key: "uniform", title: "uniform", formula: "λ = ½", weigh: uniform },
  { key: "sqrt-inverse", title: "sqrt-inverse", formula: "λₖ ∝ 1/√gₖ", weigh: (g) => inverseNorm(g, 0.5) },
  { key: "inverse", title: "inverse", formula: "λₖ ∝ 1/gₖ", weigh: inverseNorm },
];
const LOG_TICKS = [1e-8, 1e-6, 1e-5, 1e-4, 1e-3, 0.01, 0.1, 0.5, 0.9, 0.99, 0.999, 0.9999, 0.99999, 0.999999];

export function two() {
  const state = { norms: [5, 0.01], weight: 0.5, axes: "auto" };
  const plot = byId("two-plot");
  let width = 0;
  let x = null; // the scale of the last drawing, for the pointer

  const refresh = onceAFrame(() => {
    draw();
    const weights = [state.weight, 1 - state.weight];
    const pull = contributions(weights, state.norms);
    byId("two-bars").replaceChildren(
      bars(pull, { label: "Contributions", names: NAMES, text: pullText }),
    );
    const ratio = imbalance(weights, state.norms);
    const badge = byId("two-imbalance");
    say(badge, isBalanced(ratio) ? `balanced, ${timesText(ratio)}` : `imbalance ${timesText(ratio)}`);
    badge.className = `badge ${isBalanced(ratio) ? "good" : "bad"}`;
    say(byId("two-verdict"), pairVerdict(state.norms, pull, ratio));
    swap(byId("two-cards"), PAIR_RULES.map((rule) => pairCard(rule, state.norms, setWeight)));
  });

  const setWeight = (weight) => {
    state.weight = weight;
    lambda.set(weight);
    refresh();
  };
  const setNorms = (norms, weight = 0.5) => {
    state.norms = [...norms];
    sliders.forEach((one, k) => one.set(norms[k]));
    setWeight(weight);
  };

  const sliders = [0, 1].map((k) =>
    slider({
      id: `two-g${k + 1}`, label: `Norm of task ${k + 1}, g${sub(k + 1)}`, min: -4, max: 4, scale: LOG,
      value: state.norms[k], format: typedText, exact: true, colour: taskColour(k),
      change: (value) => {
        state.norms[k] = value;
        refresh();
      },
    }),
  );
  const lambda = slider({
    id: "two-weight", label: "Weight of task 1, λ", min: -8.5, max: 8.5, scale: ODDS,
    value: state.weight, format: oddsText, exact: true,
    change: (value) => {
      state.weight = value;
      refresh();
    },
  });
  byId("two-norms").append(...sliders.map((one) => one.element));
  byId("two-lambda").append(
    lambda.element,
    h("button", { type: "button", class: "button", onclick: () => setWeight(inverseNorm(state.norms)[0]) },
      "Go to the crossing"),
  );
  byId("two-presets").append(
    presets("Presets for two tasks", [
      ["The paper's: 5 and 0.01", () => setNorms([5, 0.01])],
      ["Equal norms", () => setNorms([1, 1])],
      ["Mild: 3 and 1", () => setNorms([3, 1])],
      ["Extreme: 10⁴ and 10⁻⁴", () => setNorms([1e4, 1e-4])],
    ]),
  );
  byId("two-axes").append(
    choice({
      name: "two-axes-kind", label: "Axes", value: "auto", hideLabel: true,
      options: [["auto", "Auto axes"], ["linear", "Linear"], ["log", "Logarithmic"]],
      change: (kind) => {
        state.axes = kind;
        refresh();
      },
    }).element,
  );

  const follow = (event) => {
    if (!x || (event.type === "pointermove" && event.buttons !== 1)) return;
    const at = x.share(event.clientX - plot.getBoundingClientRect().left);
    const weight = x.log ? ODDS.at(Math.min(8.5, Math.max(-8.5, at))) : Math.min(0.999, Math.max(0.001, at));
    setWeight(weight);
  };
  plot.addEventListener("pointerdown", follow);
  plot.addEventListener("pointermove", follow);

  function draw() {
    if (!width) return;
    const made = picture(state, width);
    x = made.x;
    plot.replaceChildren(made.svg);
  }
  onWidth(plot, (now) => {
    width = now;
    refresh();
  });
  refresh();
}

/** The plot of both contributions against λ, as an SVG of that width, and its x scale. */
function picture({ norms, weight, axes: kind }, width) {
  const [g1, g2] = norms;
  const crossing = inverseNorm(norms)[0];
  const level = crossing * g1;
  const log = kind === "log" || (kind === "auto" && Math.max(g1 / g2, g2 / g1) > 20);
  const height = Math.round(Math.min(440, Math.max(280, width * 0.56)));
  const box = [58, 30, width - 16, height - 48];
  const [left, top, right, bottom] = box;

  const reach = Math.max(1.6, Math.abs(ODDS.from(crossing)) + 1, Math.abs(ODDS.from(weight)) + 0.3);
  const ends = log ? [ODDS.at(-reach), ODDS.at(reach)] : [0, 1];
  const x = scaleOf(ends, [left, right], log ? ODDS.from : undefined);
  x.log = log;
  const high = Math.max(g1, g2) * (log ? 2 : 1.05);
  const y = log
    ? scaleOf([Math.min(level / 12, Math.min(g1 * weight, g2 * (1 - weight)) / 2), high], [bottom, top], Math.log10)
    : scaleOf([0, high], [bottom, top]);
  const xTicks = log ? fewer(LOG_TICKS.filter((v) => v > ends[0] && v < ends[1]), x, 46) : [0, 0.25, 0.5, 0.75, 1];
  const yTicks = log ? decadeTicks(10 ** y.share(bottom), high) : roundTicks(high);

  const samples = Array.from({ length: 121 }, (_, i) => {
    const at = ends[0] + (ends[1] - ends[0]) * (i / 120);
    return log ? ODDS.at(-reach + (2 * reach * i) / 120) : at;
  });
  const lines = [(l) => l * g1, (l) => (1 - l) * g2];
  const [px, py] = [x(crossing), y(level)];
  const narrow = width < 480;
  const text = [`equal at λ = ${weightText(crossing)}`, `${pullText(level)} each`];
  // Below the crossing no line passes: straight lines leave a wedge, bent ones the side of the middle.
  const side = px > (left + right) / 2 ? -1 : 1;
  const nearEdge = px - left < 80 || right - px < 80;
  const callout = log || nearEdge
    ? { x: px + 14 * side, "text-anchor": side < 0 ? "end" : "start" }
    : { x: px, "text-anchor": "middle" };
  const under = py + (narrow ? 38 : 50) < bottom ? py + (log && !narrow ? 24 : 34) : py - 34;
  const svg = s(
    "svg",
    {
      width, height, viewBox: `0 0 ${width} ${height}`, role: "img",
      "aria-label": `Contributions against the weight of task 1. The rising line is task 1, the falling line task 2; ${text.join(", ")}.`,
    },
    s("clipPath", { id: "two-clip" }, s("rect", { x: left, y: top, width: right - left, height: bottom - top })),
    axes({
      x, y, xTicks, yTicks, box, xLabel: "weight of task 1, λ", yLabel: "contribution",
      xText: (value) => (value < 1e-3 || value === 0 ? tickText(value) : String(value)),
    }),
    s(
      "g",
      { "clip-path": "url(#two-clip)" },
      s("line", { class: "now", x1: x(weight), x2: x(weight), y1: top, y2: bottom }),
      s("line", { class: "level", x1: left, x2: right, y1: py, y2: py }),
      lines.map((line, k) =>
        s("path", {
          class: "curve", d: path(samples.map((l) => [x(l), Math.min(y(Math.max(line(l), 1e-300)), bottom + 40)])),
          style: { stroke: taskColour(k) },
        }),
      ),
    ),
    lines.map((line, k) =>
      s("circle", { class: "dot", cx: x(weight), cy: y(line(weight)), r: 6, style: { fill: taskColour(k) } }),
    ),
    s("circle", { class: "crossing", cx: px, cy: py, r: 8 }),
    text.slice(narrow ? 1 : 0).map((line, i) => s("text", { class: "callout", ...callout, y: under + 17 * i }, line)),
    ["λ·g₁", "(1−λ)·g₂"].map((name, k) => {
      const at = samples[k === 0 ? 112 : 8];
      const clear = Math.abs(x(at) - px) > (narrow ? 60 : 34);
      return clear ? curveLabel(name, x(at), y(lines[k](at)), box) : null;
    }),
  );
  return { svg, x };
}

function curveLabel(text, x, y, [left, top, right]) {
  const half = 4 * text.length;
  const within = Math.min(right - half, Math.max(left + half, x));
  return s("text", { class: "curve-name", x: within, y: Math.max(y - 10, top + 12), "text-anchor": "middle" }, text);
}

/** As many of the ticks as fit with `least` pixels between them, always with the one at ½. */
function fewer(ticks, x, least) {
  const kept = [0.5];
  const order = [...ticks].sort((a, b) => Math.abs(x(a) - x(0.5)) - Math.abs(x(b) - x(0.5)));
  for (const tick of order) {
    if (kept.every((other) => Math.abs(x(tick) - x(other)) >= least)) kept.push(tick);
  }
  return kept;
}

/** A weight with four figures of whichever of λ and 1 − λ is smaller. */
function oddsText(weight) {
  const decimals = Math.ceil(-Math.log10(Math.min(weight, 1 - weight))) + 3;
  return String(Number(weight.toFixed(Math.min(13, decimals))));
}

function pairVerdict(norms, pull, ratio) {
  if (norms[0] === norms[1] && isBalanced(ratio)) return "Equal norms: every rule gives ½ and ½. There is nothing to balance.";
  if (isBalanced(ratio)) return `Both tasks move the shared parameters by ${pullText(pull[0])}. Neither drowns out the other.`;
  const strong = pull[0] > pull[1] ? 1 : 2;
  const times = ratio < 1e5 ? Number(ratio.toPrecision(3)) : timesText(ratio).replace("×", "");
  return `Task ${strong} pulls ${times} times as hard as task ${3 - strong}: the shared parameters learn for task ${strong}.`;
}

function pairCard({ key, title, formula, weigh }, norms, use) {
  const weights = weigh(norms);
  const pull = contributions(weights, norms);
  const ratio = imbalance(weights, norms);
  const good = isBalanced(ratio);
  return h(
    "article",
    { class: `card rule ${good ? "good" : ""}`, "data-rule": key },
    h("div", { class: "rule-head" }, h("h3", {}, title), h("code", {}, formula)),
    h("p", { class: "rule-ratio" },
      h("span", { class: `badge ${good ? "good" : "bad"}` }, good ? `✓ balanced ${timesText(ratio)}` : timesText(ratio))),
    bars(pull, { label: `Contributions under ${title}`, names: NAMES, text: pullText }),
    h("dl", { class: "pair" },
      h("dt", {}, "multipliers"), h("dd", { class: "num" }, multipliers("sum", weights, norms).map(multiplierText).join(" / ")),
      h("dt", {}, "weights"), h("dd", { class: "num" }, weights.map(weightText).join(" / ")),
      h("dt", {}, "contributions"), h("dd", { class: "num" }, pull.map(pullText).join(" / "))),
    h("button", { type: "button", class: "button", "aria-label": `Set λ to the weight of ${title}`, onclick: () => use(weights[0]) }, "Set λ to this"),
  );
}
