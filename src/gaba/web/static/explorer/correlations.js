// The cosines between the gradients, and what they do: contributions against shares.

import { byId, h, say, swap } from "../dom.js";
import { columns } from "./bars.js";
import { presets, select, slider } from "./controls.js";
import { feasible, feasibleRange, proportions } from "./rules.js";

export const MOST_TASKS = 12;
const cosineText = (value) => value.toFixed(2).replace("-", "−");
const partText = (value) => value.toFixed(3).replace("-", "−");

/** The panel of correlations; `count()` is K, `change()` is called when a cosine has changed. */
export function correlations(count, change) {
  const cosines = Array.from({ length: MOST_TASKS }, (_, k) => Array.from({ length: MOST_TASKS }, (_v, l) => (k === l ? 1 : 0)));
  let pair = [1, 2];
  setPair(-0.9);

  const value = slider({
    id: "cos-value", label: "Cosine of tasks 2 and 3", min: -1, max: 1, value: -0.9, format: cosineText,
    change: (wanted) => {
      const [low, high] = feasibleRange(matrix(), ...pair);
      const allowed = Math.min(high, Math.max(low, wanted));
      setPair(allowed);
      if (allowed !== wanted) value.set(allowed);
      say(note, allowed === wanted ? "" : `No gradients have that cosine: with the others as they are, it lies between ${cosineText(low)} and ${cosineText(high)}.`);
      paint();
      change();
    },
  });
  const options = () => Array.from({ length: count() }, (_, k) => [String(k), `task ${k + 1}`]);
  const [first, second] = [0, 1].map((side) =>
    select({
      id: `cos-${side ? "b" : "a"}`, label: side ? "and task" : "Task", options: options(), value: String(pair[side]),
      change: (key) => {
        const picked = Number(key);
        const other = pair[1 - side] === picked ? pair[side] : pair[1 - side];
        choose(side ? [other, picked] : [picked, other]);
      },
    }),
  );
  const note = h("p", { class: "small muted", role: "status" });
  const grid = h("div", { class: "cosines", role: "group", "aria-label": "Cosines between the tasks; choose a pair" });
  byId("cos-controls").append(h("div", { class: "pick" }, first.element, second.element), value.element, note, grid);
  byId("cos-presets").append(
    presets("Presets for correlations", [
      ["Independent", () => fillWith(() => 0)],
      ["Tasks 2 and 3 oppose", () => fillWith((k, l) => (k === 1 && l === 2 ? -0.9 : 0))],
      ["All agree", () => fillWith(() => 0.5)],
      ["Two camps", () => fillWith((k, l) => ((k + l) % 2 ? -0.4 : 0.6))],
    ]),
  );

  function matrix() {
    return cosines.slice(0, count()).map((row) => row.slice(0, count()));
  }
  function setPair(cosine) {
    cosines[pair[0]][pair[1]] = cosine;
    cosines[pair[1]][pair[0]] = cosine;
  }
  function choose(next) {
    pair = next[0] === next[1] ? [0, 1] : next;
    first.set(String(pair[0]));
    second.set(String(pair[1]));
    const [a, b] = [...pair].sort((m, n) => m - n);
    value.element.querySelector("label").textContent = `Cosine of tasks ${a + 1} and ${b + 1}`;
    value.set(cosines[a][b]);
    say(note, "");
    paint();
  }
  function fillWith(cosineOf) {
    for (let k = 0; k < MOST_TASKS; k += 1) {
      for (let l = k + 1; l < MOST_TASKS; l += 1) {
        cosines[k][l] = cosineOf(k, l);
        cosines[l][k] = cosines[k][l];
      }
    }
    choose(pair);
    change();
  }
  function paint() {
    const K = count();
    grid.style.setProperty("--tasks", K);
    const cells = [];
    for (let k = 0; k < K; k += 1) {
      for (let l = 0; l < K; l += 1) cells.push(k < l ? cell(k, l) : blank(k, l));
    }
    swap(grid, cells);
  }
  function cell(k, l) {
    const cosine = cosines[k][l];
    const chosen = Math.min(...pair) === k && Math.max(...pair) === l;
    const strength = Math.round(Math.abs(cosine) * 70);
    return h("button", {
      type: "button", class: "cosine", "data-pair": `${k}-${l}`, "aria-pressed": String(chosen),
      "aria-label": `Tasks ${k + 1} and ${l + 1}, cosine ${cosineText(cosine)}`,
      style: { background: `color-mix(in srgb, var(${cosine < 0 ? "--task-8" : "--task-1"}) ${strength}%, var(--sunken))` },
      onclick: () => choose([k, l]),
    }, count() <= 5 ? h("span", {}, cosineText(cosine)) : null);
  }
  function blank(k, l) {
    return h("span", { class: k === l ? "own" : "mirror", "aria-hidden": "true" }, k === l ? String(k + 1) : "");
  }

  paint();
  return {
    matrix,
    resize: () => {
      // What is possible for more tasks is possible for fewer; new tasks come as they were left.
      if (!feasible(matrix())) fillWith(() => 0);
      for (const [side, list] of [first, second].entries()) {
        if (pair[side] >= count()) pair = [0, 1];
        list.refill(options(), String(pair[side]));
      }
      choose(pair);
    },
    show: (inverse, equal) => {
      const all = [inverse, equal].flatMap((one) => [...proportions(one.pull), ...one.shares]).filter(Number.isFinite);
      const span = { low: Math.min(0, ...all), high: Math.max(...all) * 1.04 };
      byId("cos-plots").replaceChildren(...[inverse, equal].map((one) => compared(one, span)));
      say(byId("cos-verdict"), sharesVerdict(inverse, equal));
    },
  };
}

function compared({ rule, pull, shares }, span) {
  const name = rule.key === "inverse" ? "inverse" : "equal-share";
  const row = (what, values) => {
    const few = values.length <= 4;
    return h("div", { class: "measure" },
      h("p", { class: "small" }, h("strong", {}, what), few ? ` ${values.map(partText).join(" / ")}` : ""),
      columns(values, { label: `${what} under ${name}`, ...span, text: partText }));
  };
  return h("article", { class: "card", "data-compare": name },
    h("h4", {}, name), row("contributions", proportions(pull)), row("shares", shares));
}

function sharesVerdict(inverse, equal) {
  const least = Math.min(...inverse.shares);
  const weakest = inverse.shares.indexOf(least) + 1;
  const spread = Math.max(...inverse.shares) - least;
  if (inverse.shares.some(Number.isNaN)) return "These gradients cancel out: there is no update, so there are no shares.";
  if (spread < 0.005) return "Contributions and shares agree here: both rules give the same weights.";
  const most = Math.max(...inverse.shares);
  const against = least < 0 ? "works against the update" : `accounts for only ${(100 * least).toFixed(1)} % of the update`;
  const cured = Math.max(...equal.shares) - Math.min(...equal.shares) < 0.005
    ? `equal-share gives each task ${(100 / equal.shares.length).toFixed(1)} %`
    : "equal-share comes as near to equal parts as these gradients let it";
  return `All tasks contribute equally under inverse, yet task ${weakest} ${against} and the strongest for ${(100 * most).toFixed(1)} %; ${cured}.`;
}
