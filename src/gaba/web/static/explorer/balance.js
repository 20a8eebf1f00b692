// Watch the controller find balance: the loop of the method "gaba", step by step.

import { byId, h, onceAFrame, say, swatch, taskColour } from "../dom.js";
import { multiplierText, percent, short, typedText, whole } from "../numbers.js";
import { timeplot } from "../timeplot.js";
import { columns } from "./bars.js";
import { LOG, presets, slider } from "./controls.js";
import { gramians, tracked } from "./tracked.js";

const STEPS = 80;
const TASKS = [1, 2, 3];
/** By no more does a multiplier rise in one step. */
const RISE_A_STEP = 1.2;
/** Milliseconds a step while it plays. */
const BEAT = 250;
/** Shares within this factor of equal count as balanced. */
const NEAR = 1.15;
const QUIET = { norms: [5, 1, 0.2], cosine: 0, noise: 0.1, jump: 1, limit: 64 };
const EXAMPLES = [
  ["25 to 1", QUIET],
  ["Noisy batches", { ...QUIET, noise: 0.5 }],
  ["A jump in mid-run", { ...QUIET, jump: 30 }],
  ["Two tasks in conflict", { ...QUIET, cosine: -0.9 }],
  ["Beyond the limit", { ...QUIET, norms: [500, 1, 0.01], limit: 8 }],
];
const WHOLE = { at: Math.round, from: (value) => value };

export function watchBalance() {
  const state = { ...QUIET, norms: [...QUIET.norms], seed: 1 };
  let rows = [];
  let at = STEPS - 1;
  let timer = null;

  const made = new Map();
  const control = (key, options) => {
    const one = slider({ id: `track-${key}`, value: state[key], ...options, change: (value) => {
      state[key] = value;
      again();
    } });
    made.set(key, one);
    return one.element;
  };
  TASKS.forEach((task, k) => {
    made.set(`norm${k}`, slider({
      id: `track-g${task}`, label: `Norm of task ${task}`, min: -3, max: 3, scale: LOG, value: state.norms[k], format: typedText,
      colour: taskColour(k),
      change: (value) => {
        state.norms[k] = value;
        again();
      },
    }));
  });
  byId("track-settings").append(
    ...TASKS.map((_, k) => made.get(`norm${k}`).element),
    control("cosine", { label: "Cosine of tasks 2 and 3", min: -0.98, max: 0.98, step: 0.02, format: (v) => v.toFixed(2).replace("-", "−") }),
    control("noise", { label: "Noise of a norm (standard deviation of its log)", min: 0, max: 1, step: 0.05, format: (v) => v.toFixed(2) }),
    control("jump", { label: `Jump of task 1 in step ${STEPS / 2}`, min: -2, max: 2, scale: LOG, format: (v) => `×${typedText(v)}` }),
    control("limit", { label: "Largest multiplier, the limit", min: 0.3, max: 4, scale: LOG, format: (v) => (v < 100 ? typedText(v) : whole(v)) }),
    h("button", { type: "button", class: "button", onclick: () => {
      state.seed += 1;
      again();
    } }, "Draw another run"),
  );
  byId("track-presets").append(presets("Examples of tracked shares", EXAMPLES.map(([name, example]) => [name, () => {
    Object.assign(state, example, { norms: [...example.norms] });
    for (const key of ["cosine", "noise", "jump", "limit"]) made.get(key).set(state[key]);
    state.norms.forEach((g, k) => made.get(`norm${k}`).set(g));
    again();
  }])));

  const where = slider({
    id: "track-step", label: "Step", min: 0, max: STEPS - 1, step: 1, value: STEPS - 1, scale: WHOLE,
    change: (step) => {
      pause();
      at = step;
      refresh();
    },
  });
  const button = (text, onclick, label = text) => h("button", { type: "button", class: "button", "aria-label": label, onclick }, text);
  const play = button("Play", () => (timer === null ? start() : pause()));
  play.classList.add("primary");
  byId("track-player").append(
    h("div", { class: "row", role: "group", "aria-label": "Move through the steps" },
      button("Start", () => move(-at), "First step"), button("−1", () => move(-1), "One step back"),
      button("+1", () => move(1), "One step on"), button("+10", () => move(10), "Ten steps on"), play),
    where.element,
  );

  const three = TASKS.map((_, k) => ({ token: `--task-${k + 1}`, width: 2 }));
  const revealed = TASKS.map((_, k) => ({ token: `--task-${k + 1}`, width: 1, dash: [2, 3] }));
  const shared = { sync: "track", span: [0, STEPS - 1], marks: () => [{ x: at }] };
  const ends = (name) => () => {
    const values = rows.flatMap((row) => row[name]).filter((value) => value > 0);
    return [Math.min(...values), Math.max(...values)];
  };
  const plots = {
    shares: timeplot(byId("track-shares"), {
      ...shared, series: three, height: 180, yLabel: "share (%)", yText: (v) => String(Math.round(100 * v)),
      marks: () => [{ x: at }, { y: 1 / TASKS.length, text: "equal" }],
      reach: () => [Math.min(0, ...rows.flatMap((row) => row.shares)), Math.max(1, ...rows.flatMap((row) => row.shares))],
    }),
    multipliers: timeplot(byId("track-multipliers"), {
      ...shared, series: three, height: 180, yLabel: "multiplier",
      marks: () => [{ x: at }, { y: state.limit, text: `limit ${limitText()}` }, { y: 1 / state.limit, text: `1/${limitText()}` }],
      reach: () => [1 / state.limit, 1.4 * state.limit],
    }),
    norms: timeplot(byId("track-norms"), {
      ...shared, series: [...three, ...revealed], height: 180, yLabel: "norm", reach: ends("believed"),
    }),
  };
  const limitText = () => (state.limit < 100 ? typedText(state.limit) : whole(state.limit));

  const again = () => {
    pause();
    const step = tracked(TASKS.length, { limit: state.limit, rising: RISE_A_STEP });
    rows = gramians({ ...state, steps: STEPS }).map(step);
    refresh();
  };
  const refresh = onceAFrame(() => {
    where.set(at);
    const steps = rows.map((_, i) => i);
    const upTo = (name, usable = () => true) => TASKS.map((_, k) => rows.map((row, i) => (i <= at && usable(row[name][k]) ? row[name][k] : null)));
    const positive = (value) => value > 0;
    const spoken = (name, text) => TASKS.map((task, k) => `task ${task} ${text(rows[at][name][k])}`).join(", ");
    plots.shares.show([steps, ...upTo("shares")], false, `Shares of the update up to step ${at}: ${spoken("shares", percent)}.`);
    plots.multipliers.show([steps, ...upTo("multipliers")], true, `Multipliers up to step ${at}: ${spoken("multipliers", multiplierText)}.`);
    plots.norms.show([steps, ...upTo("believed"), ...upTo("measured", positive)], true, `Norms up to step ${at}, as believed: ${spoken("believed", short)}.`);
    byId("track-table").replaceChildren(figuresOf(rows[at]));
    const { shares } = rows[at];
    byId("track-bars").replaceChildren(columns(shares, { label: `Shares in step ${at}`, low: Math.min(0, ...shares), high: Math.max(1, ...shares), text: percent }));
    say(byId("track-said"), sentence(rows, at, state.limit));
  });
  function move(by) {
    pause();
    at = Math.min(STEPS - 1, Math.max(0, at + by));
    refresh();
  }
  function start() {
    if (at === STEPS - 1) at = 0;
    show("Pause");
    timer = setInterval(() => {
      at += 1;
      if (at === STEPS - 1) pause();
      refresh();
    }, BEAT);
  }
  function pause() {
    clearInterval(timer);
    timer = null;
    show("Play");
  }
  /** What the button does next; while it plays, no step is read out. */
  function show(next) {
    play.textContent = next;
    play.setAttribute("aria-label", next);
    byId("track-said").setAttribute("aria-live", next === "Play" ? "polite" : "off");
  }
  again();
}

/** The figures of one step. */
function figuresOf(row) {
  const figures = [
    ["Share", "shares", percent], ["Norm it reveals", "measured", short], ["Believed", "believed", short],
    ["Multiplier", "multipliers", multiplierText], ["Asked for", "asked", multiplierText],
  ];
  return h(
    "table",
    {},
    h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Task"), figures.map(([title]) => h("th", { scope: "col", class: "num" }, title)))),
    h("tbody", {}, TASKS.map((task, k) => h("tr", {},
      h("th", { scope: "row" }, swatch(taskColour(k)), ` ${task}`),
      figures.map(([, name, text]) => h("td", { class: "num" }, text(row[name][k])))))),
  );
}

/** What happens in step `at`, in words: who is furthest from an equal share, and what is done about it. */
function sentence(rows, at, limit) {
  const row = rows[at];
  const equal = 1 / TASKS.length;
  if (at === 0) return "Step 0 measures each norm exactly, once. Multipliers fall at once, and rise by no more than ×1.2 a step.";
  const away = row.shares.map((share) => (share > 0 ? Math.max(share / equal, equal / share) : Infinity));
  const k = away.indexOf(Math.max(...away));
  if (away[k] < NEAR) return `Step ${at}: each task has about a third of the update. The multipliers stay where they are.`;
  const share = `Step ${at}: task ${k + 1} ${row.shares[k] < 0 ? "works against the update" : `has ${percent(row.shares[k])} of the update`}`;
  const before = rows[at - 1].believed[k];
  const news = row.measured[k] > 0
    ? `which reveals a norm of ${short(row.measured[k])}. ${short(before)} was believed, now ${short(row.believed[k])}.`
    : `so its belief falls from ${short(before)} to ${short(row.believed[k])}.`;
  if (row.atLimit[k]) return `${share}, ${news} Its multiplier is at ${row.asked[k] < 1 ? "one over the limit" : "the limit"} of ${typedText(limit)}: more is not allowed.`;
  const change = row.asked[k] / row.multipliers[k];
  if (Math.abs(change - 1) < 0.02) return `${share}, ${news} Its multiplier stays: one noisy batch changes little.`;
  if (change > RISE_A_STEP) return `${share}, ${news} Its multiplier rises towards ${multiplierText(row.asked[k])}, by ×${RISE_A_STEP} a step.`;
  return `${share}, ${news} Its multiplier ${change > 1 ? "rises" : "falls"} to ${multiplierText(row.asked[k])}.`;
}
