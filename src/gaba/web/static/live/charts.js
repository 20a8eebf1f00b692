// Charts of a run: for each series its mean as a line, its least and greatest as a band.

import { h, swatch } from "../dom.js";
import { whole } from "../numbers.js";
import { timeplot } from "../timeplot.js";

const HEIGHT = 212;
const SPOKEN = 12;
/** Over a dashed line there is room for its text. */
const HEADROOM = 1.4;

/**
 * One chart.
 *
 * spec: {key, title, axis, log, range, unit(value), series: [{name, label, token}], shade: [{names, token, least}],
 * marks: [{ y, text }], dashed lines that the axis holds; sparse: it is measured now and then; legend}
 * shared: {sync, zoom}, as timeplot has them
 */
export class Chart {
  constructor(spec, shared) {
    this.spec = spec;
    this.reading = h("output", { class: "reading" });
    this.mount = h("div", { class: "plot" });
    this.element = h(
      "figure",
      { class: "chart", "data-chart": spec.key },
      h("figcaption", {}, h("span", { class: "title" }, spec.title), this.reading),
      this.mount,
      spec.legend && h("div", { class: "legend" }, spec.series.map((one) => h("span", {}, swatch(`var(${one.token})`), ` ${one.label}`))),
    );
    this.plot = timeplot(this.mount, {
      ...shared, height: HEIGHT, range: spec.range, yLabel: spec.axis, yText: spec.tick,
      marks: () => spec.marks ?? [],
      reach: () => spec.marks?.flatMap(({ y, text }) => [y, y * (text ? HEADROOM : 1)]),
      series: spec.series.map(({ token }) => ({ token, band: true, sparse: spec.sparse })),
      shades: (spec.shade ?? []).map(({ names, token, least }) => ({
        token, inside: (i) => names.some((name) => this.data.series.get(name)?.[1][i] >= least),
      })),
      hover: (u, i) => this.read(u.data, i),
    });
  }

  destroy() {
    this.plot.destroy();
  }

  /** data: {x, series: Map name -> [low, mean, high]} */
  show(data) {
    this.data = data;
    const found = this.spec.series.map(({ name }) => data.series.get(name) ?? [[], [], []]);
    // A logarithmic axis would leave out a loss below 0.
    const log = Boolean(this.spec.log) && !found.some(([low]) => low.some((v) => v < 0));
    const clean = (values) => Array.from(data.x, (_, i) => (Number.isFinite(values[i]) && (!log || values[i] > 0) ? values[i] : null));
    const rows = [Array.from(data.x), ...found.flatMap(([low, mean, high]) => [clean(mean), clean(low), clean(high)])];
    this.mount.dataset.points = rows[0].length;
    this.plot.show(rows, log, this.description(rows));
  }

  /** What a screen reader says; the same for two seconds, so that it is not said over and over. */
  description([steps, ...rows]) {
    const now = Date.now();
    if (now - (this.described ?? 0) < 2000) return null;
    this.described = now;
    const { title, series, unit } = this.spec;
    const said = series.slice(0, SPOKEN).map(({ label }, i) => {
      const last = rows[3 * i].findLast((value) => value !== null);
      return last === undefined ? `${label} without values` : `${label} ${unit(last)}`;
    });
    const span = steps.length ? ` Steps ${steps[0]} to ${steps.at(-1)}.` : "";
    return `${title}.${span} Last: ${said.join(", ")}.`;
  }

  read([steps, ...rows], i) {
    const { series, unit } = this.spec;
    const said = series.slice(0, 6).map(({ label }, k) => {
      const [mean, low, high] = rows.slice(3 * k, 3 * k + 3).map((row) => row[i] ?? null);
      if (mean === null) return `${label} –`;
      return low === high ? `${label} ${unit(mean)}` : `${label} ${unit(mean)} (${unit(low)} to ${unit(high)})`;
    });
    this.reading.textContent = i === null ? "" : `step ${whole(steps[i])}: ${said.join(", ")}`;
  }
}
