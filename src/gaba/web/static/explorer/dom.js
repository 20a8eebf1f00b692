// Small helpers: elements, numbers as text, plain statistics of layout.

const SVG = "http://www.w3.org/2000/svg";

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (name === "style") {
      // set one by one: a style attribute would be refused by the content security policy
      for (const [key, one] of Object.entries(value)) element.style.setProperty(key, one);
    } else if (name.startsWith("on")) {
      element.addEventListener(name.slice(2), value);
    } else {
      element.setAttribute(name, value === true ? "" : value);
    }
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
  return element;
}

/** An HTML element: h("p", { class: "note" }, "text", child). */
export function h(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** The same for SVG. */
export function s(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

export const byId = (id) => document.getElementById(id);

/** Puts new text where it differs, so that readers of live regions hear a change only once. */
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** The CSS colour of task k, counted from 0. */
export const taskColour = (k) => `var(--task-${(k % 12) + 1})`;

const SUBSCRIPTS = "₀₁₂₃₄₅₆₇₈₉";
const SUPERSCRIPTS = "⁰¹²³⁴⁵⁶⁷⁸⁹";

/** 12 as ₁₂. */
export const sub = (n) => [...String(n)].map((digit) => SUBSCRIPTS[digit]).join("");

/** 10 to a whole power, as text: 10⁻⁴. */
export function power(exponent) {
  const digits = [...String(Math.abs(exponent))].map((digit) => SUPERSCRIPTS[digit]).join("");
  return `10${exponent < 0 ? "⁻" : ""}${digits}`;
}

function scientific(value, digits) {
  const [mantissa, exponent] = value.toExponential(digits).split("e");
  return `${mantissa}·${power(Number(exponent))}`;
}

const odd = (value) =>
  Number.isNaN(value) ? "–" : value === Infinity ? "∞" : value === 0 ? "0" : null;

/** A weight: four decimals, as in the tables of the documentation. */
export function weightText(value) {
  return odd(value) ?? (Math.abs(value) < 5e-4 ? scientific(value, 2) : value.toFixed(4));
}

/** A contribution: six decimals, fewer where it is large. */
export function pullText(value) {
  const special = odd(value);
  if (special !== null) return special;
  if (value < 1e-4 || value >= 1e6) return scientific(value, 3);
  return value.toFixed(value >= 100 ? 3 : 6);
}

/** An imbalance or another ratio: 22.36×. */
export function timesText(value, digits = 2) {
  const special = odd(value);
  if (special !== null) return special === "–" ? special : `${special}×`;
  if (value >= 1e5) return `${scientific(value, 2)}×`;
  return `${value.toFixed(value >= 1000 ? 0 : digits)}×`;
}

/** A norm as a person would write it: 5, 0.01, 1234. */
export function normText(value) {
  if (value === 0) return "0";
  if (value < 1e-4 || value >= 1e5) return value.toExponential(2);
  return String(Number(value.toPrecision(4)));
}

/** A figure on a logarithmic axis: whole powers of ten only, others stay blank. */
export function tickPower(value) {
  const exponent = Math.log10(value);
  if (Math.abs(exponent - Math.round(exponent)) > 1e-6) return "";
  return Math.abs(exponent) < 3.5 ? String(Number(value.toPrecision(3))) : power(Math.round(exponent));
}

/** Balanced to the digits shown: 1.00×. */
export const isBalanced = (ratio) => ratio < 1.005;

const TOUCHED = "button, summary, a, input, select";

/** Puts new children into `mount`; what had the focus there, or was unfolded, keeps it by its place. */
export function swap(mount, ...children) {
  const before = [...mount.querySelectorAll(TOUCHED)];
  const focused = before.indexOf(document.activeElement);
  const open = [...mount.querySelectorAll("details")].map((details) => details.open);
  mount.replaceChildren(...children.flat());
  mount.querySelectorAll("details").forEach((details, i) => {
    details.open = open[i] ?? false;
  });
  if (focused >= 0) mount.querySelectorAll(TOUCHED)[focused]?.focus({ preventScroll: true });
}

/** Calls `draw(width)` now and whenever the width of `element` has changed. */
export function onWidth(element, draw) {
  let last = 0;
  const observer = new ResizeObserver(() => {
    const width = Math.floor(element.clientWidth);
    if (width && width !== last) {
      last = width;
      draw(width);
    }
  });
  observer.observe(element);
}

/** Runs `work` in the next frame, once, however often it was asked for. */
export function onceAFrame(work) {
  let waiting = false;
  return () => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => {
      waiting = false;
      work();
    });
  };
}
