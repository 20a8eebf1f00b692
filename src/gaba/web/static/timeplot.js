// Curves over steps, drawn by uPlot in the colours of the page.

import { onWidth } from "./dom.js";
import { decadeTicks, tickText } from "./numbers.js";
import { colour } from "./theme.js";

/** So few values are shown as points. */
const FEW = 60;

/** The range of a logarithmic axis, with some room around the values. */
function logRange(low, high) {
  if (low === null || high === null || !(low > 0)) return [0.1, 10];
  const [a, b] = [Math.log10(low), Math.log10(high)];
  const pad = Math.max(0.05 * (b - a), 0.15 - (b - a) / 2, 0.02);
  return [Math.max(1e-300, 10 ** (a - pad)), Math.min(1e300, 10 ** (b + pad))];
}

function linearRange(low, high) {
  if (low === null || high === null) return [0, 1];
  const pad = 0.06 * (high - low || Math.abs(high) || 1);
  return [low - pad, high + pad];
}

/**
 * A plot in `mount` that follows its width and the theme.
 *
 * series: [{ token, width, dash, band, sparse }]; a series with a band has three rows of data: mean, least,
 * greatest; one that is sparse is joined over steps without a value, and few values are points.
 * xLabel, yLabel: what the axes are, with their units; yText(value): a value on the axis;
 * range: [low, high] of a linear axis; reach(): [low, high] that the axis must hold, or null;
 * span: [first, last] step, if not those of the data;
 * shades: [{ token, inside(i) }], what is shaded behind the lines;
 * marks(): [{ x } or { y, text }], dashed lines; hover(plot, i): the pointer is at index i, or null;
 * sync: plots of the same name show the same pointer; zoom: { view(), select(from, to), reset() }.
 *
 * Returns { show(data, log, label), destroy() } for data [[x…], [y…], …].
 */
export function timeplot(mount, { series, height, xLabel = "step", yLabel, yText = tickText, range, reach = () => null, span, shades = [], marks = () => [], hover, sync, zoom }) {
  let plot = null;
  let data = null;
  let log = false;
  let width = 0;

  /** The range of the y axis for values from `low` to `high`. */
  function rangeOf(_plot, low, high) {
    if (range && !log) return range;
    const held = [low, high, ...(reach() ?? [])].filter((value) => value !== null && (!log || value > 0));
    const ends = held.length ? [Math.min(...held), Math.max(...held)] : [null, null];
    return log ? logRange(...ends) : linearRange(...ends);
  }

  function options() {
    const [ink, pale] = [colour("--ink-2"), colour("--grid")];
    const axis = {
      stroke: ink, grid: { stroke: pale, width: 1 }, ticks: { stroke: pale, width: 1, size: 4 },
      font: "12px system-ui, sans-serif", labelFont: "12px system-ui, sans-serif", labelSize: 18, labelGap: 0,
    };
    const lines = [{}];
    const bands = [];
    const known = (values) => values.reduce((count, value) => count + (value !== null && value !== undefined), 0);
    for (const { token, dash, band, sparse = false, width: stroke = 1.75 } of series) {
      const points = { size: 5, show: (u, i) => (sparse ? known(u.data[i]) < FEW : u.data[0].length < 3) };
      const line = colour(token);
      if (band) bands.push({ series: [lines.length + 2, lines.length + 1], fill: line.replace("rgb(", "rgba(").replace(")", ", 0.22)") });
      lines.push({ stroke: line, dash, width: stroke, points, spanGaps: sparse });
      if (band) lines.push(...[0, 1].map(() => ({ stroke: "transparent", width: 0, points: { show: false }, spanGaps: sparse })));
    }
    return {
      width, height, bands,
      series: lines,
      padding: [8, 24, 0, 0],
      legend: { show: false },
      cursor: {
        y: false, points: { size: 6 },
        sync: sync && { key: sync, setSeries: false, filters: { pub: (type) => type.startsWith("mousem") || type === "mouseleave" } },
        drag: { x: Boolean(zoom), y: false, setScale: false },
      },
      scales: {
        x: { time: false, range: (_u, low, high) => zoom?.view() ?? span ?? [low, low === high ? high + 1 : high] },
        y: { distr: log ? 3 : 1, range: rangeOf },
      },
      axes: [
        { ...axis, values: (_u, values) => values.map((v) => (Number.isInteger(v) ? v.toLocaleString("en") : "")), size: 26, label: xLabel },
        { ...axis, values: (_u, values) => values.map((v) => (v === null ? "" : yText(v))), size: 52, label: yLabel, ...(log ? { splits: (_u, _axis, low, high) => decadeTicks(low, high), filter: (_u, splits) => splits } : {}) },
      ],
      hooks: {
        drawClear: [(u) => shades.forEach((shade) => paintShade(u, shade))],
        draw: [(u) => paintMarks(u, marks(), ink)],
        setCursor: [(u) => hover?.(u, u.cursor.left < 0 ? null : (u.cursor.idx ?? null))],
        setSelect: [(u) => {
          if (!zoom || u.select.width < 6) return;
          zoom.select(u.posToVal(u.select.left, "x"), u.posToVal(u.select.left + u.select.width, "x"));
          u.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
        }],
        ready: [(u) => zoom && u.over.addEventListener("dblclick", zoom.reset)],
      },
    };
  }

  function rebuild() {
    plot?.destroy();
    plot = width && data ? new globalThis.uPlot(options(), data, mount) : null;
  }
  mount.setAttribute("role", "img");
  const observer = onWidth(mount, (now) => {
    width = now;
    if (plot) plot.setSize({ width, height });
    else rebuild();
  });
  // The colours are in the canvas, so another theme is another plot.
  document.addEventListener("themechange", rebuild);
  return {
    show(next, logarithmic, label) {
      const kept = plot && log === logarithmic;
      [data, log] = [next, logarithmic];
      if (label) mount.setAttribute("aria-label", label);
      if (kept) plot.setData(data);
      else rebuild();
    },
    destroy() {
      observer.disconnect();
      document.removeEventListener("themechange", rebuild);
      plot?.destroy();
    },
  };
}

/** Shades from each step that is inside up to the next one. */
function paintShade(u, { token, inside }) {
  const { ctx, bbox } = u;
  const [x] = u.data;
  const mean = x.length > 1 ? (x.at(-1) - x[0]) / (x.length - 1) : 1;
  ctx.save();
  ctx.fillStyle = colour(token);
  for (let i = 0; i < x.length; i += 1) {
    if (!inside(i)) continue;
    const from = x[i];
    while (i + 1 < x.length && inside(i + 1)) i += 1;
    const to = i + 1 < x.length ? x[i + 1] : x[i] + mean;
    const left = Math.max(bbox.left, u.valToPos(from, "x", true));
    const right = Math.min(bbox.left + bbox.width, u.valToPos(to, "x", true));
    if (right > left) ctx.fillRect(left, bbox.top, Math.max(1, right - left), bbox.height);
  }
  ctx.restore();
}

function paintMarks(u, marks, stroke) {
  const { ctx, bbox } = u;
  ctx.save();
  ctx.strokeStyle = stroke;
  ctx.fillStyle = stroke;
  ctx.font = `${Math.round(11 * devicePixelRatio)}px system-ui, sans-serif`;
  ctx.textAlign = "right";
  ctx.setLineDash([4, 4]);
  for (const { x, y, text } of marks) {
    ctx.beginPath();
    if (x !== undefined) {
      const at = u.valToPos(x, "x", true);
      ctx.moveTo(at, bbox.top);
      ctx.lineTo(at, bbox.top + bbox.height);
    } else {
      const at = u.valToPos(y, "y", true);
      ctx.moveTo(bbox.left, at);
      ctx.lineTo(bbox.left + bbox.width, at);
      if (text) ctx.fillText(text, bbox.left + bbox.width - 4, at - 5 * devicePixelRatio);
    }
    ctx.stroke();
  }
  ctx.restore();
}
