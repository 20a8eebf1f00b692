// The small simulations of the page: a noisy stream of norms, what a balancer makes of it, and how
// long the update of an optimizer is. Everything is drawn from a seed, so that a setting repeats.

import { multipliers, recovery, rise } from "./multipliers.js";
import { contributions, imbalance, inverseNorm, sum, uniform } from "./rules.js";
import { FIRST_RATE, belief, ema, floor, logEma, warmup } from "./stabilisers.js";

/** Random numbers from a seed (mulberry32): uniform in [0, 1), and normal. */
export function generator(seed) {
  let state = seed >>> 0;
  const next = () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
  const normal = () => Math.sqrt(-2 * Math.log(1 - next())) * Math.cos(2 * Math.PI * next());
  return { next, normal };
}

/**
 * Norms of two tasks over `steps` steps: from `start`, log-normal noise of standard deviation
 * `noise`, the ratio g_1/g_2 drifting by `drift` decades over the run, and `bursts` single steps in
 * a thousand, in the mean, that are `burstSize` times as large.
 */
export function normStream({ start, noise, drift, bursts, burstSize = 30, steps, seed }) {
  const random = generator(seed);
  return Array.from({ length: steps }, (_, i) => {
    const moved = (drift * i) / Math.max(steps - 1, 1) / 2; // half of it by each task
    return start.map((g, k) => {
      const scatter = Math.exp(noise * random.normal());
      const burst = random.next() < bursts / 1000 ? burstSize : 1;
      return g * 10 ** (k === 0 ? moved : -moved) * scatter * burst;
    });
  });
}

/**
 * The way from norms to multipliers: believe the norms, invert, warm up, smooth and floor the
 * weights, scale and limit the multipliers, and let them rise by no more than a factor in one step
 * (Infinity is no limit, no recovery, no bound on the rise).
 * `settled`: norms that it has seen for ever before.
 *
 * A step is { multipliers, weights, saturated }, the last one of "floor", "limit" or "".
 */
function pipeline(settings, nTasks = 2, settled = null) {
  const { smoothing, decay, floorAt, floorMode, warmupSteps, scale = "simplex", limit = Infinity, recover = Infinity, rising = Infinity } = settings;
  const believers = { norms: () => logEma(decay, nTasks, { settled }), belief: () => belief(Math.min(FIRST_RATE, 1 - decay), nTasks, { settled }) };
  const believe = believers[smoothing]?.() ?? ((norms) => norms);
  const recovered = recovery(recover);
  const warm = warmup(settled ? 0 : warmupSteps);
  const known = settled && inverseNorm(settled);
  const smooth = smoothing === "weights" ? ema(decay, nTasks, { settled: known }) : (weights) => weights;
  const floored = floor(floorAt, floorMode);
  const start = known ? multipliers(scale, known, settled, limit) : new Array(nTasks).fill(scale === "simplex" ? 1 / nTasks : 1);
  const bounded = rise(rising, start);
  return (norms) => {
    const believed = recovered(believe(norms));
    const wanted = floored(smooth(warm(inverseNorm(believed))));
    const asked = multipliers(scale, wanted, believed, limit);
    const m = bounded(asked);
    const total = sum(m);
    const limited = asked.some((one) => one === limit || one === 1 / limit);
    return {
      multipliers: m,
      weights: m.map((one) => one / total),
      saturated: floored.saturated.some(Boolean) ? "floor" : limited ? "limit" : "",
    };
  };
}

/** What a balancer with these settings makes of a stream: a row of figures a step. */
export function run(norms, settings) {
  const step = pipeline(settings, norms[0]?.length ?? 2);
  return norms.map((g) => {
    const made = step(g);
    return { norms: g, ...made, imbalance: imbalance(made.multipliers, g) };
  });
}

/** What is worth saying about such rows. */
export function summary(rows, last = 500) {
  const saturated = rows.filter((row) => row.saturated).length;
  const tail = rows.slice(-last).map((row) => row.imbalance);
  const moves = rows
    .slice(-last)
    .map((row, i, all) => (i ? Math.abs(Math.log(row.weights[0] / all[i - 1].weights[0])) : 0));
  return {
    saturated: saturated / rows.length,
    firstSaturated: rows.findIndex((row) => row.saturated) + 1, // 0: never
    before: median(rows.slice(-last).map(({ norms }) => imbalance(uniform(norms), norms))),
    remaining: median(tail),
    last: rows.at(-1),
    jump: Math.expm1(median(moves.slice(1))),
  };
}

export function median(values) {
  const ordered = [...values].sort((a, b) => a - b);
  const middle = ordered.length >> 1;
  return ordered.length % 2 ? ordered[middle] : (ordered[middle - 1] + ordered[middle]) / 2;
}

/**
 * How the log-ratio of the weights follows when g_1 becomes ten times as large at step 1, as a part
 * of the way that the rule asks for; everything had settled before (no warm-up left).
 * `reached` is the first step at 1 − 1/e of the way, 0 where the floor keeps it from getting there.
 */
export function stepResponse(start, settings, { steps = 500 } = {}) {
  const step = pipeline(settings, 2, start);
  const logRatio = (norms) => {
    const { weights } = step(norms);
    return Math.log(weights[1] / weights[0]);
  };
  const before = logRatio(start);
  const after = [10 * start[0], start[1]];
  const way = Math.log(10);
  const path = Array.from({ length: steps }, () => (logRatio(after) - before) / way);
  return { path, reached: path.findIndex((part) => part >= 1 - Math.exp(-1)) + 1 };
}

/** The multipliers of a scale under the inverse rule, or 1 each for the "plain" sum. */
function scaled(scale, norms) {
  return scale === "plain" ? norms.map(() => 1) : multipliers(scale, inverseNorm(norms), norms);
}

/** Plain SGD: θ moves by lr · gradient. */
function sgd(lr) {
  return (gradient) => gradient.map((value) => lr * value);
}

/** Adam with its usual settings (β 0.9 and 0.999, ε 1e-8), bias corrected. */
function adam(lr) {
  let t = 0;
  const m = [];
  const v = [];
  return (gradient) => {
    t += 1;
    return gradient.map((value, i) => {
      m[i] = 0.9 * (m[i] ?? 0) + 0.1 * value;
      v[i] = 0.999 * (v[i] ?? 0) + 0.001 * value * value;
      return (lr * (m[i] / (1 - 0.9 ** t))) / (Math.sqrt(v[i] / (1 - 0.999 ** t)) + 1e-8);
    });
  };
}

const length = (vector) => Math.sqrt(sum(vector.map((value) => value * value)));

/**
 * The mean length of an update, over the last half of `steps` steps, in `dimensions` dimensions:
 * two tasks of constant norms and cosine, each gradient with noise as long as itself.
 */
export function updateLength({ optimizer, scale, norms, cosine, lr, steps = 160, dimensions = 48 }) {
  const random = generator(7);
  const axes = [[1, 0], [cosine, Math.sqrt(Math.max(0, 1 - cosine * cosine))]];
  // Both unit gradients, spread over all dimensions by a sign pattern on each half of the pairs.
  const pairs = dimensions / 2;
  const unit = axes.map(([along, across]) =>
    Array.from({ length: dimensions }, (_, i) => (i % 2 ? across : along) / Math.sqrt(pairs)),
  );
  const pull = contributions(scaled(scale, norms), norms);
  const step = optimizer === "adam" ? adam(lr) : sgd(lr);
  let total = 0;
  for (let i = 0; i < steps; i += 1) {
    const gradient = new Array(dimensions).fill(0);
    unit.forEach((direction, k) => {
      direction.forEach((value, j) => {
        const noise = random.normal() / Math.sqrt(dimensions);
        gradient[j] += pull[k] * (value + noise);
      });
    });
    const update = length(step(gradient));
    if (i >= steps / 2) total += update;
  }
  return total / (steps / 2);
}

/**
 * How far from the optimum a run is after each step, as a part of the start: two losses of one bowl
 * in different units, L_k = ½ (g_k / ‖θ_0‖) ‖θ‖², so that g_k is the norm of task k at the start.
 */
export function descent({ optimizer, scale, norms, lr, steps = 300, dimensions = 8 }) {
  const theta = Array.from({ length: dimensions }, (_, i) => (i % 2 ? -1 : 1));
  const start = length(theta);
  const step = optimizer === "adam" ? adam(lr) : sgd(lr);
  const slope = sum(contributions(scaled(scale, norms), norms)) / start;
  return Array.from({ length: steps + 1 }, () => {
    const left = length(theta) / start;
    step(theta.map((value) => slope * value)).forEach((change, i) => {
      theta[i] -= change;
    });
    return left;
  });
}
