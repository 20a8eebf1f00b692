// One run on the page: its state, its figures, what they say, and its charts.

import { Chart } from "./charts.js";
import { Store, unpack } from "./store.js";
import { make, percent, seconds, short, weight, whole } from "./text.js";

const FINE = ["balanced"];
const TROUBLE = ["non-finite", "dead", "unmeasured", "dominated", "imbalance", "conflict", "conflicting"];
const token = (k) => `--task-${(k % 12) + 1}`;
const median = (values) => {
  const known = values.filter(Number.isFinite).sort((a, b) => a - b);
  return known.length ? known[known.length >> 1] : null;
};

export class Panel {
  /** missed(): called when an event does not fit to what came before. */
  constructor(name, missed) {
    this.name = name;
    this.missed = missed;
    this.store = new Store();
    this.charts = [];
    this.view = null;
    this.detail = null;
    this.state = make("span", { className: "badge" }, "waiting");
    this.summary = make("p", { className: "small muted" });
    this.progress = make("progress", { max: 1, value: 0, hidden: true, "aria-label": `reading ${name}` });
    this.error = make("p", { className: "note bad", role: "alert", hidden: true });
    this.figures = make("dl", { className: "figures" });
    this.table = make("div", { className: "table-scroll", tabIndex: 0, role: "region", "aria-label": `figures of ${name} by task` });
    this.findings = make("ul", { className: "findings" });
    this.since = make("p", { className: "small muted" });
    this.heat = make("div", { className: "table-scroll", hidden: true });
    this.shown = make("output", {}, "all steps");
    this.grid = make("div", { className: "charts" });
    this.shades = make("p", { className: "shades" }, ...shadeKeys());
    this.body = make(
      "div",
      { className: "run", hidden: true },
      this.figures,
      make(
        "div",
        { className: "beside" },
        make("section", { className: "stack" }, make("h3", {}, "Last step"), this.table, this.heat),
        make("section", { className: "stack conclusion" }, make("h3", {}, "Diagnosis"), this.since, this.findings),
      ),
      this.toolbar(),
      this.grid,
      this.shades,
    );
    this.element = make(
      "article",
      { className: "panel run", "aria-label": `run ${name}`, "data-run": name },
      make("header", {}, make("div", { className: "row" }, make("h2", {}, name), this.state), this.summary, this.progress, this.error),
      this.body,
    );
  }

  toolbar() {
    const button = (text, label, act) => {
      const made = make("button", { className: "button", type: "button", "aria-label": `${label}, ${this.name}`, title: label }, text);
      made.addEventListener("click", act);
      return made;
    };
    return make(
      "div",
      { className: "toolbar", role: "group", "aria-label": `steps shown, ${this.name}` },
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
    const optional = [...this.store.series.keys()].filter((name) => name === "seconds" || name.startsWith("cosines"));
    this.known = [...event.tasks, ...optional].join("\n");
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

  tell(event) {
    const words = { waiting: "waiting for the first step", reading: "reading", following: "following", error: "stopped" };
    const looks = { waiting: "warn", reading: "warn", following: "good", error: "bad" };
    this.state.textContent = words[event.state];
    this.state.className = `badge ${looks[event.state]}`;
    this.element.dataset.state = event.state;
    this.element.dataset.total = event.total;
    this.progress.hidden = event.state !== "reading";
    this.progress.value = event.part;
    this.error.hidden = !event.error;
    if (this.error.textContent !== event.error) this.error.textContent = event.error;
    const { meta, about } = event;
    const said = [meta.simulated ? "simulated data" : meta.subset, meta.method, meta.size];
    if (meta.seed !== undefined) said.push(`seed ${meta.seed}`);
    said.push(...Object.entries(about).map(([what, value]) => `${what}: ${value}`));
    this.summary.textContent = said.filter((part) => typeof part === "string").join(" · ");
  }

  tabulate({ last, total, tasks, saturated, skipped }) {
    const pace = median((this.store.series.get("seconds")?.[1] ?? []).slice(-200));
    const rows = [
      ["Steps", whole(total), ""],
      ["Imbalance now", last.imbalance === null ? "not measured" : `${short(last.imbalance)}×`, ""],
      ["Step time", seconds(pace), ""],
      ["Skipped steps", whole(skipped), skipped ? "bad" : ""],
      ["Gain", short(last.gain), ""],
    ];
    this.figures.replaceChildren(
      ...rows.map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, value))),
    );
    const head = ["Task", "Loss", "Norm", "Weight", "Contribution", "Saturated"];
    const line = (task, k) => {
      const swatch = make("span", { className: "swatch" });
      swatch.style.color = `var(${token(k)})`;
      const cells = [short(last.losses[k]), short(last.norms[k]), weight(last.weights[k]), short(last.contributions[k]), percent(saturated[k])];
      return make("tr", {}, make("th", { scope: "row" }, swatch, task), ...cells.map((text) => make("td", {}, text)));
    };
    this.table.replaceChildren(
      make(
        "table",
        {},
        make("caption", { className: "visually-hidden" }, `Last step of ${this.name}: step ${last.steps}`),
        make("thead", {}, make("tr", {}, ...head.map((text) => make("th", { scope: "col" }, text)))),
        make("tbody", {}, ...tasks.map(line)),
      ),
    );
    this.matrix(last.cosines, tasks);
  }

  /** The last cosines that were measured, as a table whose cells are coloured. */
  matrix(cosines, tasks) {
    if (!cosines.some((row, i) => row.some((value, j) => i !== j && value !== null))) return;
    const cell = (value, i, j) => {
      const made = make("td", {}, value === null ? "–" : value.toFixed(2));
      const part = i === j ? 0 : Math.round(38 * Math.abs(value ?? 0));
      made.style.background = `color-mix(in srgb, var(${(value ?? 0) < 0 ? "--bad" : "--good"}) ${part}%, var(--surface))`;
      return made;
    };
    this.heat.hidden = false;
    this.heat.replaceChildren(
      make(
        "table",
        { className: "heat" },
        make("caption", { className: "small muted" }, "Cosines between the tasks' gradients"),
        make("thead", {}, make("tr", {}, make("td"), ...tasks.map((task) => make("th", { scope: "col" }, task)))),
        make(
          "tbody",
          {},
          ...tasks.map((task, i) => make("tr", {}, make("th", { scope: "row" }, task), ...cosines[i].map((v, j) => cell(v, i, j)))),
        ),
      ),
    );
  }

  conclude({ diagnosis, total }) {
    if (!diagnosis || this.concluded === diagnosis.findings.map((f) => f.text).join()) return;
    this.concluded = diagnosis.findings.map((f) => f.text).join();
    const part = diagnosis.steps < total ? `of the last ${whole(diagnosis.steps)} steps` : `of ${whole(diagnosis.steps)} steps`;
    this.since.textContent = part;
    const look = (kind) => (FINE.includes(kind) ? "fine" : TROUBLE.includes(kind) ? "trouble" : "watch");
    this.findings.replaceChildren(
      ...diagnosis.findings.map((f) => make("li", { className: look(f.kind), "data-kind": f.kind }, f.text)),
    );
  }

  // --- charts ----------------------------------------------------------------------------------

  build() {
    for (const chart of this.charts) chart.destroy();
    if (this.generation !== this.store.generation) this.view = this.detail = null;
    this.generation = this.store.generation;
    const { tasks } = this.event;
    const of = (name) => tasks.map((label, k) => ({ name: `${name}/${k}`, label, token: token(k) }));
    const one = (name, label) => [{ name, label, token: "--task-1" }];
    const saturated = { names: tasks.map((_, k) => `saturated/${k}`), token: "--saturated", least: 0.5 };
    const skipped = { names: ["skipped"], token: "--skipped", least: 1e-9 };
    const pairs = tasks.flatMap((a, i) => tasks.slice(i + 1).map((b, j) => ({ name: `cosines/${i}/${i + 1 + j}`, label: `${a}, ${b}` })));
    const measured = pairs.filter(({ name }) => this.store.series.has(name)).slice(0, 12);
    const specs = [
      { key: "losses", title: "Losses", log: true, signed: true, unit: short, series: of("losses"), shade: [skipped] },
      { key: "norms", title: "Norms", log: true, unit: short, series: of("norms"), shade: [skipped] },
      { key: "weights", title: "Weights", log: true, unit: weight, series: of("weights"), shade: [saturated] },
      { key: "contributions", title: "Contributions", log: true, unit: short, series: of("contributions"), shade: [skipped] },
      { key: "imbalance", title: "Imbalance", log: true, unit: (v) => `${short(v)}×`, series: one("imbalance", "imbalance"), shade: [saturated] },
    ];
    if (this.store.series.has("seconds")) {
      specs.push({ key: "seconds", title: "Step time", log: true, unit: seconds, series: one("seconds", "step time") });
    }
    if (measured.length) {
      const series = measured.map((pair, k) => ({ ...pair, token: token(k) }));
      specs.splice(5, 0, { key: "cosines", title: "Cosines", limits: [-1.05, 1.05], unit: short, series, legend: true });
    }
    const shared = {
      sync: `run ${this.name}`,
      onZoom: (from, to) => this.zoom([from, to]),
      onReset: () => this.zoom(null),
      range: () => this.view,
    };
    this.charts = specs.map((spec) => new Chart(spec, shared));
    this.grid.replaceChildren(...this.charts.map((chart) => chart.element));
  }

  redraw() {
    const data = this.view && this.detail ? this.detail : this.store;
    for (const chart of this.charts) chart.show(data);
    const [from, to] = this.view ?? [];
    this.shown.textContent = this.view ? `steps ${whole(from)} to ${whole(to)}` : "all steps";
  }

  repaint() {
    for (const chart of this.charts) chart.repaint();
  }

  scale(factor, shift) {
    const { x } = this.store;
    if (!x.length) return;
    const [from, to] = this.view ?? [x[0], x[x.length - 1]];
    const width = Math.max(4, (to - from) * factor);
    const middle = (from + to) / 2 + shift * (to - from);
    const last = Math.max(x[x.length - 1], x[0] + 1);
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

function shadeKeys() {
  const key = (name, text) => {
    const swatch = make("span", { className: "swatch" });
    swatch.style.background = `var(${name})`;
    return make("span", {}, swatch, ` ${text}`);
  };
  return [
    key("--saturated", "a weight sat on its floor (saturated)"),
    key("--skipped", "a step was skipped: not finite"),
    make("span", {}, "Lines are means, bands the least and greatest of the steps that a point stands for. Drag across a chart to zoom."),
  ];
}
