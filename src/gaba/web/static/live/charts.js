// Charts of a run: for each series its mean as a line, its least and greatest as a band.

import { colour } from "/static/theme.js";
import { make, short } from "./text.js";

const HEIGHT = 190;

/** What numbers on an axis look like. */
const brief = (text) => (text.includes("e") ? text.replace(".0e", "e") : text.replace(/(\.\d*?)0+$/, "$1").replace(/\.$/, ""));
const ticks = (values) => values.map((v) => (v === null ? "" : brief(short(v))));

/** Powers of ten between low and high, with 2 and 5 between them where there are few. */
function decades(_chart, _axis, low, high) {
  if (!(low > 0) || !Number.isFinite(high)) return [];
  const [from, to] = [Math.floor(Math.log10(low)), Math.ceil(Math.log10(high))];
  const every = Math.max(1, Math.ceil((to - from) / 6));
  const steps = to - from > 2 ? [1] : [1, 2, 5];
  const found = [];
  for (let power = from; power <= to; power += every) {
    for (const step of steps) {
      const value = Number(`${step}e${power}`);
      if (value >= low && value <= high) found.push(value);
    }
  }
  return found.length ? found : [Number(Math.sqrt(low * high).toPrecision(3))];
}

/** A range with some room around the values. */
function logarithmic(_chart, low, high) {
  if (low === null || high === null || !(low > 0)) return [0.1, 10];
  const [a, b] = [Math.log10(low), Math.log10(high)];
  const pad = Math.max(0.05 * (b - a), 0.15 - (b - a) / 2, 0.02);
  return [Math.max(1e-300, 10 ** (a - pad)), Math.min(1e300, 10 ** (b + pad))];
}

function linear(limits) {
  return (_chart, low, high) => {
    if (limits) return limits;
    if (low === null || high === null) return [0, 1];
    const pad = 0.06 * (high - low || Math.abs(high) || 1);
    return [low - pad, high + pad];
  };
}

/**
 * One chart.
 *
 * spec: {key, title, log, signed (linear where some value is below 0), limits, unit(value), series: [{name, label, token}], shade: [{name, token, at}]}
 * shared: {sync, onZoom(from, to), onReset(), range() -> [from, to] | null}
 */
export class Chart {
  constructor(spec, shared) {
    this.spec = spec;
    this.shared = shared;
    this.reading = make("output", { className: "reading" });
    this.plot = make("div", { className: "plot", role: "img", "aria-label": spec.title });
    const legend = make("div", { className: "legend" });
    if (spec.legend) {
      for (const s of spec.series) {
        const swatch = make("span", { className: "swatch" });
        swatch.style.color = `var(${s.token})`;
        legend.append(make("span", {}, swatch, ` ${s.label}`));
      }
    }
    this.element = make(
      "figure",
      { className: "chart", "data-chart": spec.key },
      make("figcaption", {}, make("span", { className: "title" }, spec.title), this.reading),
      this.plot,
      ...(spec.legend ? [legend] : []),
    );
    this.chart = null;
    this.data = null;
    this.sizes = new ResizeObserver(() => this.fit());
    this.sizes.observe(this.plot);
  }

  fit() {
    const width = this.plot.clientWidth;
    if (!this.chart || !width || width === this.chart.width) return;
    this.chart.setSize({ width, height: HEIGHT });
  }

  /** Colours live in the canvas, so a change of theme draws the chart anew. */
  repaint() {
    if (!this.data) return;
    this.chart?.destroy();
    this.chart = null;
    this.show(this.data);
  }

  destroy() {
    this.sizes.disconnect();
    this.chart?.destroy();
  }

  /** data: {x, series: Map name -> [low, mean, high]} */
  show(data) {
    this.data = data;
    const { spec } = this;
    const log = spec.log && !(spec.signed && this.negative(data));
    if (log !== this.log) {
      this.chart?.destroy();
      this.chart = null;
      this.log = log;
    }
    const usable = (v) => Number.isFinite(v) && (!log || v > 0);
    const clean = (values) => Array.from(values, (v) => (usable(v) ? v : null));
    const rows = [Array.from(data.x)];
    for (const { name } of spec.series) {
      const levels = data.series.get(name);
      if (levels) {
        const [low, mean, high] = levels;
        rows.push(clean(mean), clean(low), clean(high));
      } else {
        const nothing = rows[0].map(() => null);
        rows.push(nothing, nothing, nothing);
      }
    }
    if (this.chart) this.chart.setData(rows);
    else if (this.plot.clientWidth) this.chart = new uPlot(this.options(), rows, this.plot);
    this.describe(rows);
  }

  /** Whether something would be missing on a logarithmic axis. */
  negative(data) {
    return this.spec.series.some(({ name }) => data.series.get(name)?.[0].some((v) => v < 0));
  }

  describe(rows) {
    this.plot.dataset.points = rows[0].length;
    const now = Date.now();
    if (this.described && now - this.described < 2000) return;
    this.described = now;
    const said = this.spec.series.slice(0, 12).map((s, i) => {
      const mean = rows[1 + 3 * i];
      let last = mean.length - 1;
      while (last >= 0 && mean[last] === null) last -= 1;
      return last < 0 ? `${s.label} without values` : `${s.label} ${this.spec.unit(mean[last])}`;
    });
    const steps = rows[0];
    const span = steps.length ? ` Steps ${steps[0]} to ${steps[steps.length - 1]}.` : "";
    this.plot.setAttribute("aria-label", `${this.spec.title}.${span} Last: ${said.join(", ")}.`);
  }

  options() {
    const { spec, shared } = this;
    const [ink, grid] = [colour("--ink-2"), colour("--grid")];
    const font = "12px system-ui, sans-serif";
    const axis = { stroke: ink, grid: { stroke: grid, width: 1 }, ticks: { stroke: grid, width: 1, size: 4 }, font };
    const series = [{}];
    const bands = [];
    spec.series.forEach(({ token, label }, k) => {
      const line = colour(token);
      const base = 1 + 3 * k;
      const quiet = { stroke: "transparent", width: 0, points: { show: false } };
      series.push({ label, stroke: line, width: 1.75, points: { show: points } }, { ...quiet }, { ...quiet });
      bands.push({ series: [base + 2, base + 1], fill: line.replace("rgb(", "rgba(").replace(")", ", 0.22)") });
    });
    function points(chart) {
      return chart.data[0].length < 3;
    }
    return {
      width: this.plot.clientWidth,
      height: HEIGHT,
      padding: [8, 10, 0, 0],
      legend: { show: false },
      cursor: {
        // The charts of a run show the same place; a stretch is chosen in one of them.
        sync: { key: shared.sync, setSeries: false, filters: { pub: (type) => type.startsWith("mousem") || type === "mouseleave" } },
        drag: { x: true, y: false, setScale: false },
        points: { size: 6 },
      },
      scales: {
        x: { time: false, range: (_c, low, high) => shared.range() ?? [low, low === high ? high + 1 : high] },
        y: this.log ? { distr: 3, range: logarithmic } : { range: linear(spec.limits) },
      },
      axes: [
        { ...axis, values: (_c, values) => values.map((v) => (Number.isInteger(v) ? v.toLocaleString("en") : "")), size: 28 },
        { ...axis, values: (_c, values) => ticks(values), size: 58, ...(this.log ? { splits: decades, filter: (_c, splits) => splits } : {}) },
      ],
      series,
      bands,
      hooks: {
        drawClear: [(chart) => this.shade(chart)],
        setCursor: [(chart) => this.read(chart)],
        setSelect: [
          (chart) => {
            if (chart.select.width < 6) return;
            const at = (px) => chart.posToVal(px, "x");
            shared.onZoom(at(chart.select.left), at(chart.select.left + chart.select.width));
            chart.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
          },
        ],
        ready: [(chart) => chart.over.addEventListener("dblclick", () => shared.onReset())],
      },
    };
  }

  /** Behind the lines: stretches where a weight sat on its floor, and steps that were skipped. */
  shade(chart) {
    const { ctx, bbox } = chart;
    const x = chart.data[0];
    for (const { names, token, least } of this.spec.shade ?? []) {
      const found = names.map((name) => this.data.series.get(name)?.[1]).filter(Boolean);
      if (!found.length) continue;
      ctx.save();
      ctx.fillStyle = colour(token);
      const half = x.length > 1 ? (x[x.length - 1] - x[0]) / (x.length - 1) : 1;
      let from = null;
      for (let i = 0; i <= x.length; i++) {
        const inside = i < x.length && found.some((values) => values[i] >= least);
        if (inside && from === null) from = x[i];
        if (!inside && from !== null) {
          const end = i < x.length ? x[i] : x[i - 1] + half;
          const left = Math.max(bbox.left, chart.valToPos(from, "x", true));
          const right = Math.min(bbox.left + bbox.width, chart.valToPos(end, "x", true));
          if (right > left) ctx.fillRect(left, bbox.top, Math.max(1, right - left), bbox.height);
          from = null;
        }
      }
      ctx.restore();
    }
  }

  read(chart) {
    const i = chart.cursor.idx;
    if (i === null || i === undefined || chart.cursor.left < 0) {
      this.reading.textContent = "";
      return;
    }
    const said = this.spec.series.slice(0, 6).map((s, k) => {
      const [mean, low, high] = [0, 1, 2].map((l) => chart.data[1 + 3 * k + l][i]);
      const unit = this.spec.unit;
      if (mean === null) return `${s.label} –`;
      return low === high ? `${s.label} ${unit(mean)}` : `${s.label} ${unit(mean)} (${unit(low)} to ${unit(high)})`;
    });
    this.reading.textContent = `step ${chart.data[0][i].toLocaleString("en")}: ${said.join(", ")}`;
  }
}
