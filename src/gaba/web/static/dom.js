// Elements, and when they are drawn.

const SVG = "http://www.w3.org/2000/svg";

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (name === "style") {
      // one by one: the content security policy refuses a style attribute
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

/** The token of task k, counted from 0, such as "--task-1". */
export const taskToken = (k) => `--task-${(k % 12) + 1}`;

/** Its CSS colour. */
export const taskColour = (k) => `var(${taskToken(k)})`;

export const swatch = (colour) => h("span", { class: "swatch", style: { color: colour } });

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

/** Calls `draw(width)` now and whenever the width of `element` changes; returns the observer. */
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
  return observer;
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
