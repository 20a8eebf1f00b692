// Two to twelve tasks: all rules side by side, where the paper's formula stops equalising, and what
// correlations do to shares.

import { byId, h, onWidth, onceAFrame, s, say, swap, taskColour } from "../dom.js";
import { decadeTicks, multiplierText, percent, sub, timesText, typedText, weightText } from "../numbers.js";
import { axes, path, scaleOf } from "./axes.js";
import { columns } from "./bars.js";
import { LOG, presets, slider } from "./controls.js";
import { MOST_TASKS, correlations } from "./correlations.js";
import { multipliers } from "./multipliers.js";
import {
  contributions, equalProjection, equalShare, gramianOf, imbalance, inverseNorm, isBalanced, logInverse, paper,
  proportions, rankInverse, shares, uniform,
} from "./rules.js";

const FIRST = [100, 1, 0.01, 30, 0.3, 0.05, 10, 3, 0.1, 0.02, 50, 0.5];
const RULES = [
  { key: "uniform", title: "uniform", says: "weights equal", of: uniform },
  { key: "sqrt-inverse", title: "sqrt-inverse", says: "halfway, in logarithms", of: (g) => inverseNorm(g, 0.5) },
  { key: "log-inverse", title: "log-inverse", says: "softer; nothing exactly equal", of: logInverse },
  { key: "rank-inverse", title: "rank-inverse", says: "sees the order only", of: rankInverse },
  { key: "paper", title: "paper", says: "equal for two tasks only", of: paper },
  { key: "inverse", title: "inverse", says: "contributions equal, any number of tasks", of: inverseNorm },
  { key: "equal-share", title: "equal-share", says: "shares of the update equal", ofGramian: equalShare },
  { key: "equal-projection", title: "equal-projection", says: "progress along each task equal", ofGramian: equalProjection },
];
const CURVES = [
  ["uniform", "var(--ink-2)", "6 5"], ["sqrt-inverse", "var(--task-4)", null],
  ["paper", "var(--task-2)", null], ["inverse", "var(--task-3)", null],
];

const ANGLED = " The gradients are not independent (see the cosines below), so equal-share and equal-projection differ from inverse.";

/** The weights of a rule for these norms and cosines. */
function weigh(rule, norms, cosines) {
  return rule.ofGramian ? rule.ofGramian(gramianOf(norms, cosines)) : rule.of(norms);
}

export function many() {
  const state = { K: 3, norms: [...FIRST] };
  const active = () => state.norms.slice(0, state.K);
  let width = 0;

  const angles = correlations(() => state.K, () => refresh());
  const rows = state.norms.map((value, k) =>
    slider({
      id: `many-g${k + 1}`, label: `Norm of task ${k + 1}, g${sub(k + 1)}`, min: -4, max: 4, scale: LOG, value,
      format: typedText, exact: true, colour: taskColour(k),
      change: (now) => {
        state.norms[k] = now;
        refresh();
      },
    }),
  );
  const count = slider({
    id: "many-count", label: "Number of tasks, K", min: 2, max: MOST_TASKS, step: 1, value: state.K,
    change: (K) => setCount(K),
  });
  byId("many-count-mount").append(count.element);
  byId("many-norms").append(...rows.map((row) => row.element));

  function setCount(K) {
    state.K = K;
    angles.resize();
    refresh();
  }
  const set = (norms) => {
    norms.forEach((g, k) => {
      state.norms[k] = g;
      rows[k].set(g);
    });
    count.set(norms.length);
    setCount(norms.length);
  };
  byId("many-presets").append(
    presets("Presets for many tasks", [
      ["100, 1, 0.01", () => set([100, 1, 0.01])],
      ["One loud task of six", () => set([500, 1, 1, 1, 1, 1])],
      ["A ladder of eight", () => set([1000, 300, 100, 30, 10, 3, 1, 0.3])],
      ["Two tasks", () => set([5, 0.01])],
      ["Equal norms", () => set(active().map(() => 1))],
    ]),
  );

  const refresh = onceAFrame(() => {
    rows.forEach((row, k) => {
      row.element.hidden = k >= state.K;
    });
    const norms = active();
    const cosines = angles.matrix();
    const results = RULES.map((rule) => {
      const weights = weigh(rule, norms, cosines);
      return {
        rule, weights, multipliers: multipliers("sum", weights, norms), pull: contributions(weights, norms),
        imbalance: imbalance(weights, norms), shares: shares(weights, gramianOf(norms, cosines)),
      };
    });
    swap(byId("many-rules"), results.map(ruleCard));
    const angled = state.K > 2 && cosines.some((row, k) => row.some((cosine, l) => k !== l && cosine !== 0));
    say(byId("many-verdict"), manyVerdict(state.K, results) + (angled ? ANGLED : ""));
    angles.show(results.find((r) => r.rule.key === "inverse"), results.find((r) => r.rule.key === "equal-share"));
    if (width) byId("many-plot").replaceChildren(growth(state.norms, state.K, width));
  });
  onWidth(byId("many-plot"), (now) => {
    width = now;
    refresh();
  });
  refresh();
}

/** The largest share over the smallest, in words where one is not positive. */
function sharesText(share) {
  const least = Math.min(...share);
  if (share.some(Number.isNaN)) return "no update";
  return least <= 0 ? "below 0" : timesText(Math.max(...share) / least);
}

function ruleCard({ rule, weights, multipliers: m, pull, imbalance: ratio, shares: share }) {
  const good = isBalanced(ratio);
  const sharesGood = Math.min(...share) > 0 && isBalanced(Math.max(...share) / Math.min(...share));
  return h(
    "article",
    { class: `card rule ${good ? "good" : ""}`, "data-rule": rule.key },
    h("div", { class: "rule-head" }, h("h4", {}, rule.title)),
    h("p", { class: "small muted" }, rule.says),
    columns(proportions(pull), { label: `Parts of the summed contributions under ${rule.title}`, text: percent }),
    h("dl", { class: "pair badges" },
      h("dt", {}, "imbalance"), h("dd", {}, h("span", { class: `badge ${good ? "good" : "bad"}` }, `${good ? "✓ " : ""}${timesText(ratio)}`)),
      h("dt", {}, "shares"), h("dd", {}, h("span", { class: `badge ${sharesGood ? "good" : "bad"}` }, `${sharesGood ? "✓ " : ""}${sharesText(share)}`))),
    h("details", {}, h("summary", { "aria-label": `Figures of ${rule.title}` }, "Figures"),
      h("div", { class: "table-scroll" },
        h("table", {},
          h("thead", {}, h("tr", {}, ["task", "multiplier", "weight", "contribution", "share"].map((t, i) => h("th", { scope: "col", class: i ? "num" : null }, t)))),
          h("tbody", {}, weights.map((w, k) =>
            h("tr", {}, h("td", {}, String(k + 1)), h("td", { class: "num" }, multiplierText(m[k])), h("td", { class: "num" }, weightText(w)),
              h("td", { class: "num" }, weightText(pull[k])), h("td", { class: "num" }, share[k].toFixed(3)))))))),
  );
}

function manyVerdict(K, results) {
  const left = results.find((r) => r.rule.key === "paper").imbalance;
  if (K === 2) return "With two tasks paper, inverse, equal-share and equal-projection are one and the same rule, whatever the cosine.";
  if (isBalanced(left)) return `With ${K} tasks of equal norms there is nothing to balance. The paper's formula is as good as the others here.`;
  return `With ${K} tasks the paper's formula leaves an imbalance of ${timesText(left)}: it gives no task more than 1/(K−1) = ${weightText(1 / (K - 1))}. The inverse rule keeps 1.00×.`;
}

/** Imbalance of four rules when only the first 2, 3, … tasks are there. */
function growth(norms, K, width) {
  const height = Math.round(Math.min(320, Math.max(240, width * 0.5)));
  const box = [58, 30, width - 16, height - 48];
  const counts = Array.from({ length: MOST_TASKS - 1 }, (_, i) => i + 2);
  const series = CURVES.map(([key, colour, dash]) => {
    const rule = RULES.find((one) => one.key === key);
    return { key, colour, dash, values: counts.map((n) => imbalance(rule.of(norms.slice(0, n)), norms.slice(0, n))) };
  });
  const high = Math.max(10, ...series.flatMap((one) => one.values)) * 1.4;
  const x = scaleOf([2, MOST_TASKS], [box[0] + 8, box[2] - 8]);
  const y = scaleOf([0.8, high], [box[3], box[1]], Math.log10);
  return s(
    "svg",
    { width, height, viewBox: `0 0 ${width} ${height}`, role: "img",
      "aria-label": `Imbalance of four rules with the first 2 to ${MOST_TASKS} tasks. ${series.map((one) => `${one.key}: ${timesText(one.values[0])} with two tasks, ${timesText(one.values[K - 2])} with ${K}`).join("; ")}.` },
    axes({ x, y, xTicks: width < 380 ? counts.filter((n) => n % 2 === 0) : counts, yTicks: decadeTicks(1, high), box, xLabel: "tasks", yLabel: "imbalance" }),
    s("line", { class: "now", x1: x(K), x2: x(K), y1: box[1], y2: box[3] }),
    series.map((one) => s("g", {},
      s("path", { class: "curve", d: path(one.values.map((v, i) => [x(counts[i]), y(v)])), "stroke-dasharray": one.dash, style: { stroke: one.colour } }),
      s("circle", { class: "dot", cx: x(K), cy: y(one.values[K - 2]), r: 5, style: { fill: one.colour } }))),
  );
}
