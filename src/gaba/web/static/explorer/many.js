// Two to twelve tasks: all rules side by side, where the paper's formula stops equalising, and what
// correlations do to shares.

import { axes, decadeTicks, path, scaleOf } from "./axes.js";
import { columns } from "./bars.js";
import { LOG, presets, slider } from "./controls.js";
import {
  byId, h, isBalanced, normText, onWidth, onceAFrame, s, say, sub, swap, taskColour, timesText, weightText,
} from "./dom.js";
import { correlations } from "./correlations.js";
import * as rules from "./rules.js";

const MOST = 12;
const FIRST = [100, 1, 0.01, 30, 0.3, 0.05, 10, 3, 0.1, 0.02, 50, 0.5];
export const RULES = [
  { key: "uniform", title: "uniform", says: "weights equal", of: rules.uniform },
  { key: "sqrt-inverse", title: "sqrt-inverse", says: "halfway, in logarithms", of: (g) => rules.inverseNorm(g, 0.5) },
  { key: "log-inverse", title: "log-inverse", says: "softer; nothing exactly equal", of: rules.logInverse },
  { key: "rank-inverse", title: "rank-inverse", says: "sees the order only", of: rules.rankInverse },
  { key: "gaba", title: "gaba", says: "the paper's; equal for two tasks", of: rules.gaba },
  { key: "inverse", title: "inverse", says: "contributions equal, any number of tasks", of: rules.inverseNorm },
  { key: "equal-share", title: "equal-share", says: "shares of the update equal", ofGramian: rules.equalShare },
  { key: "equal-projection", title: "equal-projection", says: "progress along each task equal", ofGramian: rules.equalProjection },
];
export const CURVES = [
  ["uniform", "var(--ink-2)", "6 5"], ["sqrt-inverse", "var(--task-4)", null],
  ["gaba", "var(--task-2)", null], ["inverse", "var(--task-3)", null],
];

const ANGLED = " The gradients are not independent (cosines below), so that equal-share and equal-projection differ from inverse.";

/** The weights of a rule for these norms and cosines. */
export function weigh(rule, norms, cosines) {
  return rule.ofGramian ? rule.ofGramian(rules.gramianOf(norms, cosines)) : rule.of(norms);
}

export function many() {
  const state = { K: 3, norms: [...FIRST] };
  const active = () => state.norms.slice(0, state.K);
  let width = 0;

  const angles = correlations(() => state.K, () => refresh());
  const rows = state.norms.map((value, k) =>
    slider({
      id: `many-g${k + 1}`, label: `Norm of task ${k + 1}, g${sub(k + 1)}`, min: -4, max: 4, scale: LOG, value,
      format: normText, exact: true, colour: taskColour(k),
      change: (now) => {
        state.norms[k] = now;
        refresh();
      },
    }),
  );
  const count = slider({
    id: "many-count", label: "Number of tasks, K", min: 2, max: MOST, step: 1, value: state.K,
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
      const pull = rules.contributions(weights, norms);
      return {
        rule, weights, pull, imbalance: rules.imbalance(weights, norms),
        shares: rules.shares(weights, rules.gramianOf(norms, cosines)),
      };
    });
    swap(byId("many-rules"), results.map(card));
    const angled = state.K > 2 && cosines.some((row, k) => row.some((cosine, l) => k !== l && cosine !== 0));
    say(byId("many-verdict"), verdict(state.K, results) + (angled ? ANGLED : ""));
    angles.show(results.find((r) => r.rule.key === "inverse"), results.find((r) => r.rule.key === "equal-share"));
    if (width) byId("many-plot").replaceChildren(growth(state.norms, state.K, width));
  });
  onWidth(byId("many-plot"), (now) => {
    width = now;
    refresh();
  });
  refresh();
}

/** Parts of the whole: what a task has of the sum of all contributions. */
export function parts(values) {
  const total = values.reduce((a, b) => a + b, 0);
  return values.map((value) => value / total);
}

/** The largest share over the smallest, in words where one is not positive. */
export function sharesText(shares) {
  const least = Math.min(...shares);
  if (shares.some(Number.isNaN)) return "no update";
  return least <= 0 ? "below 0" : timesText(Math.max(...shares) / least);
}

function card({ rule, weights, pull, imbalance, shares }) {
  const good = isBalanced(imbalance);
  const sharesGood = Math.min(...shares) > 0 && isBalanced(Math.max(...shares) / Math.min(...shares));
  const part = parts(pull);
  return h(
    "article",
    { class: `card rule ${good ? "good" : ""}`, "data-rule": rule.key },
    h("div", { class: "rule-head" }, h("h4", {}, rule.title)),
    h("p", { class: "small muted" }, rule.says),
    columns(part, { label: `Parts of the summed contributions under ${rule.title}`, text: (v) => `${(100 * v).toFixed(1)} %` }),
    h("dl", { class: "pair badges" },
      h("dt", {}, "imbalance"), h("dd", {}, h("span", { class: `badge ${good ? "good" : "bad"}` }, `${good ? "✓ " : ""}${timesText(imbalance)}`)),
      h("dt", {}, "shares"), h("dd", {}, h("span", { class: `badge ${sharesGood ? "good" : "bad"}` }, `${sharesGood ? "✓ " : ""}${sharesText(shares)}`))),
    h("details", {}, h("summary", { "aria-label": `Figures of ${rule.title}` }, "Figures"),
      h("div", { class: "table-scroll" },
        h("table", {},
          h("thead", {}, h("tr", {}, ["task", "weight", "contribution", "share"].map((t, i) => h("th", { scope: "col", class: i ? "num" : null }, t)))),
          h("tbody", {}, weights.map((w, k) =>
            h("tr", {}, h("td", {}, String(k + 1)), h("td", { class: "num" }, weightText(w)),
              h("td", { class: "num" }, weightText(pull[k])), h("td", { class: "num" }, shares[k].toFixed(3)))))))),
  );
}

function verdict(K, results) {
  const paper = results.find((r) => r.rule.key === "gaba").imbalance;
  if (K === 2) return "With two tasks gaba, inverse, equal-share and equal-projection are one and the same rule, whatever the cosine.";
  if (isBalanced(paper)) return `With ${K} tasks of equal norms there is nothing to balance; the paper's formula is no worse than the others here.`;
  return `With ${K} tasks the paper's formula leaves an imbalance of ${timesText(paper)}: it only keeps each weight below 1/(K−1) = ${weightText(1 / (K - 1))}. The inverse rule keeps 1.00×.`;
}

/** Imbalance of four rules when only the first 2, 3, … tasks are there. */
function growth(norms, K, width) {
  const height = Math.round(Math.min(320, Math.max(240, width * 0.5)));
  const box = [58, 30, width - 16, height - 48];
  const counts = Array.from({ length: MOST - 1 }, (_, i) => i + 2);
  const series = CURVES.map(([key, colour, dash]) => {
    const rule = RULES.find((one) => one.key === key);
    return { key, colour, dash, values: counts.map((n) => rules.imbalance(rule.of(norms.slice(0, n)), norms.slice(0, n))) };
  });
  const high = Math.max(10, ...series.flatMap((one) => one.values)) * 1.4;
  const x = scaleOf([2, MOST], [box[0] + 8, box[2] - 8]);
  const y = scaleOf([0.8, high], [box[3], box[1]], Math.log10);
  return s(
    "svg",
    { width, height, viewBox: `0 0 ${width} ${height}`, role: "img",
      "aria-label": `Imbalance of four rules with the first 2 to ${MOST} tasks. ${series.map((one) => `${one.key}: ${timesText(one.values[0])} with two tasks, ${timesText(one.values[K - 2])} with ${K}`).join("; ")}.` },
    axes({ x, y, xTicks: width < 380 ? counts.filter((n) => n % 2 === 0) : counts, yTicks: decadeTicks(1, high), box, xLabel: "tasks", yLabel: "imbalance" }),
    s("line", { class: "now", x1: x(K), x2: x(K), y1: box[1], y2: box[3] }),
    series.map((one) => s("g", {},
      s("path", { class: "curve", d: path(one.values.map((v, i) => [x(counts[i]), y(v)])), "stroke-dasharray": one.dash, style: { stroke: one.colour } }),
      s("circle", { class: "dot", cx: x(K), cy: y(one.values[K - 2]), r: 5, style: { fill: one.colour } }))),
  );
}
