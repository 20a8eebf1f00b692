// Numbers as people read them.

/** Three digits that mean something: 0.0123, 25.1, 1,234, 3.2e-8; a dash for what is absent. */
export function short(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  const size = Math.abs(value);
  if (size === 0) return "0";
  if (size >= 1e6 || size < 1e-4) return value.toExponential(1).replace("e+", "e");
  if (size >= 100) return Math.round(value).toLocaleString("en");
  return value.toPrecision(3);
}

/** A weight: .048; three digits after the point, or as many as it takes to see something. */
export function weight(value) {
  if (value === null || value === undefined) return "–";
  if (value >= 0.0005 || value === 0) return value.toFixed(3).replace(/^0/, "");
  return value.toExponential(1);
}

export const whole = (value) => (value === null ? "–" : Math.round(value).toLocaleString("en"));

export function percent(part) {
  if (part === 0 || part === 1) return `${100 * part} %`;
  if (part < 0.001) return "under 0.1 %";
  return part > 0.999 ? "over 99.9 %" : `${(100 * part).toFixed(1)} %`;
}

export function seconds(value) {
  if (value === null || Number.isNaN(value)) return "–";
  if (value < 0.001) return `${short(value * 1e6)} µs`;
  return value < 1 ? `${short(value * 1e3)} ms` : `${short(value)} s`;
}

/** An element with properties, and children that are elements or text. */
export function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.includes("-") || name === "role" || name === "scope") element.setAttribute(name, value);
    else element[name] = value;
  }
  element.append(...children);
  return element;
}
