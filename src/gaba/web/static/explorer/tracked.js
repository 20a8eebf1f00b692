// Tracked shares, the loop of the method "gaba" for tasks that are all present, measured in each step.
//
// The update u = Σ m ∇L is made anyway. What it reveals of task k is q_k = ⟨∇L_k, u⟩: the part of the
// update that it accounts for, m_k q_k / Σ m_j q_j, and an effective norm, √(q_k / m_k).

import { multipliers, recovery, rise } from "./multipliers.js";
import { gramianOf, inverseNorm, shares, zip } from "./rules.js";
import { generator } from "./simulate.js";
import { belief } from "./stabilisers.js";

/** A task that contributes less than this part of the median has no gradient worth an answer. */
const DEAD = 1e-6;

/**
 * The loop. It is called with the Gramian of each step and gives what happens there:
 * { multipliers, shares } of its update; { measured, believed } norms, in the first step the exact
 * ones; { asked, atLimit } the multipliers of the next step before their rise is bounded.
 */
export function tracked(nTasks, { limit = 64, recover = 8, rising = 1.2, rate = 0.01 } = {}) {
  const believe = belief(rate, nTasks);
  const recovered = recovery(recover);
  const bounded = rise(rising, new Array(nTasks).fill(1));
  let asked = null;
  const learn = (measured) => {
    const living = asked === null ? measured : withoutDead(measured, asked);
    const believed = believe(living);
    const norms = recovered(believed);
    asked = multipliers("sum", inverseNorm(norms), norms, limit);
    return { measured, believed };
  };
  return (gramian) => {
    const first = asked === null ? learn(gramian.map((row, k) => Math.sqrt(row[k]))) : null;
    const used = bounded(asked);
    const seen = first ?? learn(effectiveNorms(products(gramian, used), used));
    const atLimit = asked.map((m) => m === limit || m === 1 / limit);
    return { multipliers: used, shares: shares(used, gramian), ...seen, asked, atLimit };
  };
}

/** q = G m. */
function products(gramian, m) {
  return gramian.map((row) => row.reduce((total, value, l) => total + value * m[l], 0));
}

/** √(q/m), with the sign of q: a task that opposes the update has a negative one. */
function effectiveNorms(q, m) {
  return zip(q, m, (slope, factor) => Math.sign(slope) * Math.sqrt(Math.abs(slope / factor)));
}

/** Norms with 0, which is not taken in, for a task whose gradient has all but vanished. */
function withoutDead(norms, m) {
  const pulls = zip(norms, m, (g, factor) => factor * Math.abs(g));
  const ordered = [...pulls].sort((a, b) => a - b);
  const middle = (ordered[(ordered.length - 1) >> 1] + ordered[ordered.length >> 1]) / 2;
  return zip(norms, pulls, (g, pull) => (pull < DEAD * middle ? 0 : g));
}

/**
 * The Gramians of a run of three tasks, step by step: constant norms with log-normal noise of mean 1;
 * from half of the steps on, that of task 1 is `jump` times as large; `cosine` is that of tasks 2 and 3.
 */
export function gramians({ norms, cosine, noise, jump, steps, seed }) {
  const random = generator(seed);
  const cosines = [[1, 0, 0], [0, 1, cosine], [0, cosine, 1]];
  return Array.from({ length: steps }, (_, i) => {
    const now = norms.map((g, k) => g * (k === 0 && i >= steps / 2 ? jump : 1) * Math.exp(noise * random.normal() - (noise * noise) / 2));
    return gramianOf(now, cosines);
  });
}
