// The length of the update, the limit, the recovery and the rise, as gaba.multipliers and the
// Balancer have them for tasks that are all present.

import { contributions, sum, zip } from "./rules.js";

/**
 * m_k = clip(a w_k, 1/L, L) for what a rule asks for, w, and the norms g. `scale` chooses a:
 * "sum": Σ m g = Σ g; "geometric": the geometric mean of m is 1; "max": max m g = max g;
 * "anchor": task 1 keeps 1; "simplex": m = w, without a limit.
 */
export function multipliers(scale, wanted, norms, limit = Infinity) {
  if (scale === "simplex") return wanted;
  const held = (factor) => wanted.map((w) => Math.min(limit, Math.max(1 / limit, factor * w)));
  const factors = {
    sum: () => filled(wanted, norms, limit, held),
    geometric: () => Math.exp(-sum(wanted.map(Math.log)) / wanted.length),
    max: () => Math.max(...norms) / Math.max(...contributions(wanted, norms)),
    anchor: () => 1 / wanted[0],
  };
  return held(factors[scale]());
}

/** The a with Σ clip(a w, 1/L, L) g = Σ g: between two points where a limit begins to act it is linear. */
function filled(wanted, norms, limit, held) {
  const target = sum(norms);
  const free = target / sum(contributions(wanted, norms));
  if (wanted.every((w) => free * w <= limit && free * w >= 1 / limit)) return free;
  const pull = (factor) => sum(contributions(held(factor), norms));
  const points = wanted.flatMap((w) => [1 / limit / w, limit / w]).sort((a, b) => a - b);
  const above = Math.max(1, points.findIndex((point) => pull(point) >= target));
  const [low, high] = [points[above - 1], points[above]];
  const [from, to] = [pull(low), pull(high)];
  return to > from ? low + ((high - low) * (target - from)) / (to - from) : (low + high) / 2;
}

/** Norms that count as no less than their peak over R, so that a task that converges is not boosted further. */
export function recovery(R) {
  let peak = [];
  return (norms) => {
    peak = norms.map((g, k) => Math.max(g, peak[k] ?? 0));
    return zip(norms, peak, (g, most) => Math.max(g, most / R));
  };
}

/** Multipliers in use: none grows by more than a factor of R in one step, from `start` on; they fall at once. */
export function rise(R, start) {
  let used = start;
  return (asked) => {
    used = zip(asked, used, (m, before) => Math.min(m, R * before));
    return used;
  };
}
