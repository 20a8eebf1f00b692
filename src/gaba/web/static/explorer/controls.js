// The controls of the page: sliders with an exact value beside them, choices, buttons of presets.

import { h, swatch } from "../dom.js";

/** Scales of sliders: a position on the track to a value, and back. */
export const LINEAR = { at: (x) => x, from: (value) => value };
export const LOG = { at: (x) => 10 ** x, from: (value) => Math.log10(value) };
/** Factors up to 10⁴, and none at all at the end of the track. */
export const BOUND = { at: (x) => (x >= 4 ? Infinity : 10 ** x), from: (value) => Math.min(4, Math.log10(value)) };
/** Decades of λ : (1 − λ), so that a weight can come as near to 0 as to 1. */
export const ODDS = {
  at: (x) => 1 / (1 + 10 ** -x),
  from: (value) => Math.log10(value / (1 - value)),
};

/**
 * A slider named `label`. Its value may lie between two stops of the track (5.0 on a logarithmic
 * one): `set` keeps it exactly. With `exact`, a text field beside it takes any value in the range.
 *
 * Returns { element, set }; `change(value)` is called when a person moves it.
 */
export function slider({
  id, label, min, max, step = 0.01, value, scale = LINEAR, format = String,
  exact = false, colour = null, change,
}) {
  let now = value;
  const range = h("input", { id, type: "range", min, max, step });
  if (colour) range.style.setProperty("--thumb", colour);
  const text = exact
    ? h("input", {
        id: `${id}-exact`, type: "text", inputmode: "decimal", autocomplete: "off",
        "aria-label": `${label}, exact value`, class: "exact",
      })
    : h("output", { for: id });
  const element = h(
    "div",
    { class: "slider" },
    h("label", { for: id }, colour && swatch(colour), label),
    text,
    range,
  );

  const show = (withText = true) => {
    range.value = String(scale.from(now));
    range.setAttribute("aria-valuetext", format(now));
    if (!withText) return;
    if (exact) {
      text.value = format(now);
      text.removeAttribute("aria-invalid");
    } else {
      text.textContent = format(now);
    }
  };
  range.addEventListener("input", () => {
    now = scale.at(Number(range.value));
    range.setAttribute("aria-valuetext", format(now));
    if (exact) text.value = format(now);
    else text.textContent = format(now);
    change(now);
  });
  if (exact) {
    text.addEventListener("change", () => {
      const typed = Number(text.value.trim().replace(",", "."));
      const [low, high] = [scale.at(Number(range.min)), scale.at(Number(range.max))];
      const valid = text.value.trim() !== "" && typed >= low * (1 - 1e-9) && typed <= high * (1 + 1e-9);
      if (!valid) {
        text.setAttribute("aria-invalid", "true");
        text.title = `a number from ${format(low)} to ${format(high)}`;
        return;
      }
      text.removeAttribute("aria-invalid");
      text.title = "";
      now = typed;
      show(false);
      change(now);
    });
  }
  show();
  return {
    element,
    set: (next) => {
      now = next;
      show();
    },
  };
}

/** Radio buttons in one strip; `options` are [value, text] pairs. */
export function choice({ name, label, options, value, change, hideLabel = false }) {
  const inputs = new Map();
  const group = h("fieldset", { class: "segmented" }, h("legend", { class: "visually-hidden" }, label));
  for (const [key, text] of options) {
    const input = h("input", { type: "radio", name, value: key });
    input.checked = key === value;
    input.addEventListener("change", () => change(key));
    inputs.set(key, input);
    group.append(h("label", {}, input, h("span", {}, text)));
  }
  const element = hideLabel
    ? group
    : h("div", { class: "field" }, h("span", { class: "label", "aria-hidden": "true" }, label), group);
  return {
    element,
    set: (key) => {
      inputs.get(key).checked = true;
    },
  };
}

/** Buttons that each set several values at once; `presets` are [text, action] pairs. */
export function presets(label, entries) {
  return h(
    "div",
    { class: "presets", role: "group", "aria-label": label },
    entries.map(([text, action]) => h("button", { type: "button", class: "button", onclick: action }, text)),
  );
}

/** A native list of choices with a label. */
export function select({ id, label, options, value, change }) {
  const list = h("select", { id });
  const fillList = (entries, chosen) => {
    list.replaceChildren(...entries.map(([key, text]) => h("option", { value: key }, text)));
    list.value = chosen;
  };
  fillList(options, value);
  list.addEventListener("change", () => change(list.value));
  const element = h("div", { class: "field" }, h("label", { for: id }, label), list);
  return { element, set: (key) => { list.value = key; }, refill: fillList };
}

/** A field for one figure, checked against its range; `change(value)` gets valid figures only. */
export function figure({ id, label, hint, min, max, step = "any", value, whole = false, change }) {
  const input = h("input", {
    id, type: "number", min, max, step, value, inputmode: "decimal", "aria-describedby": `${id}-hint`,
  });
  const rule = `${whole ? "a whole number" : "a number"} from ${min} to ${max}`;
  const error = h("span", { class: "error", id: `${id}-error`, role: "alert" });
  input.addEventListener("input", () => {
    const typed = input.valueAsNumber;
    const valid = typed >= min && typed <= max && (!whole || Number.isInteger(typed));
    error.textContent = valid ? "" : `Give ${rule}.`;
    if (valid) input.removeAttribute("aria-invalid");
    else input.setAttribute("aria-invalid", "true");
    change(valid ? typed : null);
  });
  return h(
    "div",
    { class: "field" },
    h("label", { for: id }, label),
    input,
    h("span", { class: "hint", id: `${id}-hint` }, hint),
    error,
  );
}
