// A plain SVG plot: scales, ticks, lines. For pictures of a few curves that people touch.

import { s } from "../dom.js";
import { tickText } from "../numbers.js";

/** A scale from [low, high] to pixels; `through` bends it (Math.log10, log-odds), default straight. */
export function scaleOf([low, high], [from, to], through = (value) => value) {
  const [a, b] = [through(low), through(high)];
  const scale = (value) => from + ((through(value) - a) / (b - a)) * (to - from);
  scale.share = (pixel) => a + ((pixel - from) / (to - from)) * (b - a);
  return scale;
}

/** About `count` round numbers that cover [0, high]. */
export function roundTicks(high, count = 5) {
  const rough = high / count;
  const unit = 10 ** Math.floor(Math.log10(rough));
  const step = unit * ([1, 2, 5, 10].find((factor) => factor * unit >= rough) ?? 10);
  return Array.from({ length: Math.floor(high / step + 1e-9) + 1 }, (_, i) => i * step);
}

/** Grid lines and figures for ticks along both axes, and what the axes are. */
export function axes({ x, y, xTicks, yTicks, box, xLabel, yLabel, xText = tickText }) {
  const [left, top, right, bottom] = box;
  const parts = yTicks.flatMap((value) => [
    s("line", { class: "grid", x1: left, x2: right, y1: y(value), y2: y(value) }),
    s("text", { class: "tick", x: left - 8, y: y(value), "text-anchor": "end", "dominant-baseline": "middle" }, tickText(value)),
  ]);
  for (const value of xTicks) {
    parts.push(
      s("line", { class: "grid", x1: x(value), x2: x(value), y1: top, y2: bottom }),
      s("text", { class: "tick", x: x(value), y: bottom + 18, "text-anchor": "middle" }, xText(value)),
    );
  }
  parts.push(
    s("text", { class: "axis", x: right, y: bottom + 38, "text-anchor": "end" }, xLabel),
    s("text", { class: "axis", x: left, y: top - 12 }, yLabel),
  );
  return s("g", {}, parts);
}

/** The path through points [[x, y], …], in pixels. */
export function path(points) {
  return points.map(([x, y], i) => `${i ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`).join("");
}
