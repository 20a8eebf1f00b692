// Which method? From figures to a method, and to a snippet that runs.

import { byId, h, say } from "../dom.js";
import { figure, select } from "./controls.js";

/** Norms within this ratio count as balanced: single batches scatter by tens of per cent. */
const BALANCED = 2;
/** Fixed weights serve a ratio that moves by no more than this as well. */
const STEADY = 1.25;
/** At a cosine of −½ two tasks of equal contributions keep half of their shares. */
const OPPOSED = -0.5;
/** From here on the gradients of all tasks make a step about five times as long. */
const MANY = 8;
/** A weight that jumps by more than this from step to step, in per cent, follows noise. */
const NOISY = 10;
const READABLE = ["adam", "adamw", "rmsprop", "adagrad"];

/** 500×, 1.25×: as precise as what people put in. */
const ratioText = (value) => `${Number(value.toPrecision(3))}×`;

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
      title: "Keep the plain sum",
      reasons: [
        `The norms are ${ratioText(ratio)} apart. Up to ${BALANCED}× is within the scatter of single batches: a balancer would follow noise and cost time.`,
      ],
      code: "loss = sum(losses.values())\nloss.backward()\noptimizer.step()\n",
    };
  }
  if (moves <= STEADY && !opposed) {
    return {
      kind: "fixed",
      title: "Use fixed multipliers",
      reasons: [
        `The norms are ${ratioText(ratio)} apart, but the ratio moves by ${ratioText(moves)} only: fixed multipliers stay within a quarter of balance, and measure nothing.`,
        "Put in the multipliers that gaba explain names. These are for norms evenly spread over your ratio, loudest task first.",
      ],
      code: fixedCode(names, ratio),
    };
  }
  return adaptive({ names, ratio, moves, cosine, jump, optimizer, opposed });
}

function adaptive({ names, ratio, moves, cosine, jump, optimizer, opposed }) {
  const K = names.length;
  const reasons = [`The norms are ${ratioText(ratio)} apart and their ratio moves by ${ratioText(moves)}: no fixed multipliers keep them balanced.`];
  const name = opposed ? "equal-share" : "gaba";
  const changes = [];
  const imports = ["import gaba"];
  if (opposed) {
    reasons.push(`With a cosine of ${String(cosine).replace("-", "−")} equal contributions partly cancel, and a pair keeps less than half of its shares: equal-share counts the angles too.`);
  } else if (K === 2) {
    reasons.push("With two tasks the paper's formula, inverse, equal-share and equal-projection are one rule, whatever the cosine.");
  } else {
    reasons.push(`With ${K} tasks the paper's formula no longer makes contributions equal; the inverse rule does.`);
  }
  if (opposed && K >= MANY) {
    changes.push("every=10");
    reasons.push(`The gradients of ${K} tasks make a step several times as long: measure them in every 10th step.`);
  }
  if (jump > NOISY) {
    imports.push("from gaba.stabilisers import Belief");
    changes.push("believe=Belief(rate=0.001)");
    reasons.push(`A weight that jumps by ${jump} % a step follows noise: average over about 1,000 steps instead of 100.`);
  } else {
    reasons.push("The average over about 100 steps is enough at this noise.");
  }
  const method = changes.length ? `gaba.methods.get("${name}").replace(${changes.join(", ")})` : `"${name}"`;
  const settings = [`method=${method},`];
  if (READABLE.includes(optimizer)) {
    settings.push('metric="optimizer",', "optimizer=optimizer,");
    reasons.push("Your optimizer rescales every parameter: measure the pulls as it feels them. The length of the update makes no difference to it.");
  } else {
    reasons.push(`${optimizer === "sgd" ? "Plain SGD moves by the length of the gradient" : "The state of your optimizer is not read"}: the update is as long as that of the plain sum, so keep your learning rate.`);
  }
  return { kind: "adaptive", title: opposed ? "Balance the shares" : "Balance the contributions", reasons, code: adaptiveCode(imports, names, settings) };
}

function adaptiveCode(imports, names, settings) {
  const tasks = names.length > 4 ? "list(losses)" : `[${names.map((name) => `"${name}"`).join(", ")}]`;
  return [
    ...imports, "", "balancer = gaba.Balancer(", `    tasks=${tasks},`, "    shared=model.shared,",
    ...settings.map((line) => `    ${line}`), ")", "",
    "# in the loop, instead of sum(losses.values()).backward()",
    "step = balancer.backward(losses)", "optimizer.step()", "",
  ].join("\n");
}

/** Multipliers of geometric mean 1 for norms that are evenly spread over the ratio. */
function fixedCode(names, ratio) {
  const rows = names.map((name, k) => `    "${name}": ${(ratio ** (k / (names.length - 1) - 0.5)).toPrecision(3)},`);
  return ["multipliers = {", ...rows, "}", "loss = sum(multipliers[task] * loss for task, loss in losses.items())", "loss.backward()", "optimizer.step()", ""].join("\n");
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
    field("cosine", { label: "Lowest cosine between two tasks", min: -1, max: 1, step: 0.01, hint: "the conflict; 0 if it was not measured" }),
    field("jump", { label: "Jump of a weight from step to step, %", min: 0, max: 1000, hint: "median; gaba explain names it if it is large" }),
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
    const { kind, title, reasons, code } = decide(figures);
    byId("choose-result").dataset.kind = kind;
    say(byId("choose-title"), title);
    byId("choose-reasons").replaceChildren(...reasons.map((reason) => h("li", {}, reason)));
    say(byId("choose-code"), code);
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
