// Bars: how hard each task pulls, as a length and as a figure.

import { h, taskColour } from "../dom.js";

/**
 * Horizontal bars, one a task, on one linear scale from 0 to the largest value.
 * `text(value)` is the figure; `names` the words for each bar.
 */
export function bars(values, { label, names, text }) {
  const largest = Math.max(...values.map((value) => (Number.isFinite(value) ? value : 0)));
  const spoken = values.map((value, k) => `${names[k]} ${text(value)}`).join(", ");
  return h(
    "div",
    { class: "bars", role: "img", "aria-label": `${label}: ${spoken}` },
    values.map((value, k) => [
      h("span", { class: "bar-name" }, names[k]),
      h(
        "span",
        { class: "bar-track" },
        h("span", {
          class: "bar",
          style: {
            width: `${largest > 0 ? Math.max((100 * value) / largest, 0) : 0}%`,
            background: taskColour(k),
          },
        }),
      ),
      h("span", { class: "bar-text num" }, text(value)),
    ]),
  );
}

/**
 * Upright bars of parts of a whole (they may be negative), with a line where equal parts would be.
 * The scale goes from `low` to `high`, so that several such plots can be compared.
 */
export function columns(values, { label, low = 0, high = 1, text }) {
  const K = values.length;
  const spoken = values.map((value, k) => `task ${k + 1} ${text(value)}`).join(", ");
  const at = (value) => (100 * (value - low)) / (high - low);
  const part = (value) => {
    const shown = Number.isFinite(value) ? Math.min(high, Math.max(low, value)) : 0;
    return { bottom: `${at(Math.min(shown, 0))}%`, height: `${Math.max(at(Math.max(shown, 0)) - at(Math.min(shown, 0)), 0.8)}%` };
  };
  return h(
    "div",
    { class: "columns", role: "img", "aria-label": `${label}: ${spoken}` },
    h("span", { class: "equal-line", style: { bottom: `${at(1 / K)}%` } }),
    low < 0 ? h("span", { class: "zero-line", style: { bottom: `${at(0)}%` } }) : null,
    values.map((value, k) =>
      h(
        "span",
        { class: "column" },
        h("span", { class: "column-bar", style: { ...part(value), background: taskColour(k) } }),
      ),
    ),
  );
}
