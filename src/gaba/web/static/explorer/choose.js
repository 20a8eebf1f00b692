// Which method? From figures to settings, and to a snippet that runs.

import { figure, select } from "./controls.js";
import { byId, h, say } from "./dom.js";

/** Norms within this ratio count as balanced: single batches scatter by tens of per cent. */
const BALANCED = 2;
/** A ratio that moves by no more than this is as well served by fixed weights. */
const STEADY = 1.25;
/** At a cosine of −½ two tasks of equal contributions keep half of their shares. */
const OPPOSED = -0.5;
/** From here on exact norms make a step about five times as long; a sketch does not grow with K. */
const MANY = 8;
/** A weight that jumps by more than this from step to step follows noise. */
const NOISY = 10;
const READABLE = ["adam", "adamw", "rmsprop", "adagrad"];

/** 500×, 1.25×: as precise as what people put in. */
const times = (value) => `${Number(value.toPrecision(3))}×`;

/**
 * The method for these figures: { kind, title, reasons, code }.
 *
 * tasks: K; ratio: largest over smallest median norm; moves: the factor by which that ratio moves
 * in a run; cosine: the lowest between two tasks; jump: how far a weight jumps, in per cent;
 * optimizer: "sgd", "adam", "adamw", "rmsprop", "adagrad" or "other".
 */
export function decide({ tasks, ratio, moves, cosine, jump, optimizer }) {
  const names = Array.from({ length: tasks }, (_, k) => `task${k + 1}`);
  const opposed = tasks > 2 && cosine < OPPOSED;
  if (ratio <= BALANCED && !opposed) {
    return {
      kind: "plain",
      title: "Plain equal weights will do",
      reasons: [
        `The norms are ${times(ratio)} apart. Up to ${BALANCED}× is within the scatter of single batches: a balancer would follow noise and cost time.`,
      ],
      code: "loss = sum(losses.values())\nloss.backward()\noptimizer.step()\n",
    };
  }
  if (moves <= STEADY && !opposed) {
    return {
      kind: "fixed",
      title: "Plain fixed weights will do",
      reasons: [
        `The norms are ${times(ratio)} apart, but the ratio moves by ${times(moves)} only: one fixed weighting stays within a quarter of balance, and measures nothing.`,
        "Put in the weights that gaba explain names; these are for norms evenly spread over your ratio, loudest task first.",
      ],
      code: fixedCode(names, ratio),
    };
  }
  return adaptive({ names, ratio, moves, cosine, jump, optimizer, opposed });
}

function adaptive({ names, ratio, moves, cosine, jump, optimizer, opposed }) {
  const K = names.length;
  const reasons = [`The norms are ${times(ratio)} apart and their ratio moves by ${times(moves)}: no fixed weighting holds them balanced.`];
  const settings = [];
  const imports = ["import gaba"];
  if (opposed) {
    settings.push('weighting="equal-share",');
    reasons.push(`With a cosine of ${String(cosine).replace("-", "−")} equal contributions partly cancel, and a pair keeps less than half of its shares: equal-share counts the angles as well.`);
  } else {
    settings.push('weighting="inverse",');
    if (K === 2) reasons.push("With two tasks inverse, the paper's formula, equal-share and equal-projection are one rule, whatever the cosine.");
    else reasons.push(`With ${K} tasks the paper's formula no longer makes contributions equal; the inverse rule does.`);
  }
  if (K >= MANY) {
    settings.push('measurement="sketch",', "norm_stabiliser=None,  # the sketch smooths by itself");
    reasons.push(`${K} exact norms make a step several times as long; the sketch needs one extra forward pass however many tasks there are, and is off by some per cent.`);
  } else if (jump > NOISY) {
    imports.push("from gaba.stabilisers import LogEMA");
    settings.push("norm_stabiliser=LogEMA(decay=0.999),");
    reasons.push(`A weight that jumps by ${jump} % a step follows noise: average over about 1000 steps rather than 100.`);
  } else {
    settings.push('norm_stabiliser="log-ema",');
    reasons.push("Smoothing the logarithms of the norms over about 100 steps is enough at this noise.");
  }
  if (READABLE.includes(optimizer)) {
    settings.push('metric="optimizer",', "optimizer=optimizer,");
    reasons.push("Your optimizer rescales every parameter: measure pulls as it feels them. The length of the update (scale) makes no difference to it.");
  } else if (optimizer === "sgd") {
    settings.push('scale="mean",');
    reasons.push('Plain SGD moves by the length of the gradient: scale="mean" keeps it as long as under uniform weights, where the simplex would shrink it.');
  } else {
    settings.push('scale="mean",');
    reasons.push('Of an optimizer whose state is not read the pulls are measured as plain SGD would feel them; scale="mean" keeps the length of the update.');
  }
  return { kind: "adaptive", title: opposed ? "Balance the shares" : "Balance the contributions", reasons, code: code(imports, names, settings) };
}

const listOf = (names) => `[${names.map((name) => `"${name}"`).join(", ")}]`;

function code(imports, names, settings) {
  const tasks = names.length > 4 ? "list(losses)" : listOf(names);
  return [
    ...imports, "", "balancer = gaba.Balancer(", `    tasks=${tasks},`, "    shared=model.shared,",
    ...settings.map((line) => `    ${line}`), ")", "",
    "# in the loop, instead of sum(losses.values()).backward()",
    "step = balancer.backward(losses)", "optimizer.step()", "",
  ].join("\n");
}

function fixedCode(names, ratio) {
  const raw = names.map((_, k) => ratio ** (k / (names.length - 1)));
  const total = raw.reduce((a, b) => a + b, 0);
  const rows = names.map((name, k) => `    "${name}": ${(raw[k] / total).toPrecision(3)},`);
  return ["weights = {", ...rows, "}", "loss = sum(weights[task] * loss for task, loss in losses.items())", "loss.backward()", "optimizer.step()", ""].join("\n");
}

export function choose() {
  const figures = { tasks: 2, ratio: 500, moves: 10, cosine: 0, jump: 2, optimizer: "adamw" };
  const set = (key) => (value) => {
    figures[key] = value;
    refresh();
  };
  const field = (key, options) => figure({ id: `choose-${key}`, value: figures[key], ...options, change: set(key) });
  byId("choose-fields").append(
    field("tasks", { label: "Number of tasks", min: 2, max: 1000, step: 1, whole: true, hint: "losses that share parameters" }),
    field("ratio", { label: "Ratio of the norms", min: 1, max: 1e12, hint: "largest over smallest median norm, from gaba explain" }),
    field("moves", { label: "How far that ratio moves", min: 1, max: 1e12, hint: "its largest over its smallest value in the run; 1 stands still" }),
    field("cosine", { label: "Lowest cosine between two tasks", min: -1, max: 1, step: 0.01, hint: "the conflict; 0 where it was not measured" }),
    field("jump", { label: "Jump of a weight from step to step, %", min: 0, max: 1000, hint: "median; gaba explain names it where it is large" }),
    select({ id: "choose-optimizer", label: "Optimizer", value: figures.optimizer, change: set("optimizer"),
      options: [["sgd", "SGD, with or without momentum"], ["adam", "Adam"], ["adamw", "AdamW"], ["rmsprop", "RMSprop"], ["adagrad", "Adagrad"], ["other", "another"]] }).element,
  );
  byId("choose-form").addEventListener("submit", (event) => event.preventDefault());
  const said = byId("choose-copied");
  byId("choose-copy").addEventListener("click", async () => {
    said.textContent = (await copy(byId("choose-code"))) ? "Copied." : "Selected: copy it with the keyboard.";
  });

  function refresh() {
    said.textContent = "";
    const missing = Object.values(figures).includes(null);
    byId("choose-result").hidden = missing;
    if (missing) return;
    const { kind, title, reasons, code: text } = decide(figures);
    byId("choose-result").dataset.kind = kind;
    say(byId("choose-title"), title);
    byId("choose-reasons").replaceChildren(...reasons.map((reason) => h("li", {}, reason)));
    say(byId("choose-code"), text);
  }
  refresh();
}

async function copy(element) {
  try {
    await navigator.clipboard.writeText(element.textContent);
    return true;
  } catch {
    // A page from a file may have no clipboard of its own: select, and try the old way.
    const range = document.createRange();
    range.selectNodeContents(element);
    const selection = getSelection();
    selection.removeAllRanges();
    selection.addRange(range);
    return document.execCommand("copy");
  }
}
