// The stabilisers of gaba.stabilisers that the lab uses, for all K tasks present in every step.
//
// Each is made once and called once a step: stabiliser(values) -> values. `settled` is what it has
// seen for ever before. A floor says in `.saturated` which weights asked for less than it in the
// last step.

/** The average of values from 1/K on, as the paper smooths weights; debiased, from nothing on. */
export function ema(decay, nTasks, { debias = false, settled = null } = {}) {
  let mean = settled ?? new Array(nTasks).fill(debias ? 0 : 1 / nTasks);
  let mass = debias ? 0 : 1;
  return (values) => {
    mean = mean.map((value, k) => decay * value + (1 - decay) * values[k]);
    mass = decay * mass + (1 - decay);
    return mean.map((value) => value / mass);
  };
}

/** The debiased average of log-norms. A norm of 0 or below is not taken in. */
export function logEma(decay, nTasks, { settled = null } = {}) {
  const mean = settled?.map(Math.log) ?? new Array(nTasks).fill(0);
  const mass = new Array(nTasks).fill(settled ? 1 : 0);
  return (norms) =>
    norms.map((g, k) => {
      if (g > 0) {
        mean[k] = decay * mean[k] + (1 - decay) * Math.log(g);
        mass[k] = decay * mass[k] + (1 - decay);
      }
      return mass[k] > 0 ? Math.exp(mean[k] / mass[k]) : g;
    });
}

/** The rate of a belief's second norm, and its largest one. */
export const FIRST_RATE = 0.3;
const FASTEST_RATE = 0.5;

/**
 * The log-norms that the default method believes: each norm moves them by a part of the way, but
 * counts as no more than e^jump away. The part starts at 0.3; it grows by a factor of 1.2, up to
 * 0.5, while errors keep their sign, and shrinks by 0.6, down to 1/(1 + n) for n norms so far and
 * to `rate`, when they alternate. What has settled is at `rate`. A belief is never more than e^jump
 * below the last norm. A negative norm, of a task that opposes the update, is e^jump below what is
 * believed, or, if it is the first, below its size.
 */
export function belief(rate, nTasks, { jump = 2.3, settled = null } = {}) {
  const log = settled?.map(Math.log) ?? new Array(nTasks).fill(null);
  const rates = new Array(nTasks).fill(settled ? rate : FIRST_RATE);
  const sides = new Array(nTasks).fill(0);
  const counts = new Array(nTasks).fill(settled ? Infinity : 0);
  const within = (bound, value) => Math.min(bound, Math.max(-bound, value));
  return (norms) =>
    norms.map((g, k) => {
      if (log[k] === null && g !== 0) log[k] = Math.log(Math.abs(g)) - (g < 0 ? jump : 0);
      else if (g !== 0) {
        const gap = g > 0 ? within(jump, Math.log(g) - log[k]) : -jump;
        const side = Math.sign(gap);
        if (side && sides[k]) rates[k] *= side === sides[k] ? 1.2 : 0.6;
        const least = Math.max(rate, Math.min(FIRST_RATE, 1 / (1 + counts[k])));
        rates[k] = Math.min(FASTEST_RATE, Math.max(least, rates[k]));
        sides[k] = side || sides[k];
        log[k] += within(Math.LN2, rates[k] * gap);
        if (g > 0) log[k] = Math.max(log[k], Math.log(g) - jump);
      }
      counts[k] += g !== 0;
      return log[k] === null ? g : Math.exp(log[k]);
    });
}

/** No weight below m: max(λ, m) renormalised (the paper's), or the nearest point with λ ≥ m. */
export function floor(m, mode = "renormalise") {
  const stabiliser = (weights) => {
    stabiliser.saturated = weights.map((weight) => weight < m);
    if (mode === "project") return project(weights, m);
    const raised = weights.map((weight) => Math.max(weight, m));
    const total = raised.reduce((a, b) => a + b, 0);
    return raised.map((weight) => weight / total);
  };
  stabiliser.saturated = [];
  return stabiliser;
}

function project(weights, m) {
  const excess = weights.map((weight) => weight - m);
  const ordered = [...excess].sort((a, b) => b - a);
  const rest = 1 - m * weights.length;
  let threshold = 0;
  let running = 0;
  ordered.forEach((value, k) => {
    running += value;
    const candidate = (running - rest) / (k + 1);
    if (k === 0 || value > candidate) threshold = candidate;
  });
  return excess.map((value) => m + Math.max(value - threshold, 0));
}

/** 1/K for the first steps, then what comes in. */
export function warmup(steps) {
  let count = 0;
  return (weights) => {
    count += 1;
    return count <= steps ? weights.map(() => 1 / weights.length) : weights;
  };
}
