// One run on the page: its state, its figures, what they say, and its charts.

import { h, say, swatch, taskColour, taskToken } from "../dom.js";
import { multiplierText, percent, seconds, short, tickText, timesText, weightText, whole } from "../numbers.js";
import { Chart } from "./charts.js";
import { Store, unpack } from "./store.js";

/** How a finding of each grade looks. */
const GRADES = { act: "trouble", watch: "watch", fine: "fine" };
/** The word for what a run is doing, and how it looks. */
const STATES = {
  waiting: ["Waiting", ""],
  running: ["Running", "good"],
  finished: ["Finished", "good"],
  stalled: ["Stalled", "warn"],
  failed: ["Failed", "bad"],
  unreadable: ["Unreadable", "bad"],
};
/** Cosines of so many pairs at most have a chart that can be read. */
const MOST_PAIRS = 12;
/** What a task has in its last step: the name in an event, the heading, and how it is written. */
const COLUMNS = [
  ["losses", "Loss", short], ["norms", "Norm", short], ["multipliers", "Multiplier", multiplierText],
  ["weights", "Weight", weightText], ["contributions", "Contribution", short], ["shares", "Share", percent],
];
const DAY = 86_400;

/** A time as a person tells it; with the day if that is another one. */
function clockText(since) {
  const at = new Date(1000 * since);
  const time = at.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
  return Date.now() / 1000 - since < DAY / 2 ? time : `${at.toLocaleDateString()}, ${time}`;
}

const median = (values) => {
  const known = values.filter(Number.isFinite).sort((a, b) => a - b);
  return known.length ? known[known.length >> 1] : null;
};

export class Panel {
  /** missed(): called when an event does not fit what came before. */
  constructor(name, missed) {
    this.name = name;
    this.missed = missed;
    this.store = new Store();
    this.charts = [];
    this.view = null;
    this.detail = null;
    this.state = h("span", { class: "badge state", role: "status" }, "Waiting");
    this.said = h("p", { class: "said" });
    this.command = h("code");
    this.summary = h("p", { class: "small muted" });
    this.progress = h("progress", { max: 1, value: 0, hidden: true, "aria-label": `reading ${name}` });
    this.error = h("p", { class: "note bad", role: "alert", hidden: true });
    this.figures = h("dl", { class: "figures" });
    this.table = h("div", { class: "table-scroll", tabindex: 0, role: "region", "aria-label": `figures of ${name} by task` });
    this.seen = h("p", { class: "small muted", hidden: true });
    this.verdict = h("p", { class: "verdict" });
    this.code = h("code");
    this.evidence = h("ul", { class: "findings" });
    this.since = h("h3");
    this.heat = h("div", { class: "stack" });
    this.matrixParts = [
      h("div", { class: "table-scroll", tabindex: 0, role: "region", "aria-label": `cosines of ${name}` }),
      h("p", { class: "small muted" }),
    ];
    this.tasks = h("p", { class: "legend", "aria-label": "Colours of the tasks" });
    this.shown = h("output", {}, "all steps");
    this.grid = h("div", { class: "charts" });
    this.body = h(
      "div",
      { class: "run", hidden: true },
      this.figures,
      h(
        "div",
        { class: "beside" },
        h("section", { class: "stack" }, h("h3", {}, "Last step"), this.table, this.seen),
        h("section", { class: "stack" }, h("h3", {}, "Who helps whom"), this.heat),
        h("section", { class: "stack evidence" }, this.since, this.evidence),
      ),
      this.toolbar(),
      this.tasks,
      this.grid,
      h(
        "p",
        { class: "shades" },
        h("span", {}, swatch("var(--saturated)"), " saturated: a multiplier is at its limit, or a weight at its floor"),
        h("span", {}, swatch("var(--skipped)"), " a step was skipped: not finite"),
        h("span", {}, "┄ the limit of a multiplier; equal shares"),
        h("span", {}, "A line is the mean of the steps that a point stands for, a band their least and greatest. Drag across a chart to zoom."),
      ),
    );
    this.element = h(
      "article",
      { class: "panel run", "aria-label": `run ${name}`, "data-run": name },
      h(
        "header",
        {},
        h("div", { class: "row" }, this.state, h("h2", {}, name)),
        this.summary,
        this.progress,
        this.error,
        this.said,
        h("pre", { class: "code", tabindex: 0, role: "group", hidden: true, "aria-label": `what to do about ${name}` }, this.command),
        h(
          "section",
          { class: "conclusion", hidden: true, "aria-label": `verdict on ${name}` },
          this.verdict,
          h("pre", { class: "code", tabindex: 0, role: "group", "aria-label": `line of code for ${name}` }, this.code),
        ),
      ),
      this.body,
    );
  }

  toolbar() {
    const button = (text, label, onclick) =>
      h("button", { class: "button", type: "button", "aria-label": `${label}, ${this.name}`, title: label, onclick }, text);
    return h(
      "div",
      { class: "toolbar", role: "group", "aria-label": `steps shown, ${this.name}` },
      button("All", "Show all steps", () => this.zoom(null)),
      button("−", "Zoom out", () => this.scale(2, 0)),
      button("+", "Zoom in", () => this.scale(0.5, 0)),
      button("←", "Earlier steps", () => this.scale(1, -0.5)),
      button("→", "Later steps", () => this.scale(1, 0.5)),
      this.shown,
    );
  }

  // --- what comes ------------------------------------------------------------------------------

  take(event) {
    const before = `${this.store.generation} ${this.known}`;
    if (!this.store.take(event)) this.missed();
    this.event = event;
    const optional = [...this.store.series.keys()].filter((name) => /^(seconds|shares|cosines)/.test(name));
    this.known = [...event.tasks, ...optional, event.limit, event.effective].join("\n");
    if (`${this.store.generation} ${this.known}` !== before) this.build();
    this.dirty = true;
  }

  /** Writes and draws what has come since the last time. */
  draw() {
    if (!this.dirty || !this.event) return;
    this.dirty = false;
    const { event } = this;
    this.tell(event);
    if (!event.last) return;
    this.body.hidden = false;
    this.tabulate(event);
    this.conclude(event);
    this.redraw();
  }

  tell({ state, doing, total, part, error, meta, about }) {
    const reading = state === "reading";
    const [word, look] = reading ? ["Reading", ""] : STATES[doing.word];
    say(this.state, word);
    this.state.className = `badge state ${look}`;
    Object.assign(this.element.dataset, { state, total, doing: doing.word });
    const since = doing.since === null ? null : `The record was last written at ${clockText(doing.since)}.`;
    this.said.hidden = reading || doing.word === "unreadable";
    say(this.said, [doing.said, since, doing.advice].filter(Boolean).join(" "));
    this.command.parentElement.hidden = this.said.hidden || !doing.code;
    say(this.command, doing.code);
    this.progress.hidden = !reading;
    this.progress.value = part;
    this.error.hidden = !error;
    say(this.error, error);
    const said = [
      meta.simulated ? "simulated data" : meta.subset, meta.method, meta.size,
      Number.isFinite(meta.seed) ? `seed ${meta.seed}` : null,
      ...Object.entries(about).filter(([what, value]) => value !== meta[what] && what !== "measurement").map(([what, value]) => `${what}: ${value}`),
    ];
    say(this.summary, said.filter((text) => typeof text === "string").join(" · "));
  }

  tabulate({ last, measured, total, tasks, saturated, skipped, cosines, effective, without_cosines: without }) {
    const seen = measured ?? last;
    const pace = median((this.store.series.get("seconds")?.[1] ?? []).slice(-200));
    const figures = [
      ["Steps", whole(total)],
      ["Imbalance", measured ? timesText(measured.imbalance ?? Infinity) : "not measured"],
      ["Step time", seconds(pace)],
      ["Skipped steps", whole(skipped)],
    ];
    this.figures.replaceChildren(...figures.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))));
    const columns = COLUMNS.filter(([name]) => name !== "shares" || this.store.series.has("shares/0"))
      .map(([name, title, text]) => [name, name === "norms" && effective ? "Effective norm" : title, text]);
    this.table.replaceChildren(
      h(
        "table",
        {},
        h("caption", { class: "visually-hidden" }, `Last step of ${this.name}: step ${last.steps}`),
        h("thead", {}, h("tr", {}, ["Task", ...columns.map(([, title]) => title), "Saturated"].map((title) => h("th", { scope: "col" }, title)))),
        h("tbody", {}, tasks.map((task, k) =>
          h("tr", {}, h("th", { scope: "row" }, swatch(taskColour(k)), task),
            columns.map(([name, , text]) => h("td", {}, text((seen[name] ?? last[name])[k]))), h("td", {}, percent(saturated[k]))))),
      ),
    );
    const names = columns.map(([name, title]) => (name in seen ? title.toLowerCase() : null)).filter(Boolean);
    this.seen.hidden = seen.steps === last.steps;
    say(this.seen, `Step ${whole(last.steps)}; ${names.join(", ")} and imbalance are of step ${whole(seen.steps)}, the last that was measured.`);
    const told = JSON.stringify([cosines, without, tasks]);
    if (this.matrixed !== told) this.matrix(cosines, tasks, without);
    this.matrixed = told;
  }

  /** The median cosines as a table whose cells are coloured; or why there are none, and what records them. */
  matrix(cosines, tasks, { why, code }) {
    if (!cosines) {
      const line = code && h("pre", { class: "code", tabindex: 0, role: "group", "aria-label": `line that records cosines, ${this.name}` }, h("code", {}, code));
      this.heat.replaceChildren(...[h("p", { class: "note" }, why), line].filter(Boolean));
      return;
    }
    const { median, steps } = cosines;
    const cell = (value, own) => {
      if (own) return h("td", { class: "own" }, "1");
      const part = Math.round(38 * Math.abs(value ?? 0));
      const background = `color-mix(in srgb, var(${(value ?? 0) < 0 ? "--bad" : "--good"}) ${part}%, var(--surface))`;
      return h("td", { style: { background } }, value === null ? "–" : (Number(value.toFixed(2)) || 0).toFixed(2).replace("-", "−"));
    };
    const caption = `Cosines between the gradients, median of ${whole(steps)} step${steps === 1 ? "" : "s"}.`;
    const [scrolled, note] = this.matrixParts;
    scrolled.replaceChildren(
      h(
        "table",
        { class: "heat" },
        h("caption", { class: "visually-hidden" }, caption),
        h("thead", {}, h("tr", {}, h("td"), tasks.map((task) => h("th", { scope: "col" }, task)))),
        h("tbody", {}, tasks.map((task, i) => h("tr", {}, h("th", { scope: "row" }, task), median[i].map((value, j) => cell(value, i === j))))),
      ),
    );
    say(note, `${caption} Above 0 a step for one task helps the other; below 0 it undoes work of the other.`);
    // Once they are there they stay, so that what was scrolled stays where it is.
    if (!scrolled.isConnected) this.heat.replaceChildren(scrolled, note);
  }

  /** The verdict, the line of code that changes it, and the evidence. */
  conclude({ diagnosis, total }) {
    const said = JSON.stringify(diagnosis);
    if (!diagnosis || this.concluded === said) return;
    this.concluded = said;
    const { steps, grade, verdict, code, evidence } = diagnosis;
    this.verdict.textContent = verdict;
    this.verdict.className = `verdict ${GRADES[grade]}`;
    this.code.textContent = code;
    this.code.parentElement.hidden = !code;
    this.verdict.parentElement.hidden = false;
    this.since.textContent = `Evidence of ${steps < total ? "the last " : ""}${whole(steps)} steps`;
    this.evidence.replaceChildren(...evidence.map(({ kind, grade: of, text }) => h("li", { class: GRADES[of], "data-kind": kind }, text)));
  }

  // --- charts ----------------------------------------------------------------------------------

  build() {
    for (const chart of this.charts) chart.destroy();
    if (this.generation !== this.store.generation) this.view = this.detail = null;
    this.generation = this.store.generation;
    const { tasks, limit, effective } = this.event;
    const bound = limit && (Number.isInteger(limit) ? whole(limit) : short(limit));
    const limits = limit ? [{ y: limit, text: `limit ${bound}` }, { y: 1 / limit, text: `1/${bound}` }] : [];
    this.tasks.replaceChildren(...tasks.map((task, k) => h("span", {}, swatch(taskColour(k)), task)));
    const of = (name) => tasks.map((label, k) => ({ name: `${name}/${k}`, label, token: taskToken(k) }));
    const one = (name, label) => [{ name, label, token: taskToken(0) }];
    const saturated = { names: tasks.map((_, k) => `saturated/${k}`), token: "--saturated", least: 0.5 };
    const skipped = { names: ["skipped"], token: "--skipped", least: 1e-9 };
    const pairs = tasks.flatMap((a, i) => tasks.slice(i + 1).map((b, j) => ({ name: `cosines/${i}/${i + 1 + j}`, label: `${a}, ${b}` })))
      .filter(({ name }) => this.store.series.has(name)).slice(0, MOST_PAIRS)
      .map((pair, k) => ({ ...pair, token: taskToken(k) }));
    const specs = [
      { key: "multipliers", title: "Multipliers", axis: "multiplier (1: as written)", log: true, unit: multiplierText, series: of("multipliers"), shade: [saturated], marks: limits },
      { key: "shares", title: "Shares of the update", axis: "share (%)", unit: percent, tick: (v) => tickText(Number((100 * v).toPrecision(6))), sparse: true, series: of("shares"), marks: this.event.about.targets ? [] : [{ y: 1 / tasks.length, text: "equal" }] },
      { key: "losses", title: "Losses", axis: "loss (as written)", log: true, unit: short, series: of("losses"), shade: [skipped] },
      { key: "norms", title: effective ? "Effective norms" : "Norms", axis: effective ? "norm ĝ = √(q/m)" : "norm g = ‖∇L‖", log: true, sparse: true, unit: short, series: of("norms"), shade: [skipped] },
      { key: "contributions", title: "Contributions", axis: "contribution m·g", log: true, sparse: true, unit: short, series: of("contributions"), shade: [skipped] },
      { key: "imbalance", title: "Imbalance", axis: "ratio (1: balanced)", log: true, sparse: true, unit: timesText, series: one("imbalance", "imbalance"), shade: [saturated] },
      { key: "cosines", title: "Cosines", axis: "cosine (−1 to 1)", range: [-1.05, 1.05], sparse: true, unit: short, series: pairs, legend: true },
      { key: "seconds", title: "Step time", axis: "seconds a step", log: true, unit: seconds, series: one("seconds", "step time") },
    ];
    const optional = { shares: "shares/0", cosines: pairs[0]?.name, seconds: "seconds" };
    const shared = {
      sync: `run ${this.name}`,
      zoom: { view: () => this.view, select: (from, to) => this.zoom([from, to]), reset: () => this.zoom(null) },
    };
    this.charts = specs.filter(({ key }) => !(key in optional) || this.store.series.has(optional[key])).map((spec) => new Chart(spec, shared));
    this.grid.replaceChildren(...this.charts.map((chart) => chart.element));
  }

  redraw() {
    const data = this.view && this.detail ? this.detail : this.store;
    for (const chart of this.charts) chart.show(data);
    this.shown.textContent = this.view ? `steps ${this.view.map(whole).join(" to ")}` : "all steps";
  }

  scale(factor, shift) {
    const { x } = this.store;
    if (!x.length) return;
    const [from, to] = this.view ?? [x[0], x.at(-1)];
    const width = Math.max(4, (to - from) * factor);
    const middle = (from + to) / 2 + shift * (to - from);
    const last = Math.max(x.at(-1), x[0] + 1);
    const start = Math.min(Math.max(x[0], middle - width / 2), Math.max(x[0], last - width));
    const end = Math.min(last, start + width);
    this.zoom(start <= x[0] && end >= last ? null : [start, end]);
  }

  /** Shows the steps from view[0] to view[1]; the server looks closer where steps are merged. */
  async zoom(view) {
    this.view = view && [Math.floor(view[0]), Math.ceil(view[1])];
    this.detail = null;
    this.redraw();
    if (!this.view || this.store.stride <= 1) return;
    const asked = this.view;
    const query = new URLSearchParams({ run: this.name, from: asked[0], to: asked[1] });
    const answer = await fetch(`/api/range?${query}`);
    if (!answer.ok || this.view !== asked) return;
    const { buckets, generation } = await answer.json();
    if (!buckets || generation !== this.store.generation || this.view !== asked) return;
    this.detail = unpack(buckets);
    this.redraw();
  }

  destroy() {
    for (const chart of this.charts) chart.destroy();
    this.element.remove();
  }
}
