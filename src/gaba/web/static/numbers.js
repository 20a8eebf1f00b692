// Numbers as people read them.

const SUBSCRIPTS = "₀₁₂₃₄₅₆₇₈₉";
const SUPERSCRIPTS = "⁰¹²³⁴⁵⁶⁷⁸⁹";
const inDigits = (n, digits) => [...String(n)].map((digit) => digits[digit]).join("");

/** 12 as ₁₂. */
export const sub = (n) => inDigits(n, SUBSCRIPTS);

/** 10 to a whole power: 10⁻⁴. */
export const power = (exponent) => `10${exponent < 0 ? "⁻" : ""}${inDigits(Math.abs(exponent), SUPERSCRIPTS)}`;

function scientific(value, digits) {
  const [mantissa, exponent] = value.toExponential(digits).split("e");
  return `${mantissa}·${power(Number(exponent))}`;
}

/** The text of a value that has no digits: absent, infinite or zero. */
function special(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  if (Math.abs(value) === Infinity) return value > 0 ? "∞" : "−∞";
  return value === 0 ? "0" : null;
}

/** Three digits that mean something: 0.0123, 25.1, 1,234, 3.2·10⁻⁸. */
export function short(value) {
  const text = special(value);
  if (text !== null) return text;
  const size = Math.abs(value);
  if (size >= 1e6 || size < 1e-4) return scientific(value, 1);
  return size >= 100 ? whole(value) : value.toPrecision(3);
}

/** A weight: four decimals, as in the tables of the documentation. */
export function weightText(value) {
  return special(value) ?? (Math.abs(value) < 5e-4 ? scientific(value, 2) : value.toFixed(4));
}

/** A multiplier: 0.5010, 250.5, 5.0·10⁷. */
export function multiplierText(value) {
  return value >= 10 && value < 1e4 ? value.toPrecision(4) : value >= 10 ? short(value) : weightText(value);
}

/** A contribution: six decimals, fewer where it is large. */
export function pullText(value) {
  const text = special(value);
  if (text !== null) return text;
  if (value < 1e-4 || value >= 1e6) return scientific(value, 3);
  return value.toFixed(value >= 100 ? 3 : 6);
}

/** An imbalance or another ratio: 22.36×. */
export function timesText(value, digits = 2) {
  const text = special(value);
  if (text !== null) return text === "–" ? text : `${text}×`;
  if (value >= 1e5) return `${scientific(value, 2)}×`;
  return `${value.toFixed(value >= 1000 ? 0 : digits)}×`;
}

/** A number as a person types it: 5, 0.01, 1234. */
export function typedText(value) {
  if (value === 0) return "0";
  if (value < 1e-4 || value >= 1e5) return value.toExponential(2);
  return String(Number(value.toPrecision(4)));
}

/** A number on an axis: 0.01, 1, 100; powers where those would be long. */
export function tickText(value) {
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1e-3 && size < 1e5) return String(Number(value.toPrecision(6)));
  const exponent = Math.floor(Math.log10(size) + 1e-9);
  const lead = Number((value / 10 ** exponent).toPrecision(3));
  return `${lead === 1 ? "" : `${lead}·`}${power(exponent)}`;
}

/** The round numbers of a logarithmic axis: powers of ten, with 2 and 5 between them where there are few. */
export function decadeTicks(low, high) {
  if (!(low > 0) || !Number.isFinite(high)) return [];
  const [from, to] = [Math.floor(Math.log10(low)), Math.ceil(Math.log10(high))];
  const every = Math.max(1, Math.ceil((to - from) / 6));
  const steps = to - from > 2 ? [1] : [1, 2, 5];
  const powers = Array.from({ length: Math.floor((to - from) / every) + 1 }, (_, i) => from + i * every);
  const found = powers.flatMap((exponent) => steps.map((step) => Number(`${step}e${exponent}`))).filter((value) => value >= low && value <= high);
  return found.length ? found : [Number(Math.sqrt(low * high).toPrecision(2))];
}

export const whole = (value) => Math.round(value).toLocaleString("en");

export function percent(part) {
  if (special(part) !== null || part === 1) return part === 0 || part === 1 ? `${100 * part} %` : "–";
  if (Math.abs(part) < 0.001) return part > 0 ? "under 0.1 %" : "below 0 %";
  return part < 1 && part > 0.999 ? "over 99.9 %" : `${(100 * part).toFixed(1).replace("-", "−")} %`;
}

export function seconds(value) {
  if (special(value) !== null) return special(value);
  if (value < 0.001) return `${short(value * 1e6)} µs`;
  return value < 1 ? `${short(value * 1e3)} ms` : `${short(value)} s`;
}
