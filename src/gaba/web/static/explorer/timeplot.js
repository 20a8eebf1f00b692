// Curves over steps, drawn by uPlot in the colours of the page.

import { colour } from "../theme.js";
import { onWidth, tickPower } from "./dom.js";

/**
 * A plot in `mount` that follows its width and the theme.
 *
 * series: [{ name, token, dash, width }], log: whether the values have a logarithmic axis,
 * shade: () => [[from, to], …] stretches to shade, hover(step index or null) as the pointer moves.
 * Returns { show(data) } for data [[x…], [y…], …].
 */
export function timeplot(mount, { series, log = false, height = 170, shade = () => [], hover, label, range, marks = () => [], sync }) {
  let plot = null;
  let data = null;
  let width = 0;

  function options() {
    const ink = colour("--ink-2");
    const grid = { stroke: colour("--grid"), width: 1 };
    const decades = log ? { filter: (_, ticks) => ticks.map((v) => (tickPower(v) ? v : null)) } : {};
    const axis = { stroke: ink, grid, ticks: { ...grid, size: 5 }, font: "12px system-ui, sans-serif" };
    return {
      width, height,
      padding: [10, 26, 0, 0],
      legend: { show: false },
      cursor: { y: false, drag: { x: false, y: false }, points: { size: 7 }, sync: sync ? { key: sync } : undefined },
      scales: { x: { time: false }, y: { distr: log ? 3 : 1, ...(range ? { range } : {}) } },
      axes: [
        { ...axis, space: 60, size: 34 },
        { ...axis, ...decades, grid: { ...grid, ...decades }, ticks: { ...grid, size: 5, ...decades }, size: 58, space: 26, values: (_, ticks) => ticks.map((v) => (v === null ? "" : log ? tickPower(v) : String(Number(v.toPrecision(4))))) },
      ],
      series: [
        {},
        ...series.map(({ name, token, dash, width: stroke = 1.6 }) => ({
          label: name, stroke: colour(token), dash, width: stroke, points: { show: false },
        })),
      ],
      hooks: {
        drawClear: [(u) => paintStretches(u, shade(), colour("--saturated"))],
        draw: [(u) => paintMarks(u, marks(), ink)],
        setCursor: [(u) => hover?.(u.cursor.idx ?? null)],
      },
    };
  }

  function rebuild() {
    if (!width || !data) return;
    plot?.destroy();
    plot = new globalThis.uPlot(options(), data, mount);
  }
  mount.setAttribute("role", "img");
  onWidth(mount, (now) => {
    width = now;
    if (plot) plot.setSize({ width, height });
    else rebuild();
  });
  document.addEventListener("themechange", rebuild);
  return {
    show(next, spoken = label) {
      data = next;
      mount.setAttribute("aria-label", spoken);
      if (plot) plot.setData(data);
      else rebuild();
    },
  };
}

function paintStretches(u, stretches, fill) {
  const { ctx, bbox } = u;
  ctx.save();
  ctx.fillStyle = fill;
  for (const [from, to] of stretches) {
    const left = Math.max(bbox.left, u.valToPos(from - 0.5, "x", true));
    const right = Math.min(bbox.left + bbox.width, u.valToPos(to + 0.5, "x", true));
    ctx.fillRect(left, bbox.top, Math.max(right - left, 1), bbox.height);
  }
  ctx.restore();
}

function paintMarks(u, marks, stroke) {
  const { ctx, bbox } = u;
  ctx.save();
  ctx.strokeStyle = stroke;
  ctx.setLineDash([4, 4]);
  for (const { x, y } of marks) {
    ctx.beginPath();
    if (x !== undefined) {
      const at = u.valToPos(x, "x", true);
      ctx.moveTo(at, bbox.top);
      ctx.lineTo(at, bbox.top + bbox.height);
    } else {
      const at = u.valToPos(y, "y", true);
      ctx.moveTo(bbox.left, at);
      ctx.lineTo(bbox.left + bbox.width, at);
    }
    ctx.stroke();
  }
  ctx.restore();
}
